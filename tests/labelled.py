"""Small labelled series for tests."""

from collections.abc import Sequence

import numpy as np

from models.classification.cases import Cases


def make_cases(series: Sequence, labels: Sequence[int]) -> Cases:
    """Cases of these values, each (T,) or (T, C)."""
    rows = [np.asarray(one, np.float32).reshape(len(one), -1) for one in series]
    lengths = np.array([len(one) for one in rows], np.int64)
    return Cases(np.concatenate(rows), np.cumsum(lengths) - lengths, lengths, np.array(labels, np.int64))


def waves(
    num_each: int = 8, steps: int = 40, num_channels: int = 1, num_classes: int = 2, seed: int = 0, unequal: bool = False
) -> Cases:
    """Noisy waves, of as many periods as the number of the class and two more, that begin anywhere."""
    rng = np.random.default_rng(seed)
    series, labels = [], []
    for label in range(num_classes):
        for _ in range(num_each):
            count = int(rng.integers(steps // 2, steps + 1)) if unequal else steps
            at = np.arange(count)[:, None] / steps * (label + 2) * 2 * np.pi + rng.uniform(0, 6, num_channels)
            series.append(np.sin(at) + 0.1 * rng.standard_normal(at.shape))
            labels.append(label)
    return make_cases(series, labels)
