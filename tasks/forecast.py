"""Forecast the horizon after every series' origin with the live model, and publish the rows to the forecast table."""

from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError
from pydantic import BaseModel, ConfigDict

from models.bundle import Bundle
from models.errors import Fault, shortlist
from tasks.ingest.checks import num_observed
from tasks.ingest.task import Series
from tasks.ingest.timeline import calendar_columns, following, parse_offset, parse_timezone
from tasks.normalise import each_series, to_values
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
    origins: tuple[str, ...]  # distinct, oldest first, ISO 8601 on the local clock


@step(cached=False)
def forecast(
    name: str, model: Model, series: Series, origin: datetime | None, run_id: str, now: datetime, store: Store
) -> Published:
    """Forecast every series from `origin`, or from its last target, and upsert the rows into the forecast table."""
    table = pq.read_table(store.file(series, "series.parquet"), page_checksum_verification=True)
    rows = forecast_rows(read_bundle(store, model), series, table, origin)
    stamp = {"model": f"{name}@{model.digest[:12]}", "model_digest": model.digest, "run_id": run_id, "created_at": now}
    version = publish(store.forecasts, rows.assign(**stamp))
    zone = parse_timezone(series.facts.timezone)
    origins = tuple(at.tz_convert(zone).isoformat() for at in sorted(rows["origin"].unique()))
    num_series = rows["series_id"].nunique()
    return Published(table=store.forecasts, version=version, rows=len(rows), num_series=num_series, origins=origins)


def forecast_rows(bundle: Bundle, series: Series, table: pa.Table, origin: datetime | None) -> pd.DataFrame:
    """series_id, origin, step, timestamp and forecast, a row a step, for every series of a canonical table.

    Nothing later than a series' origin is looked at, but for the future covariates of its horizon.

    Raises:
        Fault: the series are not what the model was made for, too short, or lack covariates over the horizon.
    """
    about = bundle.description
    check_bundle(bundle, series)
    pasts, futures, frames, lacking = [], [], [], []
    for series_id, piece in each_series(table):
        values = to_values(piece, series.facts.columns)
        stamps = pd.DatetimeIndex(piece["timestamp"].to_numpy(), tz="UTC").tz_convert(parse_timezone(series.facts.timezone))
        last = origin_row(series_id, stamps, values, origin, about.windows.lookback)
        ahead, future = horizon_rows(series, stamps, values, last, about.windows.horizon)
        lacking += [
            (series_id, series.facts.columns.known[channel], ahead[np.flatnonzero(np.isnan(future[:, channel]))[0]])
            for channel in range(future.shape[1])
            if np.isnan(future[:, channel]).any()
        ]
        past = values[last - about.windows.lookback + 1 : last + 1]
        known = np.concatenate([np.zeros((len(future), 1 + len(series.facts.columns.past))), future], 1)
        pasts.append(about.scaler.apply(series_id, past))
        futures.append(about.scaler.apply(series_id, known)[:, 1 + len(series.facts.columns.past) :])
        steps = np.arange(1, len(ahead) + 1)
        frames.append(pd.DataFrame({"series_id": series_id, "origin": stamps[last], "step": steps, "timestamp": ahead}))
    if lacking:
        shown = shortlist([f"{series_id} {column} from {stamp.isoformat()}" for series_id, column, stamp in lacking], 10)
        raise Fault(
            f"Future covariates are missing over the horizon of {about.windows.horizon} steps: {shown}. Add the rows with "
            "these columns filled and the target empty, or forecast from an earlier origin."
        )
    scaled = bundle.forecast(torch.from_numpy(np.stack(pasts)), torch.from_numpy(np.stack(futures)))
    for frame, series_forecast in zip(frames, scaled, strict=True):
        series_id = frame["series_id"].iloc[0]
        frame["forecast"] = about.scaler.undo_target(series_id, series_forecast)
        frame["origin"] = frame["origin"].dt.tz_convert("UTC")
        frame["timestamp"] = frame["timestamp"].dt.tz_convert("UTC")
    return pd.concat(frames, ignore_index=True)


def check_bundle(bundle: Bundle, series: Series) -> None:
    """Raises a Fault where the model was trained on other columns or another frequency."""
    about = bundle.description
    for what, made_for, found in (
        ("columns", about.series.columns.names, series.facts.columns.names),
        ("frequency", about.series.frequency, series.facts.frequency),
    ):
        if made_for != found:
            raise Fault(
                f"The live model was made for {what} {made_for}; {series.facts.target} comes with {found}. Train again."
            )


def origin_row(series_id: str, stamps: pd.DatetimeIndex, values: np.ndarray, origin: datetime | None, lookback: int) -> int:
    """The row of the origin: the one asked for, or the last that has a target.

    Raises:
        Fault: the series has no target there, or fewer than `lookback` steps up to it.
    """
    observed = num_observed(values[:, 0])
    last = observed - 1
    if origin is not None:
        found = np.flatnonzero(stamps == pd.Timestamp(origin))
        if not len(found) or found[0] > last:
            raise Fault(
                f"{series_id} has no {origin.isoformat()} with a target; its targets run from {stamps[0].isoformat()} to "
                f"{stamps[last].isoformat()}. Choose an origin among them."
            )
        last = int(found[0])
    if last + 1 < lookback:
        raise Fault(
            f"{series_id} has {last + 1} steps up to its origin {stamps[last].isoformat()}; the model looks back {lookback}. "
            "Bring more rows or drop the series."
        )
    return last


def horizon_rows(
    series: Series, stamps: pd.DatetimeIndex, values: np.ndarray, last: int, horizon: int
) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """The stamps of the horizon and its future covariates (H, F), NaN where the file does not bring them."""
    num_calendar = 2 * len(series.facts.columns.calendar)
    given = values[last + 1 : last + 1 + horizon, 1 + len(series.facts.columns.past) :]
    ahead = following(stamps[last], horizon, parse_offset(series.facts.frequency))
    future = np.full((horizon, len(series.facts.columns.known)), np.nan)
    future[: len(given)] = given
    if num_calendar:  # the calendar needs no file
        future[:, -num_calendar:] = np.stack(list(calendar_columns(ahead, series.facts.columns.calendar).values()), 1)
    return ahead, future


def publish(uri: str, rows: pd.DataFrame) -> int:
    """Upsert rows by (series_id, origin, step, model) in one atomic commit; returns the table's new version.

    A reader sees all of a run's rows or none, and the same forecast published again replaces itself.
    """
    table = pa.Table.from_pandas(rows[SCHEMA.names], schema=SCHEMA, preserve_index=False)
    with speaking_of(uri):
        try:
            delta = DeltaTable(uri)
        except TableNotFoundError:
            write_deltalake(uri, SCHEMA.empty_table(), mode="ignore")
            delta = DeltaTable(uri)
        same = " AND ".join(f"old.{column} = new.{column}" for column in KEY)
        merge = delta.merge(table, predicate=same, source_alias="new", target_alias="old")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()
    return DeltaTable(uri).version()
