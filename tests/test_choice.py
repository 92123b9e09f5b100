import numpy as np
import pytest

from models.choice import best_mean, error_of
from models.errors import Fault

TARGET = np.array([[1.0, 2.0], [3.0, 4.0]])


def off_by(*errors):
    """Forecasts that miss every target by the same amount each."""
    return np.stack([TARGET + error for error in errors]).astype(np.float32)


def test_the_best_form_alone_is_chosen_where_no_mean_is_better():
    assert best_mean(off_by(3.0, 1.0, 2.0), TARGET, "mae") == ((1,), [3.0, 1.0, 2.0])


def test_a_mean_is_chosen_where_its_members_err_in_opposite_ways():
    chosen, errors = best_mean(off_by(2.0, 5.0, -2.0), TARGET, "mae")
    assert chosen == (0, 2)
    assert errors == [2.0, 5.0, 2.0]


def test_of_equal_errors_the_one_with_the_fewest_members_is_chosen():
    assert best_mean(off_by(1.0, 1.0, 1.0), TARGET, "mae")[0] == (0,)


def test_the_metric_decides():
    # One member misses a single step by far, the other misses each by a little more on average.
    forecasts = np.stack([TARGET + np.array([[0, 0], [0, 4.4]]), TARGET + 1.2])
    assert best_mean(forecasts, TARGET, "mae")[0] == (0,)
    assert best_mean(forecasts, TARGET, "mase")[0] == (0,)
    assert best_mean(forecasts, TARGET, "rmse")[0] != (0,)


def test_steps_that_were_not_observed_do_not_count():
    target = TARGET.copy()
    target[1, 1] = np.nan
    forecasts = np.stack([TARGET + np.array([[0, 0], [0, 99.0]]), TARGET + 0.5])
    assert best_mean(forecasts, target, "mae") == ((0,), [0.0, 0.5])
    assert error_of(forecasts[1], target, "rmse") == pytest.approx(0.5)


def test_without_any_observed_step_there_is_nothing_to_choose_by():
    with pytest.raises(Fault, match=r"^Every step of the validation fold is masked.*Set other folds\.$"):
        best_mean(off_by(1.0, 2.0), np.full((2, 2), np.nan), "mae")
