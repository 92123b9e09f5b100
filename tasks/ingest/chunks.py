"""The chunks of a source, which are read, cached and retried one by one.

A chunk is a run of whole rows of about `CHUNK` bytes, known by the digest of its bytes. A file that grows keeps its
chunks but for the last, so what was read from them stays cached.
"""

import codecs
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from models.errors import Fault
from tasks.ingest.columns import check_columns, columns_wanted
from tasks.ingest.files import LONGEST, SourceFile, check_unchanged, describe_file, first_line, read_header, too_long
from tasks.ingest.listing import find_files
from tasks.ingest.quotes import ends_open
from tasks.ingest.sources import SourceSpec
from tasks.ingest.streams import is_plain, is_text, is_utf8

CHUNK = 64 << 20  # bytes
BLOCK = 1 << 20  # bytes hashed at a time


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


def cut_parquet(source: SourceSpec, file: SourceFile) -> Iterator[tuple[Piece, str]]:
    """Runs of row groups of about `CHUNK` bytes each, known by the columns that are read.

    Of a file whose stamps count by their order, all: which of two hours a row means is told by the rows before it.
    """
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
                is_last = group == metadata.num_row_groups - 1
                if is_last or (size >= CHUNK and source.repeated_hour != "order"):
                    yield Piece(file=file, start=begin, end=group + 1), digest.hexdigest()
                    begin, size, digest = group + 1, 0, hashlib.sha256(schema.encode())
    except Fault:
        raise
    except (ValueError, OSError, pa.ArrowException) as error:
        if is_text(file.path):
            raise Fault(f"{file.name} is text by its first bytes and not Parquet as its name says. Name it .csv.") from error
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
