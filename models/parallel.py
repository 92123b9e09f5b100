"""Processes that train one network together: what each takes of a batch, and how they agree on a step.

Each runs the same loop over the same batches, learns from its own part of them, and takes the same optimiser step as all
others. How they are started, and where their data lies, is none of this module's business.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.errors import Fault, counted

PATIENCE = timedelta(minutes=15)  # for a process that does not answer; one that is dead is noticed at once
CPU = torch.device("cpu")


class PeerLost(ConnectionError):
    """Another of the processes is gone; which, and why, is known to who started them."""


@dataclass(frozen=True)
class Team:
    """The processes that train together, as one of them sees it. By itself it is a team of one, which changes nothing."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU  # where what they exchange lies

    @property
    def is_first(self) -> bool:
        """Whether this is the one that validates, saves and tells."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch (B, ...); each takes the whole of one that has less than a window for each."""
        return batch if len(batch) < self.size else batch.tensor_split(self.size)[self.rank]

    def seed(self, seed: int, step: int) -> None:
        """Have noise and dropout of a step differ between processes; a process by itself goes on drawing as it did."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence((seed, step, self.rank)).generate_state(1)[0]))

    def average(self, loss: Tensor, weight: Tensor, network: nn.Module) -> Tensor:
        """Make every gradient the mean over all processes, and return the mean loss.

        Args:
            loss: the mean over the steps that this process saw.
            weight: how many these were, at least one or none.
        """
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), loss.reshape(1)]) * weight
        flat = torch.cat([flat, weight.reshape(1)])
        exchange(dist.all_reduce, flat)
        flat /= flat[-1].clamp(min=1)
        parts = flat[:-2].split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, parts, strict=True):
            gradient.copy_(mean.view_as(gradient))
        return flat[-2]

    def told(self, value: float) -> float:
        """The first process's value; what others pass is not looked at."""
        if self.size == 1:
            return value
        known = torch.tensor([value], dtype=torch.float64, device=self.device)
        exchange(dist.broadcast, known, 0)
        return known.item()

    def check_alike(self, network: nn.Module) -> None:
        """Raises a RuntimeError where this process does not begin with the weights of the first one."""
        if self.size == 1:
            return
        own = torch.cat([value.detach().flatten().double() for value in network.state_dict().values()]).to(self.device)
        first = own.clone()
        exchange(dist.broadcast, first, 0)
        if not torch.equal(own, first):
            raise RuntimeError(f"Process {self.rank + 1} of {self.size} begins with other weights than the first one.")


ALONE = Team()


def exchange(collective, tensor: Tensor, *args) -> None:
    """Run one collective on a tensor.

    Raises:
        PeerLost: a process that takes part in it is gone, or does not answer.
    """
    try:
        collective(tensor, *args)
    except RuntimeError as error:
        raise PeerLost(str(error)) from error


def join(device: torch.device) -> Team:
    """Become one of the processes that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT tell of, as torchrun sets them."""
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return Team(dist.get_rank(), dist.get_world_size(), device)


def leave() -> None:
    dist.destroy_process_group()


def check_devices(devices: int, device: torch.device) -> None:
    """Raises a Fault where there is not a CUDA device, or a core, for each of the processes."""
    if device.type == "cuda":
        found, what, instead = torch.cuda.device_count(), "CUDA devices", " or fit.device: cpu"
    else:
        found, what, instead = os.cpu_count() or 1, "cores", ""
    if devices > found:
        raise Fault(
            f"fit.devices is {devices} but this machine has {counted(found, what)}, and each process needs its own. "
            f"Use fit.devices: {found}{instead}."
        )
