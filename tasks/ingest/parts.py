"""The step that reads one chunk: its rows parsed, made instants, and laid out by series and time in Arrow files.

A run is one such file: rows of the series of one bucket, sorted by series and time. Series fall into buckets by a
digest of their names, so that the rows of one series are found again without looking at those of the others.
"""

import zlib
from dataclasses import asdict

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from tasks.ingest.files import Chunk
from tasks.ingest.reading import Found, RowFault, Rows, read_piece
from tasks.ingest.sources import SourceSpec
from tasks.ingest.stamps import shown
from tasks.policy import step, this_call
from tasks.storage import Draft, Receipt, Store

BUCKETS = 64
FLUSH = 1 << 21  # rows of a long stream that are sorted at a time
RUN = 1 << 19  # rows in a run at most


class Run(BaseModel):
    """One Arrow file of a part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bucket: int
    rows: int
    first: int  # microseconds UTC, the oldest stamp
    last: int
    sha256: str


class Part(Receipt):
    """The rows of one chunk as runs, and `notes.json` with its faults and repairs."""

    rows: int
    runs: tuple[Run, ...]
    num_faults: int
    num_repairs: int


@step(libraries=("numpy", "pandas", "pyarrow", "tzdata"))
def read(source: SourceSpec, chunk: Chunk, store: Store) -> Part:
    """Read one chunk of a source into runs."""
    with store.draft(this_call()) as draft:
        runs, notes = write_runs(source, chunk, draft)
        draft.write_json("notes.json", notes)
        files = draft.files()
        runs = [Run(sha256=files[run["name"]]["sha256"], **run) for run in runs]
        counts = {"num_faults": len(notes["faults"]), "num_repairs": len(notes["repairs"])}
        return draft.commit(Part, rows=sum(run.rows for run in runs), runs=tuple(runs), **counts)


def write_runs(source: SourceSpec, chunk: Chunk, draft: Draft) -> tuple[list[dict], dict]:
    """Write the runs of a chunk; returns what each holds, and the faults and repairs met on the way."""
    runs: list[dict] = []
    waiting: list[Rows] = []
    faults: list[dict] = []
    repairs: dict[tuple[str, str], int] = {}

    def flush() -> None:
        for bucket, table in to_runs(source, waiting):
            for at in range(0, len(table), RUN):
                piece = table.slice(at, RUN)
                name = f"{len(runs):05d}.arrow"
                with pa.OSFile(str(draft.path(name)), "wb") as sink, pa.ipc.new_file(sink, piece.schema) as writer:
                    writer.write_table(piece)
                stamps = piece["timestamp"].chunk(0).cast(pa.int64()).to_numpy()
                low, high = int(stamps.min()), int(stamps.max())
                runs.append({"name": name, "bucket": bucket, "rows": len(piece), "first": low, "last": high})
        waiting.clear()

    for number, piece in enumerate(chunk.pieces):
        last: dict[str, int] = {}  # the newest stamp of each series in this file
        for rows in read_piece(source, piece):
            faults += [{"piece": number} | asdict(fault) for fault in [*rows.faults, *check_order(source, rows, last, repairs)]]
            for key, count in rows.repairs.items():
                repairs[key] = repairs.get(key, 0) + count
            waiting.append(rows)
            if sum(len(one.stamps) for one in waiting) >= FLUSH:
                flush()
    flush()
    done = [{"series_id": series_id, "what": what, "count": count} for (series_id, what), count in sorted(repairs.items())]
    return runs, {"faults": faults, "repairs": done}


def check_order(source: SourceSpec, rows: Rows, last: dict[str, int], repairs: dict[tuple[str, str], int]) -> list[RowFault]:
    """The series whose stamps go back in time; `last` is what came before, and is brought up to date."""
    found = Found()
    for own in by_series(rows.codes):
        name, stamps = rows.names[rows.codes[own[0]]], rows.stamps[own]
        before = np.concatenate([[last.get(name, stamps[0])], stamps[:-1]])
        back = np.flatnonzero(stamps < before)
        last[name] = int(stamps[-1])
        if not len(back):
            continue
        if source.order == "sort":
            repairs[name, "stamps out of order"] = repairs.get((name, "stamps out of order"), 0) + len(back)
            continue
        said = (
            f"{shown(stamps[back[0]])} UTC comes after {shown(before[back[0]])} UTC; sort the file or set source.order='sort'"
        )
        found.add("order", name, "", said, len(back))
    return found.entries()


def by_series(codes: np.ndarray) -> list[np.ndarray | slice]:
    """The rows of each series, in file order."""
    if not len(codes):
        return []
    if codes[0] == codes[-1] and (codes == codes[0]).all():
        return [np.arange(len(codes))]
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def bucket_of(series_id: str) -> int:
    """The bucket of a series, the same for ever."""
    return zlib.crc32(series_id.encode()) % BUCKETS


def to_runs(source: SourceSpec, waiting: list[Rows]) -> list[tuple[int, pa.Table]]:
    """The rows of each bucket, sorted by series and time; rows of one stamp stay in file order."""
    names = sorted({name for rows in waiting for name in rows.names}, key=lambda name: (bucket_of(name), name))
    rank = {name: number for number, name in enumerate(names)}
    codes = [np.array([rank[name] for name in rows.names], np.int32)[rows.codes] for rows in waiting if len(rows.codes)]
    if not codes:
        return []
    codes = np.concatenate(codes)
    stamps = np.concatenate([rows.stamps for rows in waiting])
    values = [np.concatenate([rows.values[:, column] for rows in waiting]) for column in range(len(source.value_columns))]
    step_back = (codes[1:] < codes[:-1]) | ((codes[1:] == codes[:-1]) & (stamps[1:] < stamps[:-1]))
    if step_back.any():
        order = np.lexsort((stamps, codes))
        codes, stamps, values = codes[order], stamps[order], [column[order] for column in values]
    buckets = np.array([bucket_of(name) for name in names])
    present = np.unique(buckets)
    edges = np.searchsorted(codes, np.searchsorted(buckets, present))
    edges = [*edges.tolist(), len(codes)]
    runs = []
    for bucket, begin, end in zip(present.tolist(), edges[:-1], edges[1:], strict=True):
        if begin < end:
            first = int(np.searchsorted(buckets, bucket))
            own = [name for name in names[first:] if bucket_of(name) == bucket]
            used = slice(begin, end)
            runs.append((bucket, run_table(source, codes[used] - first, own, stamps[used], [c[used] for c in values])))
    return runs


def run_table(source: SourceSpec, codes: np.ndarray, names: list[str], stamps: np.ndarray, values: list) -> pa.Table:
    seen, index = np.unique(codes, return_inverse=True) if len(names) > 1 else (np.array([0]), codes)
    ids = pa.DictionaryArray.from_arrays(index.astype(np.int32), [names[code] for code in seen])
    columns = [ids, pa.array(stamps).view(pa.timestamp("us", "UTC")), *(pa.array(column) for column in values)]
    return pa.table(columns, names=["series_id", "timestamp", *source.value_columns])
