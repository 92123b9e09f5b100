"""A search over a spec: networks and fits are tried, the best on validation is kept. The test fold is never looked at."""

import json

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from flows.running import few_at_once, run_of
from flows.searching import Search
from flows.searching_classes import ClassSearch
from flows.searching_forecasts import ForecastSearch
from flows.spec import AnySpec
from models.classification.difference import flipped
from models.errors import Diverged
from models.knobs import Value, parse_over, value_of
from models.networks import form_name
from tasks.journal import Journal, StepState, journal
from tasks.storage import Receipt, Store
from tasks.study import Study, Tried, open_study
from tasks.watching import Stopped, watched_by


class SearchSpec(BaseModel):
    """How long to search, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(20, ge=1, description="in all, with those of earlier runs; the first is the spec as it stands")
    seed: int = Field(0, ge=0, description="of what is tried; each network is trained with the spec's own fit.seeds")
    over: tuple[str, ...] = Field((), description="settings and their values, as fit.learning_rate=1e-4..1e-1")


class Tuned(BaseModel):
    """What a search found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    run_id: str
    tasks: list[StepState]
    metric: str
    seed: int
    trials: list[Tried]
    best: Tried
    network: dict | None  # of the best; None where that is the spec as it stood
    fit: dict | None
    wanted: int  # trials in all
    interrupted: bool
    seconds: float


@flow(name="tuning", persist_result=False, validate_parameters=True, task_runner=few_at_once())
def tuning(spec: AnySpec, search: SearchSpec) -> Tuned:
    """Try networks and fits around a spec and say which is best on validation."""
    over, store = [parse_over(one) for one in search.over], Store(spec.store)
    shared = (ClassSearch if spec.task == "classification" else ForecastSearch)(spec, store, over)
    shared.check()
    with run_of(store) as run:
        shared.prepare()
        with open_study(store, spec.name, shared.made_from() | {"seed": search.seed}, search.seed) as study:
            interrupted = try_all(shared, study, search.trials)
            tried = study.tried
        best = min((one for one in tried if one.error is not None), key=lambda one: (one.error, one.trial, len(one.form)))
        network, fit = sections_of(shared, best)
        return Tuned(
            name=spec.name, run_id=run.id, tasks=run.tasks, metric=spec.gate.metric, seed=search.seed, trials=tried,
            best=best, network=network, fit=fit, wanted=search.trials, interrupted=interrupted, seconds=run.seconds,
        )  # fmt: skip


def try_all(shared: Search, study: Study, trials: int) -> bool:
    """Try until there are so many trials; whether that was interrupted once there was something to show."""
    try:
        start = try_start(shared, study)
        while (number := 1 + max(one.trial for one in study.tried)) < trials:
            try_next(shared, study, start, number, trials)
    except KeyboardInterrupt:
        if not study.tried:
            raise
        return True
    return False


def try_start(shared: Search, study: Study) -> Receipt:
    """Train the spec as it stands; of several forms, each by itself is a trial too, at no cost."""
    start = shared.train_start()
    if study.tried:
        return start
    kind = shared.spec.network.kind
    error = quietly(shared.judge, start, start).error
    several = len(shared.recipes) > 1
    found = [(Tried(trial=0, kind=kind, error=error), {}, "", {})] if several else []
    for network, fit in shared.recipes:
        model = quietly(shared.train, network, fit)
        own = quietly(shared.judge, model, start)
        tried = Tried(
            trial=0, kind=network.kind, form=form_name(network) if several else "", error=own.error,
            standard_errors=own.standard_errors,
        )  # fmt: skip
        values = {knob.name: value_of(network, fit, knob.name) for knob in shared.knobs[network.kind]}
        found.append((tried, values, shared.alike(network, fit), shared.curve(model, network, fit)))
    for tried, values, alike, curve in found:
        study.add(tried, values, shared.knobs, alike, curve)
    return start


def try_next(shared: Search, study: Study, start: Receipt, number: int, trials: int) -> None:
    """Draw settings, train with them unless that was done before, and note how good they are."""
    trial, kind, settings = study.draw(shared.knobs)
    network, said = shared.turned(shared.bases[kind][0], settings)
    fit = shared.recipe(network, said)
    trial.set_user_attr("alike", shared.alike(network, fit))
    tried = Tried(trial=number, kind=kind, settings=changed(shared, kind, settings))
    own, label = Journal(), f"trial {number} of {trials - 1}"
    history: list[dict] = []

    def watch(seed: int, entry: dict, epochs: int) -> None:
        if seed == fit.seeds[0]:
            history.append(entry)
            study.show(trial, shared.parts(history, epochs))

    try:
        with watched_by(watch):
            model = quietly(shared.train, network, fit, label=label, book=own)
        study.show(trial, shared.curve(model, network, fit), stops=False)  # of one from the cache, nobody saw them yet
        judged = quietly(shared.judge, model, start)
        tried = tried.model_copy(update={"error": judged.error, "standard_errors": judged.standard_errors})
    except (Stopped, Diverged) as end:
        tried = tried.model_copy(update={"state": "stopped" if isinstance(end, Stopped) else "diverged"})
    best = min(one.error for one in study.tried if one.error is not None)
    study.end(trial, tried)
    if (book := journal.get()) is not None:
        state = own.entries[0].state if tried.error is not None else tried.state.capitalize()
        book.note(own.entries[0].model_copy(update={"state": state, "note": describe(tried, best, shared.spec.gate.metric)}))


def quietly(step, *arguments, book: Journal | None = None, **options):
    """Call a step that a reader of the command line need not hear of by itself."""
    token = journal.set(book or Journal())
    try:
        return step(*arguments, **options)
    finally:
        journal.reset(token)


def changed(shared: Search, kind: str, settings: dict[str, Value]) -> dict[str, Value]:
    """The settings that are not what the spec as it stands has for this kind of network."""
    network, fit = shared.bases[kind]
    return {name: value for name, value in settings.items() if value != value_of(network, fit, name)}


def describe(tried: Tried, best: float, metric: str) -> str:
    """What came of a trial, in a line, by what the metric was."""
    settings = ", ".join(f"{name.partition('.')[2]} {shown(value)}" for name, value in tried.settings.items()) or "as it stood"
    if tried.error is None:
        return f"{'-':<10}{tried.kind}: {settings}"
    news = ", the best so far" if tried.error < best else ""
    return f"{flipped(tried.error, metric):<10.4g}{tried.kind}: {settings}{news}"


def shown(value: Value) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def sections_of(shared: Search, best: Tried) -> tuple[dict | None, dict | None]:
    """The sections `network` and `fit` of a spec that trains the best, as one would write them; None: as they stood."""
    if best.trial == 0 and not best.form:
        return None, None
    network = shared.bases[best.kind][0]
    if best.form:
        network = next(one for one, _ in shared.recipes if form_name(one) == best.form)
    network, said = shared.turned(network, best.settings)
    own = {name: value for name, value in network if value != getattr(type(network)(), name)}
    return {"kind": network.kind} | own, said.model_dump(mode="json", exclude_none=True)
