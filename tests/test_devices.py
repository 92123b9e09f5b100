"""Training in several processes: as good as one, reproducible, and over cleanly once a process is gone."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from pydantic import ValidationError

import models.fit
import models.parallel
import tasks.children
import tasks.train
from flows.spec import check_networks
from flows.training import training
from models.batches import TensorBlocks
from models.bundle import Bundle
from models.errors import Diverged, Fault
from models.fit import fit
from models.networks import build_network
from models.parallel import Team, check_devices
from models.scaling import Scaler, ScalingSpec, SeriesScale
from models.series import Columns, SeriesFacts
from models.specs import FitSpec, LinearSpec, ResidualSpec
from models.windows import FoldSpec, WindowSpec
from tasks.checkpoints import last_of
from tasks.children import Child, ProcessLost, failure
from tasks.devices import environment, train_together
from tasks.policy import may_pass
from tasks.rank import Job
from tasks.seeds import fit_seeds
from tasks.train import Model, describe_bundle, fit_together, read_bundle
from tasks.watching import Stopped, watched_by
from tasks.windows.files import SeriesRows, write_windows
from tasks.windows.folds import WindowSet

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("one_thread")
MASKED = Columns(masked=True)
PLAIN = {"dropout": 0, "noise": 0}  # what each process would draw for itself
CPU = torch.device("cpu")


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr(tasks.children, "say", lines.append)
    return lines


def make_job(folder, name="checkpoints", devices=2, network=None, **fit) -> Job:
    """Windows of a noisy wave, a third of it masked and more so at its begin, and how to learn from them."""
    path, windows, num_rows = folder / f"{name}.parquet", WindowSpec(lookback=96, horizon=4), 400
    rng = np.random.default_rng(0)
    target = np.sin(np.arange(num_rows) * 2 * np.pi / 24) + rng.normal(0, 0.1, num_rows)
    seen = rng.random(num_rows) > np.linspace(0.6, 0.1, num_rows)
    rows = np.stack([target, seen], 1).astype(float)
    write_windows(path, [SeriesRows("a", 0, np.arange(num_rows), rows)], MASKED, windows)
    scale = SeriesScale(mean=(0.0, 0.0), std=(1.0, 1.0), naive_mae=1, steps=num_rows)
    # By squares, as rounding may turn the sign of an error that is nearly zero, and mae learns from signs.
    fit = {"epochs": 2, "batch_size": 31, "loss": "mse", "clip_norm": 1.0, "average": 0.9, "device": "cpu"} | fit
    return Job(
        files=(path,), scaler=Scaler(channels=MASKED.names, season=24, scaling=ScalingSpec(kind="none"), series={"a": scale}),
        folds=FoldSpec(validation=40, test=40), network=ResidualSpec(channels=4, **(PLAIN if network is None else network)),
        facts=SeriesFacts(target="y", columns=MASKED, frequency="h", season=24, timezone="UTC"),
        fit=FitSpec(**fit, devices=devices), checkpoints=folder / name,
    )  # fmt: skip


def cut_of(job):
    return WindowSet(list(job.files), job.scaler, job.folds)


def fit_job(job, start=None, fold="train"):
    learn = fit_seeds if job.fit.devices == 1 else fit_together
    return learn(cut_of(job), job.facts, job.network, job.fit, job.checkpoints, start, fold)


def check_close(first, second):
    for own, other in zip(first, second, strict=True):
        assert own.best_epoch == other.best_epoch
        for one, two in zip(own.history, other.history, strict=True):
            assert one == pytest.approx(two, rel=1e-5)
        for name, value in own.weights.items():
            torch.testing.assert_close(value, other.weights[name], rtol=1e-4, atol=1e-5)


def ranks_of(parent: int | None = None) -> dict[str, psutil.Process]:
    children = psutil.Process(parent).children()
    return {one.environ()["RANK"]: one for one in children if "tasks.rank" in one.cmdline()}


def test_two_processes_learn_what_one_does_from_masked_windows_and_odd_batches(tmp_path, said):
    seeds = {"seeds": (0, 1), "batch_size": 55}  # of 221 windows, so that a pass ends with a batch of one
    job = make_job(tmp_path, "two", **seeds)
    check_close(fit_job(job), fit_job(make_job(tmp_path, "one", devices=1, **seeds)))
    assert said[0] == "221 windows to train on, 37 to validate"
    assert [line.partition(":")[0] for line in said[1:]] == [f"seed {s} epoch {e}/2" for s in (0, 1) for e in (1, 2)]


def test_two_processes_begin_with_the_weights_of_the_live_model_as_one_does(tmp_path, said):
    before = make_job(tmp_path, "before", devices=1)
    about = describe_bundle(cut_of(before), before.facts, before.network, before.fit, [])
    start = Bundle(about, [[fit_job(before)[0].weights]])
    two = fit_job(make_job(tmp_path, "two", init="live"), start)
    assert said[1] == "seed 0: begins with the weights of the live model's residual-channels4-dropout0.0-noise0.0"
    check_close(two, fit_job(make_job(tmp_path, "one", devices=1, init="live"), start))


def test_two_processes_go_on_to_the_rows_of_all_folds_as_one_does(tmp_path, said):
    before = make_job(tmp_path, "before", devices=1)
    about = describe_bundle(cut_of(before), before.facts, before.network, before.fit, [])
    start, further = Bundle(about, [[fit_job(before)[0].weights]]), {"init": "live", "keep": "last"}
    del said[:]
    two = fit_job(make_job(tmp_path, "two", **further), start, "all")
    assert said[0] == "301 windows to train on, all that there are"
    assert [set(entry) for entry in two[0].history] == [{"epoch", "step", "train"}] * 2
    check_close(two, fit_job(make_job(tmp_path, "one", devices=1, **further), start, "all"))


def test_torchrun_starts_the_same_processes(tmp_path):
    job = make_job(tmp_path, "two")
    tmp_path.joinpath("job.json").write_text(job.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tasks.rank"]
    run = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | {
        name: value for name, value in environment(0, 2, 0).items() if name.endswith("IFNAME")
    }
    done = subprocess.run([*command, str(tmp_path / "job.json")], env=run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    check_close([last_of(job.checkpoints, 0)], fit_job(make_job(tmp_path, "one", devices=1)))


@pytest.mark.kills
def test_a_killed_process_ends_the_others_and_a_retry_goes_on_to_the_same_bytes(server, case, monkeypatch):
    """The flow with noise and dropout, its second process killed once there are two checkpoints."""
    jobs, told = [], []

    def listen(line):
        told.append((line, time.monotonic()))
        if "epoch 2/8" in line and len(jobs) == 1:
            ranks_of()["1"].kill()

    def watched(job, original=train_together):
        jobs.append(job)
        try:
            original(job)
        except ProcessLost as error:
            assert not ranks_of()
            told.append((str(error), time.monotonic()))
            raise

    monkeypatch.setattr(tasks.children, "say", listen)
    monkeypatch.setattr(tasks.train, "train_together", watched)
    monkeypatch.setattr(tasks.train.train, "task", tasks.train.train.task.with_options(retry_delay_seconds=0.01))
    case.write_spec(fit__devices=2, fit__max_steps=320, fit__steps_per_epoch=40, fit__schedule="one_cycle")
    training(case.spec)
    lines = [line for line, _ in told]
    (lost,) = [at for at, line in enumerate(lines) if line.startswith("Process 2 of 2 that train together")]
    assert "was ended by SIGKILL" in lines[lost]
    assert told[lost][1] - next(at for line, at in told if "epoch 2/8" in line) < 20
    assert lines[lost + 2].startswith("seed 0: going on after epoch ")
    assert sum("epoch 8/8" in line for line in lines) == 1
    model = Model.model_validate(case.store.manifests("train")[0]["receipt"])
    ((retried,),) = read_bundle(case.store, model).weights
    (undisturbed,) = fit_job(jobs[0].model_copy(update={"checkpoints": case.folder / "undisturbed"}))
    assert retried.keys() == undisturbed.weights.keys()
    assert all(torch.equal(value, undisturbed.weights[name]) for name, value in retried.items())
    assert [entry.state for entry in training(case.spec).tasks if entry.step == "train"] == ["Cached"]


def test_what_a_process_finds_wrong_is_raised_in_its_own_words(tmp_path, said):
    with pytest.raises(Diverged, match=r"oss became (inf|nan) at epoch 1, step \d; no epoch was finished"):
        fit_job(make_job(tmp_path, learning_rate=1e18, clip_norm=None))
    assert not ranks_of()


def test_whoever_watches_can_stop_the_processes(tmp_path, said):
    seen = []

    def watcher(seed, entry, epochs):
        seen.append((seed, entry["epoch"], epochs))
        if len(seen) == 2:
            raise Stopped("enough")

    with pytest.raises(Stopped, match="enough"), watched_by(watcher):
        fit_job(make_job(tmp_path, epochs=100_000))
    assert seen == [(0, 1, 100_000), (0, 2, 100_000)]
    assert not ranks_of()


PARENT = """
import sys, tasks.children, tasks.devices
from tasks.rank import Job
tasks.children.say = lambda line: print(line, flush=True)
tasks.devices.train_together(Job.model_validate_json(open(sys.argv[1]).read()))
"""


def test_processes_end_with_the_one_that_started_them(tmp_path):
    path = tmp_path / "job.json"  # of an epoch so long that they have nothing to say meanwhile
    path.write_text(make_job(tmp_path, epochs=1, steps_per_epoch=10_000_000).model_dump_json())
    run = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(path)], env=run, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout.readline() == "221 windows to train on, 37 to validate\n"
        children = list(ranks_of(parent.pid).values())
    finally:
        parent.kill()
        parent.communicate()
    assert len(children) == 2
    left = psutil.wait_procs(children, timeout=10)[1]
    for one in left:
        one.kill()
    assert not left


def test_every_window_of_a_batch_is_in_one_share_unless_there_are_too_few():
    team = [Team(rank, 3) for rank in range(3)]
    assert [one.share(torch.arange(8)).tolist() for one in team] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [one.share(torch.arange(2)).tolist() for one in team] == [[0, 1]] * 3
    assert Team().share(torch.arange(8)).tolist() == list(range(8))


def test_each_process_and_step_draws_its_own_noise_and_one_by_itself_draws_on():
    drawn = set()
    for rank in range(2):
        for step in range(3):
            Team(rank, 2).seed(0, step)
            drawn.add(torch.rand(1).item())
    assert len(drawn) == 6
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = torch.rand(1)
    Team().seed(0, 1)
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)


def test_only_the_first_process_validates_and_all_hear_its_loss(monkeypatch):
    heard = []

    def exchange(collective, tensor, *root):
        if collective is dist.broadcast and tensor.numel() == 1:
            heard.append(tensor.fill_(0.25))

    monkeypatch.setattr(models.parallel, "exchange", exchange)
    monkeypatch.setattr(models.fit, "validation_loss", lambda *given: pytest.fail("the second process validated"))
    blocks, windows = TensorBlocks([torch.randn(60, 1)], 16), WindowSpec(lookback=12, horizon=4)
    build = partial(build_network, LinearSpec(), Columns(), windows, 1)
    fitted = fit(build, blocks, blocks, Columns(), windows, FitSpec(epochs=2, device="cpu"), 0, team=Team(1, 2))
    assert [entry["validation"] for entry in fitted.history] == [0.25, 0.25]
    assert len(heard) == 2


class Ended:
    def __init__(self, status):
        self.returncode = status

    def poll(self):
        return self.returncode


@pytest.mark.parametrize(
    ("each", "kind", "message"),
    [
        # (status, what it said of itself) of both processes; None is still there
        ([(1, ("PeerLost", "closed")), (-9, None)], ProcessLost, r"^Process 2 of 2 .* was ended by SIGKILL"),
        ([(1, ("Fault", "Loss became nan")), (1, ("PeerLost", "closed"))], Fault, r"^Loss became nan$"),
        ([(1, ("PeerLost", "closed")), (1, ("Diverged", "Loss became nan"))], Diverged, r"^Loss became nan$"),
        ([(None, None), (1, ("OutOfMemoryError", "full"))], torch.OutOfMemoryError, r"^Process 2 of 2 .*: full$"),
        ([(1, ("PeerLost", "time-out")), (None, None)], ProcessLost, r"^Process 1 of 2 .* heard no more .*: time-out\."),
        ([(1, ("KeyError", "'a'")), (1, ("PeerLost", ""))], RuntimeError, r"^Process 1 of 2 .* failed: KeyError: 'a'$"),
        ([(1, None), (None, None)], RuntimeError, r"^Process 1 of 2 .* failed: died: the last of two lines$"),
    ],
)
def test_of_several_that_failed_the_cause_is_named_and_only_what_may_pass_is_retried(tmp_path, each, kind, message):
    errors = tmp_path / "rank.log"
    errors.write_text("one line\nthe last of two lines\n")
    children = [Child(at, Ended(status), errors, failed=failed) for at, (status, failed) in enumerate(each, 1)]
    error = failure(children, "2 that train together (fit.devices)")
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error
    assert may_pass(error) == (kind in (ProcessLost, torch.OutOfMemoryError))


def test_more_devices_than_there_are_is_refused_before_anything_runs(case, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    case.write_spec(fit__devices=2)
    check_networks(case.spec)
    case.write_spec(fit__devices=3)
    with pytest.raises(Fault, match=r"^fit\.devices is 3 but this machine has 2 cores, .* Use fit\.devices: 2\.$"):
        check_networks(case.spec)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(Fault, match=r"^fit\.devices is 2 but .* has 1 CUDA device, .* Use .*: 1 or fit\.device: cpu\.$"):
        check_devices(2, torch.device("cuda"))
    check_devices(1, torch.device("cuda"))


def test_a_batch_has_a_window_for_each_device():
    with pytest.raises(ValidationError, match=r"fit\.batch_size 2 leaves some of fit\.devices 3 without a window"):
        FitSpec(epochs=1, batch_size=2, devices=3)
