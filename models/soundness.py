"""Whether the two files of a bundle are sound and belong together, found out before any of it is used.

A network is first built without memory, so that what a file claims costs nothing before its weights are seen to bear it out.
"""

import math

import torch

from models.errors import Fault

LONGEST = 1 << 20  # steps of a window
HEAVIEST = 1 << 30  # bytes that a network may make for itself beside its weights

Weights = dict[str, torch.Tensor]


def check_description(about) -> None:
    """Raises a ValueError that says which part of a description does not go with the others."""
    if about.windows.span > LONGEST:
        raise ValueError(f"windows: lookback + horizon is {about.windows.span} steps; {LONGEST} are the most")
    if min(about.series.season, about.scaler.season) < 1:
        raise ValueError(f"season is {min(about.series.season, about.scaler.season)}; 1 is the least")
    if not about.members or not all(member.seeds for member in about.members):
        raise ValueError("members: one of them has no seed, or there is none at all")
    check_scaler(about.scaler, about.series.columns.names)
    if about.calibration:
        check_calibration(about.calibration, about.windows.horizon)


def check_scaler(scaler, channels: tuple[str, ...]) -> None:
    """Raises a ValueError where a scaler does not scale exactly these channels."""
    if scaler.channels != channels:
        raise ValueError(f"scaler.channels are {', '.join(scaler.channels)}; series.columns makes them {', '.join(channels)}")
    if not scaler.series:
        raise ValueError("scaler.series is empty; it needs the scale of each series that was trained on")
    for name, scale in scaler.series.items():
        for part in ("mean", "std"):
            values = getattr(scale, part)
            if len(values) != len(channels):
                raise ValueError(f"scaler.series {name}: {part} has {len(values)} entries for {len(channels)} channels")
            if not all(math.isfinite(value) and (part == "mean" or value > 0) for value in values):
                raise ValueError(f"scaler.series {name}: {part} holds what nothing can be scaled by")
        if scale.floor not in (None, 0):
            raise ValueError(f"scaler.series {name}: floor is {scale.floor}; it is 0, or there is none")


def check_calibration(calibration, horizon: int) -> None:
    """Raises a ValueError where offsets or levels are no quantiles of so many steps."""
    levels = calibration.levels
    if len(levels) < 2 or list(levels) != sorted(set(levels)) or not 0 < levels[0] < levels[-1] < 1:
        raise ValueError("calibration.levels are not two or more that ascend between 0 and 1")
    following = calibration.following
    for offsets in (calibration.offsets, *([following.offsets] if following else [])):
        if [len(row) for row in offsets] != [len(levels)] * horizon:
            raise ValueError("its offsets are not one for each step and level")
    if following and (len(following.usual) != horizon or min(following.usual) <= 0):
        raise ValueError("calibration.following.usual is not a positive size for each step")


def check_weights(prefix: str, weights: Weights, build) -> None:
    """Refuse weights that are not exactly, and in numbers, those of the network that `build` makes.

    Raises:
        Fault: one is absent, too many, of another shape or kind, or no number.
    """
    needed = shapes_of(build)
    for name in sorted(needed.keys() | weights.keys()):
        found = described(weights[name]) if name in weights else "absent"
        expected = described(needed[name]) if name in needed else "not among its weights"
        if found != expected:
            raise Fault(
                "The weights do not fit the network that bundle.json describes: "
                f"{prefix}.{name[:80]} is {found}, needed: {expected}. Train again."
            )
        if not weights[name].isfinite().all():
            raise Fault(f"The weights {prefix}.{name} hold what is no finite number. Train again.")


def shapes_of(build) -> Weights:
    """The weights of the network that `build` makes, without their memory.

    Raises:
        Fault: there is no such network, or it is too large.
    """
    try:
        with torch.device("meta"):
            network = build()
    except Fault:
        raise
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise Fault(f"bundle.json describes a network that can not be built: {brief(error)}. Train again.") from error
    kept = network.state_dict()
    made = sum(value.nbytes for name, value in network.named_buffers() if name not in kept)
    if made > HEAVIEST:
        raise Fault(f"bundle.json describes a network that takes {made >> 30:,} GB beside its weights. Train again.")
    return kept


def described(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def brief(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, KeyError):
        return f"{error} is nothing that it could hold"[:200]
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
