"""Which cases train, which validate and which test."""

import hashlib
from collections import Counter

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.errors import Fault, counted, shortlist

FEWEST = 2  # classes, and cases to train on


class CaseFolds(BaseModel):
    """What share of the cases is held out, where the source does not say which."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test: float = Field(0.2, gt=0, lt=1, description="share of the cases, or of a stream's newest rows, to report on")
    validation: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share to choose and compare on; null: cases are cross-validated, of a stream it is 0.2",
    )
    parts: int = Field(3, ge=2, le=20, description="of the cases to train on, for cross-validation")

    @property
    def of_stream(self) -> float:
        return 0.2 if self.validation is None else self.validation


def fold_cases(ids: list[str], labels: list[str | None], splits: list[str | None], spec: CaseFolds) -> np.ndarray:
    """The fold of each case: train, validation, test, or nothing for one without a label.

    What the source says stands. Where it names no test cases, or no validation cases and the spec asks for some, they are
    drawn from those to train on, of each class its share. The draw goes by the names of the cases alone, so the order of a
    file changes nothing and more cases change little.
    """
    folds = np.array([split or "train" for split in splits], "<U10")
    if any(splits) and not all(splits):
        without = [name for name, split in zip(ids, splits, strict=True) if not split]
        raise Fault(
            f"{counted(len(without), 'cases')} of no fold: {shortlist(without)}. Say train, validation or test of each."
        )
    labelled = np.array([label is not None for label in labels])
    folds[~labelled] = ""
    places = [hashlib.sha256(name.encode()).digest() for name in ids]
    if not (folds == "test").any():
        draw(folds, labels, places, "test", spec.test)
    if spec.validation is not None and not (folds == "validation").any():
        draw(folds, labels, places, "validation", spec.validation)
    return folds


def draw(folds: np.ndarray, labels: list[str | None], places: list[bytes], fold: str, share: float) -> None:
    """Turn a share of each class's training cases into another fold; of a single one, none."""
    by_label: dict[str, list[int]] = {}
    for at in sorted(np.flatnonzero(folds == "train").tolist(), key=lambda at: places[at]):
        by_label.setdefault(labels[at], []).append(at)
    for members in by_label.values():
        count = min(round(share * len(members)), len(members) - 1)
        folds[members[: max(count, 1 if len(members) > 1 else 0)]] = fold


def fold_windows(
    labels: list[str | None], starts: np.ndarray, lengths: np.ndarray, series: list[tuple[int, int]], spec: CaseFolds
) -> np.ndarray:
    """The fold of each window of a stream, by time: the newest rows of each series test, those before them validate.

    A window that reaches into two folds belongs to none, nor does one without a label. Rows after the newest window with a
    label are not counted: their labels are not known yet.

    Args:
        series: first row and number of rows of each.
    """
    folds = np.full(len(starts), "", "<U10")
    last, labelled = starts + lengths - 1, np.array([label is not None for label in labels], bool)
    for first, count in series:
        known = last[labelled & (starts >= first) & (last < first + count)]
        end = int(known.max()) + 1 if len(known) else first + count
        count = end - first
        testing = end - round(spec.test * count)
        validating = testing - round(spec.of_stream * count)
        own = (starts >= first) & (last < end)
        folds[own & (last < validating)] = "train"
        folds[own & (starts >= validating) & (last < testing)] = "validation"
        folds[own & (starts >= testing)] = "test"
    folds[~labelled] = ""
    return folds


def classes_of(labels: list[str | None], folds: np.ndarray, what: str = "cases") -> tuple[str, ...]:
    """The classes that there are to learn, whole numbers in their order, else by name.

    Raises:
        Fault: fewer than two are trained on, a fold is empty, or another fold has a class that is not trained on.
    """
    counts = {fold: Counter(np.array(labels, object)[folds == fold].tolist()) for fold in ("train", "validation", "test")}
    if not counts["train"]:
        raise Fault(f"No labelled {what} are left to train on. Give the source more, or set smaller folds.")
    if len(counts["train"]) < FEWEST:
        name, count = next(iter(counts["train"].items()))
        raise Fault(f"All {count:,} {what} to train on have the label {name!r}; two classes are needed to tell apart.")
    if not counts["test"]:
        raise Fault(f"No {what} are left to test on. Give the source more of each class, or set folds.test.")
    for fold in ("validation", "test"):
        if unseen := sorted(set(counts[fold]) - set(counts["train"])):
            shown = shortlist(f"{name!r} ({counts[fold][name]:,})" for name in unseen)
            raise Fault(
                f"The {fold} fold has labels that no {what} to train on have: {shown}. Add some of each to those to train on, "
                f"or take them out of the {fold} fold."
            )
    return tuple(sorted(counts["train"], key=by_number))


def by_number(label: str) -> tuple:
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)
