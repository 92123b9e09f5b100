"""How good probabilities of classes are. Axes in names: N cases, K classes."""

from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-7  # probability that log-loss takes for none at all, so that one mistake does not outweigh all else
BINS = 10
HIGHER = ("accuracy", "balanced_accuracy", "macro_f1")  # is better


@dataclass(frozen=True)
class Bin:
    """The cases whose highest probability lies between two tenths."""

    low: float
    high: float
    cases: int
    confidence: float  # their mean highest probability
    accuracy: float


def decide(probabilities: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
    """The class (N,) that each case is put into: the most probable one, or the one that most exceeds its share (K,)."""
    return (probabilities if shares is None else probabilities / np.maximum(shares, SMALLEST)).argmax(1)


def confusion(said: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """How often a case of class i was taken for class j, (K, K) at [i, j]."""
    found = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(found, (labels, said), 1)
    return found


def class_scores(probabilities: np.ndarray, labels: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Every metric of probabilities (N, K), and of the classes (N,) that cases were put into, for labels (N,).

    - accuracy: share of the cases that were put into the right class
    - balanced_accuracy: the mean over classes of that share, so that rare classes count as much as common ones
    - macro_f1: the mean over classes of the harmonic mean of precision and recall; 0 for a class never found. Both are means
      over the classes that occur among the labels
    - log_loss: the mean of -ln(probability of the right class), whatever class a case was put into
    - calibration_error: how far confidence lies from accuracy, weighted over ten bins of confidence (Guo et al. 2017, eq. 3)
    """
    counts = confusion(said, labels, probabilities.shape[1])
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
