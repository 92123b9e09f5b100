"""Per-series scaling, fitted on training steps and undone on forecasts."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.errors import Fault, shortlist
from models.series import DATE, Columns, clock_channels

HALF_ROOT = 0.5**0.5  # the standard deviation of a sine over whole turns
OFTEN = 0.01  # share of the training steps that a target has to be 0 at, and never lower, for 0 to be its floor


class ScalingSpec(BaseModel):
    """How channels are scaled before a network sees them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["standard", "none"] = "standard"


class SeriesScale(BaseModel):
    """Training statistics of one series, channel by channel, in the order of `Scaler.channels`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    std: tuple[float, ...]  # ddof 0; 1 for a channel that never changes in training
    naive_mae: float | None  # seasonal-naive error over the training steps, in the target's unit; the scale of MASE
    steps: int  # up to the last target
    constant: bool = False  # the target never changes over the training steps
    first: int | None = None  # its first stamp, microseconds UTC; None in bundles that do not say
    floor: float | None = None  # the target is often there and never below it, and is not forecast below it; 0 or none


class Scaler(BaseModel):
    """What is subtracted from each series and what it is divided by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[str, ...]
    season: int
    scaling: ScalingSpec
    series: dict[str, SeriesScale]

    def of(self, series_id: str) -> SeriesScale:
        """The scale of one series.

        Raises:
            Fault: the series was not there when the scaler was fitted.
        """
        if series_id not in self.series:
            raise Fault(
                f"Series {series_id} was not in the training data, which has {shortlist(sorted(self.series))}. "
                "Train again with it, or remove its rows."
            )
        return self.series[series_id]

    def apply(self, series_id: str, values: np.ndarray) -> np.ndarray:
        """Scaled float32 rows (R, C) from raw rows (R, C)."""
        scale = self.of(series_id)
        return ((values - np.asarray(scale.mean)) / np.asarray(scale.std)).astype(np.float32)

    def undo_target(self, series_id: str, values: np.ndarray) -> np.ndarray:
        """Targets or forecasts in the target's own unit, float64, any shape."""
        scale = self.of(series_id)
        return np.asarray(values, np.float64) * scale.std[0] + scale.mean[0]

    @property
    def num_floored(self) -> int:
        """Of how many series forecasts stop at 0."""
        return sum(one.floor is not None for one in self.series.values())

    def only(self, names: Iterable[str]) -> "Scaler":
        """This scaler with the scales of some series."""
        return self.model_copy(update={"series": {name: self.series[name] for name in names}})

    def adopted(self, scale: SeriesScale, num_static: int) -> SeriesScale:
        """The scale of a series that was not there in training; its static channels are scaled as they were then."""
        if not num_static or not self.series:
            return scale
        shared = next(iter(self.series.values()))
        changed = {part: getattr(scale, part)[:-num_static] + getattr(shared, part)[-num_static:] for part in ("mean", "std")}
        return scale.model_copy(update=changed)


class Moments:
    """Running count, mean and spread of channels, exact enough for any number of rows that come a few at a time."""

    def __init__(self, num_channels: int):
        self.count = np.zeros(num_channels)
        self.mean = np.zeros(num_channels)
        self.squares = np.zeros(num_channels)
        self.low = np.full(num_channels, np.inf)
        self.high = np.full(num_channels, -np.inf)
        self.zeros = np.zeros(num_channels)

    def add(self, rows: np.ndarray, counted: np.ndarray | None = None) -> None:
        """Take in rows (R, C); of the first channel only those that are `counted` (R,).

        Source: Chan, Golub and LeVeque 1979, the pairwise update of means and sums of squares.
        """
        for channel in range(rows.shape[1]):
            values = rows[:, channel] if channel or counted is None else rows[counted, channel]
            if not len(values):
                continue
            count, mean = len(values), values.mean()
            total, apart = self.count[channel] + count, mean - self.mean[channel]
            self.squares[channel] += np.square(values - mean).sum() + apart**2 * self.count[channel] * count / total
            self.mean[channel] += apart * count / total
            self.count[channel] = total
            self.low[channel] = min(self.low[channel], values.min())
            self.high[channel] = max(self.high[channel], values.max())
            self.zeros[channel] += np.count_nonzero(values == 0)

    @property
    def changes(self) -> np.ndarray:
        """Which channels are not the same in every row."""
        return self.high > self.low

    @property
    def floors(self) -> list[float | None]:
        """0 of the channels that are often 0 and never less."""
        stop = (self.low == 0) & (self.zeros >= OFTEN * self.count)
        return [0.0 if stops else None for stops in stop]

    @property
    def std(self) -> np.ndarray:
        """ddof 0; 1 where a channel never changes, since rounding may leave 1e-17 there."""
        with np.errstate(invalid="ignore", divide="ignore"):
            std = np.sqrt(self.squares / self.count)
        return np.where(self.changes & (std > 0), std, 1.0)


class NaiveError:
    """Mean absolute error of seasonal naive within a series whose rows come a few at a time."""

    def __init__(self, season: int):
        self.season, self.total, self.count = season, 0.0, 0
        self.tail = np.empty(0)

    def add(self, target: np.ndarray) -> None:
        """Take in targets (R,), NaN where one was not observed."""
        joined = np.concatenate([self.tail, target])
        if len(joined) > self.season:
            apart = np.abs(joined[self.season :] - joined[: -self.season])
            self.total += float(np.nansum(apart))
            self.count += int((~np.isnan(apart)).sum())
        self.tail = joined[-self.season :]

    @property
    def mae(self) -> float | None:
        return self.total / self.count if self.count else None


def fit_scale(
    pieces: Iterable[np.ndarray], columns: Columns, season: int, num_training: int, steps: int, spec: ScalingSpec
) -> SeriesScale:
    """Statistics of the training rows of one series.

    Args:
        pieces: its training rows (R, C) in order; `columns.names` without the channels that the calendar makes, which
            stand before the static ones.
        num_training: how many rows they are together.
        steps: rows up to the last target, training or not.
    """
    num_channels = columns.num_channels - columns.made
    moments = Moments(num_channels)
    naive = NaiveError(season if season < num_training else 1)
    for rows in pieces:
        seen = rows[:, 1] > 0 if columns.masked else None
        moments.add(rows, seen)
        naive.add(rows[:, 0] if seen is None else np.where(seen, rows[:, 0], np.nan))
    mean, std = (moments.mean, moments.std) if spec.kind == "standard" else (np.zeros(num_channels), np.ones(num_channels))
    if columns.masked:
        mean[1], std[1] = 0.0, 1.0
    first_static = num_channels - len(columns.static)
    std[first_static:] = 1.0  # a static channel is scaled across series, in `merge_scales`
    made_std = [1.0 if name == DATE else HALF_ROOT for name in columns.calendar for _ in clock_channels(name)]
    made_std += [1.0] * bool(columns.holidays)
    mean = [*mean[:first_static].tolist(), *([0.0] * columns.made), *moments.low[first_static:].tolist()]
    std = [
        *std[:first_static].tolist(),
        *(made_std if spec.kind == "standard" else [1.0] * columns.made),
        *std[first_static:].tolist(),
    ]
    constant = not moments.changes[0]
    return SeriesScale(
        mean=tuple(mean), std=tuple(std), naive_mae=naive.mae, steps=steps, constant=constant, floor=moments.floors[0]
    )


def merge_scales(parts: list[dict[str, SeriesScale]], columns: Columns, season: int, scaling: ScalingSpec) -> Scaler:
    """One scaler of the scales of several shards; static channels share one mean and spread over all series.

    What comes in as the mean of a static channel is its value.
    """
    series = {name: scale for part in parts for name, scale in sorted(part.items())}
    num_static = len(columns.static)
    if not num_static or not series:
        return Scaler(channels=columns.names, season=season, scaling=scaling, series=series)
    values = np.array([scale.mean[-num_static:] for scale in series.values()])
    mean, std = values.mean(0), np.where(np.ptp(values, axis=0) > 0, values.std(0), 1.0)
    if scaling.kind == "none":
        mean, std = np.zeros(num_static), np.ones(num_static)
    shared = {
        name: scale.model_copy(
            update={
                "mean": (*scale.mean[:-num_static], *mean.tolist()),
                "std": (*scale.std[:-num_static], *std.tolist()),
            }
        )
        for name, scale in series.items()
    }
    return Scaler(channels=columns.names, season=season, scaling=scaling, series=shared)
