"""The cases of a source with their values, by fold, as training and validation see them."""

from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from models.classification.cases import Cases
from models.classification.folds import CaseFolds
from tasks.gather.folding import fold
from tasks.gather.task import ROWS, Labelled, Table, read_index
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


def open_folds(store: Store, labelled: Labelled, spec: CaseFolds, channels: tuple[str, ...] | None = None) -> Folded:
    """Every case with its values and its fold.

    Args:
        channels: which, and in which order; None for all as they come.

    Raises:
        Fault: there is too little to train or to test on.
    """
    table = read_index(store, labelled)
    folds, classes = fold(store, labelled, spec, table)
    return Folded(read_cases(store, labelled, table, classes, channels), table, folds, classes)


def read_cases(
    store: Store, labelled: Labelled, table: Table, classes: tuple[str, ...], channels: tuple[str, ...] | None = None
) -> Cases:
    """Every case with its values; its label is its place in `classes`, -1 where it has none of these.

    Args:
        channels: which, and in which order; None for all as they come.
    """
    rows = pq.read_table(store.file(labelled, ROWS), page_checksum_verification=True).select(channels or labelled.channels)
    numbers = {name: at for at, name in enumerate(classes)}
    return Cases(
        rows=np.stack([column.to_numpy() for column in rows.columns], 1), starts=table.starts, lengths=table.lengths,
        labels=np.array([numbers.get(label, -1) for label in table.labels], np.int64),
    )  # fmt: skip
