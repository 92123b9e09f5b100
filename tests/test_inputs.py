"""Inputs are chosen by what they tell of the target beyond those chosen before them."""

import numpy as np
import pytest

from models.errors import Fault
from models.inputs import (
    Input,
    Pick,
    candidates,
    information,
    keep_channels,
    loess,
    lookback_for,
    normal_scores,
    rank_functions,
    select_inputs,
)
from models.series import Columns

NUM = 800


def named(count: int) -> list[Input]:
    return [Input(channel=f"x{number}", lag=0) for number in range(count)]


def taken(picks: list[Pick]) -> list[str]:
    return [pick.input.channel for pick in picks if pick.taken]


def test_a_copy_of_an_input_and_noise_are_not_taken():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(NUM, 4))
    values[:, 3] = values[:, 0] + 0.05 * rng.normal(size=NUM)
    picks = select_inputs(values, 2 * values[:, 0] + values[:, 1] + 0.3 * rng.normal(size=NUM), named(4), 1)
    assert taken(picks) == ["x0", "x1"]
    assert [pick.taken for pick in picks] == [True, True, False]
    assert picks[-1].information <= picks[-1].chance


@pytest.mark.parametrize("share", [0.4, 0.05])
def test_a_flag_is_taken_once_however_often_it_is_given(share):
    rng = np.random.default_rng(3)
    flag = (rng.random(NUM) < share).astype(float)
    values = np.c_[flag, 1 - flag, flag, rng.normal(size=(NUM, 2))]
    assert len(taken(select_inputs(values, 2 * flag + 0.3 * rng.normal(size=NUM), named(5), 1))) == 1


def test_an_input_whose_square_matters_is_taken():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(NUM, 3))
    assert taken(select_inputs(values, values[:, 2] ** 2 + 0.3 * rng.normal(size=NUM), named(3), 1)) == ["x2"]


def test_two_slow_walks_that_know_nothing_of_each_other_are_not_taken_for_informed():
    rng = np.random.default_rng(3)
    walks = np.cumsum(rng.normal(size=(NUM, 6)), 0)
    assert taken(select_inputs(walks[:, 1:], walks[:, 0], named(5), 1)) == []


def test_a_channel_that_never_changes_is_no_candidate():
    rng = np.random.default_rng(0)
    values = np.stack([np.ones(NUM), rng.normal(size=NUM)], 1)
    assert taken(select_inputs(values, values[:, 1] + 0.1 * rng.normal(size=NUM), named(2), 1)) == ["x1"]
    assert select_inputs(values[:, :1], values[:, 1], named(1), 1) == []


def test_of_normal_variables_the_information_is_the_known_one():
    rng = np.random.default_rng(0)
    first = rng.normal(size=20_000)
    second = 0.8 * first + 0.6 * rng.normal(size=20_000)
    scores, chance = information(first[:, None], second, rng)
    assert scores[0] == pytest.approx(-0.5 * np.log(1 - 0.8**2), rel=0.03)
    assert chance < 0.002


def test_local_regression_takes_a_line_to_itself_and_leaves_noise():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 2)).astype(np.float32)
    line = 3 * inputs[:, 0] - inputs[:, 1] + 2
    smoother = loess(inputs)
    np.testing.assert_allclose(smoother @ line, line, atol=2e-3)
    assert np.abs(smoother @ rng.normal(size=300)).mean() < 0.2
    assert np.diag(smoother).max() == 0  # nothing is explained by itself


def test_local_regression_stands_inputs_that_are_the_same():
    inputs = np.repeat(np.random.default_rng(0).normal(size=(300, 1)), 2, 1).astype(np.float32)
    np.testing.assert_allclose(loess(inputs) @ inputs[:, 0], inputs[:, 0], atol=5e-3)


def test_local_regression_on_rare_flags_looks_at_those_that_are_equal():
    flags = normal_scores((np.random.default_rng(0).random((600, 4)) < 0.05) * 1.0)
    assert loess(flags).sum(1).min() > 0.5


def test_equal_values_share_their_rank():
    scores = normal_scores(np.array([[1.0], [0.0], [1.0], [0.0]]))[:, 0]
    assert scores.tolist() == pytest.approx([0.7346, -0.7346, 0.7346, -0.7346], abs=1e-3)
    functions = rank_functions(np.array([1.0, 0.0, 1.0, 0.0]))
    assert np.isfinite(functions).all()
    assert np.square(functions).mean(0).sum() == pytest.approx(1)  # two values have one function


def test_candidates_reach_back_in_growing_steps_to_seasons_and_ahead_where_known():
    columns = Columns(masked=True, past=("wind",), future=("temperature",), static=("site",))
    found = candidates(columns, lookback=12, horizon=4, season=10)
    assert list(found) == [1, 2, 4]
    assert [one.lag for one in found[4] if one.channel == "target"] == [0, 1, 2, 3, 4, 6, 9]  # 6: a season before step 4
    assert [one.lag for one in found[4] if one.channel == "wind"] == [0, 1, 2, 3, 4, 6, 9]
    assert [one.lag for one in found[4] if one.channel == "temperature"] == [0, -4]
    assert {one.channel for one in found[1]} == {"target", "wind", "temperature"}


def test_the_lookback_follows_the_furthest_input_unless_it_lies_a_season_back():
    def pick(lag, kept=True):
        return Pick(ahead=1, input=Input(channel="target", lag=lag), information=1, chance=0, taken=kept)

    assert lookback_for([pick(40), pick(900, False)], usual=2000, horizon=6, season=144) == 80
    assert lookback_for([pick(2)], usual=2000, horizon=6, season=144) == 48
    assert lookback_for([pick(2)], usual=30, horizon=6, season=1) == 30
    assert lookback_for([pick(138)], usual=2000, horizon=6, season=144) == 2000
    assert lookback_for([], usual=2000, horizon=20, season=1) == 80


def test_kept_channels_leave_the_marker_of_holes_and_what_never_changes():
    columns = Columns(
        masked=True, past=("wind", "rain"), future=("sun",), calendar=("hour", "weekday"), holidays="AU", static=("kind=a",)
    )
    assert keep_channels(columns, ["rain", "hour_cos"]) == Columns(
        masked=True, past=("rain",), calendar=("hour",), static=("kind=a",)
    )
    assert keep_channels(columns, ["holiday", "sun", "kind"]).known == ("sun", "holiday", "kind=a")


def test_a_name_that_is_no_covariate_is_told_of():
    with pytest.raises(Fault, match=r"network.inputs names fog; the covariates of this source are wind. Name some"):
        keep_channels(Columns(past=("wind",)), ["fog", "wind"])
    with pytest.raises(Fault, match="of this source are none"):
        keep_channels(Columns(), ["fog"])
