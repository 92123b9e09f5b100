"""Errors of many forecasts, added up piece by piece so that no backtest has to fit in memory."""

from collections.abc import Mapping, Sequence

import numpy as np

from models.conformal import Calibration, Rolling, Settled

MOST_SETTLED = 1_000  # series whose quantiles go on from one fold to the next


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
    that repeat themselves exactly have none, and are left out of the mean; it is None where no series has one. All are None
    where none of these steps was observed.
    """
    count = errors.count[:, :steps].sum()
    if not count:
        return {"mae": None, "rmse": None, "mase": None}
    scaled = [value for value in errors.by_series(steps)[1] if value is not None]
    return {
        "mae": float(errors.absolute[:, :steps].sum() / count),
        "rmse": float(np.sqrt(errors.squared[:, :steps].sum() / count)),
        "mase": float(np.mean(scaled)) if scaled else None,
    }


def score_steps(horizon: int, *seasons: int) -> list[int]:
    """The numbers of steps that scores are given for: one, half a season, a season, the horizon."""
    steps = {1, horizon, *seasons, *(season // 2 for season in seasons)}
    return sorted(one for one in steps if 1 <= one <= horizon)


class QuantileErrors:
    """Running sums over forecasts with quantiles, by step; steps that were not observed do not count."""

    def __init__(self, levels: Sequence[float], horizon: int):
        self.levels = np.asarray(levels)
        self.count, self.size = np.zeros(horizon), np.zeros(horizon)  # steps, and sum of the absolute truth
        self.loss = np.zeros((horizon, len(levels)))
        self.pairs = central(levels)
        self.inside, self.width = (np.zeros((horizon, len(self.pairs))) for _ in range(2))

    def add(self, quantiles: np.ndarray, truth: np.ndarray, seen: np.ndarray) -> None:
        """Add quantiles (N, H, Q) of the truth (N, H); `seen` (N, H) says which steps count."""
        truth, kept = np.where(seen, truth, 0.0), seen[:, :, None]
        self.count += seen.sum(0)
        self.size += np.abs(truth).sum(0)
        apart = truth[:, :, None] - quantiles
        self.loss += np.where(kept, np.maximum(self.levels * apart, (self.levels - 1) * apart), 0.0).sum(0)
        low, high = (quantiles[:, :, [pair[side] for pair in self.pairs.values()]] for side in (0, 1))
        self.inside += ((truth[:, :, None] >= low) & (truth[:, :, None] <= high) & kept).sum(0)
        self.width += np.where(kept, high - low, 0.0).sum(0)

    def score(self, steps: int) -> dict[str, float | None]:
        """CRPS and WQL over the first so many steps.

        CRPS is twice the pinball loss, integrated over the levels by trapezes that end in 0 at levels 0 and 1 (Gneiting and
        Ranjan 2011, eq. 10). WQL is twice the pinball loss, a mean over levels, divided by the mean absolute truth (Salinas
        et al. 2020); None where that is zero, and both where none of these steps was observed.
        """
        count = self.count[:steps].sum()
        if not count:
            return {"crps": None, "wql": None}
        loss = self.loss[:steps].sum(0) / count
        around = np.concatenate([[0.0], self.levels, [1.0]])
        size = self.size[:steps].sum() / count
        crps = 2 * float(loss @ (around[2:] - around[:-2]) / 2)
        return {"crps": crps, "wql": 2 * float(loss.mean()) / size if size else None}

    def intervals(self) -> dict[str, dict]:
        """Of each central interval, by its nominal coverage in percent: coverage and mean width, in all and by step.

        None of a step that was never observed.
        """
        total = max(self.count.sum(), 1)
        return {
            name: {
                "coverage": float(self.inside[:, at].sum() / total),
                "width": float(self.width[:, at].sum() / total),
                "coverage_by_step": means(self.inside[:, at], self.count),
                "width_by_step": means(self.width[:, at], self.count),
            }
            for at, name in enumerate(self.pairs)
        }


def means(sums: np.ndarray, counts: np.ndarray) -> list[float | None]:
    """Sums divided by counts, None where nothing was counted."""
    return [float(own / count) if count else None for own, count in zip(sums, counts, strict=True)]


def central(levels: Sequence[float]) -> dict[str, tuple[int, int]]:
    """The pairs of levels that are as far from 0 as from 1, by the percentage between them, widest first."""
    places = {round(level, 9): at for at, level in enumerate(levels)}
    pairs = [(at, places[other]) for level, at in places.items() if level < 0.5 and (other := round(1 - level, 9)) in places]
    return {f"{100 * (levels[high] - levels[low]):.6g}": (low, high) for low, high in pairs}


class Sureness:
    """How well the quantiles of a model hold, fold by fold; nothing at all for a model without."""

    def __init__(
        self, calibration: Calibration | None, spacing: int, horizon: int, before: Mapping[int, Settled] | None = None,
        units: np.ndarray | None = None,
    ):  # fmt: skip
        """`spacing` is the number of steps between origins.

        Args:
            before: where an earlier fold has left the quantiles of a series, by its number; others begin as calibrated.
            units: (S,) the standard deviation of each series, in which its quantiles follow errors; None: of all 1.
        """
        self.units = units
        self.calibration, self.spacing, self.before = calibration, spacing, before or {}
        self.left: dict[int, Settled] = {}  # where this fold leaves them
        self.errors = QuantileErrors(calibration.levels, horizon) if calibration else None
        self.rolled: dict[int, Rolling] = {}  # by series

    def add(
        self, series: np.ndarray, quantiles: np.ndarray | None, truth: np.ndarray, seen: np.ndarray,
        floors: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Add the quantiles (B, H, Q) of windows of the series (B,), one series after the other, oldest first.

        `floors` (B,) are below which they are not said to lie; None: there are none.
        """
        if quantiles is None:
            return
        known, moved = np.where(seen, truth, np.nan), np.empty(quantiles.shape)
        for one in np.unique(series):
            if one not in self.rolled:
                self.rolled[one] = self.calibration.rolled(self.spacing, self.before.get(int(one)))
            own = series == one
            moved[own] = self.followed(self.rolled[one], one, quantiles[own], known[own])
        self.settle(but=int(series[-1]))  # the only one that may go on in the next windows
        self.errors.add(moved if floors is None else np.maximum(moved, floors[:, None, None]), truth, seen)

    def followed(self, rolling: Rolling, series: int, quantiles: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Quantiles (N, H, Q) of a series, moved, in the unit that they came in."""
        unit = 1.0 if self.units is None else self.units[series]
        return rolling.follow(quantiles / unit, known / unit) * unit

    def settle(self, but: int | None = None) -> dict[int, Settled]:
        """Where the series stand that are over, all `but` one; of very many the first."""
        for one in [one for one in self.rolled if one != but]:
            rolling = self.rolled.pop(one)
            if len(self.left) < MOST_SETTLED:
                self.left[int(one)] = rolling.settled()
        return self.left

    def score(self, steps: int) -> dict[str, float | None]:
        return self.errors.score(steps) if self.errors else {"crps": None, "wql": None}

    def intervals(self) -> dict[str, dict]:
        return self.errors.intervals() if self.errors else {}

    def bands(
        self, series: int, quantiles: np.ndarray | None, truth: np.ndarray, seen: np.ndarray, floor: float = -np.inf
    ) -> dict[str, list[list[float]]]:
        """The lower and upper bound of each central interval of one window, the last of these (N, H, Q) of a series."""
        if quantiles is None:
            return {}
        rolling = self.calibration.rolled(self.spacing, self.before.get(series))
        own = np.maximum(self.followed(rolling, series, quantiles, np.where(seen, truth, np.nan))[-1], floor)
        return {name: [own[:, low].tolist(), own[:, high].tolist()] for name, (low, high) in self.errors.pairs.items()}
