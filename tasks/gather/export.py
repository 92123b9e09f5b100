"""Labelled cases, or windows of a stream, as a table for people to look at: a row each, in the user's units."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from models.errors import Fault, shortlist
from tasks.gather.opening import Folded

KEYS = ("series_id", "origin", "label", "fold", "length")
AT_ONCE = 1 << 20  # values of a batch, a case by itself any number


def rows_of_cases(data: Folded, fold: str, channels: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """A row a case of a fold: series_id, origin, label, fold, length, then the values of every channel as a list.

    `series_id` is the case, or the series of a stream; `origin` the last stamp of a window, null for a case. Values are as
    float32 holds them, null where missing.

    Raises:
        Fault: a channel is called as one of the other columns.
    """
    if taken := [name for name in channels if name in KEYS]:
        raise Fault(
            f"The table has columns {', '.join(KEYS)} of its own, and the source has channels called so too: "
            f"{shortlist(taken)}. Rename them in the source, or name the others in source.channels."
        )
    which = data.of(fold)
    for some in in_turn(which, data.cases.lengths[which], max(1, AT_ONCE // len(channels))):
        lengths = data.cases.lengths[some]
        ends = np.cumsum(lengths)
        rows = data.cases.rows[np.arange(ends[-1]) + np.repeat(data.cases.starts[some] - ends + lengths, lengths)]
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
        values = [pa.ListArray.from_arrays(offsets, pa.array(column, from_pandas=True)) for column in rows.T]
        yield pa.record_batch([*facts_of(data, some, fold), *values], names=[*KEYS, *channels])


def in_turn(which: np.ndarray, lengths: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Numbers of cases in their order, so many at a time that they have `most` steps together, or one by itself."""
    ends, begin = np.cumsum(lengths), 0
    while begin < len(which):
        room = most + (ends[begin - 1] if begin else 0)
        end = max(begin + 1, int(np.searchsorted(ends, room, side="right")))
        yield which[begin:end]
        begin = end


def facts_of(data: Folded, some: np.ndarray, fold: str) -> list[pa.Array]:
    """What is known of each case but its values, a column each of `KEYS`."""
    table = data.table
    origins = [None] * len(some) if table.origins is None else table.origins[some]
    return [
        pa.array([table.ids[at] for at in some], pa.string()),
        pa.array(origins, pa.int64()).cast(pa.timestamp("us", "UTC")),
        pa.array([table.labels[at] for at in some], pa.string()),
        pa.repeat(pa.scalar(fold), len(some)),
        pa.array(table.lengths[some], pa.int64()),
    ]
