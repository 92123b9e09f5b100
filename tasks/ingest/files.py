"""The files behind a source: what each is, and the header of a CSV."""

import csv
import io
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from models.errors import Fault
from tasks.ingest.columns import check_columns, dialect
from tasks.ingest.listing import KINDS, stem, suffixes
from tasks.ingest.quotes import ends_open
from tasks.ingest.sources import SourceSpec
from tasks.ingest.streams import is_utf8, not_encoded, open_text

LONGEST = 64 << 20  # bytes of one row; more than that, and a quote was never closed


class SourceFile(BaseModel):
    """One file of a source as it was when the run began."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str  # as the user knows it
    path: str  # where its bytes lie on this machine
    kind: str  # csv or parquet
    codec: str | None = None
    partitions: tuple[tuple[str, str], ...] = ()  # columns that its folders name, as year=2014, or its own name makes
    bytes: int
    modified: int  # nanoseconds
    header: tuple[str, ...] = ()  # of a CSV


def describe_file(source: SourceSpec, name: str, path: Path, partitions: tuple) -> SourceFile:
    """A file's kind, size and header.

    Raises:
        Fault: it is of another kind, empty, unreadable, or lacks a column.
    """
    suffix, codec = suffixes(path.name)
    if suffix not in KINDS:
        shown = os.path.splitext(path.name)[1] or "nothing"
        raise Fault(f"{name} ends in {shown}; source.uri takes .csv (also .gz, .bz2, .xz, .zst) and .parquet files.")
    try:
        facts = path.stat()
        if not path.is_file():
            raise Fault(f"{name} is no regular file. Write what it hands out to a file and name that one.")
        with open(path, "rb") as opened:
            opened.read(1)
    except PermissionError as error:
        raise Fault(f"{name} can not be read by this user. Change its permissions.") from error
    except FileNotFoundError as error:
        raise Fault(f"{name} was removed while the files were listed. Run again once it is there.") from error
    if facts.st_size == 0:
        raise Fault(f"{name} is empty (0 bytes); it needs a header and rows.")
    if source.file_column:
        partitions = (*partitions, (source.file_column, stem(name)))
    named = {*source.stamp_columns, *source.id_columns, *source.covariates, source.target}
    used = tuple((column, value) for column, value in partitions if column in named)
    file = SourceFile(
        name=name, path=str(path), kind=KINDS[suffix], codec=codec, partitions=used, bytes=facts.st_size,
        modified=facts.st_mtime_ns,
    )  # fmt: skip
    if file.kind == "csv":
        return file.model_copy(update={"header": tuple(read_header(source, file)[0])})
    return file


def read_header(source: SourceSpec, file: SourceFile) -> tuple[list[str], int, int]:
    """The names in a CSV's header, how many bytes of the file it takes after a byte-order mark, and how many lines.

    Raises:
        Fault: it has none, is not of the encoding, or lacks a column that the spec names.
    """
    text = header_text(source, file)
    try:
        decoded = text.decode()
        rows = csv.reader(io.StringIO(decoded, newline=""), **dialect(source))
        header = next((row for row in rows if any(name.strip() for name in row)), [])
        if next(filter(None, rows), None) is not None:
            raise csv.Error("its lines end with a carriage return alone")
    except UnicodeDecodeError as error:
        raise not_encoded(file.name, source.encoding, error) from error
    except csv.Error as error:
        raise Fault(
            f"{file.name} has a header that can not be taken apart ({first_line(error)}). "
            "End its lines with a line feed and close its quotes, or set source.quote."
        ) from error
    if not header:
        raise Fault(f"{file.name} has no header; it holds blank lines only.")
    check_columns(source, file, header)
    size = len(text) if is_utf8(source.encoding) else len(decoded.encode(source.encoding))
    return header, size, text.count(b"\n")


def header_text(source: SourceSpec, file: SourceFile) -> bytes:
    """The first lines of a CSV as UTF-8, up to the end of its header."""
    lines: list[bytes] = []
    opened, size = False, 0
    with open_text(file, source.encoding) as stream:
        for line in iter(lambda: stream.readline(LONGEST), b""):
            lines.append(line)
            size += len(line)
            opened = ends_open(line, source.quote.encode(), source.delimiter.encode(), opened)
            if not opened and line.strip():
                break
            if size >= LONGEST:
                raise too_long(file.name)
    if opened:
        raise Fault(f"{file.name} has a header with a quote that is never closed. Close it, or set source.quote.")
    return b"".join(lines)


def too_long(name: str) -> Fault:
    return Fault(
        f"{name} has a row of more than {LONGEST >> 20} MB; quotes may not be closed, or lines not end with a line feed. "
        "Mend it or set source.quote."
    )


def check_unchanged(file) -> None:
    """Raises a Fault where a file, of any kind of source, is no longer what it was when the run began."""
    try:
        facts = os.stat(file.path)
    except FileNotFoundError as error:
        raise Fault(f"{file.name} was removed while it was being read. Run again once it is there.") from error
    if (facts.st_size, facts.st_mtime_ns) != (file.bytes, file.modified):
        raise Fault(f"{file.name} changed while it was being read. Run again once it is written.")


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
