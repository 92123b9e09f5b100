"""How windows are gathered from blocks of rows into batches, in order or shuffled.

Axes in names: B batch, L lookback, H horizon, C channels of a row, F future covariates.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from models.parallel import ALONE, Team
from models.series import Columns

AT_ONCE = 256  # windows that a network forecasts at a time: what it makes of many more leaves a processor's cache
SHUFFLE_ROWS = 1 << 19  # rows that a shuffled stream holds at a time; few enough to stay in a processor's cache
RESIDENT = 1 << 28  # bytes of rows that lie on a GPU at a time; a source of no more is loaded once


def gather(rows: torch.Tensor, starts: torch.Tensor, span: int) -> torch.Tensor:
    """Windows that begin at `starts`, as a new (B, span, C) tensor.

    `rows` is a contiguous (R, C) tensor. One `index_select` over a strided view copies each window as one run
    of memory, on whichever device `rows` lies.
    """
    num_rows, channels = rows.shape
    flat = torch.as_strided(rows, (num_rows - span + 1, span * channels), (channels, 1), rows.storage_offset())
    return flat.index_select(0, starts).view(-1, span, channels)


@dataclass(frozen=True)
class Batch:
    """Windows split into what a network may see and what it is asked for."""

    past: torch.Tensor  # (B, L, C) every channel up to the origin
    future: torch.Tensor  # (B, H, F) what is known over the horizon
    target: torch.Tensor  # (B, H)
    weight: torch.Tensor | None = None  # (B, H) 1 where the target was observed; None where all of them were
    series: torch.Tensor | None = None  # (B,) number of each window's series, where the rows tell

    def __len__(self) -> int:
        return len(self.past)

    @classmethod
    def split(cls, windows: torch.Tensor, lookback: int, columns: Columns) -> "Batch":
        """Windows (B, L+H, C), or (B, L+H, C + 1) where a last channel numbers the series."""
        channels = columns.num_channels
        return cls(
            past=windows[:, :lookback, :channels],
            future=windows[:, lookback:, columns.first_known : channels],
            target=windows[:, lookback:, 0],
            weight=windows[:, lookback:, 1] if columns.masked else None,
            series=windows[:, 0, channels].long() if windows.shape[2] > channels else None,
        )


class Blocks(Protocol):
    """Runs of rows from which windows are gathered; a window never spans two of them.

    A block of n windows has exactly `(n - 1) * stride + span` rows.
    """

    num_windows: Sequence[int]  # of each block
    stride: int  # rows between the starts of neighbouring windows

    def read(self, block: int) -> torch.Tensor:
        """The rows of one block as a contiguous float32 (R, C) tensor, first window at row 0."""


@dataclass
class TensorBlocks:
    """Blocks that already lie in memory."""

    rows: list[torch.Tensor]
    span: int
    stride: int = 1

    @property
    def num_windows(self) -> list[int]:
        return [(len(rows) - self.span) // self.stride + 1 for rows in self.rows]

    def __post_init__(self):
        for block, count in enumerate(self.num_windows):
            self.rows[block] = self.rows[block][: (count - 1) * self.stride + self.span].contiguous()

    def read(self, block: int) -> torch.Tensor:
        return self.rows[block]


def in_order(
    blocks: Blocks, span: int, batch_size: int, limit: int | None = None, device: torch.device | str = "cpu"
) -> Iterator[torch.Tensor]:
    """Every window once, block by block and oldest first, as (B, span, C) tensors; a batch may hold windows of many blocks.

    Args:
        limit: about how many windows, spread evenly over all of them; None for every one.
        device: where they are gathered.
    """
    every = thinning(blocks, limit)
    waiting: list[torch.Tensor] = []
    held = passed = 0
    for block, count in enumerate(blocks.num_windows):
        first = -passed % every
        passed += count
        if first >= count:
            continue
        rows = blocks.read(block).to(device)
        for starts in torch.arange(first, count, every, device=device).split(batch_size):
            waiting.append(gather(rows, starts * blocks.stride, span))
            held += len(starts)
            if held >= batch_size:
                joined = torch.cat(waiting) if len(waiting) > 1 else waiting[0]
                yield joined[:batch_size]
                waiting, held = ([joined[batch_size:]], held - batch_size) if held > batch_size else ([], 0)
    if waiting:
        yield torch.cat(waiting)


def thinning(blocks: Blocks, limit: int | None) -> int:
    """Which of the windows `in_order` gives: every first, every second, ..."""
    return max(1, sum(blocks.num_windows) // limit) if limit else 1


def rows_at_once(device: torch.device, channels: int) -> int:
    """How many rows a shuffled stream holds at a time on this device."""
    return SHUFFLE_ROWS if device.type == "cpu" else RESIDENT // (4 * channels)


@dataclass(frozen=True)
class Shuffled:
    """Rows that windows are gathered from, and the order in which."""

    blocks: tuple[int, ...]
    rows: torch.Tensor  # (R, C) of the blocks, one after another
    starts: torch.Tensor  # (N,) rows at which the windows begin, as they are asked for
    until: int  # steps of the run when all of them have been


class ShuffledStream:
    """Endless shuffled passes over all windows, the same for a seed, from any step on.

    A pass takes the blocks in random order, as many at a time as hold `shuffle_rows` rows, and shuffles the windows of
    those together; a smaller data set is so shuffled as a whole and read once. Where `num_steps` batches are too few for
    every window, they are drawn from all blocks alike, rather than every window from the first few.
    """

    def __init__(
        self, blocks: Blocks, span: int, batch_size: int, seed: int, device, shuffle_rows: int = SHUFFLE_ROWS,
        num_steps: int | None = None, team: Team = ALONE,
    ):  # fmt: skip
        """`num_steps` says how many batches will be asked for; None: nobody knows. `team` says which part of each is given."""
        self.blocks, self.span, self.batch_size, self.seed = blocks, span, batch_size, seed
        self.device, self.shuffle_rows, self.num_steps, self.team = device, shuffle_rows, num_steps, team

    def batches(self, first_step: int = 0) -> Iterator[torch.Tensor]:
        """Window tensors (B, span, C) on the device, beginning with the batch of `first_step`.

        While batches are made of some blocks, a thread reads the next ones.
        """
        groups, blocks, rows = self._read(first_step), None, None
        with ThreadPoolExecutor(1, "windows") as reader:
            coming = reader.submit(next, groups)
            while True:
                group, coming = coming.result(), None
                if self.num_steps is None or group.until < self.num_steps:
                    coming = reader.submit(next, groups)
                if group.blocks != blocks:
                    rows = None  # let the old ones go from a device before the new ones come
                    blocks, rows = group.blocks, group.rows.to(self.device)
                # All of them at once, so that a device is not waited for at every batch.
                for chosen in group.starts.to(self.device).split(self.batch_size):
                    yield gather(rows, self.team.share(chosen), self.span)
                coming = coming or reader.submit(next, groups)

    def _read(self, first_step: int) -> Iterator[Shuffled]:
        """What batches from `first_step` on are made of; blocks that were the last ones too are not read again."""
        step, blocks, rows = 0, None, None
        for chosen, starts in self._drawn():
            first, step = step, step + -(-len(starts) // self.batch_size)
            if step > first_step:
                if chosen != blocks:
                    blocks, rows = chosen, joined([self.blocks.read(block) for block in chosen])
                left = starts[max(0, first_step - first) * self.batch_size :]
                yield Shuffled(blocks, rows, torch.from_numpy(left), step)

    def _drawn(self) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Blocks that are shuffled together, and the starts of their windows in the order of the draw, pass after pass."""
        sizes = np.asarray(self.blocks.num_windows)
        lengths = (sizes - 1) * self.blocks.stride + self.span
        pass_number = 0
        while True:
            rng = np.random.default_rng((self.seed, pass_number))
            # What fits at once stays in one order, so that it is read once for all passes.
            order = np.arange(len(sizes)) if lengths.sum() <= self.shuffle_rows else rng.permutation(len(sizes))
            passed = 0
            for group in self._groups(order, lengths):
                before, passed = passed, passed + sizes[group].sum()
                count = self._num_batches(before, passed, sizes.sum())
                if count == 0:
                    continue
                offsets = np.concatenate([[0], np.cumsum(lengths[group])[:-1]])
                starts = [o + self.blocks.stride * np.arange(n) for o, n in zip(offsets, sizes[group], strict=True)]
                shuffled = rng.permutation(np.concatenate(starts))
                yield tuple(int(block) for block in group), shuffled if count is None else shuffled[: count * self.batch_size]
            pass_number += 1

    def _num_batches(self, before: int, until: int, total: int) -> int | None:
        """How many batches windows `before` to `until` of a pass give; None where every window is in one."""
        if self.num_steps is None or self.num_steps * self.batch_size >= total:
            return None
        return int(self.num_steps * until // total - self.num_steps * before // total)

    def _groups(self, order: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
        """Neighbours in `order` that have `shuffle_rows` rows together at most, or are a single block."""
        begin, held = 0, 0
        for at, block in enumerate(order):
            if held and held + lengths[block] > self.shuffle_rows:
                yield order[begin:at]
                begin, held = at, 0
            held += lengths[block]
        yield order[begin:]


def joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Rows one after another; by numpy where it can, which leaves the threads that others compute with alone."""
    if parts[0].device.type != "cpu":
        return torch.cat(parts)
    return torch.from_numpy(np.concatenate([part.numpy() for part in parts]))
