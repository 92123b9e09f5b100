"""Backtests and the gate, on a handful of rows."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.errors import Fault
from models.scaling import Scaler, SeriesScale
from models.windows import Columns, SeriesFacts, WindowSpec
from tasks.promote import GateSpec, judge
from tasks.train import Model
from tasks.validate import Scores, backtest, clock_unit, forecast_rescaled, naive_forecaster, score_steps
from tasks.windows import Windows

CUT = WindowSpec(lookback=2, horizon=2)
FACTS = SeriesFacts(target="load", columns=Columns(), frequency="h", season=2, timezone="+02:00")
WINDOWS = Windows(
    step="materialise_windows", key="k", digest="d", windows=CUT, facts=FACTS, num_windows={"test": 3}, num_series=1
)
ROWS = [0.0, 1.0, 2.0, 3.0, 10.0, 3.0]  # three windows of four


def scaler(mean: float, std: float, naive_mae: float = 2.0) -> Scaler:
    scale = SeriesScale(mean=(mean,), std=(std,), naive_mae=naive_mae)
    return Scaler(channels=("target",), season=2, series={"a": scale})


class Rows:
    """One block of one series, hourly from midnight UTC."""

    num_windows, stride = [3], 1

    def series_id(self, block):
        return "a"

    def read(self, block):
        return torch.tensor(ROWS)[:, None]

    def timestamps(self, block):
        return np.datetime64("2024-01-01T00", "us") + np.arange(len(ROWS)) * np.timedelta64(3600, "s")


def test_a_backtest_scores_every_origin_by_steps_and_local_hour():
    result = backtest(Rows(), WINDOWS, scaler(0, 1), naive_forecaster(WINDOWS), {"worst": 1.0})
    # Naive repeats two values: (0 1 | 2 3), (1 2 | 3 10), (2 3 | 10 3) err by (-2 -2), (-2 -8), (-8 0).
    assert result["num_origins"] == 3
    assert result["scores"]["1"]["mae"] == pytest.approx(12 / 3)
    assert result["scores"]["2"]["mae"] == pytest.approx(22 / 6)
    assert result["scores"]["2"]["rmse"] == pytest.approx(np.sqrt((4 + 4 + 4 + 64 + 64 + 0) / 6))
    assert result["scores"]["2"]["mase"] == pytest.approx(22 / 6 / 2)
    assert result["detail"]["mae_by_step"] == [pytest.approx(4), pytest.approx(10 / 3)]
    assert result["detail"]["clock"] == "hour"
    hours = {row["at"]: row for row in result["detail"]["by_clock"]}
    assert sorted(hours) == [4, 5, 6, 7]  # the third row is 02:00 UTC, 04:00 on the local clock
    assert hours[6]["forecasts"] == 2
    assert hours[6]["bias"] == pytest.approx(-8)
    (worst,) = result["detail"]["examples"]
    assert worst["truth"] == [3, 10]
    assert worst["naive"] == [1, 2]
    assert worst["stamps"][0] == "2024-01-01T05:00:00+02:00"
    assert worst["before"] == [1, 2]
    assert worst["before_stamps"] == ["2024-01-01T03:00:00+02:00", "2024-01-01T04:00:00+02:00"]


@pytest.mark.parametrize(
    ("frequency", "unit"),
    [("15min", "hour"), ("h", "hour"), ("24h", "day_of_week"), ("D", "day_of_week"), ("W-MON", "month"), ("MS", "month")],
)
def test_errors_are_looked_at_by_the_part_of_the_clock_that_a_step_moves_in(frequency, unit):
    assert clock_unit(frequency) == unit


def test_a_backtest_is_in_the_targets_own_unit():
    doubled = backtest(Rows(), WINDOWS, scaler(5, 2), naive_forecaster(WINDOWS), {})
    assert doubled["scores"]["2"]["mae"] == pytest.approx(44 / 6)


def test_a_live_model_of_another_scale_forecasts_on_the_scale_of_the_windows():
    own, newer = scaler(10, 2), scaler(20, 5)
    seen = []

    def repeat_last(windows):
        seen.append(windows[:, :2, 0].numpy())
        return np.repeat(windows[:, 1:2, 0].numpy(), 2, axis=1)

    live = SimpleNamespace(description=SimpleNamespace(scaler=own), forecast_windows=repeat_last)
    raw = np.array([[[30.0], [40.0], [0.0], [0.0]]])
    windows = torch.from_numpy(((raw - 20) / 5).astype(np.float32))
    forecast = forecast_rescaled(live, newer, "a", windows)
    assert seen[0].tolist() == [[10, 15]]  # (30 - 10) / 2 and (40 - 10) / 2
    assert newer.undo_target("a", forecast).tolist() == [[40, 40]]


@pytest.mark.parametrize(
    ("horizon", "season", "steps"),
    [
        (48, 48, [1, 24, 48]),
        (96, 24, [1, 12, 24, 96]),
        (6, 1, [1, 6]),  # no season
        (1, 7, [1]),
        (24, 48, [1, 24]),  # half a season is the horizon
    ],
)
def test_scores_are_given_for_one_step_half_a_season_a_season_and_the_horizon(horizon, season, steps):
    assert score_steps(horizon, season) == steps


def scores(mae: float, mase: float | None = 1.0) -> Scores:
    fold = {"2": {"mae": mae, "rmse": 1.0, "mase": mase}}
    folds = {"validation": fold, "test": {"2": {"mae": 0.0, "rmse": 0.0, "mase": 0.0}}}
    return Scores(step="validate", key="k", digest="d", model=None, scores=folds, num_origins={"validation": 1, "test": 1})


MODEL = Model(step="train", key="k", digest="4b1e" * 16, num_parameters=1, windows=CUT, facts=FACTS)


@pytest.mark.parametrize(
    ("new", "naive", "live", "promoted", "reason"),
    [
        (0.9, 1.0, None, True, "Model 4b1e4b1e promoted: MAE over 2 steps on validation 0.9, seasonal naive 1."),
        (
            0.9,
            1.0,
            0.95,
            True,
            "Model 4b1e4b1e promoted: MAE over 2 steps on validation 0.9, seasonal naive 1, live model 0.95.",
        ),
        (1.1, 1.0, None, False, "not promoted: .* No model is live yet"),
        (0.9, 1.0, 0.8, False, "not promoted: .*live model 0.8. The previous model stays live"),
        (0.9, 1.0, 0.9, False, "not promoted"),  # as good is not better
        (0.9, 0.5, 2.0, False, "not promoted"),  # better than what is live, worse than naive
    ],
)
def test_the_gate_asks_for_less_error_than_every_rival(new, naive, live, promoted, reason):
    rivals = {"seasonal naive": scores(naive)} | ({"live model": scores(live)} if live else {})
    verdict = judge(MODEL, scores(new), rivals, GateSpec())
    assert verdict.promoted is promoted
    assert re.search(reason, verdict.reason)


def test_a_gate_on_a_metric_without_meaning_or_on_steps_without_scores_is_refused():
    with pytest.raises(Fault, match="has no meaning where a series repeats itself exactly"):
        judge(MODEL, scores(1, None), {"seasonal naive": scores(1)}, GateSpec(metric="mase"))
    with pytest.raises(Fault, match=r"gate\.steps is 7; scores are made for 2 steps"):
        judge(MODEL, scores(1), {"seasonal naive": scores(1)}, GateSpec(steps=7))
