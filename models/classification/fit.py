"""How a classifier learns: the nets step by step from shuffled cases, the rocket in one go."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.classification.cases import CaseBatch, Cases
from models.classification.networks import build_classifier
from models.classification.rocket import Rocket, cached_batches, fit_rocket
from models.classification.scaling import shape_of
from models.classification.specs import ClassifierSpec, Shape
from models.errors import Diverged
from models.losses import Objective
from models.precision import autocast
from models.specs import FitSpec
from models.training import Checkpoint, Fitted, Training, resolve_device, run_epochs

SHORTEST, LONGEST = 10, 100  # optimiser steps of an epoch, whatever a pass over the cases takes
FEWEST = 16  # cases that a step learns from
AT_ONCE = 1 << 18  # values of a batch that is asked for


class Begun(NamedTuple):
    """A classifier that goes on learning, seeing cases by the scales that it learned first."""

    shape: Shape
    weights: dict[str, torch.Tensor]


def fit_classifier(
    spec: ClassifierSpec,
    fit: FitSpec,
    cases: Cases,
    num_classes: int,
    seed: int,
    resume: Checkpoint | None = None,
    save: Callable[[Checkpoint], None] = lambda checkpoint: None,
    tell: Callable[[dict], None] = lambda entry: None,
    due: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda line: None,
    begun: Begun | None = None,
) -> Fitted:
    """Train one classifier on all of these cases; the same seed ends in the same weights, interrupted or not.

    Nothing is held out of these cases, so every epoch's weights are as good as another's and the last are kept.

    Args:
        begun: what a net goes on from. A rocket learns in one go, so of it only the form stays.

    Raises:
        Fault: the loss is no longer finite.
    """
    shape = begun.shape if begun else shape_of(cases, num_classes)
    torch.manual_seed(seed)
    network = build_classifier(spec, shape)
    if isinstance(network, Rocket):
        loss = fit_rocket(network, cases, shape, seed)
        return Fitted(network.state_dict(), [{"epoch": 1, "step": 1, "train": loss}], 1)
    if begun:
        network.load_state_dict(begun.weights)
    else:
        network.learn_scale(cases)
    total, per_epoch = num_steps(fit, len(cases))
    run = Training(network, fit, total, resolve_device(fit.device), warn, seed=seed, objective=CLASSES)
    if resume:
        run.restore(resume)
    batches = shuffled(cases, cases_a_step(fit, len(cases)), seed, run.step, run.device)
    return run_epochs(run, per_epoch, batches, lambda run: None, save, tell, due)


def cases_a_step(fit: FitSpec, num_cases: int) -> int:
    """How many cases a step learns from: those of a batch, but of few cases an eighth, and sixteen where there are as many."""
    return min(fit.batch_size, num_cases, max(FEWEST, num_cases // 8))


def num_steps(fit: FitSpec, num_cases: int) -> tuple[int, int]:
    """Optimiser steps in all, and in an epoch: a pass over the cases, of ten steps or more and a hundred at most."""
    per_epoch = fit.steps_per_epoch or min(max(math.ceil(num_cases / cases_a_step(fit, num_cases)), SHORTEST), LONGEST)
    return (fit.max_steps or fit.epochs * per_epoch), per_epoch


def fit_of_part(fit: FitSpec, num_cases: int, num_left: int) -> FitSpec:
    """How a classifier is fitted on some of the cases, so that it sees each as often as one fitted on all of them does."""
    if fit.max_steps or fit.steps_per_epoch:
        return fit
    passes = num_steps(fit, num_cases)[1] * cases_a_step(fit, num_cases) / num_cases
    most = num_steps(fit, num_left)[1]
    return fit.model_copy(update={"steps_per_epoch": min(math.ceil(passes * num_left / cases_a_step(fit, num_left)), most)})


def shuffled(cases: Cases, size: int, seed: int, first: int, device: torch.device) -> Iterator[CaseBatch]:
    """Batches without end from step `first` on, pass after pass in an order that depends on seed and pass alone."""
    size = min(size, len(cases))
    step = first
    while True:
        places = np.arange(step * size, (step + 1) * size)
        orders = {
            number: np.random.default_rng((seed, number)).permutation(len(cases)) for number in np.unique(places // len(cases))
        }
        which = np.array([orders[place // len(cases)][place % len(cases)] for place in places])
        batch = cases.batch(which)
        yield CaseBatch(*(getattr(batch, name).to(device) for name in ("values", "lengths", "labels")))
        step += 1


def cross_entropy(network: nn.Module, fit: FitSpec, batch: CaseBatch) -> torch.Tensor:
    with autocast(fit.precision, batch.values.device):
        logits = network(batch.values, batch.lengths)
    return F.cross_entropy(logits.float(), batch.labels, label_smoothing=network.smoothing)


def num_cases(network: nn.Module, batch: CaseBatch) -> torch.Tensor:
    return torch.tensor(float(len(batch)), device=batch.values.device)


CLASSES = Objective(cross_entropy, num_cases)


@torch.no_grad()
def predict(network: nn.Module, cases: Cases) -> np.ndarray:
    """The logits (N, K) of cases, float64, in float32 arithmetic whatever precision it was trained in.

    Raises:
        Fault: one of them is no finite number.
    """
    network.eval()
    found: np.ndarray | None = None
    batches = cached_batches(cases) if isinstance(network, Rocket) else cases.in_batches(256, AT_ONCE // cases.num_channels)
    for which in batches:
        batch = cases.batch(which)
        logits = network(batch.values, batch.lengths).double().numpy()
        if found is None:
            found = np.empty((len(cases), logits.shape[1]))
        found[which] = logits
    if found is None:
        return np.empty((0, 0))
    if not np.isfinite(found).all():
        raise Diverged(
            "The classifier's answer is no finite number. Lower fit.learning_rate or set fit.clip_norm, and train again."
        )
    return found
