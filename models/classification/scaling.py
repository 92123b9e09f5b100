"""What every classifier does to raw values before it looks at them; the figures for it are learned from training cases."""

import numpy as np
import torch
from torch import Tensor, nn

from models.classification.cases import Cases
from models.classification.specs import Shape

FAR = 8.0  # standard deviations beyond which a value is taken for this
SMOOTH = 4.0  # a series whose steps are so many times smaller than its spread can be stretched without harm
TENFOLD = 10.0  # cases whose spreads, or levels, differ by more are also shown with their own taken out
MANY = 2_520  # cases from which on a rocket takes fewer features, so that its ridge can be solved
ASKED = 5_000  # cases at most that a scale is learned from
LONG, SMOOTHED = 512, 384  # steps from which on a net takes several at a time; what they become of a smooth series
STILL = 1e-6  # of a channel's spread, below which the usual case has none
FLOOR = 1e-3  # of a channel's spread, below which that of a case counts as none


def shape_of(cases: Cases, num_classes: int) -> Shape:
    """What the cases to train on say of a classifier's form."""
    some = thinned(cases)
    values = [some.values(case) for case in range(len(some))]
    mean, std = scale_of(cases)
    centres, spreads = (np.stack([figure(one) for one in values]) for figure in (nanmean, nanstd))
    alike = np.abs(centres - mean).max() < 0.02 * std.max() and np.abs(spreads / std - 1).max() < 0.1
    low, usual, high = (np.quantile(spreads, level, axis=0) for level in (0.1, 0.5, 0.9))
    levels = np.divide(std, usual, out=np.zeros_like(std), where=usual > STILL * std)
    ratio = np.maximum(high / (low + FLOOR * std), levels).max()
    roughness = [(nanstd(one) / (nanstd(np.diff(one, axis=0)) + 1e-9 * std)).mean() for one in values if len(one) > 2]
    longest, rough = int(cases.lengths.max()), bool(not roughness or np.median(roughness) < SMOOTH)
    return Shape(
        num_channels=cases.num_channels,
        num_classes=num_classes,
        longest=longest,
        usual=int(np.median(cases.lengths)),
        masked=any(np.isnan(cases.values(case)).any() for case in range(len(cases))),
        rough=rough,
        rescaled=bool(not alike and ratio > TENFOLD),
        alike=bool(alike),
        many=len(cases) > MANY,
        stride=1 if longest <= LONG else -(-longest // (LONG if rough else SMOOTHED)),
    )


def nanmean(values: np.ndarray) -> np.ndarray:
    """(C,) of values (T, C); 0 where a channel has none."""
    seen = ~np.isnan(values)
    return np.where(seen, values, 0).sum(0, dtype=np.float64) / np.maximum(seen.sum(0), 1)


def nanstd(values: np.ndarray) -> np.ndarray:
    return np.sqrt(nanmean((values - nanmean(values)) ** 2))


def thinned(cases: Cases) -> Cases:
    """Of very many cases every so-manieth, which tell as much of a scale: they may be windows that overlap."""
    return cases.pick(np.arange(0, len(cases), -(-len(cases) // ASKED))) if len(cases) > ASKED else cases


def scale_of(cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) of all steps of the cases, of very many of some."""
    cases = thinned(cases)
    each = [cases.values(case) for case in range(len(cases))]
    count = sum((~np.isnan(one)).sum(0) for one in each)
    mean = sum(np.nansum(one, 0, dtype=np.float64) for one in each) / np.maximum(count, 1)
    square = sum(np.nansum((one - mean) ** 2, 0, dtype=np.float64) for one in each) / np.maximum(count, 1)
    std = np.sqrt(square)
    return mean, np.where(std > 1e-12 * np.abs(mean), std, 1.0)


def inside(lengths: Tensor, steps: int) -> Tensor:
    """(B, T) which steps belong to a case."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def filled(values: Tensor, mask: Tensor) -> Tensor:
    """Values (B, C, T) with the last one seen in place of a missing one, before the first the first, and 0 past the end."""
    steps = torch.arange(values.shape[2], device=values.device)
    seen = ~values.isnan()
    last = torch.where(seen, steps, -1).cummax(2).values
    first = torch.where(seen, steps, values.shape[2] - 1).amin(2, keepdim=True)
    taken = values.gather(2, torch.where(last < 0, first, last))
    return taken.nan_to_num(0.0) * mask[:, None]


def own_scale(values: Tensor, mask: Tensor, floor: Tensor) -> Tensor:
    """Values (B, C, T) with each case's own mean taken out, divided by its own standard deviation; 0 past the end."""
    count = mask.sum(1).clamp(min=1)[:, None, None]
    centred = (values - (values * mask[:, None]).sum(2, keepdim=True) / count) * mask[:, None]
    spread = (centred.square().sum(2, keepdim=True) / count).sqrt()
    return centred / torch.maximum(spread, floor)


class Standard(nn.Module):
    """Raw values (B, C, T) in standard deviations of the training cases, with what else tells classes apart.

    Its channels: the values; where cases differ tenfold in spread, the values by each case's own scale; and where some were
    missing in training, which ones were there. All are 0 past the end of a case.
    """

    def __init__(self, shape: Shape):
        super().__init__()
        self.masked, self.rescaled = shape.masked, shape.rescaled
        self.num_channels = shape.num_channels * (1 + shape.rescaled + shape.masked)
        self.num_values = shape.num_channels * (1 + shape.rescaled)  # of these, what differences are taken of
        self.register_buffer("mean", torch.zeros(shape.num_channels, 1))
        self.register_buffer("std", torch.ones(shape.num_channels, 1))

    def learn(self, cases: Cases) -> None:
        mean, std = scale_of(cases)
        self.mean.copy_(torch.from_numpy(mean)[:, None])
        self.std.copy_(torch.from_numpy(std)[:, None])

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        known = (~values.isnan()) & mask[:, None]
        scaled = (filled((values - self.mean) / self.std, mask)).clamp(-FAR, FAR)
        parts = [scaled]
        if self.rescaled:
            parts.append(own_scale(scaled, mask, scaled.new_tensor(FLOOR)).clamp(-FAR, FAR))
        if self.masked:
            parts.append(known.to(scaled.dtype))
        return torch.cat(parts, 1) if len(parts) > 1 else scaled
