"""The files behind a source, and the chunks of them that are read, cached and retried one by one.

A chunk is a run of whole rows of about `CHUNK` bytes, known by the digest of its bytes. A file that grows keeps its
chunks but for the last, so what was read from them stays cached.
"""

import codecs
import csv
import difflib
import glob
import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from models.errors import Fault, shortlist
from tasks.ingest.sources import SourceSpec, is_url
from tasks.ingest.streams import CODECS, is_plain, is_utf8, open_text

CHUNK = 32 << 20  # bytes
KINDS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet"}


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
    small: list[tuple[Piece, str]] = []
    chunks: list[Chunk] = []

    def close() -> None:
        if small:
            chunks.append(to_chunk(small))
            small.clear()

    for file in files:
        for piece, digest in cut_pieces(source, file):
            size = sum(own.file.bytes for own, _ in small)
            if file.bytes >= CHUNK or size + file.bytes > CHUNK:
                close()
            small.append((piece, digest))
            if file.bytes >= CHUNK:
                close()
    close()
    return chunks


def to_chunk(pieces: list[tuple[Piece, str]]) -> Chunk:
    digest = hashlib.sha256()
    for piece, own in pieces:
        file = piece.file
        digest.update(repr((file.kind, file.codec, file.partitions, file.header, piece.whole, own)).encode())
    return Chunk(pieces=tuple(piece for piece, _ in pieces), digest=digest.hexdigest())


def find_files(source: SourceSpec, downloads: Path) -> list[tuple[str, Path, tuple[tuple[str, str], ...]]]:
    """Name, path and partitions of each file, sorted by name within each uri, each once.

    Raises:
        Fault: a uri names no file that can be read.
    """
    uris = (source.uri,) if isinstance(source.uri, str) else source.uri
    found: dict[str, tuple[str, Path, tuple]] = {}
    for uri in uris:
        if is_url(uri):
            from tasks.ingest.remote import fetch

            listed = fetch(uri, downloads)
        else:
            listed = list_local(uri)
        for name, path, partitions in listed:
            found.setdefault(name, (name, path, partitions))
    return list(found.values())


def list_local(uri: str) -> list[tuple[str, Path, tuple]]:
    path = Path(uri)
    if path.is_dir():
        inside = sorted(one for one in path.rglob("*") if one.is_file() and suffixes(one.name)[0] in KINDS)
        seen = [one for one in inside if not any(part.startswith((".", "_")) for part in one.relative_to(path).parts)]
        if not seen:
            raise Fault(f"{uri} is a folder without any .csv or .parquet file. Put one there or name another source.uri.")
        return [(str(one), one, partitions_of(one.relative_to(path))) for one in seen]
    if path.exists():
        return [(uri, path, ())]
    if glob.has_magic(uri):
        matches = sorted(one for one in glob.glob(uri, recursive=True) if Path(one).is_file())
        if not matches:
            raise Fault(f"No file matches {uri}. Name another source.uri.")
        return [(one, Path(one), partitions_of(Path(one))) for one in matches]
    near = difflib.get_close_matches(path.name, names_beside(path), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise Fault(f"{uri} does not exist.{hint} Set source.uri to a .csv or .parquet file, a folder or a glob.")


def partitions_of(path: Path) -> tuple[tuple[str, str], ...]:
    """The columns that a path's folders name, Hive's way: `year=2014/site=north/part.parquet`."""
    from urllib.parse import unquote

    pairs = [part.split("=", 1) for part in path.parts[:-1] if "=" in part]
    return tuple((name, unquote(value)) for name, value in pairs)


def names_beside(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []


def suffixes(name: str) -> tuple[str, str | None]:
    """The kind of a file by its suffix, and its codec: `.csv`, `gzip` of `sales.csv.gz`."""
    stem, last = os.path.splitext(name.lower())
    if last in CODECS:
        return os.path.splitext(stem)[1], CODECS[last]
    return last, None


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
        with open(path, "rb") as file:
            file.read(1)
    except PermissionError as error:
        raise Fault(f"{name} can not be read by this user. Change its permissions.") from error
    if facts.st_size == 0:
        raise Fault(f"{name} is empty (0 bytes); it needs a header and rows.")
    file = SourceFile(
        name=name, path=str(path), kind=KINDS[suffix], codec=codec, partitions=partitions, bytes=facts.st_size,
        modified=facts.st_mtime_ns,
    )  # fmt: skip
    if file.kind == "csv":
        return file.model_copy(update={"header": tuple(read_header(source, file)[0])})
    return file


def read_header(source: SourceSpec, file: SourceFile) -> tuple[list[str], int, int]:
    """The names in a CSV's header, how many bytes of the text it takes, and how many lines.

    Raises:
        Fault: it has none, or lacks a column that the spec names.
    """
    lines: list[bytes] = []
    with open_text(file, source.encoding) as stream:
        quotes = 0
        for line in iter(lambda: stream.readline(16 << 20), b""):
            lines.append(line)
            quotes += line.count(source.quote.encode())
            if quotes % 2 == 0 and line.strip():
                break
    text = b"".join(lines)
    header = next(filter(None, csv.reader(io.StringIO(text.decode(errors="replace")), **dialect(source))), [])
    header = [name.removeprefix("\ufeff") if at == 0 else name for at, name in enumerate(header)]
    if not any(header):
        raise Fault(f"{file.name} has no header; it holds blank lines only.")
    check_columns(source, file, header)
    size = len(text) if is_utf8(source.encoding) else len(text.decode().encode(source.encoding))
    return header, size, text.count(b"\n")


def dialect(source: SourceSpec) -> dict:
    """How Python's reader is to read a CSV of this source."""
    return {"delimiter": source.delimiter, "quotechar": source.quote}


def check_columns(source: SourceSpec, file: SourceFile, present: list[str]) -> None:
    """Raises a Fault for a column that the spec names and the file lacks, or has twice."""
    given = [*present, *(name for name, _ in file.partitions)]
    for column in columns_wanted(source, given):
        count = given.count(column)
        if count == 0 and len(present) == 1 and (mark := next((one for one in ";\t|," if one in present[0]), None)):
            raise Fault(
                f"{file.name} has one column, {present[0]!r}; it seems to be separated by {mark!r}. "
                f"Set source.delimiter={mark!r}."
            )
        if count == 0:
            near = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
            folded = {name.casefold(): name for name in present}
            near = [folded[column.casefold()]] if column.casefold() in folded else near
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise Fault(f"{file.name} has no column {column!r}; it has {shortlist(present, 12)}.{hint}")
        if count > 1:
            raise Fault(f"{file.name} has {count} columns named {column!r}; one is needed. Rename or remove the others.")
    if source.wide and not wide_columns(source, given):
        raise Fault(
            f"{file.name} has no column that source.wide {shortlist(source.wide)} names; it has {shortlist(present, 12)}."
        )


def columns_wanted(source: SourceSpec, present: list[str]) -> list[str]:
    """The columns that are read, each once: stamps, ids, then values."""
    target = wide_columns(source, present) if source.wide else [source.target]
    return [*source.stamp_columns, *source.id_columns, *target, *source.covariates]


def wide_columns(source: SourceSpec, present: list[str]) -> list[str]:
    """The columns that are a series each: those named, and those a glob matches, in file order."""
    from fnmatch import fnmatchcase

    taken = (*source.stamp_columns, *source.covariates)
    plain = [name for name in source.wide if not glob.has_magic(name)]
    globs = [name for name in source.wide if glob.has_magic(name)]
    matched = [name for name in present if name not in taken and any(fnmatchcase(name, one) for one in globs)]
    return [*plain, *(name for name in matched if name not in plain)]


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
    else:
        with ThreadPoolExecutor(2) as pool:
            # Two at a time: hashing lets go of the interpreter, and no more than three chunks lie in memory.
            waiting: list = []
            for start, line, content in cut_csv(source, file):
                piece = Piece(file=file, start=start, end=start + len(content), line=line)
                waiting.append((piece, pool.submit(lambda data: hashlib.sha256(data).hexdigest(), content)))
                del content
                if len(waiting) > 2:
                    done, digest = waiting.pop(0)
                    yield done, digest.result()
            for done, digest in waiting:
                yield done, digest.result()


def cut_csv(source: SourceSpec, file: SourceFile) -> Iterator[tuple[int, int, bytes]]:
    """Start, first line and bytes of each piece below the header; a piece ends with a row, outside any quotes."""
    _header, size, lines = read_header(source, file)
    with open(file.path, "rb") as raw:
        bom = 3 if is_utf8(source.encoding) and raw.read(3) == codecs.BOM_UTF8 else 0
        start, line = bom + size, 1 + lines
        raw.seek(start)
        for content in cut_rows(raw, source.quote.encode()):
            yield start, line, content
            start, line = start + len(content), line + content.count(b"\n")


def cut_rows(stream, quote: bytes) -> Iterator[bytes]:
    """Whole rows, about `CHUNK` bytes of them at a time; a line break between quotes ends no row."""
    while block := stream.read(CHUNK):
        quotes = block.count(quote)
        while len(block) >= CHUNK and not (quotes % 2 == 0 and block.endswith(b"\n")):
            tail = stream.readline(CHUNK)
            if not tail:
                break
            block, quotes = block + tail, quotes + tail.count(quote)
        yield block


def cut_parquet(source: SourceSpec, file: SourceFile) -> Iterator[tuple[Piece, str]]:
    """Runs of row groups of about `CHUNK` bytes each."""
    try:
        with pq.ParquetFile(file.path) as opened:
            metadata, names = opened.metadata, opened.schema_arrow.names
            schema = str(opened.schema_arrow.remove_metadata())
    except (pa.ArrowException, OSError) as error:
        raise Fault(f"{file.name} is no whole Parquet file ({first_line(error)}). Write or fetch it again.") from error
    check_columns(source, file, names)
    begin, size = 0, 0
    with open(file.path, "rb") as raw:
        for group in range(metadata.num_row_groups):
            size += metadata.row_group(group).total_byte_size
            if size >= CHUNK or group == metadata.num_row_groups - 1:
                piece = Piece(file=file, start=begin, end=group + 1)
                yield piece, digest_groups(raw, metadata, begin, group + 1, schema)
                begin, size = group + 1, 0
    if metadata.num_row_groups == 0:
        raise Fault(f"{file.name} has a header and no rows.")


def digest_groups(raw, metadata: pq.FileMetaData, begin: int, end: int, schema: str) -> str:
    """SHA-256 over the bytes of some row groups, wherever in the file they lie."""
    digest = hashlib.sha256(schema.encode())
    for group in range(begin, end):
        facts = metadata.row_group(group)
        for column in range(facts.num_columns):
            own = facts.column(column)
            first = own.data_page_offset
            if own.dictionary_page_offset:
                first = min(first, own.dictionary_page_offset)
            digest.update(f"{own.path_in_schema} {own.compression} {own.encodings} {own.num_values}".encode())
            raw.seek(first)
            left = own.total_compressed_size
            while left > 0 and (block := raw.read(min(left, 4 << 20))):
                digest.update(block)
                left -= len(block)
    return digest.hexdigest()


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
