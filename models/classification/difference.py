"""Whether one classifier is better than another, or it only looks so. Axes in names: N cases, K classes."""

import numpy as np

from models.classification.metrics import HIGHER, class_scores

DRAWS = 200


def error_of(probabilities: np.ndarray, labels: np.ndarray, said: np.ndarray, metric: str) -> float:
    """Log-loss, or what a metric that is 1 at its best lacks of that."""
    return flipped(class_scores(probabilities, labels, said)[metric], metric)


def flipped(value: float, metric: str) -> float:
    """A metric as an error, the lower the better, and an error as the metric."""
    return 1 - value if metric in HIGHER else value


def standard_errors(
    own: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray], labels: np.ndarray, metric: str, shared: float
) -> float | None:
    """By how many standard errors of the difference `own` is better than `others`; None where no case tells them apart.

    The standard error is that of cases drawn again and again from those there are, with all metrics alike, also those that
    are no mean over cases. Source: Efron 1979, the bootstrap.

    Args:
        own, others: probabilities (N, K) and the class (N,) that each case was put into, of the same cases.
        labels: (N,)
        shared: how many cases each step is seen in; windows of a stream that overlap tell less than as many cases.
    """

    def gain(which: np.ndarray) -> float:
        mine, theirs = ((found[which], labels[which], said[which]) for found, said in (own, others))
        return error_of(*theirs, metric) - error_of(*mine, metric)

    draw, every = np.random.default_rng(0), np.arange(len(labels))
    spread = np.std([gain(draw.choice(every, len(every))) for _ in range(DRAWS)]) * np.sqrt(max(1.0, shared))
    return float(gain(every) / spread) if spread > 1e-12 else None
