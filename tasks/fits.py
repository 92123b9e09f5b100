"""The fits that a classifier takes, a seed each and a part to cross-validate each: in turn, or side by side in processes.

They have nothing to do with one another, and small nets gain little from a second thread; so as many are fitted at a time
as torch has threads here. A process, `python -m tasks.fits JOB`, reads the cases itself, takes the fit of which most is left
and no other has, and leaves what it learned as a file. While there are more fits than processes it does half of what is left
and puts the rest back: whoever takes it goes on from the checkpoint, in the same bytes, and all processes end at about the
same time, which four fits for two processes, say, would not if each was done in one go.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict

from models.classification.cases import Cases
from models.classification.crossing import ask, cases_apart, entry_of
from models.classification.fit import cases_a_step, fit_classifier, fit_of_part, num_steps
from models.classification.folds import CaseFolds
from models.classification.specs import ClassifierSpec
from models.errors import counted
from models.specs import FitSpec
from models.training import Checkpoint, Fitted, resolve_device
from tasks.checkpoints import Keeper, forget, load_checkpoint, save_checkpoint, step_kept
from tasks.children import be_child, failure, follow, started
from tasks.gather.opening import Folded, open_folds
from tasks.gather.task import Labelled
from tasks.progress import listener, progress, say
from tasks.storage import Store
from tasks.watching import Stopped, notice, watch

OPTIMISER_STEPS, FEATURE_STEPS = 500, 1 << 33  # of a net, and of a rocket: features times steps of cases; some seconds each


class Job(BaseModel):
    """What is fitted, and where it is left."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    labelled: Labelled
    folds: CaseFolds
    network: ClassifierSpec
    fit: FitSpec
    checkpoints: Path  # a folder
    watched: bool = False  # somebody wants to see each part of a cross-validation, and as soon as may be
    processes: int = 1  # that fit side by side


class Lesson(NamedTuple):
    """The cases of one fit, how it goes, its seed, and of a part to cross-validate its number and cases."""

    cases: Cases
    fit: FitSpec
    seed: int
    part: int = -1
    parts: int = 0  # in all
    asked: Cases | None = None

    @property
    def last_step(self) -> int:
        return num_steps(self.fit, len(self.cases))[0]

    def work(self, steps: int) -> float:
        """What so many optimiser steps take, in steps of cases."""
        return steps * cases_a_step(self.fit, len(self.cases)) * float(self.cases.lengths.mean())


class PutBack(Exception):
    """A fit has come as far as it was to come for now; its checkpoint is kept."""


def fit_all(job: Job, data: Folded) -> dict[str, Fitted]:
    """One fitted classifier for each lesson, by name; what a killed run has left is not fitted again.

    Raises:
        Fault: the loss of one is no longer finite.
        ProcessLost: a process was killed.
        RuntimeError: one failed in another way.
        Stopped: whoever watches has seen enough; nothing is left behind.
    """
    try:
        return fit_lessons(job, data, lessons_of(job, data))
    except Stopped:
        forget(job.checkpoints)  # nobody will go on from them
        raise


def fit_lessons(job: Job, data: Folded, lessons: dict[str, Lesson]) -> dict[str, Fitted]:
    for name, own in lessons.items():
        if job.watched and (before := fitted_before(job, name)):
            show(job, own, before, data)
    at_once = min(len(lessons), torch.get_num_threads()) if resolve_device(job.fit.device).type == "cpu" else 1
    if at_once > 1 and is_long(job, lessons) and not all(result_file(job, name).exists() for name in lessons):
        fit_side_by_side(job, at_once)
    return {name: fitted_before(job, name) or fit_once(job, data, name, own) for name, own in lessons.items()}


def is_long(job: Job, lessons: dict[str, Lesson]) -> bool:
    """Whether all fits together take longer than processes take to begin."""
    if job.network.kind == "rocket":
        return job.network.features * sum(int(own.cases.lengths.sum()) for own in lessons.values()) > FEATURE_STEPS
    return sum(own.last_step for own in lessons.values()) > OPTIMISER_STEPS


def lessons_of(job: Job, data: Folded) -> dict[str, Lesson]:
    """What is to be fitted: every seed on all cases, and the first one on all but a part each time.

    The largest come first, but where somebody watches, the parts do.
    """
    training, fit = data.cases.pick(data.of("train")), job.fit
    lessons = {f"seed-{seed}": Lesson(training, fit, seed) for seed in fit.seeds}
    if not data.is_held_out:
        apart, seed = cases_apart(training, job.folds.parts), fit.seeds[0]
        parts = {
            f"part-{part}": Lesson(rest, fit_of_part(fit, len(training), len(rest)), seed, part, len(apart), asked)
            for part, (rest, asked) in apart.items()
        }
        lessons = parts | lessons if job.watched else lessons | parts
    return lessons


def fit_side_by_side(job: Job, count: int) -> None:
    """Have every lesson fitted by so many processes, which leave files."""
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="processes-", dir=job.checkpoints) as folder:  # which goes with them if all are killed
        path = Path(folder, "job.json")
        path.write_text(job.model_copy(update={"processes": count}).model_dump_json(), encoding="utf-8")
        environments = [{"OMP_NUM_THREADS": str(torch.get_num_threads() // count)}] * count
        with started(__name__, path, environments) as children:
            follow(children)
            failed = [one for one in children if one.process.poll() != 0]
            if failed:
                raise failure(failed, f"{count} that fit a classifier side by side")


def work(path: Path, given: bytes, tell: Callable[[dict], None]) -> None:
    """Fit what no other process has, a piece at a time, until nothing is left that none has."""
    job = Job.model_validate_json(given)
    listener.set(lambda line: tell({"say": line}))
    watch.set(lambda *noticed: tell({"notice": noticed}))
    data = open_folds(Store(job.store), job.labelled, job.folds)
    lessons, folder = lessons_of(job, data), path.parent
    while piece := take(job, lessons, folder):
        name, until = piece
        with suppress(PutBack):  # whoever takes it next goes on from there
            fitted = fit_once(job, data, name, lessons[name], until, is_new=taken(folder / f"{name}.begun"))
            done = Checkpoint(fitted.best_epoch, fitted.weights, fitted.history, fitted.best_epoch)
            save_checkpoint(result_file(job, name), done)
        (folder / name).unlink()


def take(job: Job, lessons: dict[str, Lesson], folder: Path) -> tuple[str, int] | None:
    """The fit of which most is left among those that no process has, now this one's, and the step to which to take it.

    Where somebody watches it is the first of those that nobody has begun, and taken to its end, as all are once there are
    no more than processes.
    """
    left = {name: own.last_step - step_kept(checkpoint_file(job, name)) for name, own in lessons.items()}
    left = {name: steps for name, steps in left.items() if not result_file(job, name).exists()}
    in_one_go = job.watched or len(left) <= job.processes
    most_first = left if job.watched else sorted(left, key=lambda name: -lessons[name].work(left[name]))
    for name in most_first:
        if taken(folder / name):
            if not result_file(job, name).exists():  # nor has it come while this one looked
                last = lessons[name].last_step
                return name, last if in_one_go else last - left[name] // 2
            (folder / name).unlink()
    return None


def taken(mark: Path) -> bool:
    """Whether this process is the first to leave this mark."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def result_file(job: Job, name: str) -> Path:
    return job.checkpoints / f"{name}.fitted.safetensors"


def checkpoint_file(job: Job, name: str) -> Path:
    return job.checkpoints / f"{name}.safetensors"


def fitted_before(job: Job, name: str) -> Fitted | None:
    done = load_checkpoint(result_file(job, name), to_go_on=False)
    return Fitted(done.tensors, done.history, done.best_epoch) if done else None


def fit_once(job: Job, data: Folded, name: str, lesson: Lesson, until: int | None = None, is_new: bool = True) -> Fitted:
    """One fitted classifier, going on from its checkpoint if a killed run, or another process, left one.

    Args:
        until: the step after which it is put back, at the end of an epoch; to its end where that is the last.
        is_new: it is the first time in this run.

    Raises:
        PutBack: it has come to that step.
    """
    keeper = Keeper(checkpoint_file(job, name))
    resume = load_checkpoint(keeper.path)
    if resume and is_new:
        say(f"{name}: going on after epoch {resume.epoch}, step {resume.step:,}")
    last_step = lesson.last_step
    until = until or last_step

    def save(checkpoint: Checkpoint) -> None:  # epochs are short
        is_over = until <= checkpoint.step < last_step
        if is_over or keeper.due() or checkpoint.step == last_step:
            keeper.save(checkpoint)
        if is_over:
            raise PutBack

    learn = partial(fit_classifier, job.network, lesson.fit, lesson.cases, len(data.classes), lesson.seed, resume)
    with progress(name, 1) as bar:
        fitted = learn(save=save, due=keeper.due, warn=lambda line: say(f"{name}: {line}"))
        last = fitted.history[-1] if fitted.history else {}
        bar.advance(1, f"{counted(len(lesson.cases), 'cases')}, loss {last['train']:.4f}" if "train" in last else "")
    show(job, lesson, fitted, data)
    return fitted


def show(job: Job, lesson: Lesson, fitted: Fitted, data: Folded) -> None:
    """Show whoever watches how good a part of a cross-validation is."""
    if job.watched and lesson.asked is not None:
        logits = ask(job.network, fitted.weights, lesson.cases, lesson.asked, len(data.classes))
        notice(lesson.seed, entry_of(lesson.part, logits, lesson.asked.labels), lesson.parts)


if __name__ == "__main__":
    be_child(partial(work, Path(sys.argv[1])), *sys.argv[1:])
