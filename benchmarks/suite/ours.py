"""convcast's part: what it does where a spec has no `network` and no `fit` section.

Axes in names: S series, N origins, H horizon, R rows, C channels.
"""

import time
from functools import partial

import numpy as np
import torch

from models.conv1d import ResidualSpec, build_network
from models.fit import RECIPES, FitSpec, fit
from models.scaling import Scaler, ScalingSpec, fit_scale
from models.series import Columns
from models.windows import TensorBlocks, WindowSpec, gather
from suite.panel import History, Panel
from tasks.ingest.calendar import waves


def ours(panel: Panel, seed: int) -> tuple[np.ndarray, float]:
    """Forecasts (S, N, H) of the test fold, and the seconds they and the training took."""
    began = time.perf_counter()
    scaled = Scaled(panel)
    windows = WindowSpec(lookback=lookback_of(panel), horizon=panel.horizon)
    build = partial(build_network, ResidualSpec(), scaled.columns, windows, panel.season, len(panel.series))
    training, validation = scaled.training(windows), scaled.validation(windows)
    fitted = fit(build, training, validation, scaled.columns, windows, FitSpec(**RECIPES["residual"]), seed)
    network = build()
    network.load_state_dict(fitted.weights)
    return scaled.forecast(network.eval(), windows), time.perf_counter() - began


def lookback_of(panel: Panel) -> int:
    """As README has it, two or more seasons, best a week or two of days: nine of those, or four longer seasons.

    Fewer where the shortest series would be left with less than half of its training rows as windows.
    """
    room = min(panel.num_training(one) for one in panel.series.values())
    for seasons in range(9 if panel.finer_than_days else 4, 2, -1):
        if seasons * panel.season + panel.horizon <= room / 2:
            return seasons * panel.season
    return min(2 * panel.season, room - 2 * panel.horizon)


def calendar_of(panel: Panel) -> tuple[str, ...]:
    """`source.calendar` as the demo's spec has it; nothing for steps of a week or more."""
    if panel.finer_than_days:
        return ("hour", "weekday")
    return ("weekday",) if panel.frequency in ("D", "B") else ()


class Scaled:
    """The rows of all series as `normalise` scales them, and the windows of each fold."""

    def __init__(self, panel: Panel):
        self.panel = panel
        self.columns = Columns(masked=panel.masked, past=panel.past, future=panel.future, calendar=calendar_of(panel))
        scales = {}
        for name, one in panel.series.items():
            num_training = panel.num_training(one)
            held = self.raw(one)[:num_training, : self.columns.num_channels - self.columns.made]
            scales[name] = fit_scale([held], self.columns, panel.season, num_training, len(one), ScalingSpec())
        self.scaler = Scaler(channels=self.columns.names, season=panel.season, scaling=ScalingSpec(), series=scales)
        self.rows = {
            name: torch.from_numpy(self.scaler.apply(name, self.raw(one))).contiguous() for name, one in panel.series.items()
        }

    def raw(self, one: History) -> np.ndarray:
        """Rows (R, C) in the order of `columns`, holes filled with the last value before them, as `mask` does."""
        seen = [~np.isnan(one.target)] if self.panel.masked else []
        made = waves(one.stamps, self.columns.calendar).values()
        return np.stack([one.filled, *seen, *one.past.T, *one.future.T, *made], 1).astype(np.float64)

    def training(self, windows: WindowSpec) -> TensorBlocks:
        rows = [self.rows[name][: self.panel.num_training(one)] for name, one in self.panel.series.items()]
        return TensorBlocks(rows, windows.span)

    def validation(self, windows: WindowSpec) -> TensorBlocks:
        """The windows of the validation origins that every rival has too."""
        blocks = []
        for name, one in self.panel.series.items():
            origins = self.panel.origins(one, "validation")
            blocks.append(self.rows[name][origins[0] - windows.lookback : origins[-1] + windows.horizon])
        return TensorBlocks(blocks, windows.span, self.panel.stride)

    @torch.no_grad()
    def forecast(self, network: torch.nn.Module, windows: WindowSpec) -> np.ndarray:
        """Forecasts (S, N, H) of the test fold, in the target's unit."""
        forecasts = []
        for name, one in self.panel.series.items():
            starts = torch.from_numpy(self.panel.origins(one, "test") - windows.lookback)
            scaled = [self.batch(network, self.rows[name], part, windows) for part in starts.split(256)]
            forecasts.append(self.scaler.undo_target(name, torch.cat(scaled).numpy()))
        return np.stack(forecasts)

    def batch(self, network: torch.nn.Module, rows: torch.Tensor, starts: torch.Tensor, windows: WindowSpec) -> torch.Tensor:
        cut = gather(rows, starts, windows.span)
        return network(cut[:, : windows.lookback], cut[:, windows.lookback :, self.columns.first_known :])
