"""Classifiers, and the cases that they are trained on, handed to other programs by the command line."""

import json

import numpy as np
import onnxruntime
import pytest
import yaml
from click.testing import CliRunner
from test_classification import make_cases, make_spec
from test_cli import convcast

from flows.cli import commands
from flows.training import training
from models.classification.cases import Cases
from tasks.promote import read_live
from tasks.storage import Store
from tasks.train_classifier import read_classifier

SMALL = {"kind": "rocket", "features": 84}


@pytest.fixture(scope="module")
def classifier(server, tmp_path_factory):
    """A folder with a spec whose classifier is live; nothing may change it."""
    folder = tmp_path_factory.mktemp("classifier")
    spec = make_spec(folder, make_cases(), network=SMALL)
    outcome = training(spec)
    assert outcome.promoted, outcome.reason
    return folder, spec


def test_the_command_writes_a_graph_that_classifies_as_the_model_does(classifier, tmp_path):
    folder, spec = classifier
    path, store = tmp_path / "made" / "model.onnx", Store(spec.store)
    said = CliRunner().invoke(commands, ["model", "export", str(folder / "waves.yaml"), "--output", str(path)])
    assert said.exit_code == 0, said.output
    live = read_live(store, "waves").model
    assert f"{live.digest[:12]} written to {path}, " in said.output
    assert "inputs            values (batch, 1, steps), lengths (batch)" in said.output
    assert "outputs           probabilities (batch, 2), label (batch)" in said.output
    assert "classes and so on metadata_props['convcast'], JSON" in said.output
    values = np.random.default_rng(0).normal(size=(5, 1, 17)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path))
    found, _ = session.run(None, {"values": values, "lengths": np.full(5, 17)})
    bundle = read_classifier(store, live)
    rows = values.transpose(0, 2, 1).reshape(-1, 1)
    cases = Cases(rows, np.arange(5) * 17, np.full(5, 17), np.zeros(5, np.int64))
    assert found == pytest.approx(bundle.probabilities(cases), abs=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["convcast"])["classes"] == ["fast", "slow"]
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_without_a_live_classifier_there_is_no_graph_and_one_sentence_says_so(tmp_path, monkeypatch, capsys):
    make_spec(tmp_path, make_cases(), network=SMALL)
    code, _, err = convcast(monkeypatch, capsys, "model", "export", tmp_path / "waves.yaml", "--output", tmp_path / "m.onnx")
    assert code == 2
    assert err.startswith("No model of 'waves' is live in ")
    assert err.count("\n") == 1
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("asked", ["forecasting", "classification"])
def test_a_model_of_the_other_task_is_refused_in_one_sentence(trained, classifier, asked, tmp_path, monkeypatch, capsys):
    folder, spec = classifier
    source, store, name = {  # a spec of each task, whose store holds a model of the other
        "forecasting": (trained.yaml, Store(spec.store), "waves"),
        "classification": (folder / "waves.yaml", trained.store, "small"),
    }[asked]
    other, path = read_live(store, name), trained.folder / "other.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(source.read_text()) | {"store": str(store.root)}))
    code, _, err = convcast(
        monkeypatch, capsys, "model", "export", path, other.model.digest[:12], "--output", tmp_path / "m.onnx"
    )
    does = "forecasting" if asked == "classification" else "classification"
    assert code == 2
    assert err.startswith(f"Model {other.model.digest[:8]} is of task: {does}, and the spec ")
    assert err.endswith(f"has task: {asked}. Name a model of this task, or the spec that it was trained with.\n")
    assert err.count("\n") == 1
    assert not (tmp_path / "m.onnx").exists()
