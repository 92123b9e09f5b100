"""The spellings of stamps: ISO 8601, epochs, strptime forms, and what Parquet holds, as microseconds."""

import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import Fault
from tasks.ingest.sources import SourceSpec

EPOCH = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}  # microseconds
ABSENT = np.iinfo(np.int64).min
EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999  # the years 1 to 9999
NAIVE, INSTANT = pa.timestamp("us"), pa.timestamp("us", "UTC")
EXACT = pa.decimal128(28, 9)  # epochs with a fraction
CLOCK = r"[ T]\d{2}(:?\d{2}(:?\d{2}(\.\d+)?)?)?"
SHAPES = {
    NAIVE: rf"^\d{{4}}-\d{{2}}-\d{{2}}({CLOCK})?$",
    INSTANT: rf"^\d{{4}}-\d{{2}}-\d{{2}}{CLOCK}(Z|[+-]\d{{2}}(:?\d{{2}})?)$",
}
EPOCH_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
FINER = re.compile(r":\d{2}\.\d{7,}")
Bad = list[tuple[int, str, str]]  # row, kind, what is wrong with it


def stamp_type(source: SourceSpec, seen: list[str]) -> pa.DataType:
    """What Arrow is to read a CSV's stamp column as, judged by its first values."""
    if len(source.stamp_columns) > 1:
        return pa.string()
    if source.timestamp_format is None:
        try:
            text = pa.array(seen, pa.string())
        except UnicodeEncodeError:  # stray bytes, which are told of row by row
            return pa.string()
        return next((kind for kind in (NAIVE, INSTANT) if cast_text(text, kind) is not None), pa.string())
    # Arrow's strptime takes the 31st of February for the 2nd of March, so forms are read by pandas.
    if source.timestamp_format not in EPOCH:
        return pa.string()
    return EXACT if any(mark in text for text in seen for mark in (source.decimal, "e", "E")) else pa.int64()


def parse(source: SourceSpec, columns: list[pa.ChunkedArray]) -> tuple[np.ndarray, bool, Bad]:
    """Microseconds of each row, whether they are of the local clock, and the rows that hold no stamp.

    Raises:
        Fault: the column holds something else than stamps.
    """
    columns = [pc.cast(one, one.type.value_type) if pa.types.is_dictionary(one.type) else one for one in columns]
    column = columns[0] if len(columns) == 1 else join_columns(source, *columns)
    kind = column.type
    if source.timestamp_format not in (None, *EPOCH) and pa.types.is_integer(kind):
        column, kind = pc.cast(column, pa.string()), pa.string()
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micros, naive, bad = from_timestamps(source, column), getattr(kind, "tz", None) is None, []
    elif source.timestamp_format in EPOCH and not pa.types.is_temporal(kind):
        (micros, bad), naive = from_epochs(source, column), False
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        micros, naive, bad = from_text(source, column)
    elif pa.types.is_null(kind):
        micros, naive, bad = np.full(len(column), ABSENT), False, []
    else:
        hint = " Set source.timestamp_format, as epoch_s." if pa.types.is_integer(kind) or pa.types.is_floating(kind) else ""
        raise Fault(f"Column {source.timestamp!r} holds {kind}; stamps are needed.{hint or ' Name another column.'}")
    told = {row for row, _, _ in bad}
    absent = [int(row) for row in np.flatnonzero(micros == ABSENT) if row not in told]
    return micros, naive, [*bad, *((row, "no stamp", "there is no stamp") for row in absent)]


def join_columns(source: SourceSpec, date: pa.ChunkedArray, time: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates and times of day as the text of stamps."""
    if pa.types.is_timestamp(date.type):
        days = pc.cast(date, pa.date32())
        if pc.any(pc.not_equal(pc.cast(days, date.type), date)).as_py():
            raise Fault(f"Column {source.timestamp[0]!r} holds times of day too; name it alone as source.timestamp.")
        date = days
    return pc.binary_join_element_wise(pc.cast(date, pa.string()), pc.cast(time, pa.string()), " ")


def from_timestamps(source: SourceSpec, column: pa.ChunkedArray) -> np.ndarray:
    try:
        typed = pc.cast(column, pa.timestamp("us", getattr(column.type, "tz", None)))
    except pa.ArrowInvalid as error:
        raise Fault(
            f"Column {source.timestamp!r}: {error}. Stamps are kept to the microsecond, of the years 1 to 9999; round them."
        ) from error
    return numbers(pc.cast(typed, pa.int64()))


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    return (column.fill_null(ABSENT) if column.null_count else column).to_numpy()


def from_epochs(source: SourceSpec, column: pa.ChunkedArray) -> tuple[np.ndarray, Bad]:
    """Instants of numbers that count from 1970, and the rows that hold none."""
    scale, bad = EPOCH[source.timestamp_format], []
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column, bad = epochs_of_text(source, column)
    if pa.types.is_decimal(column.type):
        column = pc.multiply(pc.cast(column, EXACT), Decimal(scale))
        near, scale = pc.cast(column, pa.float64()), 1
        column = pc.if_else(pc.less_equal(pc.abs(near), float(LATEST)), column, pa.scalar(LATEST + 1).cast(pa.decimal128(19)))
        whole = pc.floor(column)
        finer = pc.fill_null(pc.not_equal(whole, column), False).to_numpy()
        column = pc.cast(whole, pa.int64())
    elif pa.types.is_floating(column.type):
        # float64 tells the seconds and milliseconds of our days to a microsecond and no finer, so those are rounded.
        near = pc.cast(column, pa.float64()).to_numpy() * scale
        whole, scale = np.rint(near), 1
        finer = np.isfinite(near) & (whole != near) & (source.timestamp_format == "epoch_us")
        held = np.where(np.abs(whole) <= LATEST, whole, LATEST + 1)
        column = pa.chunked_array([pa.array(np.nan_to_num(held), pa.int64(), mask=np.isnan(near))])
    elif pa.types.is_integer(column.type):
        finer = np.zeros(len(column), bool)
    else:
        raise Fault(f"Column {source.timestamp!r} holds {column.type}; {source.timestamp_format} numbers are needed.")
    absent, count = pc.is_null(column).to_numpy(), pc.fill_null(column, 0).to_numpy()
    far = (count > LATEST // scale) | (count < EARLIEST // scale)
    micros = np.where(far, LATEST + 1, count.astype(np.int64) * np.where(far, 0, scale))
    said = "the stamp is finer than a microsecond; round it"
    return np.where(absent | finer, ABSENT, micros), bad + [(int(row), "no stamp", said) for row in np.flatnonzero(finer)]


def epochs_of_text(source: SourceSpec, column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Bad]:
    """The numbers, as decimals where those can hold them all, and the rows that hold none."""
    text = pc.utf8_trim_whitespace(column)
    text = pc.replace_substring(text, ",", ".") if source.decimal == "," else text
    good = pc.fill_null(pc.match_substring_regex(text, EPOCH_NUMBER), False)
    other = pc.and_(pc.invert(good), pc.fill_null(pc.not_equal(text, ""), False))
    said = f"is no {source.timestamp_format} number"
    bad = [(int(row), "no stamp", f"{column[row].as_py()!r} {said}") for row in np.flatnonzero(other.to_numpy()).tolist()]
    text = pc.if_else(good, text, None)
    try:
        return pc.cast(text, EXACT), bad
    except pa.ArrowInvalid:
        return pc.cast(text, pa.float64()), bad


def from_text(source: SourceSpec, column: pa.ChunkedArray) -> tuple[np.ndarray, bool, Bad]:
    if source.timestamp_format is not None:
        return from_form(source.timestamp_format, column)
    tidy = pc.utf8_trim_whitespace(column)
    # Nanoseconds that are zero, as many programs write them.
    tidy = pc.replace_substring_regex(tidy, r"(\.\d{6})0+([^\d]|$)", r"\1\2")
    for kind in (NAIVE, INSTANT):
        if (micros := cast_text(tidy, kind)) is not None:
            return micros, kind == NAIVE, []
    return one_by_one(tidy)


def cast_text(text: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> np.ndarray | None:
    """Stamps of one kind in microseconds, None where any is none."""
    try:
        whole = pc.cast(pc.cast(text, kind), pa.int64())
    except pa.ArrowInvalid:
        return None
    return pc.fill_null(whole, ABSENT).to_numpy()


def one_by_one(column: pa.ChunkedArray) -> tuple[np.ndarray, bool, Bad]:
    """The stamps that can be read, of the kind of the first of them, and why the others can not."""
    micros = {kind: fitting(column, kind) for kind in SHAPES}
    firsts = {kind: int(np.argmax(own != ABSENT)) for kind, own in micros.items() if (own != ABSENT).any()}
    chosen = min(firsts, key=firsts.get, default=NAIVE)
    (other,) = (kind for kind in SHAPES if kind != chosen)
    bad = []
    for row in np.flatnonzero(micros[chosen] == ABSENT).tolist():
        text = column[row].as_py()
        if not text:
            continue
        if micros[other][row] != ABSENT:
            bad.append((row, "mixed stamps", f"{text!r} mixes stamps with and without an offset; write them all one way"))
        elif FINER.search(text):
            bad.append((row, "no stamp", f"{text!r} is finer than a microsecond; round it"))
        else:
            said = f"{text!r} is no ISO 8601 stamp, as 2014-01-31 23:30 or 2014-01-31T23:30+10:00; set source.timestamp_format"
            bad.append((row, "no stamp", said))
    return micros[chosen], chosen == NAIVE, bad


def fitting(column: pa.ChunkedArray, kind: pa.DataType) -> np.ndarray:
    """Microseconds of the stamps of one kind, ABSENT elsewhere."""
    rows = np.flatnonzero(pc.fill_null(pc.match_substring_regex(column, SHAPES[kind]), False).to_numpy())
    micros, text = np.full(len(column), ABSENT), column.take(pa.array(rows))
    waiting = [(0, len(rows))]
    while waiting:  # by halves, as few of those that look like stamps are none
        begin, end = waiting.pop()
        own = cast_text(text.slice(begin, end - begin), kind)
        if own is not None:
            micros[rows[begin:end]] = own
        elif end - begin > 1:
            waiting += [(begin, (begin + end) // 2), ((begin + end) // 2, end)]
    return micros


def from_form(form: str, column: pa.ChunkedArray) -> tuple[np.ndarray, bool, Bad]:
    """Stamps of one strptime form, read by pandas.

    Raises:
        Fault: pandas knows no such form.
    """
    text = column.to_pandas()
    with_offset = "%z" in form or "%Z" in form
    try:
        parsed = pd.to_datetime(text, format=form, errors="coerce", utc=with_offset)
    except ValueError as error:
        raise Fault(f"source.timestamp_format {form!r}: {error}. Use one as '%d.%m.%Y %H:%M'.") from error
    stamps = pd.DatetimeIndex(parsed)
    micros = stamps.as_unit("us")
    none, finer = np.asarray(stamps.isna()), np.asarray(micros != stamps)
    bad = []
    for row in np.flatnonzero(none | finer).tolist():
        said = "does not fit" if none[row] else "is finer than a microsecond, by"
        bad.append((row, "no stamp", f"{text.iloc[row]!r} {said} {form!r}" if text.iloc[row] else "there is no stamp"))
    return np.where(finer, ABSENT, micros.asi8), not with_offset, bad
