"""The step that makes canonical Parquet of one shard: sorted by series and time, regular, checked.

A shard of many series is arranged in memory, all of them at once; a series of many millions of rows goes by slab by
slab, so that memory stays small whatever its length.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from tasks.ingest.grid import Grid, put_on_grid, spans
from tasks.ingest.panel import (
    Ledger,
    Panel,
    check_static,
    check_values,
    drop_incomplete,
    drop_leading_blanks,
    fill_holes,
    settle_duplicates,
)
from tasks.ingest.parts import bucket_of
from tasks.ingest.rules import check_rules
from tasks.ingest.shards import Shard, open_run, run_path
from tasks.ingest.sources import SourceSpec
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Draft, Receipt, Store

SEGMENT = 1 << 20  # rows in a segment, and rows that are arranged at once
ROW_GROUP = 1 << 17


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
    grid = Grid(frequency, source.timezone)
    with store.draft(this_call()) as draft:
        ledger, writer = Ledger(grid.say), SegmentWriter(draft, source)
        ledger_of_reading(shard, store, ledger)
        for rows in arranged(source, shard, grid, ledger, store):
            writer.add(rows)
        writer.close()
        index = writer.index(ledger)
        draft.write_json("index.json", index)
        facts = receipt_facts(shard, index, writer, draft)
        if facts["repairs"]:
            say("repaired: " + ", ".join(f"{count:,} {what}" for what, count in facts["repairs"].items()))
        return draft.commit(Series, **facts)


def receipt_facts(shard: Shard, index: dict, writer: "SegmentWriter", draft: Draft) -> dict:
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


def ledger_of_reading(shard: Shard, store: Store, ledger: Ledger) -> None:
    """Count what was repaired while reading, under this shard's series."""
    buckets = {run.bucket for one in shard.slices for run in one.runs}
    for one in shard.slices:
        notes = store.folder("read", one.part) / "notes.json"
        for note in json.loads(notes.read_bytes())["repairs"]:
            if bucket_of(note["series_id"]) in buckets:
                key = (note["series_id"], note["what"])
                ledger.repairs[key] = ledger.repairs.get(key, 0) + note["count"]


@dataclass
class Arranged:
    """Rows that are ready to be written."""

    panel: Panel
    long: bool = False  # a part of one series that fills segments of its own
    anew: bool = False  # what came before of that series does not count


def arranged(source: SourceSpec, shard: Shard, grid: Grid, ledger: Ledger, store: Store) -> Iterator[Arranged]:
    """Regular, checked panels in the order of series and time; series with faults are left out."""
    pieces = load_runs(shard, store)
    names = sorted({name for piece in pieces for name in piece.names} - set(shard.set_aside))
    check_order_between_files(source, pieces, ledger)
    sizes = {name: sum(piece.size(name) for piece in pieces) for name in names}
    for group in pack(names, sizes):
        if sizes[group[0]] > SEGMENT:
            yield from sweep(source, pieces, group[0], grid, ledger)
        else:
            yield Arranged(arrange(source, gather(pieces, group), grid, ledger))


def pack(names: list[str], sizes: dict[str, int]) -> Iterator[list[str]]:
    """Neighbouring series that have `SEGMENT` rows together at most; a longer one goes by itself."""
    group: list[str] = []
    for name in names:
        if group and sum(sizes[own] for own in group) + sizes[name] > SEGMENT:
            yield group
            group = []
        group.append(name)
    if group:
        yield group


def arrange(source: SourceSpec, panel: Panel, grid: Grid, ledger: Ledger, origin: int | None = None) -> Panel:
    """One panel through every step, without the series that turn out to have faults."""
    panel = settle_duplicates(panel, source, ledger)
    if source.wide:
        panel = drop_leading_blanks(panel, ledger)
    panel = drop_incomplete(panel, source, ledger)
    check_static(panel, source, ledger)
    panel = put_on_grid(panel, grid, source, ledger, origin)
    check_values(panel, source, ledger)
    check_rules(panel, source, ledger)
    panel = fill_holes(panel, source, ledger)
    if faulty := ledger.faulty & set(panel.names):
        panel = panel.keep(~np.isin(panel.codes, [at for at, name in enumerate(panel.names) if name in faulty]))
    return panel


@dataclass
class Piece:
    """The rows of one run, mapped from disk."""

    slice_number: int
    follows: bool
    names: list[str]
    codes: np.ndarray
    stamps: np.ndarray
    columns: list[np.ndarray]
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)  # a run is sorted by series

    def size(self, name: str) -> int:
        begin, end = self.ranges.get(name, (0, 0))
        return end - begin


def load_runs(shard: Shard, store: Store) -> list[Piece]:
    """Every run of a shard, in the order of the source."""
    pieces = []
    for number, one in enumerate(shard.slices):
        for run in one.runs:
            table = open_run(run_path(store, one.part, run))
            ids = table["series_id"].chunk(0)
            codes, names = ids.indices.to_numpy(), ids.dictionary.to_pylist()
            edges = np.searchsorted(codes, np.arange(len(names) + 1))
            stamps = table["timestamp"].chunk(0).cast(pa.int64()).to_numpy()
            columns = [column.chunk(0).to_numpy() for column in table.columns[2:]]
            ranges = {name: (int(edges[at]), int(edges[at + 1])) for at, name in enumerate(names)}
            pieces.append(Piece(number, one.follows, names, codes, stamps, columns, ranges))
    return pieces


def check_order_between_files(source: SourceSpec, pieces: list[Piece], ledger: Ledger) -> None:
    """Stamps that go back from one part of a file to the next; within a part, reading has seen to them."""
    newest: dict[str, int] = {}
    number = -1
    for piece in pieces:
        if piece.slice_number != number:
            number, before = piece.slice_number, newest
            newest = {} if not piece.follows else dict(before)
        for name, (begin, end) in piece.ranges.items():
            first = int(piece.stamps[begin])
            if piece.follows and name in before and first < before[name]:
                panel = Panel([name], np.zeros(1, np.int32), np.array([first]), np.zeros((1, 1)))
                if source.order == "sort":
                    ledger.repaired(panel, np.array([0]), "stamps out of order")
                else:
                    said = (
                        f"{ledger.say(first)} comes after {ledger.say(before[name])}. Sort the file or set source.order='sort'."
                    )
                    ledger.fault(panel, np.array([0]), "order", lambda row, count, said=said: said)
            newest[name] = max(newest.get(name, first), int(piece.stamps[end - 1]))


def gather(pieces: list[Piece], names: list[str]) -> Panel:
    """The rows of some series, sorted by series and time; rows of one stamp stay in the order of the source."""
    number = {name: at for at, name in enumerate(names)}
    codes, stamps, columns = [], [], []
    for piece in pieces:
        chosen = [(number[name], *piece.ranges[name]) for name in piece.names if name in number]
        for code, begin, end in sorted(chosen, key=lambda one: one[1]):
            codes.append(np.full(end - begin, code, np.int32))
            stamps.append(piece.stamps[begin:end])
            columns.append([column[begin:end] for column in piece.columns])
    return to_panel(names, codes, stamps, columns)


def to_panel(names: list[str], codes: list, stamps: list, columns: list[list]) -> Panel:
    codes, stamps = np.concatenate(codes), np.concatenate(stamps)
    values = np.empty((len(codes), len(columns[0])))
    for column in range(values.shape[1]):
        np.concatenate([own[column] for own in columns], out=values[:, column])
    if ((codes[1:] < codes[:-1]) | ((codes[1:] == codes[:-1]) & (stamps[1:] < stamps[:-1]))).any():
        order = np.lexsort((stamps, codes))
        codes, stamps, values = codes[order], stamps[order], values[order]
    return Panel(names, codes, stamps, values)


def sweep(source: SourceSpec, pieces: list[Piece], name: str, grid: Grid, ledger: Ledger) -> Iterator[Arranged]:
    """A series too long for memory, slab by slab in the order of time.

    Rows after the last complete one of a slab wait for the next, so that every hole is seen whole. That one waits too,
    to have a neighbour for what follows; it is written once.
    """
    waiting: Panel | None = None
    origin, written = 0, False
    for slab, last in slabs(pieces, name):
        panel = settle_duplicates(slab if waiting is None else join(waiting, slab), source, ledger)
        origin = origin or int(panel.stamps[0])
        until = len(panel.codes)
        if not last:
            complete = np.flatnonzero(~np.isnan(panel.values).any(1))
            if not len(complete):
                waiting = panel
                continue
            until = int(complete[-1]) + 1
            waiting = panel.keep(slice(until - 1, None))
        begin = int(panel.stamps[0])
        done = arrange(source, panel.keep(slice(0, until)), grid, ledger, origin)
        if name in ledger.faulty:
            done = done.keep(slice(0, 0))
            yield Arranged(done, long=True, anew=True)
            continue
        anew = not written or int(done.stamps[0]) != begin  # a gap before which nothing is kept
        yield Arranged(done.keep(slice(0 if anew else 1, None if last else len(done.codes) - 1)), long=True, anew=anew)
        written = True


def join(first: Panel, second: Panel) -> Panel:
    return Panel(
        first.names,
        np.concatenate([first.codes, second.codes]),
        np.concatenate([first.stamps, second.stamps]),
        np.concatenate([first.values, second.values]),
    )


def slabs(pieces: list[Piece], name: str) -> Iterator[tuple[Panel, bool]]:
    """The rows of one series in the order of time, about `SEGMENT` at a time, and whether they are the last."""
    own = [(piece, *piece.ranges[name]) for piece in pieces if piece.size(name)]
    edges = cut_times([piece.stamps[begin:end] for piece, begin, end in own])
    for low, high in itertools.pairwise(edges):
        stamps, columns = [], []
        for piece, begin, end in own:
            at, until = begin + np.searchsorted(piece.stamps[begin:end], [low, high])
            if at < until:
                stamps.append(piece.stamps[at:until])
                columns.append([column[at:until] for column in piece.columns])
        if stamps:
            codes = [np.zeros(len(part), np.int32) for part in stamps]
            yield to_panel([name], codes, stamps, columns), high == edges[-1]


def cut_times(stamps: list[np.ndarray]) -> list[int]:
    """Instants that part sorted runs of stamps into slabs of about `SEGMENT` rows; the last lies after all of them."""
    marks = np.sort(np.concatenate([own[:: 1 << 12] for own in stamps]))  # one in 4,096 rows
    each = max(1, SEGMENT >> 12)
    inner = np.unique(marks[each::each]).tolist()
    low, high = min(int(own[0]) for own in stamps), max(int(own[-1]) for own in stamps)
    return [low, *[mark for mark in inner if low < mark <= high], high + 1]


class SegmentWriter:
    """Canonical rows as Parquet segments, and the facts of each series as they go by."""

    def __init__(self, draft: Draft, source: SourceSpec):
        self.draft, self.source, self.schema = draft, source, canonical_schema(source)
        self.segments: list[dict] = []
        self.facts: dict[str, dict] = {}
        self.waiting: list[Panel] = []  # of a long series
        self.begun = 0  # segments there were before that series

    def add(self, rows: Arranged) -> None:
        """Take rows in: short series as one segment, a long one cut every `SEGMENT` rows."""
        if not rows.long or (self.waiting and self.waiting[0].names != rows.panel.names):
            self.end_series()
        if rows.anew:
            self.forget_series(rows.panel)
        self.note(rows.panel)
        if not rows.long:
            if len(rows.panel.codes):
                self.write([rows.panel], continues=False)
            return
        self.waiting.append(rows.panel)
        while sum(len(panel.codes) for panel in self.waiting) >= SEGMENT:
            self.write(self.take(SEGMENT), continues=len(self.segments) > self.begun)

    def end_series(self) -> None:
        """Write what waits of a long series."""
        if rest := self.take(SEGMENT):
            self.write(rest, continues=len(self.segments) > self.begun)
        self.waiting, self.begun = [], len(self.segments)

    def forget_series(self, panel: Panel) -> None:
        """Take back what was written of the series at hand."""
        if self.waiting and self.waiting[0].names != panel.names:
            self.end_series()
        for segment in self.segments[self.begun :]:
            self.draft.path(segment["name"]).unlink()
        del self.segments[self.begun :]
        self.waiting = []
        self.facts.pop(panel.names[0], None)

    def note(self, panel: Panel) -> None:
        for begin, end in spans(panel):
            name = panel.names[panel.codes[begin]]
            seen = np.flatnonzero(~np.isnan(panel.values[begin:end, 0]))
            facts = self.facts.setdefault(name, {"rows": 0, "steps": 0, "first": int(panel.stamps[begin]), "last": 0})
            if len(seen):
                facts["steps"] = facts["rows"] + int(seen[-1]) + 1
                facts["last"] = int(panel.stamps[begin + int(seen[-1])])
            facts["rows"] += end - begin

    def take(self, rows: int) -> list[Panel]:
        """The first `rows` rows of those that wait, or all there are."""
        taken = []
        while self.waiting and rows:
            panel = self.waiting.pop(0)
            if len(panel.codes) > rows:
                self.waiting.insert(0, panel.keep(slice(rows, None)))
                panel = panel.keep(slice(0, rows))
            if len(panel.codes):
                taken.append(panel)
                rows -= len(panel.codes)
        return taken

    def write(self, panels: list[Panel], continues: bool) -> None:
        name = f"segment-{len(self.segments):05d}.parquet"
        with canonical_writer(self.draft.path(name), self.schema) as writer:
            for panel in panels:
                writer.write_table(to_arrow(panel, self.schema, self.source), row_group_size=ROW_GROUP)
        self.segments.append({"name": name, "rows": sum(len(panel.codes) for panel in panels), "continues": continues})

    def close(self) -> None:
        self.end_series()
        if not self.segments:  # every series was set aside
            self.write([], continues=False)

    def index(self, ledger: Ledger) -> dict:
        """What is known of each series: its rows, repairs, and the faults of those set aside."""
        repairs = [{"series_id": name, "what": what, "count": count} for (name, what), count in sorted(ledger.repairs.items())]
        faults = [
            {"series_id": name, "kind": kind, "said": own["said"], "stamp": own["stamp"], "count": own["count"]}
            for (name, kind), own in sorted(ledger.faults.items())
        ]
        kept = {name: facts for name, facts in self.facts.items() if name not in ledger.faulty}
        return {"series": kept, "repairs": repairs, "faults": faults}


def canonical_schema(source: SourceSpec) -> pa.Schema:
    """series_id, timestamp (UTC), target, observed where steps may be masked, covariates."""
    ids = pa.dictionary(pa.int32(), pa.string())
    fields = [pa.field("series_id", ids, nullable=False), pa.field("timestamp", pa.timestamp("us", "UTC"), nullable=False)]
    fields.append(pa.field("target", pa.float64()))
    if source.masks:
        fields.append(pa.field("observed", pa.bool_(), nullable=False))
    return pa.schema([*fields, *(pa.field(name, pa.float64()) for name in source.covariates)])


def canonical_writer(path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path, schema, compression="none", use_dictionary=["series_id"], write_statistics=["timestamp"], write_page_checksum=True,
        column_encoding={"timestamp": "DELTA_BINARY_PACKED"}, store_schema=False,
    )  # fmt: skip


def to_arrow(panel: Panel, schema: pa.Schema, source: SourceSpec) -> pa.Table:
    used, index = np.unique(panel.codes, return_inverse=True)
    ids = pa.DictionaryArray.from_arrays(index.astype(np.int32), [panel.names[code] for code in used])
    stamps = pa.array(panel.stamps).view(pa.timestamp("us", "UTC"))
    columns = [pa.array(panel.values[:, column], from_pandas=True) for column in range(panel.values.shape[1])]
    flags = [pa.array(panel.observed)] if source.masks else []
    return pa.table([ids, stamps, columns[0], *flags, *columns[1:]], schema=schema)
