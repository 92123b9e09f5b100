"""How good probabilities of classes are. Axes in names: N cases, K classes."""

from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-7  # probability that log-loss takes for none at all, so that one mistake does not outweigh all else
BINS = 10


@dataclass(frozen=True)
class Bin:
    """The cases whose highest probability lies between two tenths."""

    low: float
    high: float
    cases: int
    confidence: float  # their mean highest probability
    accuracy: float


def confusion(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often a case of class i was taken for class j, (K, K) at [i, j]."""
    num_classes = probabilities.shape[1]
    found = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(found, (labels, probabilities.argmax(1)), 1)
    return found


def class_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every metric of probabilities (N, K) for labels (N,).

    - accuracy: share of the cases whose most probable class is right
    - balanced_accuracy: the mean over classes of that share, so that rare classes count as much as common ones
    - macro_f1: the mean over classes of the harmonic mean of precision and recall; 0 for a class never found. Both are means
      over the classes that occur among the labels
    - log_loss: the mean of -ln(probability of the right class)
    - calibration_error: how far confidence lies from accuracy, weighted over ten bins of confidence (Guo et al. 2017, eq. 3)
    """
    counts = confusion(probabilities, labels)
    occur, right = counts.sum(1), np.diag(counts)
    present = occur > 0
    f1 = 2 * right / np.maximum(occur + counts.sum(0), 1)
    own = probabilities[np.arange(len(labels)), labels]
    return {
        "accuracy": float(right.sum() / len(labels)),
        "balanced_accuracy": float((right[present] / occur[present]).mean()),
        "macro_f1": float(f1[present].mean()),
        "log_loss": float(-np.log(np.maximum(own, SMALLEST)).mean()),
        "calibration_error": calibration_error(reliability(probabilities, labels)),
    }


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> list[Bin]:
    """The bins of confidence that hold cases, the lowest first."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    at = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(one / BINS, (one + 1) / BINS, int(own.sum()), float(confidence[own].mean()), float(right[own].mean()))
        for one in range(BINS)
        if (own := at == one).any()
    ]


def calibration_error(bins: list[Bin]) -> float:
    total = sum(one.cases for one in bins)
    return sum(one.cases / total * abs(one.confidence - one.accuracy) for one in bins)
