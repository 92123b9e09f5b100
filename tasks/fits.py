"""The fits that a classifier takes, a seed each and a part to cross-validate each: in turn, or side by side in processes.

They have nothing to do with one another, and small nets gain little from a second thread; so as many are fitted at a time
as torch has threads here. A process, `python -m tasks.fits JOB`, reads the cases itself, takes a fit that no other has
taken, and leaves what it learned as a file.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict

from models.classification.cases import Cases
from models.classification.crossing import cases_without
from models.classification.fit import fit_classifier, num_steps
from models.classification.folds import CaseFolds
from models.classification.specs import ClassifierSpec
from models.errors import counted
from models.specs import FitSpec
from models.training import Checkpoint, Fitted, resolve_device
from tasks.checkpoints import Keeper, load_checkpoint, save_checkpoint
from tasks.children import be_child, failure, follow, started
from tasks.gather.opening import Folded, open_folds
from tasks.gather.task import Labelled
from tasks.progress import listener, progress, say
from tasks.storage import Store


class Job(BaseModel):
    """What is fitted, and where it is left."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    labelled: Labelled
    folds: CaseFolds
    network: ClassifierSpec
    fit: FitSpec
    checkpoints: Path  # a folder


class Lesson(NamedTuple):
    """The cases of one fit, and its seed."""

    cases: Cases
    seed: int


def fit_all(job: Job, data: Folded) -> dict[str, Fitted]:
    """One fitted classifier for each lesson, by name; what a killed run has left is not fitted again.

    Raises:
        Fault: the loss of one is no longer finite.
        ProcessLost: a process was killed.
        RuntimeError: one failed in another way.
    """
    lessons = lessons_of(job, data)
    at_once = min(len(lessons), torch.get_num_threads()) if resolve_device(job.fit.device).type == "cpu" else 1
    if at_once > 1 and not all(result_file(job, name).exists() for name in lessons):
        fit_side_by_side(job, at_once)
    return {name: fitted_before(job, name) or fit_once(job, len(data.classes), name, own) for name, own in lessons.items()}


def lessons_of(job: Job, data: Folded) -> dict[str, Lesson]:
    """What is to be fitted, the largest first: every seed on all cases, and the first one on all but a part each time."""
    training = data.cases.pick(data.of("train"))
    lessons = {f"seed-{seed}": Lesson(training, seed) for seed in job.fit.seeds}
    if not data.is_held_out:
        parts = cases_without(training, job.folds.parts)
        lessons |= {f"part-{part}": Lesson(rest, job.fit.seeds[0]) for part, rest in parts.items()}
    return lessons


def fit_side_by_side(job: Job, count: int) -> None:
    """Have every lesson fitted by so many processes, which leave files."""
    with TemporaryDirectory(prefix="convcast-") as folder:
        path = Path(folder, "job.json")
        path.write_text(job.model_dump_json(), encoding="utf-8")
        environments = [{"OMP_NUM_THREADS": str(torch.get_num_threads() // count)}] * count
        with started(__name__, path, environments) as children:
            follow(children)
            failed = [one for one in children if one.process.poll() != 0]
            if failed:
                raise failure(failed, f"{count} that fit a classifier side by side")


def work(path: Path, given: bytes, tell: Callable[[dict], None]) -> None:
    """Fit what no other process has taken, until nothing is left."""
    job = Job.model_validate_json(given)
    listener.set(lambda line: tell({"say": line}))
    data = open_folds(Store(job.store), job.labelled, job.folds)
    for name, own in lessons_of(job, data).items():
        if not result_file(job, name).exists() and taken(path.with_name(name)):
            fitted = fit_once(job, len(data.classes), name, own)
            done = Checkpoint(fitted.best_epoch, fitted.weights, fitted.history, fitted.best_epoch)
            save_checkpoint(result_file(job, name), done)


def taken(mark: Path) -> bool:
    """Whether this process is the first to leave this mark."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def result_file(job: Job, name: str) -> Path:
    return job.checkpoints / f"{name}.fitted.safetensors"


def fitted_before(job: Job, name: str) -> Fitted | None:
    done = load_checkpoint(result_file(job, name), to_go_on=False)
    return Fitted(done.tensors, done.history, done.best_epoch) if done else None


def fit_once(job: Job, num_classes: int, name: str, lesson: Lesson) -> Fitted:
    """One fitted classifier, going on from its checkpoint if a killed run left one."""
    keeper = Keeper(job.checkpoints / f"{name}.safetensors")
    resume = load_checkpoint(keeper.path)
    if resume:
        say(f"{name}: going on after epoch {resume.epoch}, step {resume.step:,}")
    last_step, _ = num_steps(job.fit, len(lesson.cases))

    def save(checkpoint: Checkpoint) -> None:  # epochs are short
        if keeper.due() or checkpoint.step == last_step:
            keeper.save(checkpoint)

    learn = partial(fit_classifier, job.network, job.fit, lesson.cases, num_classes, lesson.seed, resume)
    with progress(name, 1) as bar:
        fitted = learn(save=save, due=keeper.due)
        last = fitted.history[-1] if fitted.history else {}
        bar.advance(1, f"{counted(len(lesson.cases), 'cases')}, loss {last['train']:.4f}" if "train" in last else "")
    return fitted


if __name__ == "__main__":
    be_child(partial(work, Path(sys.argv[1])), *sys.argv[1:])
