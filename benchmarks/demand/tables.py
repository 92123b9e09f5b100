"""Scores of forecasts, whether one model's lead over another could be chance, and how both are printed.

Axes in names: N origins, H horizon.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from demand.year import HORIZONS, SEASON, truth_of
from models.metrics import StepErrors, score

DRAWS = 10_000
WEEK = 7 * SEASON


@dataclass
class Model:
    """What is compared: forecasts (N, LONGEST) in GW, and seconds and CPU-seconds (NaN: not taken) of training, a seed each."""

    forecasts: list[np.ndarray]
    seconds: list[tuple[float, float]]

    def each(self) -> dict[str, list[np.ndarray]]:
        """The forecasts of the seeds, and where there are several, the one of their mean."""
        several = len(self.forecasts) > 1
        return {"a seed": self.forecasts} | ({"mean of seeds": [np.mean(self.forecasts, 0)]} if several else {})


def errors_of(forecasts: np.ndarray, demand: np.ndarray, horizon: int) -> np.ndarray:
    """Errors (N, H) from every origin whose horizon the data cover."""
    truth = truth_of(demand, horizon)
    return forecasts[: len(truth), :horizon] - truth


def scores_of(forecasts: np.ndarray, demand: np.ndarray, naive_mae: float) -> dict[tuple[int, str], float]:
    """MAE, RMSE and MASE over each number of steps."""
    scores = {}
    for horizon in HORIZONS:
        errors, found = StepErrors(horizon, [naive_mae]), errors_of(forecasts, demand, horizon)
        errors.add(np.zeros(len(found), int), found, np.ones(found.shape, bool))
        scores |= {(horizon, metric): value for metric, value in score(errors, horizon).items()}
    return scores


def block_means(values: np.ndarray, block: int = WEEK, draws: int = DRAWS) -> np.ndarray:
    """Means (draws,) of a series with memory (N,): blocks drawn with their neighbours, always the same, around the end."""
    count = len(values)
    firsts = np.random.default_rng(0).integers(0, count, (draws, -(-count // block)))
    around = np.concatenate([[0.0], np.cumsum(np.tile(values, 2))])
    lengths = np.full(firsts.shape[1], block)
    lengths[-1] = count - block * (len(lengths) - 1)
    return (around[firsts + lengths] - around[firsts]).sum(1) / count


def interval(difference: np.ndarray) -> tuple[float, float]:
    """A 95 % interval of the mean of a series with memory."""
    low, high = np.quantile(block_means(difference), [0.025, 0.975])
    return float(low), float(high)


def gain(own: list[np.ndarray], rival: list[np.ndarray], demand: np.ndarray, horizon: int, metric: str) -> np.ndarray:
    """MAE or RMSE minus that of a rival, and its 95 % interval, all seeds of each together: (3,)."""
    size: Callable = np.abs if metric == "mae" else np.square
    means = [np.mean([size(errors_of(one, demand, horizon)).mean(1) for one in each], 0) for each in (own, rival)]
    if metric == "mae":
        return np.array([(means[0] - means[1]).mean(), *interval(means[0] - means[1])])
    drawn = np.sqrt(block_means(means[0])) - np.sqrt(block_means(means[1]))
    return np.array([np.sqrt(means[0].mean()) - np.sqrt(means[1].mean()), *np.quantile(drawn, [0.025, 0.975])])


def print_scores(models: dict[str, Model], demand: np.ndarray, naive_mae: float) -> None:
    keys = [(horizon, metric) for horizon in HORIZONS for metric in ("mae", "rmse", "mase")]
    print(f"{'model':36s}" + "".join(f"{f'{metric.upper()} {horizon}':>16s}" for horizon, metric in keys))
    for name, model in models.items():
        for what, forecasts in model.each().items():
            scores = [scores_of(one, demand, naive_mae) for one in forecasts]
            cells = [told([one[key] for one in scores]) for key in keys]
            print(f"{f'{name}, {what}':36s}" + "".join(f"{cell:>16s}" for cell in cells), flush=True)


def told(values: list[float]) -> str:
    return f"{np.mean(values):.4f}" + (f" +-{np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def print_gains(net: Model, rivals: dict[str, Model], demand: np.ndarray, horizons: tuple[int, ...] = HORIZONS[1:]) -> None:
    """The errors of `net` minus those of each rival."""
    heads = [f"{metric.upper()} {horizon}" for horizon in horizons for metric in ("mae", "rmse")]
    print(f"{'':36s}" + "".join(f"{head:>27s}" for head in heads))
    for name, rival in rivals.items():
        for what, forecasts in net.each().items():
            against = rival.each().get(what, rival.forecasts)
            cells = []
            for horizon in horizons:
                for metric in ("mae", "rmse"):
                    difference, low, high = gain(forecasts, against, demand, horizon, metric)
                    cells.append(f"{difference:+.4f} [{low:+.4f}, {high:+.4f}]")
            print(f"{f'{name}, {what}':36s}" + "".join(f"{cell:>27s}" for cell in cells), flush=True)


def print_times(models: dict[str, Model]) -> None:
    for name, model in models.items():
        if model.seconds:
            walls, cpus = zip(*model.seconds, strict=True)
            cpu = "" if np.isnan(cpus).any() else f", {np.mean(cpus):.1f} CPU-s"
            print(f"{name:36s}{np.mean(walls):.1f} s ({min(walls):.1f} to {max(walls):.1f}){cpu}")


def print_losses(by_way: dict[str, dict[str, Model]], demand: np.ndarray) -> None:
    """MAE and RMSE of each model with each way of knowing the temperature, and what that costs."""
    keys = [(horizon, metric) for horizon in HORIZONS for metric in ("mae", "rmse")]
    print(f"{'':46s}" + "".join(f"{f'{metric.upper()} {horizon}':>16s}" for horizon, metric in keys))
    for name in next(iter(by_way.values())):
        known = None
        for way, models in by_way.items():
            scores = [scores_of(one, demand, 1.0) for one in models[name].forecasts]
            means = [float(np.mean([one[key] for one in scores])) for key in keys]
            known = known or means
            cells = [f"{own:.4f} ({own / best - 1:+.0%})" for own, best in zip(means, known, strict=True)]
            print(f"{f'{name}, {way}':46s}" + "".join(f"{cell:>16s}" for cell in cells), flush=True)
