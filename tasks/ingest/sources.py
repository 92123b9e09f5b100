"""One CSV or Parquet file, read with every fault named by file, line and column."""

import csv
import difflib
import io
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from models.errors import Fault, shortlist
from models.windows import Columns
from tasks.progress import progress
from tasks.storage import describe

RESERVED = ("series_id", "timestamp", "target")


class SourceSpec(BaseModel):
    """Where the data lies and what its columns mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = Field(description="a .csv or .parquet file; relative to the spec's own file")
    timestamp: str = Field(description="column of ISO 8601 stamps, with or without an offset")
    timezone: str = Field("UTC", description="of naive stamps and of the local clock: IANA name or offset as +10:00")
    frequency: str | None = Field(None, description="pandas alias, as 30min, h, D or MS; null: inferred")
    series_id: str | None = Field(None, description="column that names the series; null: the file is one series")
    target: str = Field(description="column to forecast")
    future_covariates: tuple[str, ...] = Field((), description="columns known over the horizon too")
    past_covariates: tuple[str, ...] = Field((), description="columns known up to the origin only")
    calendar: tuple[Literal["hour", "weekday", "day_of_year"], ...] = Field(
        (), description="future covariates from the local clock, each as sine and cosine"
    )
    order: Literal["error", "sort"] = Field("error", description="stamps that go back in time within a series")
    duplicates: Literal["error", "first", "last", "mean"] = Field("error", description="repeated stamps of a series")
    gaps: Literal["error", "interpolate"] = Field("error", description="absent rows")
    missing: Literal["error", "interpolate"] = Field("error", description="empty or NaN values between others")

    def cache_identity(self) -> dict:
        """Where the bytes lie does not shape what is read from them."""
        return self.model_dump(mode="json", exclude={"uri"})

    def seen_by(self, columns: Columns) -> "SourceSpec":
        """This source as a model with these columns reads it."""
        covariates = {"past_covariates": columns.past, "future_covariates": columns.future, "calendar": columns.calendar}
        return self.model_copy(update=covariates)

    @property
    def columns(self) -> Columns:
        return Columns(past=self.past_covariates, future=self.future_covariates, calendar=self.calendar)

    @property
    def value_columns(self) -> tuple[str, ...]:
        return (self.target, *self.past_covariates, *self.future_covariates)


class SourceFile(BaseModel):
    """The bytes of a source, as they were when the run began."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    bytes: int
    digest: str

    def cache_identity(self) -> str:
        return self.digest


def fingerprint(source: SourceSpec) -> SourceFile:
    """Size and SHA-256 of the source.

    Raises:
        Fault: there is no such file, or it is empty, a folder or unreadable.
    """
    path = Path(source.uri)
    if path.is_dir():
        raise Fault(f"{source.uri} is a folder with {len(list(path.iterdir()))} entries; source.uri takes one file.")
    if not path.exists():
        near = difflib.get_close_matches(path.name, names_beside(path), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise Fault(f"{source.uri} does not exist.{hint} Set source.uri to a .csv or .parquet file.")
    try:
        facts = describe(path)
    except PermissionError as error:
        raise Fault(f"{source.uri} can not be read by this user. Change its permissions.") from error
    if facts["bytes"] == 0:
        raise Fault(f"{source.uri} is empty (0 bytes); it needs a header and rows.")
    return SourceFile(uri=source.uri, bytes=facts["bytes"], digest=facts["sha256"])


def names_beside(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []


def read_source(source: SourceSpec) -> pa.Table:
    """The used columns in file order: stamps and series ids as they are, values as float64.

    Raises:
        Fault: the file is no CSV or Parquet, a column is missing or there twice, or a value is no number.
    """
    suffix = Path(source.uri).suffix.lower()
    if suffix == ".csv":
        table = read_csv(source)
    elif suffix in (".parquet", ".pq"):
        table = read_parquet(source)
    else:
        raise Fault(f"{source.uri} ends in {suffix or 'nothing'}; source.uri takes a .csv or .parquet file.")
    if table.num_rows == 0:
        raise Fault(f"{source.uri} has a header and no rows.")
    return table


def wanted(source: SourceSpec) -> list[str]:
    ids = [source.series_id] if source.series_id else []
    return [source.timestamp, *ids, *source.value_columns]


def check_columns(source: SourceSpec, present: list[str]) -> None:
    """Raises a Fault for a column that the spec names and the file lacks, or has twice."""
    for column in wanted(source):
        count = present.count(column)
        if count == 0 and len(present) == 1 and (mark := next((one for one in ";\t|" if one in present[0]), None)):
            raise Fault(
                f"{source.uri} has one column, {present[0]!r}; it seems to be separated by {mark!r}. Save it with commas."
            )
        if count == 0:
            near = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
            folded = {name.casefold(): name for name in present}
            near = [folded[column.casefold()]] if column.casefold() in folded else near
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise Fault(f"{source.uri} has no column {column!r}; it has {shortlist(present, 12)}.{hint}")
        if count > 1:
            raise Fault(f"{source.uri} has {count} columns named {column!r}; one is needed. Rename or remove the others.")


def read_csv(source: SourceSpec) -> pa.Table:
    try:
        with open(source.uri, newline="", encoding="utf-8-sig") as file:
            header = next(filter(None, csv.reader(file)), [])  # blank lines do not count
    except UnicodeDecodeError as error:
        raise Fault(f"{source.uri} is not UTF-8 text (byte {error.start}). Save it as UTF-8 CSV.") from error
    if not header:
        raise Fault(f"{source.uri} has no header; it holds blank lines only.")
    check_columns(source, header)
    convert = pyarrow.csv.ConvertOptions(
        include_columns=wanted(source),
        column_types={name: pa.float64() for name in source.value_columns}
        | {name: pa.string() for name in wanted(source) if name not in source.value_columns},
    )
    size = Path(source.uri).stat().st_size
    try:
        with progress("ingest", size) as bar, open(source.uri, "rb") as raw:
            parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
            return pyarrow.csv.read_csv(
                pa.PythonFile(Counted(raw, bar), mode="r"), parse_options=parse, convert_options=convert
            )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise first_bad_row(source, header) or Fault(f"{source.uri} is no CSV that can be read: {error}") from error


class Counted(io.RawIOBase):
    """A file that tells a progress bar how much of it has been read."""

    def __init__(self, file, bar):
        self.file, self.bar = file, bar

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.read(size)
        self.bar.advance(len(chunk))
        return chunk

    def readable(self) -> bool:
        return True


def first_bad_row(source: SourceSpec, header: list[str]) -> Fault | None:
    """The first row that a strict reader refuses, found by reading one row at a time."""
    numbers = [(header.index(name), name) for name in source.value_columns]
    empty = set(pyarrow.csv.ConvertOptions().null_values)
    with open(source.uri, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.reader(file)
        try:
            next(filter(None, rows))
            any_row = False
            for row in filter(None, rows):
                any_row = True
                where = f"{source.uri} line {rows.line_num}"
                if len(row) != len(header):
                    return Fault(f"{where} has {len(row)} fields; the header has {len(header)}. Mend or remove the row.")
                for index, name in numbers:
                    if row[index] not in empty and not is_number(row[index]):
                        return Fault(f"{where}, column {name!r}: {row[index]!r} is no number. Mend or empty the value.")
        except csv.Error as error:
            return Fault(f"{source.uri} line {rows.line_num}: {error}. Mend or remove the row.")
    return None if any_row else Fault(f"{source.uri} has a header and no rows.")


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text and text.isascii()  # Python's own spelling of thousands, and digits of other scripts


def read_parquet(source: SourceSpec) -> pa.Table:
    try:
        with progress("ingest", Path(source.uri).stat().st_size) as bar:
            file = pq.ParquetFile(source.uri, page_checksum_verification=True)
            check_columns(source, file.schema_arrow.names)
            table = file.read(columns=wanted(source))
            bar.advance(bar.total)
    except (pa.ArrowInvalid, OSError) as error:
        raise Fault(f"{source.uri} is no whole Parquet file ({first_line(error)}). Write or fetch it again.") from error
    for name in source.value_columns:
        table = set_column(table, name, as_float(source, table.column(name), name))
    if source.series_id:
        table = set_column(table, source.series_id, pc.cast(table.column(source.series_id), pa.string()))
    return table


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def set_column(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)


def as_float(source: SourceSpec, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = pc.cast(column, kind.value_type), kind.value_type
    if pa.types.is_boolean(kind):
        column = pc.cast(column, pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise Fault(f"{source.uri}, column {name!r} holds {kind}; numbers are needed. Convert it, or name another column.")
    return pc.cast(column, pa.float64(), safe=False)
