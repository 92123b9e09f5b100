"""Per-series scaling, fitted on training steps and undone on forecasts."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.errors import Fault, shortlist


class ScalingSpec(BaseModel):
    """How channels are scaled before a network sees them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["standard", "none"] = "standard"


class SeriesScale(BaseModel):
    """Training statistics of one series, channel by channel, in the order of `Scaler.channels`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    std: tuple[float, ...]  # ddof 0; 1 for a covariate that never changes in training
    naive_mae: float  # seasonal-naive error over the training steps, in the target's unit; the scale of MASE


class Scaler(BaseModel):
    """What `normalise` subtracted and divided by, for every series."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[str, ...]
    season: int
    series: dict[str, SeriesScale]

    def of(self, series_id: str) -> SeriesScale:
        """The scale of one series.

        Raises:
            Fault: the series was not there when the model was trained.
        """
        if series_id not in self.series:
            raise Fault(
                f"Series {series_id} was not in the training data, which has {shortlist(sorted(self.series))}. "
                "Train again with it, or remove its rows."
            )
        return self.series[series_id]

    def apply(self, series_id: str, values: np.ndarray) -> np.ndarray:
        """Scaled float32 rows (R, C) from raw rows (R, C)."""
        scale = self.of(series_id)
        return ((values - np.asarray(scale.mean)) / np.asarray(scale.std)).astype(np.float32)

    def apply_target(self, series_id: str, values: np.ndarray) -> np.ndarray:
        """Targets or forecasts scaled, float64, any shape."""
        scale = self.of(series_id)
        return (np.asarray(values, np.float64) - scale.mean[0]) / scale.std[0]

    def undo_target(self, series_id: str, values: np.ndarray) -> np.ndarray:
        """Targets or forecasts in the target's own unit, float64, any shape."""
        scale = self.of(series_id)
        return np.asarray(values, np.float64) * scale.std[0] + scale.mean[0]


def fit_scale(training: np.ndarray, season: int, spec: ScalingSpec, series_id: str, target: str) -> SeriesScale:
    """Statistics of the training rows (R, C) of one series; the target is the first channel.

    Raises:
        Fault: the target never changes over the training steps.
    """
    if np.ptp(training[:, 0]) == 0:
        raise Fault(
            f"{series_id}: {target} is constant ({training[0, 0]:g}) over its {len(training)} training steps, so there "
            "is nothing to learn. Drop the series or choose another source.target."
        )
    lag = season if season < len(training) else 1
    naive_mae = float(np.abs(training[lag:, 0] - training[:-lag, 0]).mean())
    if spec.kind == "none":
        mean, std = np.zeros(training.shape[1]), np.ones(training.shape[1])
    else:
        mean, std = training.mean(0), training.std(0)
        std = np.where(np.ptp(training, axis=0) > 0, std, 1.0)  # of equal values, rounding may leave std at 1e-17
    return SeriesScale(mean=tuple(mean.tolist()), std=tuple(std.tolist()), naive_mae=naive_mae)
