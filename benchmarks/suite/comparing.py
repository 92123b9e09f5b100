"""Scores of forecasts of a panel, and whether one model's lead over another could be chance.

Axes in names: S series, N origins, H horizon.
"""

from dataclasses import dataclass

import numpy as np

from models.metrics import StepErrors, score
from suite.panel import Panel

DRAWS = 10_000
FEWEST = 3  # blocks, or series, that an interval may be drawn from


def scores_of(forecast: np.ndarray, panel: Panel) -> dict[str, float | None]:
    """MAE, RMSE and MASE of forecasts (S, N, H) of the test fold; steps that were not observed do not count."""
    truth = panel.truth("test")
    errors = StepErrors(panel.horizon, panel.naive_mae())
    for number, (own, true) in enumerate(zip(forecast, truth, strict=True)):
        errors.add(np.full(len(own), number), own - true, ~np.isnan(true))
    return score(errors, panel.horizon)


@dataclass(frozen=True)
class Lead:
    """Mean absolute error of one model minus another's, negative where the first is better, with a 95 % interval."""

    difference: float
    low: float
    high: float
    drawn: str  # what the interval was drawn from


def lead(one: list[np.ndarray], other: list[np.ndarray], panel: Panel) -> Lead:
    """How the forecasts (S, N, H) of one model, a seed each, compare with another's; errors are averaged over seeds.

    Drawn are blocks of neighbouring origins, all series together and around the end: a week of them, or two horizons where a
    step is a day or longer. Where the test rows hold fewer than three such blocks, whole series are drawn instead; where
    there are fewer than three of these too, there is no interval (NaN).
    """
    truth = panel.truth("test")
    seen = ~np.isnan(truth)
    gap = np.mean([np.abs(own - truth) for own in one], 0) - np.mean([np.abs(own - truth) for own in other], 0)
    total, count = np.where(seen, gap, 0.0).sum(2), seen.sum(2).astype(np.float64)  # (S, N)
    difference = total.sum() / count.sum()
    rows = max(7 * panel.season, panel.horizon) if panel.finer_than_days else 2 * panel.horizon
    block = -(-rows // panel.stride)
    rng = np.random.default_rng(0)
    if (num_blocks := total.shape[1] / block) >= FEWEST:
        firsts = rng.integers(0, total.shape[1], (DRAWS, round(num_blocks)))
        means = blocks_of(total.sum(0), firsts, block) / blocks_of(count.sum(0), firsts, block)
        drawn = f"{num_blocks:.0f} blocks"
    elif len(total) >= FEWEST:
        chosen = rng.integers(0, len(total), (DRAWS, len(total)))
        means = total.sum(1)[chosen].sum(1) / count.sum(1)[chosen].sum(1)
        drawn = f"{len(total)} series"
    else:
        return Lead(difference, np.nan, np.nan, "too few rows")
    return Lead(difference, *np.quantile(means, [0.025, 0.975]).tolist(), drawn)


def blocks_of(values: np.ndarray, firsts: np.ndarray, block: int) -> np.ndarray:
    """Sums (draws,) over blocks of `values` (N,) that begin at `firsts` (draws, blocks), going around the end."""
    around = np.concatenate([[0.0], np.cumsum(np.tile(values, 2))])
    return (around[firsts + block] - around[firsts]).sum(1)
