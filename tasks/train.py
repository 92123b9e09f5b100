"""Train one network a seed on the windows, with a checkpoint every epoch and every minute, and store the bundle."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from models.bundle import FORMAT, Bundle, Description, Member, dump_bundle, load_bundle
from models.fit import Fitted
from models.networks import NetworkSpec, form_name
from models.precision import misgiving
from models.series import SeriesFacts
from models.specs import FitSpec
from models.start import check_shape
from models.training import resolve_device
from models.windows import FOLDS, FoldSpec, WindowSpec
from tasks.checkpoints import forget, last_of
from tasks.devices import Job, train_together
from tasks.model_files import read_model_files
from tasks.normalise import Normalised, read_scaler
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.seeds import fit_seeds
from tasks.storage import Receipt, Store, write_atomically
from tasks.watching import Stopped
from tasks.windows.folds import WindowSet, open_windows
from tasks.windows.task import Windows

CHECKPOINT = 2  # the form of the files
SECONDS = 60.0  # after which an epoch that is not over leaves a checkpoint too


class Form(BaseModel):
    """One of the networks that a model was chosen from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    num_parameters: int
    error: float  # on validation, in standard deviations of each series
    chosen: bool


class Model(Receipt):
    """`weights.safetensors` and `bundle.json`, and the `history.json` of how they were learned."""

    num_parameters: int
    forms: tuple[Form, ...]  # what it was chosen from; empty where there was no choice
    windows: WindowSpec
    facts: SeriesFacts
    num_windows: dict[str, int]  # by fold
    num_series: int
    num_floored: int = 0  # of these, how many are not forecast below 0
    too_short: int  # series set aside for having too few steps; history.json names them
    through: int | None = None  # microseconds UTC, the newest row it learned from, where it went on to all of them


@step(libraries=("numpy", "pyarrow", "safetensors", "torch"))
def train(
    windows: list[Windows],
    normalised: list[Normalised],
    folds: FoldSpec,
    target: str,
    period: int,
    network: NetworkSpec,
    fit: FitSpec,
    store: Store,
    start: Model | None = None,
) -> Model:
    """Fit the network, which lays the past out by `period` steps, from the weights of `start` where it has its form."""
    call = this_call()
    scaler, unscaled = read_scaler(normalised, windows[0].columns, store)
    cut = open_windows(windows, scaler, folds, store)
    facts = facts_of(windows[0], target, period)
    checkpoints = store.folder("checkpoints", call.key)
    begun = read_start(store, start, cut, facts) if start else None
    if line := misgiving(fit.precision, resolve_device(fit.device)):
        say(line)
    try:
        fitted = learn(cut, facts, network, fit, checkpoints, begun)
    except Stopped:
        forget(checkpoints)  # nobody will go on from them
        raise
    bundle = Bundle(describe_bundle(cut, facts, network, fit, windows), [[one.weights for one in fitted]])
    short = unscaled | cut.too_short
    with store.draft(call) as draft:
        for name, content in dump_bundle(bundle).items():
            draft.write_bytes(name, content)
        draft.write_json("history.json", {"curves": curves_of(network, fit, fitted), "too_short": short})
        model = draft.commit(
            Model, num_parameters=num_parameters(bundle), forms=(), windows=cut.windows, facts=facts,
            num_windows={fold: cut.count(fold) for fold in FOLDS}, num_series=len(cut.rows), too_short=len(short),
            num_floored=cut.scaler.num_floored,
        )  # fmt: skip
    forget(checkpoints)
    return model


def facts_of(windows: Windows, target: str, season: int) -> SeriesFacts:
    return SeriesFacts(
        target=target, columns=windows.columns, frequency=windows.frequency, season=season, timezone=windows.timezone
    )


def learn(
    cut: WindowSet, facts: SeriesFacts, network: NetworkSpec, spec: FitSpec, checkpoints: Path, start: Bundle | None = None,
    fold: str = "train",
) -> list[Fitted]:  # fmt: skip
    """One fitted network a seed, by this process or by `fit.devices` of them; as `fit_seeds` has it."""
    return (fit_seeds if spec.devices == 1 else fit_together)(cut, facts, network, spec, checkpoints, start, fold)


def fit_together(
    cut: WindowSet, facts: SeriesFacts, network: NetworkSpec, spec: FitSpec, checkpoints: Path, start: Bundle | None = None,
    fold: str = "train",
) -> list[Fitted]:  # fmt: skip
    """What `fit_seeds` returns, from the last checkpoints of `fit.devices` processes that each call it."""
    begun = checkpoints / "start" if start else None
    if start:
        begun.mkdir(parents=True, exist_ok=True)
        for name, content in dump_bundle(start).items():
            write_atomically(begun / name, content)
    files, about = tuple(file.path for file in cut.files), {"scaler": cut.scaler, "folds": cut.folds, "facts": facts}
    about |= {"network": network, "fit": spec, "checkpoints": checkpoints, "start": begun, "fold": fold}
    train_together(Job(files=files, **about))
    return [last_of(checkpoints, seed) for seed in spec.seeds]


def read_start(store: Store, start: Model, cut: WindowSet, facts: SeriesFacts) -> Bundle:
    """The model that training starts from.

    Raises:
        Fault: it was made for other windows or channels.
    """
    bundle = read_bundle(store, start)
    check_shape(bundle, cut.windows, facts, f"model {start.digest[:8]}")
    return bundle


def describe_bundle(
    cut: WindowSet, facts: SeriesFacts, network: NetworkSpec, spec: FitSpec, windows: list[Windows]
) -> Description:
    trained_on = hashlib.sha256("".join(one.digest for one in windows).encode()).hexdigest()
    return Description(
        format=FORMAT, members=(Member(network=network, seeds=spec.seeds),), windows=cut.windows, series=facts,
        scaler=cut.scaler, trained_on=trained_on, calibration=None,
        versions={name: version(name) for name in ("numpy", "safetensors", "torch")},
    )  # fmt: skip


def num_parameters(bundle: Bundle) -> int:
    """Weights of one network of each member."""
    return sum(value.numel() for seeds in bundle.weights for value in seeds[0].values())


def curves_of(network: NetworkSpec, spec: FitSpec, fitted: list[Fitted]) -> list[dict]:
    """The loss curves, a seed each, and how they came about."""
    same = {"form": form_name(network), "fit": spec.model_dump(mode="json")}
    pairs = zip(spec.seeds, fitted, strict=True)
    return [same | {"seed": seed, "best_epoch": one.best_epoch, "epochs": one.history} for seed, one in pairs]


def read_bundle(store: Store, model: Model) -> Bundle:
    """The model that a receipt names.

    Raises:
        Fault: its files are gone, damaged or no bundle.
    """
    return load_bundle(*read_model_files(store, model))
