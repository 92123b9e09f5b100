"""How good the periodic net is on the transformer data ETTh1 and ETTm1, by the protocol of the papers that use them.

All seven columns are series of one net, scaled by mean and standard deviation of the training rows; errors are means over
all windows, steps and columns in that scale. Rows: 8,640 train, 2,880 validate, 2,880 test (times four for ETTm1), the
rest unused; validation and test windows look back into the rows before. Every test window counts: papers that drop the
last batch score fewer and easier ones.

Compared: repeating the last day, NLinear (336 steps back), a net like SparseTSF (as far back as `periodic`), each with its
learning rate chosen on validation, and `periodic` without and with its branch. Which of the two stands for the net is
chosen by mean squared error on validation too, with seed 0; nothing is chosen by test rows. Last comes what `kind: auto`
would make of NLinear and these two: the mean, seed by seed, of as many as are not clearly worse on validation. The
lookback is the rule of `usual_lookback`, thirty days of hours, fifteen of quarters.

How to read it: MSE and MAE as the mean over seeds, +- one standard deviation; "chosen" is the form that validation chose.

    python benchmarks/ett.py --data FOLDER [--seeds 5] [--only ETTh1-96 ...]
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from machine import introduce
from suite.sparse import SparseNet

from models.batches import TensorBlocks
from models.choice import best_mean
from models.fit import fit
from models.networks import NetworkSpec, build_network, form_name
from models.series import Columns
from models.specs import FitSpec, LinearSpec, PeriodicSpec
from models.windows import WindowSpec, usual_lookback

Model = Callable[[torch.Tensor], torch.Tensor]  # from pasts (B, L, 1) to forecasts (B, H)

PLAIN = Columns()
DAYS = (360, 120, 120)  # train, validation, test
BATCH = 1792  # 256 origins of seven columns


@dataclass(frozen=True)
class Case:
    """One data set and horizon."""

    file: str
    day: int  # steps
    horizon: int
    loss: str


CASES = {
    "ETTh1-96": Case("ETTh1.csv", 24, 96, "mae"),
    "ETTh1-336": Case("ETTh1.csv", 24, 336, "mse"),
    "ETTm1-96": Case("ETTm1.csv.gz", 96, 96, "mae"),
}


@dataclass(frozen=True)
class Rival:
    """A form of network and how it is fitted."""

    network: NetworkSpec | None  # None: the net like SparseTSF
    learning_rate: float
    epochs: int = 6
    loss: str | None = None  # None: that of the case

    def recipe(self, case: Case) -> FitSpec:
        return FitSpec(
            epochs=self.epochs, batch_size=BATCH, learning_rate=self.learning_rate, schedule="one_cycle",
            loss=self.loss or case.loss,
        )  # fmt: skip


SPARSE = [Rival(None, rate, epochs=20, loss="mse") for rate in (3e-3, 1e-2, 3e-2)]
NLINEAR = [Rival(LinearSpec(lookback=336), rate, epochs=20, loss="mse") for rate in (3e-3, 1e-2, 2e-2)]
PERIODIC = [Rival(PeriodicSpec(branch="none"), 1e-2), Rival(PeriodicSpec(), 3e-3)]


class Data:
    """The scaled rows of one case, cut into folds."""

    def __init__(self, case: Case, folder: Path):
        self.case = case
        train, validation, test = (days * case.day for days in DAYS)
        values = pd.read_csv(folder / case.file).iloc[: train + validation + test, 1:].to_numpy(np.float64)
        scaled = (values - values[:train].mean(0)) / values[:train].std(0)
        self.rows = torch.from_numpy(scaled.astype(np.float32))
        lookback = usual_lookback(case.day, train, case.horizon)
        self.windows = WindowSpec(lookback=lookback, horizon=case.horizon)
        self.training = self.blocks(0, train)
        self.validation = self.blocks(train - lookback, train + validation)
        self.test = self.blocks(train + validation - lookback, train + validation + test)

    def blocks(self, first: int, until: int) -> TensorBlocks:
        return TensorBlocks([self.rows[first:until, [column]] for column in range(self.rows.shape[1])], self.windows.span)


@torch.no_grad()
def forecasts(model: Model, blocks: TensorBlocks, lookback: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Forecasts and truths (B, H) of all windows of some blocks, in order."""
    for rows in blocks.rows:
        for part in rows[:, 0].unfold(0, blocks.span, 1).split(512):
            yield model(part[:, :lookback, None]), part[:, lookback:]


def errors(model: Model, blocks: TensorBlocks, lookback: int) -> tuple[float, float]:
    """MSE and MAE over all windows of some blocks."""
    squared = absolute = count = 0.0
    for forecast, truth in forecasts(model, blocks, lookback):
        apart = (forecast - truth).double()
        squared, absolute, count = squared + apart.square().sum(), absolute + apart.abs().sum(), count + apart.numel()
    return float(squared / count), float(absolute / count)


def chosen_mean(models: list[Model], data: Data) -> tuple[Model, tuple[int, ...]]:
    """The mean that `kind: auto` takes by validation, and which of the models it holds."""
    pairs = [list(forecasts(model, data.validation, data.windows.lookback)) for model in models]
    each = np.stack([torch.cat([forecast for forecast, _ in own]).numpy() for own in pairs])
    truth = torch.cat([truth for _, truth in pairs[0]]).numpy()
    chosen, _ = best_mean(each, truth, "rmse" if data.case.loss == "mse" else "mae")
    return lambda past: torch.stack([models[at](past) for at in chosen]).mean(0), chosen


def trained(rival: Rival, data: Data, seed: int) -> tuple[Model, float]:
    """A model, and the seconds it took to learn it."""
    began = time.perf_counter()
    build = partial(build_network, rival.network, PLAIN, data.windows, data.case.day)
    if rival.network is None:
        build = partial(SparseNet, data.windows.lookback, data.windows.horizon, data.case.day)
    fitted = fit(build, data.training, data.validation, PLAIN, data.windows, rival.recipe(data.case), seed)
    network = build()
    network.load_state_dict(fitted.weights)
    network.eval()
    return lambda past: network(past, past[:, :0]), time.perf_counter() - began


def repeat_day(data: Data) -> Model:
    """The last day, again and again."""
    day, horizon = data.case.day, data.case.horizon
    return lambda past: past[:, -day:, 0].repeat(1, -(-horizon // day))[:, :horizon]


def title(rival: Rival) -> str:
    return f"{form_name(rival.network) if rival.network else 'like SparseTSF'} at {rival.learning_rate:g}"


def run(name: str, folder: Path, num_seeds: int, sparse: bool) -> None:
    data = Data(CASES[name], folder)
    lookback = data.windows.lookback
    counts = [sum(blocks.num_windows) // 7 for blocks in (data.training, data.validation, data.test)]
    print(f"{name}: lookback {lookback}, windows a column {counts[0]:,} / {counts[1]:,} / {counts[2]:,}")
    families = (NLINEAR, SPARSE, PERIODIC) if sparse else (NLINEAR, PERIODIC)
    first = {rival: trained(rival, data, 0) for rivals in families for rival in rivals}
    on_validation = {rival: errors(model, data.validation, lookback)[0] for rival, (model, _) in first.items()}
    *rivals, chosen = (min(rivals, key=on_validation.get) for rivals in families)
    said = ", ".join(f"{title(rival)} {value:.4f}" for rival, value in on_validation.items())
    print(f"  validation MSE, seed 0: {said}")
    mse, mae = errors(repeat_day(data), data.test, lookback)
    print(f"  {'last day':24s} {mse:.4f}          {mae:.4f}")
    learned = {}
    for rival in (*rivals, *PERIODIC):
        turns = [trained(rival, data, seed) if seed or rival not in first else first[rival] for seed in range(num_seeds)]
        learned[rival], seconds = zip(*turns, strict=True)
        mark = " chosen" if rival is chosen else ""
        show(title(rival), learned[rival], data, f"{np.mean(seconds):6.1f} s a seed{mark}")
    forms = (rivals[0], *PERIODIC)
    means = [chosen_mean(list(models), data) for models in zip(*(learned[form] for form in forms), strict=True)]
    held = "; ".join(dict.fromkeys(" + ".join(title(forms[at]) for at in members) for _, members in means))
    show("mean, as auto chooses it", [model for model, _ in means], data, f"of {held}")
    print()


def show(name: str, models: Sequence[Model], data: Data, remark: str) -> None:
    """The errors of one model a seed on the test windows, printed."""
    scores = [errors(model, data.test, data.windows.lookback) for model in models]
    means, spread = np.mean(scores, 0), np.std(scores, 0, ddof=1) if len(scores) > 1 else (0, 0)
    cells = " ".join(f"{mean:.4f} +-{sd:.4f}" for mean, sd in zip(means, spread, strict=True))
    print(f"  {name:24s} {cells}  {remark}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with ETTh1.csv and ETTm1.csv.gz")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--no-sparse", action="store_true", help="leave the net like SparseTSF out: on ETTm1 it takes an hour")
    asked = parser.parse_args()
    introduce(f"the periodic net on ETT, seeds 0 to {asked.seeds - 1}", "torch", "numpy", "pandas")
    for name in asked.only:
        run(name, asked.data, asked.seeds, not asked.no_sparse)


if __name__ == "__main__":
    main()
