"""Train one form of classifier, once a seed, ask it for cases it has not learned from, and store the bundle."""

from collections.abc import Callable
from importlib.metadata import version

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.classification.bundle import (
    FORMAT,
    ClassDescription,
    Classifier,
    ClassMember,
    dump_classifier,
    load_classifier,
)
from models.classification.choice import choose_members
from models.classification.crossing import ask, cross_validated
from models.classification.folds import CaseFolds
from models.classification.scaling import shape_of
from models.classification.specs import ClassifierSpec, Decision
from models.classification.windows import LabelWindows
from models.errors import counted
from models.networks import form_name
from models.precision import misgiving
from models.specs import FitSpec
from models.training import Fitted, resolve_device
from tasks.checkpoints import forget
from tasks.fits import Job, fit_all
from tasks.gather.folding import absent_classes
from tasks.gather.opening import Folded, open_folds
from tasks.gather.task import Labelled
from tasks.held_out import digest_of_cases, write_held_out
from tasks.model_files import read_model_files
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Draft, Receipt, Store
from tasks.watching import watch


class ClassForm(BaseModel):
    """One of the forms that a classifier was chosen from, or what was chosen of them together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    num_parameters: int
    log_loss: float | None  # on cases held out; None where there were none
    accuracy: float | None
    chosen: bool
    share: float | None = None  # of the blend; None in what was stored when a form was taken alone or all were in equal parts


class ClassModel(Receipt):
    """`weights.safetensors`, `bundle.json`, `held_out.parquet` and the `history.json` of how they were learned.

    Once it went on to all cases there are none held out, and no `held_out.parquet`.
    """

    num_parameters: int
    forms: tuple[ClassForm, ...]  # what it was chosen from; empty where there was no choice
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    windows: LabelWindows | None
    num_cases: dict[str, int]  # by fold
    cross_validated: bool


@step(libraries=("numpy", "pyarrow", "safetensors", "torch"))
def train_classifier(
    labelled: Labelled,
    folds: CaseFolds,
    windows: LabelWindows | None,
    decision: Decision,
    network: ClassifierSpec,
    fit: FitSpec,
    store: Store,
) -> ClassModel:
    """Fit the classifier on the cases to train on, and on parts of them to see what it says of the others."""
    call = this_call()
    data = open_folds(store, labelled, folds)
    checkpoints = store.folder("checkpoints", call.key)
    training = data.cases.pick(data.of("train"))
    held = f"{len(data.validated):,} to validate" if data.is_held_out else f"cross-validated in {folds.parts}"
    say(f"{counted(len(training), 'windows' if labelled.stream else 'cases')} to train on, {held}")
    for line in absent_classes(data.table.labels, data.folds, data.classes):
        say(line)
    if line := misgiving(fit.precision, resolve_device(fit.device)):
        say(line)
    job = Job(
        store=store.root, labelled=labelled, folds=folds, network=network, fit=fit, checkpoints=checkpoints,
        watched=watch.get() is not None,
    )  # fmt: skip
    every = fit_all(job, data)
    fitted, crossing = [every[f"seed-{seed}"] for seed in fit.seeds], []
    logits = held_out_logits(data, job, every, crossing.append)
    choice = choose_members([logits], data.cases.labels[data.validated])
    about = ClassDescription(
        format=FORMAT, members=(ClassMember(network=network, seeds=fit.seeds),), shape=shape_of(training, len(data.classes)),
        classes=data.classes, shares=tuple(np.bincount(training.labels, minlength=len(data.classes)) / len(training)),
        channels=labelled.channels, windows=windows, blend=choice.blend, decision=decision, trained_on=digest_of_cases(data),
        versions={name: version(name) for name in ("numpy", "safetensors", "torch")},
    )  # fmt: skip
    bundle = Classifier(about, [[one.weights for one in fitted]])
    with store.draft(call) as draft:
        write_bundle(draft, bundle, {"curves": curves_of(network, fit, fitted), "crossing": crossing})
        write_held_out(draft, data, [logits], choice.blend.probabilities([logits]))
        model = draft.commit(
            ClassModel, num_parameters=num_parameters(bundle), forms=(), classes=data.classes, channels=labelled.channels,
            windows=windows, num_cases=data.count(), cross_validated=not data.is_held_out,
        )  # fmt: skip
    forget(checkpoints)
    return model


def curves_of(network: ClassifierSpec, fit: FitSpec, fitted: list[Fitted]) -> list[dict]:
    """The loss curves, a seed each, and how they came about."""
    same = {"form": form_name(network), "fit": fit.model_dump(mode="json")}
    pairs = zip(fit.seeds, fitted, strict=True)
    return [same | {"seed": seed, "best_epoch": one.best_epoch, "epochs": one.history} for seed, one in pairs]


def held_out_logits(data: Folded, job: Job, fitted: dict[str, Fitted], tell: Callable[[dict], None]) -> np.ndarray:
    """Log-probabilities (N, K) of the cases to validate on, NaN where a case was always learned from.

    Of a fold that is held out, the mean over seeds; by cross-validation, those of the first seed.

    Args:
        tell: receives how good they are, part by part of a cross-validation.
    """
    network, num_classes, cases = job.network, len(data.classes), data.cases.pick(data.validated)
    if data.is_held_out:
        training, seeds = data.cases.pick(data.of("train")), [f"seed-{seed}" for seed in job.fit.seeds]
        return np.mean([ask(network, fitted[seed].weights, training, cases, num_classes) for seed in seeds], 0)
    return cross_validated(network, cases, num_classes, job.folds.parts, lambda rest, name: fitted[name].weights, tell)


def write_bundle(draft: Draft, bundle: Classifier, history: dict) -> None:
    for name, content in dump_classifier(bundle).items():
        draft.write_bytes(name, content)
    draft.write_json("history.json", history)


def num_parameters(bundle: Classifier) -> int:
    """Weights of one network of each member."""
    return sum(value.numel() for seeds in bundle.weights for value in seeds[0].values())


def read_classifier(store: Store, model: ClassModel) -> Classifier:
    """The classifier that a receipt names.

    Raises:
        Fault: its files are gone, damaged or no bundle.
    """
    return load_classifier(*read_model_files(store, model))
