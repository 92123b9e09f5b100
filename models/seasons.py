"""After how many steps series repeat themselves, found from their values.

A series is held against itself a period later, once the mean over a period around each step is taken off: what repeats
is left whole by that, while a trend, a random walk and noise keep nothing that agrees a period later, and slow waves
hardly anything that is not in the mean of what is left, too. Periods are asked for in the calendar's order, then where a
periodogram of the differences has peaks.

Source: the pairing of periodogram and autocorrelation follows AutoPeriod (Vlachos, Yu and Castelli 2005); the moving
mean is that of classical decomposition.
"""

from collections.abc import Iterable

import numpy as np

LONGEST_SEASON = 1500  # steps; of a longer one no two lie within what is looked back
FEWEST = 4  # whole seasons that a series has at least where one is looked for
ALIKE = 4  # series are seldom independent: so many of them count at most
SURE, SURER = 2.0, 4.0  # standard errors: for a season of the calendar, and for one that it knows nothing of
LEAST, CLEAR = 0.1, 0.3  # agreement below which neither is believed, however long the series
NEARLY, MUCH = 0.5, 0.8  # of the best agreement: enough for the calendar's, and for a shorter period than the best
LASTING, STEADY = 0.5, 0.75  # of what agrees after one period does so after two; the second where no calendar vouches
PEAKS = 5  # of the periodogram, the highest and as many of the longest, are looked at


def main_season(series: Iterable[np.ndarray], calendar: tuple[int, ...]) -> int:
    """The steps after which most of these series repeat themselves, 1 where they do not.

    Args:
        series: targets (R,), regular, NaN where not observed; of any lengths.
        calendar: seasons to prefer, the first most, as a day and a week of hourly steps.
    """
    held = [clipped(one) for one in series if np.isfinite(one).any()]
    known: dict[int, float] = {}
    for period in calendar:
        own, error = agreement(held, period) if can_tell(max(map(len, held), default=0), period) else (0.0, np.inf)
        if own > max(LEAST, SURE * error) and sum(agreement(held, period, 2)) > LASTING * own:
            known[period] = own
            if own >= NEARLY and len(known) == 1:  # whatever else there is, it can not be much better
                return period
    others = {} if max(known.values(), default=0.0) >= NEARLY else off_calendar(held)
    best = max([*known.values(), *others.values()], default=0.0)
    return min((period for period, own in known.items() if own >= NEARLY * best), default=0) or min(
        (period for period, own in others.items() if own >= MUCH * best), default=1
    )


def off_calendar(series: list[np.ndarray]) -> dict[int, float]:
    """The agreement of each period that the spectrum shows, and the series keep, whatever the calendar says."""
    found = {}
    for period in peaks(series):
        own, error = agreement(series, period)
        if own > max(CLEAR, SURER * error) and agreement(series, period, 2)[0] > STEADY * own:
            found[period] = own
    return found


def can_tell(num_steps: int, period: int) -> bool:
    """Whether so many steps are enough to say if they repeat after `period` of them."""
    return 1 < period <= LONGEST_SEASON and num_steps >= FEWEST * period


def clipped(values: np.ndarray) -> np.ndarray:
    """Values whose steps are held to thirty times their usual size, so that one wrong value does not hide everything."""
    middle = np.nanmedian(values)
    apart = np.abs(values - middle)
    usual = np.nanquantile(apart, 0.9)
    return np.clip(values, middle - 3 * usual, middle + 3 * usual) if usual > 0 else values


def agreement(series: list[np.ndarray], period: int, times: int = 1) -> tuple[float, float]:
    """The correlation of series with themselves `times` periods later, -1 to 1, and its standard error if nothing repeats.

    The mean over series, each weighted by how often it is held against itself. The error is that of a random walk, whose
    distance from its moving mean changes more slowly than that of anything else that does not repeat.
    """
    found, weights = [], []
    for values in series:
        if len(values) >= (2 + times) * period:
            apart = values - moving_mean(values, period)
            early, late = apart[: -times * period], apart[times * period :]
            waves = moving_mean(apart, period)[times * period :]
            both = np.isfinite(early) & np.isfinite(late) & np.isfinite(waves)
            early, late, waves = early[both], late[both], waves[both]
            size = np.sqrt(np.square(early).sum() * np.square(late).sum())
            if both.sum() >= period // 2:
                found.append(float((early * (late - waves)).sum() / size) if size > 0 else 0.0)
                weights.append(int(both.sum()))
    if not found:
        return 0.0, np.inf
    independent = np.mean(weights) / period * min(len(found), ALIKE)
    return float(np.average(found, weights=weights)), float(np.sqrt(0.15 / independent))


def moving_mean(values: np.ndarray, period: int) -> np.ndarray:
    """The mean (R,) over one period around each step, NaN where that reaches over an end or nothing in it was observed.

    An even period has no middle, so it is the mean of two that lie half a step to either side.
    """
    seen = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(seen, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(seen)])
    with np.errstate(invalid="ignore"):
        means = (sums[period:] - sums[:-period]) / (counts[period:] - counts[:-period])
    if period % 2 == 0:
        means = (means[1:] + means[:-1]) / 2
    mean = np.full(len(values), np.nan)
    mean[period // 2 : period // 2 + len(means)] = means
    return mean


def peaks(series: list[np.ndarray]) -> list[int]:
    """Periods at which the periodogram of the differences stands out from its neighbourhood, refined by autocorrelation."""
    if not series:
        return []
    size = max(len(values) for values in series)
    power = np.zeros(size // 2 + 1)
    for values in series:
        steps = np.nan_to_num(np.diff(values))
        wave = np.abs(np.fft.rfft(steps * np.hanning(len(steps)), size)) ** 2
        if wave.any():
            power += wave / wave.sum() * len(steps)
    at = np.arange(1, len(power) - 1)
    around = np.array([np.median(power[max(1, one // 2) : 2 * one + 8]) for one in at])
    high = at[(power[1:-1] >= power[:-2]) & (power[1:-1] >= power[2:]) & (power[1:-1] > 2 * np.log(size) * around)]
    high = high[(high >= FEWEST) & (size / high <= LONGEST_SEASON)]
    ranked = sorted(high.tolist(), key=lambda one: -power[one])
    chosen = dict.fromkeys([*ranked[:PEAKS], *high[:PEAKS].tolist()])
    return sorted({period for one in chosen if (period := sharpened(series, size, one)) > 1})


def sharpened(series: list[np.ndarray], size: int, at: int) -> int:
    """The period near `size / at` after which series agree best with themselves, once and four times."""

    def after(period: int) -> float:
        return agreement(series, int(period))[0] + agreement(series, int(period), 4)[0]

    low, high = max(2, int(size / (at + 1)) + 1), max(2, -int(-size // (at - 1)) - 1)
    tried = np.unique(np.linspace(low, max(low, high), 25).round().astype(int))
    best = max(tried, key=after)
    near = range(max(2, best - (high - low) // 48 - 1), best + (high - low) // 48 + 2)
    return int(max(near, key=after))
