"""Damaged files: each is refused with a Fault, or read as a slow reader that shares no code with ingestion reads it.

A case follows from its seed alone: a well-formed file in one of many dialects, up to three kinds of damage, and what the
slow reader makes of the result. Cases run in processes of their own, for a damaged footer can bring down a native
library or ask for all memory; a process that dies, or takes longer than `SECONDS` over a case, is a failure of that case.
Seeds are counted through rather than drawn by hypothesis, which would have to see each failure in its own process and
starts afresh after one; `shrunk` leaves away the damage that a failure does not need, and `reproduce(seed)` replays it.
"""

import bz2
import codecs
import csv
import fnmatch
import gzip
import io
import json
import lzma
import multiprocessing
import re
import resource
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from multiprocessing.connection import wait
from pathlib import Path
from random import Random
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from models.errors import Fault
from tasks.ingest import chunks, reading
from tasks.ingest.parts import write_runs
from tasks.ingest.sources import SourceSpec

NUM_CASES = 10_000  # under six minutes on two cores
NUM_SAMPLED = 300  # of each run of the tests
WORKERS = 2
SECONDS = 20  # a case
MOST = 512 << 20  # bytes of memory that a case of a few kilobytes may take
MEMORY = 4 << 30  # bytes of addresses that a case may ask for
USUAL = ("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "#N/A", "#NA", "<NA>")
YES, NO = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")
STAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?)?(?:(Z)|([+-]\d\d)(?::?(\d\d))?)?", re.ASCII
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII)
EPOCH = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # microseconds: the years 1 to 9999
PACKED = {"load": "BYTE_STREAM_SPLIT", "note": "DELTA_BYTE_ARRAY", "t": "PLAIN"}
CELLS = [
    "", " ", "NA", "None", "?", "-999", "-999.0", "TRUE", "false", "True ", "0", "1", "-0", "+5", " 5", "5 ", "\t5",
    "5\0", "0x10", "1_000", "1 000", "1,000", "1,5", "1.5", "1.5.2", "1.", ".5", ".", "-", "+", "--1", "1e5", "1E-5",
    "1e", "e5", "1e400", "1e-400", "4.9e-324", "0.1e1", "1d5", "0x1p3", "inf", "-Infinity", "nan(1)", "NaN ", "+nan", "٣",
    "１２", "½", "9" * 40, "0.1234567890123456789", "9007199254740993", "2024-01-01", "2024-02-30", "2024-01-01T24:00",
    "2024-01-01T23:59:60", "2024-1-1", "20240101", "2024-01-01 00:00:00.1234567", "2024-01-01 00:00:00.1230000",
    "2024-01-01T00:00Z", "2024-01-01 00:00+14:00", "2024-01-01 00:00+0000", "2024-01-01 00:00 +00:00",
    "2024-01-01T00:00z", "2024-01-01Z", "10000-01-01", "0000-01-01", "0001-01-01T00:00+10:00",
    "9999-12-31 23:59:59.999999", "9999-12-31T23:59-10:00", "-2024-01-01", "2024-01-01 0000", "2024-01-01 00:0000",
    "2024-03-31 02:30", "2024-10-27 02:30", "1e9", "1.5e9", "1704067200.0000001", "a/b", "a%2Fb", '"', "é", "\ufeff",
]  # fmt: skip
SCRAPS = [
    '"', "'", "\n", "\r", "\r\n", "\0", ",", ";", "\t", "|", " ", ".", "-", "é", "\ufeff", "\u2028", "\x1c", "\x0b", '""',
    "\n\n",
]  # fmt: skip


# The slow reader


class Refused(Exception):
    """The whole file is not well formed."""


class Unspecified(Exception):
    """An epoch that ingestion reads as float64 and rounds, for it has more than nine decimals or is out of all bounds."""


@dataclass
class Reading:
    """What a file holds, by series and in its order: instants in microseconds, and values as text that is exact."""

    rows: dict[str, list] = field(default_factory=dict)
    faulty: set[str] = field(default_factory=set)  # series that have a row which is not well formed
    open: bool = False  # ingestion may be stricter here


def unpacked(content: bytes, codec: str) -> bytes:
    try:
        if codec == "gz":
            return gzip.decompress(content)
        if codec == "zst":
            return pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
        text, start = b"", {"xz": lzma.LZMADecompressor, "bz2": bz2.BZ2Decompressor}[codec]
        while content or not text:
            stream = start()
            text += stream.decompress(content)
            if not stream.eof:
                raise Refused("ends too early")
            content = stream.unused_data.lstrip(b"\0")
        return text
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise Refused(str(error)) from error


def split(text: str, delimiter: str, quote: str) -> Iterator[list[str]]:
    """The rows of a CSV, one character at a time; blank lines are rows without fields."""
    row, cell, state, begun = [], [], "start", False
    at = 0
    while at < len(text):
        one = text[at]
        at += 1
        if state == "quoted":
            if one != quote:
                cell.append(one)
            elif text[at : at + 1] == quote:
                cell.append(one)
                at += 1
            else:
                state = "plain"
        elif one in "\r\n":
            at += one == "\r" and text[at : at + 1] == "\n"
            yield [*row, "".join(cell)] if begun else []
            row, cell, state, begun = [], [], "start", False
        elif one == delimiter:
            row.append("".join(cell))
            cell, state, begun = [], "start", True
        elif one == quote and state == "start":
            state, begun = "quoted", True
        else:
            cell.append(one)
            state, begun = "plain", True
    if state == "quoted":
        raise Refused("a quote is never closed")
    if begun:
        yield [*row, "".join(cell)]


def to_number(text: str, markers: tuple, decimal: str) -> float | None:
    """NaN where there is no value, None where it is no number."""
    text = text.strip()
    if text in (*USUAL, *markers):
        return float("nan")
    if text in YES + NO:
        return float(text in YES)
    if decimal == ",":
        text = "no" if "." in text else text.replace(",", ".")
    if not NUMBER.fullmatch(text):
        return None
    number = float(text)
    return float("nan") if any(NUMBER.fullmatch(one) and float(one) == number for one in markers) else number


def wall_of(parts: list, fraction: str) -> int | None:
    try:
        wall = datetime(*(int(part or 0) for part in parts), tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except ValueError:
        return None
    return None if fraction[6:].strip("0") else wall // timedelta(microseconds=1) + int(fraction[:6].ljust(6, "0"))


def iso(text: str) -> tuple[int | None, bool]:
    """Microseconds, None where it is no stamp; and whether they are of the local clock."""
    found = STAMP.fullmatch(text.strip())
    if not found:
        return None, True
    *parts, fraction, utc, offset, minutes = found.groups()
    wall = wall_of(parts, fraction or "")
    if not utc and not offset:
        return wall, True
    if parts[3] is None or int(minutes or 0) > 59 or abs(int(offset or 0)) > 23:
        return None, False
    ahead = 0 if utc else (int(offset[0] + "1") * (int(offset[1:]) * 60 + int(minutes or 0))) * 60_000_000
    return None if wall is None else wall - ahead, False


def instant(source: SourceSpec, text: str) -> tuple[int | None, bool]:
    """As `iso`, of any form that the source may name."""
    form = source.timestamp_format
    if form is None:
        return iso(text)
    if form not in EPOCHS:
        try:
            return (datetime.strptime(text, form) - datetime(1970, 1, 1)) // timedelta(microseconds=1), True
        except ValueError:
            return None, True
    text = text.strip().replace(",", ".") if source.decimal == "," else text.strip()
    if not EPOCH.fullmatch(text):
        return None, False
    number = Decimal(text)
    if (number and not -9 <= number.adjusted() <= 18) or number.as_tuple().exponent < -9:
        raise Unspecified
    micros = number * EPOCHS[form] if number.adjusted() < 40 else Decimal("1e40")
    return (int(micros) if micros == micros.to_integral_value() else None), False


def zone_of(name: str) -> tzinfo:
    return timezone(timedelta(hours=int(name[:3]), minutes=int(name[4:]))) if name[0] in "+-" else ZoneInfo(name)


def settle(source: SourceSpec, wall: int, zone: tzinfo) -> int | str | None:
    """The instant of a wall time; "drop" where the row goes, None where it is a fault."""
    if not FIRST <= wall <= LAST:
        return None
    shown = datetime(1970, 1, 1) + timedelta(microseconds=wall)
    early, late = (shown.replace(tzinfo=zone, fold=fold).utcoffset() // timedelta(microseconds=1) for fold in (0, 1))
    if early < late:
        return "drop" if source.skipped_hour == "drop" else None
    if early > late and source.repeated_hour == "error":
        return None
    return wall - (late if source.repeated_hour == "second" else early)


def read_slowly(source: SourceSpec, content: bytes, codec: str | None) -> Reading:
    """The rows of a CSV.

    Raises:
        Refused: there is a row that can not be taken apart, or no header that holds every column.
    """
    content = content if codec is None else unpacked(content, codec)
    if source.encoding == "utf-16" and content[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise Refused("nothing tells the order of its bytes")
    try:
        # What lies in a column that is not used need not be text.
        text = content.decode(source.encoding, "surrogateescape" if source.encoding == "utf-8" else "strict")
    except UnicodeError as error:
        raise Refused(str(error)) from error
    text = text.removeprefix("\ufeff")
    rows = split(text, source.delimiter, source.quote)
    header = find_header(rows)
    if not any(one.strip() for one in header) or any(undecoded(one) for one in header):
        raise Refused("no header")
    ids = [source.series_id] if isinstance(source.series_id, str) else [*(source.series_id or ())]
    stamps = [source.timestamp] if isinstance(source.timestamp, str) else [*source.timestamp]
    own = [name for name in header if any(fnmatch.fnmatchcase(name, one) for one in source.wide or ())]
    targets = own if source.wide else [source.target]
    wanted = [*stamps, *ids, *targets, *source.past_covariates]
    if not targets or any(header.count(name) != 1 for name in wanted):
        raise Refused("a column is absent, or there twice")
    slow, seen = Reading(), [row for row in rows if row]
    # Ingestion wants a line feed below the header, at least.
    slow.open = header != find_header(split(re.sub("\r(?!\n)", "", text), source.delimiter, source.quote))
    if any(len(row) != len(header) for row in seen):
        raise Refused("a row has another number of fields")
    kinds = set()
    for row in seen:
        cells = dict(zip(header, row, strict=True))
        if any(undecoded(cells[name]) for name in wanted) or any(not cells[name] for name in ids):
            raise Refused("a cell is no text, or names no series")
        kinds.add(read_row(source, cells, slow, stamps, ids, targets))
    slow.open |= len(kinds - {None}) > 1 or not seen  # stamps with and without an offset: a fault within one chunk
    return slow


def find_header(rows: Iterator[list[str]]) -> list[str]:
    return next((row for row in rows if len(row) > 1 or any(one.strip() for one in row)), [])


def undecoded(text: str) -> bool:
    return any("\udc80" <= one <= "\udcff" for one in text)


def read_row(source, cells: dict, slow: Reading, stamps: list, ids: list, targets: list) -> bool | None:
    """Add a row to what was read; returns whether its stamp is of the local clock, None where it has none."""
    marked = source.missing_markers
    numbers = {name: to_number(cells[name], marked, source.decimal) for name in [*targets, *source.past_covariates]}
    parts = [cells[name] for name in ids]
    escaped = parts if len(parts) == 1 else [one.replace("%", "%25").replace("/", "%2F") for one in parts]
    names = targets if source.wide else ["/".join(escaped)] if ids else [source.target]
    at, naive = instant(source, " ".join(cells[name] for name in stamps))
    kind = None if at is None else naive
    if at is not None and naive:
        at = settle(source, at, zone_of(source.timezone))
    if at is None or not (at == "drop" or FIRST <= at <= LAST):
        if source.wide:
            raise Refused("a stamp is none")
        slow.faulty.update(names)
        return kind
    for name, target in zip(names, targets, strict=True):
        values = [numbers[target], *(numbers[one] for one in source.past_covariates)]
        if None in values:
            slow.faulty.update(names if None in values[1:] else [name])
            if source.wide and None in values[1:]:
                raise Refused("a covariate of every series is no number")
        elif at != "drop":
            slow.rows.setdefault(name, []).append((at, *map(exact, values)))
    return kind


def exact(value: float) -> str:
    """A float64 to the last bit, every NaN alike."""
    return "nan" if value != value else value.hex()


# What ingestion reads


def read_quickly(source: SourceSpec, folder: Path, through_runs: bool) -> Reading:
    found, stock = Reading(), chunks.take_stock(source, folder / "downloads")
    for chunk in stock:
        for piece in chunk.pieces:
            for rows in reading.read_piece(source, piece):
                columns = [map(exact, column.tolist()) for column in rows.values]
                for code, *row in zip(rows.codes.tolist(), rows.stamps.tolist(), *columns, strict=True):
                    found.rows.setdefault(rows.names[code], []).append(tuple(row))
                note(found, [fault.series_id for fault in rows.faults])
    if through_runs:
        check_runs(source, stock, folder, found)
    return found


def note(found: Reading, series: list[str | None]) -> None:
    if None in series:
        raise Fault("A fault that is of no one series.")
    found.faulty.update(series)


def check_runs(source: SourceSpec, stock: list, folder: Path, read: Reading) -> None:
    """Asserts that the runs of each chunk hold what was read of it, sorted by series and time."""
    found: dict[str, list] = {}
    for number, chunk in enumerate(stock):
        draft = SimpleNamespace(path=lambda name, number=number: folder / f"{number}-{name}")
        for run in write_runs(source, chunk, draft)[0]:
            with pa.ipc.open_file(draft.path(run["name"])) as file:
                table = file.read_all()
            stamps = table["timestamp"].cast(pa.int64()).to_pylist()
            values = [map(exact, table[name].to_pylist()) for name in source.value_columns]
            keys = list(zip(table["series_id"].to_pylist(), stamps, strict=True))
            ranks = {name: rank for rank, name in enumerate(dict.fromkeys(name for name, _ in keys))}
            assert keys == sorted(keys, key=lambda key: (ranks[key[0]], key[1])), f"{run['name']} is not sorted"
            for (name, *_), *row in zip(keys, stamps, *values, strict=True):
                found.setdefault(name, []).append(tuple(row))
    assert {name: sorted(rows) for name, rows in read.rows.items()} == {name: sorted(rows) for name, rows in found.items()}


# Well-formed files


@dataclass
class Case:
    """A file, how a source describes it, and what was done to it."""

    name: str
    spec: dict
    text: str = ""  # of a CSV, before it was encoded
    content: bytes = b""  # as it is written
    codec: str | None = None
    marked: bool = False  # with a byte-order mark
    chunk: int = 1 << 25
    rows: dict | None = None  # of a Parquet file, before it was damaged
    checked: bool = False  # its pages have checksums
    done: list[str] = field(default_factory=list)


def make_stamps(rng: Random, count: int) -> tuple[dict, list]:
    """Settings, and the cells of one or two columns."""
    starts = ["2024-01-01", "2024-03-30T12:00", "2024-10-26T12:00", "1969-12-31T20:00", "2014-04-05T00:00"]
    start = datetime.fromisoformat(rng.choice(starts))
    step = timedelta(minutes=rng.choice([1, 15, 30, 60, 1440]))
    local = {"timezone": rng.choice(["UTC", "UTC", "Europe/Paris", "Australia/Lord_Howe", "+10:00"])}
    local["repeated_hour"] = rng.choice(["first", "second", "error"])
    local["skipped_hour"] = rng.choice(["drop", "drop", "error"])
    kind = rng.choice(["space", "T", "date", "offset", "Z", "fraction", "epoch_s", "epoch_ms", "part", "form", "two"])
    spec, stamps = dict(local), [start + number * step for number in range(count)]
    seconds = [(one - datetime(1970, 1, 1)) // timedelta(seconds=1) for one in stamps]
    if kind in EPOCHS:
        return spec | {"timestamp_format": kind}, [[str(one * 1_000_000 // EPOCHS[kind])] for one in seconds]
    if kind == "part":
        return spec | {"timestamp_format": "epoch_s"}, [[f"{one}.{rng.choice(['5', '25', '000001'])}"] for one in seconds]
    if kind == "form":
        form = rng.choice(["%Y%m%d %H:%M", "%d.%m.%Y %H:%M", "%m/%d/%y %I:%M %p"])
        return spec | {"timestamp_format": form}, [[one.strftime(form)] for one in stamps]
    if kind == "two":
        return spec | {"timestamp": ["t", "clock"]}, [one.isoformat(" ", "minutes").split(" ") for one in stamps]
    if kind == "date":
        return spec, [[(start + number * timedelta(1)).date().isoformat()] for number in range(count)]
    tail = {"offset": rng.choice(["+02:00", "-0930", "+11"]), "Z": "Z", "fraction": rng.choice([".5", ".123456", ".1000000"])}
    precision = "seconds" if kind == "fraction" else rng.choice(["minutes", "seconds"])
    return spec, [[one.isoformat(" " if kind == "space" else "T", precision) + tail.get(kind, "")] for one in stamps]


def make_value(rng: Random) -> str:
    wide = rng.random() * 10 ** rng.randint(-12, 18)
    number = rng.choice([rng.gauss(0, 1), wide, float(rng.randint(-999, 999)), 0.0, 5e-324])
    return rng.choice([repr(number), f"{number:.3f}", str(int(number)), f"{number:e}", f"+{abs(number):.2f}"])


def make_csv(rng: Random) -> Case:
    """A CSV of one of many dialects."""
    delimiter, quote = rng.choice(",,,;;\t|"), rng.choice('"""\'')
    decimal = "." if delimiter == "," or rng.random() < 0.5 else ","
    spec, cells = make_stamps(rng, rng.choice([1, 2, 5, 12, 40]))
    stamps = spec.setdefault("timestamp", "t")
    form = rng.choice(["one", "long", "long", "several", "wide"])
    ids = {"long": ["store"], "several": ["store", "item"]}.get(form, [])
    values = {"wide": ["load_a", "load_b", "load_ü"]}.get(form, ["load"])
    spec |= {"target": "load", "delimiter": delimiter, "quote": quote, "decimal": decimal}
    spec |= {"series_id": ids[0] if len(ids) == 1 else ids or None, "wide": ["load_*"] if form == "wide" else None}
    spec["missing_markers"] = rng.choice([[], ["?"], ["-999", "-"]])
    spec["past_covariates"] = rng.choice([[], ["open"], ["open", "rain"]])
    header = [*([stamps] if isinstance(stamps, str) else stamps), *ids, *values, "open", "rain", "note"]
    names = rng.sample(["north", "s/1", "50%", "a b", "süd", "NA", "x;y,z|w", "line\nbreak", 'say "hi"', "7"], 3)
    flags, table = rng.choice([("TRUE", "FALSE"), ("0", "1"), ("true", "false")]), []
    for number, stamp in enumerate(cells):
        numbers = [rng.choice(["", "NA"]) if rng.random() < 0.05 else make_value(rng) for _ in [*values, "rain"]]
        numbers = [one.replace(".", decimal) for one in numbers]
        own = [names[number % 3], *(["a", "b/c"][number % 2 : number % 2 + 1] if form == "several" else [])] if ids else []
        note = rng.choice(["", "fine", f"a{delimiter}b", "two\nlines", f"5{quote} pipe", f"{quote}said{quote}"])
        table.append([*stamp, *own, *numbers[:-1], rng.choice(flags), numbers[-1], note])
    order = list(range(len(header)))
    rng.shuffle(order)
    text = io.StringIO(newline="")
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    writer = csv.writer(text, delimiter=delimiter, quotechar=quote, quoting=quoting, lineterminator=rng.choice(["\n", "\r\n"]))
    writer.writerows([row[at] for at in order] for row in [header, *table])
    spec["encoding"] = rng.choice(["utf-8", "utf-8", "utf-8", "latin-1", "utf-16", "cp1252", "utf-16-le"])
    codec = rng.choice([None, None, None, "gz", "xz", "zst", "bz2"])
    marked = spec["encoding"] == "utf-8" and rng.random() < 0.3
    name = "data.csv" if codec is None else f"data.csv.{codec}"
    return Case(name, spec, text.getvalue(), codec=codec, marked=marked, chunk=rng.choice([1 << 25, 1 << 25, 200, 900]))


def make_parquet(rng: Random) -> Case:
    """A Parquet file with what its rows are."""
    count = rng.choice([1, 5, 40, 300])
    unit, zone = rng.choice(["s", "ms", "us", "ns"]), rng.choice([None, "UTC", "Europe/Paris"])
    ticks = [1_704_067_200 + 3600 * number for number in range(count)]
    scale = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    stamps = pa.array([one * scale for one in ticks], pa.int64()).cast(pa.timestamp(unit, zone))
    form = rng.choice([None, None, None, "text", "epoch_s"])
    if form:
        texts = [f"{datetime.fromtimestamp(one, UTC):%Y-%m-%d %H:%M}" for one in ticks]
        stamps = pa.array(ticks if form == "epoch_s" else texts)
    names = [f"store {number % rng.choice([1, 3])}" for number in range(count)]
    targets = [None if rng.random() < 0.05 else rng.choice([rng.gauss(0, 1), float(rng.randint(0, 9))]) for _ in range(count)]
    flags, counts = [rng.random() < 0.5 for _ in range(count)], [rng.randint(-9, 9) for _ in range(count)]
    ids = pa.array(names, pa.string())
    table = pa.table(
        {
            "t": stamps,
            "store": ids.dictionary_encode() if rng.random() < 0.5 else ids,
            "load": pa.array(targets, pa.float64()),
            "open": pa.array(flags),
            "rain": pa.array(counts, rng.choice([pa.int8(), pa.int32(), pa.int64(), pa.float32()])),
            "note": pa.array(["x" * (number % 7) for number in range(count)]),
        }
    )
    checked, sink = rng.random() < 0.6, io.BytesIO()
    codec = rng.choice(["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
    plain = {"use_dictionary": False}
    encoding = rng.choice([{"use_dictionary": True}, plain, plain | {"column_encoding": PACKED}])
    pq.write_table(
        table, sink, compression=codec, write_page_checksum=checked, row_group_size=rng.choice([7, 100, 1000]),
        data_page_version=rng.choice(["1.0", "2.0"]), write_page_index=rng.random() < 0.3, **encoding,
    )  # fmt: skip
    rows: dict[str, list] = {}
    for tick, name, *values in zip(ticks, names, targets, flags, counts, strict=True):
        values = [float("nan") if one is None else float(one) for one in values]
        rows.setdefault(name, []).append((tick * 1_000_000, *map(exact, values)))
    spec = {"timestamp": "t", "series_id": "store", "target": "load", "past_covariates": ["open", "rain"]}
    spec |= {"timestamp_format": "epoch_s"} if form == "epoch_s" else {}
    case = Case("data.parquet", spec, content=sink.getvalue(), chunk=rng.choice([1 << 25, 300]), rows=rows, checked=checked)
    case.done.append(f"{count} rows, {codec}, stamps {stamps.type}, checksums {checked}")
    return case


# Damage


def damage_text(rng: Random, text: str, delimiter: str) -> tuple[str, str]:
    """A text with one change of the kind that people and programs make, and what it is."""
    kind = rng.choice(["drop", "repeat", "swap", "cell", "cell", "cell", "insert", "insert", "cut", "join", "return"])
    lines, at = text.splitlines(keepends=True), rng.randrange(len(text)) if text else 0
    number = rng.randrange(len(lines)) if lines else 0
    if not lines:
        return rng.choice(SCRAPS), "something in an empty file"
    if kind == "insert":
        scrap = rng.choice(SCRAPS)
        return text[:at] + scrap + text[at:], f"{scrap!r} put in at character {at}"
    if kind == "cut":
        size = rng.randint(1, 3)
        return text[:at] + text[at + size :], f"{text[at : at + size]!r} taken out at character {at}"
    if kind == "return":
        places = [found.start() for found in re.finditer("\n", text)] or [at]
        at = rng.choice(places)
        return text[:at] + "\r" + text[at + 1 :], f"a carriage return at character {at}"
    line = lines[number]
    cells, ending = line.rstrip("\r\n").split(delimiter), line[len(line.rstrip("\r\n")) :]
    if kind == "swap":
        first, second = rng.randrange(len(cells)), rng.randrange(len(cells))
        cells[first], cells[second] = cells[second], cells[first]
    elif kind == "cell":
        cells[rng.randrange(len(cells))] = rng.choice(CELLS)
    changed = {"drop": "", "repeat": line * 2, "join": line.rstrip("\r\n")}.get(kind, delimiter.join(cells) + ending)
    return "".join([*lines[:number], changed, *lines[number + 1 :]]), f"{kind} in line {number + 1}: {changed!r}"


def damage_bytes(rng: Random, content: bytes, in_place: bool = False) -> tuple[bytes, str]:
    """Bytes with one kind of damage, and what it is; mostly in place where anything else would be seen at once."""
    kind = rng.choice(["flip", "flip", "flip", "put", "insert", "delete", "truncate", "repeat", "swap", "zero"])
    kind = "flip" if in_place and rng.random() < 0.7 else kind
    size = len(content)
    # Half of it near the end, where a Parquet file says what it holds.
    first, second = sorted(rng.randrange(max(0, size - 700) if rng.random() < 0.5 else 0, size) for _ in "ab")
    if kind in ("flip", "put"):
        changed, places = bytearray(content), [first]
        places += [rng.randrange(max(0, first - 40), size) for _ in range(rng.choice([0, 0, 0, 1, 3, 7]))]
        for place in places:
            changed[place] = changed[place] ^ 1 << rng.randrange(8) if kind == "flip" else rng.randrange(256)
        return bytes(changed), f"{kind} at {places}"
    short = min(second, first + rng.choice([1, 2, 8, 64]))
    noise = rng.randbytes(rng.randint(1, 8))
    return {
        "insert": content[:first] + noise + content[first:],
        "delete": content[:first] + content[short:],
        "truncate": content[:first],
        "repeat": content[:short] + content[first:],
        "swap": content[:first] + content[second:] + content[first:second],
        "zero": content[:first] + bytes(short - first) + content[short:],
    }[kind], f"{kind} at {first}..{short if kind != 'swap' else second} of {size}, {noise!r}"


def make_case(seed: int, kept: tuple[int, ...] | None = None) -> Case:
    """The case of a seed, with all of its damage or some."""
    rng = Random(seed)
    case = make_parquet(rng) if rng.random() < 0.35 else make_csv(rng)
    count = rng.choice([0, 1, 1, 1, 1, 1, 2, 3])
    kinds = [rng.choice(["text", "text", "bytes", "packed"]) for _ in range(count)]
    turns = [(kind, Random(f"{seed}/{at}")) for at, kind in enumerate(kinds) if kept is None or at in kept]
    if case.rows is not None:
        spoil(case, [own for _, own in turns], in_place=True)
        return case
    for own in [own for kind, own in turns if kind == "text"]:
        case.text, said = damage_text(own, case.text, case.spec["delimiter"])
        case.done.append(said)
    case.content = b"\xef\xbb\xbf" * case.marked + case.text.encode(case.spec["encoding"], "replace")
    spoil(case, [own for kind, own in turns if kind == "bytes"])
    case.content = PACKERS[case.codec](case.content) if case.codec else case.content
    spoil(case, [own for kind, own in turns if kind == "packed"])
    return case


def spoil(case: Case, turns: list[Random], in_place: bool = False) -> None:
    for rng in turns:
        if case.content:
            case.content, said = damage_bytes(rng, case.content, in_place)
            case.done.append(said)


def to_zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": to_zstd}


# Running


def try_case(case: Case, folder: Path, through_runs: bool = False) -> str | None:
    """What is wrong with how ingestion takes a case, None where nothing is."""
    path = folder / case.name
    path.write_bytes(case.content)
    source = SourceSpec(uri=str(path), **case.spec)
    chunks.CHUNK = reading.SAMPLE = case.chunk
    try:
        found: Reading | Fault = read_quickly(source, folder, through_runs)
    except Fault as fault:
        found = fault
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:2000]
    if case.rows is not None:
        return judge_parquet(case, found)
    try:
        return judge(found, read_slowly(source, case.content, case.codec))
    except Refused as refused:
        return None if isinstance(found, Fault) else f"accepted, but {refused}"
    except Unspecified:
        return None


def judge(found: "Reading | Fault", slow: Reading) -> str | None:
    if isinstance(found, Fault):
        return None if slow.open else f"refused, but well formed: {found}"
    missed = slow.faulty - found.faulty if slow.open else slow.faulty ^ found.faulty
    if missed:
        return f"series with faults: {sorted(found.faulty)}, but {sorted(slow.faulty)} have some"
    for name in sorted((slow.rows.keys() | found.rows.keys()) - found.faulty):
        fast, own = found.rows.get(name, []), slow.rows.get(name, [])
        if fast != own:
            at = next(at for at in range(len(fast) + len(own)) if fast[at : at + 1] != own[at : at + 1])
            return f"{name!r} row {at}: {fast[at : at + 1]} of {len(fast)}, but {own[at : at + 1]} of {len(own)}"
    return None


def judge_parquet(case: Case, found: "Reading | Fault") -> str | None:
    """A file that is whole is read; one that is damaged may only be taken for another where nothing could tell."""
    whole = len(case.done) == 1
    if isinstance(found, Fault):
        return f"refused, but well formed: {found}" if whole else None
    same = not found.faulty and found.rows == case.rows
    return None if same or not (whole or case.checked) else "other rows than were written"


def shrunk(seed: int, folder: Path, through_runs: bool) -> tuple[int, ...]:
    """As little of the damage as still fails."""
    kept = tuple(range(3))
    for number in range(3):
        fewer = tuple(one for one in kept if one != number)
        if try_case(make_case(seed, fewer), folder, through_runs):
            kept = fewer
    return kept


def reproduce(seed: int, folder: Path, kept: tuple[int, ...] | None = None) -> str | None:
    """Replay one case in this process; its file is left in the folder."""
    return try_case(make_case(seed, kept), folder, seed % 4 == 0)


def peak_memory() -> int:
    """Bytes that this process has ever held at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def work(pipe, folder: Path, first: int, until: int, every: int) -> None:
    """Run every so many cases from the first; tells of each before it begins and when it is done."""
    warnings.simplefilter("error")
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if pages is not None:
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for seed in range(first, until, every):
        pipe.send((seed, None))
        before = peak_memory()
        said = reproduce(seed, folder)
        if peak_memory() > before + MOST:
            said = f"took {peak_memory() - before >> 20} MiB ({said})"
        elif said:
            kept = shrunk(seed, folder, seed % 4 == 0)
            case = make_case(seed, kept)
            said = f"{said}\n  {case.name} in chunks of {case.chunk}: {'; '.join(case.done)}\n  {json.dumps(case.spec)}"
            said += f"\n  reproduce({seed}, folder, {kept})"
        pipe.send((seed, said or ""))
    pipe.send((None, None))


class Worker:
    """A process that runs cases, and the one that it is at."""

    def __init__(self, folder: Path, first: int, until: int, every: int):
        self.folder, self.until, self.every = folder, until, every
        folder.mkdir(exist_ok=True)
        self.start(first)

    def start(self, first: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.folder, first, self.until, self.every), daemon=True)
        self.process.start()
        theirs.close()
        self.seed, self.since, self.done = first, time.monotonic() + 60, False  # a minute to begin

    def hear(self) -> str | None:
        """Take what the process has to say; returns a failure."""
        try:
            seed, said = self.pipe.recv()
        except EOFError:
            self.process.join()
            return self.give_up(f"the process ended with {self.process.exitcode}")
        self.done, self.since = seed is None, time.monotonic()
        self.seed = self.seed if seed is None else seed
        return f"seed {seed}: {said}" if said else None

    def give_up(self, why: str) -> str:
        """Say what happened at a case and go on with the next one."""
        self.process.kill()
        self.process.join()
        failure = f"seed {self.seed}: {why}\n  {'; '.join(make_case(self.seed).done)}\n  reproduce({self.seed}, folder)"
        self.done = self.seed + self.every >= self.until
        if not self.done:
            self.start(self.seed + self.every)
        return failure


def run_cases(first: int, count: int, folder: Path, most: int = 20) -> list[str]:
    """The failures of so many cases from a seed on."""
    workers = [Worker(folder / str(at), first + at, first + count, WORKERS) for at in range(WORKERS)]
    failures: list[str] = []
    while (busy := {one.pipe: one for one in workers if not one.done}) and len(failures) < most:
        heard = [busy[pipe].hear() for pipe in wait(list(busy), timeout=1)]
        late = [one.give_up(f"took more than {SECONDS} s") for one in busy.values() if time.monotonic() - one.since > SECONDS]
        failures += [one for one in [*heard, *late] if one]
    for one in workers:
        one.process.kill()
        one.process.join()
    return failures


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_damaged_files_are_refused_or_read_as_they_are(tmp_path):
    failures = run_cases(NUM_SAMPLED, NUM_CASES, tmp_path)
    assert not failures, "\n" + "\n".join(failures)


def test_some_damaged_files_are_refused_or_read_as_they_are(tmp_path):
    failures = run_cases(0, NUM_SAMPLED, tmp_path)
    assert not failures, "\n" + "\n".join(failures)
