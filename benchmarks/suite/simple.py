"""Rivals that are lines: the last value, the last season, and NLinear.

Each takes a panel and the seeds, and gives its forecasts of the test origins. Axes in names: S series, N origins,
H horizon, B batch, L lookback.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from models.batches import gather
from models.naive import seasonal_naive
from suite.panel import Panel

SEASONS = (1, 2, 4, 8, 14)  # lookbacks that NLinear may choose
LONGEST_LOOKBACK = 1_400
FIRST_RATE = (3e-3, 0.0)  # learning rate and weight decay while lookbacks are compared
RATES = ((1e-3, 0.0), (1e-2, 0.0), (3e-2, 0.0), (1e-2, 0.1), (1e-2, 1.0))  # compared with it at the lookback chosen
STEPS, STEPS_A_LOOK, BATCH = 1_200, 100, 128


@dataclass(frozen=True)
class Outcome:
    """What one rival forecast, a seed each; a rival that draws nothing has one."""

    forecasts: list[np.ndarray]  # (S, N, H), in the target's unit
    seconds: list[float]  # of training and forecasting; choosing the settings is not counted
    chosen: str = ""  # on validation


def last_value(panel: Panel, num_seeds: int) -> Outcome:
    return Outcome([repeated(panel, 1)], [0.0])


def last_season(panel: Panel, num_seeds: int) -> Outcome:
    return Outcome([repeated(panel, panel.season)], [0.0])


def repeated(panel: Panel, season: int) -> np.ndarray:
    """Forecasts (S, N, H) that repeat the last `season` values."""
    forecasts = []
    for one in panel.series.values():
        past = one.filled[panel.origins(one, "test")[:, None] + np.arange(-season, 0)]
        forecasts.append(seasonal_naive(past, panel.horizon, season))
    return np.stack(forecasts)


class Lines:
    """All series of a panel in scaled space, and the windows of NLinear over them."""

    def __init__(self, panel: Panel):
        self.panel = panel
        self.mean, self.std = panel.moments()
        scaled = [(one.filled - m) / s for one, m, s in zip(panel.series.values(), self.mean, self.std, strict=True)]
        seen = [~np.isnan(one.target) for one in panel.series.values()]
        self.rows = torch.from_numpy(np.concatenate([np.stack(pair, 1) for pair in zip(scaled, seen, strict=True)])).float()
        self.first = np.cumsum([0, *(len(one) for one in panel.series.values())])

    def training(self, lookback: int) -> torch.Tensor:
        """First rows of the training windows of all series."""
        span = lookback + self.panel.horizon
        histories = self.panel.series.values()
        counts = [self.panel.num_training(one) - span + 1 for one in histories]
        return torch.cat([torch.arange(count) + at for count, at in zip(counts, self.first, strict=False)])

    def fold(self, fold: str, lookback: int) -> torch.Tensor:
        """First rows (S * N,) of the windows of a fold, series by series."""
        origins = [self.panel.origins(one, fold) + at for one, at in zip(self.panel.series.values(), self.first, strict=False)]
        return torch.from_numpy(np.concatenate(origins)) - lookback

    def forecast(self, weight: torch.Tensor, bias: torch.Tensor, fold: str) -> torch.Tensor:
        """Scaled forecasts (S * N, H)."""
        lookback = weight.shape[1]
        parts = [self.windows(starts, lookback)[0] for starts in self.fold(fold, lookback).split(256)]
        return torch.cat([nlinear(past, weight, bias) for past in parts])

    def windows(self, starts: torch.Tensor, lookback: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Past (B, L), target (B, H) and whether it was observed (B, H)."""
        cut = gather(self.rows, starts, lookback + self.panel.horizon)
        return cut[:, :lookback, 0], cut[:, lookback:, 0], cut[:, lookback:, 1]

    def validation_error(self, forecast: torch.Tensor) -> float:
        _, target, seen = self.windows(self.fold("validation", 1), 1)
        return ((forecast - target).abs() * seen).sum().item() / seen.sum().item()


def nlinear(past: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """All steps (B, H): the last value, and a linear map of how the past (B, L) differs from it.

    Source: Zeng et al. 2023, Are Transformers Effective for Time Series Forecasting?, NLinear.
    """
    last = past[:, -1:]
    return F.linear(past - last, weight, bias) + last


def fit_nlinear(lines: Lines, lookback: int, rate: float, decay: float, seed: int) -> tuple[float, list[torch.Tensor]]:
    """Validation error and weights of the best look, trained on absolute errors along a cosine."""
    generator = torch.Generator().manual_seed(seed)
    horizon, starts = lines.panel.horizon, lines.training(lookback)
    weights = [torch.zeros(horizon, lookback, requires_grad=True), torch.zeros(horizon, requires_grad=True)]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    best = (np.inf, [])
    for step in range(1, STEPS + 1):
        chosen = starts[torch.randint(len(starts), (BATCH,), generator=generator)]
        past, target, seen = lines.windows(chosen, lookback)
        loss = ((nlinear(past, *weights) - target).abs() * seen).sum() / seen.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % STEPS_A_LOOK == 0:
            with torch.no_grad():
                error = lines.validation_error(lines.forecast(*weights, "validation"))
            if error < best[0]:
                best = (error, [weight.detach().clone() for weight in weights])
    return best


def nlinear_rival(panel: Panel, num_seeds: int) -> Outcome:
    """NLinear over all series together; lookback first, then learning rate and weight decay, by the validation rows."""
    lines = Lines(panel)
    room = (min(panel.num_training(one) for one in panel.series.values()) - panel.horizon) * 2 // 3
    lookbacks = [most for count in SEASONS if (most := count * panel.season) <= min(room, LONGEST_LOOKBACK)] or [room]
    tried = {(lookback, *FIRST_RATE): fit_nlinear(lines, lookback, *FIRST_RATE, 0)[0] for lookback in lookbacks}
    lookback = min(tried, key=tried.get)[0]
    tried |= {(lookback, *pair): fit_nlinear(lines, lookback, *pair, 0)[0] for pair in RATES}
    best = min(tried, key=tried.get)
    forecasts, seconds = [], []
    for seed in range(num_seeds):
        began = time.perf_counter()
        _, weights = fit_nlinear(lines, *best, seed)
        scaled = lines.forecast(*weights, "test").numpy().reshape(len(panel.series), -1, panel.horizon)
        forecasts.append(scaled * lines.std[:, None, None] + lines.mean[:, None, None])
        seconds.append(time.perf_counter() - began)
    return Outcome(forecasts, seconds, f"lookback {best[0]}, learning rate {best[1]:g}, weight decay {best[2]:g}")
