"""Train one network a seed on the windows, with a checkpoint every epoch and every minute, and store the bundle."""

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from models.bundle import FORMAT, Bundle, Description, Member, dump_bundle, load_bundle, number_series
from models.errors import Fault, counted
from models.fit import Checkpoint, Fitted, fit, num_steps
from models.networks import NetworkSpec, build_network, form_name
from models.parallel import ALONE, Team
from models.scaling import Scaler
from models.series import SeriesFacts
from models.specs import FitSpec
from models.start import build_with, check_shape, starting_weights
from models.windows import FOLDS, FoldSpec, WindowSpec
from tasks.devices import Job, train_together
from tasks.normalise import Normalised, read_scaler
from tasks.policy import step, this_call
from tasks.progress import Progress, progress, say
from tasks.storage import Receipt, Store, speaking_of, write_atomically
from tasks.watching import Stopped, notice
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
    too_short: int  # series set aside for having too few steps; history.json names them


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
    learn = fit_seeds if fit.devices == 1 else fit_together
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
        )  # fmt: skip
    forget(checkpoints)
    return model


def facts_of(windows: Windows, target: str, season: int) -> SeriesFacts:
    return SeriesFacts(
        target=target, columns=windows.columns, frequency=windows.frequency, season=season, timezone=windows.timezone
    )


def fit_together(
    cut: WindowSet, facts: SeriesFacts, network: NetworkSpec, spec: FitSpec, checkpoints: Path, start: Bundle | None = None
) -> list[Fitted]:
    """What `fit_seeds` returns, from the last checkpoints of `fit.devices` processes that each call it."""
    begun = checkpoints / "start" if start else None
    if start:
        begun.mkdir(parents=True, exist_ok=True)
        for name, content in dump_bundle(start).items():
            write_atomically(begun / name, content)
    files, about = tuple(file.path for file in cut.files), {"scaler": cut.scaler, "folds": cut.folds, "facts": facts}
    train_together(Job(files=files, **about, network=network, fit=spec, checkpoints=checkpoints, start=begun))
    return [last_of(checkpoints, seed) for seed in spec.seeds]


def last_of(checkpoints: Path, seed: int) -> Fitted:
    """What the last checkpoint of a seed keeps.

    Raises:
        OSError: it can not be read.
    """
    last = load_checkpoint(checkpoints / f"seed-{seed}.safetensors", to_go_on=False)
    if last is None:
        raise OSError(
            errno.EIO, f"No checkpoint of seed {seed} that can be read is in {checkpoints}, though training ended well"
        )
    weights = {name.removeprefix("best."): value for name, value in last.tensors.items() if name.startswith("best.")}
    return Fitted(weights, last.history, last.best_epoch)


def fit_seeds(
    cut: WindowSet,
    facts: SeriesFacts,
    network: NetworkSpec,
    spec: FitSpec,
    checkpoints: Path,
    start: Bundle | None = None,
    team: Team = ALONE,
) -> list[Fitted]:
    """One fitted network a seed, each going on from its checkpoint if a killed run left one.

    Args:
        start: whose weights a network begins with that has a form and seed of it.
    """
    numbers = number_series(cut.scaler) if getattr(network, "embedding", 0) else None
    training, validation = cut.fold("train", numbers), cut.fold("validation", numbers)
    say(f"{counted(sum(training.num_windows), 'windows')} to train on, {sum(validation.num_windows):,} to validate")
    build = partial(build_network, network, facts.columns, cut.windows, facts.season, len(cut.scaler.series))
    total, per_epoch = num_steps(spec, sum(training.num_windows))
    epochs = -(-total // per_epoch)
    fitted = []
    for seed in spec.seeds:
        keeper = Keeper(checkpoints / f"seed-{seed}.safetensors")
        resume = load_checkpoint(keeper.path)
        if resume:
            say(f"seed {seed}: going on after epoch {resume.epoch} of {epochs}, step {resume.step:,}")
        with progress(f"seed {seed} epoch", epochs) as bar:
            bar.advance(resume.epoch if resume else 0)
            for entry in resume.history if resume else []:
                notice(seed, entry, epochs)
            calls = {"save": keeper.save, "due": keeper.due, "tell": partial(tell, bar, seed, epochs)}
            fitted.append(
                fit(
                    begin_with(start, build, network, seed, cut.scaler) if spec.init == "live" else build,
                    training,
                    validation,
                    facts.columns,
                    cut.windows,
                    spec,
                    seed,
                    resume,
                    warn=lambda line, seed=seed: say(f"seed {seed}: {line}"),
                    team=team,
                    **(calls if team.is_first else {}),
                )
            )
    return fitted


def tell(bar: Progress, seed: int, epochs: int, entry: dict) -> None:
    """Say how an epoch went, to people and to whoever watches this training."""
    bar.advance(1, losses(entry))
    notice(seed, entry, epochs)


def read_start(store: Store, start: Model, cut: WindowSet, facts: SeriesFacts) -> Bundle:
    """The model that training starts from.

    Raises:
        Fault: it was made for other windows or channels.
    """
    bundle = read_bundle(store, start)
    check_shape(bundle, cut.windows, facts, f"model {start.digest[:8]}")
    return bundle


def begin_with(
    start: Bundle | None, build: Callable[[], torch.nn.Module], network: NetworkSpec, seed: int, scaler: Scaler
) -> Callable[[], torch.nn.Module]:
    """How to build a network with the weights it starts from; which those are is said."""
    weights = starting_weights(start, network, seed, scaler) if start else None
    if weights is None:
        without = f"the live model has no {form_name(network)} of this seed" if start else "there is no live model"
        say(f"seed {seed}: {without}, so it begins with fresh weights")
        return build
    say(f"seed {seed}: begins with the weights of the live model's {form_name(network)}")
    return partial(build_with, build, weights)


def losses(entry: dict) -> str:
    return f"train {entry['train']:.4f}, validation {entry['validation']:.4f}"


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
    """The loss curves, a seed each."""
    pairs, form = zip(spec.seeds, fitted, strict=True), form_name(network)
    return [{"form": form, "seed": seed, "best_epoch": one.best_epoch, "epochs": one.history} for seed, one in pairs]


class Keeper:
    """Keeps the checkpoint of one seed in a file, and says when the next one is due."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
        self.path, self.clock, self.saved_at = path, clock, clock()

    def due(self) -> bool:
        return self.clock() - self.saved_at >= SECONDS

    def save(self, checkpoint: Checkpoint) -> None:
        save_checkpoint(self.path, checkpoint)
        self.saved_at = self.clock()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint file; a kill leaves the old one or the new one."""
    from safetensors.torch import save

    about = {name: value for name, value in vars(checkpoint).items() if name != "tensors"}
    about |= {"format": CHECKPOINT, "torch": version("torch"), "threads": torch.get_num_threads()}
    about["sha256"] = digest_of(checkpoint.tensors)
    with speaking_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(checkpoint.tensors, {"checkpoint": json.dumps(about)}))


def load_checkpoint(path: Path, to_go_on: bool = True) -> Checkpoint | None:
    """The checkpoint in a file, or None where there is none, or none that can be used: training then begins anew."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["checkpoint"])
            written, own = (about.pop("format", 1), about.pop("torch", "unknown")), (CHECKPOINT, version("torch"))
            if written != own:
                raise ValueError("it has format {}, torch {}; this program has {}, {}".format(*written, *own))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        if about.pop("sha256") != digest_of(tensors):
            raise ValueError("its tensors are not what was written")
        threads, own = about.pop("threads"), torch.get_num_threads()
        if threads != own and to_go_on:
            made = f"{path.name} was made on {counted(threads, 'threads')}"
            say(f"{made}, this is {own}; the last digits of the weights may differ")
        return Checkpoint(tensors=tensors, **about)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        say(f"{path.name} can not be used ({error}); training begins anew")
        return None


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names and bytes; safetensors has no checksum of its own."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"=")
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def forget(checkpoints: Path) -> None:
    """Remove the checkpoints of a training that is done."""
    shutil.rmtree(checkpoints, ignore_errors=True)


def read_bundle(store: Store, model: Model) -> Bundle:
    """The model that a receipt names.

    Raises:
        Fault: its files are gone, damaged or no bundle.
    """
    manifest = store.manifest(model.step, model.key)
    if not store.whole(model.step, model.key) or manifest["receipt"].get("digest") != model.digest:
        raise Fault(
            f"Model {model.digest[:8]} is not whole any more: a file of {store.folder(model.step, model.key)} is gone or "
            "changed. Restore it, train again with the settings it had, or delete the pointer under live/ to go on without it."
        )
    weights, description = (store.file(model, name).read_bytes() for name in ("weights.safetensors", "bundle.json"))
    return load_bundle(weights, description)
