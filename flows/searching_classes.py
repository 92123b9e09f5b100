"""A search for classifiers and fits that tell classes apart better."""

from dataclasses import dataclass, field

from flows.classification import NOT_HERE, check_fit
from flows.classifying import train_class_forms
from flows.gathering import check_labels, gathered
from flows.searching import Search
from models.classification.knobs import usual_class_knobs
from models.classification.specs import ClassifierSpec, recipe
from models.errors import Fault
from models.knobs import Knob, Value, turnable
from models.networks import FitSettings
from models.specs import FitSpec
from tasks.gather.task import Labelled
from tasks.judge import Judged
from tasks.judge_classifier import judge_classifier
from tasks.study import parts_of
from tasks.train_classifier import ClassModel, train_classifier


@dataclass
class ClassSearch(Search):
    """What every trial of a search for a better classifier shares."""

    labelled: Labelled = field(init=False)

    learner, recipe = train_classifier, staticmethod(recipe)

    def prepare(self) -> None:
        self.labelled = gathered(self.spec, self.store)
        check_labels(self.spec, self.labelled)

    @property
    def trained_on(self) -> tuple:
        return self.labelled, self.spec.folds, self.spec.windows, self.spec.decision

    def train_start(self) -> ClassModel:
        return train_class_forms(self.spec, self.labelled, self.store)[0]

    def judge(self, model: ClassModel, start: ClassModel) -> Judged:
        return judge_classifier(model, start, self.labelled, self.spec.folds, self.spec.gate.metric, self.store)

    def curve(self, model: ClassModel, network: ClassifierSpec, fit: FitSpec) -> dict[int, float]:
        """Those of a cross-validation, part by part; none of a fold that is held out, which is asked once, in the end."""
        crossing = self.store.read_json(model, "history.json")["crossing"]
        return self.parts(crossing, len(crossing))

    def parts(self, history: list[dict], epochs: int) -> dict[int, float]:
        """The mean log-loss up to each part; parts may end in any order, and wait for those before them."""
        losses, means = {entry["epoch"]: entry["validation"] for entry in history}, []
        while (part := len(means) + 1) in losses:
            mean = sum(losses[one] for one in range(1, part + 1)) / part
            means.append({"epoch": part, "validation": mean})
        return parts_of(means, epochs)

    def alike(self, network: ClassifierSpec, fit: FitSpec) -> str:
        return "classifiers"  # each part asks the same cases of all of them, of trainings that are at their end

    def turnable(self, network: ClassifierSpec) -> list[str]:
        names = [name for name in turnable(network) if name.removeprefix("fit.") not in NOT_HERE]
        return [name for name in names if network.kind != "rocket" or name.startswith("network.")]  # which is fitted in one go

    def usual(self, network: ClassifierSpec, fit: FitSpec) -> list[Knob]:
        return usual_class_knobs(network, fit)

    def turned(self, network: ClassifierSpec, settings: dict[str, Value]) -> tuple[ClassifierSpec, FitSettings]:
        made, said = super().turned(network, settings)
        try:
            check_fit(said)
        except ValueError as error:
            raise Fault(f"{error}.") from error
        return made, said
