"""Scheduled or on-demand retraining: from a source to a model that is live if it is better."""

from pathlib import Path
from typing import NamedTuple

from prefect import flow
from prefect.artifacts import create_link_artifact, create_table_artifact
from pydantic import BaseModel, ConfigDict

from flows.classification import ClassificationSpec
from flows.classifying import TrainedClassifier, classifier_steps
from flows.preparing import Likeness, Prepared, prepare, stock_of
from flows.running import Run, few_at_once, run_of
from flows.spec import AnySpec, PipelineSpec, check_networks
from models.errors import Fault
from models.networks import FORMS, FitSettings, NetworkSpec, form_name, is_worth_trying
from models.start import check_form
from models.windows import WindowSettings
from tasks.calibrate import calibrate
from tasks.choose import choose
from tasks.ingest.chunks import Chunk
from tasks.ingest.sources import SourceSpec
from tasks.journal import StepState
from tasks.planning import Unknown, plan
from tasks.promote import Live, Promotion, may_pass, promote, read_live
from tasks.refit import refit, through
from tasks.report import Page, SetAside, Subject, publish_report, report, template_digest
from tasks.storage import Store
from tasks.train import Model, read_bundle, train
from tasks.validate import NEW_LINE, Interval, Scores, validate
from tasks.validate_classifier import ClassScores


class Trained(BaseModel):
    """What a training run did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    run_id: str
    tasks: list[StepState]
    model: str  # digest
    refitted: str | None = None  # digest of the model that is live now once it went on to all rows, and so forecasts
    through: str = ""  # the newest of these rows
    promoted: bool
    reason: str
    scores: dict[str, dict[str, dict[str, dict[str, float | None]]] | None]  # new, live, naive -> fold -> steps -> metric
    intervals: dict[str, Interval]  # of the new model on the test fold, by nominal coverage in percent
    num_series: int  # trained on
    too_short: int  # series with too few steps for the folds
    short_series: tuple[str, ...]  # theirs are the first few names
    set_aside: int  # series with faults
    faults: tuple[str, ...]  # theirs, the first few
    season: str = ""  # in words
    report: str
    forecast_table: str
    seconds: float


class Outcome(NamedTuple):
    """What the steps of a training run made."""

    model: Model
    refitted: Model | None  # the model that is live from now on, once it went on to all rows
    scores: dict[str, Scores | None]
    promotion: Promotion
    page: Page
    aside: SetAside
    season: str  # in words


@flow(name="training", persist_result=False, validate_parameters=True, task_runner=few_at_once())
def training(spec: AnySpec) -> Trained | TrainedClassifier:
    """Train a model on one source and make it live if it beats the live model and a simple rival."""
    store = Store(spec.store)
    if spec.task == "classification":
        with run_of(store) as run:
            return trained_classifier(spec, store, run)
    check_networks(spec)
    with run_of(store) as run:
        model, refitted, scores, promotion, page, aside, season = training_steps(spec, store, run)
        path = publish_report(spec.name, page, store)
        if promotion.promoted or any(entry.state != "Cached" for entry in run.tasks if entry.step != "promote"):
            show_scores(spec.name, scores, path, promotion.reason)  # a run without news leaves the last ones standing
        trained = Trained(
            name=spec.name, run_id=run.id, tasks=run.tasks, model=model.digest, promoted=promotion.promoted,
            refitted=refitted and refitted.digest, through=through(refitted or model),
            reason=promotion.reason, scores={who: own.scores if own else None for who, own in scores.items()},
            intervals=scores["new"].intervals["test"],
            num_series=model.num_series, too_short=model.too_short, short_series=short_series(model, store),
            set_aside=aside.series, faults=aside.faults[:10], season=season, report=str(path),
            forecast_table=store.forecasts, seconds=run.seconds,
        )  # fmt: skip
        store.put_document(trained.model_dump(mode="json"), "runs", f"{spec.name}.json")
        return trained


def trained_classifier(spec: ClassificationSpec, store: Store, run: Run) -> TrainedClassifier:
    """What the steps of a classifier made, put where readers find it."""
    labelled, model, refitted, scores, promotion, page = classifier_steps(spec, store, run)
    path = publish_report(spec.name, page, store)
    if promotion.promoted or any(entry.state != "Cached" for entry in run.tasks if entry.step != "promote"):
        show_class_scores(spec.name, scores, path, promotion.reason)
    trained = TrainedClassifier(
        name=spec.name, run_id=run.id, tasks=run.tasks, model=model.digest, promoted=promotion.promoted,
        refitted=refitted and refitted.digest, num_refitted=refitted.num_cases["train"] if refitted else 0,
        reason=promotion.reason, scores={who: own.scores if own else None for who, own in scores.items()},
        cross_validated=model.cross_validated, num_cases=model.num_cases, classes=labelled.classes,
        left_out=labelled.num_unlabelled, what="windows" if labelled.stream else "cases", report=str(path),
        forecast_table=str(store.root / "labels"), seconds=run.seconds,
    )  # fmt: skip
    store.put_document(trained.model_dump(mode="json"), "runs", f"{spec.name}.json")
    return trained


def short_series(model: Model, store: Store) -> tuple[str, ...]:
    """The first few of the series that were too short to train on."""
    return tuple(sorted(store.read_json(model, "history.json")["too_short"])[:5]) if model.too_short else ()


def training_steps(spec: PipelineSpec, store: Store, run: Run) -> Outcome:
    """The steps in their order; `convcast explain` walks through them too, without running any."""
    live = read_live(store, spec.name)
    check_comparable(live, spec)
    check_start(live, spec, store)
    chunks = stock_of(spec, store)
    like = likeness(live.model, store) if live and warm(spec) else None
    made = prepare(spec, spec.source, chunks, spec.windows, store, like=like)
    start = start_of(live, spec, made, store) if live and warm(spec) else None
    model = calibrated(train_forms(spec, made, store, start), spec, made, store)
    new = validate(model, made.windows, made.normalised, spec.folds, store)
    naive = validate(None, made.windows, made.normalised, spec.folds, store, label="validate_naive")
    rivals, theirs = {"seasonal naive": naive}, made
    if displaced := displaced_by(model, live):
        theirs = prepared_for(displaced, spec, chunks, made, store)
        rivals["live model"] = validate(displaced, theirs.windows, theirs.normalised, spec.folds, store, label="validate_live")
    refitted, where = None, FitSettings(device=spec.fit.device, devices=spec.fit.devices)
    if spec.refit and may_pass(model, new, rivals, spec.gate):
        refitted = refit(model, made.windows, made.normalised, spec.folds, where, store)
    elif spec.refit and live and displaced == live.model:  # it stays, and is to know the newest rows too
        refitted = refit(displaced, theirs.windows, theirs.normalised, spec.folds, where, store, label="refit_live")
    promotion = promote(spec.name, model, refitted, new, rivals, spec.gate, live, run.id, run.now, store)
    got = made.ingested
    aside = SetAside(series=got.set_aside, faults=tuple(got.faults[:20]))
    subject = subject_of(spec, made.season_said)
    page = report(subject, got.overview, got.series, aside, model, new, rivals, spec.gate, made.selection, store)
    is_live = live is not None and live.model.digest == model.digest
    scores = {"new": new, "live": new if is_live else rivals.get("live model"), "naive": naive}
    return Outcome(model, refitted, scores, promotion, page, aside, made.season_said)


def train_forms(spec: PipelineSpec, made: Prepared, store: Store, start: Model | None = None) -> Model:
    """The trained network, or, of several, what forecasts best on validation."""
    target, data = spec.source.target, (made.windows, made.normalised, spec.folds)
    begin = {"start": start} if start else {}  # so that what is live is no part of the key of a fresh training
    recipes = spec.recipes
    if len(recipes) == 1:
        network, fit = recipes[0]
        return train(*data, target, made.period, network, fit, store, **begin)
    recipes = [(network, fit) for network, fit in recipes if suits(network, spec, made)]
    # One after another: each takes all cores, and draws from the one random generator that torch has.
    named = [(network, fit, f"train_{form_name(network)}") for network, fit in recipes]
    tried = [train(*data, target, made.period, network, fit, store, label=label, **begin) for network, fit, label in named]
    return choose(tried, *data, spec.gate.metric, store)


def suits(network: NetworkSpec, spec: PipelineSpec, made: Prepared) -> bool:
    """Whether one of several forms is worth training on these data."""
    overview, windows = made.ingested.overview, made.windows
    num_series = None if isinstance(overview, Unknown) else overview.num_series
    num_known = num_windows = None
    if not any(isinstance(one, Unknown) for one in windows):
        num_known, num_windows = len(windows[0].columns.known), sum(one.num_windows for one in windows)
    return is_worth_trying(network, spec.network.forms != FORMS, num_series, num_known, num_windows)


def calibrated(model: Model, spec: PipelineSpec, made: Prepared, store: Store) -> Model:
    """The model with quantiles that hold on validation, where the spec asks for some."""
    if not spec.quantiles.levels:
        return model
    return calibrate(model, made.windows, made.normalised, spec.folds, spec.quantiles, store)


def warm(spec: PipelineSpec) -> bool:
    """Whether training begins with the weights of the live model."""
    return any(fit.init == "live" for _, fit in spec.recipes)


def likeness(model: Model, store: Store) -> Likeness:
    """What stays as it is where a training begins with this model."""
    season = read_bundle(store, model).description.scaler.season
    return Likeness(model.facts.columns, season, model.windows.lookback)


def check_start(live: Live | None, spec: PipelineSpec, store: Store) -> None:
    """Raises a Fault, before anything runs, where the one network to be trained has not the form of any that is live.

    Of several forms, one that is not live begins with fresh weights.
    """
    if live and warm(spec) and len(spec.recipes) == 1:
        check_form(read_bundle(store, live.model), spec.recipes[0][0], f"model {live.model.digest[:8]}, which is live,")


def start_of(live: Live, spec: PipelineSpec, made: Prepared, store: Store) -> Model | None:
    """The model that training starts from: the live one, or, where it was trained as it would be now, the one it displaced.

    A rerun so starts where the first run did, and finds everything cached.
    """
    token = plan.set([])
    try:
        again = calibrated(train_forms(spec, made, store, live.previous), spec, made, store)
    finally:
        plan.reset(token)
    return live.previous if not isinstance(again, Unknown) and again.digest == live.model.digest else live.model


def displaced_by(model: Model, live: Live | None) -> Model | None:
    """The model that `model` is held against: the live one, or, once it is live itself, the one whose place it took.

    A rerun so judges, and reports, exactly as the first run did.
    """
    if live is None:
        return None
    return live.previous if live.model.digest == model.digest else live.model


def prepared_for(rival: Model, spec: PipelineSpec, chunks: list[Chunk], made: Prepared, store: Store) -> Prepared:
    """Windows from the same origins in the form that an older model takes: its own covariates and lookback."""
    if made.cut is None or (rival.facts.columns, rival.windows) == (made.ingested.columns, made.cut):
        return made
    source, columns = spec.source.seen_by(rival.facts.columns), rival.facts.columns
    settings = WindowSettings.model_validate(rival.windows.model_dump())
    return prepare(spec, source, chunks, settings, store, columns, suffix="_live", season=made.season)


def check_comparable(live: Live | None, spec: PipelineSpec) -> None:
    """Raises a Fault, before anything runs, where the live model forecasts something else than this spec asks for."""
    if live is None:
        return
    if not isinstance(live.model, Model):
        raise Fault(f"The live model of {spec.name!r} classifies; this spec forecasts. {NEW_LINE}")
    pairs = {
        "source.target": (live.model.facts.target, spec.source.target),
        "source.timezone": (live.model.facts.timezone, spec.source.timezone),
        "source.frequency": (live.model.facts.frequency, spec.source.frequency or live.model.facts.frequency),
        "source.gaps or missing: 'mask'": (live.model.facts.columns.masked, spec.source.masks),
        "windows.horizon": (live.model.windows.horizon, spec.windows.horizon),
        "windows.stride": (live.model.windows.stride, spec.windows.stride),
    }
    for key, (own, found) in pairs.items():
        if own != found:
            raise Fault(f"The live model of {spec.name!r} has {key} {own}; this spec has {found}. {NEW_LINE}")


def subject_of(spec: PipelineSpec, season: str) -> Subject:
    """What the report prints of the spec: all but the places that differ from machine to machine."""
    shown = spec.model_dump(mode="json", exclude={"store": True, "forecast": True, "source": {"uri", "static_uri"}})
    return Subject(name=spec.name, file=name_of(spec.source), season=season, spec=shown, template=template_digest())


def name_of(source: SourceSpec) -> str:
    """What a report calls a source: its file, or its first and how many more there are."""
    uris = (source.uri,) if isinstance(source.uri, str) else source.uri
    return Path(uris[0]).name + (f" and {len(uris) - 1} more" if len(uris) > 1 else "")


def show_class_scores(name: str, scores: dict[str, ClassScores | None], report: Path, reason: str) -> None:
    """Put the score table of a classifier and a link to the report beside the run in Prefect's UI."""
    rows = [
        {"model": who, "fold": fold} | {metric: round(value, 6) for metric, value in values.items()}
        for who, own in scores.items()
        if own
        for fold, values in own.scores.items()
    ]
    show_rows(name, rows, report, reason)


def show_scores(name: str, scores: dict[str, Scores | None], report: Path, reason: str) -> None:
    """Put the score table and a link to the report beside the run in Prefect's UI."""
    rows = [
        {"model": who, "fold": fold, "steps": int(steps)}
        | {metric: value if value is None else round(value, 6) for metric, value in values.items()}
        for who, own in scores.items()
        if own
        for fold, by_steps in own.scores.items()
        for steps, values in by_steps.items()
    ]
    show_rows(name, rows, report, reason)


def show_rows(name: str, rows: list[dict], report: Path, reason: str) -> None:
    key = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    create_table_artifact(key=f"{key}-scores", table=rows, description=reason)
    create_link_artifact(key=f"{key}-report", link=report.absolute().as_uri(), link_text=f"Report of {name}")
