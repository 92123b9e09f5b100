"""Where a classifier looked: what it says of a case when a stretch of it is taken away."""

from collections.abc import Callable

import numpy as np

from models.classification.cases import Cases

STRETCHES = 24  # that a case is cut into, each taken away with its neighbour in turn


def occlusion(probabilities: Callable[[Cases], np.ndarray], case: Cases, label: int) -> np.ndarray:
    """How much less likely a class becomes (T,) without each stretch of a case, in which a line is drawn over it.

    Above 0 a stretch speaks for the class, below 0 against it. Source: occlusion maps (Zeiler and Fergus 2014, section 4.2),
    over time.

    Args:
        case: a single one.
    """
    values = case.values(0)
    steps = len(values)
    edges = np.unique(np.linspace(0, steps, min(STRETCHES, steps) + 1).astype(int))
    spans = [(edges[at], edges[min(at + 2, len(edges) - 1)]) for at in range(max(1, len(edges) - 2))]
    hidden = np.stack([values, *(without(values, *span) for span in spans)])
    count = len(hidden)
    asked = Cases(
        hidden.reshape(count * steps, -1), np.arange(count) * steps, np.full(count, steps), np.full(count, case.labels[0])
    )
    found = probabilities(asked)[:, label]
    total, times = np.zeros(steps), np.zeros(steps)
    for (begin, end), without_it in zip(spans, found[1:], strict=True):
        total[begin:end] += found[0] - without_it
        times[begin:end] += 1
    return total / np.maximum(times, 1)


def without(values: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Values (T, C) with a line from what comes before a stretch to what comes after it."""
    changed = values.copy()
    before = values[begin - 1] if begin else values[min(end, len(values) - 1)]
    after = values[end] if end < len(values) else before
    share = (np.arange(1, end - begin + 1) / (end - begin + 1))[:, None]
    changed[begin:end] = before + (after - before) * share
    return changed
