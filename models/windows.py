"""Where windows start, which fold they belong to, and how a batch of them is gathered.

A window is `lookback` rows that end at the origin, then `horizon` rows to forecast. A row holds the
target first, then the past covariates, then the future covariates.

Axes in names: B batch, L lookback, H horizon, C channels of a row, F future covariates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from models.errors import Fault
from models.series import Columns

FOLDS = ("train", "validation", "test")
AT_ONCE = 256  # windows that a network forecasts at a time: what it makes of many more leaves a processor's cache
SHUFFLE_ROWS = 1 << 19  # rows that a shuffled stream holds at a time; few enough to stay in a processor's cache


class WindowSpec(BaseModel):
    """How windows are cut from a series."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lookback: int = Field(ge=1, description="steps seen, ending at the origin")
    horizon: int = Field(ge=1, description="steps forecast")
    stride: int = Field(1, ge=1, description="steps between origins")

    @property
    def span(self) -> int:
        return self.lookback + self.horizon


class WindowSettings(WindowSpec):
    """What a spec says of windows; the lookback may be left to be chosen by the data."""

    lookback: int | None = Field(None, ge=1, description="steps seen, ending at the origin; null: by season and length")

    def resolved(self, season: int, num_steps: int) -> WindowSpec:
        """The windows for series of about `num_steps` steps to train on."""
        lookback = self.lookback or usual_lookback(season, num_steps, self.horizon)
        return WindowSpec(lookback=lookback, horizon=self.horizon, stride=self.stride)


def usual_lookback(season: int, num_steps: int, horizon: int) -> int:
    """Steps to look back where nothing else is said: whole seasons, many of them where there are rows enough.

    Thirty seasons of up to 24 steps, fifteen of longer ones, never more than a quarter of the steps to train on, and two
    at least; without a season four horizons.
    """
    if season == 1:
        return max(1, min(max(4 * horizon, 48), num_steps // 4))
    return season * min(30 if season <= 24 else 15, max(2, num_steps // 4 // season))


class FoldSpec(BaseModel):
    """Which steps validate and which test; the steps before them train."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    validation: int = Field(ge=1, description="steps, counted from the end, before the test steps")
    test: int = Field(ge=1, description="steps, counted from the end")


def fold_rows(num_rows: int, folds: FoldSpec, windows: WindowSpec, series_id: str) -> dict[str, range]:
    """The rows that the windows of each fold may touch, fold by fold.

    Training windows end where validation begins. A validation or test window may look back into
    the rows before its fold, but every row it is scored on lies inside it.

    Raises:
        Fault: a fold would be left without a single window.
    """
    first_test = num_rows - folds.test
    first_validation = first_test - folds.validation
    if num_rows < (needed := steps_needed(folds, windows)) or min(folds.validation, folds.test) < windows.horizon:
        raise Fault(
            f"{series_id} has {num_rows} steps; lookback {windows.lookback} + horizon {windows.horizon} to train on, "
            f"validation {folds.validation} and test {folds.test} (each at least one horizon) need {needed}. "
            "Shorten windows.lookback or windows.horizon, set other folds, or bring more rows."
        )
    return {
        "train": range(first_validation),
        "validation": range(first_validation - windows.lookback, first_test),
        "test": range(first_test - windows.lookback, num_rows),
    }


def steps_needed(folds: FoldSpec, windows: WindowSpec) -> int:
    """Steps of a series below which some fold would have no window."""
    return windows.span + max(folds.validation, windows.horizon) + max(folds.test, windows.horizon)


def window_starts(num_rows: int, windows: WindowSpec) -> range:
    """First rows of the windows that fit, oldest first, aligned so that the newest rows are never dropped."""
    last = num_rows - windows.span
    return range(last % windows.stride, last + 1, windows.stride) if last >= 0 else range(0)


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


def in_order(blocks: Blocks, span: int, batch_size: int, limit: int | None = None) -> Iterator[torch.Tensor]:
    """Every window once, block by block and oldest first, as (B, span, C) tensors; a batch may hold windows of many blocks.

    Args:
        limit: about how many windows, spread evenly over all of them; None for every one.
    """
    total = sum(blocks.num_windows)
    every = max(1, total // limit) if limit else 1
    waiting: list[torch.Tensor] = []
    held = passed = 0
    for block, count in enumerate(blocks.num_windows):
        first = -passed % every
        passed += count
        if first >= count:
            continue
        rows = blocks.read(block)
        for starts in torch.arange(first, count, every).split(batch_size):
            waiting.append(gather(rows, (starts * blocks.stride).to(rows.device), span))
            held += len(starts)
            if held >= batch_size:
                joined = torch.cat(waiting) if len(waiting) > 1 else waiting[0]
                yield joined[:batch_size]
                waiting, held = ([joined[batch_size:]], held - batch_size) if held > batch_size else ([], 0)
    if waiting:
        yield torch.cat(waiting)


class ShuffledStream:
    """Endless shuffled passes over all windows, the same for a seed, from any step on.

    A pass takes the blocks in random order, as many at a time as hold `shuffle_rows` rows, and shuffles the windows of
    those together; a smaller data set is so shuffled as a whole and read once. Where `num_steps` batches are too few for
    every window, they are drawn from all blocks alike, rather than every window from the first few.
    """

    def __init__(
        self, blocks: Blocks, span: int, batch_size: int, seed: int, device, shuffle_rows: int = SHUFFLE_ROWS,
        num_steps: int | None = None,
    ):  # fmt: skip
        """`num_steps` says how many batches will be asked for; None: nobody knows."""
        self.blocks, self.span, self.batch_size, self.seed = blocks, span, batch_size, seed
        self.device, self.shuffle_rows, self.num_steps = device, shuffle_rows, num_steps
        self._loaded: tuple[tuple[int, ...], torch.Tensor] | None = None

    def batches(self, first_step: int = 0) -> Iterator[torch.Tensor]:
        """Window tensors (B, span, C) on the device, beginning with the batch of `first_step`."""
        for step, (group, starts) in enumerate(self._indices()):
            if step >= first_step:
                yield gather(self._rows(group), starts.to(self.device), self.span)

    def _indices(self) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
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
                shuffled = torch.from_numpy(rng.permutation(np.concatenate(starts)))
                blocks = tuple(int(block) for block in group)
                for chosen in shuffled.split(self.batch_size)[:count]:
                    yield blocks, chosen
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

    def _rows(self, group: tuple[int, ...]) -> torch.Tensor:
        if self._loaded is None or self._loaded[0] != group:
            self._loaded = None  # let the old rows go before the new ones are read
            self._loaded = (group, torch.cat([self.blocks.read(block) for block in group]).to(self.device))
        return self._loaded[1]
