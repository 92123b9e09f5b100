"""One forecasting data set of the suite: its series, its folds, and the origins that everything is scored from.

Axes in names: S series, N origins, H horizon.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
import pandas as pd

from models.scaling import NaiveError
from models.windows import FoldSpec
from tasks.ingest.timeline import fixed_seconds, parse_offset

MOST_WINDOWS = 2_000  # of a fold, all series together; more are thinned out evenly


@dataclass(frozen=True)
class History:
    """One series, a row a step, regular; its stamps are those of the local clock."""

    stamps: pd.DatetimeIndex
    target: np.ndarray  # (R,) float64; NaN where it was not observed, never at the first row
    future: np.ndarray  # (R, F) covariates known over the horizon too
    past: np.ndarray  # (R, P) covariates known up to the origin

    def __len__(self) -> int:
        return len(self.target)

    @cached_property
    def filled(self) -> np.ndarray:
        """The target (R,), an absent value being the last one before it."""
        return pd.Series(self.target).ffill().to_numpy()


@dataclass(frozen=True)
class Panel:
    """A data set with the season and the horizon that a newcomer would give."""

    name: str
    about: str
    frequency: str  # pandas alias
    season: int
    horizon: int
    series: Mapping[str, History]
    future: tuple[str, ...] = ()
    past: tuple[str, ...] = ()

    @cached_property
    def shortest(self) -> int:
        return min(len(one) for one in self.series.values())

    @cached_property
    def folds(self) -> FoldSpec:
        """A tenth of the shortest series to validate on and a tenth to test on, two horizons each at least."""
        steps = max(self.shortest // 10, 2 * self.horizon)
        return FoldSpec(validation=steps, test=steps)

    @property
    def finer_than_days(self) -> bool:
        return fixed_seconds(parse_offset(self.frequency)) is not None

    @property
    def masked(self) -> bool:
        return any(np.isnan(one.target).any() for one in self.series.values())

    def num_training(self, history: History) -> int:
        """Rows of a series before its validation fold."""
        return len(history) - self.folds.validation - self.folds.test

    @property
    def stride(self) -> int:
        """Rows between the origins of a fold: few enough, and such that every moment of a season has its turn."""
        windows = (self.folds.test - self.horizon + 1) * len(self.series)
        stride = max(1, -(-windows // MOST_WINDOWS))
        while gcd(stride, self.season) > 1:
            stride += 1
        return stride

    def origins(self, history: History, fold: str) -> np.ndarray:
        """First forecast rows (N,) of one fold, oldest first: as many for every series, the last ones always among them."""
        end = len(history) - (self.folds.test if fold == "validation" else 0)
        steps = self.folds.validation if fold == "validation" else self.folds.test
        return np.arange(end - self.horizon, end - steps - 1, -self.stride)[::-1]

    def truth(self, fold: str) -> np.ndarray:
        """What happened (S, N, H), NaN where nothing was observed."""
        steps = np.arange(self.horizon)
        return np.stack([one.target[self.origins(one, fold)[:, None] + steps] for one in self.series.values()])

    def naive_mae(self) -> list[float | None]:
        """The scale of MASE of each series: its seasonal-naive error over the training rows."""
        scales = []
        for one in self.series.values():
            error = NaiveError(self.season)
            error.add(one.target[: self.num_training(one)])
            scales.append(error.mae)
        return scales

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (S,) of each target over its training rows; 1 where it never changes."""
        rows = [one.target[: self.num_training(one)] for one in self.series.values()]
        std = np.array([np.nanstd(one) for one in rows])
        return np.array([np.nanmean(one) for one in rows]), np.where(std > 0, std, 1.0)


def history(
    stamps: pd.DatetimeIndex, target: np.ndarray, future: np.ndarray | None = None, past: np.ndarray | None = None
) -> History:
    """A series from its first observed row to its last."""
    target = np.asarray(target, np.float64)
    seen = np.flatnonzero(~np.isnan(target))
    kept = slice(seen[0], seen[-1] + 1)
    none = np.empty((len(target), 0))
    covariates = [none if one is None else np.asarray(one, np.float64).reshape(len(target), -1) for one in (future, past)]
    return History(stamps[kept], target[kept], *(one[kept] for one in covariates))
