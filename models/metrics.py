"""Errors of many forecasts, added up piece by piece so that no backtest has to fit in memory."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class StepErrors:
    """Running sums over the forecasts of one series, by step."""

    horizon: int
    naive_mae: float  # the scale of MASE
    num_forecasts: int = 0
    absolute: np.ndarray = field(init=False)  # (H,)
    squared: np.ndarray = field(init=False)  # (H,)

    def __post_init__(self):
        self.absolute = np.zeros(self.horizon)
        self.squared = np.zeros(self.horizon)

    def add(self, error: np.ndarray) -> None:
        """Add errors (N, H), forecast minus truth, in the target's unit."""
        self.num_forecasts += len(error)
        self.absolute += np.abs(error).sum(0)
        self.squared += np.square(error).sum(0)


def score(series: list[StepErrors], steps: int) -> dict[str, float | None]:
    """MAE and RMSE over the first `steps` steps of every forecast, and the mean over series of MASE.

    MASE divides a series' MAE by its in-sample seasonal-naive MAE (Hyndman and Koehler 2006, eq. 3 with a season);
    it is None where a series repeats itself exactly and that error is zero.
    """
    forecasts = sum(errors.num_forecasts for errors in series) * steps
    absolute = [errors.absolute[:steps].sum() for errors in series]
    defined = all(errors.naive_mae > 0 for errors in series)
    scaled = [
        total / (errors.num_forecasts * steps) / errors.naive_mae
        for total, errors in zip(absolute, series, strict=True)
        if defined
    ]
    return {
        "mae": float(sum(absolute) / forecasts),
        "rmse": float(np.sqrt(sum(errors.squared[:steps].sum() for errors in series) / forecasts)),
        "mase": float(np.mean(scaled)) if defined else None,
    }
