"""The nets that tell classes apart. Axes in names: B batch, C channels, T steps, K classes, W width of a layer."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.classification.augment import vary
from models.classification.cases import Cases
from models.classification.layout import SideBySide, end_to_end
from models.classification.rocket import Rocket
from models.classification.scaling import LONG, Standard, inside, thinned
from models.classification.specs import ClassifierSpec, ReferenceClassifierSpec, ResidualClassifierSpec, Shape

HALVED = 96  # steps from which on the next block sees every other one
NEAR, FAR = 3, 19  # steps to either side that the widest convolution of a block, and of the stem, looks at


def build_classifier(spec: ClassifierSpec, shape: Shape) -> nn.Module:
    """A freshly initialised classifier, called with raw values (B, C, T) and lengths (B,); it returns logits (B, K)."""
    kinds = {"reference": ReferenceClassifier, "residual": ResidualClassifier, "rocket": Rocket}
    return kinds[spec.kind](spec, shape)


class ReferenceClassifier(nn.Module):
    """One convolution, the largest of each stretch of a case, one hidden layer, a logit a class.

    Cases of any length are pooled into as many stretches of equal length, where the net it follows has one fixed length.
    """

    smoothing = 0.0  # of the labels that it learns

    def __init__(self, spec: ReferenceClassifierSpec, shape: Shape):
        super().__init__()
        self.scale, self.pool, self.kernel = Standard(shape), spec.pool, spec.kernel
        self.convolution = nn.Conv1d(self.scale.num_channels, spec.filters, spec.kernel)
        self.hidden = nn.Linear(spec.filters * spec.pool, spec.hidden)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(spec.hidden, shape.num_classes)

    def learn_scale(self, cases: Cases) -> None:
        self.scale.learn(cases)

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        mask = inside(lengths, values.shape[2])
        before = (self.kernel - 1) // 2
        seen = F.pad(self.scale(values, mask), (before, self.kernel - 1 - before))
        rows = F.relu(self.convolution(seen))  # (B, W, T)
        stretch = torch.arange(values.shape[2], device=values.device) * self.pool // lengths[:, None]
        stretch = stretch.where(mask, self.pool).clamp(max=self.pool)  # one more for what lies past the end
        pooled = rows.new_zeros(*rows.shape[:2], self.pool + 1)
        pooled = pooled.scatter_reduce(2, stretch[:, None].expand_as(rows), rows, "amax")[:, :, : self.pool]
        return self.head(self.dropout(F.relu(self.hidden(self.dropout(pooled.flatten(1))))))


class ValidNorm(nn.Module):
    """Batch normalisation over the steps that belong to a case (Ioffe and Szegedy 2015); 0 past the end.

    It counts nothing, so that a running mean of weights can be taken of all that it holds.
    """

    momentum, epsilon = 0.1, 1e-5

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Rows (B, W, 1, T); mask (B, 1, 1, T), None where every step belongs to a case."""
        steps = rows.permute(0, 2, 3, 1).flatten(0, 2)  # (B * T, W), as they lie in memory
        if mask is None:
            found = self.norm(steps)
        else:
            places = mask.flatten().nonzero()[:, 0]
            found = self.norm(steps.index_select(0, places))
            found = found.new_zeros(len(steps), found.shape[1]).index_copy(0, places, found)
        return found.view(len(rows), 1, -1, found.shape[1]).permute(0, 3, 1, 2)

    def norm(self, rows: Tensor) -> Tensor:
        return F.batch_norm(rows, self.mean, self.variance, self.weight, self.bias, self.training, self.momentum, self.epsilon)


def convolution(num_in: int, num_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """One over time, laid out for two axes: processors are fastest with channels last, which torch has for these."""
    return nn.Conv2d(num_in, num_out, (1, kernel), (1, stride), (0, kernel // 2), bias=False)


class Block(nn.Module):
    """Three convolutions of kernels 7, 5 and 3 around which the input is carried (Wang et al. 2017, the time-series ResNet)."""

    def __init__(self, num_in: int, width: int):
        super().__init__()
        sizes = [(num_in, 7), (width, 5), (width, 3)]
        self.convolutions = nn.ModuleList([convolution(size, width, kernel) for size, kernel in sizes])
        self.norms = nn.ModuleList([ValidNorm(width) for _ in sizes])
        self.carry = convolution(num_in, width, 1) if num_in != width else None
        self.carry_norm = ValidNorm(width) if num_in != width else None

    def forward(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        found = rows
        for at, (layer, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            found = norm(layer(found), mask)
            if at + 1 < len(self.convolutions):
                found = F.relu(found)
        return F.relu(found + (rows if self.carry is None else self.carry_norm(self.carry(rows), mask)))


class ResidualClassifier(nn.Module):
    """Residual convolutions over values and their differences, averaged over the steps of a case.

    Cases of more than 512 steps are first taken several steps at a time by two convolutions of different widths, smooth ones
    more than rough ones. Where neighbouring steps differ much, the largest of each channel is looked at beside the mean.
    """

    smoothing = 0.1

    def __init__(self, spec: ResidualClassifierSpec, shape: Shape):
        super().__init__()
        self.scale, self.augment, self.smooth = Standard(shape), spec.augment, not shape.rough
        width, num_in = spec.channels, self.scale.num_channels + self.scale.num_values
        self.register_buffer("steepness", torch.ones(self.scale.num_values, 1))  # makes differences as large as values
        self.stride = shape.stride or math.ceil(shape.longest / LONG)  # as it was before bundles said so
        self.stem = self.stem_norm = None
        if self.stride > 1:
            half = max(1, width // 2)
            self.stem = nn.ModuleList([convolution(num_in, half, kernel, self.stride) for kernel in (9, 39)])
            self.stem_norm, num_in = ValidNorm(2 * half), 2 * half
        widths = [width] + [2 * width] * (spec.depth - 1)
        self.blocks = nn.ModuleList([Block(a, b) for a, b in zip([num_in, *widths], widths, strict=False)])
        steps, self.halved = shape.longest / self.stride, []
        for at in range(spec.depth):
            self.halved.append(at + 1 < spec.depth and steps >= HALVED)
            steps = steps / 2 if self.halved[-1] else steps
        self.unit = self.stride << sum(self.halved)  # steps that become one in the end
        self.gap = max(NEAR * self.unit, FAR if self.stem is not None else 0)
        self.with_largest = shape.rough
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(widths[-1] * (1 + self.with_largest), shape.num_classes)
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def learn_scale(self, cases: Cases) -> None:
        self.scale.learn(cases)
        size, steps, cases = torch.zeros_like(self.steepness), torch.zeros_like(self.steepness), thinned(cases)
        for which in cases.in_batches(64):
            batch = cases.batch(which)
            mask = inside(batch.lengths, batch.values.shape[2])
            values = self.scale(batch.values, mask)[:, : self.scale.num_values]
            size += values.square().sum((0, 2))[:, None]
            steps += differences(values, mask).square().sum((0, 2))[:, None]
        self.steepness.copy_(((size + 1e-8) / (steps + 1e-8)).sqrt().clamp(max=30))

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        mask = inside(lengths, values.shape[2])
        seen = self.scale(values, mask)
        if self.training and self.augment:
            seen = vary(seen, lengths, mask, self.smooth, self.scale.num_values)
        steps = differences(seen[:, : self.scale.num_values], mask) * self.steepness
        rows, lie = torch.cat([seen, steps], 1), SideBySide(lengths, values.shape[2])
        if self.training and lie.valid() is not None:
            rows, lie = end_to_end(rows, mask, self.unit, self.gap)
        rows = rows[:, :, None].to(memory_format=torch.channels_last)
        if self.stem is not None:
            lie = lie.coarser(self.stride)
            rows = F.relu(self.stem_norm(torch.cat([layer(rows) for layer in self.stem], 1), lie.valid()))
        for block, halved in zip(self.blocks, self.halved, strict=True):
            valid = lie.valid()
            rows = block(rows, valid)
            if halved:
                rows, lie = halve(rows, valid), lie.coarser(2)
        rows = rows.float()
        pooled = torch.cat([lie.mean(rows), lie.largest(rows)], 1) if self.with_largest else lie.mean(rows)
        return self.head(self.dropout(pooled))


def halve(rows: Tensor, valid: Tensor | None) -> Tensor:
    """The mean of every two steps of rows (B, W, 1, T), the last one of a case by itself where it has no partner."""
    mean = F.avg_pool2d(rows, (1, 2), ceil_mode=True)
    return mean if valid is None else mean / F.avg_pool2d(valid, (1, 2), ceil_mode=True).clamp(min=0.5)


def differences(values: Tensor, mask: Tensor) -> Tensor:
    """From each step to the next (B, C, T), 0 at the first and past the end."""
    return F.pad(values[:, :, 1:] - values[:, :, :-1], (1, 0)) * mask[:, None]
