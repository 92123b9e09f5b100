"""Stamps: parsed, made instants, ordered, and put on a regular grid."""

import warnings
from datetime import timedelta, timezone, tzinfo
from re import fullmatch
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from models.errors import Fault, counted
from tasks.ingest.clock import Clock

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


def local_stamp(micros: int, zone: tzinfo) -> str:
    """An instant, microseconds UTC, as a reader of the source knows it."""
    return pd.Timestamp(int(micros), unit="us", tz="UTC").tz_convert(zone).isoformat()


def parse_offset(frequency: str) -> pd.DateOffset:
    """The pandas offset that a frequency alias names.

    Raises:
        Fault: pandas knows no such alias.
    """
    try:
        offset = to_offset(frequency)
    except ValueError as error:
        raise Fault(f"source.frequency {frequency!r} is no pandas alias; use one as 30min, h, D, W, MS, or null.") from error
    if isinstance(offset, pd.tseries.offsets.Tick) and offset.nanos % 1000:
        raise Fault(f"source.frequency {frequency!r} is finer than a microsecond; use whole microseconds, as 10us.")
    if offset.n < 1:
        raise Fault(f"source.frequency {frequency!r} does not go forward; use one as 30min, h, D, W, MS, or null.")
    return offset


def season_of(frequency: str) -> int:
    """Steps after which a series of this frequency tends to repeat; 1 where no calendar cycle fits."""
    return next(iter(calendar_seasons(frequency)), 1)


def calendar_seasons(frequency: str) -> dict[int, str]:
    """The calendar's cycles in steps of this frequency, the most usual first.

    A day and a week for anything finer than a day, a week and a year for days, a year for weeks, months and quarters.
    """
    offset = parse_offset(frequency)
    seconds = fixed_seconds(offset)
    if seconds:
        a_day = int(SECONDS_A_DAY // seconds) if seconds < SECONDS_A_DAY and SECONDS_A_DAY % seconds == 0 else 1
        return {a_day: "a day", 7 * a_day: "a week"} if a_day > 1 else {}
    cycles = {"D": (7, 365), "B": (5, 261), "W": (52,), "M": (12,), "Q": (4,)}
    letter = offset.rule_code.split("-")[0].removeprefix("B") or "B"
    found = cycles.get(letter[0], ()) if offset.n == 1 else ()
    return dict(zip(found, ("a week", "a year") if len(found) == 2 else ("a year",), strict=False))


def fixed_seconds(offset: pd.DateOffset) -> float | None:
    """The length of a step in seconds, or None where the local calendar decides it, as for days and months."""
    return offset.nanos / 1e9 if isinstance(offset, pd.tseries.offsets.Tick) else None


def infer_frequency(stamps: pd.DatetimeIndex) -> str:
    """The alias of the most common step between the stamps of one series.

    Raises:
        Fault: there are too few stamps to tell.
    """
    local = stamps.tz_localize(None).unique().sort_values()
    if len(local) < 3:
        raise Fault(f"The source has {counted(len(local), 'different stamps')} in its first series; set source.frequency.")
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


def grid_between(first: pd.Timestamp, last: pd.Timestamp, offset: pd.DateOffset) -> pd.DatetimeIndex:
    """Every stamp from first to last: instants for fixed steps, the local calendar for days and longer."""
    if fixed_seconds(offset):
        return pd.date_range(first.tz_convert("UTC"), last.tz_convert("UTC"), freq=offset).tz_convert(first.tz)
    naive = pd.date_range(intended(first), last.tz_localize(None), freq=offset)
    return on_clock(naive, first.tz)


def on_clock(naive: pd.DatetimeIndex, zone: tzinfo) -> pd.DatetimeIndex:
    """Days and longer on a clock that may skip or repeat their hour: the first instant after it, the first of two.

    A whole day that the clock skips, as Samoa did, is no step.
    """
    instants = np.unique(Clock(zone).to_utc(naive.as_unit("us").asi8).first)
    return pd.DatetimeIndex(instants.view("datetime64[us]"), tz="UTC").tz_convert(zone)


def intended(stamp: pd.Timestamp) -> pd.Timestamp:
    """What the clock shows, and midnight where it skips that and shows the first instant after it."""
    wall, before = stamp.tz_localize(None), stamp - pd.Timedelta(1, "us")
    skipped = stamp.utcoffset() - before.utcoffset()
    midnight = wall - skipped
    return midnight if timedelta() < skipped < timedelta(days=1) and midnight == midnight.normalize() else wall


def following(last: pd.Timestamp, steps: int, offset: pd.DateOffset) -> pd.DatetimeIndex:
    """The `steps` stamps after `last`, on the same clock."""
    if fixed_seconds(offset):
        later = pd.date_range(last.tz_convert("UTC"), periods=steps + 1, freq=offset)[1:]
        return later.tz_convert(last.tz)
    later = on_clock(pd.date_range(intended(last), periods=steps + 3, freq=offset), last.tz)
    return later[later > last][:steps]
