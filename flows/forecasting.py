"""Scheduled or on-demand batch forecasts: the live model on the newest data, into the forecast table."""

from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.running import run_of
from flows.spec import PipelineSpec
from models.errors import Fault
from tasks.forecast import forecast
from tasks.ingest.sources import fingerprint
from tasks.ingest.task import ingest
from tasks.policy import StepState
from tasks.promote import read_live
from tasks.storage import Store


class Forecasted(BaseModel):
    """What a forecasting run did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    run_id: str
    tasks: list[StepState]
    model: str  # digest
    forecast_table: str
    table_version: int
    rows_written: int
    num_series: int
    origins: tuple[str, ...]
    known: int  # rows whose truth is known already
    mae: float | None  # over those
    seconds: float


@flow(name="forecasting", persist_result=False, validate_parameters=True)
def forecasting(spec: PipelineSpec) -> Forecasted:
    """Forecast the horizon after the newest data, or after `forecast.origin`, with the live model."""
    store = Store(spec.store)
    with run_of(store) as run:
        live = read_live(store, spec.name)
        if live is None:
            raise Fault(f"No model of {spec.name!r} is live in {store.root}. Run convcast train first.")
        source = spec.source.seen_by(live.model.facts.columns)
        series = ingest(source, fingerprint(source), store)
        published = forecast(spec.name, live.model, series, spec.forecast.origin, run.id, run.now, store)
        return Forecasted(
            name=spec.name, run_id=run.id, tasks=run.tasks, model=live.model.digest, forecast_table=published.table,
            table_version=published.version, rows_written=published.rows, num_series=published.num_series,
            origins=published.origins, known=published.known, mae=published.mae, seconds=run.seconds,
        )  # fmt: skip
