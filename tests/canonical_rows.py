"""Rows by hand, through the pure functions of ingestion, and what canonical Parquet holds of them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from models.series import Columns
from tasks.ingest.canonical import read_segment
from tasks.ingest.grid import Grid
from tasks.ingest.parts import Part, Run, bucket_of
from tasks.ingest.shards import Shard, Slice
from tasks.ingest.sources import SourceSpec
from tasks.ingest.task import Series, write_canonical
from tasks.storage import Call, Store, describe

NAN = float("nan")


def spec_of(**changed) -> SourceSpec:
    return SourceSpec(**{"uri": "sales.csv", "timestamp": "t", "target": "y"} | changed)


def micros(stamps, zone="UTC") -> np.ndarray:
    """Instants of stamps in words, on the clock of a zone where they have no offset."""
    read = pd.DatetimeIndex(pd.to_datetime(list(stamps)))
    read = read.tz_localize(zone) if read.tz is None else read
    return read.tz_convert("UTC").as_unit("us").asi8


def hours(*numbers) -> np.ndarray:
    """Instants that many hours after the first of January 2024."""
    return micros(["2024-01-01"])[0] + np.array(numbers, np.int64) * 3_600_000_000


@dataclass
class Rows:
    """Rows of one part, in file order."""

    stamps: np.ndarray
    values: dict[str, list]  # by canonical column
    series: list[str]


def rows_of(stamps, values=None, series="y", **covariates) -> Rows:
    stamps = np.asarray(stamps, np.int64)
    values = list(range(len(stamps))) if values is None else values
    series = [series] * len(stamps) if isinstance(series, str) else list(series)
    return Rows(stamps, {"target": values} | covariates, series)


def write_part(store: Store, source: SourceSpec, key: str, rows: Rows, repairs=()) -> Part:
    """What reading makes of rows: a run for each bucket, sorted by series and time."""
    folder = store.folder("read", key)
    folder.mkdir(parents=True)
    (folder / "notes.json").write_text(json.dumps({"faults": [], "repairs": list(repairs)}))
    table = pd.DataFrame({name: np.asarray(rows.values[name], float) for name in source.value_columns})
    table.insert(0, "timestamp", rows.stamps)
    table.insert(0, "series_id", rows.series)
    table["bucket"] = [bucket_of(name) for name in rows.series]
    table = table.sort_values(["bucket", "series_id", "timestamp"], kind="stable")
    runs = []
    for bucket, own in table.groupby("bucket"):
        ids = pa.array(own["series_id"].tolist(), pa.string()).dictionary_encode()
        stamps = pa.array(own["timestamp"].to_numpy()).view(pa.timestamp("us", "UTC"))
        columns = [pa.array(own[name].to_numpy()) for name in source.value_columns]
        piece = pa.table([ids, stamps, *columns], names=["series_id", "timestamp", *source.value_columns])
        name = f"{len(runs):05d}.arrow"
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_file(sink, piece.schema) as writer:
            writer.write_table(piece)
        first, last = int(own["timestamp"].min()), int(own["timestamp"].max())
        sha256 = describe(folder / name)["sha256"]
        runs.append(Run(name=name, bucket=int(bucket), rows=len(own), first=first, last=last, sha256=sha256))
    return Part(step="read", key=key, digest=key, rows=len(table), runs=tuple(runs), num_faults=0, num_repairs=len(repairs))


@dataclass
class Made:
    """Canonical Parquet of one shard, read back."""

    store: Store
    receipt: Series
    index: dict
    columns: Columns

    def read(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Stamps and rows of each series."""
        found: dict[str, list] = {}
        for segment in self.receipt.segments:
            for name, stamps, rows in read_segment(self.store, self.receipt, segment, self.columns):
                found.setdefault(name, []).append((stamps, rows))
        return {name: tuple(np.concatenate(part) for part in zip(*own, strict=True)) for name, own in found.items()}

    def column(self, channel="target", series="y") -> list:
        """One channel of one series, None where there is no value."""
        at = [name for name in self.columns.names if name not in self.columns.calendar].index(channel)
        return [None if np.isnan(value) else value for value in self.read()[series][1][:, at].tolist()]

    def stamps(self, series="y") -> list[int]:
        return self.read()[series][0].tolist()

    @property
    def repairs(self) -> dict[str, int]:
        return self.receipt.repairs

    @property
    def faults(self) -> dict[str, str]:
        """What was said of each kind of fault; of the one series that has any."""
        return {fault["kind"]: fault["said"] for fault in self.index["faults"]}


def make(folder: Path, *parts: Rows, frequency="h", follows=False, repairs=(), set_aside=(), key="shard", **changed) -> Made:
    """Ingest rows, a part after the other."""
    source, store = spec_of(**changed), Store(folder)
    number = len(list((folder / "read").glob("*"))) if (folder / "read").exists() else 0
    slices = []
    for at, rows in enumerate(parts):
        part = write_part(store, source, f"part-{number + at}", rows, repairs)
        done = tuple((one["series_id"], one["what"], one["count"]) for one in repairs)
        slices.append(Slice(part=part.key, runs=part.runs, follows=follows and at > 0, repairs=done))
    return ingest_shard(store, source, Shard(number=0, slices=tuple(slices), set_aside=set_aside), frequency, key)


def ingest_shard(store: Store, source: SourceSpec, shard: Shard, frequency: str, key: str) -> Made:
    with store.draft(Call(step="ingest", key=key, made_from={})) as draft:
        facts = write_canonical(source, shard, Grid(frequency, source.timezone), store, draft)
        receipt = draft.commit(Series, **facts)
    columns = Columns(
        masked=source.masks, past=source.past_covariates, future=source.future_covariates, static=source.static_covariates
    )
    return Made(store, receipt, store.read_json(receipt, "index.json"), columns)
