"""Scheduled or on-demand retraining: from a source to a model that is live if it is better."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.running import Run, run_of, show_scores
from flows.spec import PipelineSpec
from models.errors import Fault
from models.windows import WindowSpec
from tasks.ingest.sources import SourceFile, SourceSpec, fingerprint
from tasks.ingest.task import Series, ingest
from tasks.ingest.timeline import parse_timezone
from tasks.normalise import normalise
from tasks.policy import StepState
from tasks.promote import Live, Promotion, promote, read_live
from tasks.report import Page, Subject, publish_report, report, template_folder
from tasks.storage import Store
from tasks.train import Model, train
from tasks.validate import NEW_LINE, Scores, validate
from tasks.windows import Windows, materialise_windows


class Trained(BaseModel):
    """What a training run did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    run_id: str
    tasks: list[StepState]
    model: str  # digest
    promoted: bool
    reason: str
    scores: dict[str, dict[str, dict[str, dict[str, float | None]]] | None]  # new, live, naive -> fold -> steps -> metric
    report: str
    forecast_table: str
    seconds: float


class Outcome(NamedTuple):
    """What the steps of a training run made."""

    model: Model
    scores: dict[str, Scores | None]
    promotion: Promotion
    page: Page


@flow(name="training", persist_result=False, validate_parameters=True)
def training(spec: PipelineSpec) -> Trained:
    """Train a forecaster on one source and make it live if it beats the live model and seasonal naive."""
    store = Store(spec.store)
    with run_of(store) as run:
        model, scores, promotion, page = training_steps(spec, store, run)
        path = publish_report(spec.name, page, store)
        if promotion.promoted or any(entry.state != "Cached" for entry in run.tasks if entry.step != "promote"):
            show_scores(spec.name, scores, path, promotion.reason)  # a run without news leaves the last ones standing
        trained = Trained(
            name=spec.name, run_id=run.id, tasks=run.tasks, model=model.digest, promoted=promotion.promoted,
            reason=promotion.reason, scores={who: own.scores if own else None for who, own in scores.items()},
            report=str(path), forecast_table=store.forecasts, seconds=run.seconds,
        )  # fmt: skip
        store.put_document(trained.model_dump(mode="json"), "runs", f"{spec.name}.json")
        return trained


def training_steps(spec: PipelineSpec, store: Store, run: Run) -> Outcome:
    """The steps in their order; `convcast explain` walks through them too, without running any."""
    live = read_live(store, spec.name)
    check_comparable(live, spec)
    file = fingerprint(spec.source)  # once, so that all that follows is made from the same bytes
    series, windows = prepare(spec, spec.source, file, spec.windows, store)
    model = train(windows, spec.network, spec.fit, store)
    new = validate(model, windows, store)
    naive = validate(None, windows, store, label="validate_naive")
    rivals = {"seasonal naive": naive}
    if displaced := displaced_by(model, live):
        theirs = windows_for(displaced, spec, file, windows, store)
        rivals["live model"] = validate(displaced, theirs, store, label="validate_live")
    promotion = promote(spec.name, model, new, rivals, spec.gate, live, run.id, run.now, store)
    page = report(subject_of(spec), series, windows, model, new, rivals, spec.gate, store)
    is_live = live is not None and live.model.digest == model.digest
    return Outcome(model, {"new": new, "live": new if is_live else rivals.get("live model"), "naive": naive}, promotion, page)


def prepare(
    spec: PipelineSpec, source: SourceSpec, file: SourceFile, cut: WindowSpec, store: Store, suffix: str = ""
) -> tuple[Series, Windows]:
    """From a source to its windows, in three steps."""
    series = ingest(source, file, store, label=f"ingest{suffix}")
    season = spec.season or series.facts.season
    normalised = normalise(series, spec.scaling, spec.folds, season, store, label=f"normalise{suffix}")
    windows = materialise_windows(normalised, cut, spec.folds, store, label=f"materialise_windows{suffix}")
    return series, windows


def displaced_by(model: Model, live: Live | None) -> Model | None:
    """The model that `model` is held against: the live one, or, once it is live itself, the one whose place it took.

    A rerun so judges, and reports, exactly as the first run did.
    """
    if live is None:
        return None
    return live.previous if live.model.digest == model.digest else live.model


def windows_for(rival: Model, spec: PipelineSpec, file: SourceFile, windows: Windows, store: Store) -> Windows:
    """Windows from the same origins in the form that an older model takes: its own covariates and lookback."""
    if (rival.facts.columns, rival.windows) == (spec.source.columns, spec.windows):
        return windows
    return prepare(spec, spec.source.seen_by(rival.facts.columns), file, rival.windows, store, suffix="_live")[1]


def check_comparable(live: Live | None, spec: PipelineSpec) -> None:
    """Raises a Fault, before anything runs, where the live model forecasts something else than this spec asks for."""
    if live is None:
        return
    pairs = {
        "source.target": (live.model.facts.target, spec.source.target),
        "source.timezone": (live.model.facts.timezone, str(parse_timezone(spec.source.timezone))),
        "source.frequency": (live.model.facts.frequency, spec.source.frequency or live.model.facts.frequency),
        "windows.horizon": (live.model.windows.horizon, spec.windows.horizon),
        "windows.stride": (live.model.windows.stride, spec.windows.stride),
    }
    for key, (own, found) in pairs.items():
        if own != found:
            raise Fault(f"The live model of {spec.name!r} has {key} {own}; this spec has {found}. {NEW_LINE}")


def subject_of(spec: PipelineSpec) -> Subject:
    """What the report prints of the spec: all but the places that differ from machine to machine."""
    shown = spec.model_dump(mode="json", exclude={"store": True, "forecast": True, "source": {"uri"}})
    template = hashlib.sha256((template_folder() / "report.html.jinja").read_bytes()).hexdigest()
    return Subject(name=spec.name, file=Path(spec.source.uri).name, spec=shown, template=template)
