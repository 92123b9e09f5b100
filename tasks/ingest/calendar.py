"""Covariates that a clock and a calendar make: known for any stamp, past or to come."""

from collections.abc import Iterable
from functools import cached_property
from importlib import metadata

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from models.errors import Fault
from models.series import DATE, Columns, clock_channels
from tasks.ingest.clock import Clock
from tasks.ingest.timeline import SECONDS_A_DAY, fixed_seconds, parse_offset, parse_timezone

SECONDS_A_YEAR = 365.25 * SECONDS_A_DAY
YEARS = 4  # from which on single days of the year can be learned of
NOT_INSTALLED = "source.holidays needs the package holidays. Install it: pip install holidays."


class Calendar(BaseModel):
    """The clock and the grid of a source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frequency: str
    timezone: str
    holidays: str | None = None  # release of the package, where its days are a channel: another may know other days

    @cached_property
    def clock(self) -> Clock:
        return Clock(parse_timezone(self.timezone))

    def channels(self, stamps: np.ndarray, columns: Columns) -> np.ndarray:
        """The channels (R, made) of instants (R,), int64 microseconds UTC."""
        local = pd.DatetimeIndex(self.clock.to_local(np.asarray(stamps)).view("datetime64[us]"))
        made = list(waves(local, columns.calendar).values())
        if columns.holidays:
            made.append(holiday_flags(local, columns.holidays))
        return np.stack(made, 1) if made else np.empty((len(local), 0))

    def insert(self, rows: np.ndarray, stamps: np.ndarray, columns: Columns) -> np.ndarray:
        """Stored rows (R, C - made) with the channels of the calendar in their place, before the static ones of the file."""
        if not columns.made:
            return rows
        at = columns.first_known + len(columns.future)
        return np.concatenate([rows[:, :at], self.channels(stamps, columns), rows[:, at:]], 1)


def calendar_of(frequency: str, timezone: str, columns: Columns) -> Calendar:
    """The calendar that makes channels of these columns.

    Raises:
        Fault: they have holidays, and the package is not installed.
    """
    try:
        release = metadata.version("holidays") if columns.holidays else None
    except metadata.PackageNotFoundError as error:
        raise Fault(NOT_INSTALLED) from error
    return Calendar(frequency=frequency, timezone=timezone, holidays=release)


def usual_calendar(frequency: str, steps: float, taken: Iterable[str]) -> tuple[str, ...]:
    """What of the local clock becomes a covariate where nothing is said.

    Hour and weekday below a day, weekday for days; where series have four years, the date too: a day has then been there
    three times or so among the steps to train on.

    Args:
        steps: of a series, on average.
        taken: names of covariates; what would give a channel of such a name is left out.
    """
    offset = parse_offset(frequency)
    seconds = fixed_seconds(offset)
    finer = bool(seconds and seconds < SECONDS_A_DAY)
    daily = finer or seconds == SECONDS_A_DAY or (offset.n == 1 and offset.rule_code in ("D", "B", "C"))
    seconds = seconds or (SECONDS_A_DAY if offset.rule_code == "D" else SECONDS_A_DAY * 7 / 5)
    dated = daily and steps * seconds >= YEARS * SECONDS_A_YEAR
    names = (*(("hour",) if finer else ()), *(("weekday",) if daily else ()), *((DATE,) if dated else ()))
    return tuple(name for name in names if not set(clock_channels(name)) & set(taken))


def waves(local: pd.DatetimeIndex, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Sine and cosine of the local clock for each of `names`: hour, weekday, day_of_year; of the date, the numbers of a day."""
    midnight = (local.hour * 3600 + local.minute * 60 + local.second) / SECONDS_A_DAY
    phase = {"hour": midnight, "weekday": local.day_of_week / 7, "day_of_year": (local.day_of_year - 1) / 365.25}
    columns = {}
    for name in names:
        if name == DATE:
            columns |= dict(zip(clock_channels(name), numbers_of_days(local), strict=True))
            continue
        turn = 2 * np.pi * np.asarray(phase[name], np.float64)
        columns |= {f"{name}_sin": np.sin(turn), f"{name}_cos": np.cos(turn)}
    return columns


def numbers_of_days(local: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray]:
    """Which day of which month each is, and which Monday, Tuesday and so on of which month: below NUM_DAYS, NUM_WEEKDAYS."""
    month, day = np.asarray(local.month, np.float64) - 1, np.asarray(local.day, np.float64) - 1
    return month * 31 + day, month * 35 + day // 7 * 7 + np.asarray(local.day_of_week, np.float64)


def holiday_flags(local: pd.DatetimeIndex, place: str) -> np.ndarray:
    """1 on a public holiday of a country, or of a part of it, as AU or DE-BY; 0 on other days.

    Raises:
        Fault: the package is not installed, or knows no such place.
    """
    days = local.normalize()
    years = range(days.year.min() - 1, days.year.max() + 2) if len(days) else ()
    known = np.array(sorted(public_holidays(place, years)), "datetime64[D]")
    return np.isin(days.to_numpy().astype("datetime64[D]"), known).astype(np.float64)


def public_holidays(place: str, years) -> list:
    try:
        from holidays import country_holidays
    except ImportError as error:
        raise Fault(NOT_INSTALLED) from error
    country, _, part = place.partition("-")
    try:
        return list(country_holidays(country, subdiv=part or None, years=years))
    except NotImplementedError as error:
        raise Fault(
            f"source.holidays {place!r} is no place that the package holidays knows; use one as AU or DE-BY."
        ) from error
