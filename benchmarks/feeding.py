"""How long training waits for its windows, and how much memory it takes when there are ten times as many.

A series of three channels is written as blocked window Parquet, once with `--windows` windows to train on and once with
ten times as many. The net this project began with (batches of 168) and the residual net (batches of 64) are trained from
each file as the step `train` does it, with `WindowSet`, `ShuffledStream` and `Training.learn`, for as many steps as their
recipes have. That is fewer than a pass: some windows of every block are asked for, and all blocks are read for them, which
is the hardest case for a loader. Every run is a process of its own; runs take turns.

How to read it: "wait" is the share of a run between the end of a step and the moment the next batch is there: rows read,
checked, scaled and shuffled, windows gathered, as far as this was not done ahead by a thread while the step before was
learned; of its seconds, and of the CPU-seconds that went by in both, of whatever thread.
Peak memory is of the process, imports included; the last column is the peak with ten times the windows to that with one.

    python benchmarks/feeding.py [--windows 1000000] [--turns 3] [--folder DIR]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import introduce, spread
from window_io import COLUMNS, WINDOWS, make_rows, memory, open_fold, to_piece

from models.batches import Batch, ShuffledStream
from models.errors import counted
from models.networks import FitSettings, build_network, recipe
from models.specs import ReferenceSpec, ResidualSpec
from models.training import Training, num_steps
from tasks.windows.files import write_windows

NETWORKS = {"reference": ReferenceSpec(), "residual": ResidualSpec()}
SEASON, SEED, TIMES = 24, 0, 10


def num_rows(num_windows: int) -> int:
    """Rows of a series with so many windows to train on, a validation and a test window besides."""
    return num_windows + WINDOWS.span - 1 + 2 * WINDOWS.horizon


def train(path: Path, kind: str, num_windows: int, steps: int | None) -> dict:
    """How fast a network trains from a file, which share of that it waits for batches, and the peak memory."""
    spec = recipe(NETWORKS[kind], FitSettings(max_steps=steps))
    total, _ = num_steps(spec, num_windows)
    torch.manual_seed(SEED)
    run = Training(build_network(NETWORKS[kind], COLUMNS, WINDOWS, SEASON), spec, total, torch.device("cpu"))
    run.network.train()
    fold, batch_size = open_fold(path, num_rows(num_windows)), spec.batch_size
    batches = ShuffledStream(fold, WINDOWS.span, batch_size, SEED, run.device, num_steps=total).batches()
    clocks = (time.perf_counter, time.process_time)
    times = np.empty((total, 3, 2))  # asked for a batch, got it, learned from it, by either clock
    for step in range(total):
        times[step, 0] = [clock() for clock in clocks]
        batch = Batch.split(next(batches), WINDOWS.lookback, COLUMNS)
        times[step, 1] = [clock() for clock in clocks]
        run.learn(batch)
        times[step, 2] = [clock() for clock in clocks]
    (waited, waited_cpu), (learned, learned_cpu) = np.diff(times, axis=1).sum(0).tolist()
    return {
        "rate": total * batch_size / (waited + learned), "wait": waited / (waited + learned),
        "cpu": waited_cpu / (waited_cpu + learned_cpu),
        "peak": memory("VmHWM"), "steps": total, "threads": torch.get_num_threads(),
    }  # fmt: skip


def train_apart(path: Path, kind: str, num_windows: int, steps: int | None) -> dict:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--do", json.dumps([str(path), kind, num_windows, steps])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind} with {num_windows:,} windows ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write(path: Path, num_windows: int) -> Path:
    write_windows(path, [to_piece(make_rows(num_rows(num_windows)))], COLUMNS, WINDOWS)
    return path


def show(runs: dict[tuple[str, int], list[dict]], num_windows: int) -> None:
    print(
        f"\n{'':11}{'windows':>12}{'steps':>8}{'windows/s':>28}{'wait %':>22}{'wait % of CPU':>22}{'peak MB':>22}{'to 1x':>22}"
    )
    for (kind, count), own in runs.items():
        columns = {name: [one[name] for one in own] for name in ("rate", "wait", "cpu", "peak")}
        peaks = [one["peak"] for one in runs[kind, num_windows]]
        times = [here / there for here, there in zip(columns["peak"], peaks, strict=True)]
        wait, cpu = ([100 * share for share in columns[name]] for name in ("wait", "cpu"))
        print(
            f"{kind:11}{count:>12,}{own[0]['steps']:>8,}{spread(columns['rate'], 0):>28}{spread(wait, 1):>22}"
            f"{spread(cpu, 1):>22}{spread(columns['peak'], 0):>22}{spread(times):>22}"
        )
    print(f"{counted(runs[kind, num_windows][0]['threads'], 'threads')}; aimed at: wait below 5 %, {TIMES}x memory at most 1.2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1_000_000, help="to train on; then ten times as many")
    parser.add_argument("--steps", type=int, help="optimiser steps; else as many as the recipe of each network has")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; else the system's temporary folder")
    parser.add_argument("--do", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        path, *asked = json.loads(given.do)
        print(json.dumps(train(Path(path), *asked)))
        return
    introduce(f"training from blocked Parquet: {COLUMNS.num_channels} channels, lookback {WINDOWS.lookback}, "
              f"horizon {WINDOWS.horizon}, seed {SEED}", "pyarrow", "torch", "numpy")  # fmt: skip
    counts = (given.windows, TIMES * given.windows)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        paths = {count: write(Path(folder) / f"{count}.parquet", count) for count in counts}
        runs = {(kind, count): [] for kind in NETWORKS for count in counts}
        for turn in range(given.turns):
            for (kind, count), own in runs.items() if turn % 2 == 0 else reversed(runs.items()):
                own.append(train_apart(paths[count], kind, count, given.steps))
                print(f"  turn {turn + 1}, {kind}, {count:,} windows: wait {100 * own[-1]['wait']:.1f} %", flush=True)
    show(runs, given.windows)


if __name__ == "__main__":
    main()
