"""Stamps of any spelling as instants: int64 microseconds UTC."""

import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import Fault
from tasks.ingest.clock import Clock
from tasks.ingest.sources import SourceSpec
from tasks.ingest.timeline import parse_timezone

OFFSET = re.compile(r"\d[ T]\d{2}.*(Z|[+-]\d{2}(:?\d{2})?)$")
EPOCH = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}  # microseconds
MICROS_A_DAY = 86_400_000_000
ABSENT = np.iinfo(np.int64).min
NAIVE, INSTANT = pa.timestamp("us"), pa.timestamp("us", "UTC")


@dataclass
class Instants:
    """Stamps of some rows, and what could not be made of them."""

    micros: np.ndarray  # (R,) int64 UTC
    bad: list[tuple[int, str, str]] = field(default_factory=list)  # row, kind, what is wrong with it
    shifted: np.ndarray | None = None  # (R,) bool, moved out of an hour that the clock skipped
    dropped: np.ndarray | None = None  # (R,) bool, left out for the same reason


def stamp_type(source: SourceSpec, seen: list[str]) -> pa.DataType:
    """What Arrow is to read a CSV's stamp column as, judged by its first values."""
    if len(source.stamp_columns) > 1:
        return pa.string()
    if source.timestamp_format is None:
        return INSTANT if seen and OFFSET.search(seen[0]) else NAIVE
    # Arrow's strptime takes the 31st of February for the 2nd of March, so forms are read by pandas.
    return pa.int64() if source.timestamp_format in EPOCH else pa.string()


def to_instants(
    source: SourceSpec, columns: list[pa.ChunkedArray], codes: np.ndarray, names: list[str], state: dict
) -> Instants:
    """The instants of rows in file order.

    Args:
        codes: (R,) the series of each row, into `names`.
        state: what `repeated_hour: order` has to remember of earlier rows of the same file; changed in place.

    Raises:
        Fault: the column holds something else than stamps.
    """
    micros, naive, bad = parse(source, columns)
    if not naive or not len(micros):
        return Instants(micros, bad)
    absent = micros == ABSENT
    zone = parse_timezone(source.timezone)
    found = Clock(zone).to_utc(np.where(absent, 0, micros))
    repeated, skipped = found.repeated & ~absent, found.skipped & ~absent
    utc = np.where(absent, ABSENT, found.first)
    result = Instants(utc, bad)
    if repeated.any():
        settle_repeated(source, micros, repeated, found.second, codes, names, state, result)
    if skipped.any():
        settle_skipped(source, micros, skipped, result)
    return result


def settle_repeated(source, wall, repeated, second, codes, names, state, result: Instants) -> None:
    """Choose between the two instants at which the clock showed the same."""
    if source.repeated_hour == "error":
        for row in np.flatnonzero(repeated):
            said = (
                f"{shown(wall[row])} was shown twice by the clock of {source.timezone}; set source.repeated_hour to "
                "'order', 'first' or 'second', or source.timezone to the offset that the stamps were taken in"
            )
            result.bad.append((int(row), "repeated hour", said))
        return
    if source.repeated_hour == "second":
        later = repeated
    elif source.repeated_hour == "order":
        later = second_time(wall, repeated, codes, names, state)
    else:
        later = np.zeros(len(wall), bool)
    result.micros = np.where(later, second, result.micros)


def second_time(wall: np.ndarray, repeated: np.ndarray, codes: np.ndarray, names: list[str], state: dict) -> np.ndarray:
    """Of stamps shown twice, those that come when the series' clock has already gone back."""
    later = np.zeros(len(wall), bool)
    order = np.argsort(codes, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        name = names[codes[own[0]]]
        last, gone_back = state.get(name, (None, False))
        flags = repeated[own]
        if not flags.any():
            state.pop(name, None)
            continue
        for row in own[max(0, int(flags.argmax()) - 1) :]:
            if not repeated[row]:
                last, gone_back = None, False
                continue
            if last is not None and wall[row] - last > MICROS_A_DAY:
                gone_back = False
            elif last is not None and wall[row] <= last:
                gone_back = True
            later[row], last = gone_back, wall[row]
        state[name] = (last, gone_back)
    return later


def settle_skipped(source, wall, skipped, result: Instants) -> None:
    """Shift, drop or refuse stamps that the clock never showed."""
    if source.skipped_hour == "shift":
        result.shifted = skipped
    elif source.skipped_hour == "drop":
        result.dropped = skipped
    else:
        for row in np.flatnonzero(skipped):
            said = (
                f"{shown(wall[row])} was never shown by the clock of {source.timezone}; set source.skipped_hour to "
                "'shift' or 'drop', or source.timezone to the offset that the stamps were taken in"
            )
            result.bad.append((int(row), "skipped hour", said))


def shown(micros: int) -> str:
    return np.datetime64(int(micros), "us").astype("datetime64[s]").item().isoformat()


def parse(source: SourceSpec, columns: list[pa.ChunkedArray]) -> tuple[np.ndarray, bool, list[tuple[int, str, str]]]:
    """Microseconds of each row, whether they are of the local clock, and the rows that hold no stamp."""
    if len(columns) > 1:
        parts = [pc.cast(column, pa.string()) for column in columns]
        column = pc.binary_join_element_wise(*parts, " ")
    else:
        (column,) = columns
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micros, naive = from_timestamps(source, column), getattr(kind, "tz", None) is None
    elif source.timestamp_format in EPOCH:
        micros, naive = from_epochs(source, column), False
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return from_text(source, column)
    else:
        hint = " Set source.timestamp_format, as epoch_s." if pa.types.is_integer(kind) or pa.types.is_floating(kind) else ""
        raise Fault(f"Column {source.timestamp!r} holds {kind}; stamps are needed.{hint or ' Name another column.'}")
    absent = np.flatnonzero(micros == ABSENT)
    return micros, naive, [(int(row), "no stamp", "there is no stamp") for row in absent]


def from_timestamps(source: SourceSpec, column: pa.ChunkedArray) -> np.ndarray:
    try:
        typed = pc.cast(column, pa.timestamp("us", getattr(column.type, "tz", None)))
    except pa.ArrowInvalid as error:
        raise Fault(f"Column {source.timestamp!r}: {error}. Stamps are kept to the microsecond; round them to it.") from error
    return numbers(pc.cast(typed, pa.int64()))


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    return (column.fill_null(ABSENT) if column.null_count else column).to_numpy()


def from_epochs(source: SourceSpec, column: pa.ChunkedArray) -> np.ndarray:
    """Instants of numbers that count from 1970.

    Raises:
        Fault: they are no whole microseconds, or beyond the years that microseconds can count.
    """
    scale = EPOCH[source.timestamp_format]
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.cast(column, pa.float64() if "." in str(column.to_pylist()[:1]) else pa.int64())
        if pa.types.is_floating(column.type):
            column = pc.cast(pc.multiply(pc.cast(column, pa.float64()), float(scale)), pa.int64())
        else:
            column = pc.multiply_checked(pc.cast(column, pa.int64()), scale)
    except pa.ArrowInvalid as error:
        raise Fault(
            f"Column {source.timestamp!r} is not made of {source.timestamp_format} numbers ({error}). Mend the rows or set "
            "another source.timestamp_format."
        ) from error
    return numbers(column)


def from_text(source: SourceSpec, column: pa.ChunkedArray) -> tuple[np.ndarray, bool, list[tuple[int, str, str]]]:
    if source.timestamp_format is not None:
        return from_form(source.timestamp_format, column)
    for kind in (NAIVE, INSTANT):
        try:
            micros = numbers(pc.cast(pc.cast(column, kind), pa.int64()))
            absent = np.flatnonzero(micros == ABSENT)
            return micros, kind == NAIVE, [(int(row), "no stamp", "there is no stamp") for row in absent]
        except pa.ArrowInvalid:
            continue
    return one_by_one(column)


def one_by_one(column: pa.ChunkedArray) -> tuple[np.ndarray, bool, list[tuple[int, str, str]]]:
    """The stamps that can be read, of the kind of the first of them, and why the others can not."""
    kind, micros, bad = None, np.full(len(column), ABSENT), []
    for row, text in enumerate(column.to_pylist()):
        if not text:
            bad.append((row, "no stamp", "there is no stamp"))
            continue
        fits = {own: value for own in (NAIVE, INSTANT) if (value := as_micros(text, own)) is not None}
        if not fits:
            said = f"{text!r} is no ISO 8601 stamp, as 2014-01-31 23:30 or 2014-01-31T23:30+10:00; set source.timestamp_format"
            bad.append((row, "no stamp", said))
            continue
        kind = kind or next(iter(fits))
        if kind not in fits:
            bad.append((row, "mixed stamps", f"{text!r} mixes stamps with and without an offset; write them all one way"))
            continue
        micros[row] = fits[kind]
    return micros, kind != INSTANT, bad


def as_micros(text: str, kind: pa.DataType) -> int | None:
    try:
        return pc.cast(pc.cast(pa.scalar(text), kind), pa.int64()).as_py()
    except pa.ArrowInvalid:
        return None


def from_form(form: str, column: pa.ChunkedArray) -> tuple[np.ndarray, bool, list[tuple[int, str, str]]]:
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
    stamps = pd.DatetimeIndex(parsed).as_unit("us")
    absent = np.flatnonzero(stamps.isna())
    said = [f"{text.iloc[row]!r} does not fit {form!r}" if text.iloc[row] else "there is no stamp" for row in absent]
    bad = [(int(row), "no stamp", own) for row, own in zip(absent, said, strict=True)]
    return stamps.asi8, not with_offset, bad
