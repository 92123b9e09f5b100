"""How often the series have a row, how long they are, and what faults their stamps and values have."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from models.errors import Fault
from tasks.ingest.grid import Grid
from tasks.ingest.timeline import infer_frequency, season_of

ASKED = 8  # series that are asked for their frequency
SAMPLED = 20_000  # stamps of each


@dataclass
class Holes:
    """Values or rows that are absent between others."""

    count: int = 0
    longest: int = 0  # steps
    open: int = 0  # of them at the beginning of a series, or at its end where others go on: no line can be drawn there
    ahead: int = 0  # after the last target


@dataclass
class Steps:
    """Rows sorted by series and stamp, and what was found of them."""

    order: np.ndarray  # (R,) rows of the sample
    codes: np.ndarray  # (R,) sorted
    micros: np.ndarray
    frequency: str | None
    season: int
    lengths: np.ndarray  # (S,) steps from the first row of each series to its last
    gaps: Holes = field(default_factory=Holes)
    repeated: int = 0
    copies: int = 0  # of these, rows that say the same as the one before
    off_grid: int = 0
    backwards: int = 0  # rows of a series that come before an earlier one

    @property
    def summer_time(self) -> bool:
        """Whether stamps come twice in the small hours of Sundays in autumn, as a clock with summer time shows them."""
        twice = np.flatnonzero((np.diff(self.codes) == 0) & (np.diff(self.micros) == 0))
        clock = pd.DatetimeIndex(self.micros[twice].view("datetime64[us]"))
        small = (clock.hour <= 3) & (clock.day_of_week == 6) & clock.month.isin((3, 4, 9, 10, 11))
        return len(twice) > 0 and bool(small.mean() > 0.9)

    @property
    def starts(self) -> np.ndarray:
        return np.concatenate([[0], np.flatnonzero(np.diff(self.codes)) + 1])


def find_steps(micros: np.ndarray, codes: np.ndarray, parts: np.ndarray, values: np.ndarray) -> Steps:
    """The frequency and the faults of series.

    Args:
        parts: (R,) the run of neighbouring rows that each belongs to: between runs, rows may be there that were not seen.
        values: (R, K) all numbers, by which rows are told to be copies.
    """
    order = np.lexsort((micros, codes))
    sorted_codes, stamps = codes[order], micros[order]
    same = np.diff(sorted_codes) == 0
    twice = same & (np.diff(stamps) == 0)
    steps = Steps(order, sorted_codes, stamps, find_frequency(stamps, sorted_codes), 1, np.array([], np.int64))
    steps.repeated = int(twice.sum())
    at = np.flatnonzero(twice)
    pair = values[order[at]], values[order[at + 1]]
    steps.copies = int(((pair[0] == pair[1]) | (np.isnan(pair[0]) & np.isnan(pair[1]))).all(1).sum())
    steps.backwards = count_backwards(micros, codes, parts)
    if steps.frequency is not None:
        steps.season = season_of(steps.frequency)
        measure(steps, parts[order])
    return steps


def find_frequency(stamps: np.ndarray, codes: np.ndarray) -> str | None:
    """The alias that most of the longest series have; None where none is long enough to tell."""
    counts = np.bincount(codes)
    seen: Counter[str] = Counter()
    for code in np.argsort(-counts, kind="stable")[:ASKED].tolist():
        begin, end = np.searchsorted(codes, [code, code + 1])
        own = pd.DatetimeIndex(stamps[begin : min(end, begin + SAMPLED)].view("datetime64[us]"), tz="UTC")
        try:
            seen[infer_frequency(own)] += 1
        except Fault:
            continue
    return seen.most_common(1)[0][0] if seen else None


def count_backwards(micros: np.ndarray, codes: np.ndarray, parts: np.ndarray) -> int:
    """Rows that are older than the one of their series before them in the file."""
    order = np.argsort(codes, kind="stable")
    same = (np.diff(codes[order]) == 0) & (np.diff(parts[order]) == 0)
    return int((same & (np.diff(micros[order]) < 0)).sum())


def measure(steps: Steps, parts: np.ndarray) -> None:
    """Count steps and absent rows along the grid of each series."""
    grid, starts = Grid(steps.frequency, "UTC"), steps.starts
    ends = np.append(starts[1:], len(steps.codes))
    ordinals, off = np.zeros(len(steps.codes), np.int64), np.zeros(len(steps.codes), bool)
    if grid.micros:
        apart = steps.micros - np.repeat(steps.micros[starts], ends - starts)
        ordinals, off = apart // grid.micros, apart % grid.micros != 0
    else:
        calendar = grid.calendar(steps.micros.min(), steps.micros.max())
        ordinals = np.searchsorted(calendar, steps.micros)
        off = calendar[np.minimum(ordinals, len(calendar) - 1)] != steps.micros if len(calendar) else np.ones(len(off), bool)
    steps.off_grid = int(off.sum())
    steps.lengths = ordinals[ends - 1] - ordinals[starts] + 1
    jumps = np.diff(ordinals)
    inside = (np.diff(steps.codes) == 0) & (np.diff(parts) == 0) & (jumps > 1)
    steps.gaps = Holes(count=int((jumps[inside] - 1).sum()), longest=int((jumps[inside] - 1).max(initial=0)))


def usual_length(steps: Steps, parts: np.ndarray) -> int:
    """Steps of a typical series; those that the sample cuts count only where all are cut."""
    changes = np.flatnonzero(np.diff(parts))
    edge = np.zeros(len(parts), bool)
    edge[changes] = edge[changes + 1] = True
    cut = np.logical_or.reduceat(edge[steps.order], steps.starts)
    return int(np.median(steps.lengths[~cut] if (~cut).any() else steps.lengths))


def last_targets(steps: Steps, target: np.ndarray) -> np.ndarray:
    """(R,) in sorted order: the row of the last target of each row's series, -1 where it has none."""
    starts = steps.starts
    told = np.where(np.isnan(target[steps.order]), -1, np.arange(len(steps.order)))
    return np.repeat(np.maximum.reduceat(told, starts), np.diff(np.append(starts, len(told))))


def holes_in(steps: Steps, column: np.ndarray, target: np.ndarray) -> Holes:
    """Empty values of a column (R,) between others; what lies after the last target of its series is yet to come."""
    last, rows, empty = last_targets(steps, target), np.arange(len(steps.order)), np.isnan(column[steps.order])
    holes = empty & (rows <= last)
    first = np.zeros(len(rows), bool)
    first[steps.starts] = True
    begins = np.flatnonzero(holes & (first | ~np.concatenate([[False], holes[:-1]])))
    final = np.append(first[1:], True)
    ends = np.flatnonzero(holes & (final | ~np.append(holes[1:], False)))
    still_open = first[begins] | (ends == last[ends])
    return Holes(
        int(holes.sum()), int((ends - begins + 1).max(initial=0)), int(still_open.sum()), int((empty & (rows > last)).sum())
    )


def goes_on(steps: Steps, column: np.ndarray, target: np.ndarray) -> bool:
    """Whether a column has values in most rows after the last target of their series, and there are such rows."""
    last = last_targets(steps, target)
    ahead = (np.arange(len(last)) > last) & (last >= 0)
    return bool(ahead.any()) and bool((~np.isnan(column[steps.order][ahead])).mean() > 0.5)
