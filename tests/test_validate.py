"""Backtests and the gate, on a handful of rows."""

import re

import numpy as np
import pytest
import torch
from shards import HOUR, scaler_of, window_set

import tasks.backtest
from models.bundle import FORMAT, Bundle, Description, Member
from models.errors import Fault
from models.metrics import StepErrors, score_steps
from models.naive import from_a_season_ago, seasonal_naive
from models.networks import build_network
from models.scaling import Scaler, ScalingSpec, SeriesScale
from models.series import Columns, SeriesFacts
from models.specs import GateSpec, ResidualSpec
from models.windows import FoldSpec, WindowSpec
from tasks.backtest import Asked, Backtest, Forecaster, clock_unit, worst_series
from tasks.promote import judge
from tasks.train import Model
from tasks.validate import Scores, check_same_task
from tasks.windows.task import Windows

CUT, FOLDS = WindowSpec(lookback=2, horizon=2), FoldSpec(validation=2, test=4)
FACTS = SeriesFacts(target="load", columns=Columns(), frequency="h", season=2, timezone="+02:00")
COUNTS = {"num_windows": {"test": 3}, "num_series": 1, "too_short": 0}
ROWS = [5.0, 7.0, 4.0, 8.0, 0.0, 1.0, 2.0, 3.0, 10.0, 3.0]  # the last six are three windows of four


def about(columns=FACTS.columns, windows=CUT):
    return Windows(
        step="materialise_windows", key="k", digest="d", windows=windows, columns=columns, frequency="h", timezone="+02:00",
        num_series=1, num_windows=3,
    )  # fmt: skip


def scaler(naive_mae=2.0, **series):
    """A scaler with the (mean, std) of one channel of each series."""
    scales = {
        name: SeriesScale(mean=(mean,), std=(std,), naive_mae=naive_mae, steps=len(ROWS))
        for name, (mean, std) in series.items()
    }
    return Scaler(channels=("target",), season=2, scaling=ScalingSpec(), series=scales)


def opened(folder, rows=None, columns=FACTS.columns, own=None):
    rows = {"a": np.array(ROWS)[:, None]} if rows is None else rows
    return window_set(folder, columns, rows, CUT, FOLDS, season=2, scaler=own)


def bundle_of(own, columns=FACTS.columns, spec=None, windows=CUT):
    """An untrained net without a season, which repeats the last value, in whatever scale it is given."""
    facts = FACTS.model_copy(update={"columns": columns, "season": 1})
    spec = spec or ResidualSpec(channels=4)
    described = Description(
        format=FORMAT,
        members=(Member(network=spec, seeds=(0,)),),
        windows=windows,
        series=facts,
        scaler=own,
        trained_on="0" * 64,
        calibration=None,
        versions={},
    )
    torch.manual_seed(0)
    return Bundle(described, [[build_network(spec, columns, windows, 1, len(own.series)).state_dict()]])


def test_a_backtest_scores_every_origin_by_steps_and_local_hour(tmp_path):
    result = Backtest(opened(tmp_path, own=scaler(a=(0, 1))), "test", about(), None).run({"worst": 1.0})
    # Naive repeats two values: (0 1 | 2 3), (1 2 | 3 10), (2 3 | 10 3) err by (-2 -2), (-2 -8), (-8 0).
    assert result["num_origins"] == 3
    assert result["scores"]["1"]["mae"] == pytest.approx(12 / 3)
    assert result["scores"]["2"]["mae"] == pytest.approx(22 / 6)
    assert result["scores"]["2"]["rmse"] == pytest.approx(np.sqrt((4 + 4 + 4 + 64 + 64 + 0) / 6))
    assert result["scores"]["2"]["mase"] == pytest.approx(22 / 6 / 2)
    assert result["detail"]["mae_by_step"] == [pytest.approx(4), pytest.approx(10 / 3)]
    assert result["detail"]["clock"] == "hour"
    hours = {row["at"]: row for row in result["detail"]["by_clock"]}
    assert sorted(hours) == [8, 9, 10, 11]  # the seventh row is 06:00 UTC, 08:00 on the local clock
    assert hours[10]["forecasts"] == 2
    assert hours[10]["bias"] == pytest.approx(-8)
    (worst,) = result["detail"]["examples"]
    assert worst["truth"] == pytest.approx([3, 10], abs=1e-5)
    assert worst["naive"] == pytest.approx([1, 2], abs=1e-5)
    assert worst["stamps"][0] == "1970-01-01T09:00:00+02:00"
    assert worst["before"] == pytest.approx([1, 2], abs=1e-5)
    assert worst["before_stamps"] == ["1970-01-01T07:00:00+02:00", "1970-01-01T08:00:00+02:00"]


@pytest.mark.parametrize("block", [3, 8192])
@pytest.mark.parametrize("cut", [None, 9])
def test_seasonal_naive_looks_back_a_season_that_windows_are_too_short_for(tmp_path, monkeypatch, cut, block):
    monkeypatch.setattr("tasks.windows.files.BLOCK", block)
    rows = {name: np.random.default_rng(seed).normal(50, 9, (30, 1)) for seed, name in enumerate("ab")}
    season, folds = 7, FoldSpec(validation=8, test=12)
    windows = window_set(tmp_path, FACTS.columns, rows, CUT, folds, cut=cut, season=season)
    for fold, first in (("test", 18), ("validation", 10)):
        backtest = Backtest(windows, fold, about(), None)
        for part in backtest.asked():
            forecast, _ = backtest.model.forecast(part)
            for own, number, found in zip(part.series, part.rows, forecast, strict=True):
                target = rows[backtest.names[own]][:, 0]
                origin = int(np.argmin(np.abs(target - number[CUT.lookback - 1, 0])))
                assert origin >= first - 1
                assert found == pytest.approx(target[origin + 1 - season : origin + 3 - season], abs=1e-4)
    example = Backtest(windows, "test", about(), None).run({"worst": 1.0})["detail"]["examples"][0]
    assert example["forecast"] == example["naive"]


def test_where_a_season_begins_before_a_series_naive_repeats_its_last_value():
    ago = np.array([[np.nan, 2.0], [1.0, 2.0]])
    assert from_a_season_ago(ago, np.array([7.0, 8.0]), 3).tolist() == [[7, 7, 7], [1, 2, 1]]


def test_a_backtest_is_in_the_targets_own_unit_whatever_the_scale(tmp_path):
    plain, scaled = (
        Backtest(opened(tmp_path, own=scaler(a=pair)), "test", about(), bundle_of(scaler(a=pair))).run({})
        for pair in ((0, 1), (5, 2))
    )
    assert plain["scores"]["2"]["mae"] == pytest.approx(scaled["scores"]["2"]["mae"], rel=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 5, 1024])
@pytest.mark.parametrize("masked", [False, True])
def test_a_backtest_of_many_series_is_what_a_plain_loop_works_out(tmp_path, monkeypatch, batch, masked):
    monkeypatch.setattr(tasks.backtest, "BATCH", batch)
    rng, columns = np.random.default_rng(0), Columns(masked=masked)
    rows = {name: rng.normal(10, 3, (length, 1)) for name, length in (("a", 14), ("b", 11), ("c", 20))}
    if masked:
        rows = {name: np.column_stack([own, rng.random(len(own)) < 0.7]) for name, own in rows.items()}
    cut = opened(tmp_path, rows, columns)
    model = bundle_of(cut.scaler, columns)
    result = Backtest(cut, "test", about(columns), model).run({"median": 0.5, "worst": 1.0})
    errors, by_origin = StepErrors(2, [cut.scaler.of(name).naive_mae for name in rows]), []
    for number, own in enumerate(rows.values()):
        for start in range(len(own) - 6, len(own) - 3):
            truth, seen = own[start + 2 : start + 4, 0], own[start + 2 : start + 4, 1:].all(1)
            forecast = np.repeat(own[start + 1, 0], 2)  # an untrained net repeats the last value
            errors.add(np.array([number]), (forecast - truth)[None], seen[None])
            if seen.any():
                by_origin.append(np.abs(forecast - truth)[seen].mean())
    wanted = tasks.backtest.score(errors, 2)
    wanted = {metric: pytest.approx(value, rel=1e-5) for metric, value in wanted.items()}
    assert result["scores"]["2"] == wanted | {"crps": None, "wql": None}  # it has no quantiles
    assert result["num_origins"] == len(by_origin)
    assert [one["mae"] for one in result["detail"]["examples"]] == [
        pytest.approx(sorted(by_origin)[round(quantile * (len(by_origin) - 1))], rel=1e-5) for quantile in (0.5, 1.0)
    ]
    assert sum(row["forecasts"] for row in result["detail"]["by_clock"]) == errors.count.sum()
    assert [one["series_id"] for one in result["detail"]["worst_series"]] == [
        one["series_id"] for one in worst_series(list(rows), errors)
    ]


def test_what_was_filled_in_over_the_horizon_changes_no_score(tmp_path):
    columns, results = Columns(masked=True), []
    for filled in (3.0, 700.0):
        rows = np.column_stack([ROWS, np.ones(10)])
        rows[9] = filled, 0  # the last step of the last horizon
        folder = tmp_path / str(filled)
        folder.mkdir()
        cut = opened(folder, {"a": rows}, columns)
        results.append(Backtest(cut, "test", about(columns), bundle_of(cut.scaler, columns)).run({"good": 0.0})["scores"])
    for steps in ("1", "2"):
        assert results[0][steps]["crps"] is None
        known = [{metric: value for metric, value in one[steps].items() if value is not None} for one in results]
        assert known[0] == pytest.approx(known[1], rel=1e-4)


def test_a_fold_that_is_masked_throughout_is_refused(tmp_path):
    columns, rows = Columns(masked=True), np.column_stack([ROWS, np.arange(10) < 5])
    with pytest.raises(Fault, match=r"^Every step of a scored fold is masked.* Set other folds\.$"):
        Backtest(opened(tmp_path, {"a": rows}, columns), "test", about(columns), None).run({})


def test_a_live_model_forecasts_on_its_own_scale_and_new_series_on_theirs(tmp_path):
    rows = {name: np.array(ROWS)[:, None] for name in "ab"}
    cut, live = opened(tmp_path, rows, own=scaler(a=(20, 5), b=(30, 3))), bundle_of(scaler(a=(10, 2)))
    seen = []
    forecaster = Forecaster(live, cut, ["a", "b"])

    def double(past, future, series, floors):
        seen.append((past[:, :, 0].tolist(), series.tolist()))
        return 2 * past[:, 1:, 0].repeat(1, 2).numpy()

    object.__setattr__(live, "forecast", double)
    rows = np.array([[[30.0], [40.0], [0.0], [0.0]]] * 2)
    asked = Asked(np.array([0, 1]), rows, np.zeros((2, 2), np.int64), np.array([0, 1]), np.empty((2, 0)))
    forecast, _ = forecaster.forecast(asked)
    assert seen == [([[10, 15], [0, pytest.approx(10 / 3)]], [1, 0])]  # (30 - 10) / 2 and (40 - 10) / 2; (30 - 30) / 3, ...
    assert forecast == pytest.approx(np.array([[70, 70], [50, 50]]))  # twice as far from the mean


def test_new_series_of_a_live_model_take_its_scale_of_static_channels(tmp_path):
    columns, folds = Columns(static=("size",)), FOLDS
    rows = {name: np.column_stack([ROWS, np.full(10, size)]) for name, size in (("a", 10.0), ("b", 30.0), ("c", 500.0))}
    own = scaler_of(columns, {name: rows[name] for name in "ab"}, folds)
    forecaster = Forecaster(bundle_of(own, columns), opened(tmp_path, rows, columns), ["a", "c"])
    assert forecaster.mean[:, 1].tolist() == [20, 20]
    assert forecaster.std[:, 1].tolist() == [10, 10]


def test_seasonal_naive_needs_no_model(tmp_path):
    rows = np.random.default_rng(0).normal(size=(5, 4, 1))
    asked = Asked(np.zeros(5, int), rows, np.zeros((5, 2), np.int64), np.arange(5), np.empty((5, 0)))
    forecast, quantiles = Forecaster(None, opened(tmp_path), ["a"]).forecast(asked)
    assert quantiles is None
    assert np.array_equal(forecast, seasonal_naive(rows[:, :2, 0], 2, 2))


def test_a_model_made_for_other_windows_is_refused():
    made = bundle_of(scaler(a=(0, 1))).description
    check_same_task(made, about())
    with pytest.raises(Fault, match=r"^The live model was made for lookback 2, this run has 3\. Give the spec another name"):
        check_same_task(made, about(windows=WindowSpec(lookback=3, horizon=2)))
    with pytest.raises(Fault, match=r"^The live model was made for columns \('target',\), this run has"):
        check_same_task(made, about(Columns(masked=True)))


def test_the_worst_series_are_those_that_seasonal_naive_had_it_easiest_with():
    errors = StepErrors(1, [1.0, None, 0.5, 4.0])
    errors.add(np.arange(4), np.array([[2.0], [9], [2], [2]]), np.ones((4, 1), bool))
    assert worst_series(list("abcd"), errors, 2) == [
        {"series_id": "c", "mae": 2, "mase": 4},
        {"series_id": "a", "mae": 2, "mase": 2},
    ]


def test_stamps_of_windows_are_those_of_their_horizons(tmp_path):
    (part,) = Backtest(opened(tmp_path), "test", about(), None).asked()
    assert (part.stamps // HOUR).tolist() == [[6, 7], [7, 8], [8, 9]]
    assert part.origin.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("frequency", "unit"),
    [("15min", "hour"), ("h", "hour"), ("24h", "day_of_week"), ("D", "day_of_week"), ("W-MON", "month"), ("MS", "month")],
)
def test_errors_are_looked_at_by_the_part_of_the_clock_that_a_step_moves_in(frequency, unit):
    assert clock_unit(frequency) == unit


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


def scores(mae: float | None, mase: float | None = 1.0) -> Scores:
    fold = {"2": {"mae": mae, "rmse": 1.0, "mase": mase}}
    folds = {"validation": fold, "test": {"2": {"mae": 0.0, "rmse": 0.0, "mase": 0.0}}}
    return Scores(
        step="validate", key="k", digest="d", model=None, scores=folds, num_origins={"validation": 1, "test": 1}, intervals={}
    )


MODEL = Model(step="train", key="k", digest="4b1e" * 16, num_parameters=1, forms=(), windows=CUT, facts=FACTS, **COUNTS)


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
    with pytest.raises(Fault, match=r"first 2 steps was observed on the validation fold\. Use another gate\.steps"):
        judge(MODEL, scores(None, None), {"seasonal naive": scores(None, None)}, GateSpec())


def test_of_very_many_windows_an_even_selection_is_forecast(tmp_path, monkeypatch):
    rows = {name: np.arange(40.0)[:, None] ** 2 for name in ("a", "b")}
    cut = window_set(tmp_path, FACTS.columns, rows, CUT, FoldSpec(validation=4, test=14), season=2)
    whole = Backtest(cut, "test", about(), None)
    every = np.concatenate([part.origin for part in whole.asked()])
    assert every.tolist() == list(range(26))  # 13 of each
    monkeypatch.setattr("tasks.backtest.MOST", 10)
    few = Backtest(cut, "test", about(), None)
    chosen = list(few.asked())
    assert np.concatenate([part.origin for part in chosen]).tolist() == list(range(0, 26, 3))
    kept = {origin: rows for part in whole.asked() for origin, rows in zip(part.origin.tolist(), part.rows, strict=True)}
    assert all((rows == kept[origin]).all() for part in chosen for origin, rows in zip(part.origin, part.rows, strict=True))
    assert few.run({})["num_origins"] == 9
