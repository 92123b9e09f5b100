"""The fits of a classifier, in turn or side by side in processes: the same weights, and one that fails ends them all."""

import os
import signal

import psutil
import pytest
import torch
from test_classification import make_cases, make_spec

import tasks.children
import tasks.fits
import tasks.train_classifier
from flows.training import training
from models.classification.fit import num_steps
from models.classification.specs import ResidualClassifierSpec, RocketSpec
from models.errors import Diverged
from models.specs import FitSpec
from models.training import Checkpoint, Fitted
from tasks.checkpoints import save_checkpoint, step_kept
from tasks.children import ProcessLost
from tasks.fits import (
    Job,
    PutBack,
    checkpoint_file,
    fit_all,
    fit_once,
    fit_side_by_side,
    is_long,
    lessons_of,
    result_file,
    take,
)
from tasks.gather.opening import open_folds
from tasks.gather.task import Labelled
from tasks.storage import Store
from tasks.watching import Stopped, watched_by

pytestmark = pytest.mark.usefixtures("one_thread")
LESSONS = ["seed-0", "seed-3", "part-0", "part-1", "part-2"]


@pytest.fixture(scope="module")
def source(server, tmp_path_factory):
    """A spec whose cases have been gathered, and the receipt of that."""
    spec = make_spec(tmp_path_factory.mktemp("waves"), make_cases(), fit={"epochs": 1})
    training(spec)
    return spec, Labelled.model_validate(Store(spec.store).manifests("gather")[-1]["receipt"])


@pytest.fixture(autouse=True)
def long(monkeypatch):
    """However few steps a fit takes, processes are worth while."""
    monkeypatch.setattr(tasks.fits, "OPTIMISER_STEPS", 0)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr(tasks.children, "say", lines.append)
    return lines


def make_job(source, folder, **fit) -> Job:
    spec, labelled = source
    given = {"epochs": 2, "batch_size": 8, "keep": "last", "device": "cpu", "seeds": (0, 3)} | fit
    return Job(
        store=spec.store, labelled=labelled, folds=spec.folds, network=ResidualClassifierSpec(channels=4, depth=1),
        fit=FitSpec(**given), checkpoints=folder,
    )  # fmt: skip


def cases_of(job: Job):
    return open_folds(Store(job.store), job.labelled, job.folds)


def test_a_seed_each_learns_from_all_cases_and_the_first_from_all_but_each_part(source, tmp_path):
    job = make_job(source, tmp_path)
    data = cases_of(job)
    lessons = lessons_of(job, data)
    assert list(lessons) == LESSONS
    assert [len(one.cases) for one in lessons.values()] == [24, 24, 16, 16, 16]
    assert [one.seed for one in lessons.values()] == [0, 3, 0, 0, 0]
    assert [num_steps(one.fit, len(one.cases))[0] for one in lessons.values()] == [20, 20, 14, 14, 14]  # as often each case


def test_side_by_side_every_fit_is_what_it_is_in_turn(source, tmp_path, said):
    one, two = make_job(source, tmp_path / "one"), make_job(source, tmp_path / "two")
    in_turn = fit_all(one, cases_of(one))
    torch.set_num_threads(2)  # one_thread puts it back
    beside = fit_all(two, cases_of(two))
    assert list(in_turn) == list(beside) == LESSONS
    for name, fitted in in_turn.items():
        assert fitted.history == beside[name].history
        assert all(torch.equal(value, beside[name].weights[name_]) for name_, value in fitted.weights.items())
    assert sorted(line.partition(" ")[0] for line in said) == sorted(LESSONS)


def test_fits_that_end_before_a_process_has_begun_are_done_in_turn(source, tmp_path, monkeypatch):
    monkeypatch.undo()
    job, longer = make_job(source, tmp_path), make_job(source, tmp_path, epochs=20)
    lessons = lessons_of(job, cases_of(job))
    assert not is_long(job, lessons)  # twice ten steps for each seed, and about that for each part
    assert is_long(longer, lessons_of(longer, cases_of(longer)))
    rocket = job.model_copy(update={"network": RocketSpec()})
    assert not is_long(rocket, lessons)
    assert is_long(rocket.model_copy(update={"network": RocketSpec(features=10_000_000)}), lessons)


def test_a_fit_that_is_put_back_goes_on_in_the_same_bytes_and_says_nothing_of_it(source, tmp_path, monkeypatch):
    job, said = make_job(source, tmp_path / "pieces"), []
    whole = make_job(source, tmp_path / "whole")
    monkeypatch.setattr(tasks.fits, "say", said.append)
    data = cases_of(job)
    own = lessons_of(job, data)["part-1"]
    with pytest.raises(PutBack):
        fit_once(job, data, "part-1", own, until=3)
    assert step_kept(checkpoint_file(job, "part-1")) == 7  # at the end of the epoch
    fitted, in_one_go = fit_once(job, data, "part-1", own, until=14, is_new=False), fit_once(whole, data, "part-1", own)
    assert fitted.history == in_one_go.history
    assert all(torch.equal(value, in_one_go.weights[name]) for name, value in fitted.weights.items())
    assert said == []


def test_what_there_is_to_warn_of_is_said_of_the_fit_that_it_is_about(source, tmp_path, monkeypatch):
    job, said = make_job(source, tmp_path), []
    monkeypatch.setattr(tasks.fits, "say", said.append)
    monkeypatch.setattr(tasks.fits, "fit_classifier", lambda *_, warn, **__: warn("out of memory") or Fitted({}, [], 0))
    data = cases_of(job)
    fit_once(job, data, "part-1", lessons_of(job, data)["part-1"])
    assert said == ["part-1: out of memory"]


def test_a_training_says_where_it_has_misgivings_of_its_precision(server, tmp_path, monkeypatch):
    said, heard = [], []
    told = lambda precision, device: heard.append((precision, device.type)) or "slow here"  # noqa: E731
    monkeypatch.setattr(tasks.train_classifier, "misgiving", told)
    monkeypatch.setattr(tasks.train_classifier, "say", said.append)
    training(make_spec(tmp_path, make_cases(), fit={"epochs": 1, "precision": "float32", "device": "cpu"}))
    assert set(heard) == {("float32", "cpu")}
    assert "slow here" in said


def test_a_process_takes_half_of_the_fit_of_which_most_is_left(source, tmp_path):
    job = make_job(source, tmp_path / "kept").model_copy(update={"processes": 2})
    lessons, folder = lessons_of(job, cases_of(job)), tmp_path
    first = [take(job, lessons, folder) for _ in range(3)]
    assert first == [("seed-0", 10), ("seed-3", 10), ("part-2", 7)]  # the cases of this part are longer
    (folder / "seed-0").unlink()
    save_checkpoint(checkpoint_file(job, "seed-0"), Checkpoint(1, {}, [], 1, step=10))
    then = {take(job, lessons, folder)[0] for _ in range(2)}
    assert then == {"part-0", "part-1"}  # of which 14 steps are left, 10 of the other
    for name in ("seed-3", "part-0", "part-1"):
        save_checkpoint(result_file(job, name), Checkpoint(1, {}, [], 1))
    (folder / "part-2").unlink()
    assert take(job, lessons, folder) == ("part-2", 14)  # to its end, since there is one for each process
    assert take(job, lessons, folder) == ("seed-0", 20)
    assert take(job, lessons, folder) is None


def test_where_somebody_watches_each_fit_is_done_in_one_go_and_the_parts_are_first(source, tmp_path):
    job = make_job(source, tmp_path / "kept").model_copy(update={"processes": 2, "watched": True})
    lessons = lessons_of(job, cases_of(job))
    assert [take(job, lessons, tmp_path) for _ in range(4)] == [
        ("part-0", 14), ("part-1", 14), ("part-2", 14), ("seed-0", 20),
    ]  # fmt: skip


def test_what_was_fitted_before_a_kill_is_not_fitted_again(source, tmp_path, said):
    job = make_job(source, tmp_path)
    torch.set_num_threads(2)
    first = fit_all(job, cases_of(job))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.fitted.safetensors")}
    assert len(before) == 5
    result_file(job, "part-1").unlink()
    said.clear()
    again = fit_all(job, cases_of(job))
    assert [line.partition(" ")[0] for line in said] == ["part-1:", "part-1"]  # from its checkpoint
    assert all(path.stat().st_mtime_ns == at for path, at in before.items() if "part-1" not in path.name)
    assert all(torch.equal(value, first["part-1"].weights[name]) for name, value in again["part-1"].weights.items())


def test_what_a_fit_finds_wrong_is_raised_in_its_own_words(source, tmp_path, said):
    job = make_job(source, tmp_path, learning_rate=1e18, clip_norm=None)
    with pytest.raises(Diverged, match=r"oss became (inf|nan) at epoch 1, step \d+; no epoch was finished"):
        fit_side_by_side(job, 2)
    assert not children_of()


@pytest.mark.kills
def test_a_process_that_is_killed_fails_the_step_and_the_next_run_goes_on(source, tmp_path, monkeypatch):
    job, killed = make_job(source, tmp_path), []

    def kill_one(line):
        if not killed:
            killed.append(children_of()[0])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(tasks.children, "say", kill_one)
    with pytest.raises(ProcessLost, match=r"^Process \d of 2 that fit a classifier side by side was ended by SIGKILL"):
        fit_side_by_side(job, 2)
    assert not children_of()
    monkeypatch.setattr(tasks.children, "say", lambda line: None)
    fit_side_by_side(job, 2)
    assert all(result_file(job, name).exists() for name in LESSONS)


def test_whoever_watches_sees_every_part_also_those_that_were_fitted_before(source, tmp_path, said):
    seen = []

    def watch(seed, entry, parts):
        seen.append((seed, entry["epoch"], parts, entry["validation"]))

    def watched(folder) -> list[tuple]:
        seen.clear()
        job = make_job(source, folder).model_copy(update={"watched": True})
        with watched_by(watch):
            fit_all(job, cases_of(job))
        return list(seen)

    torch.set_num_threads(1)  # whatever a test before left
    in_turn = watched(tmp_path / "one")
    assert [one[:3] for one in in_turn] == [(0, 1, 3), (0, 2, 3), (0, 3, 3)]
    torch.set_num_threads(2)
    for again in (sorted(watched(tmp_path / "two")), watched(tmp_path / "two")):
        assert [one[:3] for one in again] == [one[:3] for one in in_turn]
        assert [one[3] for one in again] == pytest.approx([one[3] for one in in_turn], rel=1e-5)  # threads round differently


def test_parts_come_before_all_else_where_somebody_watches(source, tmp_path):
    job = make_job(source, tmp_path).model_copy(update={"watched": True})
    assert list(lessons_of(job, cases_of(job))) == LESSONS[2:] + LESSONS[:2]


def test_a_training_that_is_stopped_ends_its_processes_and_leaves_nothing(source, tmp_path, said):
    def stop(seed, entry, parts):
        raise Stopped("enough")

    job = make_job(source, tmp_path / "job").model_copy(update={"watched": True})
    torch.set_num_threads(2)
    with watched_by(stop), pytest.raises(Stopped, match="enough"):
        fit_all(job, cases_of(job))
    assert not children_of()
    assert not job.checkpoints.exists()


def children_of() -> list[int]:
    """The processes of this one that fit."""
    return [one.pid for one in psutil.Process().children() if "tasks.fits" in " ".join(one.cmdline())]
