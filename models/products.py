"""Matrix products in single precision, as fast as a processor can.

torch leaves those to MKL, which holds back on processors that its maker has not built: on an EPYC with AVX-512 they take
twice as long as those of oneDNN, which torch brings along and uses for lower precision. On an EPYC without it MKL is the
faster of the two. Both add up in single precision, each in an order of its own.
"""

import platform
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

LONGEST = 320  # products that are added up one after another
FEW = 16  # rows, or outputs, from which on it is worth while


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, and its gradient: (..., out) of rows (..., in), weight (out, in) and bias (out,)."""
    if is_left_to_torch(rows, weight):
        return F.linear(rows, weight, bias)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (rows, weight, bias)):
        return Product.apply(rows, weight, bias)
    return added_up(rows, weight, bias)


class Product(torch.autograd.Function):
    """All three products of a linear layer: what it gives, and what its weight and what is below it learn."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return multiplied(rows, weight, bias)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        flat = gradient.flatten(0, -2)
        return (
            multiplied(gradient, weight.t()) if of_rows else None,
            multiplied(flat.t(), rows.flatten(0, -2).t()) if of_weight else None,
            flat.sum(0) if of_bias else None,
        )


def added_up(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A product in parts: oneDNN's sums of very many lose twice what MKL's do, too much for a forecast, not for learning."""
    parts = -(-rows.shape[-1] // LONGEST)
    pieces = zip(rows.tensor_split(parts, -1), weight.tensor_split(parts, -1), strict=True)
    summed = multiplied(*next(pieces), bias)
    for piece in pieces:
        summed += multiplied(*piece)
    return summed


def multiplied(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not weight.t().is_contiguous():
        weight = weight.contiguous()  # laid out in any other way, it is multiplied value by value, a thousand times as slowly
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


@cache
def has_onednn() -> bool:
    """Whether oneDNN is the faster here, and this torch has the operation, which it names for its own use."""
    known = platform.machine() in ("x86_64", "AMD64") and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if not known or not torch.backends.mkldnn.is_available():
        return False
    one = torch.ones(1, 1)
    try:
        return multiplied(one, one, one[0]).item() == 2
    except (AttributeError, RuntimeError):  # a torch that has none, or one that is called otherwise
        return False


def is_left_to_torch(rows: Tensor, weight: Tensor) -> bool:
    """Whether they are few, of another precision or device, in an autocast, or in a graph that is made."""
    alike = rows.dtype == weight.dtype == torch.float32 and rows.device.type == "cpu"
    small = len(weight) < FEW or rows.numel() < FEW * max(1, rows.shape[-1])
    return small or not alike or torch.is_autocast_enabled("cpu") or is_symbolic() or not has_onednn()


def is_symbolic() -> bool:
    """Whether a graph is made of what is computed now."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
