"""Score a classifier, or the majority class, on cases that it has not learned from."""

from dataclasses import asdict

import numpy as np
import pyarrow as pa

from models.classification.bundle import Classifier
from models.classification.folds import CaseFolds
from models.classification.metrics import class_scores, confusion, decide, reliability
from models.classification.where import occlusion
from tasks.gather.opening import Folded, open_folds
from tasks.gather.task import Labelled
from tasks.held_out import identities, read_held_out
from tasks.policy import step, this_call
from tasks.storage import Receipt, Store
from tasks.train_classifier import ClassModel, read_classifier

SCORED_FOLDS = ("validation", "test")
SHOWN = 4  # cases of the test fold whose important stretches are shown


class ClassScores(Receipt):
    """Scores by fold, `detail.json` with what a report shows, and `predictions.parquet`, a row a case."""

    model: str | None  # digest; None is the majority class
    scores: dict[str, dict[str, float]]  # fold -> metric
    num_cases: dict[str, int]


@step(libraries=("numpy", "pyarrow", "torch"))
def validate_classifier(
    model: ClassModel | None, labelled: Labelled, folds: CaseFolds, explain: bool, store: Store
) -> ClassScores:
    """Score one classifier, or the majority class where `model` is None, on the folds of these cases.

    Where no fold is held out to validate on, those to train on count by what the model said of them without having learned
    from them: in cross-validation, or, of a case that came later, now.
    """
    data = open_folds(store, labelled, folds, model.channels if model else None)
    bundle = read_classifier(store, model) if model else None
    picked = {"validation": data.validated, "test": data.of("test")}
    found = {
        "validation": held_out_probabilities(data, bundle, model, store) if model else majority(data, data.validated),
        "test": probabilities(bundle, data, data.of("test")) if model else majority(data, data.of("test")),
    }
    labels = {fold: data.cases.labels[which] for fold, which in picked.items()}
    shares = majority(data, data.of("test")[:1])[0] if bundle and bundle.description.decision == "balanced" else None
    said = {fold: decide(found[fold], shares) for fold in SCORED_FOLDS}
    detail = {fold: described(found[fold], said[fold], labels[fold], data.classes) for fold in SCORED_FOLDS}
    if bundle and explain:
        detail["examples"] = examples(bundle, data, found["test"], said["test"], labels["test"])
    with store.draft(this_call()) as draft:
        draft.write_json("detail.json", detail)
        draft.write_table("predictions.parquet", predictions(data, picked, found, said))
        return draft.commit(
            ClassScores, model=model.digest if model else None,
            scores={fold: class_scores(found[fold], labels[fold], said[fold]) for fold in SCORED_FOLDS},
            num_cases={fold: len(which) for fold, which in picked.items()},
        )  # fmt: skip


def majority(data: Folded, which: np.ndarray) -> np.ndarray:
    """The share (N, K) of each class among the cases to train on, whatever the case."""
    counts = np.bincount(data.cases.labels[data.of("train")], minlength=len(data.classes))
    return np.tile(counts / counts.sum(), (len(which), 1))


def probabilities(bundle: Classifier, data: Folded, which: np.ndarray) -> np.ndarray:
    """What a classifier says of cases (N, K), in the order of the classes of these data, which may be others than its own."""
    return by_class(bundle, bundle.probabilities(data.cases.pick(which)), data.classes)


def by_class(bundle: Classifier, found: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Probabilities in the order of other classes; none for a class that the model does not know."""
    own = bundle.description.classes
    if own == classes:
        return found
    taken = np.zeros((len(found), len(classes)))
    for at, name in enumerate(classes):
        if name in own:
            taken[:, at] = found[:, own.index(name)]
    total = taken.sum(1, keepdims=True)
    return np.where(total > 0, taken / np.maximum(total, 1e-30), 1 / len(classes))


def held_out_probabilities(data: Folded, bundle: Classifier, model: ClassModel, store: Store) -> np.ndarray:
    """What a classifier said (N, K) of the cases to validate on without having learned from them.

    Of a case that it always learned from, as of the only one of a class, it is held to the share of each class.
    """
    which = data.validated
    known = read_held_out(store, model)
    places = {name: at for at, name in enumerate(known.cases)}
    at = np.array([places.get(name, -1) for name in identities(data, which)])
    found = np.empty((len(which), len(data.classes)))
    if (at < 0).any():
        found[at < 0] = probabilities(bundle, data, which[at < 0])
    found[at >= 0] = by_class(bundle, known.probabilities[at[at >= 0]], data.classes)
    never = np.isnan(found).any(1)
    if never.any():
        shares = np.tile(bundle.description.shares, (int(never.sum()), 1))
        found[never] = by_class(bundle, shares, data.classes)
    return found


def described(found: np.ndarray, said: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict:
    """What a report shows of one fold."""
    counts = confusion(said, labels, len(classes))
    occur, taken, right = counts.sum(1), counts.sum(0), np.diag(counts)
    return {
        "confusion": counts.tolist(),
        "reliability": [asdict(one) for one in reliability(found, labels)],
        "classes": [
            {
                "name": name, "cases": int(occur[at]), "found": int(taken[at]),
                "precision": float(right[at] / taken[at]) if taken[at] else None,
                "recall": float(right[at] / occur[at]) if occur[at] else None,
            }
            for at, name in enumerate(classes)
        ],
    }  # fmt: skip


def examples(bundle: Classifier, data: Folded, found: np.ndarray, said: np.ndarray, labels: np.ndarray) -> list[dict]:
    """A few test cases, the surest mistakes among them, and how much each stretch of them spoke for what was said."""
    sure, wrong = found[np.arange(len(said)), said], said != labels
    mistakes = np.flatnonzero(wrong)[np.argsort(-sure[wrong], kind="stable")][: SHOWN // 2]
    right = np.flatnonzero(~wrong)[np.argsort(-sure[~wrong], kind="stable")]
    spread = right[np.linspace(0, len(right) - 1, min(len(right), SHOWN - len(mistakes))).astype(int)] if len(right) else right
    chosen = [*spread.tolist(), *mistakes.tolist()]
    shown, which = [], data.of("test")
    for at in chosen:
        case = data.cases.pick(which[[at]])
        values, own = case.values(0), bundle.description.classes.index(data.classes[said[at]])
        shown.append(
            {
                "id": shown_name(data, which[at]), "label": data.classes[labels[at]], "said": data.classes[said[at]],
                "probability": float(sure[at]), "values": [[nullable(one) for one in row] for row in values.T.tolist()],
                "weight": occlusion(bundle.probabilities, case, own).tolist(),
            }
        )  # fmt: skip
    return shown


def shown_name(data: Folded, case: int) -> str:
    """What a case is called, or the series of a window and when it ends."""
    if data.table.origins is None:
        return data.table.ids[case]
    stamp = np.datetime64(int(data.table.origins[case]), "us").astype("datetime64[s]").item()
    return f"{data.table.ids[case]} up to {stamp:%Y-%m-%d %H:%M} UTC"


def nullable(value: float) -> float | None:
    return None if np.isnan(value) else value


def predictions(
    data: Folded, picked: dict[str, np.ndarray], found: dict[str, np.ndarray], said: dict[str, np.ndarray]
) -> pa.Table:
    """A row a case that was scored: its fold, label, what was said, and how sure."""
    names = np.array(data.classes)
    which = np.concatenate(list(picked.values()))
    every, taken = (np.concatenate([each[fold] for fold in picked]) for each in (found, said))
    return pa.table(
        {
            "fold": [fold for fold, own in picked.items() for _ in own],
            "id": [data.table.ids[at] for at in which],
            "origin": pa.array(
                data.table.origins[which] if data.table.origins is not None else [None] * len(which), pa.int64()
            ),
            "label": names[data.cases.labels[which]],
            "predicted": names[taken],
            "probability": every[np.arange(len(taken)), taken],
        }
    )
