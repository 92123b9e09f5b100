"""Where forecasts stop: a series that is often 0 and never less, as rain or calls at night, is not forecast below 0.

Axes in names: B batch, L lookback, S series.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from models.scaling import Scaler, SeriesScale

SLACK = 1e-4  # standard deviations by which windows, which hold single precision around a mean, may be off
NONE = float(np.finfo(np.float32).min)  # lies below every forecast; a graph has no infinity to compare with


def stopping(num_floored: int, num_series: int) -> str:
    """Of how many series forecasts stop at 0, in words."""
    return "never below 0" if num_floored == num_series else f"{num_floored:,} of {num_series:,} series never below 0"


def raw_floors(scales: Iterable[SeriesScale]) -> np.ndarray:
    """The floors (S,) of series in the target's unit, -inf of those that have none."""
    return np.array([-np.inf if one.floor is None else one.floor for one in scales])


def scaled_floors(floors: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Floors as rows are scaled, float32, so that a target on its floor is equal to it."""
    return np.maximum((floors - mean) / std, NONE).astype(np.float32)


def floors_by_number(scaler: Scaler) -> Tensor:
    """The scaled floors (S + 1,) of the series by their numbers, from 1 in the order of their names; 0, unknown, has none."""
    scales = [scaler.series[name] for name in sorted(scaler.series)]
    mean, std = (np.array([getattr(one, part)[0] for one in scales]) for part in ("mean", "std"))
    return torch.from_numpy(np.concatenate([[np.float32(NONE)], scaled_floors(raw_floors(scales), mean, std)]))


def kept(floors: Tensor, past: Tensor) -> Tensor:
    """The floors (B,) that targets (B, L) up to the origin keep to; none where one of them lies lower. All are scaled."""
    return torch.where(past.amin(1) < floors - SLACK, NONE, floors)


def raw_kept(floors: np.ndarray, past: np.ndarray) -> np.ndarray:
    """As `kept`, in the target's unit."""
    return np.where(past.min(1) < floors, -np.inf, floors)


def snapped(target: np.ndarray, floors: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Targets (B, T) of windows, in their unit, with those exactly on their floor (B, 1) that were when they were stored."""
    return np.where(np.abs(target - floors) < SLACK * std, floors, target)


def in_units(forecast: np.ndarray, mean: np.ndarray, std: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """Scaled forecasts (B, H) in the target's unit; those on their floor (B,) are exactly there. Mean and std are (B, 1)."""
    return np.where(forecast <= scaled_floors(floors[:, None], mean, std), floors[:, None], forecast * std + mean)
