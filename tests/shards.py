"""Canonical Parquet and window files made by hand, as the steps before would leave them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.scaling import Scaler, ScalingSpec, fit_scale, merge_scales
from models.series import Columns
from models.windows import FoldSpec, WindowSpec
from tasks.ingest.canonical import stored_channels
from tasks.ingest.task import Segment, Series
from tasks.storage import Store
from tasks.windows.files import SeriesRows, write_windows
from tasks.windows.folds import WindowSet

HOUR = 3_600_000_000  # microseconds


def write_shard(
    store: Store, columns: Columns, rows: dict[str, np.ndarray], first: dict[str, int] | None = None, cut: int | None = None
) -> Series:
    """Hourly series as one segment, or each as segments of `cut` rows.

    Args:
        rows: (R, stored channels) by series; a target that is NaN is none.
        first: the hour since 1970 at which a series begins; 0 where it is left out.
    """
    folder = store.folder("ingest", "shard")
    folder.mkdir(parents=True, exist_ok=True)
    facts, tables = {}, []
    for name, values in rows.items():
        values = np.asarray(values, float).reshape(len(values), -1)
        stamps = ((first or {}).get(name, 0) + np.arange(len(values))) * HOUR
        seen = np.flatnonzero(~np.isnan(values[:, 0]))
        newest = {"first": int(stamps[0]), "last": int(stamps[seen[-1]])}
        facts[name] = {"rows": len(values), "steps": int(seen[-1]) + 1, **newest}
        for begin in range(0, len(values), cut or len(values)):
            part = slice(begin, begin + (cut or len(values)))
            tables.append((to_table(name, stamps[part], values[part], stored_channels(columns)), begin > 0))
    if not cut:
        tables = [(pa.concat_tables(table for table, _ in tables).unify_dictionaries(), False)]
    segments = []
    for number, (table, continues) in enumerate(tables):
        path = folder / f"segment-{number}.parquet"
        pq.write_table(table, path, row_group_size=64, store_schema=False)
        segments.append(Segment(name=path.name, rows=len(table), continues=continues, sha256=f"{number:064}"))
    (folder / "index.json").write_text(json.dumps({"series": facts, "repairs": [], "faults": []}))
    total = sum(one["rows"] for one in facts.values())
    return Series(
        step="ingest", key="shard", digest="d", shard=0, rows=total, steps=total, num_series=len(rows), first=0, last=0,
        segments=tuple(segments), repairs={}, num_faults=0,
    )  # fmt: skip


def to_table(name: str, stamps: np.ndarray, values: np.ndarray, channels: list[str]) -> pa.Table:
    assert values.shape[1] == len(channels)
    ids = pa.DictionaryArray.from_arrays(np.zeros(len(stamps), np.int32), [name])
    columns = [pa.array(values[:, at], from_pandas=True) for at in range(len(channels))]
    if "observed" in channels:
        columns[1] = pa.array(values[:, 1] > 0)
    stamps = pa.array(stamps).view(pa.timestamp("us", "UTC"))
    return pa.table([ids, stamps, *columns], names=["series_id", "timestamp", *channels])


def scaler_of(
    columns: Columns, rows: dict[str, np.ndarray], folds: FoldSpec, season: int = 1, kind: str = "standard"
) -> Scaler:
    """The scaler of series whose rows (R, C - made) all have a target."""
    spec, held_out = ScalingSpec(kind=kind), folds.validation + folds.test
    scales = {
        name: fit_scale([values[: len(values) - held_out]], columns, season, len(values) - held_out, len(values), spec)
        for name, values in rows.items()
    }
    return merge_scales([scales], columns, season, spec)


def pieces_of(rows: dict[str, np.ndarray], span: int, cut: int | None = None) -> list[list[SeriesRows]]:
    """Series, hourly from 1970 on, as the pieces of one file; or of a file for every `cut` rows of each."""
    files = []
    for name, values in rows.items():
        stamps = np.arange(len(values)) * HOUR
        for begin in range(0, len(values), cut or len(values)):
            part = slice(max(0, begin - span + 1), begin + (cut or len(values)))
            files.append([SeriesRows(name, part.start, stamps[part], values[part])])
    return files if cut else [[piece for file in files for piece in file]]


def window_set(
    folder: Path, columns: Columns, rows: dict[str, np.ndarray], windows: WindowSpec, folds: FoldSpec, cut: int | None = None,
    season: int = 1, scaler: Scaler | None = None,
) -> WindowSet:  # fmt: skip
    """Window files of some series (R, C), opened."""
    paths = []
    for number, pieces in enumerate(pieces_of(rows, windows.span, cut)):
        paths.append(folder / f"windows-{number}.parquet")
        write_windows(paths[-1], iter(pieces), columns, windows)
    return WindowSet(paths, scaler or scaler_of(columns, rows, folds, season), folds)
