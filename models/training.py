"""A network on its way, whatever it learns: optimiser steps, epochs, checkpoints, and going on from where a run was killed."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.errors import Diverged, Fault
from models.losses import FORECASTS, Objective
from models.memory import Lesson, Portions
from models.parallel import ALONE, Team
from models.precision import multiplying
from models.randomness import random_state, restore_random_state
from models.specs import FitSpec

WARM_STEPS = 100  # over which the plateau schedule begins
LATE = 1e6  # steps of Adam
SMALLEST_RATE = 0.5**5  # with which it still goes on


@dataclass
class Checkpoint:
    """Everything a run needs to go on, after an epoch or in the middle of one: tensors, and numbers that fit JSON.

    The tensors are weights, their running mean, the best so far, the optimiser's, torch's random state, and the losses
    of the epoch that is not over. Schedule and sampler stand where `step` says: which pass it is, and which batch of it.
    """

    epoch: int  # of which the last step is done
    tensors: dict[str, Tensor]
    history: list[dict] = field(default_factory=list)  # an entry an epoch: epoch, step, train, validation
    best_epoch: int = 0
    step: int = 0  # optimiser steps done
    at_once: int = 0  # windows of a batch that memory has room for at a time; 0: all


@dataclass
class Fitted:
    """The kept weights of one network, and how it got there."""

    weights: dict[str, Tensor]
    history: list[dict]
    best_epoch: int


def resolve_device(name: str) -> torch.device:
    """The device that `fit.device` names.

    Raises:
        Fault: cuda was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise Fault("fit.device is 'cuda' but torch sees no CUDA device here. Use 'auto' or 'cpu'.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def num_steps(spec: FitSpec, num_windows: int) -> tuple[int, int]:
    """Optimiser steps in all, and in an epoch."""
    per_epoch = spec.steps_per_epoch or math.ceil(num_windows / spec.batch_size)
    return (spec.max_steps or spec.epochs * per_epoch), per_epoch


class Training:
    """One network on its way: weights, their running mean, optimiser and schedule, saved and restored as one."""

    def __init__(
        self, network: nn.Module, spec: FitSpec, total_steps: int, device: torch.device, warn=lambda line: None,
        team: Team = ALONE, seed: int = 0, objective: Objective = FORECASTS,
    ):  # fmt: skip
        self.network, self.spec, self.device = network.to(device), spec, device
        self.team, self.seed, self.objective = team, seed, objective
        self.mean = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.best = {name: value.clone() for name, value in self.mean.items()}
        decays: dict[float, list[nn.Parameter]] = {}
        for parameter in network.parameters():
            decays.setdefault(spec.weight_decay if parameter.ndim > 1 else 0.0, []).append(parameter)
        groups = [{"params": own, "weight_decay": decay} for decay, own in decays.items()]
        if spec.optimizer == "rmsprop":
            self.optimizer = rmsprop(groups, spec.learning_rate)
        else:
            kernels = {"fused" if device.type == "cuda" else "foreach": True}
            self.optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate, betas=(0.9, 0.98), **kernels)
        self.live = network.state_dict()  # shares its memory with the network, whatever is loaded into that
        self.total_steps, self.step = total_steps, 0
        self.plateau_rate = 1.0  # by the epochs so far
        self.epoch, self.best_epoch = 0, 0
        self.history: list[dict] = []
        self.portions = Portions(device, warn)
        self.losses: list[Tensor] = []  # of the steps of an epoch that is not over

    def learn(self, batch: Lesson) -> Tensor:
        """One optimiser step; returns the loss, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.learning_rate * self._rate()
        self.team.seed(self.seed, self.step)
        with multiplying(self.spec.precision, self.device):
            loss = self.portions.total(batch, self.optimizer.zero_grad, lambda portion: self._add_gradient(portion, batch))
        if self.team.size > 1:
            loss = self.team.average(loss, self.objective.count(self.network, batch), self.network)
        if self.spec.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.spec.clip_norm)
        self.optimizer.step()
        self.step += 1
        if self.spec.average:
            decay = min(self.spec.average, self.step / (self.step + 10))
            with torch.no_grad():
                torch._foreach_lerp_([self.mean[name] for name in self.live], list(self.live.values()), 1 - decay)
        return loss

    def _add_gradient(self, portion: Lesson, batch: Lesson) -> Tensor:
        """What a portion of a batch adds to its mean loss; its gradient is added to that of the weights."""
        loss = self.objective.loss(self.network, self.spec, portion)
        if portion is not batch:
            loss = loss * share(self.objective, self.network, portion, batch)
        loss.backward()
        return loss.detach()

    def _rate(self) -> float:
        """Share of the learning rate at this step.

        Flat; or up over a fifth of the run and down along a cosine; or up over a few steps and down at each plateau.
        """
        if self.spec.schedule == "constant":
            return 1.0
        if self.spec.schedule == "plateau":
            return self.plateau_rate * min(1.0, (self.step + 1) / WARM_STEPS)
        warm = max(1, self.total_steps // 5)
        if self.step < warm:
            return 0.05 + 0.95 * (1 - math.cos(math.pi * self.step / warm)) / 2
        done = (self.step - warm) / max(1, self.total_steps - warm)
        return 0.001 + 0.999 * (1 + math.cos(math.pi * done)) / 2

    def weights(self) -> dict[str, Tensor]:
        """What the network would forecast with now."""
        return self.mean if self.spec.average else self.network.state_dict()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, flat, on the CPU."""
        flat = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        flat |= {f"mean.{name}": value for name, value in self.mean.items()}
        flat |= {f"best.{name}": value for name, value in self.best.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            flat |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        flat |= {f"random.{device}": state for device, state in random_state(self.device).items()}
        flat["losses"] = torch.stack(self.losses) if self.losses else torch.empty(0)
        return {name: value.detach().cpu().contiguous().clone() for name, value in flat.items()}

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.epoch, self.tensors(), list(self.history), self.best_epoch, self.step, self.portions.at_once)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was made, torch's random state included."""

        def part(prefix):
            cut = len(prefix) + 1
            return {n[cut:]: t.to(self.device) for n, t in checkpoint.tensors.items() if n.startswith(prefix + ".")}

        self.network.load_state_dict(part("network"))
        self.mean, self.best = part("mean"), part("best")
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        state: dict[int, dict] = {}
        for name, value in part("optimizer").items():
            index, key = name.split(".", 1)
            # Laid out in memory as its parameter is: a fused step takes both as they lie.
            own = value.cpu() if key == "step" else torch.empty_like(parameters[int(index)]).copy_(value)
            state.setdefault(int(index), {})[key] = own
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.epoch, self.step, self.best_epoch = checkpoint.epoch, checkpoint.step, checkpoint.best_epoch
        self.history, self.losses = list(checkpoint.history), list(checkpoint.tensors["losses"].to(self.device))
        self.portions.at_once = checkpoint.at_once
        state = {device: checkpoint.tensors.get(f"random.{device}") for device in ("cpu", "cuda")}
        restore_random_state({device: value for device, value in state.items() if value is not None}, self.device)


def rmsprop(groups: list[dict], learning_rate: float) -> torch.optim.Optimizer:
    """RMSprop with Keras' defaults, in one pass over the weights, which torch has of Adam alone.

    It is Adam without momentum after so many steps that its correction for the first ones is none.
    """
    optimizer = torch.optim.Adam(groups, lr=learning_rate, betas=(0.0, 0.9), eps=1e-7, fused=True)
    for parameter in (one for group in groups for one in group["params"]):
        means = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.full((), LATE, device=parameter.device), **means}
    return optimizer


def share(objective: Objective, network: nn.Module, portion: Lesson, batch: Lesson) -> Tensor:
    """How much of the mean loss of a batch is a portion's own: its part of all that the batch is the mean of."""
    return objective.count(network, portion) / objective.count(network, batch).clamp(min=1)


def run_epochs(
    run: Training,
    per_epoch: int,
    batches: Iterator[Lesson],
    validate: Callable[[Training], float | None],
    save: Callable[[Checkpoint], None] = lambda checkpoint: None,
    tell: Callable[[dict], None] = lambda entry: None,
    due: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Train until all steps of a run are done, from the step that it stands at, and return the kept weights.

    An epoch draws all its randomness from (seed, epoch), and a checkpoint holds how far it has drawn. `save` receives a
    checkpoint after every epoch, and in the middle of one wherever `due`, asked after every step, says so; `tell` receives
    each epoch's history entry. `validate` returns the loss of `run.weights()` on what is held out, None where nothing is.

    Raises:
        Fault: the loss is no longer finite. The last checkpoint given to `save` is still good.
    """
    spec = run.spec
    for epoch in range(run.epoch + 1, math.ceil(run.total_steps / per_epoch) + 1):
        run.plateau_rate = plateau_rate(run.history) if spec.schedule == "plateau" else 1.0
        if run.plateau_rate < SMALLEST_RATE:
            break
        if not run.losses:  # else the random state is that of the middle of the epoch
            torch.manual_seed(hash_pair(run.seed, epoch))
        losses = learn_epoch(run, batches, min(per_epoch, run.total_steps - (epoch - 1) * per_epoch), due, save)
        entry = {"epoch": epoch, "step": run.step, "train": losses.mean().item()}
        held_out = validate(run)
        if held_out is not None:
            entry["validation"] = held_out
            if not math.isfinite(held_out):
                raise diverged("Validation loss", held_out, epoch, run.step, spec)
        run.epoch = epoch
        run.history.append(entry)
        if spec.keep == "last" or held_out is None or held_out <= min(past["validation"] for past in run.history):
            run.best_epoch, run.best = epoch, {name: value.clone() for name, value in run.weights().items()}
        save(run.checkpoint())
        tell(entry)
    weights = {name: value.cpu().contiguous() for name, value in run.best.items()}
    return Fitted(weights, run.history, run.best_epoch)


def plateau_rate(history: list[dict]) -> float:
    """Half for every epoch whose validation loss was no better than any before."""
    losses = [entry["validation"] for entry in history]
    return 0.5 ** sum(loss >= min(losses[:at]) for at, loss in enumerate(losses) if at)


def hash_pair(seed: int, epoch: int) -> int:
    """A generator seed for one epoch of one run."""
    return (seed * 1_000_003 + epoch) % 2**63


def learn_epoch(
    run: Training, batches: Iterator[Lesson], steps: int, due: Callable[[], bool], save: Callable[[Checkpoint], None]
) -> Tensor:
    """The losses (steps,) of one epoch, those included that were learned before a checkpoint in the middle of it.

    Raises:
        Fault: one of them is not finite; it is looked at before a checkpoint and in the end.
    """
    run.network.train()
    while len(run.losses) < steps:
        run.losses.append(run.learn(next(batches)))
        if len(run.losses) < steps and due():
            check_finite(torch.stack(run.losses).cpu(), run.epoch + 1, run.step, run.spec)
            save(run.checkpoint())
    losses, run.losses = torch.stack(run.losses).cpu(), []
    check_finite(losses, run.epoch + 1, run.step, run.spec)
    return losses


def check_finite(losses: Tensor, epoch: int, last_step: int, spec: FitSpec) -> None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        first = bad[0].item()
        raise diverged("Loss", losses[first].item(), epoch, last_step - len(losses) + first + 1, spec)


def diverged(what: str, value: float, epoch: int, step: int, spec: FitSpec) -> Diverged:
    kept = f"the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else "no epoch was finished"
    return Diverged(
        f"{what} became {value} at epoch {epoch}, step {step}; {kept}. "
        f"Lower fit.learning_rate (now {spec.learning_rate:g}) or set fit.clip_norm."
    )
