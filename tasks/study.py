"""The trials of a search, kept in the store as they end, so that an interrupted search goes on where it was."""

import fcntl
import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from models.errors import Fault
from models.knobs import Knob, Value, matters
from tasks.storage import Store, speaking_of
from tasks.watching import Stopped

AT_RANDOM = 8  # trials before the search begins to learn from them
ALIKE = 4  # trials that a trial is compared with at least before it may be stopped
PARTS = 10  # of a training; a trial is compared with others at the end of each
EARLIEST = 3  # of these parts that no trial is stopped before
KIND = "network.kind"  # drawn where there is more than one
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


class Tried(BaseModel):
    """One trial of a search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int  # 0: the spec as it stood, and each of its forms by itself
    kind: str  # of network, or auto
    form: str = ""  # of auto, the one that this is
    settings: dict[str, Value] = {}
    state: str = "completed"  # or stopped, diverged
    error: float | None = None  # on validation; of accuracy and its like what they lack of 1; None unless completed
    standard_errors: float | None = None  # of the difference, by which it is better than the start


class AmongAlike(optuna.pruners.BasePruner):
    """Stops what has so far done worse than the median of the trials of the same mark, as far on their way.

    Validation losses of other networks, on other schedules or by another formula, say nothing about a trial's end. Where the
    parts are those of a cross-validation, each is a training at its end, and all have the same mark.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        part = trial.last_step
        if part is None or not EARLIEST <= part < PARTS:
            return False
        mine = trial.user_attrs["alike"]
        others = [one for one in study.get_trials(deepcopy=False, states=ENDED) if one.user_attrs.get("alike") == mine]
        others = [one for one in others if one.state == TrialState.COMPLETE or (one.last_step or 0) >= part]
        return len(others) >= ALIKE and best_until(trial, part) > median(best_until(one, part) for one in others)


def best_until(trial: FrozenTrial, part: int) -> float:
    """The lowest validation loss of a trial up to a part of its training."""
    return min((loss for at, loss in trial.intermediate_values.items() if at <= part), default=math.inf)


class Study:
    """The trials of one search; what is drawn next depends on the seed and on the trials that ended, and on nothing else."""

    def __init__(self, study: optuna.Study, seed: int):
        self.study, self.seed = study, seed
        for trial in study.get_trials(
            states=(TrialState.RUNNING,)
        ):  # a run was killed at it; the same settings are drawn again
            study.tell(trial.number, state=TrialState.FAIL)

    @property
    def tried(self) -> list[Tried]:
        """The trials that ended, oldest first."""
        return [
            Tried.model_validate_json(one.user_attrs["tried"]) for one in self.study.get_trials(deepcopy=False, states=ENDED)
        ]

    def add(
        self, tried: Tried, values: dict[str, Value], knobs: dict[str, list[Knob]], alike: str, curve: dict[int, float]
    ) -> None:
        """Take in a trial that was not drawn: the start.

        Args:
            values: of the settings that the knobs turn; empty where they do not tell the trial.
        """
        turnable = {f"{tried.kind}.{knob.name}": knob for knob in knobs.get(tried.kind, [])}
        params = {name: values[knob.name] for name, knob in turnable.items() if values and knob.takes(values[knob.name])}
        ranges = {name: distribution(turnable[name]) for name in params}
        if values and len(knobs) > 1:
            params[KIND], ranges[KIND] = tried.kind, CategoricalDistribution(list(knobs))
        known = {"tried": tried.model_dump_json(), "alike": alike}
        self.study.add_trial(
            optuna.create_trial(
                value=tried.error, params=params, distributions=ranges, intermediate_values=curve, user_attrs=known
            )
        )

    def draw(self, knobs: dict[str, list[Knob]]) -> tuple[optuna.Trial, str, dict[str, Value]]:
        """The next trial, its kind of network, and its settings."""
        ended = len(self.study.get_trials(deepcopy=False, states=ENDED))
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {ended}".encode()).digest()[:4], "big")
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=AT_RANDOM)
        trial = self.study.ask()
        kind = trial.suggest_categorical(KIND, list(knobs)) if len(knobs) > 1 else next(iter(knobs))
        settings: dict[str, Value] = {}
        for knob in sorted(knobs[kind], key=lambda knob: knob.name):  # so that a branch comes before what is of it
            if matters(knob.name, settings):
                settings[knob.name] = drawn(trial, f"{kind}.{knob.name}", knob)
        return trial, kind, settings

    def show(self, trial: optuna.Trial, losses: dict[int, float], stops: bool = True) -> None:
        """Report the losses, by part of the training, that are new.

        Raises:
            Stopped: by one of them the trial is not worth going on with.
        """
        known = self.study.trials[trial.number].intermediate_values
        for part, loss in losses.items():
            if part not in known:
                trial.report(loss, part)
                if stops and trial.should_prune():
                    raise Stopped(f"Stopped at {100 * part // PARTS} % of its way: half of those like it did better by then.")

    def end(self, trial: optuna.Trial, tried: Tried) -> None:
        trial.set_user_attr("tried", tried.model_dump_json())
        state = TrialState.COMPLETE if tried.error is not None else TrialState.PRUNED
        self.study.tell(trial, tried.error, state)


def distribution(knob: Knob) -> BaseDistribution:
    """The knob in Optuna's words."""
    if knob.choices:
        return CategoricalDistribution(knob.choices)
    if knob.whole:
        return IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return FloatDistribution(knob.low, knob.high, log=knob.log)


def drawn(trial: optuna.Trial, name: str, knob: Knob) -> Value:
    """A value that the search chose for a setting."""
    if knob.choices:
        return trial.suggest_categorical(name, knob.choices)
    if knob.whole:
        return trial.suggest_int(name, int(knob.low), int(knob.high), log=knob.log)
    value = trial.suggest_float(name, knob.low, knob.high, log=knob.log)
    return min(max(float(f"{value:.3g}"), knob.low), knob.high)  # a number that a person would write


def parts_of(history: list[dict], epochs: int) -> dict[int, float]:
    """Validation losses of a training by the tenths of its epochs, or of its cross-validation, that were done."""
    parts: dict[int, float] = {}
    for entry in history:
        parts.setdefault(PARTS * entry["epoch"] // epochs, entry["validation"])
    return parts


@contextmanager
def open_study(store: Store, name: str, made_from: dict, seed: int) -> Iterator[Study]:
    """The search of this name that starts from `made_from`: a new one, or what an earlier run left of it.

    Raises:
        Fault: another process is at it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    blob = json.dumps(made_from, sort_keys=True, allow_nan=False).encode()
    key = hashlib.sha256(blob).hexdigest()[:32]
    folder, file = store.root / "studies", f"{name}-{key}"
    with speaking_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
        guard = open(folder / f"{file}.lock", "w")  # noqa: SIM115, closed below; the system frees it if this process dies
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        guard.close()
        raise Fault(f"Another convcast tune of {name!r} is at this search. Wait for it, or give another --seed.") from error
    with guard:
        storage = JournalStorage(JournalFileBackend(str(folder / f"{file}.log")))
        yield Study(optuna.create_study(study_name=name, storage=storage, pruner=AmongAlike(), load_if_exists=True), seed)
