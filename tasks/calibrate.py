"""Give a trained model quantiles, and make them hold on the validation fold."""

from dataclasses import replace

import numpy as np
import torch

from models.batches import Batch, in_order, thinning
from models.bundle import Bundle, dump_bundle
from models.conformal import HALF_LIVES, Calibration, following_of, offsets_of, scores
from models.specs import QuantileSpec
from models.spread import Forecasts, SpreadNet, fit_spread
from models.windows import FoldSpec, num_apart
from tasks.normalise import Normalised, read_scaler
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Store
from tasks.train import Model, read_bundle
from tasks.windows.folds import WindowSet, open_windows
from tasks.windows.task import Windows

LEARNED, CALIBRATED = 1 << 13, 1 << 14  # windows of the training and of the validation fold that are looked at, about
FEW = 20  # windows without a common step from which an interval can hardly be told
ELEMENTS = 1 << 26  # numbers of these that are held at most


@step(libraries=("numpy", "pyarrow", "safetensors", "torch"))
def calibrate(
    model: Model, windows: list[Windows], normalised: list[Normalised], folds: FoldSpec, quantiles: QuantileSpec, store: Store
) -> Model:
    """Store the bundle again, with a spread net that learned from the training fold and offsets from validation."""
    bundle = read_bundle(store, model)
    scaler, _ = read_scaler(normalised, windows[0].columns, store)
    cut = open_windows(windows, scaler, folds, store)
    sure = with_quantiles(bundle, cut, quantiles, folds)
    apart = num_apart(cut.count("validation"), cut.windows)
    few = "; so few that intervals are a rough guide" if apart < FEW else ""
    say(f"quantiles calibrated on validation windows, {apart:,} of them without a common step{few}")
    with store.draft(this_call()) as draft:
        for name, content in dump_bundle(sure).items():
            draft.write_bytes(name, content)
        draft.write_json("history.json", store.read_json(model, "history.json"))
        return draft.commit(Model, **model.model_dump(exclude={"step", "key", "digest"}))


def with_quantiles(bundle: Bundle, cut: WindowSet, spec: QuantileSpec, folds: FoldSpec) -> Bundle:
    """The same model, which now says how sure it is."""
    about = bundle.description
    network = SpreadNet.fresh(spec.levels, about.series.columns, about.windows, about.series.season)
    fit_spread(network, spec.levels, forecast_fold(bundle, cut, "train", network.seen, LEARNED))
    seen = forecast_fold(bundle, cut, "validation", network.seen, CALIBRATED)
    with torch.no_grad():
        quantiles = torch.cat([network(*part) for part in seen.split()]).numpy()
    calibration = calibrated(quantiles, seen, spec, max(about.series.season, about.windows.horizon), folds)
    described = about.model_copy(update={"calibration": calibration})
    return replace(bundle, description=described, spread_weights=network.state_dict())


def calibrated(quantiles: np.ndarray, seen: Forecasts, spec: QuantileSpec, period: int, folds: FoldSpec) -> Calibration:
    """What makes quantiles (N, H, Q) hold; `period` is the season or the horizon, whichever is longer."""
    truth, following = seen.truth.numpy(), None
    if spec.rolling:
        following = following_of(quantiles, truth, seen.series.numpy(), spec.levels, HALF_LIVES * period, seen.spacing)
    offsets = offsets_of(scores(quantiles, truth), spec.levels, seen.spacing).tolist()
    return Calibration(
        levels=spec.levels, offsets=offsets, rolling=spec.rolling,
        num_windows=len(seen), held_out=folds.validation + folds.test, following=following,
    )  # fmt: skip


def forecast_fold(bundle: Bundle, cut: WindowSet, fold: str, num_seen: int, limit: int) -> Forecasts:
    """The model's forecasts of windows evenly spread over a fold; of each past, the newest `num_seen` targets."""
    windows, columns = cut.windows, cut.columns
    limit = min(limit, max(1, ELEMENTS // (num_seen + windows.horizon * (2 + len(columns.known)))))
    held: list[tuple[torch.Tensor, ...]] = []
    blocks = cut.telling(fold, bundle.numbers)
    for rows in in_order(blocks, windows.span, 1024, limit):
        batch = Batch.split(rows, windows.lookback, columns)
        forecast = torch.from_numpy(bundle.forecast(batch.past, batch.future, batch.series))
        truth = batch.target if batch.weight is None else batch.target.where(batch.weight > 0, torch.nan)
        held.append((batch.past[:, -num_seen:, 0].clone(), batch.future.clone(), forecast, truth.clone(), batch.series))
    return Forecasts(*(torch.cat(parts) for parts in zip(*held, strict=True)), spacing=blocks.stride * thinning(blocks, limit))
