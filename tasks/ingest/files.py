"""The files behind a source, and the chunks of them that are read, cached and retried one by one.

A chunk is a run of whole rows of about `CHUNK` bytes, known by the digest of its bytes. A file that grows keeps its
chunks but for the last, so what was read from them stays cached.
"""

import codecs
import csv
import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from models.errors import Fault
from tasks.ingest.columns import check_columns, columns_wanted, dialect
from tasks.ingest.listing import KINDS, find_files, suffixes
from tasks.ingest.quotes import ends_open
from tasks.ingest.sources import SourceSpec
from tasks.ingest.streams import is_plain, is_utf8, not_encoded, open_text

CHUNK = 64 << 20  # bytes
BLOCK = 1 << 20  # bytes hashed at a time
LONGEST = 64 << 20  # bytes of one row; more than that, and a quote was never closed


class SourceFile(BaseModel):
    """One file of a source as it was when the run began."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str  # as the user knows it
    path: str  # where its bytes lie on this machine
    kind: str  # csv or parquet
    codec: str | None = None
    partitions: tuple[tuple[str, str], ...] = ()  # columns that its folders name, as year=2014
    bytes: int
    modified: int  # nanoseconds
    header: tuple[str, ...] = ()  # of a CSV


class Piece(BaseModel):
    """Rows of one file: bytes of a CSV, the whole of it, or row groups of a Parquet file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: SourceFile
    start: int  # byte of a CSV, or row group
    end: int
    line: int = 1  # of a CSV, on which it begins
    whole: bool = False  # of a CSV that is read from its first byte, header included


class Chunk(BaseModel):
    """What one task reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pieces: tuple[Piece, ...]
    digest: str  # over the bytes, and whatever else decides what they say

    def cache_identity(self) -> str:
        return self.digest

    @property
    def bytes(self) -> int:
        return sum(piece.end - piece.start if piece.file.kind == "csv" else piece.file.bytes for piece in self.pieces)


def take_stock(source: SourceSpec, downloads: Path) -> list[Chunk]:
    """Every chunk of a source, in the order of file names.

    Args:
        downloads: folder for copies of files that lie elsewhere.

    Raises:
        Fault: there is no such file, or one is empty, unreadable, or lacks a column that the spec names.
    """
    files = [describe_file(source, *found) for found in find_files(source, downloads)]
    waiting: list[tuple[Piece, str]] = []
    waiting_bytes = 0
    chunks: list[Chunk] = []
    for file in files:
        for piece, digest in cut_pieces(source, file):
            if waiting and waiting_bytes + file.bytes > CHUNK:
                chunks.append(to_chunk(waiting))
                waiting, waiting_bytes = [], 0
            waiting.append((piece, digest))
            waiting_bytes += file.bytes
        check_unchanged(file)
    if waiting:
        chunks.append(to_chunk(waiting))
    if not chunks:
        others = f", and so do the other {len(files) - 1} files" if len(files) > 1 else ""
        raise Fault(f"{files[0].name} has a header and no rows{others}.")
    return chunks


def to_chunk(pieces: list[tuple[Piece, str]]) -> Chunk:
    digest = hashlib.sha256()
    for piece, own in pieces:
        file = piece.file
        digest.update(repr((file.kind, file.codec, file.partitions, file.header, piece.whole, piece.line, own)).encode())
    return Chunk(pieces=tuple(piece for piece, _ in pieces), digest=digest.hexdigest())


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


def cut_pieces(source: SourceSpec, file: SourceFile) -> Iterator[tuple[Piece, str]]:
    """The pieces of a file, each with the digest of its bytes.

    Raises:
        Fault: a Parquet file is not whole.
    """
    if file.kind == "parquet":
        yield from cut_parquet(source, file)
    elif file.codec or not is_plain(source.encoding) or source.repeated_hour == "order":
        with open(file.path, "rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
        yield Piece(file=file, start=0, end=file.bytes, whole=True), digest
    elif file.bytes <= CHUNK:
        for start, line, content in cut_csv(source, file):
            yield Piece(file=file, start=start, end=start + len(content), line=line), sha256(content)
    else:
        yield from cut_long_csv(source, file)


def cut_long_csv(source: SourceSpec, file: SourceFile) -> Iterator[tuple[Piece, str]]:
    """As `cut_csv` cuts a file, the pieces of one without quotes looked at two at a time."""
    _header, size, lines = read_header(source, file)
    with open(file.path, "rb") as raw:
        start = size + byte_order_mark(source, raw)
        marks = [start, *line_ends(raw, start, file)]
    with ThreadPoolExecutor(2) as pool:  # hashing and counting let go of the interpreter
        scans = list(pool.map(lambda span: scan(file.path, *span, source.quote.encode()), pairwise(marks)))
    if any(quotes for _, _, quotes in scans):
        for start, line, content in cut_csv(source, file):
            yield Piece(file=file, start=start, end=start + len(content), line=line), sha256(content)
        return
    line = 1 + lines
    for (start, end), (digest, count, _) in zip(pairwise(marks), scans, strict=True):
        yield Piece(file=file, start=start, end=end, line=line), digest
        line += count


def byte_order_mark(source: SourceSpec, raw) -> int:
    """The bytes it takes, if there is one."""
    return 3 if is_utf8(source.encoding) and raw.read(3) == codecs.BOM_UTF8 else 0


def line_ends(raw, start: int, file: SourceFile) -> Iterator[int]:
    """The end of each piece, if no line break stands between quotes: the first end of a line after `CHUNK` bytes."""
    while start < file.bytes:
        raw.seek(min(start + CHUNK, file.bytes) - 1)
        line = raw.readline(LONGEST)
        if len(line) == LONGEST and not line.endswith(b"\n"):
            raise too_long(file.name)
        start = raw.tell()
        yield start


def scan(path: str, start: int, end: int, quote: bytes) -> tuple[str, int, int]:
    """SHA-256 of some bytes of a file, and how many line feeds and quotes they hold; read in blocks that stay in cache."""
    digest, lines, quotes = hashlib.sha256(), 0, 0
    with open(path, "rb") as raw:
        raw.seek(start)
        while start < end and (block := raw.read(min(BLOCK, end - start))):
            digest.update(block)
            lines += count_lines(block)
            quotes += block.count(quote)
            start += len(block)
    return digest.hexdigest(), lines, quotes


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def cut_csv(source: SourceSpec, file: SourceFile) -> Iterator[tuple[int, int, bytes]]:
    """Start, first line and bytes of each piece below the header; a piece ends with a row, outside any quotes."""
    _header, size, lines = read_header(source, file)
    with open(file.path, "rb") as raw:
        start, line = size + byte_order_mark(source, raw), 1 + lines
        raw.seek(start)
        for content in cut_rows(raw, source.quote.encode(), source.delimiter.encode(), file.name):
            yield start, line, content
            start, line = start + len(content), line + count_lines(content)


def count_lines(content: bytes) -> int:
    """Line feeds; `bytes.count` is three times slower where there are many."""
    return int(np.count_nonzero(np.frombuffer(content, np.uint8) == ord("\n")))


def cut_rows(stream, quote: bytes, delimiter: bytes = b"", name: str = "The CSV", size: int | None = None) -> Iterator[bytes]:
    """Whole rows, about `size` bytes of them at a time, or `CHUNK`; a line break between quotes ends no row.

    Args:
        delimiter: between fields; without it every quote counts, also one within a field, as in `5" pipe`.

    Raises:
        Fault: quotes are opened and never closed.
    """
    limit = size or CHUNK
    while block := stream.read(limit):
        whole = len(block) < limit  # the file ends here
        if not whole and not block.endswith(b"\n"):
            block, whole = finish_line(stream, block, name)
        opened = ends_open(block, quote, delimiter)
        lines, held = [block], len(block)
        while opened and not whole and (line := stream.readline(LONGEST)):
            lines.append(line)
            held += len(line)
            opened = ends_open(line, quote, delimiter, opened)
            if held > limit + LONGEST:
                raise too_long(name)
        if opened and delimiter:
            raise Fault(
                f"{name} ends between quotes. Fetch it again if it is cut short, close the quotes, or set source.quote."
            )
        yield b"".join(lines)


def finish_line(stream, block: bytes, name: str) -> tuple[bytes, bool]:
    """A block up to the end of its last line, and whether the file ends there."""
    tail = stream.readline(LONGEST)
    if len(tail) == LONGEST and not tail.endswith(b"\n"):
        raise too_long(name)
    return block + tail, not tail.endswith(b"\n")


def too_long(name: str) -> Fault:
    return Fault(
        f"{name} has a row of more than {LONGEST >> 20} MB; quotes may not be closed, or lines not end with a line feed. "
        "Mend it or set source.quote."
    )


def cut_parquet(source: SourceSpec, file: SourceFile) -> Iterator[tuple[Piece, str]]:
    """Runs of row groups of about `CHUNK` bytes each, known by the columns that are read."""
    try:
        with pq.ParquetFile(file.path) as opened, open(file.path, "rb") as raw:
            metadata, names = opened.metadata, opened.schema_arrow.names
            check_columns(source, file, names)
            wanted = [name for name in columns_wanted(source, names) if name in names]
            schema = "\n".join(str(opened.schema_arrow.field(name)) for name in wanted)
            leaves = [at for at in range(metadata.num_columns) if opened.schema.column(at).path.split(".")[0] in wanted]
            begin, size = 0, 0
            digest = hashlib.sha256(schema.encode())
            for group in range(metadata.num_row_groups if metadata.num_rows else 0):
                # Arrow ends the process over columns that the footer does not describe, but for where it reads rows.
                next(opened.iter_batches(1, row_groups=[group], columns=wanted, use_threads=False), None)
                add_group(digest, raw, metadata.row_group(group), leaves)
                size += metadata.row_group(group).total_byte_size
                if size >= CHUNK or group == metadata.num_row_groups - 1:
                    yield Piece(file=file, start=begin, end=group + 1), digest.hexdigest()
                    begin, size, digest = group + 1, 0, hashlib.sha256(schema.encode())
    except Fault:
        raise
    except (ValueError, OSError, pa.ArrowException) as error:
        said = first_line(error)
        raise Fault(f"{file.name} is no whole Parquet file ({said}). Write or fetch it again.") from error


def add_group(digest, raw, group: pq.RowGroupMetaData, leaves: list[int]) -> None:
    """Add the bytes of some columns of a row group to a digest, wherever in the file they lie."""
    for leaf in leaves:
        own = group.column(leaf)
        first = own.data_page_offset
        if own.dictionary_page_offset:
            first = min(first, own.dictionary_page_offset)
        digest.update(f"{own.path_in_schema} {own.compression} {own.encodings} {own.num_values}".encode())
        raw.seek(first)
        left = own.total_compressed_size
        while left > 0 and (block := raw.read(min(left, 4 << 20))):
            digest.update(block)
            left -= len(block)


def check_unchanged(file: SourceFile) -> None:
    """Raises a Fault where a file is no longer what it was when the run began."""
    try:
        facts = os.stat(file.path)
    except FileNotFoundError as error:
        raise Fault(f"{file.name} was removed while it was being read. Run again once it is there.") from error
    if (facts.st_size, facts.st_mtime_ns) != (file.bytes, file.modified):
        raise Fault(f"{file.name} changed while it was being read. Run again once it is written.")


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
