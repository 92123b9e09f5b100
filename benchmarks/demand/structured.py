"""LightGBM given the structure of the `residual` net: the fair rival.

    forecast = base + g(known channels) + past errors carried forward
    base:   demand at the same time of the nearest day before with the same WorkDay
    g:      trees, which see temperature and its difference from the last three such days, WorkDay, clock and calendar, and
            how those days differed in demand
    carry:  one ridge map of the last 48 errors (demand - base - g) to the next 48

So that the errors it is fitted to are those of rows not learned from, g is told out of fold on the training rows. As the net,
the trees are shown copies of the training rows whose temperature is shifted day by day.

Axes in names: R rows, N origins, H horizon, E features.
"""

import time
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd

from demand.year import FIRST_TEST, FIRST_VALIDATION, LONGEST, ORIGINS, SEASON, continued

LIKE_DAYS, LOOKED_BACK = 3, 14
FIRST = 14 * SEASON  # rows before it lack a past
FOLDS, APART = 5, 2 * SEASON  # rows between those learned from and those told
HALF_LIFE = 4  # rows, of the smoothed temperature
COPIES, SHIFT = 3, 0.2  # jittered copies; standard deviations of temperature
HOT, COLD = 20.0, 14.0  # degrees from which demand rises
CARRIES = (3.0, 30.0, 300.0)  # weights of the ridge
GRID = (  # of which the validation rows choose
    {"num_leaves": 15, "learning_rate": 0.05, "objective": "l1", "num_iterations": 300},
    {"num_leaves": 31, "learning_rate": 0.05, "objective": "l2", "num_iterations": 200},
    {"num_leaves": 31, "learning_rate": 0.03, "objective": "l2", "num_iterations": 600},
    {"num_leaves": 63, "learning_rate": 0.03, "objective": "l2", "num_iterations": 500},
)
SETTINGS = {
    "min_data_in_leaf": 100,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


class Known:
    """What is known of each row of the year before it has happened, but for its temperature."""

    def __init__(self, year: pd.DataFrame):
        year = continued(year)
        self.demand, self.temperature = year["Demand"].to_numpy(), year["Temperature"].to_numpy()
        self.rows = np.arange(len(year))
        working = year["WorkDay"].to_numpy().astype(int)
        self.like = like_rows(working)
        self.base = self.demand[self.like[:, 0]]
        self.smooth = year["Temperature"].ewm(halflife=HALF_LIFE, adjust=False).mean().to_numpy()
        week = year["Demand"].rolling(7 * SEASON, min_periods=1).mean().to_numpy()
        level = np.concatenate([week[:1].repeat(SEASON), week[:-SEASON]])  # as of a day before
        days = working.reshape(-1, SEASON)[:, 0]
        before, after = np.concatenate([days[:1], days[:-1]]), np.concatenate([days[1:], [1]])
        told = [working, before.repeat(SEASON), after.repeat(SEASON), self.rows % SEASON, self.rows // SEASON % 7]
        told += [self.rows - self.like[:, 0], self.base - level]
        told += [self.demand[self.like[:, other]] - self.base for other in range(1, LIKE_DAYS)]
        self.told = np.stack(told, -1).astype(np.float64)

    def features(self, rows: np.ndarray, temperature: np.ndarray, smooth: np.ndarray) -> np.ndarray:
        """Features (..., E) of rows of any shape, whose temperature, plain and smoothed, is as given."""
        hot, cold = above(smooth), below(smooth)
        told = [temperature, smooth, above(temperature), below(temperature)]
        for day in range(LIKE_DAYS):
            like = self.like[rows, day]
            told += [temperature - self.temperature[like], smooth - self.smooth[like]]
        like = self.like[rows, 0]
        told += [hot - above(self.smooth[like]), cold - below(self.smooth[like])]
        return np.concatenate([self.told[rows], np.stack(told, -1)], -1)

    def smoothed(self, origins: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """The smoothed temperature (N, H) when that of the horizon is `ahead` (N, H)."""
        kept, last, smooth = 0.5 ** (1 / HALF_LIFE), self.smooth[origins - 1], np.empty_like(ahead)
        for step in range(ahead.shape[1]):
            smooth[:, step] = last = kept * last + (1 - kept) * ahead[:, step]
        return smooth


def above(temperature: np.ndarray) -> np.ndarray:
    return np.maximum(temperature - HOT, 0)


def below(temperature: np.ndarray) -> np.ndarray:
    return np.maximum(COLD - temperature, 0)


def like_rows(working: np.ndarray) -> np.ndarray:
    """The rows (R, 3), nearest first, of the same time of earlier days with the same WorkDay; else of a week before."""
    rows = np.arange(len(working))
    like = np.maximum(np.repeat(rows[:, None] - 7 * SEASON, LIKE_DAYS, 1), 0)
    found = np.zeros(len(rows), int)
    for back in range(SEASON, (LOOKED_BACK + 1) * SEASON, SEASON):
        alike = (rows >= back) & (working[np.maximum(rows - back, 0)] == working) & (found < LIKE_DAYS)
        like[rows[alike], found[alike]] = rows[alike] - back
        found += alike
    return like


@dataclass
class Structured:
    """The rival, trained: trees, what they and the base leave of each row, and how errors are carried."""

    known: Known
    settings: dict
    seed: int
    carry: np.ndarray = field(init=False)  # (48, H)

    def __post_init__(self):
        known, rng = self.known, np.random.default_rng(self.seed)
        shifts = SHIFT * known.temperature[:FIRST_VALIDATION].std() * rng.standard_normal((COPIES, len(known.rows) // SEASON))
        self.features = known.features(known.rows, known.temperature, known.smooth)
        self.jittered = [self.features, *(self._shifted(shift.repeat(SEASON)) for shift in shifts)]
        learned = np.arange(FIRST, FIRST_VALIDATION)
        self.trees = self._learn(learned)
        g = self.trees.predict(self.features)
        edges = np.linspace(FIRST, FIRST_VALIDATION, FOLDS + 1).astype(int)
        for low, high in pairwise(edges):
            others = learned[(learned < low - APART) | (learned >= high + APART)]
            g[low:high] = self._learn(others).predict(self.features[low:high])
        self.errors = known.demand - known.base - g

    def _shifted(self, shift: np.ndarray) -> np.ndarray:
        temperature = self.known.temperature + shift
        smooth = pd.Series(temperature).ewm(halflife=HALF_LIFE, adjust=False).mean().to_numpy()
        return self.known.features(self.known.rows, temperature, smooth)

    def _learn(self, rows: np.ndarray):
        import lightgbm

        features = np.concatenate([copy[rows] for copy in self.jittered])
        answers = np.tile((self.known.demand - self.known.base)[rows], len(self.jittered))
        return lightgbm.train(SETTINGS | self.settings | {"seed": self.seed}, lightgbm.Dataset(features, answers))

    def carried(self, ridge: float) -> "Structured":
        """Itself, with errors carried forward by a map fitted on the training rows."""
        origins = np.arange(FIRST + APART, FIRST_VALIDATION - LONGEST + 1)
        past, ahead = self.errors[self.before(origins)], self.errors[origins[:, None] + np.arange(LONGEST)]
        self.carry = np.linalg.solve(past.T @ past + ridge * np.eye(SEASON), past.T @ ahead)
        return self

    @staticmethod
    def before(origins: np.ndarray) -> np.ndarray:
        return origins[:, None] + np.arange(-SEASON, 0)

    def forecast(self, origins: np.ndarray = ORIGINS, temperature: np.ndarray | None = None) -> np.ndarray:
        """Demand (N, H) after each origin; `temperature` (N, H) is what the horizon's is taken to be, else the true one."""
        rows = origins[:, None] + np.arange(LONGEST)
        ahead = self.known.temperature[rows] if temperature is None else temperature
        features = self.known.features(rows, ahead, self.known.smoothed(origins, ahead))
        g = self.trees.predict(features.reshape(-1, features.shape[-1])).reshape(rows.shape)
        return self.known.base[rows] + g + self.errors[self.before(origins)] @ self.carry


def choose(known: Known) -> tuple[dict, float]:
    """The settings and the ridge of the lowest error on the validation rows, 48 steps ahead."""
    origins = np.arange(FIRST_VALIDATION, FIRST_TEST - LONGEST + 1)
    truth = known.demand[origins[:, None] + np.arange(LONGEST)]
    tried = {}
    for number, settings in enumerate(GRID):
        trained = Structured(known, settings, 0)
        for ridge in CARRIES:
            tried[number, ridge] = np.abs(trained.carried(ridge).forecast(origins) - truth).mean()
    number, ridge = min(tried, key=tried.get)
    return GRID[number], ridge


def structured(year: pd.DataFrame, num_seeds: int) -> tuple[list[Structured], list[tuple[float, float]], str]:
    """The rival once a seed, the seconds and CPU-seconds of each, and what was chosen."""
    known = Known(year)
    settings, ridge = choose(known)
    trained, seconds = [], []
    for seed in range(num_seeds):
        wall, cpu = time.perf_counter(), time.process_time()
        trained.append(Structured(known, settings, seed).carried(ridge))
        seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    return trained, seconds, ", ".join(f"{name} {value}" for name, value in settings.items()) + f", ridge {ridge:g}"
