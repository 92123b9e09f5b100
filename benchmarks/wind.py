"""How good forecasts of wind power are, one step, an hour and three hours ahead, from what was measured before.

La Haute Borne, four turbines, ten minutes a step, 2014 and 2015, with the faults of real records: clocks that went twice
through an hour, rows without signals. The newest fifth of the steps tests, the tenth before it validates. P_avg is forecast
from every origin; steps without a signal do not count. Every model is trained by the steps of `convcast train`, and what
can be chosen is chosen on validation: the lookback and learning rate of NLinear, the loss, the mean of which forms, and
with `network.inputs: auto`, on steps to train on, the inputs. The test rows are looked at once, at the end.

- persistence: the last measured power
- NLinear: from the power of the turbine
- ours, power alone; ours, with what else the turbine measured and what its neighbours did (the direction of wind and nacelle
  as sine and cosine, means over the other three turbines); the same with `inputs: auto`

How to read it: RMSE in kW at 1, 6 and 18 steps, all turbines together, the mean over seeds, +- one standard deviation;
"mean of seeds" is of their averaged forecasts. Skill is 1 - RMSE / RMSE of the rival, of the squared errors of all seeds
together, with a 95 % interval from resampled blocks of one day of origins, all turbines together. The last table asks whether
the 80 % and 95 % intervals of all inputs hold, as validation left them and as they follow the newest errors.

    python benchmarks/wind.py --data FOLDER [--seeds 5] [--folder DIR] [--validation]
"""

import argparse
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from cached_rerun import prefect_server
from machine import introduce

AHEAD = (1, 6, 18)
LOOKBACK, LONGEST = 288, 576  # of ours, and what NLinear may choose
AHEAD_NAMES = tuple(f"step {ahead}" for ahead in AHEAD)
DAY = 144  # steps
DRAWS = 10_000
TEST, VALIDATION = 0.2, 0.1
OWN = {"Ws_avg": "wind", "Ba_avg": "pitch", "Va_avg": "vane", "Ot_avg": "temperature"}
ANGLES = {"Wa_avg": "direction", "Ya_avg": "nacelle"}
PAST = [*OWN.values(), "direction_sin", "direction_cos", "nacelle_sin", "nacelle_cos", "others_power", "others_wind"]
BRANCH = {"kind": "periodic", "rescale": False, "noise": 0.1, "channels": 32}  # a still day is not as a windy one made small
OURS = {"forms": [BRANCH, BRANCH | {"head_dropout": 0.2}]}
MODELS = {
    "ours, power alone": {"past": [], "network": OURS},
    "ours, all inputs": {"past": PAST, "network": OURS},
    "ours, inputs: auto": {"past": PAST, "network": OURS | {"inputs": "auto"}},
}
NLINEAR = [(lookback, rate) for lookback in (72, 144, 288, 576) for rate in (1e-3, 4e-3)]
NLINEAR_STEPS = 1200


def write_source(file: Path, place: Path) -> int:
    """Write the turbines as a user's CSV, with waves for angles and the means of a turbine's neighbours; the steps of each."""
    frame = pd.read_csv(file).rename(columns=OWN | {"Wind_turbine_name": "turbine", "Date_time": "when", "P_avg": "power"})
    for angle, name in ANGLES.items():
        turn = np.radians(frame.pop(angle))
        frame[f"{name}_sin"], frame[f"{name}_cos"] = np.sin(turn), np.cos(turn)
    at = pd.to_datetime(frame["when"], utc=True)
    for name, others in (("power", "others_power"), ("wind", "others_wind")):
        each = frame.groupby([at, "turbine"])[name].first().unstack()
        means = pd.DataFrame({turbine: each.drop(columns=turbine).mean(axis=1) for turbine in each}).stack()
        frame[others] = means.reindex(pd.MultiIndex.from_arrays([at, frame["turbine"]])).to_numpy()
    frame.to_csv(place, index=False)
    return round((at.max() - at.min()) / pd.Timedelta("10min")) + 1


def document(place: Path, steps: int, past: list[str], network: dict, fit: dict, lookback: int = LOOKBACK) -> dict:
    """The spec of one model, as a user would write it."""
    return {
        "name": "wind",
        "store": str(place.parent / "store"),
        "source": {
            "uri": str(place),
            "series_id": "turbine",
            "timestamp": "when",
            "timezone": "Europe/Paris",
            "frequency": "10min",
            "target": "power",
            "past_covariates": past,
            "duplicates": "first",
            "gaps": "mask",
            "missing": "mask",
        }
        | ({} if past else {"calendar": []}),
        "season": 1,  # so every network begins as persistence, and the gate holds it against that
        "folds": {"test": round(TEST * steps), "validation": round(VALIDATION * steps)},
        "windows": {"lookback": lookback, "horizon": max(AHEAD)},
        "network": network,
        "fit": fit,
        "gate": {"metric": "rmse"},
    }


@dataclass(frozen=True)
class Trained:
    """What a training gave: a model, and what it is evaluated with."""

    spec: object
    model: object
    made: object
    seconds: float


def learned(given: dict) -> Trained:
    """The model of one spec, by the steps that `training` begins with; nothing of the test rows is looked at."""
    from prefect import flow

    from flows.preparing import prepare, stock_of
    from flows.running import few_at_once, run_of
    from flows.spec import check_spec
    from flows.training import train_forms
    from tasks.storage import Store

    @flow(name="learning", persist_result=False, task_runner=few_at_once())
    def learning() -> Trained:
        store = Store(spec.store)
        with run_of(store):
            made, began = prepare(spec, spec.source, stock_of(spec, store), spec.windows, store), time.perf_counter()
            return Trained(spec, train_forms(spec, made, store), made, time.perf_counter() - began)

    spec = check_spec(given, "wind")
    return learning()


@dataclass(frozen=True)
class Forecasts:
    """Of one fold and the steps of `AHEAD`, by turbine and origin: truth, NaN where there is none, what is forecast, and power
    at the origin."""

    truth: np.ndarray  # (S, N, A)
    forecast: np.ndarray  # (S, N, A)
    last: np.ndarray  # (S, N)

    @property
    def persistence(self) -> "Forecasts":
        return Forecasts(self.truth, np.repeat(self.last[:, :, None], len(AHEAD), 2), self.last)

    @property
    def squares(self) -> np.ndarray:
        """(S, N, A) squared errors, NaN where there is no truth."""
        return np.square(self.forecast - self.truth)

    @property
    def rmse(self) -> np.ndarray:
        """(A,)"""
        return np.sqrt(np.nanmean(self.squares, (0, 1)))


def forecasts_of(trained: Trained, fold: str) -> Forecasts:
    """The forecasts of every origin of a fold."""
    from tasks.backtest import Backtest
    from tasks.normalise import read_scaler
    from tasks.storage import Store
    from tasks.train import read_bundle
    from tasks.windows.folds import open_windows

    store, made = Store(trained.spec.store), trained.made
    scaler, _ = read_scaler(made.normalised, made.windows[0].columns, store)
    cut = open_windows(made.windows, scaler, trained.spec.folds, store)
    backtest = Backtest(cut, fold, made.windows[0], read_bundle(store, trained.model))
    steps, parts = np.array(AHEAD) - 1, []
    for asked in backtest.asked():
        truth, seen = backtest.truth(asked.rows)
        forecast, _ = backtest.model.forecast(asked)
        last = asked.rows[:, cut.windows.lookback - 1, 0]
        parts.append((asked.series, asked.stamps[:, 0], np.where(seen, truth, np.nan)[:, steps], forecast[:, steps], last))
    series, stamps, truth, forecast, last = (np.concatenate(part) for part in zip(*parts, strict=True))
    origins, at = np.unique(stamps, return_inverse=True)
    shape = (series.max() + 1, len(origins))
    filled = [np.full((*shape, *values.shape[1:]), np.nan) for values in (truth, forecast, last)]
    for table, values in zip(filled, (truth, forecast, last), strict=True):
        table[series, at] = values
    return Forecasts(*filled)


def intervals_of(trained: Trained, fold: str, rolling: bool) -> dict[str, dict]:
    """Coverage and width of each central interval over the origins of a fold that a report is made from."""
    from models.specs import QuantileSpec
    from tasks.backtest import Backtest
    from tasks.calibrate import with_quantiles
    from tasks.normalise import read_scaler
    from tasks.storage import Store
    from tasks.train import read_bundle
    from tasks.windows.folds import open_windows

    store, made, folds = Store(trained.spec.store), trained.made, trained.spec.folds
    scaler, _ = read_scaler(made.normalised, made.windows[0].columns, store)
    cut = open_windows(made.windows, scaler, folds, store)
    sure = with_quantiles(read_bundle(store, trained.model), cut, QuantileSpec(rolling=rolling), folds)
    return Backtest(cut, fold, made.windows[0], sure).run({})["detail"]["intervals"]


def chosen_nlinear(place: Path, steps: int) -> dict:
    """The spec of NLinear with the lookback and learning rate that validation likes best."""
    tried = {}
    for lookback, rate in NLINEAR:
        fit = {"loss": "mse", "learning_rate": rate, "max_steps": NLINEAR_STEPS}
        given = document(place, steps, [], {"kind": "linear", "lookback": lookback}, fit, LONGEST)
        tried[lookback, rate] = given, forecasts_of(learned(given), "validation").rmse
        print(f"  NLinear, lookback {lookback}, rate {rate:g}: {said(tried[lookback, rate][1])}", flush=True)
    return min(tried.values(), key=lambda pair: pair[1].mean())[0]


def chosen_loss(place: Path, steps: int) -> str:
    """The loss whose networks have the lower RMSE on validation."""
    tried = {}
    for loss in ("mse", "huber", "mae"):
        given = document(place, steps, PAST, BRANCH, {"loss": loss})
        tried[loss] = forecasts_of(learned(given), "validation").rmse
        print(f"  first form, all inputs, loss {loss}: {said(tried[loss])}", flush=True)
    return min(tried, key=lambda loss: tried[loss].mean())


def said(rmse: np.ndarray) -> str:
    return " / ".join(f"{value:.2f}" for value in rmse)


def skill(squares: np.ndarray, rival: np.ndarray) -> list[tuple[float, float, float]]:
    """1 - RMSE / RMSE of a rival at each step ahead, with the ends of its 95 % interval, from squared errors (S, N, A)."""
    num_origins = squares.shape[1]
    firsts = np.random.default_rng(0).integers(0, num_origins, (DRAWS, round(num_origins / DAY)))
    found = []
    for step in range(squares.shape[2]):
        seen = ~np.isnan(squares[:, :, step] + rival[:, :, step])
        sums = [np.where(seen, one[:, :, step], 0).sum(0) for one in (squares, rival)]
        around = [np.concatenate([[0.0], np.cumsum(np.tile(one, 2))]) for one in sums]
        own, other = ((one[firsts + DAY] - one[firsts]).sum(1) for one in around)
        low, high = np.quantile(1 - np.sqrt(own / other), [0.025, 0.975])
        found.append((1 - float(np.sqrt(sums[0].sum() / sums[1].sum())), float(low), float(high)))
    return found


def print_scores(found: dict[str, list[Forecasts]], seconds: dict[str, list[float]]) -> None:
    """RMSE of each model, a seed and of the mean of seeds."""
    print(f"\n{'RMSE, kW, at step':34s}" + "".join(f"{ahead:>16d}" for ahead in AHEAD) + f"{'s a seed':>12s}")
    for name, seeds in found.items():
        each = np.array([one.rmse for one in seeds])
        spread = each.std(0, ddof=1) if len(each) > 1 else [None] * len(AHEAD)
        pairs = zip(each.mean(0), spread, strict=True)
        cells = [f"{mean:.2f}" + ("" if sd is None else f" +-{sd:.2f}") for mean, sd in pairs]
        took = f"{np.mean(seconds[name]):.0f}" if name in seconds else ""
        print(f"{name:34s}" + "".join(f"{cell:>16s}" for cell in cells) + f"{took:>12s}")
        if len(seeds) > 1:
            print(f"{f'{name}, mean of seeds':34s}" + "".join(f"{value:>16.2f}" for value in averaged(seeds).rmse))


def averaged(seeds: list[Forecasts]) -> Forecasts:
    return Forecasts(seeds[0].truth, np.mean([one.forecast for one in seeds], 0), seeds[0].last)


def print_skills(found: dict[str, list[Forecasts]], rival: str) -> None:
    print(f"\n{f'skill over {rival}':34s}" + "".join(f"{ahead:>26d}" for ahead in AHEAD))
    other = np.mean([one.squares for one in found[rival]], 0)
    names = list(found)
    for name in names[names.index(rival) + 1 :]:
        for what, seeds in ((name, found[name]), (f"{name}, mean of seeds", [averaged(found[name])])):
            if what != name and len(found[name]) == 1:
                continue
            cells = skill(np.mean([one.squares for one in seeds], 0), other)
            print(f"{what:34s}" + "".join(f"{f'{own:.3f} [{low:.3f}, {high:.3f}]':>26s}" for own, low, high in cells))


def print_inputs(trained: Trained) -> None:
    """Which inputs were kept, in the order they were taken."""
    selection = trained.made.selection
    kept = [name for name in selection.columns.names if name not in ("target", "observed")]
    print(f"\ninputs kept: {', '.join(kept)}; dropped: {', '.join(selection.dropped) or 'none'}")
    print(f"{'step':>6s}  {'input':24s}{'lag':>6s}{'nats':>10s}{'chance':>10s}")
    for pick in selection.picks:
        line = f"{pick.ahead:>6d}  {pick.input.channel:24s}{pick.input.lag:>6d}{pick.information:>10.4f}{pick.chance:>10.4f}"
        print(line + ("" if pick.taken else "  stopped"))


def print_intervals(seeds: list[Trained], fold: str) -> None:
    """What the intervals cover, and how wide they are: over all steps, and at those of `AHEAD`; mean over seeds."""
    print(
        f"\n{'intervals, all inputs: covered, kW wide':46s}" + "".join(f"{head:>20s}" for head in ("all steps", *AHEAD_NAMES))
    )
    for rolling in (False, True):
        found = [intervals_of(one, fold, rolling) for one in seeds]
        for percent in ("80", "95"):
            own = [one[percent] for one in found]
            pairs = [[(one["coverage"], one["width"]) for one in own]]
            pairs += [[(one["coverage_by_step"][at - 1], one["width_by_step"][at - 1]) for one in own] for at in AHEAD]
            cells = [f"{np.mean(pair, 0)[0]:.3f} / {np.mean(pair, 0)[1]:.0f}" for pair in pairs]
            name = f"{percent} %, {'following the newest errors' if rolling else 'as validation left them'}"
            print(f"{name:46s}" + "".join(f"{cell:>20s}" for cell in cells), flush=True)


def compare(data: Path, folder: Path, num_seeds: int, fold: str) -> None:
    place = folder / "wind.csv"
    steps = write_source(data / "la_haute_borne.csv.gz", place)
    print("on validation, RMSE in kW at steps " + " / ".join(map(str, AHEAD)), flush=True)
    specs = {"NLinear": chosen_nlinear(place, steps)}
    fit = {"loss": chosen_loss(place, steps)}
    specs |= {name: document(place, steps, own["past"], own["network"], fit) for name, own in MODELS.items()}
    trained = {
        name: [learned(given | {"fit": given["fit"] | {"seeds": [seed]}}) for seed in range(num_seeds)]
        for name, given in specs.items()
    }
    found = {name: [forecasts_of(one, fold) for one in seeds] for name, seeds in trained.items()}
    found = {"persistence": [next(iter(found.values()))[0].persistence]} | found
    truth, nlinear = found["persistence"][0].truth, specs["NLinear"]
    print(f"\n{fold}: {int((~np.isnan(truth).all(2)).sum()):,} origins of {len(truth)} turbines")
    lookback, rate = nlinear["network"]["lookback"], nlinear["fit"]["learning_rate"]
    print(f"chosen on validation: loss {fit['loss']}; NLinear {lookback} steps back at rate {rate:g}")
    print_scores(found, {name: [one.seconds for one in seeds] for name, seeds in trained.items()})
    for rival in ("persistence", "NLinear", "ours, power alone"):
        print_skills(found, rival)
    print_inputs(trained["ours, inputs: auto"][0])
    print_intervals(trained["ours, all inputs"], fold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with la_haute_borne.csv.gz")
    parser.add_argument("--seeds", type=int, default=5, help="0, 1, ... so many (default 5)")
    parser.add_argument("--folder", type=Path, help="keep everything that is made there; a second run then goes on from it")
    parser.add_argument("--validation", action="store_true", help="score validation rows; the test rows are not looked at")
    given = parser.parse_args()
    introduce(f"wind power, seeds 0 to {given.seeds - 1}", "torch", "numpy", "pandas")
    with nullcontext(given.folder) if given.folder else tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "prefect"
        home.mkdir(parents=True, exist_ok=True)
        with prefect_server(home):
            compare(given.data, Path(folder), given.seeds, "validation" if given.validation else "test")


if __name__ == "__main__":
    main()
