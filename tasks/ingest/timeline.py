"""Stamps: parsed, made instants, ordered, and put on a regular grid."""

import warnings
from datetime import timedelta, timezone, tzinfo
from re import fullmatch, split
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.tseries.frequencies import to_offset

from models.errors import Fault
from tasks.ingest.sources import SourceSpec

SECONDS_A_DAY = 86_400


def parse_timezone(name: str) -> tzinfo:
    """The zone that an IANA name or a fixed offset such as +10:00 names.

    Raises:
        Fault: it is neither.
    """
    offset = fullmatch(r"(?:UTC)?([+-])(\d{1,2})(?::?([0-5]\d))?", name)
    if offset:
        sign, hours, minutes = offset.groups()
        delta = timedelta(hours=int(hours), minutes=int(minutes or 0))
        if delta <= timedelta(hours=16):
            return timezone(delta if sign == "+" else -delta)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError) as error:
        raise Fault(
            f"source.timezone {name!r} is no zone; use an IANA name, as Europe/Paris, or an offset, as +10:00."
        ) from error


def parse_offset(frequency: str) -> pd.DateOffset:
    """The pandas offset that a frequency alias names.

    Raises:
        Fault: pandas knows no such alias.
    """
    try:
        offset = to_offset(frequency)
    except ValueError as error:
        raise Fault(f"source.frequency {frequency!r} is no pandas alias; use one as 30min, h, D, W, MS, or null.") from error
    if offset.n < 1:
        raise Fault(f"source.frequency {frequency!r} does not go forward; use one as 30min, h, D, W, MS, or null.")
    return offset


def season_of(frequency: str) -> int:
    """Steps after which a series of this frequency tends to repeat; 1 where no calendar cycle fits.

    A day for anything finer than one, a week for days, a year for weeks, months and quarters.
    """
    offset = parse_offset(frequency)
    seconds = fixed_seconds(offset)
    if seconds:
        return int(SECONDS_A_DAY // seconds) if seconds < SECONDS_A_DAY and SECONDS_A_DAY % seconds == 0 else 1
    per_cycle = {"D": 7, "B": 5, "W": 52, "M": 12, "Q": 4}
    letter = offset.rule_code.split("-")[0].removeprefix("B") or "B"
    return per_cycle.get(letter[0], 1) if offset.n == 1 else 1


def fixed_seconds(offset: pd.DateOffset) -> float | None:
    """The length of a step in seconds, or None where the local calendar decides it, as for days and months."""
    return offset.nanos / 1e9 if isinstance(offset, pd.tseries.offsets.Tick) else None


def to_instants(source: SourceSpec, column: pa.ChunkedArray) -> pd.DatetimeIndex:
    """Stamps as instants on the local clock of `source.timezone`, in file order.

    Raises:
        Fault: a stamp is absent, is none, or names an hour that the clock skipped or repeated.
    """
    zone = parse_timezone(source.timezone)
    stamps = as_stamps(source, column)
    if column.null_count or stamps.hasnans:
        row = int(np.flatnonzero(stamps.isna())[0])
        raise Fault(f"{source.uri} data row {row + 1}: column {source.timestamp!r} has no stamp. Mend or remove the row.")
    if stamps.tz is not None:
        return stamps.tz_convert(zone)
    try:
        return stamps.tz_localize(zone, ambiguous="raise", nonexistent="raise")
    except ValueError as error:
        said = split(r"[.,] ?[Tt]ry using", str(error))[0]  # what follows is advice to programmers
        raise Fault(
            f"{source.uri}, column {source.timestamp!r}: {said}. The clock of {source.timezone} skips or repeats that "
            "hour; write stamps with an offset, or set source.timezone to the fixed offset they were taken in."
        ) from error


def as_stamps(source: SourceSpec, column: pa.ChunkedArray) -> pd.DatetimeIndex:
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        zone = getattr(column.type, "tz", None)
        try:
            return pd.DatetimeIndex(pc.cast(column, pa.timestamp("us", zone)).to_pandas())
        except pa.ArrowInvalid as error:
            raise Fault(
                f"{source.uri}, column {source.timestamp!r}: {error}. Stamps are kept to the microsecond; round them to it."
            ) from error
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise Fault(f"{source.uri}, column {source.timestamp!r} holds {column.type}; stamps are needed. Name another column.")
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):  # without offsets, with them
        try:
            return pd.DatetimeIndex(pc.cast(column, kind).to_pandas())
        except pa.ArrowInvalid:
            continue
    raise bad_stamp(source, column)


def bad_stamp(source: SourceSpec, column: pa.ChunkedArray) -> Fault:
    """Names the first stamp that is none, or that has an offset where the first has not."""
    kinds = (pa.timestamp("us"), pa.timestamp("us", "UTC"))
    expected = None
    for row, text in enumerate(column.to_pylist()):
        fits = [kind for kind in kinds if casts(text, kind)]
        where = f"{source.uri} data row {row + 1}, column {source.timestamp!r}: {text!r}"
        if not fits:
            return Fault(f"{where} is no ISO 8601 stamp, as 2014-01-31 23:30 or 2014-01-31T23:30+10:00. Mend the row.")
        if expected is None:
            expected = fits[0]
        elif expected not in fits:
            return Fault(f"{where} mixes stamps with and without an offset. Write them all one way.")
    return Fault(f"{source.uri}, column {source.timestamp!r} has stamps that can not be read together.")


def casts(text: str, kind: pa.DataType) -> bool:
    try:
        pc.cast(pa.scalar(text), kind)
    except pa.ArrowInvalid:
        return False
    return True


def infer_frequency(source: SourceSpec, stamps: pd.DatetimeIndex) -> str:
    """The alias of the most common step between the stamps of one series.

    Raises:
        Fault: there are too few stamps to tell.
    """
    local = stamps.tz_localize(None).unique().sort_values()
    if len(local) < 3:
        raise Fault(f"{source.uri} has {len(local)} different stamps in its first series; set source.frequency.")
    step = pd.Series(local[1:] - local[:-1]).mode()[0]
    if step < pd.Timedelta(days=1):
        return to_offset(step).freqstr
    runs = [local[at : at + 8] for at in range(0, max(1, len(local) - 7), 4)]
    aliases = [alias for run in runs[:50] if len(run) > 2 and (alias := named(run))]
    if aliases:
        return pd.Series(aliases).mode()[0]
    if step == pd.Timedelta(days=1):
        return "D"
    return f"{step.days}D" if step == pd.Timedelta(days=step.days) else to_offset(step).freqstr


def named(stamps: pd.DatetimeIndex) -> str | None:
    """The alias of the step between regular stamps, or None where they are not regular."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pandas 4 returns an offset
        found = pd.infer_freq(stamps)
    return getattr(found, "freqstr", found)


def regular(
    series_id: str, frame: pd.DataFrame, source: SourceSpec, offset: pd.DateOffset, repairs: dict[str, int]
) -> pd.DataFrame:
    """One series on its regular grid, every repair counted in `repairs`.

    Args:
        frame: values by local stamp, in file order.

    Raises:
        Fault: stamps go back, repeat, skip or leave the grid and no setting of the source allows for it.
    """
    frame = in_order(series_id, frame, source, repairs)
    frame = without_repeats(series_id, frame, source, repairs)
    stamps = frame.index
    grid = grid_between(stamps[0], stamps[-1], offset)
    off = stamps[~stamps.isin(grid)]
    if len(off):
        if off[0] == stamps[0]:
            raise Fault(
                f"{series_id} begins at {off[0].isoformat()}, where no step of {offset.freqstr} lies ({len(off)} such stamps). "
                "Set source.frequency to the step and day they have, or to null."
            )
        raise Fault(
            f"{series_id}: {off[0].isoformat()} is not a whole number of {offset.freqstr} steps after {stamps[0].isoformat()} "
            f"({len(off)} such stamps), so the series has two frequencies or another one. Set source.frequency, or resample."
        )
    if len(grid) == len(stamps):
        return frame
    holes = grid[~grid.isin(stamps)]
    if source.gaps == "error":
        raise Fault(two_frequencies(series_id, stamps, holes, offset))
    repairs["rows inserted for gaps"] = repairs.get("rows inserted for gaps", 0) + len(holes)
    return interpolated(frame.reindex(grid), holes)


def interpolated(frame: pd.DataFrame, holes: pd.DatetimeIndex) -> pd.DataFrame:
    """The frame with its inserted rows filled linearly, and nothing else touched."""
    filled = frame.interpolate(method="linear", limit_area="inside")
    frame.loc[holes] = filled.loc[holes]
    return frame


def in_order(series_id: str, frame: pd.DataFrame, source: SourceSpec, repairs: dict[str, int]) -> pd.DataFrame:
    instants = frame.index.asi8
    back = np.flatnonzero(np.diff(instants) < 0)
    if not len(back):
        return frame
    if source.order == "error":
        raise Fault(
            f"{series_id}: {frame.index[back[0] + 1].isoformat()} comes after {frame.index[back[0]].isoformat()} "
            f"({len(back)} stamps go back in time). Sort the file or set source.order='sort'."
        )
    repairs["stamps out of order"] = repairs.get("stamps out of order", 0) + len(back)
    return frame.sort_index(kind="stable")


def without_repeats(series_id: str, frame: pd.DataFrame, source: SourceSpec, repairs: dict[str, int]) -> pd.DataFrame:
    again = frame.index.duplicated()
    if not again.any():
        return frame
    if source.duplicates == "error":
        raise Fault(
            f"{series_id} repeats {frame.index[again][0].isoformat()} ({int(again.sum())} repeated stamps in all). "
            "Remove the rows or set source.duplicates='first', 'last' or 'mean'."
        )
    repairs["repeated stamps"] = repairs.get("repeated stamps", 0) + int(again.sum())
    if source.duplicates == "mean":
        return frame.groupby(level=0, sort=False).mean()
    return frame[~frame.index.duplicated(keep=source.duplicates)]


def two_frequencies(series_id: str, stamps: pd.DatetimeIndex, holes: pd.DatetimeIndex, offset: pd.DateOffset) -> str:
    """What to say of holes: rows that are absent here and there, or a series that changes its step."""
    steps = pd.Series(stamps[1:] - stamps[:-1])
    other = steps[steps != steps.mode()[0]]
    accept = "Fill them or set source.gaps='interpolate'."
    if len(other) >= 10 and (other == other.mode()[0]).mean() > 0.9:
        return (
            f"{series_id} has two frequencies: steps of {steps.mode()[0]} and, from {stamps[other.index[0]].isoformat()}, "
            f"{len(other)} of {other.mode()[0]}; on a grid of {offset.freqstr} {len(holes)} rows are absent. {accept}"
        )
    return (
        f"{series_id} has a gap: no row at {holes[0].isoformat()} ({len(holes)} absent rows in all, at a step of "
        f"{offset.freqstr}). {accept}"
    )


def grid_between(first: pd.Timestamp, last: pd.Timestamp, offset: pd.DateOffset) -> pd.DatetimeIndex:
    """Every stamp from first to last: instants for fixed steps, the local calendar for days and longer."""
    if fixed_seconds(offset):
        return pd.date_range(first.tz_convert("UTC"), last.tz_convert("UTC"), freq=offset).tz_convert(first.tz)
    naive = pd.date_range(first.tz_localize(None), last.tz_localize(None), freq=offset)
    return on_clock(naive, first.tz)


def on_clock(naive: pd.DatetimeIndex, zone: tzinfo) -> pd.DatetimeIndex:
    """Days and longer on a clock that may skip or repeat their hour: the first instant after it, the first of two."""
    return naive.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.ones(len(naive), bool))


def following(last: pd.Timestamp, steps: int, offset: pd.DateOffset) -> pd.DatetimeIndex:
    """The `steps` stamps after `last`, on the same clock."""
    if fixed_seconds(offset):
        later = pd.date_range(last.tz_convert("UTC"), periods=steps + 1, freq=offset)[1:]
        return later.tz_convert(last.tz)
    return on_clock(pd.date_range(last.tz_localize(None), periods=steps + 1, freq=offset)[1:], last.tz)


def calendar_columns(stamps: pd.DatetimeIndex, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Sine and cosine of the local clock for each of `names`: hour, weekday, day_of_year."""
    midnight = (stamps.hour * 3600 + stamps.minute * 60 + stamps.second) / SECONDS_A_DAY
    phase = {
        "hour": midnight,
        "weekday": stamps.day_of_week / 7,
        "day_of_year": (stamps.day_of_year - 1) / 365.25,
    }
    columns = {}
    for name in names:
        turn = 2 * np.pi * np.asarray(phase[name], np.float64)
        columns |= {f"{name}_sin": np.sin(turn), f"{name}_cos": np.cos(turn)}
    return columns
