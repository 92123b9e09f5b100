"""Classifiers, and the cases that they are trained on, handed to other programs by the command line."""

import json

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from test_classification import make_cases, make_spec
from test_cli import convcast

from flows.cli import commands
from flows.exporting import write_batches
from flows.training import training
from models.classification.cases import Cases
from models.errors import Fault
from tasks.gather import export
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
    live = read_live(store, "waves").forecaster()
    assert f"{live.digest[:12]} written to {path}, " in said.output
    assert "inputs            values (batch, 1, steps), lengths (batch)" in said.output
    assert "outputs           probabilities (batch, 2), label (batch)" in said.output
    assert "classes, channels metadata_props['convcast'], JSON" in said.output
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


def exported(monkeypatch, capsys, path, out, fold="train"):
    """Exit code, stdout and the table, or what stderr ends with where there is none."""
    code, told, err = convcast(monkeypatch, capsys, "windows", "export", path, "--out", out, "--fold", fold)
    return code, told, pd.read_parquet(out) if code == 0 else err.splitlines()[-1]


def test_cases_are_exported_a_row_each_with_their_values_as_they_were_given(server, tmp_path, monkeypatch, capsys):
    frame = make_cases()
    frame["y"] = 1e6 + frame["step"]
    frame.loc[(frame["case"] == "c03") & (frame["step"] == 2), "y"] = np.nan
    frame["fold"] = frame["case"].map(lambda case: {"0": "train", "1": "validation", "2": "test"}[case[1]])
    make_spec(tmp_path, frame, source={"split": "fold", "missing": "mask"})
    tables = []
    # Values of a batch: of several cases, of fewer than a case has, of all cases.
    for fold, at_once in (("train", 100), ("validation", 30), ("test", 1 << 20)):
        monkeypatch.setattr(export, "AT_ONCE", at_once)
        out = tmp_path / "made" / f"{fold}.parquet"
        code, told, table = exported(monkeypatch, capsys, tmp_path / "waves.yaml", out, fold)
        assert (code, told) == (0, f"10 cases written to {out}\n")
        assert list(table.columns) == ["series_id", "origin", "label", "fold", "length", "x", "y"]
        assert table["origin"].isna().all()
        assert set(table["fold"]) == {fold}
        tables.append(table)
    assert sorted(file.name for file in out.parent.iterdir()) == ["test.parquet", "train.parquet", "validation.parquet"]
    table = pd.concat(tables)
    assert table["series_id"].tolist() == [f"c{number:02d}" for number in range(30)]
    for case, own in frame.groupby("case"):
        row = table[table["series_id"] == case].iloc[0]
        assert (row["label"], row["length"]) == (own["label"].iloc[0], len(own))
        for channel in ("x", "y"):
            assert row[channel] == pytest.approx(own[channel].to_numpy(np.float32), nan_ok=True)
    values = pq.read_table(tmp_path / "made" / "train.parquet")["y"].to_pylist()
    assert values[3][1:4] == [1e6 + 1, None, 1e6 + 3]


def test_windows_of_a_stream_are_exported_with_their_origin(server, tmp_path, monkeypatch, capsys):
    steps = np.arange(300)
    frame = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=300, freq="10min"), "x": steps * 0.5})
    frame["state"] = np.where(steps // 10 % 2, "on", "off")
    source = {"uri": "stream.csv", "timestamp": "when", "label": "state", "case": None, "step": None}
    make_spec(tmp_path, frame, "stream", source=source, windows={"lookback": 12, "stride": 4}, network=SMALL)
    out = tmp_path / "windows.parquet"
    code, told, table = exported(monkeypatch, capsys, tmp_path / "stream.yaml", out, "validation")
    assert (code, told) == (0, f"{len(table)} windows written to {out}\n")
    assert len(table) > 5
    for _, row in table.iterrows():
        last = int(frame.index[frame["when"] == row["origin"].tz_localize(None)][0])
        assert row["x"].tolist() == (steps[last - 11 : last + 1] * 0.5).tolist()
        assert (row["label"], row["length"], row["fold"]) == (frame["state"][last], 12, "validation")
        assert last - 11 >= 180
        assert last < 240


def test_where_cases_are_cross_validated_no_validation_fold_is_made_up(classifier, tmp_path, monkeypatch, capsys):
    folder, _ = classifier
    out = tmp_path / "cases.parquet"
    code, _, said = exported(monkeypatch, capsys, folder / "waves.yaml", out, "validation")
    assert code == 2
    assert said == (
        "'waves' has no validation fold: its 24 cases to train on are cross-validated in 3 parts. "
        "Export --fold train, or set folds.validation."
    )
    assert not out.exists()


def test_a_table_takes_its_name_only_once_it_is_whole(tmp_path):
    def two_batches_and_a_fault():
        for number in (1, 2):
            yield pa.record_batch({"x": [number]})
        raise Fault("no more")

    (tmp_path / "out.parquet").write_text("before")
    with pytest.raises(Fault, match="no more"):
        write_batches(two_batches_and_a_fault(), tmp_path / "out.parquet")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("out.parquet", "before")]


def test_a_channel_that_is_called_as_another_column_is_refused_by_name(server, tmp_path, monkeypatch, capsys):
    make_spec(tmp_path, make_cases().rename(columns={"x": "length"}))
    out = tmp_path / "made" / "cases.parquet"
    code, _, said = exported(monkeypatch, capsys, tmp_path / "waves.yaml", out)
    assert code == 2
    assert said.startswith(
        "The table has columns series_id, origin, label, fold, length of its own, and the source has channels"
    )
    assert "called so too: length. Rename" in said
    assert not list(out.parent.glob("*"))
