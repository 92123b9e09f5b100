"""A convolution, its ReLU and a max-pool as one operation of a processor, with a gradient that costs as little.

torch's own max-pool spreads its gradient over zeros, a value at a time, and copies it into another order. Here a pool is a
maximum of whole matrices, and what each of its positions learns is the gradient where that position is the maximum.
"""

import torch
from torch import Tensor

from models.products import product

BELOW = -torch.finfo(torch.float32).tiny  # nearer to 0 than it, some processors know no other number


class PooledConv(torch.autograd.Function):
    """The larger of 0 and the maximum over each pool of patches times weight, plus bias.

    Where positions of a pool are equal, the first one learns, as with `torch.nn.MaxPool1d`. Patches learn nothing.
    """

    @staticmethod
    def forward(ctx, patches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(N, filters) of patches (pool, N, K * C), weight (filters, K * C) and bias (filters,)."""
        hidden = product(patches.flatten(0, 1), weight, bias).unflatten(0, patches.shape[:2])
        pooled = hidden[0].clamp_min(0)
        for position in hidden[1:]:
            torch.maximum(pooled, position, out=pooled)
        pooled = pooled.to(weight.dtype)
        ctx.save_for_backward(patches, hidden, pooled)
        return pooled

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        patches, hidden, pooled = ctx.saved_tensors
        left = where_above(gradient, pooled, 0.0)  # what no position has taken yet
        of_bias, of_weight = left.sum(0), left.new_zeros(patches.shape[2], left.shape[1])
        own = torch.empty_like(left)
        for patch, position in zip(patches[:-1], hidden[:-1], strict=True):
            torch.sub(position, pooled, out=own)
            where_above(left, own, BELOW, out=own)
            left -= own
            of_weight.addmm_(patch.t(), own)
        of_weight.addmm_(patches[-1].t(), left)  # what the others have not taken is the last one's
        return None, of_weight.t(), of_bias


def where_above(gradient: Tensor, values: Tensor, threshold: float, out: Tensor | None = None) -> Tensor:
    """The gradient where values are above a threshold, 0 elsewhere, in one go; `out` may be one of both."""
    if out is None:
        return torch.ops.aten.threshold_backward(gradient, values, threshold)
    return torch.ops.aten.threshold_backward.grad_input(gradient, values, threshold, grad_input=out)
