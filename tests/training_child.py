"""Trainings in processes of their own, each telling what it is about to do on standard output: test_kills.py kills them.

    python tests/training_child.py FOLDER

Each line "CHECKPOINTS RESULT" on standard input begins one, forked off, so that libraries are imported once; the line after
it, whatever it is, has it waited for.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from shards import window_set

import models.fit
import models.training
import tasks.checkpoints
import tasks.seeds
import tasks.storage
from models.scaling import Scaler
from models.series import Columns, SeriesFacts
from models.specs import FitSpec, ResidualSpec
from models.training import Checkpoint
from models.windows import FoldSpec, WindowSpec
from tasks.windows.folds import WindowSet

COLUMNS, WINDOWS, FOLDS, SEASON = (
    Columns(future=("known",)),
    WindowSpec(lookback=48, horizon=12),
    FoldSpec(validation=60, test=12),
    12,
)
NETWORK = ResidualSpec(channels=8, embedding=2)  # draws noise and dropout, and hides series now and then
FIT = FitSpec(
    epochs=3, batch_size=16, learning_rate=4e-3, schedule="one_cycle", loss="mae", clip_norm=1.0, average=0.9, weight_decay=0.1,
    seeds=(0, 1), device="cpu",
)  # fmt: skip


def write_windows(folder: Path) -> None:
    """Two series, in several files and blocks."""
    rng = np.random.default_rng(0)
    at = np.arange(330)
    known = rng.normal(size=(2, len(at)))
    waves = np.sin(2 * np.pi * at / SEASON) + 0.3 * known + 0.1 * rng.normal(size=(2, len(at)))
    rows = {name: np.stack([waves[number], known[number]], 1) for number, name in enumerate("ab")}
    cut = window_set(folder, COLUMNS, rows, WINDOWS, FOLDS, cut=150, season=SEASON)
    (folder / "scaler.json").write_text(cut.scaler.model_dump_json())


def announce(phase: str) -> None:
    os.write(1, f"{phase}\n".encode())


def announced(phase: str, function: Callable) -> Callable:
    def speaking(*arguments, **named):
        announce(phase)
        return function(*arguments, **named)

    return speaking


def saving(save_checkpoint: Callable) -> Callable:
    def speaking(path: Path, checkpoint: Checkpoint) -> None:
        announce("saves within an epoch" if len(checkpoint.tensors["losses"]) else "saves after an epoch")
        save_checkpoint(path, checkpoint)

    return speaking


def tell_phases() -> None:
    models.training.Training.learn = announced("learns", models.training.Training.learn)
    models.fit.validation_loss = announced("validates", models.fit.validation_loss)
    tasks.checkpoints.save_checkpoint = saving(tasks.checkpoints.save_checkpoint)


def train(folder: Path, checkpoints: Path, result: Path) -> None:
    """Train as the step does, with a checkpoint every few steps, and leave weights and history in a file."""
    announce(f"{os.getpid()}")
    announce("begins")
    paths, scaler = sorted(folder.glob("windows-*.parquet")), Scaler.model_validate_json((folder / "scaler.json").read_text())
    cut = WindowSet(paths, scaler, FOLDS)
    facts = SeriesFacts(target="load", columns=COLUMNS, frequency="h", season=SEASON, timezone="UTC")
    fitted = tasks.seeds.fit_seeds(cut, facts, NETWORK, FIT, checkpoints)
    weights = {f"{seed}.{name}": value for seed, one in enumerate(fitted) for name, value in one.weights.items()}
    tasks.storage.write_atomically(result, save(weights, {"history": json.dumps([one.history for one in fitted])}))


def train_and_leave(*places: Path) -> None:
    try:
        train(*places)
        announce("done")
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        announce("failed")
        os._exit(1)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    tasks.checkpoints.SECONDS = 0.03
    tell_phases()
    announce("ready")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            train_and_leave(folder, *map(Path, line.split()))
        sys.stdin.readline()  # until then the process, ended or not, keeps its number
        announce(f"ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
