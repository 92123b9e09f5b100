"""The networks of convcast on the year: trained as a spec says, and asked for forecasts of any origins.

Axes in names: R rows, N origins, L lookback, H horizon, C channels, F covariates known ahead.
"""

import time
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import pandas as pd
import torch

from demand.year import FIRST_TEST, FIRST_VALIDATION, LONGEST, ORIGINS, SEASON, continued
from models.batches import TensorBlocks
from models.fit import fit
from models.networks import NetworkSpec, build_network
from models.scaling import Scaler, ScalingSpec, fit_scale
from models.series import Columns
from models.specs import FitSpec
from models.spread import Forecasts
from models.windows import WindowSpec
from tasks.ingest.calendar import waves

AT_ONCE = 256  # windows


@dataclass(frozen=True)
class Recipe:
    """A net and everything it is trained with."""

    network: NetworkSpec
    columns: Columns
    windows: WindowSpec
    fit: FitSpec


@dataclass
class Nets:
    """The nets of one recipe, one a seed."""

    recipe: Recipe
    year: pd.DataFrame
    networks: list[torch.nn.Module] = field(default_factory=list)
    seconds: list[tuple[float, float]] = field(default_factory=list)  # and CPU-seconds, a seed

    @cached_property
    def rows(self) -> np.ndarray:
        """Raw rows (R, C) in the order of the columns."""
        year, columns = continued(self.year), self.recipe.columns
        local = year.index.tz_localize(None)
        known = {name: year[name].to_numpy(np.float64) for name in columns.future} | waves(local, columns.calendar)
        return np.stack([year["Demand"].to_numpy(), *known.values()], 1)

    @cached_property
    def scaler(self) -> Scaler:
        # The scale is fitted on what a file holds; the channels of the calendar, last in a row, have a fixed one.
        held = self.rows[:FIRST_VALIDATION, : self.rows.shape[1] - self.recipe.columns.made]
        scale = fit_scale([held], self.recipe.columns, SEASON, FIRST_VALIDATION, len(self.year), ScalingSpec())
        return Scaler(channels=self.recipe.columns.names, season=SEASON, scaling=ScalingSpec(), series={"Demand": scale})

    @cached_property
    def scaled(self) -> torch.Tensor:
        return torch.from_numpy(self.scaler.apply("Demand", self.rows))

    @property
    def lookback(self) -> int:
        return self.recipe.windows.lookback

    def train(self, num_seeds: int) -> "Nets":
        """Itself, with one net a seed."""
        recipe, span = self.recipe, self.recipe.windows.span
        training = TensorBlocks([self.scaled[:FIRST_VALIDATION]], span)
        validation = TensorBlocks([self.scaled[FIRST_VALIDATION - self.lookback : FIRST_TEST]], span)
        build = partial(build_network, recipe.network, recipe.columns, recipe.windows, SEASON)
        for seed in range(num_seeds):
            wall, cpu = time.perf_counter(), time.process_time()
            fitted = fit(build, training, validation, recipe.columns, recipe.windows, recipe.fit, seed)
            self.seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
            network = build()
            network.load_state_dict(fitted.weights)
            self.networks.append(network.eval())
        return self

    def windows(self, origins: np.ndarray, temperature: np.ndarray | None = None) -> torch.Tensor:
        """Scaled windows (N, L+H, C); `temperature` (N, H) is what the horizon's is taken to be, else the true one."""
        places = origins[:, None] + np.arange(-self.lookback, LONGEST)
        if temperature is None:
            return self.scaled[places]
        raw = self.rows[places]
        raw[:, self.lookback :, self.recipe.columns.names.index("Temperature")] = temperature
        return torch.from_numpy(self.scaler.apply("Demand", raw))

    @torch.no_grad()
    def forecast(self, origins: np.ndarray = ORIGINS, temperature: np.ndarray | None = None) -> list[np.ndarray]:
        """Demand (N, H) after each origin, a seed each."""
        cut = self.windows(origins, temperature)
        scaled = [self._of(network, cut).numpy() for network in self.networks]
        return [self.scaler.undo_target("Demand", one) for one in scaled]

    def _of(self, network: torch.nn.Module, cut: torch.Tensor) -> torch.Tensor:
        return torch.cat([network(part[:, : self.lookback], part[:, self.lookback :, 1:]) for part in cut.split(AT_ONCE)])

    @torch.no_grad()
    def seen(self, origins: np.ndarray) -> list[Forecasts]:
        """What quantiles are learned from or told of: the forecasts (N, H) of each seed and of their mean, scaled."""
        cut = self.windows(origins)
        each = [self._of(network, cut) for network in self.networks]
        target, future, truth = cut[:, : self.lookback, 0], cut[:, self.lookback :, 1:], cut[:, self.lookback :, 0]
        return [Forecasts(target, future, forecast, truth) for forecast in (*each, torch.stack(each).mean(0))]
