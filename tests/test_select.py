"""What `network.inputs` does to a run: what tells nothing is dropped, and no network, bundle or forecast needs it."""

import numpy as np
import pandas as pd
import pytest
from conftest import Case

from flows.explaining import explaining
from flows.forecasting import forecasting
from flows.spec import load_spec
from flows.training import training
from models.errors import Fault
from tasks.promote import read_live

SMALL = {"kind": "linear"}


def with_noise(case: Case, **changes) -> Case:
    """The load and its temperature, beside a covariate that is nothing but noise and the load's neighbour, two steps ahead."""
    frame = pd.read_csv(case.csv)
    rng = np.random.default_rng(1)
    frame["noise"] = rng.normal(size=len(frame)).round(3)
    frame["neighbour"] = (np.roll(frame["load"], -2) + rng.normal(0, 0.1, len(frame))).round(3)
    case.write_frame(frame)
    settings = {"source__past_covariates": ["noise", "neighbour"], "windows__horizon": 4, "windows__lookback": 24}
    case.write_spec(**(settings | {"network": SMALL | {"inputs": "auto"}} | changes))
    return case


def test_noise_is_dropped_and_neither_bundle_nor_forecast_asks_for_it(server, case):
    trained = training(with_noise(case, source__rules={"noise": {"min": -100}}).spec)
    assert [entry.step for entry in trained.tasks].count("select") == 1
    live = read_live(case.store, "small").model
    assert live.facts.columns.past == ("neighbour",)
    page = (case.store.root / "reports" / "small.html").read_text()
    assert "Dropped, and not given to any network: <b>noise" in page
    assert "stopped here" in page
    pd.read_csv(case.csv).drop(columns="noise").to_csv(case.csv, index=False)
    assert forecasting(case.spec).rows_written == 4


def test_steps_after_those_to_train_on_change_no_choice(server, case):
    training(with_noise(case).spec)
    (before,) = case.store.manifests("select")
    frame = pd.read_csv(case.csv)
    frame.loc[len(frame) - 100 :, "noise"] = frame.loc[len(frame) - 100 :, "load"]
    case.write_frame(frame)
    training(case.spec)
    after = case.store.manifests("select")[-1]
    assert after["made_from"] != before["made_from"]
    assert after["receipt"]["picks"] == before["receipt"]["picks"]


def test_a_second_run_takes_the_selection_from_the_cache_and_a_plan_knows_it(server, case):
    with_noise(case)
    assert {entry.step: entry.cached for entry in explaining(case.spec)}["materialise_windows"] is False
    training(case.spec)
    planned = {entry.step: entry for entry in explaining(case.spec)}
    assert planned["select"].cached
    assert planned["train"].cached
    assert {entry.step: entry.state for entry in training(case.spec).tasks}["select"] == "Cached"


def test_a_live_model_that_saw_every_input_is_held_against_one_that_sees_less_and_the_other_way_round(server, case):
    first = training(with_noise(case, network=SMALL).spec)
    second = training(with_noise(case).spec)
    assert second.scores["live"] == first.scores["new"]
    third = training(with_noise(case, network=SMALL).spec)
    assert third.scores["new"] == first.scores["new"]


def test_inputs_that_are_named_are_all_that_networks_see(server, case):
    training(with_noise(case, network=SMALL | {"inputs": ["temperature"]}).spec)
    columns = read_live(case.store, "small").model.facts.columns
    assert (columns.past, columns.future) == ((), ("temperature",))
    assert not (case.store.root / "select").exists()


def test_the_lookback_is_as_long_as_the_inputs_need_where_the_spec_says_none(server, case):
    with_noise(case, windows={"horizon": 4}, season=1)
    training(case.spec)
    (selected,) = case.store.manifests("select")
    assert read_live(case.store, "small").model.windows.lookback == selected["receipt"]["lookback"]


def test_a_name_that_is_no_covariate_stops_a_spec(case):
    with_noise(case, network=SMALL | {"inputs": ["fog"]})
    with pytest.raises(Fault, match=r"names fog; the covariates of this source are noise, neighbour, temperature"):
        load_spec(case.yaml)


@pytest.mark.parametrize("found", ["some", 3, [4]])
def test_what_inputs_can_be_is_told(case, found):
    with_noise(case, network=SMALL | {"inputs": found})
    with pytest.raises(Fault, match=r"network.inputs is .*; it can be all, auto, or a list of names of covariates"):
        load_spec(case.yaml)


def test_inputs_of_one_form_alone_are_refused(case):
    forms = [{"kind": "linear", "inputs": "auto"}, {"kind": "residual"}]
    with_noise(case, network={"forms": forms})
    with pytest.raises(Fault, match="all forms see the same inputs; say inputs beside forms"):
        load_spec(case.yaml)


def test_too_few_moments_to_choose_by_are_told_of(server, case):
    case.write_frame(pd.read_csv(case.csv)[:280])
    with_noise(case, windows__lookback=40)
    with pytest.raises(Fault, match=r"network.inputs 'auto' has \d+ moments to choose by; 100 are needed"):
        training(case.spec)
