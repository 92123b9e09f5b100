"""One contender of benchmarks/speed.py trains, in a process and, for the peers, an environment of its own.

The work is the same for all: one step ahead from 72 rows of three channels, batches of 168 windows, so many passes over the
training windows, which lie in memory. Printed as a line of JSON: windows/s of each pass after the first, by the clock and
by CPU-seconds, the mean squared error over the validation windows in scaled units, and the versions.

    python benchmarks/speed_peers.py convcast|convcast-bf16|keras-tensorflow|keras-torch|nhits ROWS.npy --passes 28 --seed 0

`ROWS.npy` holds scaled float32 rows (R, 3), the target first; the last 1,000 validate.
"""

import argparse
import json
import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

LOOKBACK, BATCH, VALIDATION = 72, 168, 1000


class Laps:
    """Windows/s between one moment and the next, by the clock and by CPU-seconds."""

    def __init__(self, num_windows: int):
        self.num_windows, self.moments = num_windows, []

    def lap(self, *_) -> None:
        self.moments.append((time.perf_counter(), time.process_time()))

    def rates(self) -> dict[str, list[float]]:
        gone = self.num_windows / np.diff(np.array(self.moments), axis=0)
        return {"wall": gone[:, 0].tolist(), "cpu": gone[:, 1].tolist()}


def windows_of(rows: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Past (N, L, C) and target (N,) of the windows that forecast rows `first` to `last`."""
    ahead = np.arange(first, last)
    return rows[ahead[:, None] + np.arange(-LOOKBACK, 0)], rows[ahead, 0]


def convcast(rows: np.ndarray, passes: int, seed: int, precision: str) -> tuple[dict, float]:
    """Ours, by `models.fit.fit` itself, with a single window to validate on after each pass."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import torch

    from models.batches import TensorBlocks
    from models.fit import fit
    from models.networks import RECIPES, build_network
    from models.series import Columns
    from models.specs import FitSpec, ReferenceSpec
    from models.windows import WindowSpec

    columns, cut = Columns(future=("WorkDay", "Temperature")), WindowSpec(lookback=LOOKBACK, horizon=1)
    changed = {"epochs": passes, "steps_per_epoch": None, "device": "cpu", "precision": precision}
    spec = FitSpec(**RECIPES["reference"] | changed)
    first = len(rows) - VALIDATION
    train, last = torch.from_numpy(rows[:first]), torch.from_numpy(rows[-cut.span :])
    laps = Laps(first - LOOKBACK)

    def build():
        return build_network(ReferenceSpec(), columns, cut, season=48)

    blocks = [TensorBlocks([part], cut.span) for part in (train, last)]
    fitted = fit(build, *blocks, columns, cut, spec, seed, tell=laps.lap)
    network = build()
    network.load_state_dict(fitted.weights)
    past, target = (torch.from_numpy(part) for part in windows_of(rows, first, len(rows)))
    with torch.no_grad():
        forecast = network.eval()(past, torch.zeros(len(past), 1, 2))[:, 0]
    return laps.rates(), float((forecast - target).square().mean())


def keras(rows: np.ndarray, passes: int, seed: int, backend: str) -> tuple[dict, float]:
    """The net in Keras, fed from arrays, which is the fastest of its plain ways."""
    os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    import keras

    keras.utils.set_random_seed(seed)
    layers, first = keras.layers, len(rows) - VALIDATION
    net = keras.Sequential(
        [
            keras.Input((LOOKBACK, rows.shape[1])),
            layers.Conv1D(64, 4, activation="relu"),
            layers.MaxPooling1D(4),
            layers.Flatten(),
            layers.Dense(216, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(1),
        ]
    )
    net.compile(optimizer=keras.optimizers.RMSprop(1e-3), loss="mse")
    past, target = windows_of(rows, LOOKBACK, first)
    laps = Laps(len(past))
    clock = keras.callbacks.LambdaCallback(on_epoch_end=laps.lap)
    net.fit(past, target, batch_size=BATCH, epochs=passes, verbose=0, callbacks=[clock])
    past, target = windows_of(rows, first, len(rows))
    forecast = net.predict(past, batch_size=VALIDATION, verbose=0)[:, 0]
    return laps.rates(), float(np.square(forecast - target).mean())


def nhits(rows: np.ndarray, passes: int, seed: int) -> tuple[dict, float]:
    """neuralforecast's NHITS with its own defaults, on the same windows."""
    import logging

    import pandas as pd
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MSE
    from neuralforecast.models import NHITS
    from pytorch_lightning import Callback

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    steps = -(-(len(rows) - VALIDATION - LOOKBACK) // BATCH)
    laps = Laps(steps * BATCH)

    class Clock(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step % steps == 0:
                laps.lap()

    quiet = {"enable_progress_bar": False, "logger": False, "enable_model_summary": False, "enable_checkpointing": False}
    model = NHITS(
        h=1, input_size=LOOKBACK, futr_exog_list=["WorkDay", "Temperature"], max_steps=passes * steps, loss=MSE(),
        batch_size=1, windows_batch_size=BATCH, random_seed=seed, scaler_type="identity", accelerator="cpu",
        callbacks=[Clock()], **quiet,
    )  # fmt: skip
    frame = pd.DataFrame(rows, columns=["y", "WorkDay", "Temperature"])
    frame = frame.assign(unique_id="demand", ds=pd.date_range("2014-01-01", periods=len(rows), freq="30min"))
    back = NeuralForecast([model], freq="30min").cross_validation(
        frame, val_size=0, test_size=VALIDATION, n_windows=None, step_size=1
    )
    return laps.rates(), float(np.square(back["NHITS"] - back["y"]).mean())


CONTENDERS = {
    "convcast": (lambda *work: convcast(*work, "float32"), ("torch",)),
    "convcast-bf16": (lambda *work: convcast(*work, "bfloat16"), ("torch",)),
    "keras-tensorflow": (lambda *work: keras(*work, "tensorflow"), ("keras", "tensorflow")),
    "keras-torch": (lambda *work: keras(*work, "torch"), ("keras", "torch")),
    "nhits": (nhits, ("neuralforecast", "torch")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--passes", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers' own
    train, libraries = CONTENDERS[asked.contender]
    rates, error = train(np.load(asked.rows), asked.passes, asked.seed)
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    print(json.dumps({"rates": rates, "validation": error, "versions": versions}))


if __name__ == "__main__":
    main()
