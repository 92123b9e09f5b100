"""What a CSV holds, read one character at a time and without any code of ingestion: what ingestion is compared with."""

import bz2
import codecs
import fnmatch
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow as pa

from tasks.ingest.sources import SourceSpec

USUAL = ("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "#N/A", "#NA", "<NA>")
YES, NO = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")
STAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?)?(?:(Z)|([+-]\d\d)(?::?(\d\d))?)?", re.ASCII
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII)
EPOCH = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # microseconds: the years 1 to 9999


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
