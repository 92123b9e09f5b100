"""Damaged files: each is refused with a Fault, or read as a slow reader that shares no code with ingestion reads it.

A case follows from its seed alone: a well-formed file in one of many dialects, up to three kinds of damage, and what the
slow reader makes of the result. Cases run in processes of their own, for a damaged footer can bring down a native
library or ask for all memory; a process that dies, or takes longer than `SECONDS` over a case, is a failure of that case.
Seeds are counted through rather than drawn by hypothesis, which would have to see each failure in its own process and
starts afresh after one; `shrunk` leaves away the damage that a failure does not need, and `reproduce(seed)` replays it.
"""

import json
import multiprocessing
import resource
import sys
import time
import warnings
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.ipc
import pytest
from damage import Case, make_case
from slow_reader import Reading, Refused, Unspecified, exact, read_slowly

from models.errors import Fault
from tasks.ingest import chunks, reading
from tasks.ingest.parts import write_runs
from tasks.ingest.sources import SourceSpec

NUM_CASES = 10_000  # under six minutes on two cores
NUM_SAMPLED = 300  # of each run of the tests
WORKERS = 2
SECONDS = 20  # a case
MOST = 512 << 20  # bytes of memory that a case of a few kilobytes may take
MEMORY = 4 << 30  # bytes of addresses that a case may ask for


# What ingestion reads


def read_quickly(source: SourceSpec, folder: Path, through_runs: bool) -> Reading:
    found, stock = Reading(), chunks.take_stock(source, folder / "downloads")
    for chunk in stock:
        for piece in chunk.pieces:
            for rows in reading.read_piece(source, piece):
                columns = [map(exact, column.tolist()) for column in rows.values]
                for code, *row in zip(rows.codes.tolist(), rows.stamps.tolist(), *columns, strict=True):
                    found.rows.setdefault(rows.names[code], []).append(tuple(row))
                note(found, [fault.series_id for fault in rows.faults])
    if through_runs:
        check_runs(source, stock, folder, found)
    return found


def note(found: Reading, series: list[str | None]) -> None:
    if None in series:
        raise Fault("A fault that is of no one series.")
    found.faulty.update(series)


def check_runs(source: SourceSpec, stock: list, folder: Path, read: Reading) -> None:
    """Asserts that the runs of each chunk hold what was read of it, sorted by series and time."""
    found: dict[str, list] = {}
    for number, chunk in enumerate(stock):
        draft = SimpleNamespace(path=lambda name, number=number: folder / f"{number}-{name}")
        for run in write_runs(source, chunk, draft)[0]:
            with pa.ipc.open_file(draft.path(run["name"])) as file:
                table = file.read_all()
            stamps = table["timestamp"].cast(pa.int64()).to_pylist()
            values = [map(exact, table[name].to_pylist()) for name in source.value_columns]
            keys = list(zip(table["series_id"].to_pylist(), stamps, strict=True))
            ranks = {name: rank for rank, name in enumerate(dict.fromkeys(name for name, _ in keys))}
            assert keys == sorted(keys, key=lambda key: (ranks[key[0]], key[1])), f"{run['name']} is not sorted"
            for (name, *_), *row in zip(keys, stamps, *values, strict=True):
                found.setdefault(name, []).append(tuple(row))
    assert {name: sorted(rows) for name, rows in read.rows.items()} == {name: sorted(rows) for name, rows in found.items()}


# Running


def try_case(case: Case, folder: Path, through_runs: bool = False) -> str | None:
    """What is wrong with how ingestion takes a case, None where nothing is."""
    path = folder / case.name
    path.write_bytes(case.content)
    source = SourceSpec(uri=str(path), **case.spec)
    chunks.CHUNK = reading.SAMPLE = case.chunk
    try:
        found: Reading | Fault = read_quickly(source, folder, through_runs)
    except Fault as fault:
        found = fault
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:2000]
    if case.rows is not None:
        return judge_parquet(case, found)
    try:
        return judge(found, read_slowly(source, case.content, case.codec))
    except Refused as refused:
        return None if isinstance(found, Fault) else f"accepted, but {refused}"
    except Unspecified:
        return None


def judge(found: "Reading | Fault", slow: Reading) -> str | None:
    if isinstance(found, Fault):
        return None if slow.open else f"refused, but well formed: {found}"
    missed = slow.faulty - found.faulty if slow.open else slow.faulty ^ found.faulty
    if missed:
        return f"series with faults: {sorted(found.faulty)}, but {sorted(slow.faulty)} have some"
    for name in sorted((slow.rows.keys() | found.rows.keys()) - found.faulty):
        fast, own = found.rows.get(name, []), slow.rows.get(name, [])
        if fast != own:
            at = next(at for at in range(len(fast) + len(own)) if fast[at : at + 1] != own[at : at + 1])
            return f"{name!r} row {at}: {fast[at : at + 1]} of {len(fast)}, but {own[at : at + 1]} of {len(own)}"
    return None


def judge_parquet(case: Case, found: "Reading | Fault") -> str | None:
    """A file that is whole is read; one that is damaged may only be taken for another where nothing could tell."""
    whole = len(case.done) == 1
    if isinstance(found, Fault):
        return f"refused, but well formed: {found}" if whole else None
    same = not found.faulty and found.rows == case.rows
    return None if same or not (whole or case.checked) else "other rows than were written"


def shrunk(seed: int, folder: Path, through_runs: bool) -> tuple[int, ...]:
    """As little of the damage as still fails."""
    kept = tuple(range(3))
    for number in range(3):
        fewer = tuple(one for one in kept if one != number)
        if try_case(make_case(seed, fewer), folder, through_runs):
            kept = fewer
    return kept


def reproduce(seed: int, folder: Path, kept: tuple[int, ...] | None = None) -> str | None:
    """Replay one case in this process; its file is left in the folder."""
    return try_case(make_case(seed, kept), folder, seed % 4 == 0)


def peak_memory() -> int:
    """Bytes that this process has ever held at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def work(pipe, folder: Path, first: int, until: int, every: int) -> None:
    """Run every so many cases from the first; tells of each before it begins and when it is done."""
    warnings.simplefilter("error")
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if pages is not None:
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for seed in range(first, until, every):
        pipe.send((seed, None))
        before = peak_memory()
        said = reproduce(seed, folder)
        if peak_memory() > before + MOST:
            said = f"took {peak_memory() - before >> 20} MiB ({said})"
        elif said:
            kept = shrunk(seed, folder, seed % 4 == 0)
            case = make_case(seed, kept)
            said = f"{said}\n  {case.name} in chunks of {case.chunk}: {'; '.join(case.done)}\n  {json.dumps(case.spec)}"
            said += f"\n  reproduce({seed}, folder, {kept})"
        pipe.send((seed, said or ""))
    pipe.send((None, None))


class Worker:
    """A process that runs cases, and the one that it is at."""

    def __init__(self, folder: Path, first: int, until: int, every: int):
        self.folder, self.until, self.every = folder, until, every
        folder.mkdir(exist_ok=True)
        self.start(first)

    def start(self, first: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.folder, first, self.until, self.every), daemon=True)
        self.process.start()
        theirs.close()
        self.seed, self.since, self.done = first, time.monotonic() + 60, False  # a minute to begin

    def hear(self) -> str | None:
        """Take what the process has to say; returns a failure."""
        try:
            seed, said = self.pipe.recv()
        except EOFError:
            self.process.join()
            return self.give_up(f"the process ended with {self.process.exitcode}")
        self.done, self.since = seed is None, time.monotonic()
        self.seed = self.seed if seed is None else seed
        return f"seed {seed}: {said}" if said else None

    def give_up(self, why: str) -> str:
        """Say what happened at a case and go on with the next one."""
        self.process.kill()
        self.process.join()
        failure = f"seed {self.seed}: {why}\n  {'; '.join(make_case(self.seed).done)}\n  reproduce({self.seed}, folder)"
        self.done = self.seed + self.every >= self.until
        if not self.done:
            self.start(self.seed + self.every)
        return failure


def run_cases(first: int, count: int, folder: Path, most: int = 20) -> list[str]:
    """The failures of so many cases from a seed on."""
    workers = [Worker(folder / str(at), first + at, first + count, WORKERS) for at in range(WORKERS)]
    failures: list[str] = []
    while (busy := {one.pipe: one for one in workers if not one.done}) and len(failures) < most:
        heard = [busy[pipe].hear() for pipe in wait(list(busy), timeout=1)]
        late = [one.give_up(f"took more than {SECONDS} s") for one in busy.values() if time.monotonic() - one.since > SECONDS]
        failures += [one for one in [*heard, *late] if one]
    for one in workers:
        one.process.kill()
        one.process.join()
    return failures


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_damaged_files_are_refused_or_read_as_they_are(tmp_path):
    failures = run_cases(NUM_SAMPLED, NUM_CASES, tmp_path)
    assert not failures, "\n" + "\n".join(failures)


def test_some_damaged_files_are_refused_or_read_as_they_are(tmp_path):
    failures = run_cases(0, NUM_SAMPLED, tmp_path)
    assert not failures, "\n" + "\n".join(failures)
