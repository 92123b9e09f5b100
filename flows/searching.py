"""What a search turns, trains and judges, whatever it is that is learned."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from models.knobs import Knob, Value, check_names, overridden, turned, value_of
from models.networks import FitSettings
from models.specs import FitSpec
from tasks.judge import Judged
from tasks.policy import Step
from tasks.storage import Receipt, Store
from tasks.study import parts_of


@dataclass
class Search(ABC):
    """What every trial of a search shares."""

    spec: Any  # a PipelineSpec or ClassificationSpec
    store: Store
    over: list[Knob]

    learner: ClassVar[Step]  # trains one network: what it is trained on, the network, its fit, the store
    recipe: ClassVar[Callable[[Any, FitSettings], FitSpec]]

    def check(self) -> None:
        """Raises a Fault, before any data is read, where this is nothing that can be searched."""
        check_names(self.over, [name for network, _ in self.spec.recipes for name in self.turnable(network)])

    @abstractmethod
    def prepare(self) -> None:
        """Run the steps that all trials begin with."""

    @property
    @abstractmethod
    def trained_on(self) -> tuple:
        """What the learner is given of every trial alike."""

    @abstractmethod
    def train_start(self) -> Receipt:
        """The model of the spec as it stands."""

    @abstractmethod
    def judge(self, model: Receipt, start: Receipt) -> Judged:
        """How good a model is on validation, and by how much better than the start."""

    @abstractmethod
    def curve(self, model: Receipt, network: Any, fit: FitSpec) -> dict[int, float]:
        """Validation losses of the first seed's training, by part."""

    def parts(self, history: list[dict], epochs: int) -> dict[int, float]:
        """What was seen of a training so far, in tenths of its way."""
        return parts_of(history, epochs)

    @abstractmethod
    def alike(self, network: Any, fit: FitSpec) -> str:
        """Trainings of the same mark can be compared while they are on their way."""

    @abstractmethod
    def turnable(self, network: Any) -> list[str]:
        """Every setting that can be turned on a network."""

    @abstractmethod
    def usual(self, network: Any, fit: FitSpec) -> list[Knob]:
        """What is turned on a network where nobody says so."""

    @property
    def recipes(self) -> list[tuple[Any, FitSpec]]:
        """What the spec as it stands trains."""
        return self.spec.recipes

    @cached_property
    def bases(self) -> dict[str, tuple[Any, FitSpec]]:
        """By kind of network, what its trials start from."""
        bases: dict[str, tuple[Any, FitSpec]] = {}
        for network, fit in self.recipes:
            bases.setdefault(network.kind, (network, fit))
        return bases

    @cached_property
    def knobs(self) -> dict[str, list[Knob]]:
        """By kind of network, what is turned."""
        knobs = {}
        for kind, (network, fit) in self.bases.items():
            usual, names = self.usual(network, fit), self.turnable(network)
            for form, own in self.recipes:
                usual = [knob.with_value(value_of(form, own, knob.name)) for knob in usual] if form.kind == kind else usual
            knobs[kind] = overridden(usual, self.over, network, names)
            for knob in self.over:
                if knob.name in names:
                    for value in knob.ends():
                        self.turned(network, {knob.name: value})
        return knobs

    def turned(self, network: Any, settings: dict[str, Value]) -> tuple[Any, FitSettings]:
        """A network and what is said of its fit, with these settings.

        Raises:
            Fault: a value is not allowed for a setting.
        """
        return turned(network, self.spec.fit, settings, self.recipe)

    def train(self, network: Any, fit: FitSpec, **options) -> Receipt:
        return self.learner(*self.trained_on, network, fit, self.store, **options)

    def made_from(self) -> dict:
        """What a study is good for: the same data, networks, code, metric and knobs."""
        keys = []
        for network, fit in self.recipes:
            bound = self.learner.signature.bind(*self.trained_on, network, fit, self.store)
            keys.append(self.learner.call(bound.arguments).key)
        knobs = {kind: [knob.model_dump(mode="json") for knob in own] for kind, own in self.knobs.items()}
        return {"trained": keys, "metric": self.spec.gate.metric, "knobs": knobs}
