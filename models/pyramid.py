"""A network of the past at several resolutions: the newest steps one by one, older ones in ever coarser means.

Axes in names: B batch, L lookback, H horizon, C channels (target first), F covariates known over the horizon, N features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dates import Dates
from models.periodic import TINY, step_size
from models.series import DATE, Columns
from models.specs import PyramidSpec
from models.windows import WindowSpec

SEASONS = 4  # whose mean stands beside the last one
AGO = 8  # newest steps that past covariates are averaged over


class Pyramid(nn.Module):
    """The newest `detail` steps of (B, L), as many means of two before the origin, of four, and so on: (B, N).

    Each level covers twice the time of the one below it, so that N grows with the logarithm of the lookback.
    """

    def __init__(self, lookback: int, detail: int):
        super().__init__()
        self.detail, self.sizes = detail, [lookback]
        while self.sizes[-1] > detail:  # else nothing is left that a level more would tell
            self.sizes.append(self.sizes[-1] // 2)
        self.num_features = sum(min(detail, size) for size in self.sizes)

    def forward(self, past: Tensor) -> Tensor:
        level, found = past[:, None], []
        for size in self.sizes:
            if size < self.sizes[0]:
                level = F.avg_pool1d(level[:, :, -2 * size :], 2)
            found.append(level[:, 0, -self.detail :])
        return torch.cat(found, 1)


class PyramidNet(nn.Module):
    """Two dense layers, and a linear map, of the past at several resolutions; all steps of the horizon at once.

    They see how far the past lies from its last value, in standard deviations of the window, so that neither level nor
    size is learned by heart: the pyramid; for each step of the horizon the same place in the last season and in the mean
    of the last four; past covariates up to the origin; and covariates known ahead, at the origin, and, where any of them
    is more than the clock or what never changes, over the whole horizon. Both maps start at zero, so the net starts as
    the last value. How far single days of the year move the target is taken from the past and put onto the horizon.

    Source: several rates of sampling are those of N-HiTS (Challu et al. 2023), dense layers with a linear map beside them
    those of TiDE (Das et al. 2023), rescaling each window that of RevIN (Kim et al. 2022).
    """

    trained_steps = None  # all of them

    def __init__(self, spec: PyramidSpec, columns: Columns, windows: WindowSpec, season: int):
        super().__init__()
        self.noise, self.first_known = spec.noise, columns.first_known
        self.pyramid = Pyramid(windows.lookback, spec.detail)
        self.season = season if 1 < season <= windows.lookback else 1
        self.num_seasons = min(SEASONS, windows.lookback // self.season) if self.season > 1 else 0
        self.register_buffer("places", torch.arange(windows.horizon) % self.season, persistent=False)
        self.dates = Dates(columns)
        ahead = columns.future or columns.holidays or DATE in columns.calendar  # the rest is the clock, or never changes
        self.looks_ahead = bool(ahead)
        num_steps = self.pyramid.num_features + min(2, self.num_seasons) * windows.horizon
        num_known = len(columns.known) * (1 + self.looks_ahead * windows.horizon)
        self.linear = nn.Linear(num_steps, windows.horizon)
        self.enter = nn.Linear(num_steps + num_known + 3 * len(columns.past_only), spec.width)
        self.hidden = nn.Linear(spec.width, spec.width)
        self.out = nn.Linear(spec.width, windows.horizon)
        self.drop = nn.Dropout(spec.dropout)
        for layer in (self.linear, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, past: Tensor, future: Tensor, series: Tensor | None = None) -> Tensor:
        """All steps (B, H) from past (B, L, C) and future (B, H, F)."""
        known, future = self.dates(past[:, :, self.first_known :]), self.dates(future)
        target = past[:, :, 0] - self.of_days(known)
        if self.training and self.noise:
            target = target + self.noise * step_size(target) * torch.randn_like(target)
        last = target[:, -1:]
        spread = (target.var(1, keepdim=True, correction=0) + TINY).sqrt()
        steps = self.steps((target - last) / spread)
        hidden = F.gelu(self.enter(torch.cat([steps, *self.covariates(past, known, future)], 1)))
        hidden = hidden + self.drop(F.gelu(self.hidden(hidden)))
        return last + spread * (self.linear(steps) + self.out(self.drop(hidden))) + self.of_days(future)

    def steps(self, shape: Tensor) -> Tensor:
        """What is seen (B, N) of the target (B, L)."""
        found = [self.pyramid(shape)]
        if self.num_seasons:
            seasons = shape[:, -self.num_seasons * self.season :].unflatten(1, (self.num_seasons, self.season))
            found.append(seasons[:, -1, self.places])
            if self.num_seasons > 1:
                found.append(seasons.mean(1)[:, self.places])
        return torch.cat(found, 1)

    def of_days(self, known: Tensor) -> Tensor | float:
        """How far single days move the target at each of their steps: the first of the numbers (..., F) learned of them."""
        return 0.0 if self.dates.at is None else known[..., self.dates.at]

    def covariates(self, past: Tensor, known: Tensor, future: Tensor) -> list[Tensor]:
        """What is seen of the covariates, each (B, some)."""
        seen = past[:, :, 1 : self.first_known]
        found = [known[:, -1], seen[:, -1], seen[:, -2:].mean(1), seen[:, -AGO:].mean(1)]
        return [*found, future.flatten(1)] if self.looks_ahead else found
