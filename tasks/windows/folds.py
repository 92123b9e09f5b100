"""The windows of many files, told apart by fold and scaled as they are read."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from models.scaling import Scaler
from models.windows import FoldSpec, fold_series, window_starts
from tasks.storage import Store
from tasks.windows.files import WindowFile
from tasks.windows.task import Windows


@dataclass(frozen=True)
class Cut:
    """The windows of one fold that lie in one block."""

    file: int
    block: int
    series_id: str
    first: int  # row of the block at which the first of them starts
    num_windows: int


class WindowSet:
    """The windows of many files, told apart by fold."""

    def __init__(self, paths: list[Path], scaler: Scaler, folds: FoldSpec):
        self.files, self.folds = [WindowFile(path) for path in paths], folds
        self.windows, self.columns = self.files[0].windows, self.files[0].columns
        steps = {name: scale.steps for name, scale in scaler.series.items()}
        self.rows, self.too_short = fold_series(steps, folds, self.windows)
        # A series without a window is as good as unknown: nothing is learned of it.
        self.scaler = scaler.only(self.rows) if self.too_short else scaler

    def fold(self, fold: str, numbers: dict[str, int] | None = None) -> "FoldBlocks":
        """The blocks of one fold, in the form that training and validation read (`models.batches.Blocks`).

        Args:
            numbers: of the series, for a network with an embedding; they become a last channel.
        """
        cuts = []
        for number, file in enumerate(self.files):
            for block, about in enumerate(file.blocks):
                rows = self.rows.get(about["series_id"])
                if rows is None:
                    continue
                starts = window_starts(len(rows[fold]), self.windows)
                low = max(about["first_row"] - rows[fold].start, starts.start)
                low += (starts.start - low) % starts.step  # the first start of the fold that lies in this block
                until = min(about["first_row"] + about["num_starts"] - rows[fold].start, starts.stop)
                if low < until:
                    count = len(range(low, until, starts.step))
                    cuts.append(Cut(number, block, about["series_id"], rows[fold].start + low - about["first_row"], count))
        return FoldBlocks(self, cuts, numbers)

    def telling(self, fold: str, numbers: dict[str, int] | None = None) -> "FoldBlocks":
        """The blocks of a fold by which networks are judged and intervals calibrated: of series that change in training.

        What comes of one that never did, as of a product not sold yet, is any number of its spreads away, and would be all
        that counts. Where no series of the fold changes, all of them.
        """
        whole = self.fold(fold, numbers)
        return FoldBlocks(
            self, [cut for cut in whole.cuts if not self.scaler.of(cut.series_id).constant] or whole.cuts, numbers
        )

    @cached_property
    def stored(self) -> dict[str, list[tuple[int, int, int, int]]]:
        """Of each series the blocks that are stored, oldest first: first row, rows, file and block."""
        found: dict[str, list[tuple[int, int, int, int]]] = {}
        for number, file in enumerate(self.files):
            for block, about in enumerate(file.blocks):
                rows = about["num_starts"] + self.windows.span - 1
                found.setdefault(about["series_id"], []).append((about["first_row"], rows, number, block))
        return {name: sorted(blocks) for name, blocks in found.items()}

    def targets(self, series_id: str, first: int, until: int) -> np.ndarray:
        """The targets (until - first,) of these rows of a series, in its unit; NaN before the first row that is stored."""
        found = np.full(until - first, np.nan)
        for start, rows, number, block in self.stored[series_id]:
            low, high = max(first, start), min(until, start + rows)
            if low < high:
                file = self.files[number]
                found[low - first : high - first] = file.shifted(block)[low - start : high - start, 0] + file.anchors(block)[0]
        return found

    def count(self, fold: str) -> int:
        return sum(self.fold(fold).num_windows)


@dataclass
class FoldBlocks:
    """The blocks of one fold, scaled as they are read."""

    set: WindowSet
    cuts: list[Cut]
    numbers: dict[str, int] | None = None

    @property
    def stride(self) -> int:
        return self.set.windows.stride

    @cached_property
    def num_windows(self) -> list[int]:
        return [cut.num_windows for cut in self.cuts]

    def series_id(self, block: int) -> str:
        return self.cuts[block].series_id

    def span(self, block: int) -> slice:
        """The rows of the stored block that these windows touch."""
        cut = self.cuts[block]
        return slice(cut.first, cut.first + (cut.num_windows - 1) * self.stride + self.set.windows.span)

    def read(self, block: int) -> torch.Tensor:
        """The rows of a block, scaled float32 (R, C), with the number of the series as a last channel where asked for."""
        cut, scale = self.cuts[block], self.set.scaler.of(self.series_id(block))
        rows = self.set.files[cut.file].shifted(cut.block)[self.span(block)]
        std = np.asarray(scale.std)
        shift = (self.set.files[cut.file].anchors(cut.block) - np.asarray(scale.mean)) / std
        # In float64 only for what is the same in every row, so that a block costs one pass.
        scaled = np.empty((len(rows), rows.shape[1] + (self.numbers is not None)), np.float32)
        if self.numbers is not None:
            scaled[:, -1] = self.numbers.get(cut.series_id, 0)
        own = scaled[:, : rows.shape[1]]
        np.multiply(rows, (1 / std).astype(np.float32), out=own)
        np.add(own, shift.astype(np.float32), out=own)
        return torch.from_numpy(scaled)

    def raw(self, block: int) -> np.ndarray:
        """The rows of a block in the user's units, float64 (R, C)."""
        cut = self.cuts[block]
        file = self.set.files[cut.file]
        return file.shifted(cut.block)[self.span(block)] + file.anchors(cut.block)

    def targets_with(self, block: int, before: int) -> np.ndarray:
        """The targets of a block's rows and of so many before them, in the user's units, NaN where there are none."""
        cut, rows = self.cuts[block], self.span(block)
        first = self.set.files[cut.file].blocks[cut.block]["first_row"]
        return self.set.targets(cut.series_id, first + rows.start - before, first + rows.stop)

    def timestamps(self, block: int) -> np.ndarray:
        """The UTC stamps (R,) of a block's rows, int64 microseconds."""
        cut = self.cuts[block]
        return self.set.files[cut.file].stamps(cut.block)[self.span(block)]


def open_windows(windows: list[Windows], scaler: Scaler, folds: FoldSpec, store: Store) -> WindowSet:
    """The windows that these receipts stand for."""
    return WindowSet([store.file(one, "windows.parquet") for one in windows], scaler, folds)
