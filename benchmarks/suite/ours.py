"""convcast's part: what it does where a spec has no `network` and no `fit` section.

Axes in names: S series, N origins, H horizon, R rows, C channels.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch

from models.batches import Batch, TensorBlocks, gather, in_order
from models.bundle import mean_of
from models.choice import best_mean
from models.fit import fit
from models.floors import kept, raw_floors, scaled_floors
from models.networks import FORMS, FitSettings, NetworkSpec, build_network, form_name, is_worth_trying, recipe
from models.scaling import Scaler, ScalingSpec, fit_scale
from models.series import DATE, Columns, without_part
from models.specs import FitSpec
from models.training import Fitted
from models.windows import WindowSpec, usual_lookback
from suite.panel import History, Panel
from tasks.find_dates import Daily, daily_sums, explained_by_other_years, merged
from tasks.find_season import SAMPLED_SERIES, SAMPLED_STEPS, STEPS_A_SERIES, decide
from tasks.ingest.calendar import usual_calendar, waves
from tasks.ingest.timeline import season_of


@dataclass
class Numbered:
    """Blocks whose rows tell, in a last channel, the number of their series, as `tasks.windows` has them."""

    blocks: TensorBlocks  # one a series

    @property
    def num_windows(self) -> list[int]:
        return self.blocks.num_windows

    @property
    def stride(self) -> int:
        return self.blocks.stride

    def read(self, block: int) -> torch.Tensor:
        rows = self.blocks.read(block)
        return torch.cat([rows, torch.full((len(rows), 1), block + 1.0)], 1)


@dataclass
class Candidate:
    """One form of network, trained."""

    form: NetworkSpec
    build: Callable[[], torch.nn.Module]
    fitted: Fitted

    @property
    def recipe(self) -> FitSpec:
        return recipe(self.form, FitSettings())

    def network(self, fitted: Fitted | None = None) -> torch.nn.Module:
        """The network with its weights, or with others."""
        network = self.build()
        network.load_state_dict((fitted or self.fitted).weights)
        return network.eval()


def ours(panel: Panel, seed: int) -> tuple[np.ndarray, float, str]:
    """Forecasts (S, N, H) of the test fold, the seconds they and the training took, and the forms chosen."""
    began = time.perf_counter()
    scaled, windows, chosen = chosen_on(panel, seed)
    forecast = scaled.forecast([one.network() for one in chosen], windows)
    return forecast, time.perf_counter() - began, " + ".join(form_name(one.form) for one in chosen)


def chosen_on(panel: Panel, seed: int) -> tuple["Scaled", WindowSpec, list[Candidate]]:
    """The data as networks see them, and the networks whose mean is best on validation."""
    scaled = Scaled(panel)
    room = min(panel.num_training(one) for one in panel.series.values())
    season = season_found(panel)
    if season == 1 and 2 * season_of(panel.frequency) <= room:
        season = season_of(panel.frequency)
    lookback = min(usual_lookback(season, room, panel.horizon), room - panel.horizon)
    windows = WindowSpec(lookback=lookback, horizon=panel.horizon)
    training, validation = Numbered(scaled.training(windows)), Numbered(scaled.validation(windows))
    num_windows = sum(len(one) - windows.span + 1 for one in panel.series.values())
    about = (False, len(panel.series), len(scaled.columns.known), num_windows)
    tried = []
    for form in (form for form in FORMS if is_worth_trying(form, *about)):
        build = partial(build_network, form, scaled.columns, windows, season, len(panel.series))
        fitted = fit(build, training, validation, scaled.columns, windows, recipe(form, FitSettings()), seed)
        tried.append(Candidate(form, build, fitted))
    forecasts, target, floors = scaled.forecast_validation([one.network() for one in tried], validation, windows)
    chosen, _ = best_mean(forecasts, target, "mae", panel.stride, floors)
    return scaled, windows, [tried[at] for at in chosen]


def season_found(panel: Panel) -> int:
    """What `find_season` finds in the training rows; the season of the panel is for the rivals, and for MASE."""
    rows = [one.target[: panel.num_training(one)][-STEPS_A_SERIES:] for one in panel.series.values()]
    return decide(rows[: min(SAMPLED_SERIES, -(-SAMPLED_STEPS // len(rows[0])))], panel.frequency)[0]


class Scaled:
    """The rows of all series as `normalise` scales them, and the windows of each fold."""

    def __init__(self, panel: Panel):
        self.panel = panel
        steps = np.mean([len(one) for one in panel.series.values()])
        calendar = usual_calendar(panel.frequency, steps, panel.future)
        self.columns = Columns(masked=panel.masked, past=panel.past, future=panel.future, calendar=calendar)
        if DATE in calendar and explained_by_other_years(self.daily()) <= 0:
            self.columns = without_part(self.columns, DATE)
        scales = {}
        for name, one in panel.series.items():
            num_training = panel.num_training(one)
            held = self.raw(one)[:num_training, : self.columns.num_channels - self.columns.made]
            scales[name] = fit_scale([held], self.columns, panel.season, num_training, len(one), ScalingSpec())
        self.scaler = Scaler(channels=self.columns.names, season=panel.season, scaling=ScalingSpec(), series=scales)
        self.rows = {
            name: torch.from_numpy(self.scaler.apply(name, self.raw(one))).contiguous() for name, one in panel.series.items()
        }

    def daily(self) -> list[Daily]:
        """The mean of the target over each day of the training rows."""
        found = []
        for one in self.panel.series.values():
            target = one.target[: self.panel.num_training(one)]
            seen = np.flatnonzero(~np.isnan(target))
            found.append(merged([daily_sums(one.stamps.as_unit("us").asi8[seen], target[seen])]))
        return found

    def raw(self, one: History) -> np.ndarray:
        """Rows (R, C) in the order of `columns`, holes filled with the last value before them, as `mask` does."""
        seen = [~np.isnan(one.target)] if self.panel.masked else []
        made = waves(one.stamps, self.columns.calendar).values()
        return np.stack([one.filled, *seen, *one.past.T, *one.future.T, *made], 1).astype(np.float64)

    def training(self, windows: WindowSpec) -> TensorBlocks:
        rows = [self.rows[name][: self.panel.num_training(one)] for name, one in self.panel.series.items()]
        return TensorBlocks(rows, windows.span)

    def before_test(self, windows: WindowSpec) -> TensorBlocks:
        """The windows of training and validation rows together."""
        ends = {name: self.panel.num_training(one) + self.panel.folds.validation for name, one in self.panel.series.items()}
        return TensorBlocks([self.rows[name][:end] for name, end in ends.items()], windows.span)

    def validation(self, windows: WindowSpec) -> TensorBlocks:
        """The windows of the validation origins that every rival has too."""
        blocks = []
        for name, one in self.panel.series.items():
            origins = self.panel.origins(one, "validation")
            blocks.append(self.rows[name][origins[0] - windows.lookback : origins[-1] + windows.horizon])
        return TensorBlocks(blocks, windows.span, self.panel.stride)

    @torch.no_grad()
    def forecast_validation(
        self, networks: list[torch.nn.Module], blocks: Numbered, windows: WindowSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Forecasts (M, B, H) of each network, targets (B, H), NaN where not observed, and floors (B, 1), all scaled."""
        forecasts, targets, floors = [], [], []
        for cut in in_order(blocks, windows.span, 256):
            batch = Batch.split(cut, windows.lookback, self.columns)
            forecasts.append(np.stack([network(batch.past, batch.future, batch.series).numpy() for network in networks]))
            seen = batch.target if batch.weight is None else batch.target.where(batch.weight > 0, torch.nan)
            targets.append(seen.numpy())
            floors.append(kept(self.floors[batch.series - 1], batch.past[:, :, 0]).numpy())
        return np.concatenate(forecasts, 1), np.concatenate(targets), np.concatenate(floors)[:, None]

    @torch.no_grad()
    def forecast(self, networks: list[torch.nn.Module], windows: WindowSpec) -> np.ndarray:
        """The mean forecasts (S, N, H) of the test fold, in the target's unit."""
        forecasts = []
        for number, (name, one) in enumerate(self.panel.series.items(), 1):
            starts = torch.from_numpy(self.panel.origins(one, "test") - windows.lookback)
            found = [self.batch(networks, self.rows[name], number, part, windows) for part in starts.split(256)]
            forecasts.append(self.scaler.undo_target(name, torch.cat(found).numpy()))
        return np.stack(forecasts)

    def batch(
        self, networks: list[torch.nn.Module], rows: torch.Tensor, number: int, starts: torch.Tensor, windows: WindowSpec
    ) -> torch.Tensor:
        cut = gather(rows, starts, windows.span)
        past, series = cut[:, : windows.lookback], torch.full((len(cut),), number)
        mean = mean_of([network(past, cut[:, windows.lookback :, self.columns.first_known :], series) for network in networks])
        return torch.maximum(mean, kept(self.floors[series - 1], past[:, :, 0])[:, None])

    @cached_property
    def floors(self) -> torch.Tensor:
        """The scaled floors (S,) of the series, in their order."""
        scales = self.scaler.series.values()
        mean, std = (np.array([getattr(one, part)[0] for one in scales]) for part in ("mean", "std"))
        return torch.from_numpy(scaled_floors(raw_floors(scales), mean, std))
