"""The cases of a source by fold, as training and validation see them."""

from dataclasses import dataclass

import numpy as np

from models.classification.cases import Cases
from models.classification.folds import CaseFolds, classes_of, fold_cases, fold_windows
from tasks.gather.task import Labelled, Table, read_cases, read_index
from tasks.storage import Store


@dataclass(frozen=True)
class Folded:
    """All cases, what is known of each, and which fold it is in."""

    cases: Cases
    table: Table
    folds: np.ndarray  # (N,) train, validation, test, or nothing
    classes: tuple[str, ...]

    def of(self, fold: str) -> np.ndarray:
        """The numbers of a fold's cases."""
        return np.flatnonzero(self.folds == fold)

    @property
    def is_held_out(self) -> bool:
        """Whether there is a fold to validate on; else the cases to train on are cross-validated."""
        return bool((self.folds == "validation").any())

    @property
    def validated(self) -> np.ndarray:
        """The numbers of the cases that models are chosen and compared on."""
        return self.of("validation" if self.is_held_out else "train")

    def count(self) -> dict[str, int]:
        return {fold: len(self.of(fold)) for fold in ("train", "validation", "test")}


def fold(store: Store, labelled: Labelled, spec: CaseFolds, table: Table | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The fold (N,) of each case, and the classes that there are to learn."""
    table = table or read_index(store, labelled)
    if labelled.stream:
        series = [(part.first, part.rows) for part in table.series]
        folds = fold_windows(table.labels, table.starts, table.lengths, series, spec)
    else:
        folds = fold_cases(table.ids, table.labels, table.splits, spec)
    return folds, classes_of(table.labels, folds, "windows" if labelled.stream else "cases")


def open_folds(store: Store, labelled: Labelled, spec: CaseFolds) -> Folded:
    """Every case with its values and its fold.

    Raises:
        Fault: there is too little to train or to test on.
    """
    table = read_index(store, labelled)
    folds, classes = fold(store, labelled, spec, table)
    return Folded(read_cases(store, labelled, table, classes), table, folds, classes)
