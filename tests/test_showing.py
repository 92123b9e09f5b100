import json

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from flows.cli import commands
from flows.showing import find_model, showing
from models.errors import Fault
from tasks.promote import read_live
from tasks.train import read_bundle


def test_the_live_model_is_shown_with_what_it_forecasts_and_is_made_of(trained):
    live = read_live(trained.store, "small").forecaster()
    shown = showing(trained.spec, None)
    assert (shown.digest, shown.live, shown.num_series) == (live.digest, True, 1)
    assert [(part.form, part.seeds, part.num_parameters) for part in shown.members] == [
        ("residual-channels8-depth6", (0,), live.num_parameters)
    ]
    assert shown.windows == live.windows


def test_a_model_is_found_by_the_first_letters_of_its_digest(trained):
    live = read_live(trained.store, "small").forecaster()
    assert find_model(trained.store, live.digest[:4]) == live
    assert showing(trained.spec, live.digest) == showing(trained.spec, None)
    with pytest.raises(Fault, match=rf"has no model zzzz; it has .*{live.digest[:12]}"):
        find_model(trained.store, "zzzz")
    with pytest.raises(Fault, match=r"^'abc' is too short to name a model; give 4 letters"):
        find_model(trained.store, "abc")


def test_several_models_that_begin_alike_are_named(trained, monkeypatch):
    live = read_live(trained.store, "small").forecaster().model_dump(mode="json")
    twins = [{"receipt": live | {"digest": "abcd" + letter * 60}} for letter in "ef"]
    monkeypatch.setattr(type(trained.store), "manifests", lambda store, step: twins)
    with pytest.raises(Fault, match=r"^Several models begin with abcd: abcdeeee.*, abcdffff.*\. Give more letters\.$"):
        find_model(trained.store, "abcd")


def test_without_a_live_model_the_command_says_so(server, case):
    with pytest.raises(Fault, match=r"^No model of 'small' is live in .*Run convcast train first, or name a digest\.$"):
        showing(case.spec, None)


def test_the_command_prints_lines_for_a_person_and_an_object_for_a_script(trained):
    said = CliRunner().invoke(commands, ["model", "show", str(trained.yaml)])
    assert said.exit_code == 0
    assert "forecasts         load, 24 steps ahead, a step every h" in said.output
    assert "known ahead       temperature" in said.output
    assert "network           residual-channels8-depth6, " in said.output
    told = CliRunner().invoke(commands, ["model", "show", str(trained.yaml), "--json"])
    assert json.loads(told.output) == showing(trained.spec, None).model_dump(mode="json")


def test_the_command_writes_a_graph_that_forecasts_as_the_model_does(trained):
    path = trained.folder / "made" / "model.onnx"
    said = CliRunner().invoke(commands, ["model", "export", str(trained.yaml), "--output", str(path)])
    assert said.exit_code == 0, said.output
    bundle = read_bundle(trained.store, read_live(trained.store, "small").forecaster())
    assert said.output.startswith(f"{showing(trained.spec, None).digest[:12]} written to {path}, ")
    assert "inputs            past (batch, 72, 2), future (batch, 24, 1), series (batch)" in said.output
    rows = np.random.default_rng(0).normal(size=(5, 96, 2)).astype(np.float32)
    fed = {"past": rows[:, :72], "future": rows[:, 72:, 1:], "series": np.ones(5, np.int64)}
    forecast, _ = onnxruntime.InferenceSession(str(path)).run(None, fed)
    assert forecast == pytest.approx(bundle.forecast(*map(torch.from_numpy, fed.values())), abs=1e-5)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    told = CliRunner().invoke(commands, ["model", "export", str(trained.yaml), "--output", str(path), "--json"])
    assert json.loads(told.output)["path"] == str(path)


def test_a_damaged_model_is_refused_by_name(trained):
    live = read_live(trained.store, "small").forecaster()
    trained.store.file(live, "bundle.json").write_text("{}")
    with pytest.raises(Fault, match=rf"^Model {live.digest[:8]} is not whole any more"):
        showing(trained.spec, None)
