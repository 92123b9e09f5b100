"""Empty values of a regular panel: drawn, masked or refused, as the source says."""

import numpy as np

from tasks.ingest.panel import Ledger, Panel
from tasks.ingest.sources import SourceSpec


def fill_holes(panel: Panel, source: SourceSpec, ledger: Ledger) -> Panel:
    """Every empty value settled as the source says; a panel whose `observed` says which targets were there."""
    absent = np.isnan(panel.values)
    panel.observed = ~absent[:, 0]
    holes = absent & ~panel.ahead[:, None]
    if not holes.any():
        return panel
    inserted = panel.inserted if panel.inserted is not None else np.zeros(len(panel.codes), bool)
    panel.values = panel.values.copy()
    edges = first_and_last(panel)
    drawn = np.where(inserted, source.gaps == "interpolate", source.missing == "interpolate")
    masked = np.where(inserted, source.gaps == "mask", source.missing == "mask")
    leading = np.zeros(len(panel.codes), bool)
    for column in np.flatnonzero(holes.any(0)).tolist():
        before, after = neighbours(absent[:, column], *edges)
        shown, rows = source.shown(source.value_columns[column]), np.flatnonzero(holes[:, column])
        leading |= (before < 0) & ~panel.ahead
        original = panel.values[:, column].copy()
        draw_line(panel, source, ledger, rows[drawn[rows]], column, original, before, after)
        chosen = rows[masked[rows] & (before[rows] >= 0)]
        panel.values[chosen, column] = original[before[chosen]]
        what = f"empty values of {shown} masked" if column else "steps masked"
        ledger.repaired(panel, chosen[~inserted[chosen]], what)
        if column == 0:
            ledger.repaired(panel, chosen[inserted[chosen]], "absent rows masked")
        ledger.fault(
            panel, rows[~drawn[rows] & ~masked[rows] & ~inserted[rows]], f"missing {shown}",
            lambda row, count, shown=shown: f"column {shown!r}: no value at {ledger.say(panel.stamps[row])} ({count} in all). "
            "Fill them or set source.missing='interpolate', 'mask' or 'drop'.",
        )  # fmt: skip
    return trim_leading(panel, leading, source, ledger)


def first_and_last(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """(R,) the first row of each row's series, and one past its last."""
    return panel.first_rows(), np.repeat(panel.starts + panel.sizes, panel.sizes)


def neighbours(absent: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R,) the rows of the last value of a series at or before each row and of the next at or after it; -1 and R: none."""
    num_rows, index = len(absent), np.arange(len(absent))
    before = np.maximum.accumulate(np.where(absent, -1, index))
    after = np.minimum.accumulate(np.where(absent, num_rows, index)[::-1])[::-1]
    return np.where(before < first, -1, before), np.where(after >= last, num_rows, after)


def draw_line(
    panel: Panel, source: SourceSpec, ledger: Ledger, rows: np.ndarray, column: int, values: np.ndarray, before: np.ndarray,
    after: np.ndarray,
) -> None:  # fmt: skip
    """Linear interpolation between the values around each hole, where both are there and the hole is short enough."""
    shown = source.shown(source.value_columns[column])
    left, right = before[rows], after[rows]
    closed = (left >= 0) & (right < len(values))
    limit = len(values) if source.interpolate_limit is None else source.interpolate_limit
    short = closed & (right - left - 1 <= limit)
    done, low, high = rows[short], left[short], right[short]
    share = (done - low) / (high - low)
    with np.errstate(all="ignore"):  # values beyond float32 have been refused
        panel.values[done, column] = values[low] + share * (values[high] - values[low])
    gaps = panel.inserted[done] if panel.inserted is not None else np.zeros(len(done), bool)
    ledger.repaired(panel, done[~gaps], "values filled")
    if column == 0:
        panel.observed[done] = True  # the source asked for them to count
        ledger.repaired(panel, done[gaps], "rows inserted for gaps")
    ledger.fault(
        panel, rows[closed & ~short], f"long hole in {shown}",
        lambda row, count: f"column {shown!r}: the hole from {ledger.say(panel.stamps[row])} is longer than "
        f"source.interpolate_limit {source.interpolate_limit} ({count} such values). Set a higher limit, or 'mask'.",
    )  # fmt: skip
    ledger.fault(
        panel, rows[~closed], f"missing {shown}",
        lambda row, count: f"column {shown!r}: no value at {ledger.say(panel.stamps[row])} and none "
        f"{'before' if before[row] < 0 else 'after'} to draw a line from ({count} in all). Fill them, or set "
        "source.missing='mask' or 'drop'.",
    )  # fmt: skip


def trim_leading(panel: Panel, leading: np.ndarray, source: SourceSpec, ledger: Ledger) -> Panel:
    """Without the first rows of a series, which have no earlier value that a mask could take."""
    if not leading.any() or not (source.masks or source.wide):
        return panel
    ledger.repaired(panel, leading, "rows before the first values dropped")
    return panel.keep(~leading)
