"""The checkpoints of a training: when they are due, and which are believed."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tasks.checkpoints
from models.errors import counted
from models.training import Checkpoint
from tasks.checkpoints import FORMAT, SECONDS, Keeper, load_checkpoint, save_checkpoint


def checkpoint(step=7) -> Checkpoint:
    tensors = {"network.w": torch.ones(4), "losses": torch.tensor([0.5]), "random.cpu": torch.get_rng_state()}
    return Checkpoint(2, tensors, [{"epoch": 1}, {"epoch": 2}], best_epoch=1, step=step)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr(tasks.checkpoints, "say", lines.append)
    return lines


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    path, written = tmp_path / "seed-0.safetensors", checkpoint()
    save_checkpoint(path, written)
    read = load_checkpoint(path)
    assert read.tensors.keys() == written.tensors.keys()
    assert all(torch.equal(read.tensors[name], value) for name, value in written.tensors.items())
    assert (read.epoch, read.step, read.best_epoch, read.history) == (2, 7, 1, written.history)


def test_a_checkpoint_of_another_number_of_threads_is_gone_on_from_and_that_is_said(tmp_path, said, monkeypatch):
    path = tmp_path / "seed-0.safetensors"
    save_checkpoint(path, checkpoint())
    assert load_checkpoint(path).step == 7
    assert said == []
    before = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: before + 1)
    assert load_checkpoint(path).step == 7
    assert said == [
        f"seed-0.safetensors was made on {counted(before, 'threads')}, this is {before + 1}; "
        "the last digits of the weights may differ"
    ]


def test_a_checkpoint_is_due_a_minute_after_the_last_one(tmp_path):
    now = 1000.0
    keeper = Keeper(tmp_path / "seed-0.safetensors", clock=lambda: now)
    assert SECONDS == 60
    assert not keeper.due()
    now += 59.9
    assert not keeper.due()
    now += 0.1
    assert keeper.due()
    assert keeper.due()  # until one is saved
    keeper.save(checkpoint())
    assert not keeper.due()
    now += 60
    assert keeper.due()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": FORMAT + 1}, rf"has format {FORMAT + 1}, torch .*; this program has {FORMAT}, "),
        ({"format": None}, rf"has format 1, torch .*; this program has {FORMAT}, "),  # the first ones did not say
        ({"torch": "1.0"}, r"has format \d, torch 1\.0; this program has "),
        ({"colour": "red"}, r"unexpected keyword argument 'colour'"),
    ],
)
def test_a_checkpoint_of_another_version_is_not_read_and_that_is_said(tmp_path, said, changed, message):
    path = tmp_path / "seed-0.safetensors"
    save_checkpoint(path, checkpoint())
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["checkpoint"]) | changed
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    about = {name: value for name, value in about.items() if value is not None}
    save_file(tensors, path, {"checkpoint": json.dumps(about)})
    assert load_checkpoint(path) is None
    (line,) = said
    assert line.startswith("seed-0.safetensors can not be used (")
    assert line.endswith("); training begins anew")
    assert re.search(message, line)
