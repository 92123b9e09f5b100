"""What was read, surveyed: its frequency, and the shards of series that are the unit of all further work."""

import mmap
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from models.errors import Fault, counted
from tasks.ingest.chunks import Chunk
from tasks.ingest.parts import BUCKETS, Part, Run, bucket_of
from tasks.ingest.timeline import infer_frequency, parse_timezone, season_of
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Receipt, Store

SHARD_ROWS = 1 << 20  # rows that a shard is meant to have, where there are series enough
SERIES_A_SHARD = 4  # series that a shard is meant to have at least, up to MANY shards
MANY = 16
SAMPLED = 20_000  # stamps of a series that its frequency is inferred from


class Overview(Receipt):
    """The frequency of a source and how its series are grouped."""

    frequency: str
    inferred: bool
    season: int
    rows: int
    num_series: int
    num_shards: int


class Slice(BaseModel):
    """The runs of one part that belong to a shard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str  # key
    runs: tuple[Run, ...]
    follows: bool  # whether it goes on in the file of the slice before it
    repairs: tuple[tuple[str, str, int], ...] = ()  # series, what was done to its rows while reading, how often


class Shard(BaseModel):
    """Everything that was read of some series."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    slices: tuple[Slice, ...]
    set_aside: tuple[str, ...] = ()  # series with faults that were met while reading

    def cache_identity(self) -> list:
        content = [[int(one.follows), *(run.sha256 for run in one.runs), *map(list, one.repairs)] for one in self.slices]
        return [content, list(self.set_aside)]

    @property
    def rows(self) -> int:
        return sum(run.rows for one in self.slices for run in one.runs)


@step(libraries=("numpy", "pandas", "tzdata"))
def survey(frequency: str | None, timezone: str, parts: list[Part], store: Store) -> Overview:
    """Find out the frequency, how many series there are, and how many shards to make of them."""
    rows, names = sum(part.rows for part in parts), set()
    for run in every_run(parts):
        names |= set(names_in(run_path(store, *run)))
    found = frequency or most_common_frequency(timezone, parts, store)
    say(f"{counted(rows, 'rows')} of {len(names):,} series, every {found}" + (" (inferred)" if frequency is None else ""))
    with store.draft(this_call()) as draft:
        draft.write_json("overview.json", {"frequency": found, "series": len(names)})
        return draft.commit(
            Overview, frequency=found, inferred=frequency is None, season=season_of(found), rows=rows, num_series=len(names),
            num_shards=count_shards(rows, len(names)),
        )  # fmt: skip


def every_run(parts: list[Part]) -> Iterator[tuple[str, Run]]:
    """Each run with the key of its part, in the order of the source."""
    for part in parts:
        for run in part.runs:
            yield part.key, run


def run_path(store: Store, key: str, run: Run) -> Path:
    return store.folder("read", key) / run.name


class MappedRun:
    """A run's rows, mapped from disk: looked at where they lie, and let go of when they have been copied."""

    def __init__(self, path: Path):
        with open(path, "rb") as file:
            self.mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.table = pa.ipc.open_file(pa.py_buffer(self.mapped)).read_all()

    def release(self) -> None:
        """Give the memory back to the system; the rows can still be read, from disk."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.mapped.madvise(mmap.MADV_DONTNEED)


def open_run(path: Path) -> pa.Table:
    """A run's rows, mapped from disk."""
    return MappedRun(path).table


def names_in(path: Path) -> list[str]:
    """The series of a run."""
    return open_run(path)["series_id"].chunk(0).dictionary.to_pylist()


def count_shards(rows: int, num_series: int) -> int:
    """A power of two, so that growth seldom changes it: more for more series, and for more rows where there are as many."""
    by_series = min(MANY, num_series // SERIES_A_SHARD)
    by_rows = min(BUCKETS, num_series, -(-rows // SHARD_ROWS) if rows > 2 * SHARD_ROWS else 1)
    wanted = max(1, by_series, by_rows)
    return min(BUCKETS, 1 << (wanted - 1).bit_length())


def most_common_frequency(timezone: str, parts: list[Part], store: Store) -> str:
    """The frequency that most of some series have.

    Raises:
        Fault: no series has enough stamps to tell.
    """
    seen: Counter[str] = Counter()
    buckets = sorted({run.bucket for _, run in every_run(parts)})
    fault = Fault("The source has a header and no rows.")
    for bucket in buckets[:8]:
        try:
            seen[infer_frequency(sample_stamps(bucket, timezone, parts, store))] += 1
        except Fault as error:
            fault = error
    if not seen:
        raise fault
    return seen.most_common(1)[0][0]


def sample_stamps(bucket: int, timezone: str, parts: list[Part], store: Store) -> pd.DatetimeIndex:
    """Some stamps of the first series of a bucket, on the local clock."""
    found, name, count = [], None, 0
    for key, run in every_run(parts):
        if run.bucket != bucket or count >= SAMPLED:
            continue
        table = open_run(run_path(store, key, run))
        ids = table["series_id"].chunk(0)
        name = name or ids.dictionary[0].as_py()
        at = ids.dictionary.to_pylist()
        if name in at:
            own = np.flatnonzero(ids.indices.to_numpy() == at.index(name))[:SAMPLED]
            found.append(table["timestamp"].chunk(0).cast(pa.int64()).to_numpy()[own])
            count += len(own)
    stamps = pd.DatetimeIndex(np.concatenate(found).view("datetime64[us]"), tz="UTC")
    return stamps.tz_convert(parse_timezone(timezone))


def cut_shards(
    chunks: list[Chunk], parts: list[Part], overview: Overview, faulty: set[str], repairs: list[list[dict]]
) -> list[Shard]:
    """The shards that have rows; `faulty` series are set aside in theirs.

    Args:
        repairs: what was done while reading, part by part, as their notes have it.
    """
    files = [{piece.file.path for piece in chunk.pieces} for chunk in chunks]
    number_of = partial(shard_of, num_shards=overview.num_shards)
    shards = []
    for number in range(overview.num_shards):
        slices, before = [], None
        for at, part in enumerate(parts):
            runs = tuple(run for run in part.runs if run.bucket % overview.num_shards == number)
            own = tuple(
                (one["series_id"], one["what"], one["count"]) for one in repairs[at] if number_of(one["series_id"]) == number
            )
            if runs or own:
                follows = before is not None and len(files[at]) == 1 and files[at] == files[before]
                slices.append(Slice(part=part.key, runs=runs, follows=follows, repairs=own))
                before = at
        aside = tuple(sorted(name for name in faulty if number_of(name) == number))
        if any(one.runs for one in slices):
            shards.append(Shard(number=number, slices=tuple(slices), set_aside=aside))
    return shards


def shard_of(series_id: str, num_shards: int) -> int:
    return bucket_of(series_id) % num_shards
