"""How exactly numbers are multiplied on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def multiplying(precision: str, device: torch.device) -> Iterator[None]:
    """Within it, float32 is multiplied on a GPU as `precision` says; on a processor it always is as it comes.

    A GPU that can rounds the factors to the ten bits of TF32 where `tf32` is asked for, and nowhere else: left alone, torch
    would do it in every convolution. What was set before is set again afterwards.
    """
    if device.type != "cuda":
        yield
        return
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = precision == "tf32"
        yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


def autocast(precision: str, device: torch.device):
    """Where products are of bfloat16 factors, if that is the precision."""
    wanted = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def misgiving(precision: str, device: torch.device) -> str | None:
    """What there is to say of a precision that a device is slow with."""
    if precision != "bfloat16" or multiplies_bfloat16(device):
        return None
    return "this device imitates bfloat16, which takes several times as long; fit.precision float32 is the faster one here"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for it; without them it takes longer than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(supported() for supported in found if supported)
