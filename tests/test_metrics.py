"""Errors of forecasts added up, and the rival they are held against."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from models.metrics import QuantileErrors, StepErrors, central, score
from models.naive import seasonal_naive


@pytest.mark.parametrize(
    ("past", "horizon", "season", "forecast"),
    [
        ([1, 2, 3, 4], 3, 1, [4, 4, 4]),
        ([1, 2, 3, 4], 2, 2, [3, 4]),
        ([1, 2, 3, 4], 5, 2, [3, 4, 3, 4, 3]),  # horizon beyond the season
        ([1, 2, 3, 4], 6, 4, [1, 2, 3, 4, 1, 2]),  # the whole past is one season
        ([1, 2, 3, 4], 2, 5, [4, 4]),  # the past is shorter than a season
        ([1, 2, 3, 4], 1, 3, [2]),
    ],
)
def test_seasonal_naive_repeats_the_last_whole_season(past, horizon, season, forecast):
    assert seasonal_naive(np.array([past]), horizon, season).tolist() == [forecast]


def test_seasonal_naive_keeps_forecasts_apart():
    assert seasonal_naive(np.array([[1, 2], [8, 9]]), 3, 2).tolist() == [[1, 2, 1], [8, 9, 8]]


def errors_of(naive_mae, *errors):
    """Two steps each: (series, errors), with None where a step was not observed."""
    one = StepErrors(2, naive_mae)
    for series, values in errors:
        seen = np.array([[value is not None for value in values]])
        one.add(np.array([series]), np.array([[value or 0.0 for value in values]]), seen)
    return one


def test_scores_are_those_worked_out_by_hand():
    errors = errors_of([2.0, 0.5], (0, [1, -3]), (0, [0, 2]), (1, [4, 0]))
    assert score(errors, 2) == {
        "mae": pytest.approx((1 + 3 + 0 + 2 + 4 + 0) / 6),
        "rmse": pytest.approx(math.sqrt((1 + 9 + 0 + 4 + 16 + 0) / 6)),
        "mase": pytest.approx(((6 / 4) / 2.0 + (4 / 2) / 0.5) / 2),  # each series counts once, however many forecasts
    }
    assert score(errors, 1) == {
        "mae": pytest.approx((1 + 0 + 4) / 3),
        "rmse": pytest.approx(math.sqrt((1 + 0 + 16) / 3)),
        "mase": pytest.approx(((1 / 2) / 2.0 + 4 / 0.5) / 2),
    }


def test_steps_that_were_not_observed_do_not_count():
    errors = errors_of([2.0, 1.0, 1.0], (0, [1, None]), (0, [None, 5]), (1, [3, 3]), (2, [None, None]))
    assert score(errors, 2) == {"mae": 3, "rmse": pytest.approx(math.sqrt(11)), "mase": pytest.approx((3 / 2 + 3) / 2)}
    assert score(errors, 1)["mae"] == 2
    assert errors.by_series() == ([3, 3, None], [1.5, 3, None])


@pytest.mark.parametrize("filled", [1e300, math.inf, math.nan])
def test_what_stands_at_a_step_that_was_not_observed_does_not_matter(filled):
    errors = StepErrors(2, [1.0])
    errors.add(np.array([0]), np.array([[1.0, filled]]), np.array([[True, False]]))
    assert score(errors, 2) == {"mae": 1, "rmse": 1, "mase": 1}


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_errors_of_many_series_in_any_order_add_up_as_one_by_one(size):
    rng = np.random.default_rng(0)
    series, error, seen = rng.integers(0, 4, 100), rng.normal(size=(100, 3)), rng.random((100, 3)) < 0.7
    errors = StepErrors(3, [1.0] * 5)
    errors.add(np.empty(0, int), np.empty((0, 3)), np.empty((0, 3), bool))
    for at in range(0, 100, size):
        part = slice(at, at + size)
        errors.add(series[part], error[part], seen[part])
    for name in range(5):
        for step in range(3):
            own = error[(series == name) & seen[:, step], step]
            assert errors.count[name, step] == len(own)
            assert errors.absolute[name, step] == pytest.approx(np.abs(own).sum())
            assert errors.squared[name, step] == pytest.approx(np.square(own).sum())


def test_mase_is_one_for_a_forecast_as_wrong_as_naive_is_in_training():
    assert score(errors_of([3.0], (0, [3, -3]), (0, [-3, 3])), 2)["mase"] == 1


@pytest.mark.parametrize("none", [0.0, None])
def test_series_that_repeat_themselves_exactly_have_no_mase_and_are_left_out_of_the_mean(none):
    assert score(errors_of([none, 2.0], (0, [1, 1]), (1, [1, 1])), 2) == {"mae": 1, "rmse": 1, "mase": 0.5}
    assert score(errors_of([none], (0, [1, 1])), 2) == {"mae": 1, "rmse": 1, "mase": None}


def test_steps_that_were_never_observed_have_no_score():
    errors = StepErrors(2, [1.0])
    errors.add(np.zeros(3, int), np.full((3, 2), 5.0), np.array([[False, True]] * 3))
    assert score(errors, 1) == {"mae": None, "rmse": None, "mase": None}
    assert score(errors, 2) == {"mae": 5, "rmse": 5, "mase": 5}
    own = sure([[[0, 1, 2], [0, 1, 4]]], [[1, 3]], seen=[[False, True]])
    assert own.score(1) == {"crps": None, "wql": None}
    assert own.intervals()["80"] == {"coverage": 1, "width": 4, "coverage_by_step": [None, 1], "width_by_step": [None, 4]}


def sure(quantiles, truth, levels=(0.1, 0.5, 0.9), seen=None):
    quantiles, truth = np.array(quantiles, float), np.array(truth, float)
    errors = QuantileErrors(levels, truth.shape[1])
    errors.add(quantiles, truth, np.ones(truth.shape, bool) if seen is None else np.array(seen))
    return errors


def test_coverage_and_width_are_counted_by_step_for_each_central_pair():
    errors = sure([[[0, 1, 2], [0, 1, 4]], [[0, 1, 2], [0, 1, 8]]], [[1, 5], [3, 5]])
    (own,) = errors.intervals().values()
    assert list(errors.intervals()) == ["80"]
    assert own["coverage_by_step"] == [0.5, 0.5]
    assert own["width_by_step"] == [2, 6]
    assert (own["coverage"], own["width"]) == (0.5, 4)


def test_wql_and_crps_are_worked_out_as_by_hand():
    errors = sure([[[0, 1, 4]]], [[2]])
    # pinball: 0.1 * 2, 0.5 * 1, 0.1 * 2; trapezes between levels 0, 0.1, 0.5, 0.9 and 1
    assert errors.score(1)["wql"] == pytest.approx(2 * np.mean([0.2, 0.5, 0.2]) / 2)
    assert errors.score(1)["crps"] == pytest.approx(2 * (0.2 * 0.25 + 0.5 * 0.4 + 0.2 * 0.25))


def test_crps_of_a_normal_forecast_is_near_what_the_formula_says():
    levels = tuple(np.linspace(0.01, 0.99, 99))
    quantiles = np.tile([NormalDist().inv_cdf(level) for level in levels], (4000, 1, 1))
    truth = np.random.default_rng(0).normal(size=(4000, 1))
    assert sure(quantiles, truth, levels).score(1)["crps"] == pytest.approx(1 / np.sqrt(np.pi), rel=0.03)  # E|X - X'| / 2


def test_quantiles_of_steps_that_were_not_observed_do_not_count():
    whole = sure([[[0, 1, 4], [0, 1, 4]]], [[2, 9]], seen=[[True, False]])
    assert whole.score(2) == sure([[[0, 1, 4]]], [[2]]).score(1)
    assert whole.intervals()["80"]["coverage"] == 1


def test_a_truth_of_zeros_has_no_wql():
    assert sure([[[-1, 0, 1]]], [[0]]).score(1)["wql"] is None


@pytest.mark.parametrize(
    ("levels", "names"),
    [((0.025, 0.1, 0.5, 0.9, 0.975), ["95", "80"]), ((0.1, 0.5), []), ((0.05, 0.2, 0.8), ["60"]), ((0.005, 0.995), ["99"])],
)
def test_central_intervals_are_named_by_the_percentage_between_their_levels(levels, names):
    assert list(central(levels)) == names
