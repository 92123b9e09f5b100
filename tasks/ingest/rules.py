"""The rules that a spec declares for its columns, checked in whole arrays.

Written plainly: libraries that validate tables look at one row at a time or need the table in memory, and the
longest flat or absent run and the largest jump go from row to row within a series.
"""

from collections.abc import Iterator

import numpy as np

from models.errors import counted
from tasks.ingest.panel import Ledger, Panel, Story
from tasks.ingest.sources import Rule, SourceSpec


def ruled(panel: Panel, source: SourceSpec) -> Iterator[tuple[str, Rule, np.ndarray]]:
    """Each column that has a rule: its name, the rule, its values."""
    for shown, rule in source.rules.items():
        yield shown, rule, panel.values[:, 0 if shown == source.target else source.value_columns.index(shown)]


def check_bounds(panel: Panel, source: SourceSpec, ledger: Ledger) -> None:
    """Note every value out of its bounds."""
    for shown, rule, values in ruled(panel, source):
        none = np.array([], np.int64)
        with np.errstate(invalid="ignore"):
            low = np.flatnonzero(values < rule.min) if rule.min is not None else none
            high = np.flatnonzero(values > rule.max) if rule.max is not None else none
        for rows, kind, bound, word in ((low, "min", rule.min, "below"), (high, "max", rule.max, "above")):
            ledger.fault(
                panel, rows, f"rule {kind} of {shown}",
                lambda row, count, shown=shown, values=values, bound=bound, word=word, kind=kind: f"column {shown!r}: "
                f"{values[row]:g} at {ledger.say(panel.stamps[row])} is {word} rules.{shown}.{kind} {bound:g} ({count} such "
                "values). Mend the values or the rule.",
            )  # fmt: skip


def check_runs(panel: Panel, source: SourceSpec, ledger: Ledger, story: Story | None = None, last: bool = True) -> None:
    """Note what goes from row to row, in a regular panel whose holes have not been filled yet.

    Args:
        story: of the series, where the panel is a part of one that begins with the last row of the part before.
        last: whether nothing follows this part.
    """
    if not len(panel.codes):
        return
    for shown, rule, values in ruled(panel, source):
        check_absence(panel, values, shown, rule, ledger)
        if rule.max_flat is not None:
            check_flat(panel, values, shown, rule.max_flat, ledger, story, last)
        if rule.max_jump is not None:
            check_jumps(panel, values, shown, rule.max_jump, ledger)


def check_absence(panel: Panel, values: np.ndarray, shown: str, rule: Rule, ledger: Ledger) -> None:
    absent = np.isnan(values) & ~panel.ahead
    if rule.not_null:
        ledger.fault(
            panel, np.flatnonzero(absent), f"rule not_null of {shown}",
            lambda row, count: f"column {shown!r}: no value at {ledger.say(panel.stamps[row])}, which rules.{shown}.not_null "
            f"asks for ({count} such steps). Fill them or change the rule.",
        )  # fmt: skip
    if rule.max_gap is not None:
        begins, lengths = runs_of(panel, np.concatenate([[False], absent[1:] == absent[:-1]]))
        long = absent[begins] & (lengths > rule.max_gap)
        sizes = dict(zip(begins[long].tolist(), lengths[long].tolist(), strict=True))
        ledger.fault(
            panel, begins[long], f"rule max_gap of {shown}",
            lambda row, count: f"column {shown!r}: no value for {counted(sizes[row], 'steps')} from "
            f"{ledger.say(panel.stamps[row])}; rules.{shown}.max_gap is {rule.max_gap} ({count} such runs). Fill them or "
            "change the rule.",
        )  # fmt: skip


def check_flat(
    panel: Panel, values: np.ndarray, shown: str, allowed: int, ledger: Ledger, story: Story | None, last: bool
) -> None:
    begins, lengths = runs_of(panel, np.concatenate([[False], values[1:] == values[:-1]]))
    stamps = panel.stamps
    if story and shown in story.flat:  # the first row closed the part before, and the run it belongs to is still open
        begin, length = story.flat[shown]
        lengths[0] += length - 1
        stamps = np.concatenate([[begin], stamps[1:]])
    if story and not last:
        story.flat[shown] = int(stamps[begins[-1]]), int(lengths[-1])
        begins, lengths = begins[:-1], lengths[:-1]
    long = lengths > allowed
    sizes = dict(zip(begins[long].tolist(), lengths[long].tolist(), strict=True))
    ledger.fault(
        panel, begins[long], f"rule max_flat of {shown}",
        lambda row, count: f"column {shown!r}: {values[row]:g} for {sizes[row]} steps from {ledger.say(stamps[row])}; "
        f"rules.{shown}.max_flat is {allowed} ({count} such runs). Mend the values or the rule.",
        stamps=stamps,
    )  # fmt: skip


def check_jumps(panel: Panel, values: np.ndarray, shown: str, allowed: float, ledger: Ledger) -> None:
    with np.errstate(all="ignore"):
        jumps = np.flatnonzero(panel.same & (np.abs(np.diff(values)) > allowed)) + 1
    ledger.fault(
        panel, jumps, f"rule max_jump of {shown}",
        lambda row, count: f"column {shown!r}: from {values[row - 1]:g} to {values[row]:g} at {ledger.say(panel.stamps[row])}; "
        f"rules.{shown}.max_jump is {allowed:g} ({count} such jumps). Mend the values or the rule.",
    )  # fmt: skip


def runs_of(panel: Panel, like_before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row and the length of each run of rows that are like the row before (R,), within one series."""
    like_before[1:] &= panel.same
    begins = np.flatnonzero(~like_before)
    return begins, np.diff(begins, append=len(like_before))
