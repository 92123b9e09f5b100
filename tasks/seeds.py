"""One network a seed, each from its checkpoint where a killed run left one: what a process does by itself, or in a team."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from models.bundle import Bundle, number_series
from models.errors import counted
from models.fit import fit
from models.networks import NetworkSpec, build_network, form_name
from models.parallel import ALONE, Team
from models.scaling import Scaler
from models.series import SeriesFacts
from models.specs import FitSpec
from models.start import build_with, starting_weights
from models.training import Fitted, num_steps
from tasks.checkpoints import Keeper, load_checkpoint
from tasks.progress import Progress, progress, say
from tasks.watching import notice
from tasks.windows.folds import WindowSet


def fit_seeds(
    cut: WindowSet,
    facts: SeriesFacts,
    network: NetworkSpec,
    spec: FitSpec,
    checkpoints: Path,
    start: Bundle | None = None,
    fold: str = "train",
    team: Team = ALONE,
) -> list[Fitted]:
    """One fitted network a seed, each going on from its checkpoint if a killed run left one.

    Args:
        start: whose weights a network begins with that has a form and seed of it.
        fold: what is learned from; all: the networks of `start` go on, which know the series that it knows, and nothing is
            left to validate on.
    """
    known = start.description.scaler if fold == "all" else cut.scaler
    numbers = number_series(known) if getattr(network, "embedding", 0) else None
    training, validation = cut.fold(fold, numbers), None if fold == "all" else cut.telling("validation", numbers)
    held_out = f"{sum(validation.num_windows):,} to validate" if validation else "all that there are"
    say(f"{counted(sum(training.num_windows), 'windows')} to train on, {held_out}")
    build = partial(build_network, network, facts.columns, cut.windows, facts.season, len(known.series))
    total, per_epoch = num_steps(spec, sum(training.num_windows))
    epochs = -(-total // per_epoch)
    fitted = []
    for seed in spec.seeds:
        keeper = Keeper(checkpoints / f"seed-{seed}.safetensors")
        resume = load_checkpoint(keeper.path)
        if resume:
            say(f"seed {seed}: going on after epoch {resume.epoch} of {epochs}, step {resume.step:,}")
        with progress(f"seed {seed} epoch", epochs) as bar:
            bar.advance(resume.epoch if resume else 0)
            for entry in resume.history if resume else []:
                notice(seed, entry, epochs)
            calls = {"save": keeper.save, "due": keeper.due, "tell": partial(tell, bar, seed, epochs)}
            fitted.append(
                fit(
                    begin_with(start, build, network, seed, known, validation is None) if spec.init == "live" else build,
                    training,
                    validation,
                    facts.columns,
                    cut.windows,
                    spec,
                    seed,
                    resume,
                    warn=lambda line, seed=seed: say(f"seed {seed}: {line}"),
                    team=team,
                    **(calls if team.is_first else {}),
                )
            )
    return fitted


def tell(bar: Progress, seed: int, epochs: int, entry: dict) -> None:
    """Say how an epoch went, to people and to whoever watches this training."""
    bar.advance(1, losses(entry))
    notice(seed, entry, epochs)


def begin_with(
    start: Bundle | None,
    build: Callable[[], torch.nn.Module],
    network: NetworkSpec,
    seed: int,
    scaler: Scaler,
    own: bool = False,
) -> Callable[[], torch.nn.Module]:
    """How to build a network with the weights it starts from; which those are is said, unless they are its own."""
    weights = starting_weights(start, network, seed, scaler) if start else None
    if weights is None:
        without = f"the live model has no {form_name(network)} of this seed" if start else "there is no live model"
        say(f"seed {seed}: {without}, so it begins with fresh weights")
        return build
    if not own:
        say(f"seed {seed}: begins with the weights of the live model's {form_name(network)}")
    return partial(build_with, build, weights)


def losses(entry: dict) -> str:
    """The losses of an epoch in words."""
    return ", ".join(f"{name} {entry[name]:.4f}" for name in ("train", "validation") if name in entry)
