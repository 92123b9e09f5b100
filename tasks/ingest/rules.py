"""The rules that a spec declares for its columns, checked in whole arrays.

Written plainly: libraries that validate tables look at one row at a time or need the table in memory, and the
longest flat or absent run and the largest jump go from row to row within a series.
"""

import numpy as np

from tasks.ingest.panel import Ledger, Panel, ahead_of
from tasks.ingest.sources import Rule, SourceSpec


def check_rules(panel: Panel, source: SourceSpec, ledger: Ledger) -> None:
    """Note every breach of `source.rules` in a regular panel whose holes have not been filled yet."""
    for shown, rule in source.rules.items():
        column = source.value_columns.index("target" if shown == source.target else shown)
        check_bounds(panel, panel.values[:, column], shown, rule, ledger)
        check_absence(panel, panel.values[:, column], shown, rule, ledger)
        check_changes(panel, panel.values[:, column], shown, rule, ledger)


def check_bounds(panel: Panel, values: np.ndarray, shown: str, rule: Rule, ledger: Ledger) -> None:
    with np.errstate(invalid="ignore"):
        low = np.flatnonzero(values < rule.min) if rule.min is not None else np.array([], int)
        high = np.flatnonzero(values > rule.max) if rule.max is not None else np.array([], int)
    for rows, kind, bound, word in ((low, "min", rule.min, "below"), (high, "max", rule.max, "above")):
        ledger.fault(
            panel, rows, f"rule {kind} of {shown}",
            lambda row, count, bound=bound, word=word, kind=kind: f"column {shown!r}: {values[row]:g} at "
            f"{ledger.say(panel.stamps[row])} is {word} rules.{shown}.{kind} {bound:g} ({count} such values). Mend the values or the rule.",
        )  # fmt: skip


def check_absence(panel: Panel, values: np.ndarray, shown: str, rule: Rule, ledger: Ledger) -> None:
    absent = np.isnan(values) & ~ahead_of(panel)
    if rule.not_null:
        ledger.fault(
            panel, np.flatnonzero(absent), f"rule not_null of {shown}",
            lambda row, count: f"column {shown!r}: no value at {ledger.say(panel.stamps[row])}, which rules.{shown}.not_null "
            f"asks for ({count} such steps). Fill them or change the rule.",
        )  # fmt: skip
    if rule.max_gap is not None:
        begins, lengths = runs_of(panel, absent)
        long = lengths > rule.max_gap
        sizes = dict(zip(begins[long].tolist(), lengths[long].tolist(), strict=True))
        ledger.fault(
            panel, begins[long], f"rule max_gap of {shown}",
            lambda row, count: f"column {shown!r}: no value for {sizes[row]} steps from {ledger.say(panel.stamps[row])}; "
            f"rules.{shown}.max_gap is {rule.max_gap} ({count} such runs). Fill them or change the rule.",
        )  # fmt: skip


def check_changes(panel: Panel, values: np.ndarray, shown: str, rule: Rule, ledger: Ledger) -> None:
    if rule.max_flat is not None:
        flat = np.concatenate([[False], panel.same & (values[1:] == values[:-1])])
        begins, lengths = runs_of(panel, flat)
        long = lengths + 1 > rule.max_flat
        sizes = dict(zip((begins[long] - 1).tolist(), (lengths[long] + 1).tolist(), strict=True))
        ledger.fault(
            panel, begins[long] - 1, f"rule max_flat of {shown}",
            lambda row, count: f"column {shown!r}: {values[row]:g} for {sizes[row]} steps from {ledger.say(panel.stamps[row])}; "
            f"rules.{shown}.max_flat is {rule.max_flat} ({count} such runs). Mend the values or the rule.",
        )  # fmt: skip
    if rule.max_jump is not None:
        with np.errstate(invalid="ignore"):
            jumps = np.flatnonzero(panel.same & (np.abs(np.diff(values)) > rule.max_jump)) + 1
        ledger.fault(
            panel, jumps, f"rule max_jump of {shown}",
            lambda row, count: f"column {shown!r}: from {values[row - 1]:g} to {values[row]:g} at {ledger.say(panel.stamps[row])}; "
            f"rules.{shown}.max_jump is {rule.max_jump:g} ({count} such jumps). Mend the values or the rule.",
        )  # fmt: skip


def runs_of(panel: Panel, flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row and the length of each run of flagged rows within one series."""
    follows = np.concatenate([[False], panel.same & flags[:-1]])
    begins = np.flatnonzero(flags & ~follows)
    ends = np.flatnonzero(flags & ~np.concatenate([(flags & follows)[1:], [False]]))
    return begins, ends - begins + 1
