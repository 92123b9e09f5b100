"""Well-formed files of many dialects, and damage to them; a case follows from its seed alone."""

import bz2
import csv
import gzip
import io
import lzma
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
from slow_reader import EPOCHS, exact

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
