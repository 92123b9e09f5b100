"""What a model may know of each series at an origin, and what it forecasts from that."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
import torch

from models.batches import Batch, gather
from models.bundle import Bundle
from models.conformal import FOLLOWED, shifted
from models.errors import Fault, counted, shortlist
from models.floors import in_units, raw_floors, raw_kept, scaled_floors
from models.scaling import SeriesScale, fit_scale
from tasks.ingest.calendar import Calendar
from tasks.ingest.canonical import read_tails
from tasks.ingest.statics import Statics
from tasks.ingest.task import Series
from tasks.ingest.timeline import fixed_seconds, following, grid_between, local_stamp, parse_offset, parse_timezone
from tasks.storage import Store

FEWEST = 32  # origins whose errors the quantiles of a series follow, or none are
FORECAST_AGAIN = 1 << 15  # windows of all series together that are forecast for it


@dataclass(frozen=True)
class View:
    """What a model may know of one series at its origin; channels without those that the calendar makes."""

    series_id: str
    scale: SeriesScale
    is_new: bool  # it was not there in training, and is scaled by its own history
    origin: int  # microseconds UTC
    stamps: np.ndarray  # (L,) microseconds UTC
    past: np.ndarray  # (L, C - made)
    future: np.ndarray  # (H, F - made)
    truth: np.ndarray  # (H,), NaN where it is not known; never shown to the model
    before: tuple[np.ndarray, np.ndarray]  # stamps (R,) and rows (R, C - made) up to the origin that quantiles follow


class Outlook:
    """A model about to forecast from an origin, or from the last target of each series.

    Nothing later than a series' origin is looked at, but for the future covariates of its horizon.
    """

    def __init__(
        self, bundle: Bundle, statics: Statics, origin: datetime | None, quarantine: bool = False, scored: Bundle | None = None
    ):
        """`scored` is the same model before it went on to all rows: its errors on those held out are those to follow."""
        self.scored = scored or bundle
        self.bundle, self.about, self.statics, self.quarantine = bundle, bundle.description, statics, quarantine
        facts = self.about.series
        self.columns, self.offset, self.zone = facts.columns, parse_offset(facts.frequency), parse_timezone(facts.timezone)
        self.calendar = Calendar(frequency=facts.frequency, timezone=facts.timezone)
        self.origin = None if origin is None else pd.Timestamp(origin).value // 1000
        self.set_aside: list[str] = []  # a sentence for each series that can not be forecast
        self.lacking: list[str] = []  # covariates missing over the horizon
        self.horizons: dict[int, np.ndarray] = {}  # stamps by origin
        self.followed = 0  # origins before the last that the quantiles of each series follow

    def forecast_shards(self, store: Store, shards: list[Series]) -> list[pd.DataFrame]:
        """series_id, origin, step, timestamp, forecast, quantiles, new_series and truth, a row a step; a table a shard."""
        self.followed = self.origins_followed(sum(one.num_series for one in shards))
        frames = (self.forecast_shard(store, one) for one in shards)
        return [frame for frame in frames if frame is not None]

    def forecast_shard(self, store: Store, series: Series) -> pd.DataFrame | None:
        """The forecasts of one shard; None where there are none."""
        known = store.read_json(series, "index.json")["series"]
        views = []
        for name, stamps, rows in read_tails(store, series, self.columns, self.first_needed(known)):
            if (view := self.view(name, stamps, self.statics.append(name, rows), known[name])) is not None:
                views.append(view)
        return self.forecast(views) if views else None

    def first_needed(self, known: dict[str, dict]) -> dict[str, int]:
        """From which instant on each series is read: its lookback, or all of it where it has to be scaled first."""
        seconds, scaled = fixed_seconds(self.offset), self.about.scaler.series
        needed = {}
        for name, facts in known.items():
            origin = facts["last"] if self.origin is None else self.origin
            reach = round((seconds or 0) * 1e6) * (self.about.windows.lookback + self.rows_followed)
            needed[name] = min(origin - reach, facts["last"]) if seconds and name in scaled else facts["first"]
        return needed

    def view(self, name: str, stamps: np.ndarray, rows: np.ndarray, facts: dict) -> View | None:
        """What the model may know of one series, from its stored rows (R, C - made); None, and told of, where too little."""
        lookback, horizon = self.about.windows.lookback, self.about.windows.horizon
        origin = facts["last"] if self.origin is None else self.origin
        at = int(np.searchsorted(stamps, origin))
        if at >= len(stamps) or stamps[at] != origin or origin > facts["last"]:
            self.set_aside.append(
                f"{name} has no {self.say(origin)} with a target; its targets run from {self.say(facts['first'])} to "
                f"{self.say(facts['last'])}. Choose an origin among them."
            )
            return None
        if at + 1 < lookback:
            self.set_aside.append(
                f"{name} has {counted(at + 1, 'steps')} up to its origin {self.say(origin)}; the model looks back {lookback}. "
                "Bring more rows or drop the series."
            )
            return None
        later = rows[at + 1 : at + 1 + horizon]
        future = self.future(later, rows[at])
        if holes := self.holes(name, future, origin):
            self.lacking += holes
            if self.quarantine:
                self.set_aside.append(f"{name} lacks a future covariate: {holes[0]}")
            return None
        truth = np.full(horizon, np.nan)
        truth[: len(later)] = later[:, 0] if not self.columns.masked else np.where(later[:, 1] > 0, later[:, 0], np.nan)
        scale, past = self.about.scaler.series.get(name), slice(at - lookback + 1, at + 1)
        own = scale or self.own_scale(name, rows[: at + 1])
        before = self.before(stamps[: at + 1], rows[: at + 1], scale, facts)
        return View(name, own, scale is None, origin, stamps[past], rows[past], future, truth, before)

    def origins_followed(self, num_series: int) -> int:
        """How many origins the quantiles of each of so many series can follow; 0 where they do not."""
        calibration = self.about.calibration
        if not (calibration and calibration.rolling):
            return 0
        count = min(FOLLOWED, FORECAST_AGAIN // max(num_series, 1))
        return count if count >= FEWEST else 0

    @property
    def rows_followed(self) -> int:
        """Rows from the first origin that is followed to the last."""
        cut = self.about.windows
        return self.followed and (self.followed - 1) * cut.stride + cut.horizon

    def before(
        self, stamps: np.ndarray, rows: np.ndarray, scale: SeriesScale | None, facts: dict
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of rows that end at the origin, those that quantiles follow: the newest that nothing was trained on."""
        seconds = fixed_seconds(self.offset)
        behind = round((stamps[0] - facts["first"]) / 1e6 / seconds) if seconds else 0  # rows that were not read
        trained = 0
        if scale and self.about.calibration:
            trained = scale.steps - self.scored.description.calibration.held_out - self.begins_later(scale, facts["first"])
        first = max(trained - behind, len(rows) - self.rows_followed) - self.about.windows.lookback
        first = min(max(first, 0), len(rows)) if self.followed else len(rows)
        return stamps[first:], rows[first:]

    def begins_later(self, scale: SeriesScale, first: int) -> int:
        """By how many steps a series begins later than it did when its scale was learned; less than 0 where earlier."""
        if scale.first is None or scale.first == first:
            return 0
        if seconds := fixed_seconds(self.offset):
            return round((first - scale.first) / 1e6 / seconds)
        early, late = (pd.Timestamp(one, unit="us", tz="UTC").tz_convert(self.zone) for one in sorted((first, scale.first)))
        steps = len(grid_between(early, late, self.offset)) - 1
        return steps if first > scale.first else -steps

    def own_scale(self, name: str, rows: np.ndarray) -> SeriesScale:
        """The scale of a series that was not there in training, by its own history up to the origin."""
        own = fit_scale([rows], self.columns, self.about.series.season, len(rows), len(rows), self.about.scaler.scaling)
        return self.about.scaler.adopted(own, len(self.columns.static))

    def future(self, later: np.ndarray, last: np.ndarray) -> np.ndarray:
        """What is known over the horizon (H, F - made), NaN where the source does not bring a covariate."""
        columns = self.columns
        first, own = columns.first_known, len(columns.future)
        future = np.full((self.about.windows.horizon, own + len(columns.static)), np.nan)
        future[: len(later), :own] = later[:, first : first + own]
        future[:, own:] = last[first + own :]
        return future

    def holes(self, name: str, future: np.ndarray, origin: int) -> list[str]:
        """Each covariate with a hole in the horizon, and the hole's first stamp."""
        empty = np.isnan(future)
        if not empty.any():
            return []
        names, ahead = (*self.columns.future, *self.columns.static), self.ahead(origin)
        return [
            f"{name} {names[channel]} from {self.say(ahead[int(empty[:, channel].argmax())])}"
            for channel in np.flatnonzero(empty.any(0))
        ]

    def ahead(self, origin: int) -> np.ndarray:
        """The stamps (H,) after an origin, microseconds UTC."""
        if seconds := fixed_seconds(self.offset):
            return origin + round(seconds * 1e6) * np.arange(1, self.about.windows.horizon + 1)
        if origin not in self.horizons:
            last = pd.Timestamp(origin, unit="us", tz="UTC").tz_convert(self.zone)
            self.horizons[origin] = following(last, self.about.windows.horizon, self.offset).as_unit("us").asi8
        return self.horizons[origin]

    def inputs(self, views: list[View], ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every channel of the past (N, L, C), and of what is known over the horizons (N, H, F)."""
        past, future = np.stack([one.past for one in views]), np.stack([one.future for one in views])
        if not self.columns.made:
            return past, future
        # For all series at once, since the calendar takes its time for each call.
        rows, stamps = past.reshape(-1, past.shape[2]), np.concatenate([one.stamps for one in views])
        past = self.calendar.insert(rows, stamps, self.columns).reshape(*past.shape[:2], -1)
        made = self.calendar.channels(ahead.reshape(-1), self.columns).reshape(*ahead.shape, -1)
        own = len(self.columns.future)
        return past, np.concatenate([future[:, :, :own], made, future[:, :, own:]], 2)

    def forecast(self, views: list[View]) -> pd.DataFrame:
        """The forecasts of some series, a row a step."""
        ahead = np.stack([self.ahead(one.origin) for one in views])
        past, future = self.inputs(views, ahead)
        mean, std = (np.array([getattr(one.scale, part) for one in views])[:, None] for part in ("mean", "std"))
        first, horizon = self.columns.first_known, self.about.windows.horizon
        floors = raw_kept(raw_floors(one.scale for one in views), past[:, :, 0])
        past = torch.from_numpy(((past - mean) / std).astype(np.float32))
        future = torch.from_numpy(((future - mean[:, :, first:]) / std[:, :, first:]).astype(np.float32))
        numbers = torch.tensor([self.bundle.numbers.get(one.series_id, 0) for one in views])
        mean, std = mean[:, :, 0], std[:, :, 0]
        forecast = self.bundle.forecast(past, future, numbers, torch.from_numpy(scaled_floors(floors, mean[:, 0], std[:, 0])))
        quantiles = {}
        if calibration := self.about.calibration:
            sure = self.quantiles(views, past, future, forecast) * std[:, :, None] + mean[:, :, None]
            sure = np.maximum(sure, floors[:, None, None])
            quantiles = {quantile_name(level): sure[:, :, at].reshape(-1) for at, level in enumerate(calibration.levels)}
        return pd.DataFrame(
            {
                "series_id": np.repeat([one.series_id for one in views], horizon),
                "origin": to_utc(np.repeat([one.origin for one in views], horizon)),
                "step": np.tile(np.arange(1, horizon + 1), len(views)),
                "timestamp": to_utc(ahead.reshape(-1)),
                "forecast": in_units(forecast, mean, std, floors).reshape(-1),
                **quantiles,
                "new_series": np.repeat([one.is_new for one in views], horizon),
                "truth": np.concatenate([one.truth for one in views]),
            }
        )

    def quantiles(self, views: list[View], past: torch.Tensor, future: torch.Tensor, forecast: np.ndarray) -> np.ndarray:
        """Scaled quantiles (N, H, Q): as validation left them, or as they follow the newest errors of a series."""
        around = self.bundle.quantiles(past, future, forecast)
        quantiles = shifted(around, np.array(self.about.calibration.offsets))
        for at, view in enumerate(views):
            if len(view.before[1]) >= self.about.windows.span:  # else it is one of too many, or too short to follow
                quantiles[at] = self.following(view, around[at])
        return quantiles

    def following(self, view: View, newest: np.ndarray) -> np.ndarray:
        """The scaled quantiles (H, Q) of one series, once those of each earlier origin have followed the errors known since.

        `newest` (H, Q) are those at its last origin, before any offsets.
        """
        cut, (stamps, rows) = self.about.windows, view.before
        later = np.full((cut.horizon, rows.shape[1]), np.nan)  # what is not known ahead, no window up to the origin looks at
        later[:, self.columns.first_known :] = view.future
        rows, stamps = np.concatenate([rows, later]), np.concatenate([stamps, self.ahead(view.origin)])
        if self.columns.made:
            rows = self.calendar.insert(rows, stamps, self.columns)
        scaled = torch.from_numpy(((rows - view.scale.mean) / view.scale.std).astype(np.float32))
        starts = torch.arange((len(rows) - cut.span) % cut.stride, len(rows) - cut.span + 1, cut.stride)
        batch = Batch.split(gather(scaled.contiguous(), starts, cut.span), cut.lookback, self.columns)
        number = torch.full((len(starts),), self.scored.numbers.get(view.series_id, 0))
        forecast = self.scored.forecast(batch.past, batch.future, number)
        truth = batch.target if batch.weight is None else batch.target.where(batch.weight > 0, torch.nan)
        around = self.scored.quantiles(batch.past, batch.future, forecast)
        around[-1] = newest
        return self.about.calibration.rolled(cut.stride).follow(around, truth.numpy())[-1]

    def check(self, frames: list[pd.DataFrame]) -> None:
        """Raises a Fault where covariates are missing over the horizon, or no series can be forecast at all."""
        if self.lacking and not self.quarantine:
            raise Fault(
                f"Future covariates are missing over the horizon of {self.about.windows.horizon} steps: "
                f"{shortlist(self.lacking, 10)}. Add the rows with these columns filled and the target empty, forecast from an "
                "earlier origin, or set source.quarantine to go on without these series."
            )
        if not frames:
            more = f" ({len(self.set_aside)} series, all of them for such a reason)" if len(self.set_aside) > 1 else ""
            raise Fault((self.set_aside or ["The source has no series to forecast."])[0] + more)

    def say(self, micros: int) -> str:
        return local_stamp(micros, self.zone)


def quantile_name(level: float) -> str:
    """The column of a level: q2_5, q10."""
    return "q" + f"{100 * level:.6g}".replace(".", "_")


def to_utc(micros: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.asarray(micros, np.int64).view("datetime64[us]"), tz="UTC")
