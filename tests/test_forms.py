"""Flows that choose among several forms of network, on the real thing."""

import pandas as pd
import pytest
from conftest import make_frame

from flows.explaining import explaining
from flows.forecasting import forecasting
from flows.training import training
from tasks.promote import read_live
from tasks.train import read_bundle

SMALL = {"kind": "residual", "channels": 4, "depth": 6}
FORMS = [{"kind": "linear"}, {"kind": "periodic", "branch": "none"}, SMALL]


def state_of(trained) -> dict[str, str]:
    return {entry.step: entry.state for entry in trained.tasks}


def write_forms(case, forms=FORMS, **changes):
    changes = {"forecast": {"origin": "2024-01-24T23:00+00:00"}} | changes
    case.write_spec(network={"kind": "auto", "forms": forms}, **changes)


def test_the_model_is_the_mean_of_the_forms_chosen_and_each_form_is_cached_on_its_own(server, case):
    write_forms(case)
    first = training(case.spec)
    assert first.promoted
    model = read_live(case.store, "small").model
    names = ["linear", "periodic-none", "residual-channels4-depth6"]
    assert [form.name for form in model.forms] == names
    chosen = [form.name for form in model.forms if form.chosen]
    members = read_bundle(case.store, model).description.members
    assert [member.network.kind for member in members] == [name.split("-")[0] for name in chosen]
    page = (case.folder / "store" / "reports" / "small.html").read_text()
    assert "Chosen from" in page
    assert all(name in page for name in names)

    write_forms(case, [{"kind": "linear"}, {"kind": "periodic", "branch": "none"}, SMALL | {"channels": 5}])
    planned = {entry.step: entry.cached for entry in explaining(case.spec)}
    assert (planned["train_linear"], planned["train_residual-channels5-depth6"]) == (True, False)
    states = state_of(training(case.spec))
    assert states["train_linear"] == states["train_periodic-none"] == "Cached"
    assert states["train_residual-channels5-depth6"] == states["choose"] == "Completed"


def test_a_model_of_several_forms_forecasts(server, case):
    write_forms(case)
    training(case.spec)
    assert forecasting(case.spec).rows_written == 24


def test_what_tells_series_apart_is_not_tried_for_a_single_one(server, case):
    write_forms(case, [*FORMS, SMALL | {"embedding": 2}])
    assert [step for step in state_of(training(case.spec)) if step.startswith("train_residual")] == [
        "train_residual-channels4-depth6"
    ]
    write_forms(case, [*FORMS, SMALL | {"embedding": 2}], windows__lookback=30)  # so that the windows have yet to be made
    assert not [entry.step for entry in explaining(case.spec) if "embedding" in entry.step]
    frame = make_frame()
    case.csv.unlink()
    both = [frame.assign(site=site, load=frame["load"] * scale) for site, scale in (("a", 1), ("b", 2))]
    write_forms(case, [{"kind": "linear"}, SMALL | {"embedding": 2}], source__series_id="site", name="two", store="two")
    case.write_frame(pd.concat(both))
    assert "train_residual-channels4-depth6-embedding2" in state_of(training(case.spec))


def test_a_regression_is_tried_where_something_is_known_ahead(server, case):
    forms = [{"kind": "linear"}, {"kind": "periodic", "branch": "none"}, {"kind": "regression", "width": 4}]
    write_forms(case, forms)
    assert state_of(training(case.spec))["train_regression-width4"] == "Completed"
    assert forecasting(case.spec).rows_written == 24
    write_forms(case, forms, source__future_covariates=[], name="alone")
    states = state_of(training(case.spec))
    assert "train_linear" in states
    assert "train_regression-width4" not in states


def test_lookback_and_calendar_follow_from_the_data_where_nothing_is_said(server, case):
    write_forms(case, windows={"horizon": 24}, source__calendar=None)
    training(case.spec)
    model = read_live(case.store, "small").model
    assert model.windows.lookback == 4 * 24  # a quarter of the 456 steps to train on, in whole days
    assert model.facts.columns.calendar == ("hour", "weekday")
    assert forecasting(case.spec).rows_written == 24


@pytest.mark.parametrize("metric", ["mae", "rmse"])
def test_forms_are_chosen_by_the_metric_of_the_gate(server, case, metric):
    write_forms(case, FORMS[:2], gate={"metric": metric})
    training(case.spec)
    forms = read_live(case.store, "small").model.forms
    assert len(forms) == 2
    assert all(form.error > 0 for form in forms)
