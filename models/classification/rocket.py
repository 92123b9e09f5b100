"""Many fixed convolutions and a ridge regression: how often each exceeds a threshold tells the class.

Source: MiniRocket (Dempster et al. 2021): 84 kernels of nine weights, six of -1 and three of 2, at dilations that grow
exponentially up to the length of a case, thresholds from quantiles of what the kernels make of training cases, and the
proportion of positive values as the feature. The ridge's strength is the one with the least leave-one-out error.
"""

from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.classification.cases import CaseBatch, Cases
from models.classification.choice import PRIOR, TEMPERATURES, losses_of, softmax
from models.classification.scaling import FLOOR, filled, inside, own_scale, scale_of
from models.classification.specs import RocketSpec, Shape

KERNELS = np.array([[2.0 if at in chosen else -1.0 for at in range(9)] for chosen in combinations(range(9), 3)], np.float32)
MOST_DILATIONS = 32
MOST_CHANNELS = 9  # that one kernel looks at
STRENGTHS = np.logspace(-3, 5, 13)  # of the ridge
NUMBERS = 1 << 24  # held at a time
CACHED = 1 << 18  # held at a time where they are looked at again and again
FEWER = 2_520  # features at most, where there are many cases
MOST = 10_000  # cases that it learns from
TRIED, FEW = 1_000, 840  # cases that the way to see them is chosen by, and features: it is their dilations that take long
TINY = 1e-12  # share of the others in an answer, below which there is nothing to divide by
NOUGHT = 1e-4  # standard deviations; what a kernel makes of steps that do not change is 0 but for rounding, far less than it
USUAL_HEAT = 0.3  # by which scores between -1 and 1 are divided to be logits, as far as cases do not tell


def dilations_of(length: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """The dilations for cases of a length, and how many thresholds a kernel has at each."""
    each = max(1, features // len(KERNELS))
    count = min(each, MOST_DILATIONS)
    most = np.log2(max(1.0, (max(length, 9) - 1) / 8))
    dilations, times = np.unique(np.logspace(0, most, count, base=2).astype(int), return_counts=True)
    thresholds = times * each // count
    thresholds[: each - thresholds.sum()] += 1
    return dilations, thresholds


class Rocket(nn.Module):
    """The features of cases, and a linear map from them to logits; `fit_rocket` sets all that it holds."""

    smoothing = 0.0

    def __init__(self, spec: RocketSpec, shape: Shape):
        super().__init__()
        self.dilations, self.counts = dilations_of(shape.usual, min(spec.features, FEWER) if shape.many else spec.features)
        num_channels, num_features = shape.num_channels, int(self.counts.sum()) * len(KERNELS)
        self.register_buffer("kernels", torch.from_numpy(KERNELS), persistent=False)
        self.register_buffer("mean", torch.zeros(num_channels, 1))
        self.register_buffer("std", torch.ones(num_channels, 1))
        self.register_buffer("own", torch.zeros(()))  # 1 where each case is seen by its own scale
        self.register_buffer("seen", torch.ones(len(self.dilations), len(KERNELS), num_channels))  # channels of a kernel
        for at, count in enumerate(self.counts):
            self.register_buffer(f"thresholds_{at}", torch.zeros(len(KERNELS), int(count)))
        self.register_buffer("middle", torch.zeros(num_features))
        self.register_buffer("spread", torch.ones(num_features))
        self.head = nn.Linear(num_features, shape.num_classes)

    def prepared(self, values: Tensor, mask: Tensor) -> Tensor:
        scaled = filled((values - self.mean) / self.std, mask)
        return own_scale(scaled, mask, scaled.new_tensor(FLOOR)) if self.own else scaled

    def responses(self, values: Tensor, at: int) -> Tensor:
        """What the kernels make of values (B, C, T) at a dilation: (B, 84, T)."""
        dilation = int(self.dilations[at])
        if values.shape[1] == 1:
            return F.conv1d(values, self.kernels[:, None], padding=4 * dilation, dilation=dilation)
        return F.conv1d(values, self.kernels[:, None] * self.seen[at][:, :, None], padding=4 * dilation, dilation=dilation)

    def features(self, values: Tensor, lengths: Tensor) -> Tensor:
        """The proportion of steps at which each kernel exceeds each of its thresholds, (B, F).

        Every second kernel is only looked at where it lies wholly within its case, if there is such a place.
        """
        mask = inside(lengths, values.shape[2])
        ready, steps = self.prepared(values, mask), torch.arange(values.shape[2], device=values.device)
        whole, found = bool(mask.all()), []
        above = ready.new_empty(len(values), len(KERNELS), values.shape[2])
        for at, dilation in enumerate(self.dilations.tolist()):
            reach = 4 * dilation
            inner = mask & (steps >= reach) & (steps < lengths[:, None] - reach)
            inner = torch.where(lengths[:, None] > 2 * reach, inner, mask)
            made = self.responses(ready, at)
            made[:, 1 - at % 2 :: 2].masked_fill_(~inner[:, None], -torch.inf)
            if not whole:
                made[:, at % 2 :: 2].masked_fill_(~mask[:, None], -torch.inf)
            # One threshold at a time, into the same numbers again and again: they stay in the processor's cache.
            thresholds = getattr(self, f"thresholds_{at}").unbind(1)
            share = torch.stack([torch.gt(made, one[:, None], out=above).sum(2) for one in thresholds], 2)
            share[:, 1 - at % 2 :: 2] /= inner.sum(1).clamp(min=1)[:, None, None]
            share[:, at % 2 :: 2] /= mask.sum(1).clamp(min=1)[:, None, None]
            found.append(share.flatten(1))
        return torch.cat(found, 1)

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        return self.head((self.features(values, lengths) - self.middle) / self.spread)


def cached_batches(cases: Cases) -> list[np.ndarray]:
    """The numbers of all cases, so many at a time that their responses fit a processor's cache: it is several times as fast."""
    return cases.in_batches(256, CACHED // len(KERNELS))


@torch.no_grad()
def fit_rocket(network: Rocket, cases: Cases, shape: Shape, seed: int) -> float:
    """Set all that a rocket holds from cases; returns its log-loss by leave-one-out.

    Values are seen as they are, or each case by its own scale, whichever has the lower error by leave-one-out, of few features.
    Of very many cases an even share is learned from, and of many an even share tells which way is better.
    """
    mean, std = scale_of(cases)
    trial = Rocket(RocketSpec(features=min(FEW, len(network.middle))), shape)
    for one in (network, trial):
        one.mean.copy_(torch.from_numpy(mean)[:, None])
        one.std.copy_(torch.from_numpy(std)[:, None])
    cases = even_share(cases, MOST)
    some, ways = even_share(cases, TRIED), (0.0,) if shape.alike else (0.0, 1.0)
    losses = [attempt(trial, some, way, shape.num_classes, seed) for way in ways] if len(ways) > 1 else [0.0]
    return attempt(network, cases, ways[int(np.argmin(losses))], shape.num_classes, seed)


def even_share(cases: Cases, most: int) -> Cases:
    """At most about so many cases, of each class its share, but one at the least."""
    if len(cases) <= most:
        return cases
    by_class = np.argsort(cases.labels, kind="stable")
    labels = cases.labels[by_class]
    step = len(cases) / most
    taken = np.concatenate([[True], (labels[1:] != labels[:-1]) | (np.diff(np.arange(len(cases)) // step) > 0)])
    return cases.pick(np.sort(by_class[taken]))


def attempt(network: Rocket, cases: Cases, own: float, num_classes: int, seed: int) -> float:
    """Fit a rocket with or without each case's own scale; returns its log-loss by leave-one-out."""
    network.own.fill_(own)
    set_thresholds(network, cases, np.random.default_rng(seed))
    features = features_of(network, cases)
    middle = features.mean(0, dtype=np.float64).astype(np.float32)
    features -= middle
    spread = np.where(np.ptp(features, 0) > 0, features.std(0) + 1e-8, 1).astype(np.float32)
    features /= spread
    ridge = fit_ridge(features, cases.labels, num_classes)
    network.middle.copy_(torch.from_numpy(middle))
    network.spread.copy_(torch.from_numpy(spread))
    network.head.weight.copy_(torch.from_numpy(ridge.weights.T))
    network.head.bias.copy_(torch.from_numpy(ridge.intercept))
    return ridge.loss


def set_thresholds(network: Rocket, cases: Cases, draw: np.random.Generator) -> None:
    """Draw the channels that each kernel looks at, and thresholds from what it makes of one case each."""
    num_channels, num_kernels = cases.num_channels, len(KERNELS)
    network.seen.zero_()
    most = np.log2(min(num_channels, MOST_CHANNELS) + 1)
    total = int(network.counts.sum())
    levels = torch.from_numpy((np.arange(1, total + 1) * (np.sqrt(5) + 1) / 2 % 1).astype(np.float32))
    begin = 0
    for at, count in enumerate(network.counts.tolist()):
        for kernel in range(num_kernels):
            network.seen[at, kernel, torch.from_numpy(draw.permutation(num_channels)[: int(2 ** draw.uniform(0, most))])] = 1
        chosen, level = draw.integers(0, len(cases), num_kernels), levels[begin : begin + count]
        begin += count
        size = max(1, NUMBERS // (num_channels * int(cases.lengths.max())))
        for some in np.split(np.arange(num_kernels), range(size, num_kernels, size)):
            made = own_responses(network, cases.batch(chosen[some]), at, torch.from_numpy(some))
            found = torch.nanquantile(made, level, dim=1).T
            # Nothing is compared with 0 itself: where a case stands still, its rounding would be what tells classes apart.
            getattr(network, f"thresholds_{at}")[some] = found.where(found.abs() >= NOUGHT, NOUGHT)


def own_responses(network: Rocket, batch: CaseBatch, at: int, kernels: Tensor) -> Tensor:
    """What each of some kernels makes of a case of its own, (B, T), NaN past its end."""
    mask, dilation = inside(batch.lengths, batch.values.shape[2]), int(network.dilations[at])
    ready = network.prepared(batch.values, mask).flatten(0, 1)[None]  # (1, B * C, T), a group of channels a kernel
    weights = network.kernels[kernels][:, None] * network.seen[at, kernels][:, :, None]
    made = F.conv1d(ready, weights, padding=4 * dilation, dilation=dilation, groups=len(kernels))[0]
    return made.masked_fill(~mask, torch.nan)


def features_of(network: Rocket, cases: Cases) -> np.ndarray:
    """The features (N, F) of all cases."""
    found = np.empty((len(cases), len(network.middle)), np.float32)
    for which in cached_batches(cases):
        batch = cases.batch(which)
        found[which] = network.features(batch.values, batch.lengths).numpy()
    return found


class Ridge:
    """A ridge regression of -1 and 1 a class on features (N, F), whose strength leave-one-out has chosen."""

    def __init__(self, weights: np.ndarray, intercept: np.ndarray, loss: float):
        self.weights, self.intercept, self.loss = weights, intercept, loss  # (F, K), (K,), log-loss by leave-one-out


def fit_ridge(features: np.ndarray, labels: np.ndarray, num_classes: int) -> Ridge:
    """The ridge, scaled so that a softmax of what it says has a low log-loss by leave-one-out.

    All leave-one-out errors follow in closed form from one decomposition (Rifkin and Lippert 2007), of products between cases
    or between features, whichever are fewer. How sure it is leans towards `USUAL_HEAT`: of few cases all may be right.

    Args:
        features: float32, of mean 0 over the cases.
    """
    wanted = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0)
    centre = wanted.mean(0)
    wanted = wanted - centre
    dual = len(features) <= features.shape[1]
    gram = products(features.T if dual else features)
    if dual:  # the constant is taken out to the last digit: of many features and few cases, little else is left of an error
        gram = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
    values, vectors = np.linalg.eigh(gram)
    values = np.where(values > (TINY * values[-1] if dual else 0), values, 0)
    basis = vectors if dual else features @ (vectors / np.sqrt(np.maximum(values, 1e-12))).astype(np.float32)
    projected, squared = basis.T @ wanted, basis**2
    best = None
    for strength in STRENGTHS * len(features) / 100:
        lost = strength / (values + strength)
        missed = basis @ (lost[:, None] * projected)  # what the ridge says too little, each of its directions by a share
        others = squared @ lost - 1 / len(features)  # how much of what it says of a case comes from the others
        if not dual:  # beside what no feature can say
            missed = missed + (wanted - basis @ projected)
            others = others + (1 - squared.sum(1))
        left_out = wanted - missed / np.maximum(others, TINY)[:, None]
        error = ((left_out - wanted) ** 2).mean()
        if best is None or error < best[0]:
            best = error, strength, left_out + centre
    _, strength, left_out = best
    if dual:
        weights = features.T @ (vectors @ (projected / (values + strength)[:, None])).astype(np.float32)
    else:
        weights = vectors @ (np.sqrt(values)[:, None] * projected / (values + strength)[:, None])
    costs = [losses_of(softmax(left_out, heat), labels).sum() + PRIOR * np.log(heat / USUAL_HEAT) ** 2 for heat in TEMPERATURES]
    heat = float(TEMPERATURES[int(np.argmin(costs))])
    return Ridge(weights / heat, centre / heat, float(losses_of(softmax(left_out, heat), labels).mean()))


def products(rows: np.ndarray) -> np.ndarray:
    """rows.T @ rows in float64, without a copy of all rows in it."""
    total = np.zeros((rows.shape[1],) * 2)
    for begin in range(0, len(rows), 1024):
        some = rows[begin : begin + 1024].astype(np.float64)
        total += some.T @ some
    return total
