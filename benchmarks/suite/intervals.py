"""How well quantiles hold: those of convcast, fixed and rolling, beside the plain quantiles of validation's errors.

Axes in names: N windows, oldest first, H horizon, Q levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.conformal import HALF_LIVES, Calibration, Settled, following_of, offsets_of, scores
from models.metrics import QuantileErrors, Sureness
from models.series import Columns
from models.specs import QuantileSpec
from models.spread import Forecasts, SpreadNet, fit_spread
from models.windows import WindowSpec

LEVELS = QuantileSpec().levels
SHOWN = ("80", "95")  # percent
PLAIN = "errors of validation, by step"


@dataclass(frozen=True)
class Folds:
    """Scaled forecasts of one series: to learn how sure they are from, to calibrate that on, and to test it with."""

    training: Forecasts
    validation: Forecasts
    test: Forecasts
    mean: float  # of the scale: the unit of the data is scaled * std + mean
    std: float
    held_out: int  # steps at the end that no network was trained on
    spacing: int = 1  # steps between the origins of the test

    def unscaled(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float64) * self.std + self.mean


def held_by(folds: Folds, columns: Columns, windows: WindowSpec, season: int) -> dict[str, QuantileErrors]:
    """How well quantiles hold over the test windows, in the unit of the data, by the way they were made."""
    network = fit_spread(SpreadNet.fresh(LEVELS, columns, windows, season), LEVELS, folds.training)
    before = quantiles_of(network, folds.validation)
    seen, period = folds.validation.truth.numpy(), max(season, windows.horizon)
    offsets = offsets_of(scores(before, seen), LEVELS, folds.validation.spacing).tolist()
    following = following_of(before, seen, np.zeros(len(seen), int), LEVELS, HALF_LIVES * period, folds.validation.spacing)
    quantiles, truth = folds.unscaled(quantiles_of(network, folds.test)), folds.unscaled(folds.test.truth.numpy())
    found = {}
    for way, rolling in (("convcast, fixed", False), ("convcast, rolling", True)):
        calibration = Calibration(
            levels=LEVELS, offsets=offsets, rolling=rolling, num_windows=len(before), held_out=folds.held_out,
            following=following if rolling else None,
        )  # fmt: skip
        sure = Sureness(calibration, folds.spacing, windows.horizon, settled_by(calibration, folds.validation, before))
        sure.add(np.zeros(len(truth), int), quantiles, truth, ~np.isnan(truth))
        found[way] = sure.errors
    plain = QuantileErrors(LEVELS, windows.horizon)
    plain.add(folds.unscaled(plain_quantiles(folds.validation, folds.test)), truth, ~np.isnan(truth))
    return found | {PLAIN: plain}


def settled_by(calibration: Calibration, seen: Forecasts, quantiles: np.ndarray) -> dict[int, Settled]:
    """Where validation's windows leave quantiles (N, H, Q) that follow them."""
    truth = seen.truth.numpy()
    sure = Sureness(calibration, seen.spacing, truth.shape[1])
    sure.add(np.zeros(len(truth), int), quantiles, np.nan_to_num(truth), ~np.isnan(truth))
    return sure.settle()


@torch.no_grad()
def quantiles_of(network: SpreadNet, seen: Forecasts) -> np.ndarray:
    """Scaled quantiles (N, H, Q) before any offsets."""
    return torch.cat([network(*part) for part in seen.split()]).numpy()


def plain_quantiles(validation: Forecasts, test: Forecasts) -> np.ndarray:
    """Scaled quantiles (N, H, Q) of one width for all origins: the forecast, and the errors of validation at its step."""
    errors = (validation.truth - validation.forecast).numpy()
    apart = np.sort(offsets_of(np.repeat(errors[:, :, None], len(LEVELS), 2), LEVELS, validation.spacing), -1)
    return test.forecast.numpy()[:, :, None] + apart


def print_held(found: Sequence[dict[str, QuantileErrors]], steps: Sequence[int], unit: str) -> None:
    """Coverage and mean width of the intervals, CRPS and WQL, of one model a seed; then the same, step by step."""
    heads = [f"{what} {percent} %" for percent in SHOWN for what in ("covers", f"{unit} wide")] + ["CRPS", "WQL"]
    print(f"{'':30s}" + "".join(f"{head:>19s}" for head in heads))
    for way in found[0]:
        cells = zip(*(figures_of(one[way]) for one in found), strict=True)
        print(f"{way:30s}" + "".join(f"{told(values):>19s}" for values in cells), flush=True)
    print(f"\nby step: share covered, and {unit} wide")
    print(f"{'':30s}" + "".join(f"{f'{percent} %, step {step}':>19s}" for percent in SHOWN for step in steps))
    for way in found[0]:
        cells = [told_step(found, way, percent, step) for percent in SHOWN for step in steps]
        print(f"{way:30s}" + "".join(f"{cell:>19s}" for cell in cells), flush=True)


def figures_of(errors: QuantileErrors) -> list[float]:
    intervals = errors.intervals()
    figures = [intervals[percent][what] for percent in SHOWN for what in ("coverage", "width")]
    return figures + list(errors.score(len(errors.count)).values())


def told(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f}" + (f" +-{np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def told_step(found: Sequence[dict[str, QuantileErrors]], way: str, percent: str, step: int) -> str:
    """The mean over seeds of what one step's interval covers, and of how wide it is."""
    each = [one[way].intervals()[percent] for one in found]
    covered, width = (np.mean([one[what][step - 1] for one in each]) for what in ("coverage_by_step", "width_by_step"))
    return f"{covered:.3f} / {width:.3f}"
