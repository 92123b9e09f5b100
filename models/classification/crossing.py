"""What a classifier says of the cases it is trained on, each asked of one that has not learned from it."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from models.classification.bundle import log_softmax
from models.classification.cases import Cases
from models.classification.choice import choose_members, parts_of
from models.classification.fit import predict
from models.classification.networks import build_classifier
from models.classification.scaling import shape_of
from models.classification.specs import ClassifierSpec


def cases_apart(cases: Cases, num_parts: int) -> dict[int, tuple[Cases, Cases]]:
    """The cases without each part in turn, and that part, by its number."""
    parts = parts_of(cases.labels, num_parts)
    return {int(part): (cases.pick(parts != part), cases.pick(parts == part)) for part in np.unique(parts[parts >= 0])}


def cross_validated(
    network: ClassifierSpec,
    cases: Cases,
    num_classes: int,
    num_parts: int,
    learn: Callable[[Cases, str], dict[str, Tensor]],
    tell: Callable[[dict], None] = lambda entry: None,
) -> np.ndarray:
    """Log-probabilities (N, K) of all cases, NaN of the only case of a class, which is always learned from.

    Args:
        learn: the weights of a classifier fitted on some cases, those without a part, `part-<number>`.
        tell: receives of each part how good these were.
    """
    parts = parts_of(cases.labels, num_parts)
    found = np.full((len(cases), num_classes), np.nan)
    for part, (rest, asked) in cases_apart(cases, num_parts).items():
        found[parts == part] = ask(network, learn(rest, f"part-{part}"), rest, asked, num_classes)
        tell(entry_of(part, found[parts == part], asked.labels))
    return found


def ask(network: ClassifierSpec, weights: dict[str, Tensor], learned: Cases, asked: Cases, num_classes: int) -> np.ndarray:
    """Log-probabilities (N, K) of cases, by a classifier that was fitted on others."""
    module = build_classifier(network, shape_of(learned, num_classes))
    module.load_state_dict(weights)
    return log_softmax(predict(module.eval(), asked))


def entry_of(part: int, logits: np.ndarray, labels: np.ndarray) -> dict:
    """The log-loss of a part of a cross-validation, as an epoch of a training has one."""
    return {"epoch": part + 1, "validation": choose_members([logits], labels).losses[0]}
