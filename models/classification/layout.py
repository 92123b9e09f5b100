"""How the cases of a batch lie in one tensor: side by side, each padded to the longest; or end to end, with a gap between.

Nets that put 0 on every step outside a case compute the same either way. Side by side is plain; end to end nothing is
computed for padding, which is most of it where lengths differ much. Batches are random either way: with cases of like
length in one, those of a class would be too, and the batch norm would learn what no single case has.

Axes in names: B cases, C channels, W width of a layer, T steps of the longest case, S steps of all cases with their gaps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

GRAIN = 128  # units


@dataclass(frozen=True)
class SideBySide:
    """Rows are (B, W, 1, T)."""

    lengths: Tensor  # (B,)
    steps: int

    def valid(self) -> Tensor | None:
        """(B, 1, 1, T) 1 where a step belongs to a case; None where every one does."""
        if bool((self.lengths == self.steps).all()):
            return None
        return (torch.arange(self.steps, device=self.lengths.device) < self.lengths[:, None])[:, None, None].float()

    def coarser(self, stride: int) -> "SideBySide":
        """As it is once only every so-manieth step of a case is kept."""
        return SideBySide((self.lengths - 1) // stride + 1, (self.steps - 1) // stride + 1)

    def mean(self, rows: Tensor) -> Tensor:
        """Over the steps of each case, (B, W)."""
        return rows.sum((2, 3)) / self.lengths[:, None]

    def largest(self, rows: Tensor) -> Tensor:
        """Of the steps of each case, (B, W), of rows that are nowhere below 0."""
        return rows.amax((2, 3))


@dataclass(frozen=True)
class EndToEnd:
    """Rows are (1, W, 1, S)."""

    lengths: Tensor  # (B,)
    owner: Tensor  # (S,) the case that a step belongs to, B in a gap

    def valid(self) -> Tensor:
        return (self.owner < len(self.lengths))[None, None, None].float()

    def coarser(self, stride: int) -> "EndToEnd":
        return EndToEnd((self.lengths - 1) // stride + 1, self.owner[::stride])

    def mean(self, rows: Tensor) -> Tensor:
        sums = rows.new_zeros(len(self.lengths) + 1, rows.shape[1]).index_add(0, self.owner, rows[0, :, 0].T)
        return sums[:-1] / self.lengths[:, None]

    def largest(self, rows: Tensor) -> Tensor:
        whose = self.owner[:, None].expand(-1, rows.shape[1])
        found = rows.new_zeros(len(self.lengths) + 1, rows.shape[1]).scatter_reduce(0, whose, rows[0, :, 0].T, "amax")
        return found[:-1]


def end_to_end(values: Tensor, mask: Tensor, unit: int, gap: int) -> tuple[Tensor, EndToEnd]:
    """Values (B, C, T) as (1, C, S), 0 in the gaps of `gap` steps or more; every case begins at a multiple of `unit`.

    S is a multiple of many units: the kernels of a processor are made for one size, and that takes longer than a step.

    Args:
        mask: (B, T) which steps belong to a case.
    """
    lengths = mask.sum(1)
    room = (lengths + gap + unit - 1) // unit * unit
    starts, total = room.cumsum(0) - room, -(-int(room.sum()) // (GRAIN * unit)) * GRAIN * unit
    places = (starts[:, None] + torch.arange(values.shape[2], device=values.device))[mask]
    rows = values.new_zeros(total, values.shape[1]).index_copy(0, places, values.transpose(1, 2)[mask])
    owner = lengths.new_full((total,), len(lengths))
    owner[places] = torch.arange(len(lengths), device=values.device)[:, None].expand_as(mask)[mask]
    return rows.T[None], EndToEnd(lengths, owner)
