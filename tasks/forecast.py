"""Forecast the horizon after every series' origin with the live model, and publish the rows to the forecast table."""

import re
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from pydantic import BaseModel, ConfigDict

from models.bundle import Bundle
from models.errors import Fault, shortlist
from models.windows import Columns
from tasks.ingest.checks import num_observed
from tasks.ingest.task import Series
from tasks.ingest.timeline import calendar_columns, following, parse_offset, parse_timezone
from tasks.lease import LeasedLocks
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
    known: int  # rows whose truth the source already has, as after an origin in the past
    mae: float | None  # over those


@step(cached=False)
def forecast(
    name: str, model: Model, series: Series, origin: datetime | None, run_id: str, now: datetime, store: Store
) -> Published:
    """Forecast every series from `origin`, or from its last target, and upsert the rows into the forecast table."""
    table = pq.read_table(store.file(series, "series.parquet"), page_checksum_verification=True)
    rows = forecast_rows(read_bundle(store, model), series, table, origin)
    stamp = {"model": f"{name}@{model.digest[:12]}", "model_digest": model.digest, "run_id": run_id, "created_at": now}
    locks, holder = LeasedLocks(store.locks), f"{run_id}-forecast"
    locks.acquire_lock("forecasts", holder)  # Delta Lake would refuse the later of two writers; so it waits instead
    try:
        version = publish(store.forecasts, rows.assign(**stamp))
    finally:
        locks.release_lock("forecasts", holder)
    zone = parse_timezone(series.facts.timezone)
    origins = tuple(at.tz_convert(zone).isoformat() for at in sorted(rows["origin"].unique()))
    known = rows["truth"].notna()
    return Published(
        table=store.forecasts, version=version, rows=len(rows), num_series=rows["series_id"].nunique(), origins=origins,
        known=int(known.sum()), mae=float((rows["forecast"] - rows["truth"])[known].abs().mean()) if known.any() else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Outlook:
    """What a model may know of one series at its origin."""

    series_id: str
    origin: pd.Timestamp  # local
    ahead: pd.DatetimeIndex  # the stamps of the horizon, local
    past: np.ndarray  # (L, C)
    future: np.ndarray  # (H, F), NaN where the source does not bring a covariate
    truth: np.ndarray  # (H,), NaN where it is not known; never shown to the model


def forecast_rows(bundle: Bundle, series: Series, table: pa.Table, origin: datetime | None) -> pd.DataFrame:
    """series_id, origin, step, timestamp, forecast and truth, a row a step, for every series of a canonical table.

    Nothing later than a series' origin is looked at, but for the future covariates of its horizon.

    Raises:
        Fault: the series are not what the model was made for, too short, or lack covariates over the horizon.
    """
    check_bundle(bundle, series)
    outlooks = [outlook(series_id, piece, series, bundle, origin) for series_id, piece in each_series(table)]
    check_future(outlooks, series.facts.columns, bundle.description.windows.horizon)
    scaler, first_future = bundle.description.scaler, 1 + len(series.facts.columns.past)
    pasts = np.stack([scaler.apply(one.series_id, one.past) for one in outlooks])
    # Scalers take whole rows: the channels that are not known ahead are put in as zeros and cut off again.
    rows = [np.pad(one.future, ((0, 0), (first_future, 0))) for one in outlooks]
    futures = np.stack([scaler.apply(one.series_id, row) for one, row in zip(outlooks, rows, strict=True)])
    scaled = bundle.forecast(torch.from_numpy(pasts), torch.from_numpy(futures[:, :, first_future:]))
    frames = [
        pd.DataFrame(
            {
                "series_id": one.series_id,
                "origin": one.origin.tz_convert("UTC"),
                "step": np.arange(1, len(one.ahead) + 1),
                "timestamp": one.ahead.tz_convert("UTC"),
                "forecast": scaler.undo_target(one.series_id, own),
                "truth": one.truth,
            }
        )
        for one, own in zip(outlooks, scaled, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def outlook(series_id: str, piece: pa.Table, series: Series, bundle: Bundle, origin: datetime | None) -> Outlook:
    """What the model may know of one series at `origin`, or at its last target.

    Raises:
        Fault: the series has no such origin, or too few steps before it.
    """
    lookback, horizon = bundle.description.windows.lookback, bundle.description.windows.horizon
    values = to_values(piece, series.facts.columns)
    stamps = pd.DatetimeIndex(piece["timestamp"].to_numpy(), tz="UTC").tz_convert(parse_timezone(series.facts.timezone))
    last = origin_row(series_id, stamps, values, origin, lookback)
    ahead, future = horizon_rows(series, stamps, values, last, horizon)
    truth = np.full(horizon, np.nan)
    later = values[last + 1 : last + 1 + horizon, 0]
    truth[: len(later)] = later
    return Outlook(series_id, stamps[last], ahead, values[last - lookback + 1 : last + 1], future, truth)


def check_future(outlooks: list[Outlook], columns: Columns, horizon: int) -> None:
    """Raises a Fault that names each series and future covariate with a hole in the horizon, and the hole's first stamp."""
    lacking = [
        f"{one.series_id} {columns.known[channel]} from {one.ahead[holes[0]].isoformat()}"
        for one in outlooks
        for channel in range(one.future.shape[1])
        if len(holes := np.flatnonzero(np.isnan(one.future[:, channel])))
    ]
    if lacking:
        raise Fault(
            f"Future covariates are missing over the horizon of {horizon} steps: {shortlist(lacking, 10)}. Add the rows with "
            "these columns filled and the target empty, or forecast from an earlier origin."
        )


def check_bundle(bundle: Bundle, series: Series) -> None:
    """Raises a Fault where the model was trained on other columns or another frequency."""
    about = bundle.description
    for what, made_for, found in (
        ("source.target", about.series.target, series.facts.target),
        ("source.timezone", about.series.timezone, series.facts.timezone),
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
    same = " AND ".join(f"old.{column} = new.{column}" for column in KEY)
    try:
        with speaking_of(uri):
            if not DeltaTable.is_deltatable(uri):
                write_deltalake(uri, SCHEMA.empty_table(), mode="ignore")
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
