"""A training that begins with the weights of the live model."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_frame

from flows.explaining import explaining
from flows.ingesting import Ingested
from flows.preparing import GivenSeason, Likeness
from flows.training import training
from models.bundle import Bundle, Description, Member
from models.errors import Fault
from models.networks import build_network
from models.scaling import Scaler, ScalingSpec, SeriesScale
from models.series import Columns, SeriesFacts
from models.specs import LinearSpec, PeriodicSpec, ResidualSpec
from models.start import check_form, check_shape, starting_weights
from models.windows import WindowSpec
from tasks.promote import read_live
from tasks.storage import Store
from tasks.train import read_bundle

COLUMNS, WINDOWS = Columns(future=("known",)), WindowSpec(lookback=12, horizon=4)
FACTS = SeriesFacts(target="load", columns=COLUMNS, frequency="h", season=4, timezone="UTC")
KNOWING = ResidualSpec(channels=4, embedding=2)


def scaler_for(names: str) -> Scaler:
    scale = SeriesScale(mean=(0.0, 0.0), std=(1.0, 1.0), naive_mae=1.0, steps=100)
    return Scaler(channels=COLUMNS.names, season=4, scaling=ScalingSpec(), series=dict.fromkeys(names, scale))


def bundle_of(*networks, names="ac", seeds=(0, 3)) -> Bundle:
    about = Description(
        format=0, members=tuple(Member(network=network, seeds=seeds) for network in networks), windows=WINDOWS, series=FACTS,
        scaler=scaler_for(names), trained_on="", calibration=None, versions={},
    )  # fmt: skip
    torch.manual_seed(0)
    weights = [[build_network(one, COLUMNS, WINDOWS, 4, len(names)).state_dict() for _ in seeds] for one in networks]
    return Bundle(about, weights)


def test_each_form_and_seed_starts_from_its_own():
    bundle = bundle_of(LinearSpec(), PeriodicSpec(), PeriodicSpec(branch="none"))
    assert starting_weights(bundle, PeriodicSpec(), 3, scaler_for("ac")).keys() == bundle.weights[1][1].keys()
    weights = starting_weights(bundle, PeriodicSpec(dropout=0.5, noise=0.0), 3, scaler_for("ac"))  # they shape nothing
    assert all(weights[name] is value for name, value in bundle.weights[1][1].items())
    assert starting_weights(bundle, PeriodicSpec(), 1, scaler_for("ac")) is None
    assert starting_weights(bundle, PeriodicSpec(channels=4), 3, scaler_for("ac")) is None


def test_what_was_learned_of_each_series_stays_with_its_name():
    bundle = bundle_of(KNOWING, names="ac")
    before = bundle.weights[0][0]["series.weight"]
    after = starting_weights(bundle, KNOWING, 0, scaler_for("bac"))["series.weight"]
    assert torch.equal(after, before[[0, 1, 0, 2]])  # of unknown ones, a, b that nobody knew, c
    assert len(before) == 3


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            LinearSpec(),
            r"of a model do not fit: it is made of residual-channels4-embedding2, this spec has network.kind 'linear'\.",
        ),
        (ResidualSpec(channels=8, embedding=2), r"do not fit: it has network.channels 4, this spec 8\. Set fit\.init: fresh"),
    ],
)
def test_a_live_model_of_another_form_is_named_with_what_differs(network, message):
    with pytest.raises(Fault, match=message):
        check_form(bundle_of(KNOWING), network, "a model")
    check_form(bundle_of(KNOWING), KNOWING.model_copy(update={"dropout": 0.0}), "a model")


@pytest.mark.parametrize(
    ("windows", "facts", "message"),
    [
        (WindowSpec(lookback=16, horizon=4), {}, r"it has windows\.lookback 12, this training 16\. Make them alike, or: Set"),
        (WINDOWS, {"season": 7}, r"it has season 4, this training 7\."),
        (WINDOWS, {"columns": Columns(past=("known",))}, r"it has covariates known ahead known, this training none\."),
        (WINDOWS, {"columns": Columns()}, r"it has channels target, known, this training target; "),
    ],
)
def test_a_live_model_for_other_windows_or_channels_is_named_with_what_differs(windows, facts, message):
    with pytest.raises(Fault, match=message):
        check_shape(bundle_of(KNOWING), windows, FACTS.model_copy(update=facts), "a model")
    check_shape(bundle_of(KNOWING), WINDOWS, FACTS, "a model")


LIVE = {"fit__init": "live", "fit__max_steps": 20}


def states(outcome) -> dict[str, str]:
    return {entry.step: entry.state for entry in outcome.tasks}


def trainings(case) -> list[dict]:
    """What each training was made from, oldest first."""
    return [one["made_from"]["inputs"] for one in case.store.manifests("train")]


def first_losses(case) -> dict[str, float]:
    """The training loss of the first epoch of each form that the newest model was chosen from."""
    model = read_live(case.store, "small").model
    return {curve["form"]: curve["epochs"][0]["train"] for curve in case.store.read_json(model, "history.json")["curves"]}


def test_training_begins_with_the_live_model_s_weights_once_there_is_one(server, trained, caplog):
    fresh, before = read_live(trained.store, "small").model, first_losses(trained)
    assert "start" not in trainings(trained)[0]  # whatever is live, the key of a fresh training is the same
    trained.write_frame(make_frame(624))
    trained.write_spec(**LIVE)
    with caplog.at_level("INFO"):
        outcome = training(trained.spec)
    assert "seed 0: begins with the weights of the live model's residual-channels8-depth6" in caplog.text
    assert trainings(trained)[-1]["start"] == fresh.digest
    assert outcome.promoted, outcome.reason
    assert first_losses(trained)["residual-channels8-depth6"] < 0.6 * before["residual-channels8-depth6"]

    # It now is live itself, and a rerun does not go on from there.
    assert all(entry.cached or entry.step == "promote" for entry in explaining(trained.spec))
    again = training(trained.spec)
    assert {step for step, state in states(again).items() if state != "Cached"} == {"promote"}
    assert again.model == outcome.model

    trained.write_frame(make_frame(648))  # newer data do
    training(trained.spec)
    assert trainings(trained)[-1]["start"] == outcome.model


def test_without_a_live_model_training_begins_fresh_and_says_so(server, case, trained_folder, caplog):
    case.write_spec(fit__init="live")
    with caplog.at_level("INFO"):
        outcome = training(case.spec)
    assert "seed 0: there is no live model, so it begins with fresh weights" in caplog.text
    assert all(state == "Cached" for step, state in states(training(case.spec)).items() if step != "promote")
    bundles = [read_bundle(store, read_live(store, "small").model) for store in (case.store, Store(trained_folder / "store"))]
    first, second = (bundle.weights[0][0] for bundle in bundles)
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert outcome.promoted


def test_a_live_model_of_another_form_is_refused_before_anything_runs(server, trained):
    trained.write_spec(network__channels=4, **LIVE)
    with pytest.raises(Fault, match=r"^fit\.init is 'live', but the weights of model \w{8}, which is live, do not fit: it has "
                       r"network\.channels 8, this spec 4\. Set fit\.init: fresh"):  # fmt: skip
        training(trained.spec)
    trained.write_spec(windows__lookback=80, **LIVE)
    with pytest.raises(Fault, match=r"it has windows\.lookback 72, this training 80\. Make them alike, or: Set fit"):
        training(trained.spec)


def test_what_the_spec_leaves_to_the_data_stays_as_the_live_model_has_it(server, case, caplog):
    free = {"windows": {"horizon": 24}, "season": None, "source__calendar": None}
    case.write_frame(make_frame(320))
    case.write_spec(**free)
    first = read_live(case.store, training(case.spec).name).model
    case.write_frame(make_frame(600))
    case.write_spec(**free, **LIVE)
    with caplog.at_level("INFO"):
        outcome = training(case.spec)
    assert "begins with the weights of the live model's residual-channels8-depth6" in caplog.text
    [grown] = [one for one in trainings(case) if one.get("start")]
    assert grown["start"] == first.digest
    shown = {one.step: one.cached for one in explaining(case.spec)}
    assert shown["train"]
    assert not {step for step, cached in shown.items() if not cached} - {"promote"}
    lookbacks = {one["receipt"]["windows"]["lookback"] for one in case.store.manifests("train")}
    assert lookbacks == {first.windows.lookback}
    case.write_spec(**free)  # fresh weights look back as far as the data now allow
    assert training(case.spec).model != outcome.model
    assert {one["receipt"]["windows"]["lookback"] for one in case.store.manifests("train")} > lookbacks


def test_dates_do_not_begin_to_count_for_a_model_that_was_made_without_them(server, case):
    stamps = pd.date_range("2018-01-01", periods=2000, freq="D")
    load = 10 + stamps.day_of_week / 3 + 8 * stamps.strftime("%m-%d").isin(["12-24", "12-25", "12-26", "07-04"])
    load += np.random.default_rng(0).normal(0, 0.1, len(stamps))
    frame = pd.DataFrame({"when": stamps.strftime("%Y-%m-%d"), "load": load.round(3)})
    daily = {"source__frequency": "D", "source__calendar": None, "source__future_covariates": []}
    daily |= {"windows": {"lookback": 28, "horizon": 7}, "network": {"kind": "linear"}, "fit__max_steps": 60}
    case.write_frame(frame[:1400])
    case.write_spec(**daily)
    assert training(case.spec).promoted
    case.write_frame(frame)
    case.write_spec(**daily | {"fit__init": "live"})
    training(case.spec)
    case.write_spec(**daily)
    training(case.spec)
    calendars = [one["receipt"]["facts"]["columns"]["calendar"] for one in case.store.manifests("train")]
    assert calendars == [["weekday"], ["weekday"], ["weekday", "date"]]


def test_a_season_and_inputs_stay_where_the_data_say_otherwise_by_now():
    seen = Columns(past=("wind",), future=("temperature",), calendar=("hour",))
    like = Likeness(seen, 24, 72)
    assert like.season_instead(GivenSeason(24, "found in the data")) == GivenSeason(24, "found in the data")
    assert like.season_instead(GivenSeason(168)) == (24, "as the live model has it; the data say 168 by now")
    more = seen.model_copy(update={"past": ("wind", "pressure")})
    got = Ingested(overview=None, series=[], statics=None, columns=more)
    assert like.inputs_instead(got).columns == seen
    fewer = replace(got, columns=seen.model_copy(update={"past": ()}))
    assert like.inputs_instead(fewer) == fewer


def test_of_several_forms_each_begins_with_its_own_and_what_is_not_live_begins_fresh(server, case, caplog):
    small = {"kind": "residual", "channels": 4, "depth": 6}
    case.write_spec(network=small)
    training(case.spec)
    case.write_spec(network={"kind": "auto", "forms": [small, {"kind": "linear"}]}, fit__seeds=[0, 1], **LIVE)
    with caplog.at_level("INFO"):
        training(case.spec)
    assert "seed 0: begins with the weights of the live model's residual-channels4-depth6" in caplog.text
    assert "seed 1: the live model has no residual-channels4-depth6 of this seed, so it begins with fresh" in caplog.text
    assert "seed 0: the live model has no linear of this seed, so it begins with fresh weights" in caplog.text
    assert all(state == "Cached" for step, state in states(training(case.spec)).items() if step != "promote")
