"""Rows of several series at once, and what is done about their faults: all of it in whole arrays.

A panel is sorted by series and time. Each step takes one and gives one; what it repairs or can not repair it writes
into a ledger, series by series.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.ingest.sources import SourceSpec

LARGEST = float(np.finfo(np.float32).max)


@dataclass
class Panel:
    """Rows sorted by series and time."""

    names: list[str]
    codes: np.ndarray  # (R,) into names
    stamps: np.ndarray  # (R,) int64 microseconds UTC
    values: np.ndarray  # (R, K) float64, NaN where absent; target first
    inserted: np.ndarray | None = None  # (R,) bool, rows that the source does not have
    observed: np.ndarray | None = None  # (R,) bool, whether the target is a value of the source

    def keep(self, rows: np.ndarray) -> "Panel":
        """The rows chosen by a mask or index."""
        parts = {name: getattr(self, name) for name in ("codes", "stamps", "values", "inserted", "observed")}
        return replace(self, **{name: None if part is None else part[rows] for name, part in parts.items()})

    @property
    def starts(self) -> np.ndarray:
        """The first row of each series that has any."""
        return (
            np.flatnonzero(np.concatenate([[True], self.codes[1:] != self.codes[:-1]]))
            if len(self.codes)
            else np.array([], int)
        )

    @property
    def same(self) -> np.ndarray:
        """(R - 1,) whether a row and the next are of one series."""
        return self.codes[1:] == self.codes[:-1]

    def first_rows(self) -> np.ndarray:
        """(R,) the first row of each row's series."""
        starts = self.starts
        return np.repeat(starts, np.diff([*starts, len(self.codes)]))


@dataclass
class Ledger:
    """What was repaired and what could not be, series by series."""

    say: Callable[[int], str]  # an instant on the local clock, for messages
    repairs: dict[tuple[str, str], int] = field(default_factory=dict)  # (series, what was done) -> how often
    faults: dict[tuple[str, str], dict] = field(default_factory=dict)  # (series, kind) -> where, said, count

    def repaired(self, panel: Panel, rows: np.ndarray, what: str) -> None:
        """Count repaired rows, given as a mask or index, under their series."""
        codes, counts = np.unique(panel.codes[rows], return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            key = (panel.names[code], what)
            self.repairs[key] = self.repairs.get(key, 0) + count

    def fault(self, panel: Panel, rows: np.ndarray, kind: str, say: Callable[[int, int], str], stamps=None) -> None:
        """Note a fault of some rows (an index), the first of each series in words: `say(row, count)`."""
        codes, firsts, counts = np.unique(panel.codes[rows], return_index=True, return_counts=True)
        for code, first, count in zip(codes.tolist(), firsts.tolist(), counts.tolist(), strict=True):
            row, name = int(rows[first]), panel.names[code]
            if (name, kind) in self.faults:
                self.faults[name, kind]["count"] += count
                continue
            stamp = int((panel.stamps if stamps is None else stamps)[row])
            self.faults[name, kind] = {"stamp": stamp, "said": say(row, count), "count": count}

    @property
    def faulty(self) -> set[str]:
        return {name for name, _ in self.faults}


def settle_duplicates(panel: Panel, source: SourceSpec, ledger: Ledger) -> Panel:
    """One row a stamp and series."""
    again = panel.same & (panel.stamps[1:] == panel.stamps[:-1])
    rows = np.flatnonzero(again) + 1
    if not len(rows):
        return panel
    keep = source.duplicates
    if keep == "error":
        ledger.fault(
            panel, rows, "duplicates",
            lambda row, count: f"repeats {ledger.say(panel.stamps[row])} ({count} repeated stamps in all). Remove the rows or "
            "set source.duplicates='first', 'last', 'mean' or 'drop'.",
        )  # fmt: skip
        keep = "first"  # to go on looking
    else:
        ledger.repaired(panel, rows, "repeated stamps")
    repeated = np.concatenate([[False], again])
    followed = np.concatenate([again, [False]])
    if keep == "mean":
        begins = np.flatnonzero(~repeated)
        sums = np.add.reduceat(np.nan_to_num(panel.values), begins, axis=0)
        present = np.add.reduceat((~np.isnan(panel.values)).astype(float), begins, axis=0)
        kept = panel.keep(begins)
        with np.errstate(invalid="ignore"):
            means = np.where(present > 0, sums / present, np.nan)
        single = np.diff([*begins, len(panel.codes)]) == 1
        kept.values = np.where(single[:, None], kept.values, means)  # a row by itself keeps its very bits
        return kept
    chosen = {"first": ~repeated, "last": ~followed, "drop": ~(repeated | followed)}[keep]
    return panel.keep(chosen)


def drop_incomplete(panel: Panel, source: SourceSpec, ledger: Ledger) -> Panel:
    """Without the rows that lack a value, but for those after the last target of their series."""
    if source.missing != "drop":
        return panel
    lacking = np.isnan(panel.values).any(1) & ~ahead_of(panel)
    if lacking.any():
        ledger.repaired(panel, lacking, "rows with empty values dropped")
        return panel.keep(~lacking)
    return panel


def ahead_of(panel: Panel) -> np.ndarray:
    """(R,) rows after the last target of their series; they only bring covariates ahead of time."""
    return np.arange(len(panel.codes)) > last_targets(panel)


def last_targets(panel: Panel) -> np.ndarray:
    """(R,) the row of the last target of each row's series; the one before its first where there is none."""
    if not len(panel.codes):
        return np.array([], int)
    starts = panel.starts
    rows = np.where(np.isnan(panel.values[:, 0]), -1, np.arange(len(panel.codes)))
    last = np.maximum.reduceat(rows, starts)
    return np.repeat(np.where(last < 0, starts - 1, last), np.diff([*starts, len(panel.codes)]))


def fill_holes(panel: Panel, source: SourceSpec, ledger: Ledger) -> Panel:
    """Every empty value settled as the source says; a panel whose `observed` says which targets were there."""
    absent = np.isnan(panel.values)
    inserted = panel.inserted if panel.inserted is not None else np.zeros(len(panel.codes), bool)
    panel.observed = ~absent[:, 0]
    within = ~ahead_of(panel)
    holes = absent & within[:, None]
    if not holes.any():
        return panel
    panel.values = panel.values.copy()
    before, after = neighbours(panel, absent)
    policy_drawn = np.where(inserted, source.gaps == "interpolate", source.missing == "interpolate")
    policy_masked = np.where(inserted, source.gaps == "mask", source.missing == "mask")
    for column, name in enumerate(source.value_columns):
        rows = np.flatnonzero(holes[:, column])
        if not len(rows):
            continue
        shown = source.shown(name)
        left, right = before[rows, column], after[rows, column]
        draw_line(panel, source, ledger, rows[policy_drawn[rows]], column, shown, before, after)
        masked = policy_masked[rows] & (left >= 0)
        panel.values[rows[masked], column] = panel.values[left[masked], column]
        if masked.any():
            ledger.repaired(
                panel, rows[masked & ~inserted[rows]], f"empty values of {shown} masked" if column else "steps masked"
            )
            if column == 0:
                ledger.repaired(panel, rows[masked & inserted[rows]], "absent rows masked")
        refused = rows[~policy_drawn[rows] & ~policy_masked[rows] & ~inserted[rows]]
        ledger.fault(
            panel, refused, f"missing {shown}",
            lambda row, count, shown=shown: f"column {shown!r}: no value at {ledger.say(panel.stamps[row])} ({count} in all). Fill "
            "them or set source.missing='interpolate', 'mask' or 'drop'.",
        )  # fmt: skip
        del right
    return trim_leading(panel, source, ledger)


def neighbours(panel: Panel, absent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, K) the rows of the last value at or before each cell and of the next at or after it; -1 and R where none."""
    num_rows = len(panel.codes)
    index = np.arange(num_rows)[:, None]
    first = panel.first_rows()[:, None]
    before = np.maximum.accumulate(np.where(absent, -1, index), axis=0)
    before = np.where(before < first, -1, before)
    after = np.minimum.accumulate(np.where(absent, num_rows, index)[::-1], axis=0)[::-1]
    ends = np.concatenate([panel.starts[1:], [num_rows]])
    last = np.repeat(ends, np.diff([*panel.starts, num_rows]))[:, None]
    return before, np.where(after >= last, num_rows, after)


def draw_line(panel, source, ledger, rows, column, shown, before, after) -> None:
    """Linear interpolation between the values around each hole, where both are there and the hole is short enough."""
    if not len(rows):
        return
    left, right = before[rows, column], after[rows, column]
    closed = (left >= 0) & (right < len(panel.codes))
    length = np.where(closed, right - left - 1, 0)
    short = closed & ((source.interpolate_limit is None) | (length <= (source.interpolate_limit or 0)))
    done, low, high = rows[short], left[short], right[short]
    share = (done - low) / (high - low)
    values = panel.values[:, column]
    panel.values[done, column] = values[low] + share * (values[high] - values[low])
    if column == 0:
        panel.observed[done] = True  # the source asked for them to count
    gaps = panel.inserted[done] if panel.inserted is not None else np.zeros(len(done), bool)
    ledger.repaired(panel, done[~gaps], "values filled")
    if column == 0:
        ledger.repaired(panel, done[gaps], "rows inserted for gaps")
    ledger.fault(
        panel, rows[closed & ~short], f"long hole in {shown}",
        lambda row, count: f"column {shown!r}: the hole from {ledger.say(panel.stamps[row])} is longer than "
        f"source.interpolate_limit {source.interpolate_limit} ({count} such values). Set a higher limit, or 'mask'.",
    )  # fmt: skip
    ledger.fault(
        panel, rows[~closed], f"missing {shown}",
        lambda row, count: f"column {shown!r}: no value at {ledger.say(panel.stamps[row])} and none "
        f"{'before' if before[row, column] < 0 else 'after'} to draw a line from ({count} in all). Fill them, or set "
        "source.missing='mask' or 'drop'.",
    )  # fmt: skip


def trim_leading(panel: Panel, source: SourceSpec, ledger: Ledger) -> Panel:
    """Without the first rows of a series that a mask has no earlier value for."""
    left = np.isnan(panel.values).any(1) & ~ahead_of(panel)
    if not left.any() or not (source.masks or source.wide):
        return panel
    # Rows up to the last that is still incomplete; a fault noted above keeps its series from going on anyway.
    rows = np.where(left, np.arange(len(panel.codes)), -1)
    last = np.maximum.reduceat(rows, panel.starts)
    until = np.repeat(last, np.diff([*panel.starts, len(panel.codes)]))
    leading = np.arange(len(panel.codes)) <= until
    ledger.repaired(panel, leading, "rows before the first values dropped")
    return panel.keep(~leading)


def drop_leading_blanks(panel: Panel, ledger: Ledger) -> Panel:
    """Without the rows before the first target of a series, as wide form has them for a series that begins later."""
    if not len(panel.codes):
        return panel
    seen = ~np.isnan(panel.values[:, 0])
    first = np.minimum.reduceat(np.where(seen, np.arange(len(seen)), len(seen)), panel.starts)
    leading = np.arange(len(seen)) < np.repeat(first, np.diff([*panel.starts, len(seen)]))
    none = np.repeat(first == len(seen), np.diff([*panel.starts, len(seen)]))  # no target at all is told of elsewhere
    leading &= ~none
    return panel.keep(~leading) if leading.any() else panel


def check_values(panel: Panel, source: SourceSpec, ledger: Ledger) -> None:
    """Faults of values that no network can learn from: beyond float32, or no target at all."""
    with np.errstate(invalid="ignore"):
        wild = np.abs(panel.values) > LARGEST  # infinities too
    for column in np.flatnonzero(wild.any(0)):
        shown = source.shown(source.value_columns[column])
        ledger.fault(
            panel, np.flatnonzero(wild[:, column]), f"wild {shown}",
            lambda row, count, column=column, shown=shown: f"column {shown!r}: {panel.values[row, column]:g} at "
            f"{ledger.say(panel.stamps[row])} is infinite or beyond float32 ({count} such). Mend the values or leave the column out.",
        )  # fmt: skip
    if len(panel.codes):
        never = last_targets(panel)[panel.starts] < panel.starts
        ledger.fault(
            panel, panel.starts[never], "no target",
            lambda row, count: f"{source.target} has no value at all. Name another source.target or drop the series.",
        )  # fmt: skip


def check_static(panel: Panel, source: SourceSpec, ledger: Ledger) -> None:
    """Faults of static covariates that change within a series."""
    if source.static_uri:
        return
    first = panel.first_rows()
    for name in source.static_covariates:
        values = panel.values[:, source.value_columns.index(name)]
        with np.errstate(invalid="ignore"):
            changed = np.flatnonzero(values != values[first]) if len(values) else np.array([], int)
        changed = changed[~np.isnan(values[changed])]
        ledger.fault(
            panel, changed, f"static {name}",
            lambda row, count, name=name, values=values: f"column {name!r} is {values[first[row]]:g} at first and {values[row]:g} "
            f"at {ledger.say(panel.stamps[row])}, but is named in source.static_covariates ({count} such rows). Mend the rows or "
            "name it among the past or future covariates.",
        )  # fmt: skip
