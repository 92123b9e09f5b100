"""The rows of a piece as arrays: strict and fast where a file is well formed, row by row where a fault has to be named."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from models.errors import Fault
from tasks.ingest.files import (
    Piece,
    SourceFile,
    check_unchanged,
    columns_wanted,
    cut_rows,
    dialect,
    first_line,
    read_header,
    wide_columns,
)
from tasks.ingest.sources import USUAL_MARKERS, SourceSpec
from tasks.ingest.stamps import Instants, stamp_type, to_instants
from tasks.ingest.streams import is_utf8, not_encoded, open_text

TRUE, FALSE = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")
ROW_FAULTS = 1000  # named a piece at most; all are counted
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII)


@dataclass
class RowFault:
    """A fault of single rows: its kind, whose rows they are where that can be told, and the first place."""

    kind: str
    series_id: str | None
    where: str  # line or row, and column
    said: str
    count: int = 1


@dataclass
class Rows:
    """Rows in file order."""

    codes: np.ndarray  # (R,) int32 into names
    names: list[str]
    stamps: np.ndarray  # (R,) int64 microseconds UTC
    values: np.ndarray  # (R, K) float64, NaN where absent; the source's value_columns
    faults: list[RowFault]
    repairs: dict[tuple[str, str], int]  # (series, what was done) -> how often


def read_piece(source: SourceSpec, piece: Piece) -> Iterator[Rows]:
    """The rows of a piece, about 32 MB of text or one row group at a time.

    Raises:
        Fault: the file is not what it was, is not whole, or has a row that can not be taken apart.
    """
    check_unchanged(piece.file)
    tables = parquet_tables(source, piece) if piece.file.kind == "parquet" else csv_tables(source, piece)
    clock_state: dict = {}
    for table, faults, place in tables:
        yield to_rows(source, piece.file, table, faults, place, clock_state)
    check_unchanged(piece.file)


def csv_tables(source: SourceSpec, piece: Piece) -> Iterator[tuple[pa.Table, list[RowFault], "Places"]]:
    """Typed tables of the wanted columns, with the faults of the rows that were left out."""
    for line, content in csv_texts(source, piece):
        places = Places(source, line, content)
        table = read_strictly(source, piece.file, content)
        faults: list[RowFault] = []
        if table is None:
            table, faults = read_row_by_row(source, piece.file, content, line)
        yield with_partitions(piece.file, table), faults, places


def csv_texts(source: SourceSpec, piece: Piece) -> Iterator[tuple[int, bytes]]:
    """First line and UTF-8 text of runs of whole rows."""
    if piece.whole:
        _, _, lines = read_header(source, piece.file)
        with open_text(piece.file, source.encoding) as stream:
            for _ in range(lines):
                stream.readline()
            line = 1 + lines
            for content in cut_rows(stream, source.quote.encode()):
                yield line, content
                line += content.count(b"\n")
        return
    with open(piece.file.path, "rb") as raw:
        raw.seek(piece.start)
        content = raw.read(piece.end - piece.start)
    if not is_utf8(source.encoding):
        try:
            content = content.decode(source.encoding).encode()
        except UnicodeError as error:
            raise not_encoded(piece.file.name, source.encoding, error) from error
    yield piece.line, content


class Places:
    """Finds the line of a row; only asked where there is a fault."""

    def __init__(self, source: SourceSpec | None = None, line: int = 1, content: bytes = b"", first_row: int = 0):
        self.source, self.line, self.content, self.first_row = source, line, content, first_row

    def of(self, row: int) -> str:
        """`line 17` of a CSV, `row 17` of a Parquet file, counted from 1."""
        if self.source is None:
            return f"row {self.first_row + row + 1}"
        for number, (line, _) in enumerate(numbered_rows(self.source, self.content, self.line)):
            if number == row:
                return f"line {line}"
        return f"after line {self.line}"


def numbered_rows(source: SourceSpec, content: bytes, first: int) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank with the line on which it ends."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors="surrogateescape", newline="")
    rows = csv.reader(text, **dialect(source))
    for row in rows:
        if row:
            yield first - 1 + rows.line_num, row


def markers(source: SourceSpec) -> list[str]:
    return [*USUAL_MARKERS, *source.missing_markers]


def read_strictly(source: SourceSpec, file: SourceFile, content: bytes) -> pa.Table | None:
    """The wanted columns with their types, or None where any row has to be looked at by itself."""
    in_file = [name for name in columns_wanted(source, list(file.header)) if name in file.header]
    sample = [row for (_, row), _ in zip(numbered_rows(source, content[: 64 << 10], 1), range(200), strict=False)]
    types = {name: column_type(source, file, name, sample) for name in in_file}
    try:
        return pyarrow.csv.read_csv(
            pa.BufferReader(content),
            read_options=pyarrow.csv.ReadOptions(column_names=list(file.header), block_size=1 << 20, use_threads=False),
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


def column_type(source: SourceSpec, file: SourceFile, name: str, sample: list[list[str]]) -> pa.DataType:
    """What a column holds, by its role and, for stamps and booleans, by its first rows."""
    at = file.header.index(name)
    seen = [row[at] for row in sample if len(row) > at and row[at] not in USUAL_MARKERS]
    if name in source.stamp_columns:
        return stamp_type(source, seen)
    if name in source.id_columns:
        return pa.dictionary(pa.int32(), pa.string())
    return pa.bool_() if seen and all(text in TRUE + FALSE and not text.isdigit() for text in seen) else pa.float64()


def read_row_by_row(source: SourceSpec, file: SourceFile, content: bytes, first: int) -> tuple[pa.Table, list[RowFault]]:
    """The wanted columns of the good rows, and each kind of fault of the others.

    Raises:
        Fault: a row has more or fewer fields than the header, or is no text.
    """
    in_file = [name for name in columns_wanted(source, list(file.header)) if name in file.header]
    where = {name: file.header.index(name) for name in in_file}
    empty, values = set(markers(source)), [name for name in in_file if name not in (*source.stamp_columns, *source.id_columns)]
    columns: dict[str, list] = {name: [] for name in in_file}
    faults, ragged = Found(), []
    try:
        for line, row in numbered_rows(source, content, first):
            if len(row) != len(file.header):
                ragged.append((line, len(row)))
                continue
            series = id_of(source, file, row)
            for name in in_file:
                text = row[where[name]]
                if "\udc80" <= max(text, default="") <= "\udcff":
                    raise Fault(f"{file.name} line {line} is not UTF-8 text. Set source.encoding, as latin-1 or utf-16.")
                if name in values:
                    number, good = to_number(text, empty, source.decimal)
                    if not good:
                        own = name if source.wide and name not in source.covariates else series
                        faults.add("no number", own, f"line {line}, column {name!r}", f"{text!r} is no number")
                    columns[name].append(number)
                else:
                    columns[name].append(text)
    except csv.Error as error:
        raise Fault(f"{file.name} near line {line + 1 if columns else first}: {error}. Mend or remove the row.") from error
    if ragged:
        line, count = ragged[0]
        more = f" ({len(ragged)} such rows)" if len(ragged) > 1 else ""
        raise Fault(
            f"{file.name} line {line} has {count} fields; the header has {len(file.header)}{more}. Mend or remove the row."
        )
    types = {name: pa.float64() if name in values else pa.string() for name in in_file}
    return pa.table({name: pa.array(columns[name], types[name]) for name in in_file}), faults.entries()


class Found:
    """Faults, the first of each kind and series with how many more there are."""

    def __init__(self):
        self.by_kind: dict[tuple[str, str | None], RowFault] = {}

    def add(self, kind: str, series_id: str | None, where: str, said: str, count: int = 1) -> None:
        key = (kind, series_id)
        if key in self.by_kind:
            self.by_kind[key].count += count
        elif len(self.by_kind) < ROW_FAULTS:
            self.by_kind[key] = RowFault(kind, series_id, where, said, count)

    def entries(self) -> list[RowFault]:
        return list(self.by_kind.values())


def id_of(source: SourceSpec, file: SourceFile, row: list[str]) -> str | None:
    """The series of a row of a CSV, None in wide form."""
    if source.wide:
        return None
    partitions = dict(file.partitions)
    parts = [row[file.header.index(name)] if name in file.header else partitions[name] for name in source.id_columns]
    return join_ids(parts) if parts else source.target


def join_ids(parts: list[str]) -> str:
    """One name of several columns, parted by a slash; a slash within a column is written %2F."""
    if len(parts) == 1:
        return parts[0]
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def to_number(text: str, empty: set[str], decimal: str) -> tuple[float, bool]:
    """A cell as float64, NaN where it is empty, and whether it is a number or empty at all."""
    text = text.strip()
    if text in empty:
        return np.nan, True
    if text in TRUE or text in FALSE:
        return float(text in TRUE), True
    plain = text.replace(decimal, ".") if decimal != "." and "." not in text else text
    if NUMBER.fullmatch(plain) and (decimal == "." or "." not in text):
        return float(plain), True
    return np.nan, False


def with_partitions(file: SourceFile, table: pa.Table) -> pa.Table:
    """The table with the columns that the file's folders name."""
    for name, value in file.partitions:
        if name not in table.column_names:
            table = table.append_column(name, pa.repeat(pa.scalar(value), len(table)))
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
                yield with_partitions(piece.file, pa.Table.from_batches([batch])), [], Places(first_row=first)
                first += len(batch)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        said = first_line(error)
        raise Fault(f"{piece.file.name} is no whole Parquet file ({said}). Write or fetch it again.") from error


def to_rows(source: SourceSpec, file: SourceFile, table: pa.Table, faults: list[RowFault], places: Places, state: dict) -> Rows:
    """Arrays of a typed table; rows without a usable stamp or series are left out and told of."""
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
        seen = (kind, own) in found.by_kind
        found.add(kind, own, "" if seen else f"{places.of(row)}, column {shown}", said)
    repairs = count_repairs(stamps, codes, names)
    kept = usable(stamps)
    micros, columns = stamps.micros, list_columns(source, file, table)
    if kept is not None:
        codes, micros, columns = codes[kept], micros[kept], [column[kept] for column in columns]
    if source.wide:
        codes, names, micros, columns = melt(source, file, table.column_names, micros, columns)
    values = np.stack(columns, 1) if columns else np.empty((len(micros), 0))
    return Rows(codes, names, micros, values, found.entries(), repairs)


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


def list_columns(source: SourceSpec, file: SourceFile, table: pa.Table) -> list[np.ndarray]:
    """The value columns as float64."""
    present = table.column_names
    targets = wide_columns(source, list(file.header) or present) if source.wide else [source.target]
    return [to_floats(file, name, table.column(name)) for name in (*targets, *source.covariates)]


def to_floats(file: SourceFile, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """A column as float64, NaN where absent.

    Raises:
        Fault: it holds something else than numbers.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = pc.cast(column, kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        cells = [to_number(text or "", set(USUAL_MARKERS), ".") for text in column.to_pylist()]
        bad = next((row for row, (_, good) in enumerate(cells) if not good), None)
        if bad is None:
            return np.array([number for number, _ in cells], np.float64)
    elif pa.types.is_boolean(kind):
        return pc.cast(pc.cast(column, pa.int8()), pa.float64()).to_numpy()
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pc.cast(column, pa.float64(), safe=False).to_numpy()
    raise Fault(f"{file.name}, column {name!r} holds {kind}; numbers are needed. Convert it, or name another column.")


def series_codes(source: SourceSpec, file: SourceFile, table: pa.Table, places: Places) -> tuple[np.ndarray, list[str]]:
    """For each row its series, as a code into the list of names.

    Raises:
        Fault: a row names no series.
    """
    if not source.id_columns:
        return np.zeros(len(table), np.int32), [source.target]
    columns = []
    for name in source.id_columns:
        column = table.column(name)
        column = column if pa.types.is_dictionary(column.type) else pc.cast(column, pa.string())
        encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
        encoded = pa.chunked_array(encoded).unify_dictionaries().combine_chunks()
        encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
        own = [None if one is None else str(one) for one in encoded.dictionary.to_pylist()]
        index = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        empty = np.flatnonzero((index < 0) | np.isin(index, [at for at, one in enumerate(own) if one in (None, "")]))
        if len(empty):
            raise Fault(
                f"{file.name} {places.of(int(empty[0]))}: column {name!r} is empty ({len(empty)} such rows). Name the series "
                "or remove the row."
            )
        columns.append((index, own))
    if len(columns) == 1:
        return columns[0]
    pairs, codes = np.unique(np.stack([index for index, _ in columns], 1), axis=0, return_inverse=True)
    names = [join_ids([own[at] for at, (_, own) in zip(pair, columns, strict=True)]) for pair in pairs]
    return codes.reshape(-1).astype(np.int32), names


def melt(
    source: SourceSpec, file: SourceFile, present: list[str], stamps: np.ndarray, columns: list[np.ndarray]
) -> tuple[np.ndarray, list[str], np.ndarray, list[np.ndarray]]:
    """Long form of wide rows: one series after the other, the covariates repeated for each."""
    names = wide_columns(source, list(file.header) or present)
    rows, many = len(stamps), len(names)
    codes = np.repeat(np.arange(many, dtype=np.int32), rows)
    covariates = [np.tile(column, many) for column in columns[many:]]
    return codes, names, np.tile(stamps, many), [np.concatenate(columns[:many]), *covariates]
