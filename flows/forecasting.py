"""Scheduled or on-demand batch forecasts: the live model on the newest data, into the forecast table."""

from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.classifying import Labelling, label_steps
from flows.ingesting import ingest_source
from flows.running import few_at_once, run_of
from flows.spec import AnySpec, PipelineSpec
from models.errors import Fault
from models.series import SeriesFacts
from tasks.forecast.task import forecast
from tasks.ingest.chunks import take_stock
from tasks.ingest.shards import Overview
from tasks.ingest.sources import SourceSpec
from tasks.journal import StepState
from tasks.promote import Live, read_live
from tasks.storage import Store
from tasks.train import Model


class Forecasted(BaseModel):
    """What a forecasting run did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    run_id: str
    tasks: list[StepState]
    model: str  # digest
    as_scored: bool  # it is not the one that forecasts from the newest rows, as that knows what came after the origin
    forecast_table: str
    table_version: int
    rows_written: int
    num_series: int
    new_series: int  # of these, how many the model was not trained on
    set_aside: int  # series that were not forecast
    faults: tuple[str, ...]  # why, the first few
    origins: tuple[str, ...]
    known: int  # rows whose truth is known already
    mae: float | None  # over those
    seconds: float


@flow(name="forecasting", persist_result=False, validate_parameters=True, task_runner=few_at_once())
def forecasting(spec: AnySpec) -> Forecasted | Labelling:
    """Forecast the horizon after the newest data, or after `forecast.origin`, or label cases, with the live model."""
    store = Store(spec.store)
    with run_of(store) as run:
        if spec.task == "classification":
            return label_steps(spec, store, run)
        live = read_live(store, spec.name)
        if live is None:
            raise Fault(f"No model of {spec.name!r} is live in {store.root}. Run convcast train first.")
        check_forecasts(live, spec.name)
        facts = live.model.facts
        check_same_source(facts, spec.source)
        check_same_horizon(live.model.windows.horizon, spec)
        source = spec.source.seen_by(facts.columns)  # whatever else the spec names need not be there any more
        got = ingest_source(source, take_stock(source, store.downloads), store, facts.columns)
        check_same_frequency(facts, spec.source, got.overview)
        settings = (got.statics, spec.forecast.origin, spec.source.quarantine)
        model = live.forecaster(spec.forecast.origin)
        published = forecast(spec.name, model, live.model, got.series, *settings, run.id, run.now, store)
        return Forecasted(
            name=spec.name, run_id=run.id, tasks=run.tasks, model=model.digest, as_scored=model != live.forecaster(),
            forecast_table=published.table, table_version=published.version, rows_written=published.rows,
            num_series=published.num_series, new_series=published.new_series,
            set_aside=got.set_aside + published.num_set_aside, faults=(*got.faults, *published.set_aside)[:10],
            origins=published.origins, known=published.known, mae=published.mae, seconds=run.seconds,
        )  # fmt: skip


def check_forecasts(live: Live, name: str) -> None:
    """Raises a Fault where the live model is a classifier."""
    if not isinstance(live.model, Model):
        raise Fault(f"The live model of {name!r} classifies; this spec forecasts. Give the spec another name and train.")


def check_same_source(facts: SeriesFacts, source: SourceSpec) -> None:
    """Raises a Fault, before anything is read, where the live model was made for another target, clock or kind of repair."""
    for what, made_for, found in (
        ("source.target", facts.target, source.target),
        ("source.timezone", facts.timezone, source.timezone),
        ("source.gaps or missing: 'mask'", facts.columns.masked, source.masks),
    ):
        if made_for != found:
            raise Fault(f"The live model was made for {what} {made_for}; {source.target} comes with {found}. Train again.")


def check_same_horizon(made_for: int, spec: PipelineSpec) -> None:
    """Raises a Fault where the live model forecasts more steps than the spec asks for, or fewer."""
    if made_for != spec.windows.horizon:
        raise Fault(
            f"The live model of {spec.name!r} has windows.horizon {made_for}; this spec has {spec.windows.horizon}. "
            f"Put {made_for} back, or give the spec another name and train."
        )


def check_same_frequency(facts: SeriesFacts, source: SourceSpec, overview: Overview) -> None:
    """Raises a Fault where the live model was made for another frequency."""
    if facts.frequency != overview.frequency:
        found = overview.frequency
        raise Fault(
            f"The live model was made for frequency {facts.frequency}; {source.target} comes with {found}. Train again."
        )
