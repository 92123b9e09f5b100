"""The step that cuts one canonical segment into blocks of windows."""

from collections.abc import Iterator

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.errors import Fault
from models.series import Columns
from models.windows import WindowSpec
from tasks.ingest.calendar import Calendar
from tasks.ingest.canonical import read_segment
from tasks.ingest.statics import Statics
from tasks.ingest.task import Segment, Series
from tasks.policy import step, this_call
from tasks.storage import Receipt, Store
from tasks.windows import files
from tasks.windows.files import SeriesRows, write_windows


class Windows(Receipt):
    """`windows.parquet`: the blocks of one segment."""

    windows: WindowSpec
    columns: Columns
    frequency: str
    timezone: str
    num_series: int
    num_windows: int  # of all folds together


class Stretch(BaseModel):
    """One canonical segment, and the one before it where a series goes on from there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    series: Series
    number: int  # of the segment in its shard
    first_row: int  # number of the segment's first row in its series

    @property
    def segment(self) -> Segment:
        return self.series.segments[self.number]

    @property
    def before(self) -> Segment | None:
        return self.series.segments[self.number - 1] if self.segment.continues else None

    def cache_identity(self) -> list:
        return [self.before.sha256 if self.before else None, self.segment.sha256, self.first_row]


def stretches(series: Series) -> list[Stretch]:
    """The segments of a shard, each with the number of its first row."""
    found, row = [], 0
    for number, segment in enumerate(series.segments):
        row = row if segment.continues else 0
        found.append(Stretch(series=series, number=number, first_row=row))
        row += segment.rows
    return found


@step(libraries=("numpy", "pandas", "pyarrow", "tzdata"))
def materialise_windows(
    stretch: Stretch, windows: WindowSpec, columns: Columns, calendar: Calendar, statics: Statics, store: Store
) -> Windows:
    """Cut one segment into blocks of windows."""
    with store.draft(this_call()) as draft:
        pieces = window_rows(stretch, windows, columns, calendar, statics, store)
        blocks = write_windows(draft.path("windows.parquet"), pieces, columns, windows)
        return draft.commit(
            Windows, windows=windows, columns=columns, frequency=calendar.frequency, timezone=calendar.timezone,
            num_series=len({block["series_id"] for block in blocks}), num_windows=sum(block["num_starts"] for block in blocks),
        )  # fmt: skip


def window_rows(
    stretch: Stretch, windows: WindowSpec, columns: Columns, calendar: Calendar, statics: Statics, store: Store
) -> Iterator[SeriesRows]:
    """The rows of each series that a segment's windows touch, up to its last target."""
    held = last_rows(stretch, windows.span - 1, columns, store) if stretch.before else None
    for group in neighbours(read_segment(store, stretch.series, stretch.segment, columns)):
        if held is not None:
            name, *own = group[0]
            group[0] = (name, *(np.concatenate(pair) for pair in zip(held, own, strict=True)))
        first = stretch.first_row - (len(held[0]) if held is not None else 0)
        held = None
        stamps, rows = (np.concatenate(part) for part in list(zip(*group, strict=True))[1:])
        made = calendar.insert(rows, stamps, columns)  # the calendar takes its time for each call
        begin = 0
        for name, own, values in group:
            seen = np.flatnonzero(~np.isnan(values[:, 0]))
            kept = slice(begin, begin + (int(seen[-1]) + 1 if len(seen) else 0))
            yield SeriesRows(name, first, stamps[kept], statics.append(name, made[kept]))
            begin, first = begin + len(own), stretch.first_row


def neighbours(series: Iterator[tuple[str, np.ndarray, np.ndarray]]) -> Iterator[list[tuple[str, np.ndarray, np.ndarray]]]:
    """Series with their stamps and rows, as many at a time as have `AT_ONCE` rows; a longer one goes by itself."""
    group, held = [], 0
    for one in series:
        if group and held + len(one[1]) > files.AT_ONCE:
            yield group
            group, held = [], 0
        group.append(one)
        held += len(one[1])
    if group:
        yield group


def check_reach(stretch: Stretch, count: int) -> None:
    """Raises a Fault where windows would need more rows before this segment than the one before it has."""
    if stretch.before and count > stretch.before.rows:
        raise Fault(f"windows.lookback and horizon span {count + 1} steps; at most {stretch.before.rows} are possible here.")


def last_rows(stretch: Stretch, count: int, columns: Columns, store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Stamps and rows of the end of the segment before.

    Raises:
        Fault: a window would reach back further than that.
    """
    check_reach(stretch, count)
    *_, (_, stamps, rows) = read_segment(store, stretch.series, stretch.before, columns)
    return stamps[len(stamps) - count :], rows[len(rows) - count :]
