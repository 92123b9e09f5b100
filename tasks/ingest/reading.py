"""The rows of a piece as arrays: strict and fast where a file is well formed, row by row where a fault has to be named."""

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from models.errors import Fault
from tasks.ingest.arrays import list_columns, melt, series_codes, series_columns
from tasks.ingest.chunks import Piece, count_lines, cut_rows
from tasks.ingest.columns import columns_wanted
from tasks.ingest.files import SourceFile, check_unchanged, first_line, read_header
from tasks.ingest.rowwise import (
    FALSE,
    TRUE,
    Found,
    Places,
    RowFault,
    markers,
    missing_numbers,
    numbered_rows,
    read_row_by_row,
)
from tasks.ingest.sources import SourceSpec
from tasks.ingest.spellings import stamp_type
from tasks.ingest.stamps import Instants, to_instants
from tasks.ingest.streams import is_utf8, not_encoded, open_text

READ = 8 << 20  # bytes of text that are parsed at a time
SAMPLE = 1 << 20  # bytes that tell what a column holds
MELTED = 1 << 20  # rows that wide ones are made into at a time: a few bytes of text would grow to many


@dataclass
class Rows:
    """Rows in file order."""

    codes: np.ndarray  # (R,) int32 into names
    names: list[str]
    stamps: np.ndarray  # (R,) int64 microseconds UTC
    values: list[np.ndarray]  # K times (R,) float64, NaN where absent; the source's value_columns
    faults: list[RowFault]
    repairs: dict[tuple[str, str], int]  # (series, what was done) -> how often


def read_piece(source: SourceSpec, piece: Piece) -> Iterator[Rows]:
    """The rows of a piece, about 8 MB of text or a million rows at a time.

    Raises:
        Fault: the file is not what it was, is not whole, or has a row that can not be taken apart.
    """
    check_unchanged(piece.file)
    clock_state: dict = {}
    for table, faults, place in tables_of(source, piece):
        yield from to_rows(source, piece.file, table, faults, place, clock_state)
    check_unchanged(piece.file)


def tables_of(source: SourceSpec, piece: Piece) -> Iterator[tuple[pa.Table, list[RowFault], Places]]:
    """Typed tables of the wanted columns, the faults of their values, and what finds the line of a row."""
    return parquet_tables(source, piece) if piece.file.kind == "parquet" else csv_tables(source, piece)


def csv_tables(source: SourceSpec, piece: Piece) -> Iterator[tuple[pa.Table, list[RowFault], Places]]:
    """Typed tables of the wanted columns, with the faults of the values that are none.

    Raises:
        Fault: a row can not be taken apart.
    """
    for line, content in csv_texts(source, piece):
        faults: list[RowFault] = []
        table = read_strictly(source, piece.file, content)
        if table is None:
            table, faults = read_row_by_row(source, piece.file, content, line)
        yield with_partitions(piece.file, table), faults, Places(source, line, content)


def csv_texts(source: SourceSpec, piece: Piece) -> Iterator[tuple[int, bytes]]:
    """First line and UTF-8 text of runs of whole rows, about `READ` bytes of them at a time."""
    if piece.whole:
        _, _, line = read_header(source, piece.file)
        with open_text(piece.file, source.encoding) as stream:
            for _ in range(line):
                stream.readline()
            yield from numbered_texts(source, piece.file, stream, 1 + line)
        return
    with open(piece.file.path, "rb") as raw:
        raw.seek(piece.start)
        for line, content in numbered_texts(source, piece.file, Limited(raw, piece.end - piece.start), piece.line):
            yield line, content if is_utf8(source.encoding) else recode(source, piece.file, content)


def numbered_texts(source: SourceSpec, file: SourceFile, stream, line: int) -> Iterator[tuple[int, bytes]]:
    """Runs of whole rows with the line on which they begin."""
    for content in cut_rows(stream, source.quote.encode(), source.delimiter.encode(), file.name, READ):
        yield line, content
        line += count_lines(content)


def recode(source: SourceSpec, file: SourceFile, content: bytes) -> bytes:
    """Text as UTF-8."""
    try:
        return content.decode(source.encoding).encode()
    except UnicodeError as error:
        raise not_encoded(file.name, source.encoding, error) from error


class Limited:
    """A stream that ends after so many bytes."""

    def __init__(self, raw, size: int):
        self.raw, self.left = raw, size

    def read(self, size: int) -> bytes:
        return self.took(self.raw.read(min(size, self.left)))

    def readline(self, size: int) -> bytes:
        return self.took(self.raw.readline(min(size, self.left)))

    def took(self, content: bytes) -> bytes:
        self.left -= len(content)
        return content


def read_strictly(source: SourceSpec, file: SourceFile, content: bytes) -> pa.Table | None:
    """The wanted columns with their types, or None where any row has to be looked at by itself."""
    if content.startswith(codecs.BOM_UTF8):
        return None  # Arrow would pass over it
    at = {name: place for place, name in enumerate(file.header)}
    in_file = [name for name in columns_wanted(source, list(file.header)) if name in at]
    sample, empty = first_rows(source, content), set(markers(source))
    seen = {name: [row[at[name]] for row in sample if len(row) > at[name] and row[at[name]] not in empty] for name in in_file}
    types = {name: column_type(source, name, seen[name]) for name in in_file}
    if pa.int64() in types.values() and (b"0x" in content or b"0X" in content):
        return None  # Arrow takes 0x10 for a whole number
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            read_options=pyarrow.csv.ReadOptions(
                column_names=list(file.header), block_size=max(1 << 20, 64 * len(at)), use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=source.delimiter, quote_char=source.quote, newlines_in_values=True
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=in_file,
                column_types=types,
                null_values=markers(source),
                decimal_point=source.decimal,
                true_values=TRUE,
                false_values=FALSE,
                timestamp_parsers=[pyarrow.csv.ISO8601],
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError):
        return None
    if any(pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py() for column in table.columns):
        return None  # Arrow takes nan(1) for a number too
    return without_markers(source, table)


def first_rows(source: SourceSpec, content: bytes, limit: int = 200) -> list[list[str]]:
    """The first rows of a text, as far as they can be taken apart."""
    rows: list[list[str]] = []
    try:
        for _, row in numbered_rows(source, content[:SAMPLE], 1):
            if len(rows) == limit:
                return rows
            rows.append(row)
    except csv.Error:
        return rows
    return rows[:-1] if len(content) > SAMPLE else rows  # the last may have been cut


def column_type(source: SourceSpec, name: str, seen: list[str]) -> pa.DataType:
    """What a column holds, by its role and, for stamps and booleans, by its first values."""
    if name in source.stamp_columns:
        return stamp_type(source, seen)
    if name in source.id_columns:
        return pa.dictionary(pa.int32(), pa.string())
    return pa.bool_() if seen and all(text in TRUE + FALSE and not text.isdigit() for text in seen) else pa.float64()


def without_markers(source: SourceSpec, table: pa.Table) -> pa.Table:
    """The table with no value where there is the number of a marker; Arrow saw to those that are spelt like it."""
    for number in missing_numbers(source):
        for at, column in enumerate(table.columns):
            if column.type == pa.float64() and table.column_names[at] not in source.stamp_columns:
                cleared = pc.if_else(pc.equal(column, number), None, column)
                table = table.set_column(at, table.column_names[at], cleared)
    return table


def with_partitions(file: SourceFile, table: pa.Table) -> pa.Table:
    """The table with the columns that the file's folders name."""
    for name, value in file.partitions:
        if name not in table.column_names:
            repeated = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(table)), [value])
            table = table.append_column(name, repeated)
    return table


def parquet_tables(source: SourceSpec, piece: Piece) -> Iterator[tuple[pa.Table, list[RowFault], Places]]:
    """The wanted columns, at most 1,048,576 rows at a time, with page checksums verified."""
    try:
        with pq.ParquetFile(piece.file.path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            wanted = [name for name in columns_wanted(source, names) if name in names]
            first = sum(file.metadata.row_group(group).num_rows for group in range(piece.start))
            groups = range(piece.start, piece.end)
            for batch in file.iter_batches(1 << 20, row_groups=groups, columns=wanted, use_threads=False):
                batch.validate(full=True)  # text of a damaged page need not be UTF-8
                yield with_partitions(piece.file, pa.Table.from_batches([batch])), [], Places(first_row=first)
                first += len(batch)
            promised = sum(file.metadata.row_group(group).num_rows for group in range(piece.end))
            if first != promised:  # Arrow passes over pages of a kind that it does not know
                raise pa.ArrowInvalid(f"{first} rows up to row group {piece.end}, its footer says {promised}")
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        said = first_line(error)
        raise Fault(f"{piece.file.name} is no whole Parquet file ({said}). Write or fetch it again.") from error


def to_rows(
    source: SourceSpec, file: SourceFile, table: pa.Table, faults: list[RowFault], places: Places, state: dict
) -> Iterator[Rows]:
    """Arrays of a typed table; rows without a usable stamp are left out and told of, wide ones made long a part at a time."""
    found = Found()
    for fault in faults:
        found.add(fault.kind, fault.series_id, fault.where, fault.said, fault.count)
    codes, names = series_codes(source, file, table, places)
    try:
        stamps = to_instants(source, [table.column(name) for name in source.stamp_columns], codes, names, state)
    except Fault as fault:
        raise Fault(f"{file.name}: {fault}") from fault
    shown = " and ".join(repr(name) for name in source.stamp_columns)
    for row, kind, said in stamps.bad:
        own = None if source.wide else names[codes[row]]
        where = "" if (kind, own) in found.by_kind else f"{places.of(row)}, column {shown}"
        found.add(kind, own, where, said)
    repairs = count_repairs(stamps, codes, names)
    kept = usable(stamps)
    micros, columns = stamps.micros, list_columns(source, file, table)
    if kept is not None:
        codes, micros, columns = codes[kept], micros[kept], [column[kept] for column in columns]
    rows = Rows(codes, names, micros, columns, found.entries(), repairs)
    yield from to_long(rows, series_columns(source, file, table.column_names)) if source.wide else [rows]


def to_long(wide: Rows, names: list[str]) -> Iterator[Rows]:
    """Wide rows in long form, a part at a time; what there is to tell comes with the first, a repaired row once a series."""
    step = max(1, MELTED // len(names))
    repairs = {(name, what): count for (_, what), count in wide.repairs.items() for name in names}
    for begin in range(0, max(1, len(wide.stamps)), step):
        own, told = slice(begin, begin + step), begin == 0
        codes, stamps, values = melt(len(names), wide.stamps[own], [column[own] for column in wide.values])
        yield Rows(codes, names, stamps, values, wide.faults if told else [], repairs if told else {})


def usable(stamps: Instants) -> np.ndarray | None:
    """Which rows are kept, None where all are."""
    if not stamps.bad and stamps.dropped is None:
        return None
    kept = np.ones(len(stamps.micros), bool) if stamps.dropped is None else ~stamps.dropped
    kept[[row for row, _, _ in stamps.bad]] = False
    return kept


def count_repairs(stamps: Instants, codes: np.ndarray, names: list[str]) -> dict[tuple[str, str], int]:
    """How many stamps of each series were shifted or dropped, by (series, what was done)."""
    done = {"stamps of a skipped hour shifted": stamps.shifted, "rows of a skipped hour dropped": stamps.dropped}
    counts: dict[tuple[str, str], int] = {}
    for what, rows in done.items():
        if rows is not None:
            for code, count in zip(*np.unique(codes[rows], return_counts=True), strict=True):
                counts[names[code], what] = int(count)
    return counts
