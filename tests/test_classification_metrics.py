"""How good probabilities of classes are, on cases counted by hand."""

import numpy as np
import pytest

from models.classification.metrics import class_scores, confusion, decide, reliability

# Three classes, the last of which no case has. Taken for 0, 0, 0, 1, 2.
SAID = np.array([[0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.2, 0.2, 0.6]])
TRUTH = np.array([0, 0, 1, 1, 0])


def test_confusion_counts_what_each_class_was_taken_for():
    assert confusion(decide(SAID), TRUTH, 3).tolist() == [[2, 0, 1], [1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("accuracy", 3 / 5),
        ("balanced_accuracy", (2 / 3 + 1 / 2) / 2),  # a class that no case has counts for nothing
        ("macro_f1", (2 * 2 / (3 + 3) + 2 * 1 / (2 + 1)) / 2),
        ("log_loss", -np.log([0.8, 0.6, 0.1, 0.7, 0.2]).mean()),
        # bins .6-.7: .6 right, .6 wrong; .7-.8: .7 right; .8-.9: .8 right; .9-1: .9 wrong
        ("calibration_error", (2 * abs(0.6 - 0.5) + abs(0.7 - 1) + abs(0.8 - 1) + abs(0.9 - 0)) / 5),
    ],
)
def test_each_metric_is_what_a_hand_counts(metric, value):
    assert class_scores(SAID, TRUTH, decide(SAID))[metric] == pytest.approx(value)


def test_a_case_is_put_into_the_most_probable_class_or_into_that_which_most_exceeds_its_share():
    said, shares = np.array([[0.8, 0.2], [0.95, 0.05]]), np.array([0.9, 0.1])
    assert decide(said).tolist() == [0, 0]
    assert decide(said, shares).tolist() == [1, 0]


def test_bins_of_confidence_hold_every_case_once():
    bins = reliability(np.array([[1.0, 0.0], [0.55, 0.45], [0.51, 0.49]]), np.array([0, 1, 0]))
    assert [(one.low, one.cases, one.accuracy) for one in bins] == [(0.5, 2, 0.5), (0.9, 1, 1.0)]
    assert bins[0].confidence == pytest.approx(0.53)


def test_one_case_that_was_thought_impossible_does_not_make_the_log_loss_infinite():
    assert class_scores(np.array([[1.0, 0.0]]), np.array([1]), np.array([0]))["log_loss"] == pytest.approx(-np.log(1e-7))
