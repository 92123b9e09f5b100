"""Find out whether single days of the year, as holidays are, differ from the days around them in one year as in another."""

from collections import defaultdict

import numpy as np
import pandas as pd

from models.series import Columns
from models.windows import FoldSpec
from tasks.find_season import SAMPLED_SERIES, sampled_shards
from tasks.ingest.calendar import numbers_of_days
from tasks.ingest.canonical import read_segment
from tasks.ingest.clock import Clock
from tasks.ingest.task import Series
from tasks.ingest.timeline import parse_timezone
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.select import trainable
from tasks.storage import Receipt, Store

DAY = 86_400_000_000  # microseconds
AROUND = (-14, -7, 7, 14)  # days of the same weekday that a day is held against
EPOCH = np.datetime64("1970-01-01", "D")

Daily = tuple[int, np.ndarray]  # days from 1970 to the first, and a value a day (D,), NaN where there is none


class DatesFound(Receipt):
    """`dates.json`: the share of how days differ from those around them that other years tell."""

    explained: float  # of the squares; below 0 where other years only mislead

    @property
    def told(self) -> bool:
        return self.explained > 0


@step(libraries=("numpy", "pandas", "pyarrow", "tzdata"))
def find_dates(series: list[Series], masked: bool, folds: FoldSpec, timezone: str, store: Store) -> DatesFound:
    """Hold the days of the steps to train on against the same dates of other years, in some of the series."""
    share = explained_by_other_years(daily_means(series, masked, folds, timezone, store))
    much = f"explain {share:.0%}, so networks learn of single days" if share > 0 else "explain nothing"
    say(f"dates: of how a day differs from those around it, other years {much}")
    with store.draft(this_call()) as draft:
        draft.write_json("dates.json", {"explained": share})
        return draft.commit(DatesFound, explained=share)


def daily_means(series: list[Series], masked: bool, folds: FoldSpec, timezone: str, store: Store) -> list[Daily]:
    """The mean of the target over each local day of the steps to train on, of some series; nothing of days not observed."""
    clock, parts = Clock(parse_timezone(timezone)), defaultdict(list)
    shards = sampled_shards(series)
    left = {name: count for one in shards for name, count in trainable(one, folds, store).items()}
    chosen = set(sorted(left)[:SAMPLED_SERIES])
    for one in shards:
        for segment in one.segments:
            for name, stamps, rows in read_segment(store, one, segment, Columns(masked=masked)):
                count = min(len(rows), left[name])
                left[name] -= count
                seen = rows[:count, 1] > 0 if masked else np.ones(count, bool)
                if name in chosen and seen.any():
                    parts[name].append(daily_sums(clock.to_local(stamps[:count][seen]), rows[:count, 0][seen]))
    return [merged(own) for own in parts.values()]


def daily_sums(local: np.ndarray, values: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """The first day, sums (D,) and counts (D,) of values (R,) by the local day of their stamps (R,), int64 microseconds."""
    days = np.asarray(local, np.int64) // DAY
    at = days - days.min()
    return int(days.min()), np.bincount(at, values), np.bincount(at)


def merged(parts: list[tuple[int, np.ndarray, np.ndarray]]) -> Daily:
    """The mean of each day, of sums and counts that may begin at different days and share some."""
    first = min((one for one, _, _ in parts), default=0)
    last = max((one + len(sums) for one, sums, _ in parts), default=0)
    total, count = np.zeros(last - first), np.zeros(last - first)
    for begin, sums, counts in parts:
        place = slice(begin - first, begin - first + len(sums))
        total[place] += sums
        count[place] += counts
    return first, np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def explained_by_other_years(daily: list[Daily]) -> float:
    """The share of the squared deviations of days, averaged over series, that those of the same day in other years explain.

    The same day is that of the same date, the same weekday in the month, as the fourth Thursday, or one after the other,
    whichever explains most. Each year is left out of what is said of its own days; -1 where nothing can be held against.
    """
    first, apart = mean_deviations(daily)
    seen = np.flatnonzero(~np.isnan(apart))
    apart = apart[seen]
    if not np.square(apart).sum():
        return -1.0
    date, weekday = numbers_of_days(pd.DatetimeIndex(EPOCH + first + seen))
    by_date = by_others(apart, date)
    said = (by_date, by_others(apart, weekday), by_date + by_others(apart - by_date, weekday))
    return float(max(1 - np.square(apart - one).sum() / np.square(apart).sum() for one in said))


def mean_deviations(daily: list[Daily]) -> Daily:
    """How far each day lies from those of the same weekday around it, in standard deviations, on average over series."""
    held = [(first, deviations(values)) for first, values in daily]
    return merged([(first, np.nan_to_num(own), (~np.isnan(own)).astype(int)) for first, own in held])


def deviations(values: np.ndarray) -> np.ndarray:
    """(D,) how far each value lies from the median of its neighbours, in standard deviations of that; NaN without any."""
    reach = max(AROUND)
    wide = np.pad(values, reach, constant_values=np.nan)
    near = np.stack([wide[reach + shift : reach + shift + len(values)] for shift in AROUND])
    some = ~np.isnan(near).all(0)
    apart = np.full(len(values), np.nan)
    apart[some] = values[some] - np.nanmedian(near[:, some], 0)
    size = np.sqrt(np.nanmean(np.square(apart))) if (~np.isnan(apart)).any() else 0.0
    return apart / size if size else np.full(len(values), np.nan)


def by_others(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(N,) the mean of the others in each one's group, drawn towards 0 as if there were one more of 0."""
    _, which = np.unique(group, return_inverse=True)
    return (np.bincount(which, values)[which] - values) / np.bincount(which)[which]
