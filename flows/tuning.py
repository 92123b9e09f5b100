"""A search over a spec: networks and fits are tried, the best on validation is kept. The test fold is never looked at."""

import json
from dataclasses import dataclass
from functools import cached_property

import torch
from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from flows.preparing import Prepared, prepare, stock_of
from flows.running import few_at_once, run_of
from flows.spec import PipelineSpec, check_networks
from flows.training import train_forms
from models.errors import Diverged, Fault
from models.knobs import Knob, Value, check_names, has, overridden, parse_over, turned, usual_knobs, value_of
from models.networks import NetworkSpec, build_network, form_name, recipe, tells_apart
from models.specs import FitSpec
from models.training import num_steps
from tasks.journal import Journal, StepState, journal
from tasks.judge import judge
from tasks.storage import Store
from tasks.study import Study, Tried, open_study, parts_of
from tasks.train import Model, train
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


@dataclass
class Search:
    """What every trial of a search shares."""

    spec: PipelineSpec
    made: Prepared
    store: Store
    over: list[Knob]

    @cached_property
    def recipes(self) -> list[tuple[NetworkSpec, FitSpec]]:
        """What the spec as it stands trains."""
        alone = self.made.ingested.overview.num_series == 1
        every = self.spec.recipes
        return [(network, fit) for network, fit in every if not (len(every) > 1 and alone and tells_apart(network))]

    @cached_property
    def bases(self) -> dict[str, tuple[NetworkSpec, FitSpec]]:
        """By kind of network, what its trials start from."""
        bases: dict[str, tuple[NetworkSpec, FitSpec]] = {}
        for network, fit in self.recipes:
            bases.setdefault(network.kind, (network, fit))
        return bases

    @cached_property
    def knobs(self) -> dict[str, list[Knob]]:
        """By kind of network, what is turned."""
        season, num_series = self.season, self.made.ingested.overview.num_series
        knobs = {}
        for kind, (network, fit) in self.bases.items():
            usual = usual_knobs(network, fit, season, self.made.cut.lookback, num_series)
            for form, own in self.recipes:
                usual = [knob.with_value(value_of(form, own, knob.name)) for knob in usual] if form.kind == kind else usual
            fitting = [self.fitting(network, knob) for knob in usual]
            knobs[kind] = overridden(fitting, self.over, network)
            for knob in self.over:
                if has(network, knob.name):
                    for value in knob.ends():
                        self.build(turned(network, self.spec.fit, {knob.name: value})[0])
        return knobs

    def fitting(self, network: NetworkSpec, knob: Knob) -> Knob:
        """The knob without those choices that the windows have no room for."""
        if knob.name != "network.lookback":
            return knob
        return knob.model_copy(update={"choices": tuple(one for one in knob.choices if self.fits(network, {knob.name: one}))})

    def fits(self, network: NetworkSpec, settings: dict[str, Value]) -> bool:
        try:
            self.build(turned(network, self.spec.fit, settings)[0])
        except Fault:
            return False
        return True

    def build(self, network: NetworkSpec) -> None:
        """Raises a Fault where a network does not fit the windows and columns."""
        with torch.device("meta"):  # shapes only, no memory
            build_network(network, self.made.windows[0].columns, self.made.cut, self.season)

    @property
    def season(self) -> int:
        return self.made.period

    @property
    def data(self) -> tuple:
        return self.made.windows, self.made.normalised, self.spec.folds

    @property
    def trained_on(self) -> tuple:
        return *self.data, self.spec.source.target, self.made.period

    def made_from(self) -> dict:
        """What a study is good for: the same data, networks, code, metric and knobs."""
        keys = []
        for network, fit in self.recipes:
            bound = train.signature.bind(*self.trained_on, network, fit, self.store)
            keys.append(train.call(bound.arguments).key)
        knobs = {kind: [knob.model_dump(mode="json") for knob in own] for kind, own in self.knobs.items()}
        return {"trained": keys, "metric": self.spec.gate.metric, "knobs": knobs}

    def judge(self, model: Model, start: Model):
        return judge(model, start, *self.data, self.spec.gate.metric, self.store)

    def curve(self, model: Model, network: NetworkSpec, fit: FitSpec) -> dict[int, float]:
        """Validation losses of the first seed's training, by part."""
        curves = self.store.read_json(model, "history.json")["curves"]
        history = next(one["epochs"] for one in curves if one["form"] == form_name(network) and one["seed"] == fit.seeds[0])
        total, per_epoch = num_steps(fit, model.num_windows["train"])
        return parts_of(history, -(-total // per_epoch))


@flow(name="tuning", persist_result=False, validate_parameters=True, task_runner=few_at_once())
def tuning(spec: PipelineSpec, search: SearchSpec) -> Tuned:
    """Try networks and fits around a spec and say which forecasts best on validation."""
    check_loss(spec)
    over = [parse_over(one) for one in search.over]
    check_names(over, [network for network, _ in spec.recipes])
    check_networks(spec)
    store = Store(spec.store)
    with run_of(store) as run:
        shared = Search(spec, prepare(spec, spec.source, stock_of(spec, store), spec.windows, store), store, over)
        with open_study(store, spec.name, shared.made_from() | {"seed": search.seed}, search.seed) as study:
            interrupted = try_all(shared, study, search.trials)
            tried = study.tried
        best = min((one for one in tried if one.error is not None), key=lambda one: (one.error, one.trial, len(one.form)))
        network, fit = sections_of(shared, best)
        return Tuned(
            name=spec.name, run_id=run.id, tasks=run.tasks, metric=spec.gate.metric, seed=search.seed, trials=tried,
            best=best, network=network, fit=fit, wanted=search.trials, interrupted=interrupted, seconds=run.seconds,
        )  # fmt: skip


def check_loss(spec: PipelineSpec) -> None:
    """Raises a Fault where the forecasts are not what a search could judge."""
    if any(fit.loss == "quantile" for _, fit in spec.recipes):
        raise Fault(
            f"fit.loss is 'quantile'; a search goes by {spec.gate.metric.upper()}, which would lead away from that quantile. "
            "Search with another loss, and set fit.loss and fit.level in the spec that is written."
        )


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


def try_start(shared: Search, study: Study) -> Model:
    """Train the spec as it stands; of several forms, each by itself is a trial too, at no cost."""
    start = train_forms(shared.spec, shared.made, shared.store)
    if study.tried:
        return start
    kind = shared.spec.network.kind
    error = quietly(shared.judge, start, start).error
    several = len(shared.recipes) > 1
    found = [(Tried(trial=0, kind=kind, error=error), {}, "", {})] if several else []
    for network, fit in shared.recipes:
        model = quietly(train, *shared.trained_on, network, fit, shared.store)
        own = quietly(shared.judge, model, start)
        tried = Tried(
            trial=0, kind=network.kind, form=form_name(network) if several else "", error=own.error,
            standard_errors=own.standard_errors,
        )  # fmt: skip
        values = {knob.name: value_of(network, fit, knob.name) for knob in shared.knobs[network.kind]}
        found.append((tried, values, alike_of(network, fit), shared.curve(model, network, fit)))
    for tried, values, alike, curve in found:
        study.add(tried, values, shared.knobs, alike, curve)
    return start


def try_next(shared: Search, study: Study, start: Model, number: int, trials: int) -> None:
    """Draw settings, train with them unless that was done before, and note how good they are."""
    trial, kind, settings = study.draw(shared.knobs)
    network, said = turned(shared.bases[kind][0], shared.spec.fit, settings)
    fit = recipe(network, said)
    trial.set_user_attr("alike", alike_of(network, fit))
    tried = Tried(trial=number, kind=kind, settings=changed(shared, kind, settings))
    own, label = Journal(), f"trial {number} of {trials - 1}"
    history: list[dict] = []

    def watch(seed: int, entry: dict, epochs: int) -> None:
        if seed == fit.seeds[0]:
            history.append(entry)
            study.show(trial, parts_of(history, epochs))

    try:
        with watched_by(watch):
            model = quietly(train, *shared.trained_on, network, fit, shared.store, label=label, book=own)
        study.show(trial, shared.curve(model, network, fit), stops=False)  # of one from the cache, nobody saw them yet
        judged = quietly(shared.judge, model, start)
        tried = tried.model_copy(update={"error": judged.error, "standard_errors": judged.standard_errors})
    except (Stopped, Diverged) as end:
        tried = tried.model_copy(update={"state": "stopped" if isinstance(end, Stopped) else "diverged"})
    best = min(one.error for one in study.tried if one.error is not None)
    study.end(trial, tried)
    if (book := journal.get()) is not None:
        state = own.entries[0].state if tried.error is not None else tried.state.capitalize()
        book.note(own.entries[0].model_copy(update={"state": state, "note": describe(tried, best)}))


def quietly(step, *arguments, book: Journal | None = None, **options):
    """Call a step that a reader of the command line need not hear of by itself."""
    token = journal.set(book or Journal())
    try:
        return step(*arguments, **options)
    finally:
        journal.reset(token)


def alike_of(network: NetworkSpec, fit: FitSpec) -> str:
    """Trainings of the same mark can be compared while they are on their way."""
    return json.dumps([network.kind, fit.loss, fit.schedule])


def changed(shared: Search, kind: str, settings: dict[str, Value]) -> dict[str, Value]:
    """The settings that are not what the spec as it stands has for this kind of network."""
    network, fit = shared.bases[kind]
    return {name: value for name, value in settings.items() if value != value_of(network, fit, name)}


def describe(tried: Tried, best: float) -> str:
    """What came of a trial, in a line."""
    settings = ", ".join(f"{name.partition('.')[2]} {shown(value)}" for name, value in tried.settings.items())
    if tried.error is None:
        return f"{'-':<10}{tried.kind}: {settings}"
    return f"{tried.error:<10.4g}{tried.kind}: {settings}" + (", the best so far" if tried.error < best else "")


def shown(value: Value) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def sections_of(shared: Search, best: Tried) -> tuple[dict | None, dict | None]:
    """The sections `network` and `fit` of a spec that trains the best, as one would write them; None: as they stood."""
    if best.trial == 0 and not best.form:
        return None, None
    network = shared.bases[best.kind][0]
    said = shared.spec.fit
    if best.form:
        network = next(one for one, _ in shared.recipes if form_name(one) == best.form)
    network, said = turned(network, said, best.settings)
    own = {name: value for name, value in network if value != getattr(type(network)(), name)}
    return {"kind": network.kind} | own, said.model_dump(mode="json", exclude_none=True)
