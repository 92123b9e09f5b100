"""Windows as a table for people to look at: a row a window, in the user's units."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tasks.windows.folds import FoldBlocks


def exploded(blocks: FoldBlocks) -> Iterator[pa.RecordBatch]:
    """A row a window, for people to look at: series_id, origin, then every channel by step, in its own unit.

    `<channel>[-k]` is k steps before the origin, `[-0]` the origin itself, `[+k]` step k of the horizon. Values are
    rounded to the decimals that were kept, about six digits of how far a block's rows lie apart.
    """
    windows, columns = blocks.set.windows, blocks.set.columns
    past = [(channel, at) for channel in range(columns.num_channels) for at in range(windows.lookback)]
    known = [0, *([1] if columns.masked else []), *range(columns.first_known, columns.num_channels)]
    ahead = [(channel, at) for channel in known for at in range(windows.lookback, windows.span)]
    names = [f"{columns.names[channel]}{step_label(at, windows.lookback)}" for channel, at in past + ahead]
    for block, count in enumerate(blocks.num_windows):
        series_id = blocks.series_id(block)
        rows, stamps = rounded(blocks.raw(block)), blocks.timestamps(block)
        for at in range(0, count, 4096):
            starts = np.arange(at, min(at + 4096, count)) * windows.stride
            values = [pa.array(rows[starts + offset, channel]) for channel, offset in past + ahead]
            origins = pa.array(stamps[starts + windows.lookback - 1]).view(pa.timestamp("us", "UTC"))
            ids = pa.repeat(pa.scalar(series_id), len(starts))
            yield pa.record_batch([ids, origins, *values], names=["series_id", "origin", *names])


def rounded(rows: np.ndarray) -> np.ndarray:
    """Rows (R, C) without the digits that float32 around an anchor does not hold."""
    apart = np.maximum(np.ptp(rows, axis=0), 1e-12 * np.abs(rows).max(0))
    for channel in np.flatnonzero(apart > 0):
        rows[:, channel] = rows[:, channel].round(min(300, 6 - int(np.floor(np.log10(apart[channel])))))
    return rows


def step_label(at: int, lookback: int) -> str:
    return f"[-{lookback - 1 - at}]" if at < lookback else f"[+{at - lookback + 1}]"
