"""A classifier that goes live has gone on to all cases with a label; those whose label is known, the one before it labels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from labelled import waves
from test_classification import labels_of, make_cases, make_spec

from flows.class_console import print_labelled, print_trained_classifier
from flows.explaining import explaining
from flows.forecasting import forecasting
from flows.model_console import print_classifier
from flows.showing import showing
from flows.training import training
from models.classification.bundle import ClassDescription, Classifier, ClassMember
from models.classification.choice import Blend
from models.classification.fit import fit_classifier
from models.classification.scaling import shape_of
from models.classification.specs import ResidualClassifierSpec, recipe
from models.networks import FitSettings
from models.specs import FitSpec
from tasks.checkpoints import Keeper
from tasks.gather.opening import open_folds
from tasks.gather.task import Labelled
from tasks.progress import listener
from tasks.promote import read_live
from tasks.refit_classifier import RATE, SHARE, go_on, going_on
from tasks.storage import Store
from tasks.train_classifier import read_classifier

pytestmark = pytest.mark.usefixtures("one_thread")
NET = ResidualClassifierSpec(channels=4, depth=1)


def step_of(outcome, name):
    return {entry.step: entry.state for entry in outcome.tasks}.get(name)


@pytest.fixture(scope="module")
def trained(server, tmp_path_factory):
    """A spec whose classifier has gone live, and what the run said; not to be changed."""
    spec = make_spec(tmp_path_factory.mktemp("waves"), make_cases(), fit={"epochs": 4, "seeds": [0, 1]})
    return spec, training(spec)


def test_a_net_goes_on_for_a_quarter_of_its_steps_at_a_tenth_of_its_rate_as_it_was_fitted():
    own = FitSpec(epochs=8, steps_per_epoch=10, learning_rate=0.02, schedule="one_cycle", weight_decay=0.3, device="cuda")
    member = ClassMember(network=NET, seeds=(0,))
    further = going_on({"fit": own.model_dump(mode="json")}, member, 30, FitSettings())
    assert (further.max_steps, further.steps_per_epoch, further.epochs) == (SHARE * 80, 10, None)
    assert further.learning_rate == pytest.approx(RATE * 0.02)
    assert (further.weight_decay, further.device) == (0.3, "auto")
    assert going_on({"fit": own.model_dump(mode="json")}, member, 30, FitSettings(device="cpu")).device == "cpu"
    assert going_on({}, member, 30, FitSettings()).weight_decay == recipe(NET, FitSettings()).weight_decay


def test_what_goes_live_has_other_weights_and_else_is_the_model_that_was_scored(trained, capsys):
    spec, outcome = trained
    store = Store(spec.store)
    live = read_live(store, "waves")
    assert step_of(outcome, "refit_classifier") == "Completed"
    assert (live.model.digest, live.refitted.digest) == (outcome.model, outcome.refitted)
    before, after = (read_classifier(store, one) for one in (live.model, live.refitted))
    for seeds, others in zip(before.weights, after.weights, strict=True):
        assert len(seeds) == 2
        for own, other in zip(seeds, others, strict=True):
            assert own.keys() == other.keys()
            assert not torch.equal(own["head.weight"], other["head.weight"])
    net = [next(seeds[0] for seeds in one.weights if "steepness" in seeds[0]) for one in (before, after)]
    assert torch.equal(net[0]["steepness"], net[1]["steepness"])  # cases are seen as they were
    assert 0 < (net[0]["head.weight"] - net[1]["head.weight"]).abs().max() < 0.1  # a little
    assert before.description.model_copy(update={"shares": (0.5, 0.5)}) == after.description
    assert live.refitted.num_cases == {"train": 30, "validation": 0, "test": 0}
    assert not list(Path(spec.store).glob("checkpoints/*"))
    page = Path(outcome.report).read_text(encoding="utf-8")
    assert "what labels has gone on learning from all cases with a label" in page
    print_trained_classifier(outcome, Path("waves.yaml"))
    assert f"on all 30 cases with a label, as {outcome.refitted[:8]}, which is to label" in capsys.readouterr().out
    print_classifier(showing(spec, outcome.model))
    assert f"live as {outcome.refitted[:8]}, which has gone on from it to all cases" in capsys.readouterr().out
    print_classifier(showing(spec, None))
    assert f"30 cases, all that have a label; scored before as {outcome.model[:8]}" in capsys.readouterr().out


def test_a_case_whose_label_is_known_is_labelled_by_the_model_that_was_scored(trained, tmp_path, capsys):
    spec, outcome = trained
    frame = make_cases()
    frame.loc[frame["case"] < "c10", "label"] = None
    frame.to_csv(tmp_path / "mixed.csv", index=False)
    asked = spec.model_copy(update={"forecast": spec.forecast.model_copy(update={"uri": str(tmp_path / "mixed.csv")})})
    written = forecasting(asked)
    assert (written.model, written.scored, written.known) == (outcome.refitted, outcome.model, 20)
    rows = labels_of(spec)
    by = {digest: set(own["series_id"]) for digest, own in rows.groupby("model_digest")}
    assert by[outcome.refitted] == {f"c{number:02d}" for number in range(10)}
    assert by[outcome.model] == {f"c{number:02d}" for number in range(10, 30)}
    store = Store(spec.store)
    data = open_folds(store, Labelled.model_validate(store.manifests("gather")[0]["receipt"]), spec.folds)
    live = read_live(store, "waves")
    for model in (live.model, live.refitted):
        own = rows[rows["model_digest"] == model.digest]
        said = read_classifier(store, model).probabilities(
            data.cases.pick([data.table.ids.index(one) for one in own["series_id"]])
        )
        np.testing.assert_allclose(own["probability"], said.max(1), rtol=1e-6)
    print_labelled(written, Path("waves.yaml"))
    assert f"{outcome.refitted[:12]}; where the label is known {outcome.model[:12]}, as it" in capsys.readouterr().out
    print_labelled(forecasting(spec), Path("waves.yaml"))  # the test fold
    assert f"{outcome.model[:12]}, as it was scored: what is live may have learned" in capsys.readouterr().out


def test_what_stays_live_goes_on_to_the_newest_cases_as_it_was_fitted_itself(server, tmp_path, capsys):
    spec = make_spec(tmp_path, make_cases())
    first = training(spec)
    store = Store(spec.store)
    before = read_live(store, "waves")
    bad = {"network": spec.network.forms[0], "fit": FitSettings(max_steps=1)}
    same = training(spec.model_copy(update=bad))
    assert (step_of(same, "refit_classifier"), step_of(same, "refit_live")) == (None, "Cached")
    assert read_live(store, "waves") == before
    spec = make_spec(tmp_path, make_cases(36))
    worse = training(spec.model_copy(update=bad))
    after = read_live(store, "waves")
    assert "not promoted" in worse.reason
    assert (step_of(worse, "refit_classifier"), step_of(worse, "refit_live")) == (None, "Completed")
    assert after == before.model_copy(update={"refitted": after.refitted})
    assert (after.model.digest, after.refitted.digest) == (first.model, worse.refitted)
    assert after.refitted.num_cases["train"] == 36
    print_trained_classifier(worse, Path("waves.yaml"))
    said = "the live model on all 36 cases with a label"
    assert said in capsys.readouterr().out
    page = Path(worse.report).read_text(encoding="utf-8")
    assert "the live model, which goes on labelling, has gone on learning from all cases with a label" in page
    off = spec.model_copy(update={"refit": False} | bad)
    assert "refit_live" not in {one.step for one in explaining(off)}
    training(off)
    assert read_live(store, "waves").refitted is None


def test_without_refit_a_classifier_labels_as_it_was_scored(server, tmp_path):
    rocket = {"kind": "rocket", "features": 168}
    spec = make_spec(tmp_path, make_cases(31), network=rocket, refit=False)
    outcome = training(spec)
    assert outcome.promoted
    assert (step_of(outcome, "refit_classifier"), outcome.refitted) == (None, None)
    assert "gone on learning" not in Path(outcome.report).read_text(encoding="utf-8")
    assert forecasting(spec).model == outcome.model
    again = training(spec.model_copy(update={"refit": True}))  # it is live already, and goes on now
    live = read_live(Store(spec.store), "waves")
    assert live.refitted.digest == again.refitted
    assert read_classifier(Store(spec.store), live.refitted).description.shares == pytest.approx((15 / 31, 16 / 31))


def test_cases_of_a_class_that_the_live_model_does_not_know_are_left_out(server, tmp_path):
    spec = make_spec(tmp_path, make_cases())
    training(spec)
    third = make_cases(10, seed=3).assign(label="new", case=lambda frame: "n" + frame["case"])
    spec = make_spec(tmp_path, pd.concat([make_cases(), third], ignore_index=True))
    outcome = training(spec.model_copy(update={"network": spec.network.forms[0], "fit": FitSettings(max_steps=1)}))
    live = read_live(Store(spec.store), "waves")
    assert "not promoted" in outcome.reason
    assert live.refitted.num_cases["train"] == 30
    assert live.refitted.classes == live.model.classes


def test_a_net_that_is_killed_as_it_goes_on_ends_in_the_same_weights(tmp_path, monkeypatch):
    cases = waves()
    fit = FitSpec(max_steps=40, steps_per_epoch=10, learning_rate=0.002, schedule="one_cycle")
    weights = fit_classifier(NET, fit, cases, 2, 0).weights
    about = ClassDescription(
        format=1, members=(ClassMember(network=NET, seeds=(0,)),), shape=shape_of(cases, 2), classes=("a", "b"),
        shares=(0.5, 0.5), channels=("x",), windows=None, trained_on="", versions={},
        blend=Blend(weights=(1.0,), temperatures=(1.0,), temperature=1.0, doubt=0.0),
    )  # fmt: skip
    bundle = Classifier(about, [[weights]])
    whole = go_on(bundle, about.members[0], weights, fit, cases, 0, tmp_path / "whole.safetensors")

    def kept_then_killed(keeper, checkpoint):
        keep(keeper, checkpoint)
        if checkpoint.step == 20:
            raise KeyboardInterrupt

    keep = Keeper.save
    monkeypatch.setattr(Keeper, "due", lambda keeper: True)
    monkeypatch.setattr(Keeper, "save", kept_then_killed)
    path = tmp_path / "killed.safetensors"
    with pytest.raises(KeyboardInterrupt):
        go_on(bundle, about.members[0], weights, fit, cases, 0, path)
    monkeypatch.setattr(Keeper, "save", keep)
    lines = []
    token = listener.set(lines.append)
    again = go_on(bundle, about.members[0], weights, fit, cases, 0, path)
    listener.reset(token)
    assert lines[0] == "residual-channels4-depth1 seed 0: going on after epoch 2, step 20"
    assert [entry["step"] for entry in again.history] == [10, 20, 30, 40]
    assert all(torch.equal(value, again.weights[name]) for name, value in whole.weights.items())
    assert not torch.equal(whole.weights["head.weight"], weights["head.weight"])
