"""Which of several forecasts, or which mean of some, is the best on validation."""

from itertools import combinations

import numpy as np

from models.errors import Fault


def best_mean(
    forecasts: np.ndarray, target: np.ndarray, metric: str, spacing: int = 1, floors: np.ndarray | float = -np.inf
) -> tuple[tuple[int, ...], list[float]]:
    """The members whose mean to forecast with, and the error of each member alone.

    Of all means that are not clearly worse than the best one, that of the most members is taken, and of those the best:
    where validation can not tell, a mean is the safer bet. Clearly worse is by more than one standard error of the
    difference, counting only as many windows as share no step with one another.

    Args:
        forecasts: (M, N, H)
        target: (N, H), NaN where it does not count; neighbours in time lie next to each other.
        metric: rmse, or anything that grows with the absolute error.
        spacing: steps between the origins of neighbours.
        floors: below which no mean is taken to lie, one for all or (N, 1).

    Raises:
        Fault: no step counts.
    """
    seen = ~np.isnan(target).all(1)
    if not seen.any():
        raise Fault("Every step of the validation fold is masked, so there is nothing to choose by. Set other folds.")
    numbers = range(len(forecasts))
    subsets = [subset for size in range(1, len(forecasts) + 1) for subset in combinations(numbers, size)]
    stopped = (np.maximum(forecasts[list(subset)].mean(0), floors) for subset in subsets)
    losses = [losses_of(forecast[seen], target[seen], metric) for forecast in stopped]
    means = [float(own.mean()) for own in losses]
    best = losses[int(np.argmin(means))]
    alone = independent(int(seen.sum()), target.shape[1], spacing)
    fair = [at for at, own in enumerate(losses) if (own - best).mean() <= (own - best).std() / np.sqrt(alone)]
    chosen = min(fair, key=lambda at: (-len(subsets[at]), means[at]))
    return subsets[chosen], [error_of(np.maximum(forecasts[at], floors), target, metric) for at in numbers]


def independent(num_windows: int, horizon: int, spacing: int) -> float:
    """How many of these windows share no step, where neighbours are `spacing` steps apart."""
    return max(1.0, num_windows * min(1.0, spacing / horizon))


def losses_of(forecast: np.ndarray, target: np.ndarray, metric: str) -> np.ndarray:
    """The mean absolute, or squared, error (N,) of each window over the steps that count."""
    apart = forecast.astype(np.float64) - target
    return np.nanmean(apart**2 if metric == "rmse" else np.abs(apart), 1)


def error_of(forecast: np.ndarray, target: np.ndarray, metric: str) -> float:
    """MAE, or RMSE, over the steps that count."""
    apart = forecast.astype(np.float64) - target
    return float(np.sqrt(np.nanmean(apart**2)) if metric == "rmse" else np.nanmean(np.abs(apart)))
