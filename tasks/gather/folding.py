"""Which fold each case of a source is in."""

import numpy as np

from models.classification.folds import CaseFolds, classes_of, fold_cases, fold_windows
from models.errors import shortlist
from tasks.gather.task import Labelled, Table, read_index
from tasks.storage import Store


def absent_classes(labels: list[str | None], folds: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Of each fold that scores are made of without some of the classes, one line that says which."""
    said = []
    for one in ("validation", "test"):
        absent = sorted(set(classes) - {label for label, own in zip(labels, folds, strict=True) if own == one})
        if absent and (folds == one).any():
            said.append(f"the {one} fold has no {shortlist(map(repr, absent))}, so its scores say nothing of that")
    return said


def fold(store: Store, labelled: Labelled, spec: CaseFolds, table: Table | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The fold (N,) of each case, and the classes that there are to learn."""
    table = table or read_index(store, labelled)
    if labelled.stream:
        series = [(part.first, part.rows) for part in table.series]
        folds = fold_windows(table.labels, table.starts, table.lengths, series, spec)
    else:
        folds = fold_cases(table.ids, table.labels, table.splits, spec)
    return folds, classes_of(table.labels, folds, "windows" if labelled.stream else "cases")
