"""How well a model forecasts the validation fold, and by how much better than another."""

import numpy as np

from models.bundle import Bundle
from models.choice import error_of, independent, losses_of
from models.windows import FoldSpec
from tasks.choose import forecast_validation
from tasks.normalise import Normalised, read_scaler
from tasks.policy import step, this_call
from tasks.storage import Receipt, Store
from tasks.train import Model, read_bundle
from tasks.windows.folds import WindowSet, open_windows
from tasks.windows.task import Windows


class Judged(Receipt):
    """The error of a model on validation, in standard deviations of each series."""

    error: float
    standard_errors: float | None  # how many of them its loss lies below the other's; None where both forecast the same


@step(libraries=("numpy", "pyarrow", "safetensors", "torch"))
def judge(
    model: Model, start: Model, windows: list[Windows], normalised: list[Normalised], folds: FoldSpec, metric: str, store: Store
) -> Judged:
    """Forecast the validation fold with a model, and with the one that a search started from."""
    scaler, _ = read_scaler(normalised, windows[0].columns, store)
    bundles = [read_bundle(store, one) for one in (model, start)]
    error, apart = compared(bundles, open_windows(windows, scaler, folds, store), metric)
    with store.draft(this_call()) as draft:
        return draft.commit(Judged, error=error, standard_errors=apart)


def compared(bundles: list[Bundle], cut: WindowSet, metric: str) -> tuple[float, float | None]:
    """The error of the first bundle, and by how many standard errors it is nearer to the target than the second."""
    each, target, floors, spacing = forecast_validation(bundles, cut)
    own, others = np.maximum(each, floors)
    return error_of(own, target, metric), standard_errors(own, others, target, metric, spacing)


def standard_errors(own: np.ndarray, others: np.ndarray, target: np.ndarray, metric: str, spacing: int = 1) -> float | None:
    """By how many standard errors of the difference `own` (N, H) is nearer to the target than `others`.

    Only as many windows are counted as share no step; their origins are `spacing` steps apart.
    """
    seen = ~np.isnan(target).all(1)
    nearer = losses_of(others[seen], target[seen], metric) - losses_of(own[seen], target[seen], metric)
    spread = nearer.std() / np.sqrt(independent(len(nearer), target.shape[1], spacing))
    return float(nearer.mean() / spread) if spread > 0 else None
