"""Errors of many forecasts, added up piece by piece so that no backtest has to fit in memory."""

from collections.abc import Sequence

import numpy as np


class StepErrors:
    """Running sums over the forecasts of some series, by series and step; steps that were not observed do not count."""

    def __init__(self, horizon: int, naive_mae: Sequence[float | None]):
        """`naive_mae` is the scale of MASE of each series; None or zero where it has none."""
        self.naive_mae = [value or None for value in naive_mae]
        shape = (len(self.naive_mae), horizon)
        self.count, self.absolute, self.squared = np.zeros(shape), np.zeros(shape), np.zeros(shape)

    def add(self, series: np.ndarray, error: np.ndarray, seen: np.ndarray) -> None:
        """Add errors (N, H), forecast minus truth in the target's unit, of the series (N,); `seen` (N, H) says which count."""
        if not len(series):
            return
        kept = np.where(seen, error, 0.0)
        begins = np.flatnonzero(np.diff(series, prepend=series[0] - 1))  # of each run of one series
        sums = ((self.count, seen.astype(np.float64)), (self.absolute, np.abs(kept)), (self.squared, np.square(kept)))
        for own, values in sums:
            np.add.at(own, series[begins], np.add.reduceat(values, begins))

    def by_series(self, steps: int | None = None) -> tuple[list[float | None], list[float | None]]:
        """MAE and MASE of each series over the first `steps` steps; None where there is nothing to measure."""
        count, absolute = self.count[:, :steps].sum(1), self.absolute[:, :steps].sum(1)
        mae = [float(total / number) if number else None for total, number in zip(absolute, count, strict=True)]
        pairs = zip(mae, self.naive_mae, strict=True)
        return mae, [own / scale if own is not None and scale else None for own, scale in pairs]


def score(errors: StepErrors, steps: int) -> dict[str, float | None]:
    """MAE and RMSE over the first `steps` steps of every forecast, and the mean over series of MASE.

    MASE divides a series' MAE by its in-sample seasonal-naive MAE (Hyndman and Koehler 2006, eq. 3 with a season). Series
    that repeat themselves exactly have none, and are left out of the mean; it is None where no series has one.
    """
    count = max(errors.count[:, :steps].sum(), 1)
    scaled = [value for value in errors.by_series(steps)[1] if value is not None]
    return {
        "mae": float(errors.absolute[:, :steps].sum() / count),
        "rmse": float(np.sqrt(errors.squared[:, :steps].sum() / count)),
        "mase": float(np.mean(scaled)) if scaled else None,
    }


def score_steps(horizon: int, season: int) -> list[int]:
    """The numbers of steps that scores are given for: one, half a season, a season, the horizon."""
    return sorted({steps for steps in (1, season // 2, season, horizon) if 1 <= steps <= horizon})
