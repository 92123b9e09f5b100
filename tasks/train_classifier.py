"""Train one form of classifier, once a seed, ask it for cases it has not learned from, and store the bundle."""

import hashlib
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from models.classification.bundle import (
    FORMAT,
    ClassDescription,
    Classifier,
    ClassMember,
    dump_classifier,
    load_classifier,
    log_softmax,
)
from models.classification.cases import Cases
from models.classification.choice import choose_members
from models.classification.crossing import cross_validated
from models.classification.fit import fit_classifier, predict, shape_of
from models.classification.folds import CaseFolds
from models.classification.networks import build_classifier
from models.classification.specs import ClassifierSpec, Decision, form_name
from models.classification.windows import LabelWindows
from models.errors import Fault, counted
from models.specs import FitSpec
from models.training import Fitted
from tasks.checkpoints import Keeper, forget, load_checkpoint
from tasks.gather.folding import Folded, open_folds
from tasks.gather.task import Labelled
from tasks.policy import step, this_call
from tasks.progress import progress, say
from tasks.storage import Draft, Receipt, Store

HELD_OUT = "held_out.parquet"


class ClassForm(BaseModel):
    """One of the forms that a classifier was chosen from, or the blend of all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    num_parameters: int
    log_loss: float | None  # on cases held out; None where there were none
    accuracy: float | None
    chosen: bool


class ClassModel(Receipt):
    """`weights.safetensors`, `bundle.json`, `held_out.parquet` and the `history.json` of how they were learned."""

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
    training, shape = data.cases.pick(data.of("train")), shape_of(data.cases.pick(data.of("train")), len(data.classes))
    kinds = "to train on, " + (
        f"{len(data.validated):,} to validate" if data.is_held_out else f"cross-validated in {folds.parts}"
    )
    say(f"{counted(len(training), 'windows' if labelled.stream else 'cases')} {kinds}")
    learn = partial(fit_once, network, fit, len(data.classes), checkpoints)
    fitted = [learn(training, seed, f"seed-{seed}") for seed in fit.seeds]
    held = held_out_logits(data, network, fit, folds, shape, learn, fitted)
    choice = choose_members([held], data.cases.labels[data.validated])
    bundle = Classifier(
        ClassDescription(
            format=FORMAT, members=(ClassMember(network=network, seeds=fit.seeds),), shape=shape, classes=data.classes,
            shares=tuple(np.bincount(training.labels, minlength=len(data.classes)) / len(training)), channels=labelled.channels,
            windows=windows, blend=choice.blend, decision=decision, trained_on=digest_of_cases(data),
            versions={name: version(name) for name in ("numpy", "safetensors", "torch")},
        ),
        [[one.weights for one in fitted]],
    )  # fmt: skip
    curves = [
        {"form": form_name(network), "seed": seed, "best_epoch": one.best_epoch, "epochs": one.history}
        for seed, one in zip(fit.seeds, fitted, strict=True)
    ]
    with store.draft(call) as draft:
        write_bundle(draft, bundle, {"curves": curves})
        write_held_out(draft, data, [held], choice.blend.probabilities([held]))
        model = draft.commit(
            ClassModel, num_parameters=num_parameters(bundle), forms=(), classes=data.classes, channels=labelled.channels,
            windows=windows, num_cases=data.count(), cross_validated=not data.is_held_out,
        )  # fmt: skip
    forget(checkpoints)
    return model


def fit_once(
    network: ClassifierSpec, fit: FitSpec, num_classes: int, checkpoints: Path, cases: Cases, seed: int, name: str
) -> Fitted:
    """One fitted classifier, going on from its checkpoint if a killed run left one."""
    keeper = Keeper(checkpoints / f"{name}.safetensors")
    resume = load_checkpoint(keeper.path)
    if resume:
        say(f"{name}: going on after epoch {resume.epoch}, step {resume.step:,}")
    with progress(name, 1) as bar:
        fitted = fit_classifier(network, fit, cases, num_classes, seed, resume, save=keeper.save, due=keeper.due)
        last = fitted.history[-1] if fitted.history else {}
        bar.advance(1, f"loss {last['train']:.4f}" if "train" in last else "")
    return fitted


def held_out_logits(
    data: Folded, network: ClassifierSpec, fit: FitSpec, folds: CaseFolds, shape, learn, fitted: list[Fitted]
) -> np.ndarray:
    """Log-probabilities (N, K) of the cases to validate on, NaN where a case was always learned from.

    Of a fold that is held out, the mean over seeds; by cross-validation, those of the first seed.
    """

    def asked(weights: dict, cases: Cases) -> np.ndarray:
        module = build_classifier(network, shape)
        module.load_state_dict(weights)
        return log_softmax(predict(module.eval(), cases))

    cases = data.cases.pick(data.validated)
    if data.is_held_out:
        return np.mean([asked(one.weights, cases) for one in fitted], 0)
    return cross_validated(
        network, cases, len(data.classes), folds.parts, lambda rest, name: learn(rest, fit.seeds[0], name).weights
    )


def digest_of_cases(data: Folded) -> str:
    """What a model was trained on, whatever order it came in."""
    return hashlib.sha256("".join(sorted(identities(data, data.of("train")))).encode()).hexdigest()


def identities(data: Folded, which: np.ndarray) -> list[str]:
    """What each of some cases is known by, through all runs: its name, its origin and its values."""
    origins = data.table.origins
    return [
        hashlib.sha256(
            f"{data.table.ids[at]}\0{origins[at] if origins is not None else ''}\0".encode() + data.cases.values(at).tobytes()
        ).hexdigest()
        for at in which.tolist()
    ]


def write_bundle(draft: Draft, bundle: Classifier, history: dict) -> None:
    for name, content in dump_classifier(bundle).items():
        draft.write_bytes(name, content)
    draft.write_json("history.json", history)


def write_held_out(draft: Draft, data: Folded, logits: list[np.ndarray], probabilities: np.ndarray) -> None:
    """What was said of each case to validate on without having learned from it, member by member and in the end."""
    columns = {"case": pa.array(identities(data, data.validated))}
    names = [f"logits_{member}" for member in range(len(logits))]
    for name, values in zip([*names, "probabilities"], [*logits, probabilities], strict=True):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel().astype(np.float64)), values.shape[1])
    draft.write_table(HELD_OUT, pa.table(columns))


@dataclass(frozen=True)
class HeldOut:
    """What a model said of cases before it had learned from them."""

    cases: list[str]  # identities
    logits: list[np.ndarray]  # M times (N, K)
    probabilities: np.ndarray  # (N, K)


def read_held_out(store: Store, model: ClassModel) -> HeldOut:
    table = pq.read_table(store.file(model, HELD_OUT), page_checksum_verification=True)

    def matrix(name: str) -> np.ndarray:
        column = table[name].combine_chunks()
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)

    names = sorted((name for name in table.column_names if name.startswith("logits_")), key=lambda name: int(name[7:]))
    return HeldOut(table["case"].to_pylist(), [matrix(name) for name in names], matrix("probabilities"))


def num_parameters(bundle: Classifier) -> int:
    """Weights of one network of each member."""
    return sum(value.numel() for seeds in bundle.weights for value in seeds[0].values())


def read_classifier(store: Store, model: ClassModel) -> Classifier:
    """The classifier that a receipt names.

    Raises:
        Fault: its files are gone, damaged or no bundle.
    """
    manifest = store.manifest(model.step, model.key)
    if not store.whole(model.step, model.key) or manifest["receipt"].get("digest") != model.digest:
        raise Fault(
            f"Model {model.digest[:8]} is not whole any more: a file of {store.folder(model.step, model.key)} is gone or "
            "changed. Restore it, train again with the settings it had, or delete the pointer under live/ to go on without it."
        )
    return load_classifier(*(store.file(model, name).read_bytes() for name in ("weights.safetensors", "bundle.json")))
