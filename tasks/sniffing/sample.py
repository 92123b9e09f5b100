"""A part of some files, small enough to look at at once: their first rows, and the last where those are quick to reach."""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from models.errors import Fault, counted, shortlist
from tasks.gather.files import KINDS, fold_of_name
from tasks.ingest.files import SourceFile, header_text
from tasks.ingest.listing import stem, suffixes
from tasks.ingest.sources import USUAL_MARKERS, SourceSpec
from tasks.ingest.streams import is_plain, open_text
from tasks.sniffing.dialect import guess_decimal, guess_delimiter, guess_encoding, split_rows

HEAD, TAIL = 24 << 20, 8 << 20  # bytes of text of all files
HEAD_ROWS, TAIL_ROWS = 400_000, 100_000  # of Parquet
DRAINED = 512 << 20  # bytes that are unpacked to reach the end of a compressed file
LARGEST_GROUP = 256 << 20  # bytes of a row group that is read for its last rows
MOST_FILES = 16  # of which rows are looked at


@dataclass(frozen=True)
class Dialect:
    """How a text is written."""

    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"


@dataclass
class Sample:
    """Rows of some files as they are written: text of a CSV, typed columns of Parquet."""

    columns: dict[str, pa.ChunkedArray]  # those with a name of their own
    parts: np.ndarray  # (R,) number of the run of neighbouring rows that a row belongs to; between runs some were not seen
    num_rows: int  # of all files, about where `whole` is not
    whole: bool  # whether every row is here
    dialect: Dialect | None  # of a CSV
    twice: list[str] = field(default_factory=list)  # names that several columns have
    ragged: int = 0  # rows with more or fewer fields than the header, which were passed over
    files: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # (R,) number of the file that a row is of
    folds: list[str | None] = field(default_factory=list)  # that the name of each file says
    names: list[str] = field(default_factory=list)  # of these files, without folders and endings

    def __len__(self) -> int:
        return len(self.parts)

    def spec(self, **changes) -> SourceSpec:
        """How the reader is to take these values, unchecked."""
        dialect = self.dialect or Dialect()
        given = {"delimiter": dialect.delimiter, "decimal": dialect.decimal, "encoding": dialect.encoding}
        return SourceSpec.model_construct(**{"uri": "", "timestamp": "", "target": "", **given, **changes})


def look_at(name: str, path: Path) -> SourceFile:
    """What a file is by its name.

    Raises:
        Fault: it is of a kind that is not read, empty or unreadable.
    """
    suffix, codec = suffixes(path.name)
    if suffix not in KINDS:
        shown = os.path.splitext(path.name)[1] or "nothing"
        raise Fault(f"{name} ends in {shown}; .csv, .tsv, .txt (also .gz, .bz2, .xz, .zst), .parquet and .ts are read.")
    try:
        facts = path.stat()
        with open(path, "rb") as opened:
            opened.read(1)
    except OSError as error:
        raise Fault(f"{name} can not be read ({error.strerror}). Mend it or name another.") from error
    if facts.st_size == 0:
        raise Fault(f"{name} is empty (0 bytes); it needs a header and rows.")
    kind = {"text": "csv"}.get(KINDS[suffix], KINDS[suffix])
    return SourceFile(name=name, path=str(path), kind=kind, codec=codec, bytes=facts.st_size, modified=facts.st_mtime_ns)


def take_sample(files: list[SourceFile], partitions: list[dict[str, str]]) -> Sample:
    """Rows of the files, which share out what may be looked at; of very many, those of some.

    Raises:
        Fault: one of them can not be taken apart, or they have no column in common.
    """
    chosen = np.unique(np.linspace(0, len(files) - 1, min(len(files), MOST_FILES)).astype(int)).tolist()
    taken = [with_folders(take_one(files[at], len(chosen)), partitions[at]) for at in chosen]
    shared = [name for name in taken[0].columns if all(name in one.columns for one in taken)]
    if not shared:
        if len(files) == 1:
            raise Fault(f"{files[0].name} has no column with a name of its own. Give each column one in the first line.")
        raise Fault(f"{files[0].name} and {files[-1].name} have no column in common. Name files of one kind.")
    whole = all(one.whole for one in taken) and len(chosen) == len(files)
    parts, offset = [], 0
    for one in taken:
        parts.append(one.parts + offset)
        offset += 0 if whole else int(one.parts.max(initial=0)) + 1
    columns = {name: joined([one.columns[name] for one in taken]) for name in shared}
    num_rows = sum(one.num_rows for one in taken) * len(files) // len(chosen)
    return Sample(
        columns, np.concatenate(parts), num_rows, whole, taken[0].dialect, taken[0].twice, sum(one.ragged for one in taken),
        np.repeat(np.arange(len(taken)), [len(one) for one in taken]), [fold_of_name(files[at].name) for at in chosen],
        [stem(files[at].name) for at in chosen],
    )  # fmt: skip


def joined(columns: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    kinds = {column.type for column in columns}
    if len(kinds) > 1:
        columns = [column.cast(pa.string()) for column in columns]
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)


def with_folders(sample: Sample, partitions: dict[str, str]) -> Sample:
    """The sample with the columns that the file's folders name."""
    for name, value in partitions.items():
        sample.columns.setdefault(name, pa.chunked_array([pa.repeat(pa.scalar(value), len(sample))]))
    return sample


def take_one(file: SourceFile, share: int) -> Sample:
    return take_parquet(file, share) if file.kind == "parquet" else take_csv(file, share)


def take_csv(file: SourceFile, share: int) -> Sample:
    head, tail, size = read_ends(file, HEAD // share, TAIL // share)
    encoding = guess_encoding(head, tail)
    if not is_plain(encoding):
        tail = b""  # where its characters begin can not be told
    text = decoded(head, encoding, whole_lines=size is None or size > len(head))
    first = text[: 1 << 18]
    check_lines(file, first, whole=size == len(head))
    delimiter = guess_delimiter(first)
    rows = split_rows(first, delimiter)
    check_header(file, rows)
    dialect = Dialect(delimiter, guess_decimal(rows[1:], delimiter), encoding)
    below = text.encode()[len(header_text(SourceSpec.model_construct(delimiter=delimiter, encoding=encoding), file)) :]
    ragged: list[int] = []
    runs = [
        parse_text(file, content, rows[0], dialect, ragged) for content in (below, cut_head(tail, encoding)) if content.strip()
    ]
    if not runs or not sum(len(run) for run in runs):
        raise Fault(f"{file.name} has a header and no rows.")
    table, parts = pa.concat_tables(runs), np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    seen = len(head) + len(tail)
    num_rows = len(table) if size == len(head) else round(len(table) * (size or file.bytes * 4) / max(1, seen))
    named = {name: table.column(at) for at, name in enumerate(rows[0]) if rows[0].count(name) == 1}
    twice = sorted({name for name in rows[0] if rows[0].count(name) > 1 and name.strip()})
    return Sample(named, parts, num_rows, size == len(head), dialect, twice, len(ragged))


def read_ends(file: SourceFile, head: int, tail: int) -> tuple[bytes, bytes, int | None]:
    """The first and last bytes of a text, unpacked, and how many it has; no last ones, and None, where they are far away."""
    with open_text(file, "utf-8") as stream:  # as it is, but for a byte-order mark and what it was packed with
        first = stream.read(head)
        if len(first) < head:
            return first, b"", len(first)
        if file.codec is None:
            stream.seek(max(stream.tell(), file.bytes - tail))
            last = stream.read()
            return first, last, max(file.bytes, len(first) + len(last))
        last, size = b"", len(first)
        while size < DRAINED and (block := stream.read(1 << 20)):
            last, size = (last + block)[-tail:], size + len(block)
        return (first, last, size) if size < DRAINED else (first, b"", None)


def decoded(content: bytes, encoding: str, whole_lines: bool) -> str:
    text = content.decode(encoding, errors="replace").removeprefix("\ufeff")
    return text[: text.rfind("\n") + 1] if whole_lines else text


def cut_head(tail: bytes, encoding: str) -> bytes:
    """The whole lines of the last bytes of a text, as UTF-8."""
    return tail[tail.find(b"\n") + 1 :].decode(encoding, errors="replace").encode()


def check_lines(file: SourceFile, text: str, whole: bool) -> None:
    """Raises a Fault for a text without lines."""
    if not text.strip():
        raise Fault(f"{file.name} has no header; it holds blank lines only.")
    if "\n" not in text and "\r" in text:
        raise Fault(f"{file.name} ends its lines with a carriage return alone. End them with a line feed.")
    if "\n" not in text.strip() and whole:
        raise Fault(f"{file.name} has a header and no rows.")


def check_header(file: SourceFile, rows: list[list[str]]) -> None:
    """Raises a Fault where the first line is no header."""
    widths = [len(row) for row in rows]
    usual = max(set(widths), key=widths.count)
    if len(rows[0]) != usual and widths.count(usual) > 1:
        above = next(at for at, width in enumerate(widths) if width == usual)
        raise Fault(
            f"{file.name} begins with a line of {counted(len(rows[0]), 'fields')}, and most lines have {usual}; a header "
            f"with a name for each is needed first. Take out the {counted(above, 'lines')} above it, or write one."
        )
    if is_headless(rows):
        raise Fault(
            f"{file.name} has no header: its first line is {shortlist(rows[0], 4)}. Write the names of its columns above it, "
            "as timestamp and target."
        )


def is_headless(rows: list[list[str]]) -> bool:
    """Whether the first row holds values, not names."""
    filled = [field.strip() for field in rows[0] if field.strip()]
    return (
        not filled
        or all(looks_like_value(field) for field in filled)
        or (len(filled) > 1 and any(looks_like_stamp(field) for field in filled) and any(is_number(field) for field in filled))
    )


def looks_like_value(field: str) -> bool:
    return is_number(field) or looks_like_stamp(field) or field in USUAL_MARKERS


def looks_like_stamp(field: str) -> bool:
    return sum(letter.isdigit() for letter in field) >= 4 and any(mark in field[1:] for mark in "-/.:") and not is_number(field)


def is_number(field: str) -> bool:
    try:
        float(field.replace(",", "."))
    except ValueError:
        return False
    return True


def parse_text(file: SourceFile, content: bytes, header: list[str], dialect: Dialect, ragged: list[int]) -> pa.Table:
    """All columns as text; of rows with more or fewer fields than the header only the number of these is noted."""
    names = [str(at) for at in range(len(header))]

    def pass_over(row) -> str:
        ragged.append(row.actual_columns)
        return "skip"

    try:
        return pyarrow.csv.read_csv(
            io.BytesIO(content),
            pyarrow.csv.ReadOptions(column_names=names, block_size=max(1 << 20, 64 * len(names))),
            pyarrow.csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True, invalid_row_handler=pass_over),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        said = str(error).splitlines()[0][:160]
        raise Fault(
            f"{file.name} can not be taken apart: {said}. End its lines with a line feed and close its quotes."
        ) from error


def take_parquet(file: SourceFile, share: int) -> Sample:
    """The first rows, and the last where their row group is not too large; columns within columns are passed over."""
    try:
        with pq.ParquetFile(file.path) as opened:
            metadata, schema = opened.metadata, opened.schema_arrow
            flat = [name for name in schema.names if schema.names.count(name) == 1 and is_flat(schema.field(name).type)]
            if not metadata.num_rows or not flat:
                raise Fault(f"{file.name} has no rows, or no plain column.")
            head, tail = HEAD_ROWS // share, TAIL_ROWS // share
            runs = [first_rows(opened, flat, head)]
            left = metadata.num_rows - len(runs[0])
            last = metadata.row_group(metadata.num_row_groups - 1)
            if left and last.total_byte_size <= LARGEST_GROUP:
                group = opened.read_row_group(metadata.num_row_groups - 1, columns=flat)
                runs.append(group.slice(max(0, len(group) - min(tail, left))))
            table = pa.concat_tables(runs)
    except (pa.ArrowException, OSError) as error:
        said = (str(error).splitlines() or [""])[0][:120]
        raise Fault(f"{file.name} is no whole Parquet file ({said}). Write or fetch it again.") from error
    parts = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    if left and len(runs) > 1 and left == len(runs[1]):
        parts[:], left = 0, 0
    columns = {name: plain(table[name]) for name in flat}
    return Sample(columns, parts, metadata.num_rows, not left, None)


def first_rows(opened: pq.ParquetFile, names: list[str], limit: int) -> pa.Table:
    batches, count = [], 0
    for batch in opened.iter_batches(min(limit, 1 << 16), columns=names):
        batches.append(batch.slice(0, limit - count))
        count += len(batches[-1])
        if count >= limit:
            break
    return pa.Table.from_batches(batches)


def is_flat(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind) and not pa.types.is_binary(kind)


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without a dictionary, its text of one kind."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return pc.cast(column, pa.string()) if pa.types.is_large_string(column.type) else column
