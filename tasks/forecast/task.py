"""Forecast the horizon after every series' origin with the live model, and publish the rows to the forecast table."""

from datetime import datetime

import pandas as pd
from pydantic import BaseModel, ConfigDict

from tasks.forecast.outlook import Outlook
from tasks.forecast.table import publish
from tasks.ingest.statics import Statics
from tasks.ingest.task import Series
from tasks.ingest.timeline import parse_timezone
from tasks.lease import LeasedLocks
from tasks.policy import step
from tasks.storage import Store
from tasks.train import Model, read_bundle


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
    scored: Model,
    series: list[Series],
    statics: Statics,
    origin: datetime | None,
    quarantine: bool,
    run_id: str,
    now: datetime,
    store: Store,
) -> Published:
    """Forecast every series from `origin`, or from its last target, and upsert the rows into the forecast table.

    Args:
        scored: the model as it was when its newest rows were held out, whose errors quantiles follow; `model` itself, where
            it did not go on to these.
    """
    bundle = read_bundle(store, model)
    outlook = Outlook(bundle, statics, origin, quarantine, None if scored == model else read_bundle(store, scored))
    frames = outlook.forecast_shards(store, series)
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
