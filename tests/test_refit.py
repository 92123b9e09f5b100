"""What goes live has gone on learning from all rows, and quantiles and scores stay those of rows that were held out."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd
import pytest
import torch
from conftest import make_frame
from deltalake import DeltaTable
from prefect import flow

from flows.console import print_forecasted, print_trained
from flows.explaining import explaining
from flows.forecasting import forecasting
from flows.running import run_of
from flows.showing import showing
from flows.training import training
from models.networks import FitSettings
from models.scaling import Scaler, ScalingSpec, SeriesScale
from models.specs import FitSpec, GateSpec
from tasks.promote import promote, read_live
from tasks.refit import RATE, SHARE, alone, going_on, scaled_as_before
from tasks.train import read_bundle
from tasks.validate import Scores

pytestmark = pytest.mark.usefixtures("one_thread")
HERE = FitSettings()
ALONE = {"source__future_covariates": []}  # so that there is nothing to bring for the steps after the newest row
LAST = "2024-01-25T23:00:00+00:00"


def step_of(outcome, name):
    return {entry.step: entry.state for entry in outcome.tasks}.get(name)


def curve(seed, best_epoch, steps):
    return {"form": "residual", "seed": seed, "best_epoch": best_epoch, "epochs": [{"epoch": 1, "step": one} for one in steps]}


def test_a_network_goes_on_for_half_as_many_steps_as_were_best_at_a_lower_rate_that_falls():
    fit = FitSpec(epochs=9, learning_rate=0.01, schedule="plateau", seeds=(1, 3, 4))
    further = going_on([curve(3, 1, [10, 20, 30]), curve(4, 3, [10, 20, 30])], fit, HERE)  # best after 10 and after 30
    assert (further.max_steps, further.epochs, further.steps_per_epoch) == (SHARE * 20, None, 10)
    assert further.learning_rate == pytest.approx(RATE * 0.01)
    assert (further.schedule, further.keep, further.init, further.seeds) == ("one_cycle", "last", "live", (3, 4))
    FitSpec.model_validate(further.model_dump())  # it is one that a process could be given
    assert going_on([curve(3, 1, [1])], fit, HERE).max_steps == 1


def test_a_network_goes_on_as_it_was_fitted_whatever_is_usual():
    own = FitSpec(epochs=9, learning_rate=0.01, loss="huber", seeds=(3,), device="cuda", devices=4)
    curves = [curve(3, 1, [10]) | {"fit": own.model_dump(mode="json")}]
    further = going_on(curves, FitSpec(epochs=1), HERE)
    assert (further.loss, further.learning_rate) == ("huber", pytest.approx(RATE * 0.01))
    assert (further.device, further.devices) == ("auto", 1)  # which need not be those of before
    moved = going_on(curves, FitSpec(epochs=1), FitSettings(device="cpu", devices=2))
    assert (moved.device, moved.devices) == ("cpu", 2)


def test_series_are_scaled_as_the_model_scales_them_and_new_ones_by_their_own_history():
    def scale(mean, steps):
        return SeriesScale(mean=(mean, mean), std=(1.0, 2.0), naive_mae=1.0, steps=steps)

    shared = {"channels": ("load", "area"), "season": 24, "scaling": ScalingSpec()}
    before = Scaler(series={"a": scale(1.0, 100), "gone": scale(2.0, 100)}, **shared)
    now = Scaler(series={"a": scale(5.0, 150), "new": scale(7.0, 150)}, **shared)
    found = scaled_as_before(before, now, 1).series
    assert found["a"] == scale(1.0, 150)
    assert found["new"].mean == (7.0, 1.0)  # what it is like is scaled as everywhere
    assert set(found) == {"a", "new"}


@pytest.fixture(scope="module")
def live_case(server, tmp_path_factory):
    """A pipeline without covariates, trained once; not to be changed."""
    from conftest import Case

    case = Case(tmp_path_factory.mktemp("refit"))
    case.write_spec(**ALONE, fit__seeds=[0, 1])
    return case, training(case.spec)


def test_what_goes_live_has_other_weights_and_else_is_the_model_that_was_scored(live_case):
    case, outcome = live_case
    live = read_live(case.store, "small")
    assert step_of(outcome, "refit") == "Completed"
    assert (live.model.digest, live.refitted.digest) == (outcome.model, outcome.refitted)
    before, after = (read_bundle(case.store, one) for one in (live.model, live.refitted))
    for own, other in zip(before.weights[0], after.weights[0], strict=True):
        moved = [(own[name] - other[name]).abs().max().item() for name in own if own[name].numel()]
        assert 0 < max(moved) < 0.1  # a little
    assert before.spread_weights.keys() == after.spread_weights.keys()
    assert all(torch.equal(value, after.spread_weights[name]) for name, value in before.spread_weights.items())
    one, two = (bundle.description.model_dump() for bundle in (before, after))
    assert (one["calibration"].pop("held_out"), two["calibration"].pop("held_out")) == (144, 0)
    assert one == two
    history = case.store.read_json(live.refitted, "history.json")["curves"]
    assert [(own["seed"], own["epochs"][-1]["step"], set(own["epochs"][-1])) for own in history] == [
        (seed, history[0]["epochs"][-1]["step"], {"epoch", "step", "train"}) for seed in (0, 1)
    ]
    assert not list(case.folder.glob("store/checkpoints/*"))


def test_it_learned_from_the_newest_row_and_says_so(live_case):
    case, outcome = live_case
    live = read_live(case.store, "small")
    assert datetime.fromtimestamp(live.refitted.through / 1e6, UTC).isoformat() == outcome.through == LAST
    assert live.model.through is None
    assert f"gone on learning from all rows to {LAST}" in (case.folder / "store" / "reports" / "small.html").read_text()
    assert [showing(case.spec, digest).through for digest in (None, outcome.model[:12])] == [LAST, ""]
    assert [showing(case.spec, digest).scored for digest in (None, outcome.model[:12])] == [outcome.model, ""]
    assert [showing(case.spec, digest).live for digest in (None, outcome.model[:12])] == [True, False]
    assert [showing(case.spec, digest).gone_on_as for digest in (None, outcome.model[:12])] == ["", outcome.refitted]


def test_it_forecasts_unless_it_knows_what_came_after_the_origin(live_case, capsys):
    case, outcome = live_case
    for origin, model in (
        (None, outcome.refitted),
        (LAST, outcome.refitted),
        ("2024-01-25T22:00:00+00:00", outcome.model),
        ("2024-01-20T00:00:00+00:00", outcome.model),
    ):
        case.write_spec(**ALONE, fit__seeds=[0, 1], forecast__origin=origin)
        forecasted = forecasting(case.spec)
        assert forecasted.model == model
        print_forecasted(forecasted, case.yaml)
        assert ("as it was scored" in capsys.readouterr().out) == (model == outcome.model)
    table = DeltaTable(case.store.forecasts).to_pandas()
    assert set(table["model_digest"]) == {outcome.model, outcome.refitted}


def test_what_is_not_promoted_does_not_go_on_and_without_new_rows_nothing_changes(server, trained):
    before = read_live(trained.store, "small")
    trained.write_spec(fit__learning_rate=1e-9)
    outcome = training(trained.spec)
    assert "not promoted" in outcome.reason
    assert (step_of(outcome, "refit"), step_of(outcome, "refit_live")) == (None, "Cached")  # as it was fitted, not as now
    assert outcome.refitted == before.refitted.digest
    assert read_live(trained.store, "small") == before


@pytest.mark.parametrize("lookback", [72, 48])
def test_what_stays_live_goes_on_to_the_newest_rows(server, trained, capsys, lookback):
    before = read_live(trained.store, "small")
    trained.write_frame(make_frame(648))
    trained.write_spec(fit__learning_rate=1e-9, windows__lookback=lookback)
    outcome = training(trained.spec)
    print_trained(outcome, trained.yaml)
    after = read_live(trained.store, "small")
    assert "not promoted" in outcome.reason
    assert (step_of(outcome, "refit"), step_of(outcome, "refit_live")) == (None, "Completed")
    assert after == before.model_copy(update={"refitted": after.refitted})
    assert after.refitted.digest == outcome.refitted != before.refitted.digest
    assert after.refitted.windows.lookback == 72  # its own
    assert after.refitted.through - before.refitted.through == 48 * 3600 * 1_000_000
    said = f"all rows to {outcome.through}"
    assert f"the live model on {said}, as {outcome.refitted[:8]}, which is to forecast" in capsys.readouterr().out
    page = (trained.folder / "store" / "reports" / "small.html").read_text()
    assert f"the live model, which goes on forecasting, has gone on learning from {said}" in page
    again = training(trained.spec)
    assert {entry.step for entry in again.tasks if entry.state != "Cached"} == {"promote"}
    assert read_live(trained.store, "small") == after
    trained.write_spec(fit__learning_rate=1e-9, windows__lookback=lookback, refit=False)
    training(trained.spec)
    assert read_live(trained.store, "small").refitted is None


def test_what_was_refitted_is_not_put_beside_another_model_that_went_live_meanwhile(server, trained):
    store, live = trained.store, read_live(trained.store, "small")
    other = live.model_copy(update={"model": live.model.model_copy(update={"digest": "0" * 64}), "refitted": None})
    worse, naive = (
        Scores.model_validate(store.manifests(step)[0]["receipt"] | {"scores": {"validation": {"24": {"mae": mae}}}})
        for step, mae in (("validate", 2.0), ("validate", 1.0))
    )
    new = live.model.model_copy(update={"digest": "1" * 64})
    store.put_document(other.model_dump(mode="json"), "live", "small.json")

    @flow(persist_result=False)
    def promoting():
        with run_of(store) as run:
            return promote("small", new, live.refitted, worse, {"naive": naive}, GateSpec(), live, run.id, run.now, store)

    assert not promoting().promoted
    assert read_live(store, "small") == other


def test_a_live_model_of_many_series_goes_on_where_one_has_gone_and_another_has_come(server, case):
    forms = {"network": {"kind": "residual", "channels": 4, "depth": 5, "embedding": 2}, "source__series_id": "shop"}

    def shops(names, num_rows):
        frames = {name: make_frame(num_rows, seed).assign(shop=name) for seed, name in enumerate("abcd") if name in names}
        return pd.concat(frames.values())

    case.write_frame(shops("abc", 400))
    case.write_spec(**forms, fit__max_steps=60)
    training(case.spec)
    before = read_live(case.store, "small")
    case.write_frame(shops("acd", 424))
    case.write_spec(**forms, fit__learning_rate=1e-9)
    outcome = training(case.spec)
    assert step_of(outcome, "refit_live") == "Completed"
    live = read_live(case.store, "small")
    assert (live.model, live.refitted.digest) == (before.model, outcome.refitted)
    own, other = (read_bundle(case.store, one) for one in (live.model, live.refitted))
    assert own.description.scaler == other.description.scaler
    ratios = other.weights[0][0]["series.weight"] / own.weights[0][0]["series.weight"]
    only_decayed = [(row.max() - row.min()).item() < 1e-5 for row in ratios]
    assert only_decayed == [False, False, True, False]  # unknown ones, as d is; a; b, which has gone; c
    case.write_spec(**forms, forecast__origin="2024-01-17T00:00:00Z")
    assert forecasting(case.spec).new_series == 1


def test_refit_can_be_turned_off_and_on_for_a_model_that_is_live(server, trained):
    first = read_live(trained.store, "small")
    trained.write_spec(refit=False)
    assert "refit" not in {one.step for one in explaining(trained.spec)}
    outcome = training(trained.spec)
    assert (outcome.promoted, outcome.refitted, step_of(outcome, "refit")) == (False, None, None)
    assert read_live(trained.store, "small") == first.model_copy(update={"refitted": None})
    assert "gone on learning" not in (trained.folder / "store" / "reports" / "small.html").read_text()
    trained.write_spec()
    assert {one.step: one.cached for one in explaining(trained.spec)}["refit"]
    assert step_of(training(trained.spec), "refit") == "Cached"
    assert read_live(trained.store, "small") == first


def test_a_training_begins_with_what_was_scored_and_not_with_what_has_seen_all_rows(server, trained):
    before = read_live(trained.store, "small").model.digest
    trained.write_spec(fit__init="live", fit__learning_rate=0.002)
    training(trained.spec)
    inputs = [one["made_from"]["inputs"] for one in trained.store.manifests("train")]
    assert [own["start"] for own in inputs if own.get("start")] == [before]


def test_a_live_pointer_of_an_earlier_version_is_read(trained):
    path = trained.folder / "store" / "live" / "small.json"
    document = json.loads(path.read_text())
    for model in (document["model"], document.pop("refitted")):
        model.pop("through")
    path.write_text(json.dumps(document))
    live = read_live(trained.store, "small")
    assert live.forecaster() == live.model
    assert live.forecaster(datetime(2024, 1, 1, tzinfo=UTC)) == live.model


def test_a_member_alone_is_that_very_one(live_case):
    case, _ = live_case
    bundle = read_bundle(case.store, read_live(case.store, "small").model)
    noisy = bundle.description.members[0].model_copy(
        update={"network": bundle.description.members[0].network.model_copy(update={"noise": 0.3})}
    )
    both = bundle.description.model_copy(update={"members": (*bundle.description.members, noisy)})
    other = [{name: value + 1 for name, value in one.items()} for one in bundle.weights[0]]
    own = alone(replace(bundle, description=both, weights=[*bundle.weights, other]), 1)
    assert own.description.members == (noisy,)
    assert own.weights == [other]
