"""LightGBM with lags: one model for all series and steps, the step being a feature.

Axes in names: K pairs of an origin and a step, S series, N origins, H horizon.
"""

import time
from typing import Literal, get_args

import numpy as np
import pandas as pd

from suite.panel import History, Panel
from suite.simple import Outcome

Base = Literal["last", "season", "drift"]
RECENT = (1, 2, 3, 4, 5, 6, 8, 12)  # rows before the first one forecast
MOST_TRAINING, MOST_VALIDATION = 60_000, 20_000  # pairs
ROUNDS, PATIENCE = 1_000, 50
LEAVES = (8, 16, 31)  # that may be chosen
SETTINGS = {
    "objective": "l1",
    "learning_rate": 0.05,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


class Lagged:
    """One scaled series, and the features of any pairs of a first forecast row and a step."""

    def __init__(self, panel: Panel, number: int, one: History, mean: float, std: float):
        self.season, self.horizon, self.number = panel.season, panel.horizon, number
        self.one, self.filled, self.target = one, (one.filled - mean) / std, (one.target - mean) / std
        self.sums = np.concatenate([[0.0], np.cumsum(self.filled)])
        self.calendar = calendar_of(one.stamps)

    def at(self, rows: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The target at `rows`, NaN where a row was not observed, has no history, or is not `before` the origin."""
        usable = (rows >= 0) & (rows < before)
        return np.where(usable, self.target[np.where(usable, rows, 0)], np.nan)

    def mean_of(self, origins: np.ndarray, count: int) -> np.ndarray:
        """Mean of the last `count` rows, or of as many as there are."""
        first = np.maximum(origins - count, 0)
        return (self.sums[origins] - self.sums[first]) / np.maximum(origins - first, 1)

    def like_row(self, origins: np.ndarray, steps: np.ndarray, period: int) -> np.ndarray:
        """The latest row whole periods before the forecast one that lies before the origin."""
        return origins + steps - period * (steps // period + 1)

    def base(self, origins: np.ndarray, steps: np.ndarray, base: Base) -> np.ndarray:
        """What the trees, which never forecast beyond what they saw, correct (K,).

        The last value; or the latest one of the same moment of a season; or that and what the last value gained on the
        one a season before it.
        """
        last, like = self.filled[origins - 1], np.maximum(self.like_row(origins, steps, self.season), 0)
        if base == "last":
            return last
        return self.filled[like] + (last - self.filled[np.maximum(origins - 1 - self.season, 0)] if base == "drift" else 0.0)

    def features(self, origins: np.ndarray, steps: np.ndarray, base: Base) -> np.ndarray:
        """Features (K, some) of first forecast rows `origins` (K,) and `steps` (K,) from 0; lags are told from the base."""
        level, rows = self.base(origins, steps, base), origins + steps
        like = self.like_row(origins, steps, self.season)
        week = self.like_row(origins, steps, 7 * self.season)  # where a season is a day
        lags = [origins - back for back in RECENT] + [origins - self.season * many for many in (1, 2)]
        lags += [like - self.season * many for many in range(4)] + [like - 1, like + 1, week, week - 7 * self.season]
        told = [self.at(lag, origins) - level for lag in lags]
        told += [self.mean_of(origins, many) - level for many in (4, self.season, 2 * self.season, 7 * self.season)]
        told += [self.at(origins - 1, origins) - self.at(origins - 1 - self.season, origins)]
        told += [self.mean_of(origins, self.season) - self.mean_of(np.maximum(origins - self.season, 1), self.season)]
        told += [level, steps, *self.calendar[rows].T, *self.covariates(origins, rows, np.maximum(like, 0))]
        return np.stack([np.full(len(rows), self.number), *told], 1)

    def covariates(self, origins: np.ndarray, rows: np.ndarray, like: np.ndarray) -> list[np.ndarray]:
        """Known covariates of the row, of its neighbours and against the like row; past ones at the origin."""
        told = []
        for known in self.one.future.T:
            near = [known[np.clip(rows + shift, 0, len(known) - 1)] for shift in (-self.season, -1, 1)]
            told += [known[rows], known[rows] - known[like], *near]
        for seen in self.one.past.T:
            told += [seen[origins - 1], *(seen[np.maximum(origins - back, 0)] for back in (2, 4, 7))]
        return told


def calendar_of(stamps: pd.DatetimeIndex) -> np.ndarray:
    """Time of day, weekday, day of month and day of year (R, 4)."""
    return np.stack([stamps.hour * 60 + stamps.minute, stamps.day_of_week, stamps.day, stamps.day_of_year], 1).astype(
        np.float64
    )


Pairs = list[tuple[np.ndarray, np.ndarray]]  # origins and steps, a series each


def every_pair(panel: Panel, fold: str, most: int | None = None) -> Pairs:
    """Origins and steps of a fold, series by series; an even selection of very many."""
    pairs = []
    for one in panel.series.values():
        origins = panel.origins(one, fold)
        every = max(1, -(-len(origins) * panel.horizon * len(panel.series) // most)) if most else 1
        steps = np.tile(np.arange(panel.horizon), len(origins))
        pairs.append((np.repeat(origins, panel.horizon)[::every], steps[::every]))
    return pairs


def training_pairs(panel: Panel) -> Pairs:
    """Origins and steps whose rows are all training rows, at random where there are very many."""
    rng = np.random.default_rng(0)
    histories = list(panel.series.values())
    shares = np.array([panel.num_training(one) for one in histories])
    pairs = []
    for one, share in zip(histories, shares / shares.sum(), strict=True):
        origins = np.arange(panel.season, panel.num_training(one) - panel.horizon + 1)
        count, most = len(origins) * panel.horizon, int(MOST_TRAINING * share)
        chosen = np.sort(rng.choice(count, most, replace=False)) if count > most else np.arange(count)
        pairs.append((origins[chosen // panel.horizon], chosen % panel.horizon))
    return pairs


def table(lagged: list[Lagged], pairs: Pairs, base: Base) -> tuple[np.ndarray, np.ndarray]:
    """Features and answers of the pairs of all series whose target was observed."""
    features = np.concatenate([one.features(*pair, base) for one, pair in zip(lagged, pairs, strict=True)])
    answers = [one.target[o + k] - one.base(o, k, base) for one, (o, k) in zip(lagged, pairs, strict=True)]
    kept = ~np.isnan(answers := np.concatenate(answers))
    return features[kept], answers[kept]


class Trees:
    """Training and validation rows of LightGBM on one base."""

    def __init__(self, panel: Panel, base: Base):
        import lightgbm

        self.lightgbm, self.panel, self.base = lightgbm, panel, base
        scales = zip(panel.series.values(), *panel.moments(), strict=True)
        self.lagged = [Lagged(panel, number, *one) for number, one in enumerate(scales)]
        features, answers = table(self.lagged, training_pairs(panel), base)
        kinds = [0] if len(self.lagged) > 1 else []  # the number of the series is a category
        self.leaf = 100 if len(answers) > 5_000 else 20
        self.train = lightgbm.Dataset(features, answers, categorical_feature=kinds, free_raw_data=False)
        looked_at = table(self.lagged, every_pair(panel, "validation", MOST_VALIDATION), base)
        self.validation = self.train.create_valid(*looked_at)

    def fit(self, leaves: int, seed: int):
        """A model whose rounds were stopped on the validation rows."""
        settings = SETTINGS | {"num_leaves": leaves, "seed": seed, "min_data_in_leaf": self.leaf}
        stop = self.lightgbm.early_stopping(PATIENCE, verbose=False)
        return self.lightgbm.train(settings, self.train, ROUNDS, valid_sets=[self.validation], callbacks=[stop])

    def forecast(self, model) -> np.ndarray:
        """Scaled forecasts (S, N, H) of the test fold."""
        forecasts = []
        for one, pair in zip(self.lagged, every_pair(self.panel, "test"), strict=True):
            forecast = model.predict(one.features(*pair, self.base)) + one.base(*pair, self.base)
            forecasts.append(forecast.reshape(-1, self.panel.horizon))
        return np.stack(forecasts)


def lightgbm_rival(panel: Panel, num_seeds: int) -> Outcome:
    """LightGBM whose base and number of leaves are chosen on the validation rows."""
    tried = {}
    for base in get_args(Base):
        trees = Trees(panel, base)
        tried |= {(base, leaves): trees.fit(leaves, 0).best_score["valid_0"]["l1"] for leaves in LEAVES}
    base, leaves = min(tried, key=tried.get)
    mean, std = (scale[:, None, None] for scale in panel.moments())
    forecasts, seconds = [], []
    for seed in range(num_seeds):
        began = time.perf_counter()
        trees = Trees(panel, base)
        forecasts.append(trees.forecast(trees.fit(leaves, seed)) * std + mean)
        seconds.append(time.perf_counter() - began)
    return Outcome(forecasts, seconds, f"base {base}, {leaves} leaves")
