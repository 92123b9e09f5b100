"""Canonical Parquet read back: series by series, or the newest rows of each."""

from collections.abc import Iterator
from itertools import groupby, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.series import Columns
from tasks.ingest.task import Segment, Series
from tasks.storage import Store


def stored_channels(columns: Columns) -> list[str]:
    """The channels that canonical Parquet holds; those of the calendar and of a second file are made when needed."""
    observed = ["observed"] if columns.masked else []
    return ["target", *observed, *columns.past, *columns.future, *(name for name in columns.static if "=" not in name)]


def read_segment(
    store: Store, series: Series, segment: Segment, columns: Columns
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Series, stamps (R,) int64 UTC and rows (R, C) float64 of each series of one segment, in order."""
    with pq.ParquetFile(store.file(series, segment.name), page_checksum_verification=True) as file:
        held = [name for name in stored_channels(columns) if name in file.schema_arrow.names]
        table = file.read(columns=["series_id", "timestamp", *held], use_threads=False)
    yield from split_series(table, held)


def split_series(table: pa.Table, channels: list[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The rows of each series of a table that is sorted by them."""
    if not len(table):
        return
    ids = table["series_id"].unify_dictionaries().combine_chunks()
    ids = ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids
    ids = ids if pa.types.is_dictionary(ids.type) else ids.dictionary_encode()
    codes = ids.indices.to_numpy()
    stamps = table["timestamp"].cast(pa.int64()).to_numpy()
    rows = np.empty((len(table), len(channels)), order="F")
    for at, name in enumerate(channels):
        rows[:, at] = table[name].cast(pa.float64()).to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    for begin, end in pairwise(edges):
        yield ids.dictionary[int(codes[begin])].as_py(), stamps[begin:end], rows[begin:end]


def read_series(store: Store, series: Series, columns: Columns) -> Iterator[tuple[str, Iterator[np.ndarray]]]:
    """Each series of a shard with its rows (R, C), one segment after the other."""

    def pieces():
        for segment in series.segments:
            for name, _, rows in read_segment(store, series, segment, columns):
                yield name, rows

    for name, group in groupby(pieces(), key=lambda pair: pair[0]):
        yield name, (rows for _, rows in group)


def read_tails(
    store: Store, series: Series, columns: Columns, first_needed: dict[str, int]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Series, stamps and rows of each series from an instant on; row groups that lie before all of them are not read.

    Args:
        first_needed: microseconds UTC by series; a series that it lacks is left out.
    """
    held: tuple[str, list, list] | None = None
    for segment in series.segments:
        with pq.ParquetFile(store.file(series, segment.name), page_checksum_verification=True) as file:
            groups = needed_groups(file, first_needed)
            channels = [name for name in stored_channels(columns) if name in file.schema_arrow.names]
            if not groups:
                continue
            table = file.read_row_groups(groups, columns=["series_id", "timestamp", *channels], use_threads=False)
        for name, stamps, rows in split_series(table, channels):
            if name not in first_needed:
                continue
            kept = stamps >= first_needed[name]
            if held and held[0] != name:
                yield held[0], np.concatenate(held[1]), np.concatenate(held[2])
                held = None
            held = held or (name, [], [])
            held[1].append(stamps[kept])
            held[2].append(rows[kept])
    if held:
        yield held[0], np.concatenate(held[1]), np.concatenate(held[2])


def needed_groups(file: pq.ParquetFile, first_needed: dict[str, int]) -> list[int]:
    """The row groups that may hold a row from the earliest instant needed on."""
    earliest = min(first_needed.values(), default=None)
    at = file.schema_arrow.names.index("timestamp")
    chosen = []
    for group in range(file.metadata.num_row_groups):
        facts = file.metadata.row_group(group).column(at).statistics
        newest = facts.max if facts is not None and facts.has_min_max else None
        newest = None if newest is None else int(np.datetime64(newest.replace(tzinfo=None), "us").astype(np.int64))
        if earliest is not None and (newest is None or newest >= earliest):
            chosen.append(group)
    return chosen
