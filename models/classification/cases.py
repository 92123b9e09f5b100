"""Labelled series as arrays: runs of rows, and batches of them.

Axes in names: R rows, N cases, B cases of a batch, C channels, T steps of the longest case of a batch, K classes.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

UNKNOWN = -1  # the label of a case that has none


@dataclass(frozen=True)
class CaseBatch:
    """Some cases side by side."""

    values: Tensor  # (B, C, T) float32, NaN where missing, and past the end of a case
    lengths: Tensor  # (B,) int64
    labels: Tensor  # (B,) int64

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Cases:
    """Runs of rows, each a case with a label; they may overlap, as windows of a stream do."""

    rows: np.ndarray  # (R, C) float32, NaN where missing
    starts: np.ndarray  # (N,) int64, the first row of each case
    lengths: np.ndarray  # (N,) int64
    labels: np.ndarray  # (N,) int64, UNKNOWN where there is none

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def num_channels(self) -> int:
        return self.rows.shape[1]

    def pick(self, which: np.ndarray) -> "Cases":
        """Some of the cases, by number or by mask; their rows are shared."""
        return replace(self, starts=self.starts[which], lengths=self.lengths[which], labels=self.labels[which])

    def values(self, case: int) -> np.ndarray:
        """The rows (T, C) of one case."""
        return self.rows[self.starts[case] : self.starts[case] + self.lengths[case]]

    def batch(self, which: np.ndarray) -> CaseBatch:
        """The cases of these numbers side by side, as long as the longest of them."""
        starts, lengths = self.starts[which], self.lengths[which]
        at = np.arange(lengths.max(initial=0))
        inside = at < lengths[:, None]  # (B, T)
        rows = self.rows[np.where(inside, starts[:, None] + at, 0)]
        rows[~inside] = np.nan
        values = torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 2, 1), np.float32))
        return CaseBatch(values, torch.from_numpy(lengths.astype(np.int64)), torch.from_numpy(self.labels[which]))

    def in_batches(self, size: int, steps: int = 1 << 62) -> list[np.ndarray]:
        """The numbers of all cases, at most so many at a time, those of like length together.

        Args:
            steps: that a batch may hold, a case by itself any number.
        """
        order = np.argsort(self.lengths, kind="stable")
        lengths, batches, begin = self.lengths[order].tolist(), [], 0
        for at, length in enumerate([*lengths, steps + 1]):  # the longest so far, as they ascend
            if at > begin and (at - begin == size or length * (at - begin + 1) > steps):
                batches.append(order[begin:at])
                begin = at
        return batches
