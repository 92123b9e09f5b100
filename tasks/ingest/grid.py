"""Series put on their regular grid: instants for steps of fixed length, the local calendar for days and longer."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from tasks.ingest.clock import Clock
from tasks.ingest.panel import Ledger, Panel
from tasks.ingest.sources import SourceSpec
from tasks.ingest.timeline import fixed_seconds, grid_between, parse_offset, parse_timezone

LARGEST_GRID = 50  # times as many steps as rows are taken for a wrong stamp or a wrong frequency
SMALL_GRID = 1_000_000  # steps below which they are not


@dataclass(frozen=True)
class Grid:
    """The steps of a frequency on one clock."""

    frequency: str
    timezone: str

    @property
    def micros(self) -> int | None:
        """The length of a step, None where the calendar decides it."""
        seconds = fixed_seconds(parse_offset(self.frequency))
        return None if seconds is None else round(seconds * 1e6)

    def calendar(self, first: int, last: int) -> np.ndarray:
        """Every instant of the grid that begins at `first`, up to `last`."""
        return calendar_grid(self.frequency, self.timezone, first, last)

    def say(self, micros: int) -> str:
        """An instant on the local clock, ISO 8601 with its offset."""
        zone = parse_timezone(self.timezone)
        return pd.Timestamp(int(micros), unit="us", tz="UTC").tz_convert(zone).isoformat()


@lru_cache(4096)
def calendar_grid(frequency: str, timezone: str, first: int, last: int) -> np.ndarray:
    zone = parse_timezone(timezone)
    ends = [pd.Timestamp(stamp, unit="us", tz="UTC").tz_convert(zone) for stamp in (first, last)]
    return grid_between(*ends, parse_offset(frequency)).as_unit("us").asi8


def put_on_grid(panel: Panel, grid: Grid, source: SourceSpec, ledger: Ledger, origin: int | None = None) -> Panel:
    """Every step of every series from its first row to its last; what the source lacks is inserted, empty.

    Args:
        panel: one row a stamp; of a single series that goes on from another panel where `origin` is given.
        origin: the first stamp of that series.
    """
    if not len(panel.codes):
        return panel
    ordinals, off = place(panel, grid, origin)
    if off.any():
        refuse_off_grid(panel, off, grid, ledger)
        panel, ordinals = panel.keep(~off), ordinals[~off]
    jumps = np.flatnonzero(panel.same & (np.diff(ordinals) > 1)) + 1
    if not len(jumps):
        return panel
    missing = np.diff(ordinals)[jumps - 1] - 1
    wild = too_sparse(panel, ordinals, grid, ledger, jumps, missing)
    if wild.any():
        panel, ordinals = panel.keep(~wild), ordinals[~wild]
        return put_on_grid(panel, grid, source, ledger, origin)
    if source.gaps == "error":
        refuse_gaps(panel, jumps, missing, ordinals, grid, ledger)
    if source.gaps == "drop":
        return after_last_gap(panel, jumps, ledger)
    return insert_steps(panel, ordinals, grid, origin)


def place(panel: Panel, grid: Grid, origin: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's step, counted from its series' first, and which rows lie on none."""
    firsts = panel.stamps[panel.first_rows()] if origin is None else np.full(len(panel.codes), origin)
    if grid.micros:
        apart = panel.stamps - firsts
        return apart // grid.micros, apart % grid.micros != 0
    ordinals, off = np.zeros(len(panel.codes), np.int64), np.zeros(len(panel.codes), bool)
    for begin, end in spans(panel):
        stamps = panel.stamps[begin:end]
        steps = grid.calendar(int(firsts[begin]), int(stamps[-1]))
        at = np.searchsorted(steps, stamps)
        ordinals[begin:end] = at
        off[begin:end] = (at >= len(steps)) | (steps[np.minimum(at, len(steps) - 1)] != stamps) if len(steps) else True
    return ordinals, off


def spans(panel: Panel) -> list[tuple[int, int]]:
    """The rows of each series, first and one past the last."""
    starts = panel.starts.tolist()
    return list(zip(starts, [*starts[1:], len(panel.codes)], strict=True))


def refuse_off_grid(panel: Panel, off: np.ndarray, grid: Grid, ledger: Ledger) -> None:
    first = panel.first_rows()

    def say(row: int, count: int) -> str:
        where = ledger.say(panel.stamps[row])
        if row == first[row]:
            return (
                f"begins at {where}, where no step of {grid.frequency} lies ({count} such stamps). "
                "Set source.frequency to the step and day they have, or to null."
            )
        return (
            f"{where} is not a whole number of {grid.frequency} steps after {ledger.say(panel.stamps[first[row]])} ({count} such "
            "stamps), so the series has two frequencies or another one. Set source.frequency, or resample."
        )

    ledger.fault(panel, np.flatnonzero(off), "frequency", say)


def too_sparse(panel, ordinals, grid: Grid, ledger: Ledger, jumps: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Rows of series whose grid would be many times larger than what they have."""
    wild = np.zeros(len(panel.codes), bool)
    for begin, end in spans(panel):
        steps = int(ordinals[end - 1] - ordinals[begin]) + 1
        if steps > SMALL_GRID and steps > LARGEST_GRID * (end - begin):
            wild[begin:end] = True
            largest = max(range(len(jumps)), key=lambda at: missing[at] if begin <= jumps[at] < end else -1)
            row = int(jumps[largest])
            ledger.fault(
                panel, np.array([row]), "gap",
                lambda row, count, steps=steps, rows=end - begin, absent=int(missing[largest]): f"has {rows} rows for {steps} "
                f"steps of {grid.frequency}: {absent} are absent before {ledger.say(panel.stamps[row])}. A stamp or the frequency "
                "is wrong; mend the row or set source.frequency.",
            )  # fmt: skip
    return wild


def refuse_gaps(panel: Panel, jumps: np.ndarray, missing: np.ndarray, ordinals, grid: Grid, ledger: Ledger) -> None:
    totals = np.bincount(panel.codes[jumps], weights=missing, minlength=len(panel.names)).astype(int)

    def say(row: int, count: int) -> str:
        absent = first_absent(panel, row, grid)
        total = totals[panel.codes[row]]
        accept = "Add them or set source.gaps='mask', 'interpolate' or 'drop'."
        own = panel.stamps[panel.codes == panel.codes[row]]
        if two := two_frequencies(own):
            usual, other, times, begin = two
            return (
                f"has two frequencies: steps of {usual} and, from {ledger.say(begin)}, {times} of {other}; on a grid of "
                f"{grid.frequency} {total} rows are absent. {accept}"
            )
        return (
            f"has a gap: no row at {ledger.say(absent)} ({total} absent rows in all, at a step of {grid.frequency}). {accept}"
        )

    ledger.fault(panel, jumps, "gap", say)


def first_absent(panel: Panel, row: int, grid: Grid) -> int:
    """The first stamp missing before a row."""
    before = int(panel.stamps[row - 1])
    if grid.micros:
        return before + grid.micros
    first = int(panel.stamps[panel.first_rows()[row]])
    steps = grid.calendar(first, int(panel.stamps[row]))
    return int(steps[np.searchsorted(steps, before, "right")])


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


def insert_steps(panel: Panel, ordinals: np.ndarray, grid: Grid, origin: int | None) -> Panel:
    """The panel with a row for every step."""
    begins = panel.starts
    ends = np.concatenate([begins[1:], [len(panel.codes)]])
    low = ordinals[begins]
    sizes = ordinals[ends - 1] - low + 1
    bases = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rows = np.repeat(bases - low, ends - begins) + ordinals
    total = int(sizes.sum())
    values, inserted = np.full((total, panel.values.shape[1]), np.nan), np.ones(total, bool)
    values[rows], inserted[rows] = panel.values, False
    if grid.micros:
        steps = np.arange(total) - np.repeat(bases, sizes)
        stamps = np.repeat(panel.stamps[begins], sizes) + steps * grid.micros
    else:
        parts = [grid.calendar(int(panel.stamps[begin]), int(panel.stamps[end - 1])) for begin, end in spans(panel)]
        stamps = np.concatenate(parts)
    return Panel(panel.names, np.repeat(panel.codes[begins], sizes), stamps, values, inserted)


def local_of(clock: Clock, micros: np.ndarray) -> pd.DatetimeIndex:
    """What the local clock shows, as naive stamps."""
    return pd.DatetimeIndex(clock.to_local(micros).view("datetime64[us]"))
