"""Training and using a classifier: the steps in their order."""

from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from flows.classification import ClassificationSpec
from flows.gathering import check_labels, gathered
from flows.running import Run
from models.errors import Fault, shortlist
from models.networks import FitSettings, form_name
from tasks.choose_classifier import choose_classifier
from tasks.gather.files import list_case_files
from tasks.gather.task import Labelled, gather
from tasks.journal import StepState
from tasks.label import label
from tasks.planning import Unknown
from tasks.promote import Live, Promotion, may_pass, promote, read_live
from tasks.refit_classifier import refit_classifier
from tasks.report import Page, template_digest
from tasks.report_classes import ClassSubject, report_classes
from tasks.storage import Store
from tasks.train_classifier import ClassModel, train_classifier
from tasks.validate_classifier import ClassScores, validate_classifier


class TrainedClassifier(BaseModel):
    """What a training run did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str = "classification"
    run_id: str
    tasks: list[StepState]
    model: str  # digest
    refitted: str | None = None  # digest of the classifier that is live now once it went on to all cases, and so labels
    num_refitted: int = 0  # these cases
    promoted: bool
    reason: str
    scores: dict[str, dict[str, dict[str, float]] | None]  # new, live, majority, and rivals by name -> fold -> metric
    cross_validated: bool
    num_cases: dict[str, int]
    classes: dict[str, int]
    left_out: int  # cases without a label
    what: str  # cases, or windows
    report: str
    forecast_table: str
    seconds: float


class Labelling(BaseModel):
    """What a labelling run did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str = "classification"
    run_id: str
    tasks: list[StepState]
    model: str  # digest
    scored: str  # digest of the model that labels what has a label already; the same where it is the same
    forecast_table: str
    table_version: int
    rows_written: int
    counts: dict[str, int]  # rows of each label
    known: int  # rows whose label was known already
    accuracy: float | None  # over those
    seconds: float


class ClassOutcome(NamedTuple):
    """What the steps of a training run made."""

    labelled: Labelled
    model: ClassModel
    refitted: ClassModel | None  # the classifier that is live from now on, once it went on to all cases
    scores: dict[str, ClassScores | None]
    promotion: Promotion
    page: Page


def classifier_steps(spec: ClassificationSpec, store: Store, run: Run) -> ClassOutcome:
    """The steps in their order; `convcast explain` walks through them too, without running any."""
    live = read_live(store, spec.name)
    check_same_line(live, spec)
    labelled = gathered(spec, store)
    check_labels(spec, labelled)
    if live:
        check_channels_of(live.model, labelled)
        check_classes_of(live.model, labelled)
    model, tried = train_class_forms(spec, labelled, store)
    if spec.rival:
        shape = labelled, spec.folds, spec.windows, spec.decision
        tried = {"rocket": train_classifier(*shape, *spec.rival, store, label="train_rocket")}
    elif len(tried) == 1:
        tried = {}
    new = validate_classifier(model, labelled, spec.folds, True, store)
    baseline = validate_classifier(None, labelled, spec.folds, False, store, label="validate_majority")
    beside = {
        name: validate_classifier(one, labelled, spec.folds, False, store, label=f"validate_{name}")
        for name, one in tried.items()
    }
    rivals = {"majority class": baseline}
    if displaced := displaced_by(model, live):
        check_channels_of(displaced, labelled)
        rivals["live model"] = validate_classifier(displaced, labelled, spec.folds, False, store, label="validate_live")
    refitted, where = None, FitSettings(device=spec.fit.device)
    if spec.refit and may_pass(model, new, rivals, spec.gate):
        refitted = refit_classifier(model, labelled, where, store)
    elif spec.refit and live and displaced == live.model:  # it stays, and is to know the newest cases too
        refitted = refit_classifier(displaced, labelled, where, store, label="refit_live")
    promotion = promote(spec.name, model, refitted, new, rivals, spec.gate, live, run.id, run.now, store)
    page = report_classes(subject_of(spec), labelled, model, new, rivals, beside, spec.gate, store)
    is_live = live is not None and live.model.digest == model.digest
    scores = {"new": new, "live": new if is_live else rivals.get("live model"), "majority": baseline} | beside
    return ClassOutcome(labelled, model, refitted, scores, promotion, page)


def train_class_forms(spec: ClassificationSpec, labelled: Labelled, store: Store) -> tuple[ClassModel, dict[str, ClassModel]]:
    """The trained classifier, or, of several, what was chosen; and each form by its name."""
    shape, forms = (labelled, spec.folds, spec.windows, spec.decision), len(spec.recipes) > 1
    tried = {
        form_name(network): train_classifier(
            *shape, network, fit, store, label=f"train_{form_name(network)}" if forms else None
        )
        for network, fit in spec.recipes
    }
    return choose_classifier(list(tried.values()), labelled, spec.folds, store) if forms else next(iter(tried.values())), tried


def displaced_by(model: ClassModel, live: Live | None) -> ClassModel | None:
    """The model that `model` is held against: the live one, or, once it is live itself, the one whose place it took."""
    if live is None:
        return None
    return live.previous if live.model.digest == model.digest else live.model


def check_same_line(live: Live | None, spec: ClassificationSpec) -> None:
    """Raises a Fault, before anything runs, where the live model does something else than this spec asks for."""
    if live is None:
        return
    other = "Give the spec another name to start a new line of models."
    if not isinstance(live.model, ClassModel):
        raise Fault(f"The live model of {spec.name!r} forecasts; this spec classifies. {other}")
    if live.model.windows != spec.windows:
        raise Fault(f"The live model of {spec.name!r} has windows {live.model.windows}; this spec has {spec.windows}. {other}")


def check_channels_of(displaced: ClassModel, labelled: Labelled) -> None:
    """Raises a Fault where the live model sees other channels than there are."""
    if isinstance(labelled, Unknown) or sorted(displaced.channels) == sorted(labelled.channels):
        return
    more = set(labelled.channels) >= set(displaced.channels)
    keep = f"Set source.channels to [{', '.join(displaced.channels)}] to go on with them, or give" if more else "Give"
    raise Fault(
        f"The live model sees the channels {shortlist(displaced.channels, 8)}; this source has "
        f"{shortlist(labelled.channels, 8)}. {keep} the spec another name to start a new line of models."
    )


def check_classes_of(live: ClassModel, labelled: Labelled) -> None:
    """Raises a Fault where the live model knows none of the classes that there are."""
    if isinstance(labelled, Unknown) or set(live.classes) & set(labelled.classes):
        return
    raise Fault(
        f"The live model knows {shortlist(live.classes, 8)}; this source has {shortlist(labelled.classes, 8)}, none of them. "
        "Give the spec another name to start a new line of models."
    )


def subject_of(spec: ClassificationSpec) -> ClassSubject:
    """What the report prints of the spec: all but the places that differ from machine to machine."""
    shown = spec.model_dump(mode="json", exclude={"store": True, "forecast": True, "source": {"uri"}})
    uris = (spec.source.uri,) if isinstance(spec.source.uri, str) else spec.source.uri
    file = uris[0].replace("\\", "/").rsplit("/", 1)[-1] + (f" and {len(uris) - 1} more" if len(uris) > 1 else "")
    return ClassSubject(name=spec.name, file=file, spec=shown, template=template_digest())


def label_steps(spec: ClassificationSpec, store: Store, run: Run) -> Labelling:
    """Label what waits for a label with the live classifier."""
    live = read_live(store, spec.name)
    if live is None:
        raise Fault(f"No model of {spec.name!r} is live in {store.root}. Run convcast train first.")
    check_same_line(live, spec)
    source = spec.source.model_copy(update={"channels": escaped(live.model.channels)})
    if spec.forecast.uri is not None:
        source = source.model_copy(update={"uri": spec.forecast.uri, "split": None})
    files = list_case_files(source, store.downloads)
    origin: datetime | None = spec.forecast.origin
    # The windows that a stream is cut into end at its newest row; the one that ends at an origin may lie between them.
    windows = spec.windows.model_copy(update={"stride": 1}) if spec.windows and origin else spec.windows
    labelled = gather(files, source.to_read(), windows, spec.forecast.uri is None, store)
    # What came after an origin, the one that went on to all cases may have learned from.
    model, everything = live.model if origin else live.forecaster(), spec.forecast.uri is not None
    written = label(spec.name, model, live.model, labelled, spec.folds, origin, everything, run.id, run.now, store)
    return Labelling(
        name=spec.name, run_id=run.id, tasks=run.tasks, model=model.digest, scored=live.model.digest,
        forecast_table=written.table, table_version=written.version, rows_written=written.rows, counts=written.counts,
        known=written.known, accuracy=written.accuracy, seconds=run.seconds,
    )  # fmt: skip


def escaped(channels: tuple[str, ...]) -> tuple[str, ...]:
    """Names of columns as globs that match nothing else."""
    return tuple("".join(f"[{one}]" if one in "*?[" else one for one in name) for name in channels)
