"""How cases are varied while a net learns from them, so that it does not learn them by heart."""

import math

import torch
from torch import Tensor

SCALE, JITTER, CROP, WARP = 0.1, 0.05, 0.2, 0.2


def vary(values: Tensor, lengths: Tensor, mask: Tensor, smooth: bool, num_values: int) -> Tensor:
    """Values (B, C, T) a little larger or smaller, noisier, and, of smooth series, cropped and with their time bent.

    Args:
        num_values: channels that hold values; those after them say which were observed and are only moved along in time.
    """
    if smooth and values.shape[2] > 1:
        values = bent(values, lengths)
    batch = len(values)
    own = values[:, :num_values] * (1 + SCALE * torch.randn(batch, 1, 1, device=values.device))
    own = own + JITTER * torch.rand(batch, 1, 1, device=values.device) * torch.randn_like(own)
    return torch.cat([own, values[:, num_values:]], 1) * mask[:, None]


def bent(values: Tensor, lengths: Tensor) -> Tensor:
    """Each case as if read from a stretch of it, now faster, now slower, as long as before."""
    batch, _, steps = values.shape

    def drawn() -> Tensor:
        return torch.rand(batch, 1, device=values.device)

    last = lengths[:, None] - 1
    place = torch.arange(steps, device=values.device)[None] / last.clamp(min=1)  # from 0 to 1
    slow, fast = 2 * drawn() - 1, 2 * drawn() - 1
    place = place + WARP * (slow * (math.pi * place).sin() / math.pi + fast * (2 * math.pi * place).sin() / (2 * math.pi))
    share = 1 - CROP * drawn()
    at = ((drawn() * (1 - share) + share * place).clamp(0, 1) * last).clamp(max=steps - 1)
    low = at.floor().long().clamp(max=steps - 2)
    part = (at - low)[:, None]
    index = low[:, None].expand_as(values)
    return values.gather(2, index) * (1 - part) + values.gather(2, index + 1) * part
