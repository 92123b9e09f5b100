"""Forecast the horizon after every series' origin with the live model, and publish the rows to the forecast table."""

import re
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from pydantic import BaseModel, ConfigDict

from models.bundle import Bundle
from models.errors import Fault, counted, shortlist
from models.scaling import SeriesScale, fit_scale
from tasks.ingest.calendar import Calendar
from tasks.ingest.canonical import read_tails
from tasks.ingest.statics import Statics
from tasks.ingest.task import Series
from tasks.ingest.timeline import fixed_seconds, following, parse_offset, parse_timezone
from tasks.lease import LeasedLocks
from tasks.policy import step
from tasks.storage import Store, speaking_of
from tasks.train import Model, read_bundle

SCHEMA = pa.schema(
    [
        ("series_id", pa.string()),
        ("origin", pa.timestamp("us", "UTC")),
        ("step", pa.int32()),
        ("model", pa.string()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("forecast", pa.float64()),
        ("new_series", pa.bool_()),
        ("model_digest", pa.string()),
        ("run_id", pa.string()),
        ("created_at", pa.timestamp("us", "UTC")),
    ]
)
KEY = ("series_id", "origin", "step", "model")


class Published(BaseModel):
    """What a forecast wrote, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    version: int  # of the Delta table, after the write
    rows: int
    num_series: int
    new_series: int  # of these, how many the model was not trained on
    set_aside: tuple[str, ...]  # what is wrong with series that were not forecast, the first few
    num_set_aside: int
    origins: tuple[str, ...]  # distinct, oldest first, ISO 8601 on the local clock
    known: int  # rows whose truth the source already has, as after an origin in the past
    mae: float | None  # over those


@step(cached=False)
def forecast(
    name: str,
    model: Model,
    series: list[Series],
    statics: Statics,
    origin: datetime | None,
    quarantine: bool,
    run_id: str,
    now: datetime,
    store: Store,
) -> Published:
    """Forecast every series from `origin`, or from its last target, and upsert the rows into the forecast table."""
    outlook = Outlook(read_bundle(store, model), statics, origin, quarantine)
    frames = [frame for one in series if (frame := outlook.forecast_shard(store, one)) is not None]
    outlook.check(frames)
    rows = pd.concat(frames, ignore_index=True)
    stamp = {"model": f"{name}@{model.digest[:12]}", "model_digest": model.digest, "run_id": run_id, "created_at": now}
    locks, holder = LeasedLocks(store.locks), f"{run_id}-forecast"
    locks.acquire_lock("forecasts", holder)  # Delta Lake would refuse the later of two writers; so it waits instead
    try:
        version = publish(store.forecasts, rows.assign(**stamp))
    finally:
        locks.release_lock("forecasts", holder)
    zone = parse_timezone(model.facts.timezone)
    origins = tuple(at.tz_convert(zone).isoformat() for at in sorted(rows["origin"].unique()))
    known = rows["truth"].notna()
    return Published(
        table=store.forecasts, version=version, rows=len(rows), num_series=rows["series_id"].nunique(),
        new_series=rows.loc[rows["new_series"], "series_id"].nunique(), set_aside=tuple(outlook.set_aside[:5]),
        num_set_aside=len(outlook.set_aside), origins=origins, known=int(known.sum()),
        mae=float((rows["forecast"] - rows["truth"])[known].abs().mean()) if known.any() else None,
    )  # fmt: skip


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


class Outlook:
    """A model about to forecast from an origin, or from the last target of each series.

    Nothing later than a series' origin is looked at, but for the future covariates of its horizon.
    """

    def __init__(self, bundle: Bundle, statics: Statics, origin: datetime | None, quarantine: bool = False):
        self.bundle, self.about, self.statics, self.quarantine = bundle, bundle.description, statics, quarantine
        facts = self.about.series
        self.columns, self.offset, self.zone = facts.columns, parse_offset(facts.frequency), parse_timezone(facts.timezone)
        self.calendar = Calendar(frequency=facts.frequency, timezone=facts.timezone)
        self.origin = None if origin is None else pd.Timestamp(origin).value // 1000
        self.set_aside: list[str] = []  # a sentence for each series that can not be forecast
        self.lacking: list[str] = []  # covariates missing over the horizon
        self.horizons: dict[int, np.ndarray] = {}  # stamps by origin

    def forecast_shard(self, store: Store, series: Series) -> pd.DataFrame | None:
        """series_id, origin, step, timestamp, forecast, new_series and truth, a row a step; None where nothing can be."""
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
            reach = round((seconds or 0) * 1e6) * self.about.windows.lookback
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
        return View(name, own, scale is None, origin, stamps[past], rows[past], future, truth)

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
        past = ((past - mean) / std).astype(np.float32)
        future = ((future - mean[:, :, first:]) / std[:, :, first:]).astype(np.float32)
        numbers = torch.tensor([self.bundle.numbers.get(one.series_id, 0) for one in views])
        scaled = self.bundle.forecast(torch.from_numpy(past), torch.from_numpy(future), numbers)
        return pd.DataFrame(
            {
                "series_id": np.repeat([one.series_id for one in views], horizon),
                "origin": to_utc(np.repeat([one.origin for one in views], horizon)),
                "step": np.tile(np.arange(1, horizon + 1), len(views)),
                "timestamp": to_utc(ahead.reshape(-1)),
                "forecast": (scaled * std[:, :, 0] + mean[:, :, 0]).reshape(-1),
                "new_series": np.repeat([one.is_new for one in views], horizon),
                "truth": np.concatenate([one.truth for one in views]),
            }
        )

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
        return pd.Timestamp(int(micros), unit="us", tz="UTC").tz_convert(self.zone).isoformat()


def to_utc(micros: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.asarray(micros, np.int64).view("datetime64[us]"), tz="UTC")


def publish(uri: str, rows: pd.DataFrame) -> int:
    """Upsert rows by (series_id, origin, step, model) in one atomic commit; returns the table's new version.

    A reader sees all of a run's rows or none, and the same forecast published again replaces itself.
    """
    table = pa.Table.from_pandas(rows[SCHEMA.names], schema=SCHEMA, preserve_index=False)
    same = " AND ".join(f"old.{column} = new.{column}" for column in KEY)
    try:
        with speaking_of(uri):
            if not DeltaTable.is_deltatable(uri):
                write_deltalake(uri, SCHEMA.empty_table(), mode="ignore")
            add_columns(uri)
            merge = DeltaTable(uri).merge(table, predicate=same, source_alias="new", target_alias="old")
            merge.when_matched_update_all().when_not_matched_insert_all().execute()
            return DeltaTable(uri).version()
    except CommitFailedError:  # another writer came first; worth another try
        raise
    except (DeltaError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        said = re.sub(r"\x1b\[[0-9;]*m|↳", "", str(error)).strip().splitlines()[-1].strip()
        raise Fault(f"Can not write {uri}: {said}. The table is as it was. Make room, or mend or move the folder.") from error


def add_columns(uri: str) -> None:
    """Give a table of an earlier version the columns that it lacks; its rows have no value there."""
    table = DeltaTable(uri)
    present = {field.name for field in table.schema().fields}
    lacking = [pa.field(field.name, field.type) for field in SCHEMA if field.name not in present]
    if lacking:
        table.alter.add_columns(Schema.from_arrow(pa.schema(lacking)).fields)
