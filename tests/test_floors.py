"""Where forecasts stop, and where they do not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from conftest import make_frame
from deltalake import DeltaTable
from make_golden import small_bundle

from models.choice import best_mean
from models.conformal import Calibration
from models.floors import NONE, floors_by_number, in_units, kept, raw_floors, raw_kept, scaled_floors, snapped, stopping
from models.metrics import Sureness
from models.scaling import Scaler, ScalingSpec, SeriesScale, fit_scale
from models.series import Columns


def scale(floor, mean=2.0, std=4.0):
    return SeriesScale(mean=(mean,), std=(std,), naive_mae=1.0, steps=9, floor=floor)


def test_of_how_many_series_forecasts_stop_is_said_in_words():
    assert stopping(3, 3) == "never below 0"
    assert stopping(1, 1200) == "1 of 1,200 series never below 0"


@pytest.mark.parametrize(
    ("target", "floor"),
    [
        ([0.0] + [3.0] * 99, 0.0),  # one of a hundred
        ([0.0] + [3.0] * 100, None),  # too seldom to be where it stops
        ([0.0, 0.0, -0.1, 5.0], None),
        ([1.0, 1.0, 2.0, 3.0], None),  # often at its lowest, but that may be a level like any other
        ([0.0, 0.0, 0.0], 0.0),
    ],
)
def test_a_target_that_is_often_0_and_never_less_stops_there(target, floor):
    rows = np.array(target)[:, None]
    assert fit_scale([rows[:2], rows[2:]], Columns(), 1, len(rows), len(rows), ScalingSpec()).floor == floor


def test_steps_that_were_not_observed_make_no_floor():
    rows = np.array([[0.0, 0.0], [0.0, 0.0], [-1.0, 0.0], [4.0, 1.0], [0.0, 1.0]])
    assert fit_scale([rows], Columns(masked=True), 1, 5, 5, ScalingSpec()).floor == 0
    rows[4, 1] = 0.0
    assert fit_scale([rows], Columns(masked=True), 1, 5, 5, ScalingSpec()).floor is None


def test_floors_go_by_the_numbers_of_series_and_unknown_ones_have_none():
    scaler = Scaler(channels=("y",), season=1, scaling=ScalingSpec(), series={"b": scale(None), "a": scale(0.0)})
    assert floors_by_number(scaler).tolist() == [NONE, -0.5, NONE]


def test_a_window_that_went_lower_keeps_to_no_floor():
    past = np.array([[0.0, 5.0], [-0.1, 5.0], [-9.0, 0.0]])
    assert raw_kept(np.array([0.0, 0.0, -np.inf]), past).tolist() == [0, -np.inf, -np.inf]
    assert kept(torch.tensor([0.0, 0.0, NONE]), torch.tensor(past)).tolist() == [0, NONE, NONE]


def test_what_stored_windows_are_off_by_does_not_count_as_lower():
    assert kept(torch.tensor([-0.5]), torch.tensor([[-0.50001, 3.0]])).tolist() == [-0.5]
    told = snapped(np.array([[-1e-7, 1e-7, 0.01, -0.01]]), np.array([[0.0]]), np.array([[2.0]]))
    assert told.tolist() == [[0, 0, 0.01, -0.01]]
    assert snapped(np.array([[-1e-7]]), np.array([[-np.inf]]), np.array([[2.0]])).tolist() == [[-1e-7]]


def test_what_lies_on_its_floor_is_exactly_0_in_the_users_unit():
    mean, std = np.array([[0.1]]), np.array([[0.3]])
    (floor,) = scaled_floors(np.zeros(1), mean[0], std[0])
    found = in_units(np.array([[floor, floor + 1]], np.float32), mean, std, np.zeros(1))
    assert found[0, 0] == 0  # though floor * 0.3 + 0.1 is 1e-9
    assert found[0, 1] == pytest.approx(0.3, rel=1e-6)
    assert raw_floors([scale(None), scale(0.0)]).tolist() == [-np.inf, 0]


def test_the_mean_of_forms_stops_not_each_of_them():
    forecasts = np.array([[[-3.0]], [[2.0]]]).repeat(200, 1)  # their mean is -0.5, stopped 0
    chosen, errors = best_mean(forecasts, np.zeros((200, 1)), "mae", 1, np.zeros((200, 1)))
    assert (chosen, errors) == ((0, 1), [0, 2])


def test_a_bundle_forecasts_nothing_below_the_floor_of_a_window_that_keeps_to_it():
    bundle, plain = small_bundle("floor-quantiles"), small_bundle("floor-quantiles")
    none = {name: one.model_copy(update={"floor": None}) for name, one in bundle.description.scaler.series.items()}
    about = plain.description.model_copy(update={"scaler": plain.description.scaler.model_copy(update={"series": none})})
    plain = replace(plain, description=about)
    torch.manual_seed(5)
    past, future = torch.randn(600, 12, 4), torch.randn(600, 3, 3) * 9
    past[::2, :, 0] = past[::2, :, 0].clamp(min=0) - 1  # 0 or more in the user's unit
    numbers = torch.arange(600) // 2 % 3
    low, high = plain.forecast(past, future, numbers), bundle.forecast(past, future, numbers)
    keeps = ((torch.arange(600) % 2 == 0) | (past[:, :, 0].amin(1) >= -1)) & (numbers > 0)
    assert low[keeps].min() < -1
    assert np.array_equal(high[keeps], np.maximum(low[keeps], -1))
    assert np.array_equal(high[~keeps], low[~keeps])
    assert low[~keeps].min() < -1


def test_quantiles_are_scored_and_shown_as_they_stop():
    quantiles, truth = np.array([[[-3.0, 1.0, 2.0]], [[-2.0, 1.0, 4.0]]]), np.array([[0.0], [5.0]])
    seen, numbers = np.ones((2, 1), bool), np.zeros(2, int)
    calibration = Calibration(levels=(0.1, 0.5, 0.9), offsets=((0, 0, 0),), rolling=False, num_windows=9, held_out=3)
    free, stopped = Sureness(calibration, 1, 1), Sureness(calibration, 1, 1)
    free.add(numbers, quantiles, truth, seen)
    stopped.add(numbers, quantiles, truth, seen, np.array([0.0, -np.inf]))
    (wide,), (narrow,) = free.intervals().values(), stopped.intervals().values()
    assert (wide["width"], narrow["width"]) == (5.5, 4)  # (5 + 6) / 2 and (2 + 6) / 2
    assert wide["coverage"] == narrow["coverage"] == 0.5
    (band,) = stopped.bands(0, quantiles, truth, seen, 0.0).values()
    assert band == [[0], [4]]


def test_calls_at_night_are_forecast_backtested_reported_and_shown_as_0(server, case):
    from flows.cli import commands
    from flows.forecasting import forecasting
    from flows.training import training

    calls, gains = make_frame(seed=1), make_frame(seed=2)
    calls["load"] = (calls["load"] - 13).clip(lower=0)  # most hours of the day
    gains["load"] -= 13  # the same, but it goes below 0
    case.write_frame(pd.concat([calls.assign(of="calls"), gains.assign(of="gains")]))
    forms = {"kind": "auto", "forms": ["linear", "pyramid"]}
    case.write_spec(source__series_id="of", source__future_covariates=[], network=forms, fit__max_steps=300)
    outcome = training(case.spec)
    forecasting(case.spec)
    table = DeltaTable(str(case.folder / "store" / "forecasts")).to_pandas()
    shown = table.set_index("series_id").filter(regex="^(forecast|q)")
    assert (shown.loc["calls"] >= 0).all().all()
    assert (shown.loc["calls"] == 0).any().sum() > 3
    assert (shown.loc["gains"] < -1).any().all()
    (scored,) = [one["receipt"] for one in case.store.manifests("validate") if one["receipt"]["model"]]
    detail = json.loads((case.store.folder("validate", scored["key"]) / "backtest.json").read_text())
    lowest = {"calls": [], "gains": []}
    for one in (*detail["validation"]["examples"], *detail["test"]["examples"]):
        lowest[one["series_id"]] += [min(one["forecast"]), *(min(low) for low, _ in one["intervals"].values())]
    assert min(lowest["calls"]) == 0
    assert min(lowest["gains"]) < 0
    page = Path(outcome.report).read_text()
    assert "1 of 2 series never below 0, where the steps to train on are often 0 and never less" in page
    said = CliRunner().invoke(commands, ["model", "show", str(case.yaml)])
    assert "a step every h; 1 of 2 series never below 0" in said.output
