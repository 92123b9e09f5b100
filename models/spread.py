"""How far the truth may lie from a forecast: quantiles around any network's forecast, learned once that is trained.

The network is left as it is, so that saying how sure it is costs no accuracy; `models.conformal` then makes the
quantiles hold on data that nothing was learned from.

Axes in names: B batch, L lookback, H horizon, C channels (target first), F future covariates, Q levels, E features.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batches import AT_ONCE
from models.dates import without_dates
from models.losses import pinball
from models.series import Columns
from models.windows import WindowSpec

HIDDEN = 16
FEATURES = 4  # besides the known channels
SEASONS = 8  # of a window whose changes are looked at
FLOOR = 1e-3  # standard deviations below which no spread is measured
STEPS, ELEMENTS, RATE = 400, 1 << 15, 1e-2  # most optimiser steps, forecast steps in each of them, highest learning rate
PASSES = 12  # over the windows at most: on few of them, which it knows by heart, a network errs too little
FEWEST = 8  # optimiser steps that are worth while


class SpreadNet(nn.Module):
    """Quantiles at the given levels, as distances from a forecast in the size of the window's own changes.

    A small convolution over the horizon sees what is known of each step, what the series usually changes by there, and
    the forecast itself. The level nearest to 0.5 is a distance of its own; from there on each level adds a positive gap,
    so that quantiles never cross.
    """

    def __init__(self, levels: Sequence[float], columns: Columns, windows: WindowSpec, season: int):
        super().__init__()
        self.season = season if 2 * season <= windows.lookback else 1
        self.seen = min((SEASONS + 1) * self.season, windows.lookback)  # newest steps that it looks at
        self.middle = min(range(len(levels)), key=lambda at: abs(levels[at] - 0.5))
        self.date_at = columns.date_at
        self.embed = nn.Conv1d(columns.num_measured + FEATURES, HIDDEN, 5, padding="same")
        self.place = nn.Parameter(torch.zeros(HIDDEN, windows.horizon))  # what is usual at each step
        self.mix = nn.Conv1d(HIDDEN, HIDDEN, 1)
        self.head = nn.Conv1d(HIDDEN, len(levels), 1)
        normal = [NormalDist().inv_cdf(level) for level in levels]
        gaps = [abs(value - normal[self.middle if at == self.middle else at + (1 if at < self.middle else -1)])
                for at, value in enumerate(normal)]  # fmt: skip
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():  # begin as a normal distribution
            self.head.bias.copy_(torch.tensor([math.log(math.expm1(gap)) if gap else normal[self.middle] for gap in gaps]))

    @classmethod
    def fresh(cls, *args) -> "SpreadNet":
        """A network with the same first weights every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return cls(*args)

    def forward(self, target: Tensor, future: Tensor, forecast: Tensor) -> Tensor:
        """Quantiles (B, H, Q), ascending, from past targets (B, L), future (B, H, F) and the forecast (B, H), all scaled."""
        size, usual = self.changes(target, forecast.shape[1])
        shape = (forecast - target[:, -1:]) / size
        told = torch.stack([usual, shape, F.pad(shape.diff(dim=1), (1, 0)), size.log().expand_as(shape)], 1)
        known = without_dates(future, self.date_at).transpose(1, 2)
        features = torch.cat([told.clamp(-10, 10), known], 1)  # (B, E, H)
        raw = self.head(F.gelu(self.mix(F.gelu(self.embed(features) + self.place))))  # (B, Q, H)
        below, own, above = raw[:, : self.middle], raw[:, self.middle : self.middle + 1], raw[:, self.middle + 1 :]
        down = F.softplus(below).flip(1).cumsum(1).flip(1)
        apart = torch.cat([own - down, own, own + F.softplus(above).cumsum(1)], 1)
        return forecast[:, :, None] + size[:, :, None] * apart.transpose(1, 2)

    def changes(self, target: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """How much a window (B, L) changes from season to season, (B, 1), and by how much more at each step, log (B, H)."""
        season, recent = self.season, target[:, -self.seen :]
        recent = recent[:, recent.shape[1] % season :]
        if recent.shape[1] < 2 * season:
            return torch.ones_like(target[:, :1]), target.new_zeros(len(target), horizon)
        apart = (recent[:, season:] - recent[:, :-season]).abs()
        size = apart.mean(1, keepdim=True).clamp(min=FLOOR)
        by_place = apart.unflatten(1, (-1, season)).mean(1) / size  # (B, season)
        places = torch.arange(horizon, device=target.device) % season
        return size, (by_place[:, places] + 0.05).log()


@dataclass
class Forecasts:
    """Forecasts of some windows, and what a spread net sees of these, all scaled."""

    target: Tensor  # (N, L) up to the origin; a spread net only looks at the newest `SpreadNet.seen` of them
    future: Tensor  # (N, H, F)
    forecast: Tensor  # (N, H)
    truth: Tensor  # (N, H), NaN where not observed
    series: Tensor | None = None  # (N,) numbers, one series after the other; None where there is one
    spacing: int = 1  # steps between the origins of a series

    def __len__(self) -> int:
        return len(self.target)

    def split(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """What a spread net is given, some windows at a time."""
        yield from zip(*(part.split(AT_ONCE) for part in (self.target, self.future, self.forecast)), strict=True)


def fit_spread(network: SpreadNet, levels: Sequence[float], seen: Forecasts) -> SpreadNet:
    """The network, fitted to forecasts whose truth is known; the same for the same input.

    Each window's loss is divided by the size of its changes, so that quiet and wild series count alike. Of few windows less is
    learned, and of very few nothing: the spread is then normal, in the size of a window's changes.
    """
    size = max(8, min(AT_ONCE, ELEMENTS // seen.truth.shape[1]))
    steps = min(STEPS, PASSES * len(seen) // size)
    if steps < FEWEST:
        return network.eval()
    at_levels, draw = torch.tensor(levels), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, cycle_momentum=False)
    for _ in range(steps):
        chosen = torch.randint(len(seen), (size,), generator=draw)
        target, truth = seen.target[chosen], seen.truth[chosen]
        observed = ~truth.isnan()
        quantiles = network(target, seen.future[chosen], seen.forecast[chosen])
        loss = pinball(quantiles, truth.nan_to_num()[:, :, None], at_levels).mean(2) / network.changes(target, 1)[0]
        optimizer.zero_grad(set_to_none=True)
        ((loss * observed).sum() / observed.sum().clamp(min=1)).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()
