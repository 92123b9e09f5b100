"""Which of several forecasts, or which mean of some, is the best on validation."""

from itertools import combinations

import numpy as np

from models.errors import Fault


def best_mean(forecasts: np.ndarray, target: np.ndarray, metric: str) -> tuple[tuple[int, ...], list[float]]:
    """The members whose mean has the lowest error, the fewest where several do, and the error of each member alone.

    Args:
        forecasts: (M, N, H)
        target: (N, H), NaN where it does not count.
        metric: rmse, or anything that grows with the absolute error.
    """
    if np.isnan(target).all():
        raise Fault("Every step of the validation fold is masked, so there is nothing to choose by. Set other folds.")
    numbers = range(len(forecasts))
    subsets = [subset for size in range(1, len(forecasts) + 1) for subset in combinations(numbers, size)]
    errors = [error_of(forecasts[list(subset)].mean(0), target, metric) for subset in subsets]
    return subsets[int(np.argmin(errors))], errors[: len(forecasts)]


def error_of(forecast: np.ndarray, target: np.ndarray, metric: str) -> float:
    """MAE, or RMSE, over the steps that count."""
    apart = forecast.astype(np.float64) - target
    return float(np.sqrt(np.nanmean(apart**2)) if metric == "rmse" else np.nanmean(np.abs(apart)))
