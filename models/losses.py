"""What training makes small: the loss of a batch, and of how many steps it is the mean."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batches import Batch
from models.precision import autocast
from models.specs import FitSpec


@dataclass(frozen=True)
class Objective:
    """What a network learns from batches of some kind."""

    loss: Callable[[nn.Module, FitSpec, Any], Tensor]  # (network, spec, batch) -> the mean loss
    count: Callable[[nn.Module, Any], Tensor]  # (network, batch) -> how many values that is the mean of


def loss_of(spec: FitSpec, forecast: Tensor, batch: Batch) -> Tensor:
    """The loss that the spec names, over the steps that were forecast and whose target was observed."""
    losses = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss, "quantile": partial(quantile_loss, spec.level)}
    function = losses[spec.loss]
    steps = forecast.shape[1]
    if batch.weight is None:
        return function(forecast.float(), batch.target[:, :steps])
    weight = batch.weight[:, :steps]
    target = batch.target[:, :steps].where(weight > 0, 0.0)  # whatever was filled in, as zero times infinity is no number
    each = function(forecast.float(), target, reduction="none")
    return (each * weight).sum() / weight.sum().clamp(min=1)


def quantile_loss(level: float, forecast: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Twice the pinball loss, which at level 0.5 is the absolute error."""
    each = 2 * pinball(forecast, target, level)
    return each.mean() if reduction == "mean" else each


def pinball(quantiles: Tensor, target: Tensor, levels: Tensor | float) -> Tensor:
    """The loss of quantiles at their levels, each of the shape that all three broadcast to (Koenker and Bassett 1978)."""
    apart = target - quantiles
    return torch.maximum(levels * apart, (levels - 1) * apart)


def forecast_loss(network: nn.Module, spec: FitSpec, batch: Batch) -> Tensor:
    """The loss of what a network forecasts from the windows of a batch."""
    with autocast(spec.precision, batch.past.device):
        forecast = network(batch.past, batch.future, batch.series)
    return loss_of(spec, forecast, batch)


def steps_seen(network: nn.Module, batch: Batch) -> Tensor:
    """Of how many steps `forecast_loss` is the mean."""
    steps = network.trained_steps or batch.target.shape[1]
    if batch.weight is None:
        return batch.target.new_full((), len(batch) * steps)
    return batch.weight[:, :steps].sum()


FORECASTS = Objective(forecast_loss, steps_seen)
