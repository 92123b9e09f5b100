"""A convolution, its ReLU and a max-pool as one operation of a processor, with a gradient that costs as little.

torch's own max-pool spreads its gradient over zeros, a value at a time, and copies it into another order. Here a pool is a
maximum of whole matrices, and what each of its positions learns is the gradient where that position is the maximum.
"""

import torch
from torch import Tensor


class PooledConv(torch.autograd.Function):
    """The larger of 0 and the maximum over each pool of patches times weight, plus bias.

    Where positions of a pool are equal, the first one learns, as with `torch.nn.MaxPool1d`. Patches learn nothing.
    """

    @staticmethod
    def forward(ctx, patches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(N, filters) of patches (N, pool, C * K), weight (filters, C * K) and bias (filters,)."""
        hidden = (patches.flatten(0, 1) @ weight.t()).unflatten(0, patches.shape[:2])
        largest = hidden[:, 0]
        for at in range(1, patches.shape[1]):
            largest = torch.maximum(largest, hidden[:, at])
        pooled = torch.add(largest, bias).clamp_min_(0)
        ctx.save_for_backward(patches, hidden, largest, pooled)
        return pooled

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        patches, hidden, largest, pooled = ctx.saved_tensors
        left = gradient * (pooled > 0)  # what no position has taken yet
        of_bias, of_weight = left.sum(0), left.new_zeros(left.shape[1], patches.shape[2])
        own = torch.empty_like(left)
        for at in range(patches.shape[1]):
            torch.eq(hidden[:, at], largest, out=own).mul_(left)
            left -= own
            of_weight.addmm_(own.t(), patches[:, at])
        return None, of_weight, of_bias
