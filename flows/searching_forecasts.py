"""A search for networks and fits that forecast better."""

import json
from dataclasses import dataclass, field
from functools import cached_property

import torch

from flows.preparing import Prepared, prepare, stock_of
from flows.searching import Search
from flows.spec import check_networks
from flows.training import suits, train_forms
from models.errors import Fault
from models.knobs import Knob, Value, turnable, usual_knobs
from models.networks import FitSettings, NetworkSpec, build_network, form_name, recipe
from models.specs import FitSpec
from models.training import num_steps
from tasks.judge import Judged, judge
from tasks.study import parts_of
from tasks.train import Model, train


@dataclass
class ForecastSearch(Search):
    """What every trial of a search for a better forecast shares."""

    made: Prepared = field(init=False)

    learner, recipe = train, staticmethod(recipe)

    def check(self) -> None:
        if any(fit.loss == "quantile" for _, fit in self.spec.recipes):
            raise Fault(
                f"fit.loss is 'quantile'; a search goes by {self.spec.gate.metric.upper()}, which would lead away from that "
                "quantile. Search with another loss, and set fit.loss and fit.level in the spec that is written."
            )
        super().check()
        check_networks(self.spec)

    def prepare(self) -> None:
        spec, store = self.spec, self.store
        self.made = prepare(spec, spec.source, stock_of(spec, store), spec.windows, store)

    @cached_property
    def recipes(self) -> list[tuple[NetworkSpec, FitSpec]]:
        every = self.spec.recipes
        return every if len(every) == 1 else [pair for pair in every if suits(pair[0], self.spec, self.made)]

    @property
    def data(self) -> tuple:
        return self.made.windows, self.made.normalised, self.spec.folds

    @property
    def trained_on(self) -> tuple:
        return *self.data, self.spec.source.target, self.made.period

    def train_start(self) -> Model:
        return train_forms(self.spec, self.made, self.store)

    def judge(self, model: Model, start: Model) -> Judged:
        return judge(model, start, *self.data, self.spec.gate.metric, self.store)

    def curve(self, model: Model, network: NetworkSpec, fit: FitSpec) -> dict[int, float]:
        curves = self.store.read_json(model, "history.json")["curves"]
        history = next(one["epochs"] for one in curves if one["form"] == form_name(network) and one["seed"] == fit.seeds[0])
        total, per_epoch = num_steps(fit, model.num_windows["train"])
        return parts_of(history, -(-total // per_epoch))

    def alike(self, network: NetworkSpec, fit: FitSpec) -> str:
        return json.dumps([network.kind, fit.loss, fit.schedule])

    def turnable(self, network: NetworkSpec) -> list[str]:
        return turnable(network)

    def usual(self, network: NetworkSpec, fit: FitSpec) -> list[Knob]:
        """The usual knobs, without those lookbacks that the windows have no room for."""
        num_series = self.made.ingested.overview.num_series
        every = usual_knobs(network, fit, self.made.period, self.made.cut.lookback, num_series)
        return [
            knob.model_copy(update={"choices": tuple(one for one in knob.choices if self.fits(network, {knob.name: one}))})
            if knob.name == "network.lookback"
            else knob
            for knob in every
        ]

    def fits(self, network: NetworkSpec, settings: dict[str, Value]) -> bool:
        try:
            self.turned(network, settings)
        except Fault:
            return False
        return True

    def turned(self, network: NetworkSpec, settings: dict[str, Value]) -> tuple[NetworkSpec, FitSettings]:
        made, said = super().turned(network, settings)
        with torch.device("meta"):  # shapes only, no memory; raises a Fault where it does not fit the windows and columns
            build_network(made, self.made.windows[0].columns, self.made.cut, self.made.period)
        return made, said
