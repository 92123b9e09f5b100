"""What a classifier says of the cases it is trained on, each asked of one that has not learned from it."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from models.classification.bundle import log_softmax
from models.classification.cases import Cases
from models.classification.choice import parts_of
from models.classification.fit import predict
from models.classification.networks import build_classifier
from models.classification.scaling import shape_of
from models.classification.specs import ClassifierSpec


def cases_without(cases: Cases, num_parts: int) -> dict[int, Cases]:
    """The cases without each part in turn, by its number."""
    parts = parts_of(cases.labels, num_parts)
    return {int(part): cases.pick(parts != part) for part in np.unique(parts[parts >= 0])}


def cross_validated(
    network: ClassifierSpec, cases: Cases, num_classes: int, num_parts: int, learn: Callable[[Cases, str], dict[str, Tensor]]
) -> np.ndarray:
    """Log-probabilities (N, K) of all cases, NaN of the only case of a class, which is always learned from.

    Args:
        learn: the weights of a classifier fitted on some cases, those without a part, `part-<number>`.
    """
    parts = parts_of(cases.labels, num_parts)
    found = np.full((len(cases), num_classes), np.nan)
    for part, rest in cases_without(cases, num_parts).items():
        module = build_classifier(network, shape_of(rest, num_classes))
        module.load_state_dict(learn(rest, f"part-{part}"))
        found[parts == part] = log_softmax(predict(module.eval(), cases.pick(parts == part)))
    return found
