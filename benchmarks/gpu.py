"""How fast a GPU trains, whether it is kept waiting for windows, and whether it forecasts what a processor does.

Needs torch, numpy, pydantic, `models/` and `machine.py` beside this file, and nothing else of the project, so that it runs on
a bare GPU machine from a checkout, not installed. The rows are made: three channels, two cycles and noise.

Speed: the loop of training (`models.training.learn_epoch`) over `ShuffledStream`, its rows held on the device, and the same
loop over batches that already lie there as tensors. Both go on with the same network and optimiser, and take turns.
Agreement: forecasts of the same trained weights by processor and GPU, in each precision; and the losses of the first steps
from the same first weights on the same batches, in float32, dropout and noise left out since each device draws its own.

How to read it: windows/s is the median over turns and the range; "of pre-loaded" is the ratio within a turn. Forecasts differ
by so many standard deviations of the series, at most and on the mean. It ends with exit code 1 where the two do not agree.
Where there is no GPU it says so: the figures then are those of the processor, which is compared with itself.

    PYTHONPATH=. python benchmarks/gpu.py [--rows 1000000] [--steps 300] [--turns 5] [--batch-sizes 168 64 1024]
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from machine import introduce, spread
from torch import Tensor

from models.batches import Batch, ShuffledStream, TensorBlocks, gather, rows_at_once
from models.networks import FitSettings, NetworkSpec, build_network, recipe
from models.precision import autocast, multiplying
from models.series import Columns
from models.specs import FitSpec, ReferenceSpec, ResidualSpec
from models.training import Training, learn_epoch
from models.windows import WindowSpec

COLUMNS = Columns(future=("workday", "temperature"))
SEASON, SEED = 48, 0
TO_REACH = 0.90  # of the windows/s over pre-loaded batches
LOADED, COMPARED, FIRST_STEPS = 50, 256, 5  # batches pre-loaded, windows forecast, losses compared
FORECAST_TOLERANCE = {"float32": (1e-4, 1e-5), "tf32": (0.05, 0.005), "bfloat16": (0.2, 0.02)}  # at most, and on the mean
LOSS_TOLERANCE = 1e-3  # relative


@dataclass(frozen=True)
class Case:
    """A network, its windows, and windows in a batch."""

    network: NetworkSpec
    windows: WindowSpec
    batch_size: int

    def title(self, precision: str) -> str:
        return f"{self.network.kind:11}{self.batch_size:>7}  {precision:10}"

    def build(self, **changes) -> torch.nn.Module:
        """The network with the same first weights every time."""
        torch.manual_seed(SEED)
        return build_network(self.network.model_copy(update=changes), COLUMNS, self.windows, SEASON)

    def spec(self, precision: str) -> FitSpec:
        return recipe(self.network, FitSettings(precision=precision, batch_size=self.batch_size))

    def training(self, precision: str, device: torch.device, **changes) -> Training:
        run = Training(self.build(**changes), self.spec(precision), 1_000_000, device, warn=print)
        run.network.train()
        return run


def cases(batch_sizes: list[int]) -> list[Case]:
    """The net this project began with at the first batch size, the residual net at the others."""
    first, *others = batch_sizes
    began = Case(ReferenceSpec(), WindowSpec(lookback=72, horizon=1), first)
    return [began, *(Case(ResidualSpec(), WindowSpec(lookback=9 * SEASON, horizon=SEASON), size) for size in others)]


def make_rows(num_rows: int) -> Tensor:
    """Scaled rows (R, 3): two cycles and noise."""
    rows = 0.6 * np.random.default_rng(SEED).standard_normal((num_rows, COLUMNS.num_channels))
    for period in (SEASON, 7 * SEASON):
        rows += np.sin(2 * np.pi * np.arange(num_rows) / period)[:, None]
    return torch.from_numpy(rows.astype(np.float32))


def fed(case: Case, rows: Tensor, device: torch.device) -> Iterator[Batch]:
    """Batches as training gathers them, without end."""
    span = case.windows.span
    held = rows_at_once(device, COLUMNS.num_channels)
    stream = ShuffledStream(TensorBlocks([rows], span), span, case.batch_size, SEED, device, held)
    return (Batch.split(windows, case.windows.lookback, COLUMNS) for windows in stream.batches())


def loaded(case: Case, rows: Tensor, device: torch.device) -> Iterator[Batch]:
    """Batches that lie on the device before the first is asked for, again and again."""
    draw, span = torch.Generator().manual_seed(SEED), case.windows.span
    starts = torch.randint(len(rows) - span + 1, (LOADED, case.batch_size), generator=draw)
    windows = torch.stack([gather(rows, some, span) for some in starts]).to(device)
    return (Batch.split(windows[at % LOADED], case.windows.lookback, COLUMNS) for at in count())


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(run: Training, batches: Iterator[Batch], steps: int) -> float:
    """Windows/s of some steps of training."""
    wait_for(run.device)
    begun = time.perf_counter()
    learn_epoch(run, batches, steps, lambda: False, lambda checkpoint: None)
    wait_for(run.device)
    return steps * run.spec.batch_size / (time.perf_counter() - begun)


def compare_speed(case: Case, precision: str, rows: Tensor, device: torch.device, steps: int, turns: int) -> Training:
    """Print the rates of both ways to have batches; returns the network as it then is."""
    run = case.training(precision, device)
    ways = {"fed": fed(case, rows, device), "loaded": loaded(case, rows, device)}
    rates = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name in ways if turn % 2 else reversed(ways):
            found = rate(run, ways[name], steps)
            if turn:  # the first turn pays for what is only done once
                rates[name].append(found)
    ratios = [mine / other for mine, other in zip(rates["fed"], rates["loaded"], strict=True)]
    columns = f"{spread(rates['fed'], 0):>30}{spread(rates['loaded'], 0):>30}{spread(ratios):>22}"
    print(f"{case.title(precision)}{columns}", flush=True)
    return run


@torch.no_grad()
def forecast(run: Training, case: Case, windows: Tensor, precision: str, device: torch.device) -> Tensor:
    """The forecasts (N, H) of some windows by the weights of a run, on a device, handed back to the processor."""
    network = case.build().to(device)
    network.load_state_dict(run.network.state_dict())
    batch = Batch.split(windows.to(device), case.windows.lookback, COLUMNS)
    with multiplying(precision, device), autocast(precision, device):
        return network.eval()(batch.past, batch.future).float().cpu()


def forecasts_agree(run: Training, case: Case, rows: Tensor, precision: str) -> bool:
    """Whether the device forecasts what the processor does in float32, by the same weights."""
    starts = torch.linspace(0, len(rows) - case.windows.span, COMPARED).long()
    windows = gather(rows, starts, case.windows.span)
    exact = forecast(run, case, windows, "float32", torch.device("cpu"))
    apart = (forecast(run, case, windows, precision, run.device) - exact).abs()
    most, mean = FORECAST_TOLERANCE[precision]
    agree = bool(apart.max() <= most and apart.mean() <= mean)
    found = f"forecasts differ by {apart.max():.1e} at most, {apart.mean():.1e} on the mean"
    print(f"{case.title(precision)}{found}: {'within' if agree else 'NOT within'} {most:g} and {mean:g}")
    return agree


def first_losses(case: Case, rows: Tensor, device: torch.device) -> Tensor:
    """The losses of the first steps without anything that is drawn at random while training."""
    still = {name: 0.0 for name in ("dropout", "noise") if name in type(case.network).model_fields}
    run = case.training("float32", device, **still)
    batches = loaded(case, rows, torch.device("cpu"))
    moved = (Batch(*(None if part is None else part.to(device) for part in vars(batch).values())) for batch in batches)
    return learn_epoch(run, moved, FIRST_STEPS, lambda: False, lambda checkpoint: None)


def losses_agree(case: Case, rows: Tensor, device: torch.device) -> bool:
    exact = first_losses(case, rows, torch.device("cpu"))
    apart = ((first_losses(case, rows, device) - exact).abs() / exact).max()
    agree = bool(apart <= LOSS_TOLERANCE)
    found = f"losses of the first {FIRST_STEPS} steps differ by {apart:.1e} of themselves"
    print(f"{case.title('float32')}{found}: {'within' if agree else 'NOT within'} {LOSS_TOLERANCE:g}")
    return agree


def say_device(device: torch.device) -> None:
    """The GPU and what it is driven with; or that there is none."""
    if device.type == "cpu":
        print(
            f"There is no GPU here: these are figures of the processor, on {torch.get_num_threads()} threads, "
            "and it is compared with itself.\n"
        )
        return
    about = torch.cuda.get_device_properties(device)
    print(
        f"GPU: {about.name}, {about.total_memory / 2**30:.0f} GiB, compute capability {about.major}.{about.minor}; "
        f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="1,000,000; without a GPU 20,000")
    parser.add_argument("--steps", type=int, help="of each turn: 300; without a GPU 20")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="of the first net, then of the residual net: 168 64 1024")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    introduce(f"training on a GPU, seed {SEED}", "torch", "numpy")
    say_device(device)
    rows = make_rows(given.rows or (1_000_000 if gpu else 20_000))
    steps = given.steps or (300 if gpu else 20)
    precisions = ("float32", "tf32", "bfloat16") if gpu else ("float32", "bfloat16")  # a processor knows no TF32
    compared = cases(given.batch_sizes or ([168, 64, 1024] if gpu else [168, 64, 256]))
    print(f"{'windows/s':11}{'batch':>7}  {'precision':10}{'as trained':>30}{'pre-loaded':>30}{'of pre-loaded':>22}")
    runs = {(one, precision): compare_speed(one, precision, rows, device, steps, given.turns)
            for one in compared for precision in precisions}  # fmt: skip
    print(f"aimed at on a GPU: {TO_REACH:.2f} of pre-loaded\n")
    agree = [forecasts_agree(run, one, rows, precision) for (one, precision), run in runs.items()]
    agree += [losses_agree(one, rows, device) for one in compared]
    if not all(agree):
        raise SystemExit(f"{agree.count(False)} of {len(agree)} comparisons are out of tolerance.")


if __name__ == "__main__":
    main()
