"""Of several trained classifiers the blend that cases held out speak for."""

import numpy as np

from models.classification.bundle import Classifier
from models.classification.choice import choose_members
from models.classification.folds import CaseFolds
from models.networks import form_name
from tasks.gather.opening import open_folds
from tasks.gather.task import Labelled
from tasks.held_out import read_held_out, write_held_out
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Store
from tasks.train_classifier import (
    ClassForm,
    ClassModel,
    num_parameters,
    read_classifier,
    write_bundle,
)


@step(libraries=("numpy", "pyarrow", "safetensors", "torch"))
def choose_classifier(tried: list[ClassModel], labelled: Labelled, folds: CaseFolds, store: Store) -> ClassModel:
    """Store the bundle of what was chosen, with the temperatures that suit it."""
    data = open_folds(store, labelled, folds)
    bundles = [read_classifier(store, model) for model in tried]
    logits = [read_held_out(store, model).logits[0] for model in tried]
    choice = choose_members(logits, data.cases.labels[data.validated])
    names = [form_name(bundle.description.members[0].network) for bundle in bundles]
    shares = dict(zip(choice.chosen, choice.blend.weights, strict=True))
    say("chosen on cases held out: " + " and ".join(f"{100 * share:.0f} % {names[at]}" for at, share in shares.items()))
    members = tuple(bundles[at].description.members[0] for at in choice.chosen)
    about = bundles[0].description.model_copy(update={"members": members, "blend": choice.blend})
    bundle = Classifier(about, [bundles[at].weights[0] for at in choice.chosen])
    sizes = [*(model.num_parameters for model in tried), num_parameters(bundle)]
    forms = tuple(
        ClassForm(
            name=name, num_parameters=size, log_loss=none_for_nan(loss), accuracy=none_for_nan(accuracy),
            chosen=share > 0, share=share,
        )
        for name, size, loss, accuracy, share in zip(
            [*names, "together"], sizes, choice.losses, choice.accuracies,
            [*(shares.get(at, 0.0) for at in range(len(tried))), 1.0], strict=True,
        )
    )  # fmt: skip
    curves = [curve for model in tried for curve in store.read_json(model, "history.json")["curves"]]
    kept = [logits[at] for at in choice.chosen]
    with store.draft(this_call()) as draft:
        write_bundle(draft, bundle, {"curves": curves})
        write_held_out(draft, data, kept, choice.blend.probabilities(kept))
        facts = tried[0].model_dump(include={"classes", "channels", "windows", "num_cases", "cross_validated"})
        return draft.commit(ClassModel, num_parameters=num_parameters(bundle), forms=forms, **facts)


def none_for_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
