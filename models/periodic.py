"""Networks that forecast a series from its own past by its period. They see every channel up to the origin and nothing after.

Axes in names: B batch, L lookback, H horizon, C channels (target first), W steps in a period, N past and M future
periods, P patches of the past, D channels of the branch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dates import without_dates
from models.series import Columns
from models.specs import LinearSpec, PeriodicSpec
from models.windows import WindowSpec

TINY = 1e-5  # added to a variance before its root is divided by
UNKNOWN_PERIOD = 24  # steps that patches are measured by where a series has no season


class PeriodicMap(nn.Module):
    """A linear map (B, L) -> (B, H) that knows the period, in few weights.

    Smooth with one convolution over a period (it starts as a moving average), lay the past out as N whole periods, map
    those to the M periods of the horizon with the same N x M weights at each place in the period, and add a dense map of
    the last two periods. All maps start at zero. The whole is linear, so it is built as one matrix and applied at once.
    """

    def __init__(self, lookback: int, horizon: int, period: int):
        super().__init__()
        self.num_past, self.period = lookback // period, period
        num_future, kernel = -(-horizon // period), period + 1 - period % 2
        self.smooth = nn.Parameter(torch.full((kernel,), 1 / kernel))
        self.periods = nn.Parameter(torch.zeros(num_future, self.num_past))  # (M, N)
        self.recent = nn.Parameter(torch.zeros(min(2 * period, lookback), horizon))
        # Step `at` of the past reaches step h of the horizon through tap `at - first - h % W + kernel // 2` of its row.
        first = lookback - self.num_past * period
        at, step = torch.arange(lookback)[:, None], torch.arange(horizon)[None]
        tap = at - first - step % period + kernel // 2
        width = self.num_past * period + kernel - 1
        self.register_buffer("within", ((tap >= 0) & (tap < width)).float(), persistent=False)
        self.register_buffer("taps", tap.clamp(0, width - 1) + step // period * width, persistent=False)
        places = torch.arange(self.num_past)[:, None] * period + torch.arange(kernel)
        self.register_buffer("places", places.reshape(-1), persistent=False)

    def matrix(self) -> Tensor:
        """(L, H)"""
        num_future, kernel = len(self.periods), len(self.smooth)
        spread = (self.periods[:, :, None] * self.smooth).reshape(num_future, -1)
        rows = spread.new_zeros(num_future, self.num_past * self.period + kernel - 1).index_add(1, self.places, spread)
        return rows.reshape(-1)[self.taps] * self.within

    def forward(self, past: Tensor) -> Tensor:
        return past @ self.matrix() + past[:, -len(self.recent) :] @ self.recent


class PatchBranch(nn.Module):
    """Patches of the past through one residual convolution and a linear map to all steps, (B, C, L) -> (B, H).

    The map starts at zero, so that the branch only adds what it learns.
    """

    def __init__(self, num_inputs: int, lookback: int, horizon: int, patch: int, spec: PeriodicSpec):
        super().__init__()
        self.used = lookback // patch * patch
        self.stem = nn.Conv1d(num_inputs, spec.channels, patch, stride=patch)
        self.norm = nn.GroupNorm(1, spec.channels)
        self.wide = nn.Conv1d(spec.channels, spec.channels, 3, padding=1)
        self.drop, self.head_drop = nn.Dropout(spec.dropout), nn.Dropout(spec.head_dropout)
        self.head = nn.Linear(spec.channels * (lookback // patch), horizon)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, past: Tensor) -> Tensor:
        patches = self.stem(past[:, :, -self.used :])  # (B, D, P)
        patches = patches + self.drop(F.gelu(self.wide(self.norm(patches))))
        return self.head(self.head_drop(patches.flatten(1)))


class PeriodicNet(nn.Module):
    """A periodic linear map of each window's distance from its own mean, plus a convolutional branch.

    Source: the map follows the idea of SparseTSF (Lin et al. 2024), one map shared by all places in the period; centring
    and rescaling each window that of RevIN (Kim et al. 2022).
    """

    trained_steps = None  # all of them

    def __init__(self, spec: PeriodicSpec, columns: Columns, windows: WindowSpec, season: int):
        super().__init__()
        self.noise, self.rescale = spec.noise, spec.rescale
        self.date_at = None if columns.date_at is None else columns.first_known - 1 + columns.date_at  # behind the target
        period = period_of(season, windows)
        self.map = PeriodicMap(windows.lookback, windows.horizon, period)
        seen = windows.lookback if spec.branch == "all" else min(2 * period, windows.lookback)
        patch = max(1, min(period // 6, seen))
        self.branch = None
        if spec.branch != "none":
            self.branch = PatchBranch(columns.first_known + columns.num_measured, seen, windows.horizon, patch, spec)
        self.seen = seen

    def forward(self, past: Tensor, future: Tensor, series: Tensor | None = None) -> Tensor:
        """All steps (B, H) from past (B, L, C); the future covariates are not looked at."""
        target = past[:, :, 0]
        if self.training and self.noise:
            target = target + self.noise * step_size(target) * torch.randn_like(target)
        level = target.mean(1, keepdim=True)
        shape = target - level
        spread = (shape.square().mean(1, keepdim=True) + TINY).sqrt() if self.rescale else torch.ones_like(level)
        shape = shape / spread
        forecast = self.map(shape)
        if self.branch is not None:
            others = without_dates(past[:, -self.seen :, 1:], self.date_at).transpose(1, 2)
            forecast = forecast + self.branch(torch.cat([shape[:, None, -self.seen :], others], 1))
        return forecast * spread + level


def period_of(season: int, windows: WindowSpec) -> int:
    """Steps that the past is laid out by."""
    return season if 1 < season <= windows.lookback else min(UNKNOWN_PERIOD, windows.lookback)


def step_size(target: Tensor) -> Tensor:
    """(B, 1) how far a window (B, L) usually goes from one step to the next."""
    return target.diff(dim=1).square().mean(1, keepdim=True).sqrt() if target.shape[1] > 1 else torch.zeros_like(target)


class LinearNet(nn.Module):
    """NLinear: the last value, plus one linear map of how far each step of the past lies from it.

    Source: Zeng et al. 2023, "Are Transformers Effective for Time Series Forecasting?".
    """

    trained_steps = None

    def __init__(self, spec: LinearSpec, columns: Columns, windows: WindowSpec, season: int):
        super().__init__()
        self.noise = spec.noise
        self.map = nn.Linear(min(spec.lookback or windows.lookback, windows.lookback), windows.horizon)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        with torch.no_grad():  # begin as seasonal naive
            for step in range(windows.horizon):
                back = season - step % season
                if season > 1 and back <= self.map.in_features:
                    self.map.weight[step, -back] = 1.0

    def forward(self, past: Tensor, future: Tensor, series: Tensor | None = None) -> Tensor:
        """All steps (B, H) from past (B, L, C); only the target is looked at."""
        target = past[:, -self.map.in_features :, 0]
        last = target[:, -1:]
        if self.training and self.noise:
            target = target + self.noise * torch.randn_like(target)
        return self.map(target - last) + last
