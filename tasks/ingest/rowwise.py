"""A CSV taken row by row, where a fault has to be named: its line, its column, and whose it is."""

import csv
import io
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.errors import Fault, counted
from tasks.ingest.columns import columns_wanted, dialect
from tasks.ingest.files import SourceFile
from tasks.ingest.sources import USUAL_MARKERS, SourceSpec

TRUE, FALSE = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII)
STRAY_BYTE = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of a byte that is not UTF-8

csv.field_size_limit(1 << 30)  # Python's own limit of 128 KiB would refuse long texts in columns that are not even used


@dataclass
class RowFault:
    """A fault of single rows: its kind, whose rows they are where that can be told, and the first place."""

    kind: str
    series_id: str | None
    where: str  # line or row, and column
    said: str
    count: int = 1
    stamp: int | None = None  # microseconds UTC, where the place is still to be found by it


class Found:
    """Faults, the first of each kind and series with how many there are."""

    def __init__(self):
        self.by_kind: dict[tuple[str, str | None], RowFault] = {}

    def add(self, kind: str, series_id: str | None, where: str, said: str, count: int = 1, stamp: int | None = None) -> None:
        # Each series is kept, however many there are: one that is forgotten could not be set aside.
        key = (kind, series_id)
        if key in self.by_kind:
            self.by_kind[key].count += count
        else:
            self.by_kind[key] = RowFault(kind, series_id, where, said, count, stamp)

    def entries(self) -> list[RowFault]:
        return list(self.by_kind.values())


class Places:
    """Finds the line of a row; only asked where there is a fault."""

    def __init__(self, source: SourceSpec | None = None, line: int = 1, content: bytes = b"", first_row: int = 0):
        self.source, self.line, self.content, self.first_row = source, line, content, first_row
        self.lines: array | None = None

    def of(self, row: int) -> str:
        """`line 17` of a CSV, `row 17` of a Parquet file, counted from 1."""
        if self.source is None:
            return f"row {self.first_row + row + 1}"
        if self.lines is None:
            self.lines = array("q", (line for line, _ in numbered_rows(self.source, self.content, self.line)))
        return f"line {self.lines[row]}" if row < len(self.lines) else f"after line {self.line}"


def numbered_rows(source: SourceSpec, content: bytes, first: int) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank with the line on which it ends."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors="surrogateescape", newline="")
    rows = csv.reader(text, **dialect(source))
    for row in rows:
        if row:
            yield first - 1 + rows.line_num, row


def markers(source: SourceSpec) -> list[str]:
    return [*USUAL_MARKERS, *source.missing_markers]


def missing_numbers(source: SourceSpec) -> list[float]:
    """The markers that are numbers, which stand for no value however they are written: -999 and -999.0."""
    numbers = [to_number(text, set(USUAL_MARKERS), source.decimal)[0] for text in source.missing_markers]
    return [number for number in numbers if not np.isnan(number)]


def read_row_by_row(source: SourceSpec, file: SourceFile, content: bytes, first: int) -> tuple[pa.Table, list[RowFault]]:
    """The wanted columns with NaN where a value is no number, and each kind of fault.

    Raises:
        Fault: a row has more or fewer fields than the header, or is no text.
    """
    at = {name: place for place, name in enumerate(file.header)}
    in_file = [name for name in columns_wanted(source, list(file.header)) if name in at]
    texts = [name for name in in_file if name in (*source.stamp_columns, *source.id_columns)]
    values = [name for name in in_file if name not in texts]
    own_series = set(values) - set(source.covariates) if source.wide else set()
    empty, numbers = set(markers(source)), missing_numbers(source)
    columns: dict[str, list] = {name: [] for name in in_file}
    found = Found()
    for line, row in whole_rows(source, file, content, first):
        for name in texts:
            columns[name].append(to_text(file, line, row[at[name]]))
        for name in values:
            text = row[at[name]]
            number, good = to_number(text, empty, source.decimal)
            if not good:
                own = name if name in own_series else id_of(source, file, row)
                found.add("no number", own, f"line {line}, column {name!r}", no_number(source, to_text(file, line, text)))
            columns[name].append(np.nan if number in numbers else number)
    types = {name: pa.string() if name in texts else pa.float64() for name in in_file}
    return pa.table({name: pa.array(columns[name], types[name]) for name in in_file}), found.entries()


def no_number(source: SourceSpec, text: str) -> str:
    """What to say of a cell that is none, and which setting would make it one."""
    comma = source.decimal == "." and NUMBER.fullmatch(text.strip().replace(",", ".", 1))
    return f"{text!r} is no number" + ("; set source.decimal=',' if that is a decimal comma" if comma and "," in text else "")


def whole_rows(source: SourceSpec, file: SourceFile, content: bytes, first: int) -> Iterator[tuple[int, list[str]]]:
    """The rows with their lines.

    Raises:
        Fault: any of them has more or fewer fields than the header; told once all have been seen.
    """
    line, ragged = first - 1, []
    try:
        for line, row in numbered_rows(source, content, first):
            if len(row) == len(file.header):
                yield line, row
            else:
                ragged.append((line, len(row)))
    except csv.Error as error:
        raise Fault(f"{file.name} near line {line + 1}: {error}. Mend or remove the row.") from error
    if ragged:
        line, count = ragged[0]
        more = f" ({len(ragged)} such rows)" if len(ragged) > 1 else ""
        raise Fault(
            f"{file.name} line {line} has {counted(count, 'fields')}; the header has {len(file.header)}{more}. "
            "Mend or remove the row."
        )


def to_text(file: SourceFile, line: int, text: str) -> str:
    if not text.isascii() and STRAY_BYTE.search(text):
        raise Fault(f"{file.name} line {line} is not UTF-8 text. Set source.encoding, as latin-1 or utf-16.")
    return text


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
