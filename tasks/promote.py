"""Move the live pointer to a model that beats its rivals, or say why not. Never cached: it changes the world."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from models.classification.metrics import HIGHER
from models.classification.specs import ClassGateSpec
from models.errors import Fault
from models.specs import GateSpec
from tasks.lease import LeasedLocks
from tasks.planning import unknown_steps
from tasks.policy import step
from tasks.storage import Store
from tasks.train import Model
from tasks.train_classifier import ClassModel
from tasks.validate import Scores
from tasks.validate_classifier import ClassScores


class Live(BaseModel):
    """The live pointer of a pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Model | ClassModel
    previous: Model | ClassModel | None  # the model it took the place of
    promoted_at: datetime
    run_id: str
    refitted: Model | ClassModel | None = None  # the same model once it went on learning from all rows, or cases, there were

    def forecaster(self, origin: datetime | None = None) -> Model | ClassModel:
        """What forecasts from an origin, or from the newest rows where it is None, or labels what has no label yet.

        That is the model that went on to all rows, but not where it would know what came after.
        """
        if self.refitted is None or (origin is not None and origin.timestamp() * 1e6 < self.refitted.through):
            return self.model
        return self.refitted


class Promotion(BaseModel):
    """Whether a new model passes the gate and so goes live, and the sentence that says why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promoted: bool
    reason: str


def read_live(store: Store, name: str) -> Live | None:
    """The live pointer of a pipeline, None before its first promotion.

    Raises:
        Fault: there is one, and it can not be read.
    """
    document = store.document("live", f"{name}.json")
    try:
        return None if document is None else Live.model_validate(document)
    except ValidationError as error:
        path = store.root / "live" / f"{name}.json"
        raise Fault(
            f"{path} is no live pointer ({error.errors()[0]['msg']}). Restore it, or delete it to start anew."
        ) from error


@step(cached=False)
def promote(
    name: str,
    model: Model | ClassModel,
    refitted: Model | ClassModel | None,
    new: Scores | ClassScores,
    rivals: dict[str, Scores] | dict[str, ClassScores],
    gate: GateSpec | ClassGateSpec,
    seen: Live | None,
    run_id: str,
    now: datetime,
    store: Store,
) -> Promotion:
    """Make the model live if it passes the gate.

    Args:
        refitted: the model that is live from now on, this one or the one that stays, once it went on to all rows, which is to
            forecast in its place; None: it forecasts as it was scored.
        seen: the live pointer that its rivals were chosen by.

    Raises:
        Fault: another run has moved the pointer meanwhile.
    """
    found = verdict(model, new, rivals, gate)
    locks, holder = LeasedLocks(store.locks), f"{run_id}-promote"
    locks.acquire_lock(f"live-{name}", holder)
    try:
        current = read_live(store, name)
        is_live = current is not None and current.model.digest == model.digest
        # What goes on forecasting may have learned from newer rows: this model, live before, or the one that it did not beat.
        stays = is_live if found.promoted else current is not None and not is_live and same_model(current, seen)
        if stays and current.refitted != refitted:
            newer = current.model_copy(update={"refitted": refitted})
            store.put_document(newer.model_dump(mode="json"), "live", f"{name}.json")
        if is_live:
            since = f"{current.promoted_at:%Y-%m-%d %H:%M} UTC"
            return Promotion(promoted=False, reason=f"Model {short(model)} is live already, since {since}.")
        if not found.promoted:
            return found
        if not same_model(current, seen):
            raise Fault(f"Another run changed which model of {name!r} is live while this one validated. Run train again.")
        previous = seen.model if seen else None
        live = Live(model=model, previous=previous, promoted_at=now, run_id=run_id, refitted=refitted)
        store.put_document(live.model_dump(mode="json"), "live", f"{name}.json")
    finally:
        locks.release_lock(f"live-{name}", holder)
    return found


def same_model(one: Live | None, other: Live | None) -> bool:
    """Whether two pointers name the same model."""
    return (one and one.model.digest) == (other and other.model.digest)


def may_pass(
    model: Model | ClassModel, new: Scores | ClassScores, rivals: dict[str, Scores] | dict[str, ClassScores],
    gate: GateSpec | ClassGateSpec,
) -> bool:  # fmt: skip
    """Whether a model passes the gate, or may, where that is not known yet."""
    return bool(unknown_steps([model, new, rivals])) or verdict(model, new, rivals, gate).promoted


def verdict(
    model: Model | ClassModel, new: Scores | ClassScores, rivals: dict[str, Scores] | dict[str, ClassScores],
    gate: GateSpec | ClassGateSpec,
) -> Promotion:  # fmt: skip
    return (judge_classes if isinstance(model, ClassModel) else judge)(model, new, rivals, gate)


def judge(model: Model, new: Scores, rivals: dict[str, Scores], gate: GateSpec) -> Promotion:
    """Whether the new model has a lower error than every rival, on the same origins."""
    steps = str(gate.steps or model.windows.horizon)
    if steps not in new.scores[gate.fold]:
        raise Fault(f"gate.steps is {steps}; scores are made for {', '.join(new.scores[gate.fold])} steps. Use one of them.")
    metric = f"{gate.metric.upper()} over {steps} steps on {gate.fold}"
    own = new.scores[gate.fold][steps][gate.metric]
    against = {name: scores.scores[gate.fold][steps][gate.metric] for name, scores in rivals.items()}
    if new.scores[gate.fold][steps]["mae"] is None:
        raise Fault(f"None of the first {steps} steps was observed on the {gate.fold} fold. Use another gate.steps.")
    if None in (own, *against.values()):
        raise Fault("gate.metric is 'mase', which has no meaning where a series repeats itself exactly. Use 'mae'.")
    said = ", ".join(f"{name} {value:.4g}" for name, value in against.items())
    passed = all(own < value for value in against.values())
    return verdict_of(model, passed, f"{metric} {own:.4g}, {said}", "live model" in against)


def judge_classes(model: ClassModel, new: ClassScores, rivals: dict[str, ClassScores], gate: ClassGateSpec) -> Promotion:
    """Whether the new classifier is better than every rival, on the same cases."""
    sign = -1 if gate.metric in HIGHER else 1
    own = new.scores[gate.fold][gate.metric]
    against = {name: scores.scores[gate.fold][gate.metric] for name, scores in rivals.items()}
    said = ", ".join(f"{name} {value:.4g}" for name, value in against.items())
    on = "cross-validation" if gate.fold == "validation" and model.cross_validated else gate.fold
    passed = all(sign * own < sign * value for value in against.values())
    return verdict_of(model, passed, f"{gate.metric.replace('_', ' ')} on {on} {own:.4g}, {said}", "live model" in against)


def verdict_of(model: Model | ClassModel, passed: bool, scores: str, has_live: bool) -> Promotion:
    if passed:
        return Promotion(promoted=True, reason=f"Model {short(model)} promoted: {scores}.")
    stays = "The previous model stays live." if has_live else "No model is live yet."
    return Promotion(promoted=False, reason=f"Model {short(model)} not promoted: {scores}. {stays}")


def short(model: Model | ClassModel) -> str:
    return model.digest[:8]
