"""A backtest: forecasts from every origin of a fold, their scores, errors by step and by clock, and some to be shown."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from models.batches import Batch, gather
from models.bundle import Bundle
from models.conformal import FOLLOWED, Calibration, Settled
from models.errors import Fault
from models.floors import in_units, raw_floors, raw_kept, scaled_floors, snapped
from models.metrics import StepErrors, Sureness, means, score, score_steps
from models.naive import from_a_season_ago, seasonal_naive
from tasks.ingest.clock import Clock
from tasks.ingest.timeline import SECONDS_A_DAY, fixed_seconds, parse_offset, parse_timezone, season_of
from tasks.windows.folds import WindowSet
from tasks.windows.task import Windows

BATCH = 1024  # windows forecast at a time
MOST = 1 << 17  # windows of a fold that are forecast at most
CLOCK = {"hour": range(24), "day_of_week": range(7), "month": range(1, 13)}


@dataclass(frozen=True)
class Asked:
    """Some windows of a fold in the user's units, of one series or of many."""

    series: np.ndarray  # (B,) numbers into the fold's names
    rows: np.ndarray  # (B, L+H, C) float64
    stamps: np.ndarray  # (B, H) int64 microseconds UTC
    origin: np.ndarray  # (B,) number of each window in its fold
    ago: np.ndarray  # (B, min(H, season)) targets a season before, for naive where windows do not reach so far


class Forecaster:
    """Forecasts in the user's units, by seasonal naive or by a model with a scaler of its own."""

    def __init__(self, bundle: Bundle | None, cut: WindowSet, names: list[str]):
        """`names` are the series that the numbers of the windows to be forecast stand for."""
        self.bundle, self.windows, self.season = bundle, cut.windows, cut.scaler.season
        if bundle is None:
            return
        own = bundle.description.scaler.series
        # A series that the model never saw is scaled by its own history.
        scaler, num_static = bundle.description.scaler, len(cut.columns.static)
        scales = [own.get(name) or scaler.adopted(cut.scaler.of(name), num_static) for name in names]
        self.mean, self.std = (np.array([getattr(scale, part) for scale in scales]) for part in ("mean", "std"))
        self.floors = raw_floors(scales)
        self.numbers = np.array([bundle.numbers.get(name, 0) for name in names])

    @property
    def calibration(self) -> Calibration | None:
        return self.bundle.description.calibration if self.bundle else None

    def forecast(self, asked: Asked) -> tuple[np.ndarray, np.ndarray | None]:
        """Forecasts (B, H) of windows, whose targets after the origin are not looked at.

        And the quantiles (B, H, Q) around them, before any offsets and down to no floor; None from a model that has none.
        """
        rows, series = asked.rows, asked.series
        if self.bundle is None:
            past = rows[:, : self.windows.lookback, 0]
            if asked.ago.shape[1]:
                return from_a_season_ago(asked.ago, past[:, -1], self.windows.horizon), None
            return seasonal_naive(past, self.windows.horizon, self.season), None
        mean, std, floors = self.mean[series], self.std[series], self.floors_of(asked)
        rows = torch.from_numpy(((rows - mean[:, None]) / std[:, None]).astype(np.float32))
        batch = Batch.split(rows, self.windows.lookback, self.bundle.description.series.columns)
        lowest = torch.from_numpy(scaled_floors(floors, mean[:, 0], std[:, 0]))
        forecast = self.bundle.forecast(batch.past, batch.future, torch.from_numpy(self.numbers[series]), lowest)
        mean, std = mean[:, :1], std[:, :1]
        quantiles = None
        if self.calibration:
            quantiles = self.bundle.quantiles(batch.past, batch.future, forecast) * std[:, :, None] + mean[:, :, None]
        return in_units(forecast, mean, std, floors), quantiles

    def floors_of(self, asked: Asked) -> np.ndarray | None:
        """The floors (B,) that windows keep to, in the user's units; None of seasonal naive."""
        return raw_kept(self.floors[asked.series], asked.rows[:, : self.windows.lookback, 0]) if self.bundle else None


class Backtest:
    """Every window of one fold, forecast and scored."""

    def __init__(
        self, cut: WindowSet, fold: str, about: Windows, bundle: Bundle | None, before: Mapping[str, Settled] | None = None
    ):
        """`before` says where the fold before has left the quantiles of series, by their names."""
        self.cut, self.blocks, self.about = cut, cut.fold(fold), about
        self.names = sorted({self.blocks.series_id(block) for block in range(len(self.blocks.cuts))})
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.model, self.naive = (Forecaster(one, cut, self.names) for one in (bundle, None))
        self.masked = cut.columns.masked
        self.every = -(-sum(self.blocks.num_windows) // MOST)
        begun = {self.numbers[name]: own for name, own in (before or {}).items() if name in self.numbers}
        spacing, units = self.blocks.stride * self.every, self.model.std[:, 0] if bundle else None
        self.sureness = Sureness(self.model.calibration, spacing, cut.windows.horizon, begun, units)

    @cached_property
    def clock(self) -> Clock:
        return Clock(parse_timezone(self.about.timezone))

    def run(self, picks: dict[str, float]) -> dict:
        """Scores, errors by step and by local clock, and the origins picked to be shown."""
        horizon, scaler, names = self.about.windows.horizon, self.cut.scaler, self.names
        errors = StepErrors(horizon, [scaler.of(name).naive_mae for name in names])
        unit = clock_unit(self.about.frequency)
        by_clock = np.zeros((len(CLOCK[unit]), 3))  # steps forecast, sum of error, of absolute error
        origin_mae = np.full(sum(self.blocks.num_windows), np.nan)
        for part in self.asked():
            truth, seen = self.truth(part.rows)
            forecast, quantiles = self.model.forecast(part)
            error = np.where(seen, forecast - truth, 0.0)
            errors.add(part.series, error, seen)
            self.sureness.add(part.series, quantiles, truth, seen, self.model.floors_of(part))
            self.add_by_clock(by_clock, unit, part.stamps[seen], error[seen])
            steps = seen.sum(1)
            origin_mae[part.origin] = np.abs(error).sum(1) / np.maximum(steps, 1)
            origin_mae[part.origin[steps == 0]] = np.nan  # nothing to hold a forecast against
        ranked = np.argsort(origin_mae, kind="stable")[: int((~np.isnan(origin_mae)).sum())]
        if not len(ranked):
            raise Fault("Every step of a scored fold is masked, so there is nothing to validate on. Set other folds.")
        chosen = {name: int(ranked[round(quantile * (len(ranked) - 1))]) for name, quantile in picks.items()}
        return {
            "scores": {str(steps): score(errors, steps) | self.sureness.score(steps) for steps in self.score_steps()},
            "num_origins": len(ranked),
            "detail": {
                "mae_by_step": means(errors.absolute.sum(0), errors.count.sum(0)),
                "clock": unit,
                "by_clock": [
                    {"at": at, "forecasts": int(row[0]), "bias": row[1] / row[0], "mae": row[2] / row[0]}
                    for at, row in zip(CLOCK[unit], by_clock.tolist(), strict=True)
                    if row[0]
                ],
                "examples": [self.example(name, origin) for name, origin in chosen.items()],
                "worst_series": worst_series(names, errors),
                "intervals": self.sureness.intervals(),
            },
        }

    def settled(self) -> dict[str, Settled]:
        """Where this fold has left the quantiles of series, by their names."""
        return {self.names[number]: own for number, own in self.sureness.settle().items()}

    def score_steps(self) -> list[int]:
        """Those of the calendar's season are always among them, so that a gate may name them whatever season is found."""
        return score_steps(self.about.windows.horizon, self.cut.scaler.season, season_of(self.about.frequency))

    def truth(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The targets (B, H) after the origins, and which of them were observed."""
        after = rows[:, self.about.windows.lookback :]
        return after[:, :, 0], after[:, :, 1] > 0 if self.masked else np.ones(after.shape[:2], bool)

    def asked(self) -> Iterator[Asked]:
        """The windows of the fold, of very many an even selection, about `BATCH` at a time, block by block, oldest first."""
        waiting: list[Asked] = []
        held = passed = 0
        for block, count in enumerate(self.blocks.num_windows):
            numbers = np.arange(-passed % self.every, count, self.every)
            for at in range(0, len(numbers), BATCH):
                part = numbers[at : at + BATCH]
                waiting.append(self.windows_of(block, part, passed + part))
                held += len(part)
                if held >= BATCH:
                    yield together(waiting)
                    waiting, held = [], 0
            passed += count
        if waiting:
            yield together(waiting)

    def windows_of(self, block: int, chosen: np.ndarray, origin: np.ndarray, for_naive: bool = False) -> Asked:
        """The windows of one block with these numbers in it."""
        rows, stamps = self.loaded(block)
        starts, cut = chosen * self.blocks.stride, self.about.windows
        windows = gather(torch.from_numpy(rows), torch.from_numpy(starts), cut.span).numpy()
        after = starts[:, None] + np.arange(cut.lookback, cut.span)
        series = np.full(len(chosen), self.numbers[self.blocks.series_id(block)])
        if self.model.bundle:
            at = series[:, None]
            windows[:, :, 0] = snapped(windows[:, :, 0], self.model.floors[at], self.model.std[at, 0])
        wanted = self.cut.scaler.season > cut.lookback and (for_naive or self.model.bundle is None)
        ago = self.a_season_before(block, starts) if wanted else np.empty((len(chosen), 0))
        return Asked(series, windows, stamps[after], origin, ago)

    def a_season_before(self, block: int, starts: np.ndarray) -> np.ndarray:
        """The targets (B, min(H, season)) a season before the steps of windows that start at these rows of a block."""
        season, cut = self.cut.scaler.season, self.about.windows
        if getattr(self, "_known", None) != block:
            self._known, self._targets = block, self.blocks.targets_with(block, season - cut.lookback)
        return self._targets[starts[:, None] + np.arange(min(cut.horizon, season))]

    def loaded(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and stamps of a block; the last one is kept."""
        if getattr(self, "_block", None) != block:
            self._block, self._loaded = block, (self.blocks.raw(block), self.blocks.timestamps(block))
        return self._loaded

    def add_by_clock(self, sums: np.ndarray, unit: str, stamps: np.ndarray, error: np.ndarray) -> None:
        local = pd.DatetimeIndex(self.clock.to_local(stamps).view("datetime64[us]"))
        at = getattr(local, unit).to_numpy() - CLOCK[unit].start
        np.add.at(sums, at, np.stack([np.ones_like(error), error, np.abs(error)], 1))

    def example(self, name: str, origin: int) -> dict:
        """Truth, forecast and seasonal naive from one origin, for the report; intervals follow the origins before it."""
        ends = np.cumsum(self.blocks.num_windows)
        block = int(np.searchsorted(ends, origin, side="right"))
        number = origin - int(ends[block - 1] if block else 0)
        numbers = np.arange(number, max(-1, number - (FOLLOWED + 1) * self.every), -self.every)[::-1]
        asked = self.windows_of(block, numbers, origin - number + numbers)  # its own window is the last
        lookback, recent = self.about.windows.lookback, 2 * self.about.windows.horizon
        newest = self.windows_of(block, numbers[-1:], np.array([origin]), for_naive=True)
        truth, seen = self.truth(asked.rows)
        forecast, quantiles = self.model.forecast(asked)
        floor = self.model.floors_of(asked)[-1] if self.model.bundle else -np.inf
        before = asked.rows[-1, max(0, lookback - recent) : lookback]
        start = number * self.blocks.stride
        earlier = self.loaded(block)[1][start + max(0, lookback - recent) : start + lookback]
        shown = np.where(before[:, 1] > 0, before[:, 0], np.nan) if self.masked else before[:, 0]
        return {
            "name": name,
            "series_id": self.names[asked.series[-1]],
            "mae": float(np.abs(forecast[-1] - truth[-1])[seen[-1]].mean()),
            "stamps": self.local(asked.stamps[-1]),
            "before": nullable(shown),
            "before_stamps": self.local(earlier),
            "truth": nullable(np.where(seen[-1], truth[-1], np.nan)),
            "forecast": forecast[-1].tolist(),
            "naive": self.naive.forecast(newest)[0][0].tolist(),
            "intervals": self.sureness.bands(asked.series[-1], quantiles, truth, seen, floor),
        }

    def local(self, stamps: np.ndarray) -> list[str]:
        index = pd.DatetimeIndex(stamps.view("datetime64[us]"), tz="UTC")
        return [stamp.isoformat() for stamp in index.tz_convert(parse_timezone(self.about.timezone))]


def nullable(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def together(parts: list[Asked]) -> Asked:
    if len(parts) == 1:
        return parts[0]
    return Asked(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Asked)))


def worst_series(names: list[str], errors: StepErrors, limit: int = 10) -> list[dict]:
    """The series with the largest MAE against seasonal naive in training, the worst first."""
    every = errors.by_series()
    ranked = sorted((one for one in zip(names, *every, strict=True) if one[2] is not None), key=lambda one: -one[2])
    return [{"series_id": name, "mae": mae, "mase": mase} for name, mae, mase in ranked[:limit]]


def clock_unit(frequency: str) -> str:
    """The part of the local clock by which errors of this frequency are looked at."""
    offset = parse_offset(frequency)
    seconds = fixed_seconds(offset)
    if seconds and seconds < SECONDS_A_DAY:
        return "hour"
    return "day_of_week" if seconds or offset.rule_code.split("-")[0] in ("D", "B", "C") else "month"
