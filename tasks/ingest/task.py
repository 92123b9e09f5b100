"""The step that makes canonical Parquet of one shard: sorted by series and time, regular, checked."""

from pydantic import BaseModel, ConfigDict

from models.errors import counted
from tasks.ingest.arranging import arranged
from tasks.ingest.grid import Grid
from tasks.ingest.panel import Ledger
from tasks.ingest.resuming import Sweeps
from tasks.ingest.segments import SegmentWriter
from tasks.ingest.shards import Shard
from tasks.ingest.sources import SourceSpec
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Draft, Receipt, Store


class Segment(BaseModel):
    """One canonical Parquet file: whole series, or up to `SEGMENT` rows of one that is longer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    continues: bool  # its first rows follow the last of the segment before it
    sha256: str


class Series(Receipt):
    """Canonical Parquet of one shard in segments, and `index.json` with what is known of each series."""

    shard: int
    rows: int
    steps: int  # rows up to the last target of their series
    num_series: int
    first: int  # microseconds UTC, the oldest stamp
    last: int  # the newest stamp that has a target
    segments: tuple[Segment, ...]
    repairs: dict[str, int]  # what was done -> how often
    num_faults: int  # series set aside, each of them with its faults in index.json


@step(libraries=("numpy", "pandas", "pyarrow", "tzdata"))
def ingest(source: SourceSpec, shard: Shard, frequency: str, store: Store) -> Series:
    """Arrange what was read of one shard into canonical Parquet."""
    with store.draft(this_call()) as draft:
        facts = write_canonical(source, shard, Grid(frequency, source.timezone), store, draft)
        if facts["repairs"]:
            say("repaired: " + ", ".join(counted(count, what) for what, count in facts["repairs"].items()))
        return draft.commit(Series, **facts)


def write_canonical(source: SourceSpec, shard: Shard, grid: Grid, store: Store, draft: Draft) -> dict:
    """Write the segments and the index of a shard; returns what its receipt states."""
    ledger, writer = Ledger(grid.say), SegmentWriter(draft, source)
    sweeps = Sweeps(source, grid, store, draft, writer)
    note_repairs_of_reading(shard, ledger)
    for rows in arranged(source, shard, grid, ledger, store, sweeps):
        writer.add(rows.panel, rows.long, rows.refused)
    writer.close()
    sweeps.keep()
    index = writer.index(ledger)
    draft.write_json("index.json", index)
    return receipt_facts(shard, index, writer, draft)


def receipt_facts(shard: Shard, index: dict, writer: SegmentWriter, draft: Draft) -> dict:
    """What the receipt of a shard states."""
    files, kept = draft.files(), list(index["series"].values())
    segments = [Segment(sha256=files[one["name"]]["sha256"], **one) for one in writer.segments]
    totals: dict[str, int] = {}
    for one in index["repairs"]:
        totals[one["what"]] = totals.get(one["what"], 0) + one["count"]
    return {
        "shard": shard.number, "rows": sum(one["rows"] for one in kept), "steps": sum(one["steps"] for one in kept),
        "num_series": len(kept), "first": min((one["first"] for one in kept), default=0),
        "last": max((one["last"] for one in kept), default=0), "segments": tuple(segments), "repairs": totals,
        "num_faults": len({one["series_id"] for one in index["faults"]}),
    }  # fmt: skip


def note_repairs_of_reading(shard: Shard, ledger: Ledger) -> None:
    """Count what was repaired while reading, under this shard's series."""
    for one in shard.slices:
        for series_id, what, count in one.repairs:
            ledger.repairs[series_id, what] = ledger.repairs.get((series_id, what), 0) + count
