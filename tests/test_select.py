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
from models.inputs import Input
from models.series import Columns
from models.windows import FoldSpec, WindowSpec
from tasks.ingest.calendar import Calendar
from tasks.ingest.task import Series
from tasks.promote import read_live
from tasks.select import at_origins, training_rows

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


def windows_of(case: Case, digest: str) -> WindowSpec:
    """The windows of a model that was trained here."""
    made = case.store.manifests("train") + case.store.manifests("calibrate")
    (model,) = [one["receipt"] for one in made if one["receipt"]["digest"] == digest]
    return WindowSpec.model_validate(model["windows"])


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


def test_only_steps_to_train_on_are_looked_at(trained):
    series = [Series.model_validate(one["receipt"]) for one in trained.store.manifests("ingest")]
    columns, calendar = Columns(future=("temperature",)), Calendar(frequency="h", timezone="UTC")
    ((_, rows),) = training_rows(series, columns, calendar, FoldSpec(validation=72, test=72), trained.store)
    assert rows[:, 0].tolist() == pd.read_csv(trained.csv)["load"][: 600 - 144].tolist()


def test_moments_are_drawn_with_each_input_at_its_lag():
    rows = np.stack([np.arange(10.0), 100 + np.arange(10.0), 200 + np.arange(10.0)], 1)
    wanted = {2: [Input(channel="target", lag=3), Input(channel="wind", lag=0), Input(channel="sun", lag=-2)]}
    values, target = at_origins(rows, np.array([4, 7]), Columns(past=("wind",), future=("sun",)), wanted)[2]
    assert values.tolist() == [[1, 104, 206], [4, 107, 209]]
    assert target.tolist() == [6, 9]


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
    usual = training(with_noise(case, windows={"horizon": 4}, season=60, network=SMALL).spec)
    assert windows_of(case, usual.model).lookback == 120
    with_noise(case, windows={"horizon": 4}, season=60)
    chosen = training(case.spec)
    (selected,) = case.store.manifests("select")
    assert windows_of(case, chosen.model).lookback == selected["receipt"]["lookback"] < 120


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
