"""Of several trained networks, the one, or the mean of those, that forecasts best on validation."""

from dataclasses import replace

import numpy as np
import torch

from models.batches import Batch, in_order, thinning
from models.bundle import Bundle, dump_bundle
from models.choice import best_mean
from models.floors import NONE
from models.networks import form_name
from models.windows import FoldSpec
from tasks.normalise import Normalised, read_scaler
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Store
from tasks.train import Form, Model, num_parameters, read_bundle
from tasks.windows.folds import WindowSet, open_windows
from tasks.windows.task import Windows

STEPS = 1 << 20  # forecast steps that a choice is made on at most, evenly spread over the validation fold


@step(libraries=("numpy", "pyarrow", "safetensors", "torch"))
def choose(
    tried: list[Model], windows: list[Windows], normalised: list[Normalised], folds: FoldSpec, metric: str, store: Store
) -> Model:
    """Store the bundle of the networks whose mean forecast has the lowest error on validation."""
    scaler, _ = read_scaler(normalised, windows[0].columns, store)
    bundles = [read_bundle(store, model) for model in tried]
    forecasts, target, floors, spacing = forecast_validation(bundles, open_windows(windows, scaler, folds, store))
    chosen, errors = best_mean(forecasts, target, metric, spacing, floors)
    names = [form_name(bundle.description.members[0].network) for bundle in bundles]
    say("chosen on validation: " + " and ".join(names[at] for at in chosen))
    bundle = merged([bundles[at] for at in chosen])
    forms = tuple(
        Form(name=name, num_parameters=model.num_parameters, error=error, chosen=at in chosen)
        for at, (name, model, error) in enumerate(zip(names, tried, errors, strict=True))
    )
    histories = [store.read_json(model, "history.json") for model in tried]
    with store.draft(this_call()) as draft:
        for name, content in dump_bundle(bundle).items():
            draft.write_bytes(name, content)
        curves = [curve for history in histories for curve in history["curves"]]
        draft.write_json("history.json", {"curves": curves, "too_short": histories[0]["too_short"]})
        facts = tried[0].model_dump(include={"windows", "facts", "num_windows", "num_series", "num_floored", "too_short"})
        return draft.commit(Model, num_parameters=num_parameters(bundle), forms=forms, **facts)


def merged(bundles: list[Bundle]) -> Bundle:
    """One bundle with the members of all."""
    about = bundles[0].description
    members = tuple(member for bundle in bundles for member in bundle.description.members)
    return replace(
        bundles[0],
        description=about.model_copy(update={"members": members}),
        weights=[seeds for bundle in bundles for seeds in bundle.weights],
    )


def forecast_validation(bundles: list[Bundle], cut: WindowSet) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Forecasts (M, N, H) of each bundle, down to no floor, and targets (N, H), NaN where not observed, all scaled.

    They are of the validation windows. And the floors (N, 1) that these keep to, and the steps between their origins.
    """
    numbers = bundles[0].numbers
    blocks, lookback, limit = cut.telling("validation", numbers), cut.windows.lookback, max(1, STEPS // cut.windows.horizon)
    forecasts: list[list[np.ndarray]] = [[] for _ in bundles]
    targets, floors = [], []
    for windows in in_order(blocks, cut.windows.span, 1024, limit):
        batch = Batch.split(windows, lookback, cut.columns)
        floors.append(bundles[0].floors_of(batch.past, batch.series))
        nowhere = torch.full_like(floors[-1], NONE)
        for own, bundle in zip(forecasts, bundles, strict=True):
            own.append(bundle.forecast(batch.past, batch.future, batch.series, nowhere))
        seen = batch.target if batch.weight is None else batch.target.where(batch.weight > 0, torch.nan)
        targets.append(seen.numpy())
    spacing = blocks.stride * thinning(blocks, limit)
    each = np.stack([np.concatenate(own) for own in forecasts])
    return each, np.concatenate(targets), torch.cat(floors).numpy()[:, None], spacing
