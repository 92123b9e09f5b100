"""Which cases, and which windows of a stream, train, validate and test."""

import numpy as np

from models.classification.folds import CaseFolds, fold_windows
from tasks.gather.folding import absent_classes

ROWS, LOOKBACK = 100, 5
STARTS = np.arange(ROWS - LOOKBACK + 1)


def folded(labels: list[str | None]) -> np.ndarray:
    return fold_windows(labels, STARTS, np.full(len(STARTS), LOOKBACK), [(0, ROWS)], CaseFolds(test=0.2, validation=0.3))


def test_no_window_reaches_into_two_folds_of_a_stream():
    folds = folded(["a"] * len(STARTS))
    assert STARTS[folds == "train"].max() == 50 - LOOKBACK
    assert (STARTS[folds == "validation"].min(), STARTS[folds == "validation"].max()) == (50, 80 - LOOKBACK)
    assert (STARTS[folds == "test"].min(), STARTS[folds == "test"].max()) == (80, 95)


def test_folds_of_a_stream_end_where_its_labels_do():
    labels = ["a" if at + LOOKBACK <= 50 else None for at in STARTS]  # the newest half of the rows waits for labels
    folds = folded(labels)
    assert (STARTS[folds == "test"].min(), STARTS[folds == "test"].max()) == (40, 45)
    assert STARTS[folds == "train"].max() == 25 - LOOKBACK
    assert not folds[46:].any()
    assert not folded([None] * len(STARTS)).any()


def test_a_fold_without_one_of_the_classes_is_told_of():
    labels = ["a", "b", "a", "a", "a", "b"]
    folds = np.array(["train", "train", "validation", "validation", "test", "test"])
    assert absent_classes(labels, folds, ("a", "b")) == ["the validation fold has no 'b', so its scores say nothing of that"]
    assert absent_classes(labels[:2], folds[:2], ("a", "b")) == []
