"""A regression on what is known ahead whose errors are forecast by their period.

Axes in names: B batch, L lookback, H horizon, C channels (target first), F covariates known over the horizon.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dates import Dates
from models.errors import Fault
from models.periodic import PeriodicMap, period_of, step_size
from models.series import Columns
from models.specs import RegressionSpec
from models.windows import WindowSpec


class RegressionNet(nn.Module):
    """Dynamic regression: what covariates explain of a step, and a periodic linear map of what they leave of the past.

    g:        the same small network for every step, from the covariates of that step alone
    errors:   target - g over the lookback, about their own mean
    forecast: g of the future steps, the mean of the errors, and the map of how they lie about it

    g and the map start at zero, so the net starts as the mean of each window and learns what that misses.
    """

    trained_steps = None  # all of them

    def __init__(self, spec: RegressionSpec, columns: Columns, windows: WindowSpec, season: int):
        super().__init__()
        if not columns.known:
            raise Fault(
                "network.kind 'regression' needs covariates known ahead, and it has none here. Name some under "
                "source.future_covariates or source.calendar, or use network.kind 'periodic'."
            )
        self.noise, self.lookback, self.first_known = spec.noise, windows.lookback, columns.first_known
        self.map = PeriodicMap(windows.lookback, windows.horizon, period_of(season, windows))
        self.dates = Dates(columns)
        self.linear = nn.Linear(len(columns.known), 1, bias=False)
        self.hidden = nn.Linear(len(columns.known), spec.width)
        self.out = nn.Linear(spec.width, 1, bias=False)
        for layer in (self.linear, self.out):
            nn.init.zeros_(layer.weight)

    def forward(self, past: Tensor, future: Tensor, series: Tensor | None = None) -> Tensor:
        """All steps (B, H) from past (B, L, C) and future (B, H, F); past covariates are not looked at."""
        target = past[:, :, 0]
        if self.training and self.noise:
            target = target + self.noise * step_size(target) * torch.randn_like(target)
        explained = self.explained(torch.cat([past[:, :, self.first_known :], future], 1))  # (B, L + H)
        errors = target - explained[:, : self.lookback]
        level = errors.mean(1, keepdim=True)
        return explained[:, self.lookback :] + level + self.map(errors - level)

    def explained(self, known: Tensor) -> Tensor:
        """What covariates (..., F) explain of their own steps (...)."""
        known = self.dates(known)
        return (self.linear(known) + self.out(F.gelu(self.hidden(known)))).squeeze(-1)
