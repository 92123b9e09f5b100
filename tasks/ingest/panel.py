"""Rows of several series at once, and what is done about their faults: all of it in whole arrays.

A panel is sorted by series and time. Each step takes one and gives one; what it repairs or can not repair it writes
into a ledger, series by series.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.ingest.sources import SourceSpec

LARGEST = float(np.finfo(np.float32).max)
COUNT = "\0"  # stands in a message for how often a fault was met, which is known at the end only
BY_ROW = ("codes", "stamps", "values", "ahead", "inserted", "observed")


@dataclass
class Panel:
    """Rows sorted by series and time."""

    names: list[str]
    codes: np.ndarray  # (R,) into names
    stamps: np.ndarray  # (R,) int64 microseconds UTC
    values: np.ndarray  # (R, K) float64, NaN where absent; target first
    ahead: np.ndarray | None = None  # (R,) bool, after the last target of the series: there for the covariates
    inserted: np.ndarray | None = None  # (R,) bool, rows that the source does not have
    observed: np.ndarray | None = None  # (R,) bool, whether the target is a value of the source

    def keep(self, rows: np.ndarray | slice) -> "Panel":
        """The rows chosen by a mask, an index or a slice."""
        parts = {name: getattr(self, name) for name in BY_ROW}
        return replace(self, **{name: None if part is None else part[rows] for name, part in parts.items()})

    def then(self, later: "Panel") -> "Panel":
        """This panel and one that follows it."""
        parts = {name: [getattr(self, name), getattr(later, name)] for name in BY_ROW if name != "inserted"}
        joint = {name: None if one[0] is None else np.concatenate(one) for name, one in parts.items()}
        return replace(self, **joint, inserted=None)  # once written, it no longer matters where a row came from

    @property
    def starts(self) -> np.ndarray:
        """The first row of each series that has any."""
        if not len(self.codes):
            return np.array([], np.int64)
        return np.concatenate([[0], np.flatnonzero(self.codes[1:] != self.codes[:-1]) + 1])

    @property
    def sizes(self) -> np.ndarray:
        """How many rows each series has that has any."""
        return np.diff(self.starts, append=len(self.codes))

    @property
    def same(self) -> np.ndarray:
        """(R - 1,) whether a row and the next are of one series."""
        return self.codes[1:] == self.codes[:-1]

    def first_rows(self) -> np.ndarray:
        """(R,) the first row of each row's series."""
        return np.repeat(self.starts, self.sizes)


@dataclass
class Story:
    """What is known of a series that is too long for memory, beyond the rows at hand."""

    last_target: int | None = None  # the newest stamp with a target; None: there is none
    last_kept: int | None = None  # the newest stamp with a target that is kept
    after_gap: int | None = None  # the first stamp after the last gap, where what lies before it is dropped
    origin: int | None = None  # the first stamp
    begun: bool = False  # whether a target has been seen
    constants: dict[str, float] = field(default_factory=dict)  # static covariate -> its first value
    flat: dict[str, tuple[int, int]] = field(default_factory=dict)  # ruled column -> stamp and length of the open run


@dataclass
class Ledger:
    """What was repaired and what could not be, series by series."""

    say: Callable[[int], str]  # an instant on the local clock, for messages
    repairs: dict[tuple[str, str], int] = field(default_factory=dict)  # (series, what was done) -> how often
    faults: dict[tuple[str, str], dict] = field(default_factory=dict)  # (series, kind) -> stamp, said, count

    def repaired(self, panel: Panel, rows: np.ndarray, what: str) -> None:
        """Count repaired rows, given as a mask or index, under their series."""
        codes, counts = np.unique(panel.codes[rows], return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            key = (panel.names[code], what)
            self.repairs[key] = self.repairs.get(key, 0) + count

    def fault(
        self, panel: Panel, rows: np.ndarray, kind: str, say: Callable[[int, str], str], weights=None, stamps=None
    ) -> None:
        """Note a fault of some rows (an index), the first of each series in words: `say(row, count)`.

        Args:
            weights: how often each row counts; None: once.
            stamps: (R,) instants of the fault; None: those of the rows.
        """
        if not len(rows):
            return
        codes, firsts, which = np.unique(panel.codes[rows], return_index=True, return_inverse=True)
        counts = np.bincount(which, weights).astype(np.int64)
        for code, first, count in zip(codes.tolist(), firsts.tolist(), counts.tolist(), strict=True):
            row, key = int(rows[first]), (panel.names[code], kind)
            stamp = int((panel.stamps if stamps is None else stamps)[row])
            before = self.faults.get(key)
            if before is None or stamp < before["stamp"]:
                self.faults[key] = {
                    "stamp": stamp,
                    "said": say(row, COUNT),
                    "count": count + (before["count"] if before else 0),
                }
            else:
                before["count"] += count

    def entries(self) -> list[dict]:
        """Every fault in the order of series and kind."""
        return [
            {"series_id": name, "kind": kind} | own | {"said": with_count(own["said"], own["count"])}
            for (name, kind), own in sorted(self.faults.items())
        ]

    @property
    def faulty(self) -> set[str]:
        return {name for name, _ in self.faults}


def with_count(said: str, count: int) -> str:
    """A message with its count, which stands between brackets and goes without saying where it is one."""
    if count == 1:
        said = re.sub(rf" \({COUNT} [^,)]*\)", "", re.sub(f"{COUNT} [^,)]*, ", "", said))
    return said.replace(COUNT, str(count))


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
        return take_means(panel, np.flatnonzero(repeated | followed), repeated)
    chosen = {"first": ~repeated, "last": ~followed, "drop": ~(repeated | followed)}[keep]
    return panel.keep(chosen)


def take_means(panel: Panel, rows: np.ndarray, repeated: np.ndarray) -> Panel:
    """Each column's mean over the values at a stamp that comes more than once (`rows`); other rows keep their very bits."""
    values = panel.values[rows]
    begins = np.flatnonzero(~repeated[rows])
    with np.errstate(all="ignore"):  # an infinity stays one, whatever it is added to
        sums = np.add.reduceat(np.where(np.isnan(values), 0, values), begins, axis=0)
        present = np.add.reduceat((~np.isnan(values)).astype(float), begins, axis=0)
        means = np.where(np.isnan(sums), np.inf, sums) / present
    kept = panel.keep(np.ones(len(panel.codes), bool))
    kept.values[rows[begins]] = np.where(present > 0, means, np.nan)
    return kept.keep(~repeated)


def drop_leading_blanks(panel: Panel, story: Story | None = None) -> Panel:
    """Without the rows before the first target of a series, as wide form has them for a series that begins later.

    A series without any target keeps its rows; that is told of elsewhere.
    """
    if not len(panel.codes):
        return panel
    seen = ~np.isnan(panel.values[:, 0])
    if story:
        if story.begun or story.last_target is None:
            return panel
        story.begun = bool(seen.any())
        return panel.keep(slice(int(seen.argmax()) if story.begun else len(seen), None))
    first = np.minimum.reduceat(np.where(seen, np.arange(len(seen)), len(seen)), panel.starts)
    first = np.where(first == len(seen), panel.starts, first)
    leading = np.arange(len(seen)) < np.repeat(first, panel.sizes)
    return panel.keep(~leading) if leading.any() else panel


def drop_incomplete(panel: Panel, source: SourceSpec, ledger: Ledger, story: Story | None = None) -> Panel:
    """Without the rows that lack a value, but for those after the last target of their series."""
    if source.missing != "drop":
        return panel
    ahead = ahead_of(panel) if story is None else ahead_of(panel, story.last_target, known=True)
    lacking = np.isnan(panel.values).any(1) & ~ahead
    if lacking.any():
        ledger.repaired(panel, lacking, "rows with empty values dropped")
        return panel.keep(~lacking)
    return panel


def ahead_of(panel: Panel, last_target: int | None = None, known: bool = False) -> np.ndarray:
    """(R,) rows after the last target of their series, found out or `known`; they only bring covariates ahead of time."""
    if known:
        return panel.stamps > last_target if last_target is not None else np.ones(len(panel.codes), bool)
    if not len(panel.codes):
        return np.array([], bool)
    rows = np.where(np.isnan(panel.values[:, 0]), -1, np.arange(len(panel.codes)))
    last = np.maximum.reduceat(rows, panel.starts)
    return np.arange(len(panel.codes)) > np.repeat(last, panel.sizes)


def check_values(panel: Panel, source: SourceSpec, ledger: Ledger) -> None:
    """Faults of values that no network can learn from: infinite, or beyond float32."""
    with np.errstate(invalid="ignore"):
        wild = np.abs(panel.values) > LARGEST  # infinities too
    for column in np.flatnonzero(wild.any(0)):
        shown = source.shown(source.value_columns[column])
        ledger.fault(
            panel, np.flatnonzero(wild[:, column]), f"wild {shown}",
            lambda row, count, column=column, shown=shown: f"column {shown!r}: {panel.values[row, column]:g} at "
            f"{ledger.say(panel.stamps[row])} is infinite or beyond float32 ({count} such). Mend the values or leave the "
            "column out.",
        )  # fmt: skip


def check_targets(panel: Panel, source: SourceSpec, ledger: Ledger) -> None:
    """Faults of series without any target."""
    if not len(panel.codes):
        return
    ledger.fault(
        panel, panel.starts[ahead_of(panel)[panel.starts]], "no target",
        lambda row, count: f"{source.target} has no value at all. Name another source.target or drop the series.",
    )  # fmt: skip


def check_static(panel: Panel, source: SourceSpec, ledger: Ledger, story: Story | None = None) -> None:
    """Faults of static covariates that change within a series."""
    if source.static_uri or not len(panel.codes):
        return
    for name in source.static_covariates:
        values = panel.values[:, source.value_columns.index(name)]
        there = ~np.isnan(values)
        first = np.minimum.reduceat(np.where(there, np.arange(len(values)), len(values)), panel.starts)
        usual = np.append(values, np.nan)[first]
        if story:
            usual[0] = story.constants.get(name, usual[0])
            story.constants |= {} if np.isnan(usual[0]) else {name: float(usual[0])}
        usual = np.repeat(usual, panel.sizes)
        ledger.fault(
            panel, np.flatnonzero(there & (values != usual)), f"static {name}",
            lambda row, count, name=name, values=values, usual=usual: f"column {name!r} is {usual[row]:g} at first and "
            f"{values[row]:g} at {ledger.say(panel.stamps[row])}, but is named in source.static_covariates ({count} such "
            "rows). Mend the rows or name it among the past or future covariates.",
        )  # fmt: skip
