"""Canonical Parquet segments: whole series, or up to `SEGMENT` rows of one that is longer."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.ingest.panel import Ledger, Panel
from tasks.ingest.sources import SourceSpec
from tasks.storage import Draft

SEGMENT = 1 << 19  # rows in a segment, and rows that are arranged at once
ROW_GROUP = 1 << 17


class SegmentWriter:
    """Canonical rows as Parquet segments, and the facts of each series as they go by."""

    def __init__(self, draft: Draft, source: SourceSpec):
        self.draft, self.source, self.schema = draft, source, canonical_schema(source)
        self.segments: list[dict] = []
        self.facts: dict[str, dict] = {}
        self.waiting: Panel | None = None  # of a long series
        self.begun = 0  # segments there were before that series

    def add(self, panel: Panel, long: bool = False, refused: bool = False) -> None:
        """Take rows in: short series as one segment, a long one cut every `SEGMENT` rows.

        Args:
            long: they are a part of one series that fills segments of its own.
            refused: that series has a fault, and what came before of it does not count.
        """
        if self.waiting is not None and not (long and self.waiting.names == panel.names):
            self.end_series()
        if refused:
            self.forget_series(panel.names[0])
            return
        self.note(panel)
        if not long:
            if len(panel.codes):
                self.write(panel, continues=False)
            self.begun = len(self.segments)
            return
        self.waiting = panel if self.waiting is None else self.waiting.then(panel)
        while len(self.waiting.codes) >= SEGMENT:
            self.write(self.waiting.keep(slice(0, SEGMENT)), continues=len(self.segments) > self.begun)
            self.waiting = self.waiting.keep(slice(SEGMENT, None))

    def take_over(self, name: str, earlier: list[tuple[Path, str]], facts: dict[str, int]) -> bool:
        """Begin a long series with what an earlier artifact has of it, unless that is no longer what was written.

        Args:
            earlier: its segments there, as paths and SHA-256.
            facts: of the rows to take over: those of full segments, and the first of the next one.
        """
        self.end_series()
        full, more = divmod(facts["rows"], SEGMENT)
        names = [segment_name(self.begun + at) for at in range(full + bool(more))]
        if len(names) > len(earlier) or not self.draft.take_over(dict(zip(names, earlier, strict=False))):
            return False
        if more:
            with pq.ParquetFile(self.draft.path(names[full])) as file:
                self.waiting = from_arrow(file.read().slice(0, more), self.source)
            self.draft.remove(names[full])
        self.segments += [{"name": own, "rows": SEGMENT, "continues": at > 0} for at, own in enumerate(names[:full])]
        self.facts[name] = dict(facts)
        return True

    def end_series(self) -> None:
        """Write what waits of a long series."""
        if self.waiting is not None and len(self.waiting.codes):
            self.write(self.waiting, continues=len(self.segments) > self.begun)
        self.waiting, self.begun = None, len(self.segments)

    def forget_series(self, name: str) -> None:
        """Take back what was written of the long series at hand."""
        if self.facts.pop(name, None):
            for segment in self.segments[self.begun :]:
                self.draft.remove(segment["name"])
            del self.segments[self.begun :]
        self.waiting = None

    def note(self, panel: Panel) -> None:
        there = ~np.isnan(panel.values[:, 0])
        for begin, size in zip(panel.starts.tolist(), panel.sizes.tolist(), strict=True):
            name, stamps = panel.names[panel.codes[begin]], panel.stamps[begin : begin + size]
            own = there[begin : begin + size]
            facts = self.facts.setdefault(name, {"rows": 0, "steps": 0, "first": int(stamps[0]), "last": 0})
            if own.any():
                newest = size - 1 - int(own[::-1].argmax())
                facts["steps"], facts["last"] = facts["rows"] + newest + 1, int(stamps[newest])
            facts["rows"] += size

    def write(self, panel: Panel, continues: bool) -> None:
        name = segment_name(len(self.segments))
        with canonical_writer(self.draft.path(name), self.schema) as writer:
            writer.write_table(to_arrow(panel, self.schema, self.source), row_group_size=ROW_GROUP)
        self.segments.append({"name": name, "rows": len(panel.codes), "continues": continues})

    def close(self) -> None:
        self.end_series()
        if not self.segments:  # every series was set aside
            none = np.empty(0, np.int64)
            self.write(Panel([], none, none, np.empty((0, len(self.source.value_columns))), observed=none > 0), continues=False)

    def index(self, ledger: Ledger) -> dict:
        """What is known of each series: its rows, repairs, and the faults of those set aside."""
        repairs = [{"series_id": name, "what": what, "count": count} for (name, what), count in sorted(ledger.repairs.items())]
        faulty = ledger.faulty
        kept = {name: facts for name, facts in self.facts.items() if name not in faulty}
        return {"series": kept, "repairs": repairs, "faults": ledger.entries()}


def segment_name(number: int) -> str:
    return f"segment-{number:05d}.parquet"


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
        path, schema, compression="none", use_dictionary=["series_id"], write_statistics=["timestamp"],
        write_page_checksum=True, column_encoding={"timestamp": "DELTA_BINARY_PACKED"}, store_schema=False,
    )  # fmt: skip


def to_arrow(panel: Panel, schema: pa.Schema, source: SourceSpec) -> pa.Table:
    starts, sizes = panel.starts, panel.sizes
    names = pa.array([panel.names[code] for code in panel.codes[starts].tolist()], pa.string())
    ids = pa.DictionaryArray.from_arrays(np.repeat(np.arange(len(starts), dtype=np.int32), sizes), names)
    stamps = pa.array(panel.stamps).view(pa.timestamp("us", "UTC"))
    columns = [pa.array(panel.values[:, column], from_pandas=True) for column in range(panel.values.shape[1])]
    flags = [pa.array(panel.observed)] if source.masks else []
    return pa.table([ids, stamps, columns[0], *flags, *columns[1:]], schema=schema)


def from_arrow(table: pa.Table, source: SourceSpec) -> Panel:
    """Rows of one series as they were before `to_arrow`, but for what no longer matters once they are written."""
    values = np.column_stack([table[name].to_numpy() for name in source.value_columns])
    stamps = table["timestamp"].cast(pa.int64()).to_numpy()
    observed = table["observed"].to_numpy() if source.masks else None
    name = table["series_id"][0].as_py()
    return Panel([name], np.zeros(len(table), np.int32), stamps, values, observed=observed)
