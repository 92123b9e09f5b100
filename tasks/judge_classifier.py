"""How well a classifier tells cases that it had not learned from, and by how much better than another."""

import numpy as np

from models.classification.difference import error_of, standard_errors
from models.classification.folds import CaseFolds
from tasks.gather.opening import open_folds
from tasks.gather.task import Labelled
from tasks.judge import Judged
from tasks.policy import step, this_call
from tasks.storage import Store
from tasks.train_classifier import ClassModel, read_classifier
from tasks.validate_classifier import held_out_probabilities


@step(libraries=("numpy", "pyarrow", "safetensors", "torch"))
def judge_classifier(
    model: ClassModel, start: ClassModel, labelled: Labelled, folds: CaseFolds, metric: str, store: Store
) -> Judged:
    """Hold a classifier, and the one that a search started from, to what they said of the cases to validate on."""
    data = open_folds(store, labelled, folds)
    labels = data.cases.labels[data.validated]

    def said(one: ClassModel) -> tuple[np.ndarray, np.ndarray]:
        bundle = read_classifier(store, one)
        found = held_out_probabilities(data, bundle, one, store)
        return found, bundle.decide(found)

    own, others = said(model), said(start)
    shared = model.windows.lookback / model.windows.stride if model.windows else 1.0
    error, apart = error_of(own[0], labels, own[1], metric), standard_errors(own, others, labels, metric, shared)
    with store.draft(this_call()) as draft:
        return draft.commit(Judged, error=error, standard_errors=apart)
