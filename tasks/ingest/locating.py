"""The file and line of faults that are known by series and stamp, found by reading the chunks that hold them again.

What was read keeps no line numbers: they would cost every row, and are asked for only where a fault is told.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.errors import Fault
from tasks.ingest.arrays import series_codes, series_columns
from tasks.ingest.chunks import Chunk, Piece
from tasks.ingest.files import check_unchanged
from tasks.ingest.parts import Part, bucket_of
from tasks.ingest.reading import tables_of, usable
from tasks.ingest.rowwise import Places
from tasks.ingest.shards import MappedRun, run_path
from tasks.ingest.sources import SourceSpec
from tasks.ingest.stamps import to_instants
from tasks.storage import Store

WHOLE = ("no target", "nothing left")  # faults of all that follows, not of the row that they are noted at


@dataclass(frozen=True)
class Row:
    """A row of the source."""

    series_id: str
    stamp: int  # microseconds UTC
    part: int  # number of its chunk
    nth: int  # of the rows of that chunk, series and stamp, in the order of the source


def locate(source: SourceSpec, chunks: list[Chunk], parts: list[Part], faults: list[dict], store: Store) -> list[str]:
    """Where each fault is, as `load.csv line 17`; '' where that can not be told.

    Args:
        parts: what was read of the chunks.
        faults: their `series_id`, `stamp` and `kind`.
    """
    sought = [rows_sought(source, fault, parts, store) for fault in faults]
    found = find(source, chunks, {row for rows, _ in sought for row in rows})
    return [
        in_words(fault["kind"], [found[row] for row in rows], exact) if rows and all(row in found for row in rows) else ""
        for fault, (rows, exact) in zip(faults, sought, strict=True)
    ]


def rows_sought(source: SourceSpec, fault: dict, parts: list[Part], store: Store) -> tuple[list[Row], bool]:
    """The rows to name for a fault, and whether they have its stamp: for a row that is absent, it is the one after it."""
    series_id, stamp, kind = fault["series_id"], fault["stamp"], fault["kind"]
    rows = rows_at(series_id, stamp, parts, store)
    exact = bool(rows)
    if not exact:
        later = stamp_after(series_id, stamp, parts, store)
        return ([] if later is None else rows_at(series_id, later, parts, store)[:1]), exact
    if kind == "order" and len(rows) > 1:
        return [], exact  # either may be the one that goes back
    if kind == "duplicates":
        return rows[:2], exact
    return [rows[-1] if source.duplicates == "last" else rows[0]], exact


def rows_at(series_id: str, stamp: int, parts: list[Part], store: Store) -> list[Row]:
    """The rows of a series at one stamp, in the order of the source; of many in one chunk the first two and the last."""
    found = []
    for number, part in enumerate(parts):
        count = 0
        for run in part.runs:
            if run.bucket == bucket_of(series_id) and run.first <= stamp <= run.last:
                own = stamps_in(MappedRun(run_path(store, part.key, run)), series_id)
                count += int(np.diff(np.searchsorted(own, [stamp, stamp + 1]))[0])
        found += [Row(series_id, stamp, number, nth) for nth in range(count) if nth in (0, 1, count - 1)]
    return found


def stamp_after(series_id: str, stamp: int, parts: list[Part], store: Store) -> int | None:
    """The first stamp of a series after an instant, None where there is none."""
    nearest = None
    for part in parts:
        for run in part.runs:
            if run.bucket != bucket_of(series_id) or run.last <= stamp or (nearest is not None and run.first >= nearest):
                continue
            own = stamps_in(MappedRun(run_path(store, part.key, run)), series_id)
            at = int(np.searchsorted(own, stamp, side="right"))
            if at < len(own) and (nearest is None or own[at] < nearest):
                nearest = int(own[at])
    return nearest


def stamps_in(run: MappedRun, series_id: str) -> np.ndarray:
    """The stamps of one series of a run, which are sorted."""
    ids = run.table["series_id"].chunk(0)
    code = ids.dictionary.index(series_id).as_py()
    if code < 0:
        return np.array([], np.int64)
    begin, end = np.searchsorted(ids.indices.to_numpy(), np.array([code, code + 1], np.int32))
    return run.table["timestamp"].chunk(0).cast(pa.int64()).to_numpy()[begin:end]


def find(source: SourceSpec, chunks: list[Chunk], rows: set[Row]) -> dict[Row, tuple[str, str]]:
    """The file and the line of each row, but for those of files that are not what they were."""
    by_part: dict[int, set[Row]] = defaultdict(set)
    for row in rows:
        by_part[row.part].add(row)
    found: dict[Row, tuple[str, str]] = {}
    for part in sorted(by_part):
        found |= find_in_chunk(source, chunks[part], part, by_part[part])
    return found


def find_in_chunk(source: SourceSpec, chunk: Chunk, part: int, wanted: set[Row]) -> dict[Row, tuple[str, str]]:
    """The file and the line of some rows of one chunk; none from the first file on that has changed."""
    found: dict[Row, tuple[str, str]] = {}
    seen: Counter[tuple[str, int]] = Counter()
    keys = {(row.series_id, row.stamp) for row in wanted}
    for piece in chunk.pieces:
        if len(found) == len(wanted):
            break
        in_piece: dict[Row, tuple[str, str]] = {}
        try:
            for series_id, stamp, row, places in rows_in(source, piece, keys):
                named = Row(series_id, stamp, part, seen[series_id, stamp])
                seen[series_id, stamp] += 1
                if named in wanted:
                    in_piece[named] = (piece.file.name, places.of(row))
                if len(found) + len(in_piece) == len(wanted):
                    break
        except (Fault, OSError):
            if not has_changed(piece):
                raise
        if has_changed(piece):
            break
        found |= in_piece
    return found


def rows_in(source: SourceSpec, piece: Piece, keys: set[tuple[str, int]]) -> Iterator[tuple[str, int, int, Places]]:
    """Series, stamp, row of its table and what numbers those rows, of the rows of a piece that have one of the keys."""
    state: dict = {}
    for table, _, places in tables_of(source, piece):
        codes, names = series_codes(source, piece.file, table, places)
        instants = to_instants(source, [table.column(name) for name in source.stamp_columns], codes, names, state)
        kept = usable(instants)
        present = set(series_columns(source, piece.file, table.column_names) if source.wide else names)
        for series_id, stamp in sorted(key for key in keys if key[0] in present):
            own = instants.micros == stamp if kept is None else (instants.micros == stamp) & kept
            for row in np.flatnonzero(own).tolist():
                if source.wide or names[codes[row]] == series_id:
                    yield series_id, stamp, row, places


def has_changed(piece: Piece) -> bool:
    """Whether the file is not what it was when the run began."""
    try:
        check_unchanged(piece.file)
    except Fault:
        return True
    return False


def in_words(kind: str, found: list[tuple[str, str]], exact: bool) -> str:
    """Where a fault is, in the words that tell of single rows."""
    file, line = found[0]
    if kind == "duplicates":
        again, repeated = found[1]
        return f"{again} {repeated} repeats {line if again == file else f'{file} {line}'}"
    if kind == "gap" or not exact:
        return f"{file} before {line}"
    return f"{file} from {line} on" if kind in WHOLE else f"{file} {line}"
