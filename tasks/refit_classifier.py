"""Let the classifier that is to label, a new one or the one that stays live, go on learning from all cases with a label."""

from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from models.classification.bundle import Classifier, ClassMember
from models.classification.cases import Cases
from models.classification.fit import Begun, fit_classifier, num_steps
from models.classification.specs import recipe
from models.errors import counted
from models.networks import FitSettings, form_name
from models.specs import FitSpec
from models.training import Checkpoint, Fitted
from tasks.checkpoints import Keeper, forget, load_checkpoint
from tasks.gather.opening import read_cases
from tasks.gather.task import Labelled, read_index
from tasks.policy import step, this_call
from tasks.progress import progress, say
from tasks.storage import Store
from tasks.train_classifier import ClassModel, read_classifier, write_bundle

SHARE, RATE = 0.25, 0.1  # of the steps that it was fitted for, and of the learning rate, with which a net goes on


@step(libraries=("numpy", "pyarrow", "safetensors", "torch"))
def refit_classifier(model: ClassModel, labelled: Labelled, where: FitSettings, store: Store) -> ClassModel:
    """Store the same classifiers once they have gone on to all cases with a label that they know: nets a little way.

    Each goes on as it was fitted, whatever a spec says by now. A rocket is fitted anew, as it learns in one go. Nothing is left
    to say how good they are, so their shares and temperatures stay those that cases held out have told.

    Args:
        where: on which device; nothing else of it counts.
    """
    call, bundle = this_call(), read_classifier(store, model)
    about, curves = bundle.description, store.read_json(model, "history.json")["curves"]
    every = read_cases(store, labelled, read_index(store, labelled), about.classes, about.channels)
    cases = every.pick(np.flatnonzero(every.labels >= 0))
    say(f"{counted(len(cases), 'windows' if labelled.stream else 'cases')} to train on, all that have a label")
    checkpoints, weights, gone_on = store.folder("checkpoints", call.key), [], []
    for number, (member, seeds) in enumerate(zip(about.members, bundle.weights, strict=True)):
        weights.append([])
        for seed, own in zip(member.seeds, seeds, strict=True):
            before = next(one for one in curves if (one["form"], one["seed"]) == (form_name(member.network), seed))
            fit = going_on(before, member, len(cases), where)
            fitted = go_on(bundle, member, own, fit, cases, seed, checkpoints / f"{number}-{seed}.safetensors")
            weights[-1].append(fitted.weights)
            gone_on.append(before | {"best_epoch": fitted.best_epoch, "epochs": fitted.history})
    shares = tuple(np.bincount(cases.labels, minlength=len(about.classes)) / len(cases))
    refitted = Classifier(about.model_copy(update={"shares": shares}), weights)
    with store.draft(call) as draft:
        write_bundle(draft, refitted, {"curves": gone_on})
        facts = model.model_dump(exclude={"step", "key", "digest", "num_cases"})
        found = draft.commit(ClassModel, **facts, num_cases={"train": len(cases), "validation": 0, "test": 0})
    forget(checkpoints)
    return found


def going_on(before: dict, member: ClassMember, num_cases: int, where: FitSettings) -> FitSpec:
    """How a classifier goes on that learned as its loss curve says; by its usual recipe where that does not say how."""
    fit = FitSpec.model_validate(before["fit"]) if "fit" in before else recipe(member.network, FitSettings())
    total, per_epoch = num_steps(fit, num_cases)
    pace = {"epochs": None, "max_steps": max(1, round(SHARE * total)), "steps_per_epoch": per_epoch}
    return fit.model_copy(update=pace | {"learning_rate": RATE * fit.learning_rate, "device": where.device or "auto"})


def go_on(
    bundle: Classifier, member: ClassMember, weights: dict[str, Tensor], fit: FitSpec, cases: Cases, seed: int, path: Path
) -> Fitted:
    """One classifier that has gone on, from its checkpoint where a killed run left one."""
    about, keeper, name = bundle.description, Keeper(path), f"{form_name(member.network)} seed {seed}"
    resume = load_checkpoint(keeper.path)
    if resume:
        say(f"{name}: going on after epoch {resume.epoch}, step {resume.step:,}")

    def save(checkpoint: Checkpoint) -> None:  # epochs are short
        if keeper.due() or checkpoint.step == fit.max_steps:
            keeper.save(checkpoint)

    learn = partial(fit_classifier, member.network, fit, cases, len(about.classes), seed, resume)
    with progress(name, 1) as bar:
        begun = Begun(about.shape, weights)
        fitted = learn(save=save, due=keeper.due, warn=lambda line: say(f"{name}: {line}"), begun=begun)
        last = fitted.history[-1] if fitted.history else {}
        bar.advance(1, f"loss {last['train']:.4f}" if "train" in last else "")
    return fitted
