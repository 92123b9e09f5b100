import numpy as np
import pytest

from models.choice import best_mean, error_of
from models.errors import Fault

RNG = np.random.default_rng(0)
TARGET = RNG.normal(size=(400, 2))


def off_by(*errors):
    """Forecasts that miss every target by the same amount each."""
    return np.stack([TARGET + error for error in errors])


def test_the_best_form_alone_is_chosen_where_every_mean_is_clearly_worse():
    chosen, errors = best_mean(off_by(3.0, 1.0, 2.0), TARGET, "mae")
    assert chosen == (1,)
    assert errors == pytest.approx([3.0, 1.0, 2.0])


def test_a_mean_is_chosen_where_its_members_err_in_opposite_ways():
    chosen, errors = best_mean(off_by(2.0, 5.0, -2.0), TARGET, "mae")
    assert chosen == (0, 2)
    assert errors == pytest.approx([2.0, 5.0, 2.0])


def test_where_validation_can_not_tell_the_mean_of_the_most_is_chosen():
    noisy = TARGET + RNG.normal(size=(3, 400, 2))
    assert best_mean(noisy, TARGET, "mae")[0] == (0, 1, 2)  # and it is the best here
    assert best_mean(off_by(1.0, 1.0, 1.0), TARGET, "mae")[0] == (0, 1, 2)


@pytest.mark.parametrize(("num_windows", "chosen"), [(4, (0, 1)), (400, (0,))])
def test_it_takes_more_windows_than_a_few_to_leave_a_form_out(num_windows, chosen):
    # The second form is worse by a tenth, give or take one.
    worse = 1.1 + np.tile([[1.0], [-1.0]], (200, 2))
    forecasts = np.stack([TARGET + 1.0, TARGET + worse])[:, :num_windows]
    assert best_mean(forecasts, TARGET[:num_windows], "mae")[0] == chosen


def test_windows_that_share_their_steps_count_as_fewer():
    # Alike in all but the length of the horizon: of long ones, fewer tell something new.
    def choose_by(horizon):
        rng = np.random.default_rng(1)
        worse = rng.normal(1.1, 0.2, (60, 1)) * np.ones((1, horizon))
        return best_mean(np.stack([np.ones((60, horizon)), worse]), np.zeros((60, horizon)), "mae")[0]

    assert (choose_by(1), choose_by(60)) == ((0,), (0, 1))


def test_windows_whose_origins_lie_a_horizon_apart_share_none():
    rng = np.random.default_rng(1)
    worse = rng.normal(1.1, 0.2, (60, 1)) * np.ones((1, 24))
    forecasts, target = np.stack([np.ones((60, 24)), worse]), np.zeros((60, 24))
    chosen = {spacing: best_mean(forecasts, target, "mae", spacing)[0] for spacing in (1, 24, 100)}
    assert chosen == {1: (0, 1), 24: (0,), 100: (0,)}


def test_the_metric_decides():
    # One form misses every fourth step by far, the other each by a little more on average.
    spikes = np.where(np.arange(400)[:, None] % 4 == 0, 4.4, 0.0) * np.ones((1, 2))
    forecasts = np.stack([TARGET + spikes, TARGET + 1.6])
    assert best_mean(forecasts, TARGET, "mae")[0] == (0,)
    assert best_mean(forecasts, TARGET, "mase")[0] == (0,)
    assert best_mean(forecasts, TARGET, "rmse")[0] != (0,)


def test_steps_that_were_not_observed_do_not_count():
    target = TARGET.copy()
    target[1::2] = np.nan
    target[0, 1] = np.nan
    wild = np.where(np.isnan(target), 99.0, 0.0)
    forecasts = np.stack([TARGET + wild, TARGET + 0.5])
    assert best_mean(forecasts, target, "mae") == ((0,), [0.0, pytest.approx(0.5)])
    assert error_of(forecasts[1], target, "rmse") == pytest.approx(0.5)


def test_without_any_observed_step_there_is_nothing_to_choose_by():
    with pytest.raises(Fault, match=r"^Every step of the validation fold is masked.*Set other folds\.$"):
        best_mean(off_by(1.0, 2.0), np.full((400, 2), np.nan), "mae")
