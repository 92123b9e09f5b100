"""Seasonal naive: the rival every model has to beat."""

import numpy as np


def seasonal_naive(past: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Forecasts (N, H) that repeat the last whole season of `past` (N, L), or its last value if that is shorter."""
    season = season if season <= past.shape[1] else 1
    last_season = past[:, past.shape[1] - season :]
    return np.tile(last_season, (1, -(-horizon // season)))[:, :horizon]


def from_a_season_ago(ago: np.ndarray, last: np.ndarray, horizon: int) -> np.ndarray:
    """The same (N, H) of values a season before the first steps (N, min(H, season)).

    Where one of these lies before a series began, NaN, the last value (N,) is repeated.
    """
    found = np.tile(ago, (1, -(-horizon // ago.shape[1])))[:, :horizon]
    return np.where(np.isnan(ago).any(1, keepdims=True), last[:, None], found)
