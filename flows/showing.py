"""What a stored model is: what it forecasts, what it sees, and which networks it is made of."""

from pydantic import BaseModel, ConfigDict

from flows.classification import ClassificationSpec
from flows.spec import PipelineSpec
from models.classification.windows import LabelWindows
from models.errors import Fault, shortlist
from models.networks import form_name
from models.series import SeriesFacts
from models.windows import WindowSpec
from tasks.promote import Live, read_live
from tasks.refit import through
from tasks.storage import Store
from tasks.train import Model, read_bundle
from tasks.train_classifier import ClassModel, read_classifier

FORECASTERS = ("train", "choose", "calibrate", "refit")  # steps that make a model
CLASSIFIERS = ("train_classifier", "choose_classifier", "refit_classifier")
SHORTEST = 4  # letters of a digest that name a model


class Part(BaseModel):
    """One form of network in a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: str
    num_parameters: int  # of one seed's network
    seeds: tuple[int, ...]


class Shown(BaseModel):
    """A model, as a person asks about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    live: bool
    format: int
    facts: SeriesFacts
    windows: WindowSpec
    num_series: int
    num_floored: int  # of these, how many are not forecast below 0
    members: tuple[Part, ...]
    trained_on: str  # digest of the windows
    through: str  # the newest row of all, where it went on learning from all of them; else empty
    scored: str  # digest of the model that it went on from, where it is live; else empty
    gone_on_as: str  # digest of the one that is live and went on from it; else empty
    versions: dict[str, str]
    folder: str


class ShownClassifier(BaseModel):
    """A classifier, as a person asks about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    task: str = "classification"
    live: bool
    format: int
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    windows: LabelWindows | None
    members: tuple[Part, ...]
    weights: tuple[float, ...]  # of the members in the blend
    trained_on: str  # digest of the cases
    num_cases: int  # that it learned from
    scored: str  # digest of the model that it went on from to all cases, where it is live; else empty
    gone_on_as: str  # digest of the one that is live and went on from it; else empty
    versions: dict[str, str]
    folder: str


def showing(spec: PipelineSpec | ClassificationSpec, digest: str | None) -> Shown | ShownClassifier:
    """The live model of a pipeline, or one of its store by the first letters of its digest.

    Raises:
        Fault: there is none, several begin with these letters, or its files are damaged.
    """
    store = Store(spec.store)
    live, model = read_live(store, spec.name), named_model(spec, digest)
    if isinstance(model, ClassModel):
        return shown_classifier(store, live, model)
    bundle = read_bundle(store, model)
    about = bundle.description
    members = tuple(
        Part(
            form=form_name(member.network), seeds=member.seeds, num_parameters=sum(value.numel() for value in seeds[0].values())
        )
        for member, seeds in zip(about.members, bundle.weights, strict=True)
    )
    return Shown(
        digest=model.digest, live=live is not None and live.forecaster().digest == model.digest, format=about.format,
        facts=about.series, windows=about.windows, num_series=len(about.scaler.series), members=members,
        num_floored=about.scaler.num_floored, trained_on=about.trained_on, through=through(model),
        scored=scored_before(live, model), gone_on_as=gone_on_as(live, model), versions=about.versions,
        folder=str(store.folder(model.step, model.key)),
    )  # fmt: skip


def shown_classifier(store: Store, live: Live | None, model: ClassModel) -> ShownClassifier:
    bundle = read_classifier(store, model)
    about = bundle.description
    members = tuple(
        Part(
            form=form_name(member.network), seeds=member.seeds,
            num_parameters=sum(value.numel() for value in seeds[0].values()),
        )
        for member, seeds in zip(about.members, bundle.weights, strict=True)
    )  # fmt: skip
    return ShownClassifier(
        digest=model.digest, live=live is not None and live.forecaster().digest == model.digest, format=about.format,
        classes=about.classes, channels=about.channels, windows=about.windows, members=members, weights=about.blend.weights,
        trained_on=about.trained_on, num_cases=model.num_cases["train"], scored=scored_before(live, model),
        gone_on_as=gone_on_as(live, model), versions=about.versions, folder=str(store.folder(model.step, model.key)),
    )  # fmt: skip


def scored_before(live: Live | None, model: Model | ClassModel) -> str:
    """The digest of the model that a live one went on from; empty where it did not, or is not live."""
    return live.model.digest if live is not None and live.refitted == model else ""


def gone_on_as(live: Live | None, model: Model | ClassModel) -> str:
    """The digest of the live model that went on from this one; empty where none did."""
    return live.refitted.digest if live is not None and live.refitted and live.model.digest == model.digest else ""


def named_model(spec: PipelineSpec | ClassificationSpec, digest: str | None) -> Model | ClassModel:
    """The model of these first letters, or the live one.

    Raises:
        Fault: there is none, or several begin with these letters.
    """
    store = Store(spec.store)
    live = read_live(store, spec.name)
    model = find_model(store, digest) if digest else live and live.forecaster()
    if model is None:
        raise Fault(f"No model of {spec.name!r} is live in {store.root}. Run convcast train first, or name a digest.")
    return model


def find_model(store: Store, digest: str) -> Model | ClassModel:
    """The model of a store whose digest begins so."""
    if len(digest) < SHORTEST:
        raise Fault(f"{digest!r} is too short to name a model; give {SHORTEST} letters of its digest or more.")
    manifests = [manifest for step in (*FORECASTERS, *CLASSIFIERS) for manifest in store.manifests(step)]
    models = {own["digest"]: own for manifest in manifests if (own := manifest["receipt"])["digest"].startswith(digest)}
    if not models:
        known = sorted({manifest["receipt"]["digest"][:12] for manifest in manifests})
        raise Fault(f"{store.root} has no model {digest}; it has {shortlist(known) or 'none at all'}.")
    if len(models) > 1:
        raise Fault(f"Several models begin with {digest}: {shortlist(sorted(models))}. Give more letters.")
    found = next(iter(models.values()))
    return (ClassModel if found["step"] in CLASSIFIERS else Model).model_validate(found)
