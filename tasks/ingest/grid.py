"""Series put on their regular grid: instants for steps of fixed length, the local calendar for days and longer."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

from tasks.ingest.panel import Ledger, Panel
from tasks.ingest.sources import SourceSpec
from tasks.ingest.timeline import fixed_seconds, grid_between, local_stamp, parse_offset, parse_timezone

LARGEST_GRID = 50  # times as many steps as rows are taken for a wrong stamp or a wrong frequency
SMALL_GRID = 1_000_000  # steps below which they are not
DECADE = 315_619_200_000_000  # microseconds


@dataclass(frozen=True)
class Grid:
    """The steps of a frequency on one clock."""

    frequency: str
    timezone: str

    @cached_property
    def micros(self) -> int | None:
        """The length of a step, None where the calendar decides it."""
        seconds = fixed_seconds(parse_offset(self.frequency))
        return None if seconds is None else round(seconds * 1e6)

    @cached_property
    def usual(self) -> float:
        """The length of a step in microseconds, or its mean where the calendar decides it."""
        return self.micros or DECADE / max(1, len(self.calendar(0, DECADE)) - 1)

    def calendar(self, first: int, last: int) -> np.ndarray:
        """Every instant of the grid that begins at `first`, up to `last`."""
        return calendar_grid(self.frequency, self.timezone, int(first), int(last))

    def say(self, micros: int) -> str:
        """An instant on the local clock, ISO 8601 with its offset."""
        return local_stamp(micros, parse_timezone(self.timezone))


@lru_cache(64)
def calendar_grid(frequency: str, timezone: str, first: int, last: int) -> np.ndarray:
    zone = parse_timezone(timezone)
    ends = [pd.Timestamp(stamp, unit="us", tz="UTC").tz_convert(zone) for stamp in (first, last)]
    return grid_between(*ends, parse_offset(frequency)).as_unit("us").asi8


@dataclass
class Placed:
    """Rows and the numbers of their steps."""

    panel: Panel
    ordinals: np.ndarray  # (R,) counted along the grid of each row's series
    grids: dict[int, np.ndarray]  # series -> the instants of its grid, where the calendar decides

    def keep(self, rows: np.ndarray | slice) -> "Placed":
        return Placed(self.panel.keep(rows), self.ordinals[rows], self.grids)

    def jumps(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows before which some steps are absent, and how many."""
        apart = np.diff(self.ordinals)
        rows = np.flatnonzero(self.panel.same & (apart > 1))
        return rows + 1, apart[rows] - 1


def place(panel: Panel, grid: Grid, ledger: Ledger, origin: int | None = None) -> Placed:
    """Rows on the grid that begins with the first row of their series; those that lie on none of its steps are refused.

    Args:
        origin: the first stamp of the series, where the panel is a part of one.
    """
    firsts = panel.stamps[panel.starts] if origin is None else np.full(len(panel.starts), origin)
    grids: dict[int, np.ndarray] = {}
    if grid.micros:
        apart = panel.stamps - np.repeat(firsts, panel.sizes)
        ordinals, off = apart // grid.micros, apart % grid.micros != 0
    else:
        ordinals, off, grids = place_on_calendar(panel, grid, firsts)
    placed = Placed(panel, ordinals, grids)
    if not off.any():
        return placed
    refuse_off_grid(panel, off, np.repeat(firsts, panel.sizes), grid, ledger)
    return placed.keep(~off)


def place_on_calendar(panel: Panel, grid: Grid, firsts: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """As `place`; series whose first stamp lies on the grid of another share it."""
    ordinals, off = np.zeros(len(panel.codes), np.int64), np.zeros(len(panel.codes), bool)
    starts, sizes, grids = panel.starts, panel.sizes, {}
    lasts = panel.stamps[starts + sizes - 1]
    left = np.argsort(firsts, kind="stable")
    while len(left):
        steps = grid.calendar(firsts[left[0]], lasts[left].max())
        own, rest = left[:1], left[1:]
        if len(steps):
            at = np.minimum(np.searchsorted(steps, firsts[left]), len(steps) - 1)
            fits = steps[at] == firsts[left]
            fits[0] = True  # its own grid, on which it may not lie
            own, rest = left[fits], left[~fits]
        rows = np.repeat(starts[own] - np.cumsum(sizes[own]) + sizes[own], sizes[own]) + np.arange(sizes[own].sum())
        stamps = panel.stamps[rows]
        at = np.searchsorted(steps, stamps)
        ordinals[rows] = at
        off[rows] = steps[np.minimum(at, len(steps) - 1)] != stamps if len(steps) else True
        grids |= dict.fromkeys(panel.codes[starts[own]].tolist(), steps)
        left = rest
    return ordinals, off, grids


def refuse_off_grid(panel: Panel, off: np.ndarray, firsts: np.ndarray, grid: Grid, ledger: Ledger) -> None:
    def say(row: int, count: str) -> str:
        where = ledger.say(panel.stamps[row])
        if panel.stamps[row] == firsts[row]:
            return (
                f"begins at {where}, where no step of {grid.frequency} lies ({count} such stamps). "
                "Set source.frequency to the step and day they have, or to null."
            )
        return (
            f"{where} is not a whole number of {grid.frequency} steps after {ledger.say(firsts[row])} ({count} such "
            "stamps), so the series has two frequencies or another one. Set source.frequency, or resample."
        )

    ledger.fault(panel, np.flatnonzero(off), "frequency", say)


def too_sparse(placed: Placed, grid: Grid, ledger: Ledger) -> Placed:
    """Without the series whose grid would be many times larger than what they have."""
    panel = placed.panel
    if not len(panel.codes):
        return placed
    starts, sizes = panel.starts, panel.sizes
    steps = placed.ordinals[starts + sizes - 1] - placed.ordinals[starts] + 1
    wild = (steps > SMALL_GRID) & (steps > LARGEST_GRID * sizes)
    if not wild.any():
        return placed
    for at in np.flatnonzero(wild).tolist():
        begin, end = int(starts[at]), int(starts[at] + sizes[at])
        apart = np.diff(placed.ordinals[begin:end])
        row = int(apart.argmax())
        refuse_sparse(panel, begin + row + 1, int(sizes[at]), int(steps[at]), int(apart[row]) - 1, grid, ledger)
    return placed.keep(~np.repeat(wild, sizes))


def refuse_sparse(panel: Panel, row: int, rows: int, steps: int, absent: int, grid: Grid, ledger: Ledger) -> None:
    ledger.fault(
        panel, np.array([row]), "gap",
        lambda row, count: f"has {rows} rows for {steps} steps of {grid.frequency}: {absent} are absent before "
        f"{ledger.say(panel.stamps[row])}. A stamp or the frequency is wrong; mend the row or set source.frequency.",
        weights=np.array([steps - rows]),
    )  # fmt: skip


def fill_steps(placed: Placed, grid: Grid, source: SourceSpec, ledger: Ledger) -> Panel:
    """Every step of every series from its first row to its last; what the source lacks is inserted, empty."""
    jumps, absent = placed.jumps()
    if not len(jumps):
        return placed.panel
    if source.gaps == "error":
        refuse_gaps(placed, jumps, absent, grid, ledger)
    if source.gaps == "drop":
        return after_last_gap(placed.panel, jumps, ledger)
    return insert_steps(placed, grid)


def refuse_gaps(placed: Placed, jumps: np.ndarray, absent: np.ndarray, grid: Grid, ledger: Ledger) -> None:
    panel = placed.panel

    def say(row: int, count: str) -> str:
        accept = "Add what is absent or set source.gaps='mask', 'interpolate' or 'drop'."
        own = slice(*np.searchsorted(panel.codes, [panel.codes[row], panel.codes[row] + 1]))
        if two := two_frequencies(panel.stamps[own]):
            usual, other, times, begin = two
            return (
                f"has two frequencies: steps of {usual} and, from {ledger.say(begin)}, {times} of {other}; on a grid of "
                f"{grid.frequency} {count} rows are absent. {accept}"
            )
        where = ledger.say(first_absent(placed, row, grid))
        return f"has a gap: no row at {where} ({count} absent rows in all, at a step of {grid.frequency}). {accept}"

    ledger.fault(panel, jumps, "gap", say, weights=absent)


def first_absent(placed: Placed, row: int, grid: Grid) -> int:
    """The first stamp missing before a row."""
    if grid.micros:
        return int(placed.panel.stamps[row - 1]) + grid.micros
    return int(placed.grids[int(placed.panel.codes[row])][placed.ordinals[row - 1] + 1])


def two_frequencies(stamps: np.ndarray) -> tuple[pd.Timedelta, pd.Timedelta, int, int] | None:
    """The usual step of a series, another one that it keeps to as well, how often, and from when; None where it has one."""
    steps = np.diff(stamps)
    values, counts = np.unique(steps, return_counts=True)
    usual = values[counts.argmax()]
    others = steps != usual
    if others.sum() < 10:
        return None
    values, counts = np.unique(steps[others], return_counts=True)
    if counts.max() / others.sum() <= 0.9:
        return None
    begin = int(stamps[np.flatnonzero(others)[0]])
    return pd.Timedelta(int(usual), "us"), pd.Timedelta(int(values[counts.argmax()]), "us"), int(others.sum()), begin


def after_last_gap(panel: Panel, jumps: np.ndarray, ledger: Ledger) -> Panel:
    """What follows the last gap of each series."""
    last = np.zeros(len(panel.names), np.int64)
    np.maximum.at(last, panel.codes[jumps], jumps)
    before = np.arange(len(panel.codes)) < last[panel.codes]
    ledger.repaired(panel, before, "rows before the last gap dropped")
    return panel.keep(~before)


def insert_steps(placed: Placed, grid: Grid) -> Panel:
    """The panel with a row for every step."""
    panel, ordinals = placed.panel, placed.ordinals
    begins, lengths = panel.starts, panel.sizes
    low, high = ordinals[begins], ordinals[begins + lengths - 1]
    sizes = high - low + 1
    bases = np.cumsum(sizes) - sizes
    rows = np.repeat(bases - low, lengths) + ordinals
    total = int(sizes.sum())
    values, inserted = np.full((total, panel.values.shape[1]), np.nan), np.ones(total, bool)
    values[rows], inserted[rows] = panel.values, False
    # An absent row lies ahead where the next row of the source does.
    ahead = panel.ahead[np.searchsorted(rows, np.arange(total))]
    if grid.micros:
        steps = np.arange(total) - np.repeat(bases, sizes)
        stamps = np.repeat(panel.stamps[begins], sizes) + steps * grid.micros
    else:
        codes = panel.codes[begins].tolist()
        parts = zip(codes, low.tolist(), high.tolist(), strict=True)
        stamps = np.concatenate([placed.grids[code][first : last + 1] for code, first, last in parts])
    return Panel(panel.names, np.repeat(panel.codes[begins], sizes), stamps, values, ahead, inserted)
