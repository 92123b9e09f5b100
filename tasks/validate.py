"""Backtest a model, or seasonal naive, from every origin of the validation and test folds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

from models.bundle import Bundle, Description
from models.errors import Fault
from models.metrics import StepErrors, score
from models.naive import seasonal_naive
from models.scaling import Scaler
from models.windows import gather
from tasks.ingest.timeline import SECONDS_A_DAY, fixed_seconds, parse_offset, parse_timezone
from tasks.policy import step, this_call
from tasks.storage import Receipt, Store
from tasks.train import Model, read_bundle
from tasks.windows import FoldBlocks, WindowFile, Windows

SCORED_FOLDS = ("validation", "test")
BATCH = 1024  # windows forecast at a time
CLOCK = {"hour": range(24), "day_of_week": range(7), "month": range(1, 13)}
NEW_LINE = "Give the spec another name to start a new line of models."

Forecaster = Callable[
    [str, torch.Tensor], np.ndarray
]  # series, scaled windows (B, L+H, C) -> its forecasts (B, H), scaled alike


class Scores(Receipt):
    """Scores by fold and number of steps, and `backtest.json` with the errors behind them."""

    model: str | None  # digest; None is seasonal naive
    scores: dict[str, dict[str, dict[str, float | None]]]  # fold -> steps -> mae, rmse, mase
    num_origins: dict[str, int]


@dataclass(frozen=True)
class Scored:
    """Some backtest forecasts of one series, in the target's unit."""

    series_id: str
    forecast: np.ndarray  # (B, H)
    truth: np.ndarray  # (B, H)
    stamps: np.ndarray  # (B, H) UTC


@step(libraries=("numpy", "pandas", "pyarrow", "torch", "tzdata"))
def validate(model: Model | None, windows: Windows, store: Store) -> Scores:
    """Score one model, or seasonal naive where `model` is None, on the folds of these windows."""
    file = WindowFile(store.file(windows, "windows.parquet"))
    scaler = Scaler.model_validate(store.read_json(windows, "scaler.json"))
    forecaster = naive_forecaster(windows) if model is None else model_forecaster(read_bundle(store, model), windows, scaler)
    backtests = {
        fold: backtest(file.fold(fold), windows, scaler, forecaster, example_picks(model, fold)) for fold in SCORED_FOLDS
    }
    with store.draft(this_call()) as draft:
        draft.write_json("backtest.json", {fold: result["detail"] for fold, result in backtests.items()})
        return draft.commit(
            Scores,
            model=model.digest if model else None,
            scores={fold: result["scores"] for fold, result in backtests.items()},
            num_origins={fold: result["num_origins"] for fold, result in backtests.items()},
        )


def example_picks(model: Model | None, fold: str) -> dict[str, float]:
    """The origins a report shows, as quantiles of their error: only a model's, only on the test fold."""
    return {"good": 0.1, "median": 0.5, "worst": 1.0} if model and fold == "test" else {}


def score_steps(horizon: int, season: int) -> list[int]:
    """The numbers of steps that scores are given for: one, half a season, a season, the horizon."""
    return sorted({steps for steps in (1, season // 2, season, horizon) if 1 <= steps <= horizon})


def naive_forecaster(windows: Windows) -> Forecaster:
    lookback, horizon = windows.windows.lookback, windows.windows.horizon
    return lambda series_id, batch: seasonal_naive(batch[:, :lookback, 0].numpy(), horizon, windows.facts.season)


def model_forecaster(bundle: Bundle, windows: Windows, scaler: Scaler) -> Forecaster:
    """The model, on windows that another scaler may have scaled and whose columns it must share.

    Raises:
        Fault: the model was made for other windows, columns or another frequency.
    """
    about = bundle.description
    check_same_task(about, windows)
    if about.scaler == scaler:
        return lambda series_id, batch: bundle.forecast_windows(batch)
    return partial(forecast_rescaled, bundle, scaler)


def forecast_rescaled(bundle: Bundle, scaler: Scaler, series_id: str, windows: torch.Tensor) -> np.ndarray:
    """A live model on windows of a newer scaler: undo that one and apply its own; the other way for the forecasts."""
    own = bundle.description.scaler
    if series_id not in own.series:  # new since the model was trained: scaled by its own history
        return bundle.forecast_windows(windows)
    raw = windows.numpy() * np.asarray(scaler.of(series_id).std) + np.asarray(scaler.of(series_id).mean)
    forecast = bundle.forecast_windows(torch.from_numpy(own.apply(series_id, raw)))
    return scaler.apply_target(series_id, own.undo_target(series_id, forecast))


def check_same_task(made_for: Description, windows: Windows) -> None:
    """Raises a Fault where a model can not be held against these windows."""
    pairs = {
        "columns": (made_for.series.columns.names, windows.facts.columns.names),
        "frequency": (made_for.series.frequency, windows.facts.frequency),
        "lookback": (made_for.windows.lookback, windows.windows.lookback),
        "horizon": (made_for.windows.horizon, windows.windows.horizon),
    }
    for what, (own, found) in pairs.items():
        if own != found:
            raise Fault(f"The live model was made for {what} {own}, this run has {found}. {NEW_LINE}")


def backtest(blocks: FoldBlocks, about: Windows, scaler: Scaler, forecaster: Forecaster, picks: dict[str, float]) -> dict:
    """Scores of every origin of a fold, errors by step and by local hour, and the origins picked to be shown."""
    horizon, zone = about.windows.horizon, parse_timezone(about.facts.timezone)
    by_series: dict[str, StepErrors] = {}
    unit = clock_unit(about.facts.frequency)
    by_clock = np.zeros((len(CLOCK[unit]), 3))  # forecasts, sum of error, of absolute error
    origin_mae = []
    for part in forecasts(blocks, about, scaler, forecaster):
        error = part.forecast - part.truth
        errors = by_series.setdefault(part.series_id, StepErrors(horizon, scaler.of(part.series_id).naive_mae))
        errors.add(error)
        local = pd.DatetimeIndex(part.stamps.reshape(-1), tz="UTC").tz_convert(zone)
        flat = error.reshape(-1)
        at = getattr(local, unit).to_numpy() - CLOCK[unit].start
        np.add.at(by_clock, at, np.stack([np.ones_like(flat), flat, np.abs(flat)], 1))
        origin_mae.append(np.abs(error).mean(1))
    ranked = np.argsort(np.concatenate(origin_mae), kind="stable")
    chosen = {name: int(ranked[round(quantile * (len(ranked) - 1))]) for name, quantile in picks.items()}
    every = list(by_series.values())
    return {
        "scores": {str(steps): score(every, steps) for steps in score_steps(horizon, about.facts.season)},
        "num_origins": len(ranked),
        "detail": {
            "mae_by_step": (sum(e.absolute for e in every) / len(ranked)).tolist(),
            "clock": unit,
            "by_clock": [
                {"at": at, "forecasts": int(row[0]), "bias": row[1] / row[0], "mae": row[2] / row[0]}
                for at, row in zip(CLOCK[unit], by_clock.tolist(), strict=True)
                if row[0]
            ],
            "examples": examples(blocks, about, scaler, forecaster, chosen),
        },
    }


def clock_unit(frequency: str) -> str:
    """The part of the local clock by which errors of this frequency are looked at."""
    offset = parse_offset(frequency)
    seconds = fixed_seconds(offset)
    if seconds and seconds < SECONDS_A_DAY:
        return "hour"
    return "day_of_week" if seconds or offset.rule_code.split("-")[0] in ("D", "B", "C") else "month"


def forecasts(blocks: FoldBlocks, about: Windows, scaler: Scaler, forecaster: Forecaster) -> Iterator[Scored]:
    """Every window of a fold with its forecast, block by block and oldest first."""
    for block, count in enumerate(blocks.num_windows):
        starts = np.arange(count) * blocks.stride
        yield from forecasts_at(blocks, block, starts, about, scaler, forecaster)


def forecasts_at(blocks, block: int, starts: np.ndarray, about: Windows, scaler: Scaler, forecaster) -> Iterator[Scored]:
    """The windows of one block that begin at `starts`, with their forecasts."""
    cut, series_id = about.windows, blocks.series_id(block)
    rows, stamps = blocks.read(block), blocks.timestamps(block)
    for at in range(0, len(starts), BATCH):
        part = starts[at : at + BATCH]
        batch = gather(rows, torch.from_numpy(part), cut.span)
        steps = part[:, None] + np.arange(cut.lookback, cut.span)
        forecast = scaler.undo_target(series_id, forecaster(series_id, batch))
        yield Scored(series_id, forecast, scaler.undo_target(series_id, rows[:, 0].numpy()[steps]), stamps[steps])


def examples(blocks, about: Windows, scaler: Scaler, forecaster: Forecaster, chosen: dict[str, int]) -> list[dict]:
    """Truth, forecast and seasonal naive from the chosen origins (counted over the fold), for the report."""
    ends, shown = np.cumsum(blocks.num_windows), []
    for name, index in chosen.items():
        block = int(np.searchsorted(ends, index, side="right"))
        start = np.array([(index - (ends[block - 1] if block else 0)) * blocks.stride])
        (own,) = forecasts_at(blocks, block, start, about, scaler, forecaster)
        (naive,) = forecasts_at(blocks, block, start, about, scaler, naive_forecaster(about))
        past = blocks.read(block)[start[0] : start[0] + about.windows.lookback, 0].numpy()
        recent = scaler.undo_target(own.series_id, past[-2 * about.windows.horizon :])
        zone = parse_timezone(about.facts.timezone)
        stamps = pd.DatetimeIndex(own.stamps[0], tz="UTC").tz_convert(zone)
        earlier = blocks.timestamps(block)[start[0] : start[0] + about.windows.lookback][-len(recent) :]
        shown.append(
            {
                "name": name,
                "series_id": own.series_id,
                "mae": float(np.abs(own.forecast - own.truth).mean()),
                "stamps": [stamp.isoformat() for stamp in stamps],
                "before": recent.tolist(),
                "before_stamps": [stamp.isoformat() for stamp in pd.DatetimeIndex(earlier, tz="UTC").tz_convert(zone)],
                "truth": own.truth[0].tolist(),
                "forecast": own.forecast[0].tolist(),
                "naive": naive.forecast[0].tolist(),
            }
        )
    return shown
