"""Offsets that make quantiles hold, on arrays small enough to check by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from models import metrics
from models.conformal import (
    FLAT_RATE,
    LARGEST,
    SMALLEST,
    Calibration,
    Rolling,
    Sizes,
    following_of,
    offsets_of,
    rank,
    scores,
    shifted,
    spread_beyond,
    widths,
)
from models.metrics import Sureness

LEVELS = (0.1, 0.5, 0.9)


def normal_case(num_windows=4000, horizon=3, sigma=2.0, seed=0):
    """Quantiles of a standard normal, for truths that are wilder by the factor `sigma`."""
    quantiles = np.tile([-1.2816, 0.0, 1.2816], (num_windows, horizon, 1))
    return quantiles, np.random.default_rng(seed).normal(0, sigma, (num_windows, horizon))


def coverage(quantiles, truth):
    return ((truth >= quantiles[..., 0]) & (truth <= quantiles[..., -1])).mean()


def test_a_score_is_how_far_the_truth_lies_above_a_quantile_in_widths():
    quantiles = np.array([[[2.0, 3.0, 6.0]]])
    assert scores(quantiles, np.array([[4.0]])).tolist() == [[[0.5, 0.25, -0.5]]]
    assert np.isnan(scores(quantiles, np.array([[np.nan]]))).all()


def test_quantiles_that_lie_on_one_another_have_a_width_to_divide_by():
    assert (widths(np.zeros((1, 1, 3))) > 0).all()


@pytest.mark.parametrize(
    ("level", "count", "alone", "place"),
    [
        (0.9, 9, 9, 8),  # ceil(10 * 0.9) = 9, the largest of nine
        (0.9, 19, 19, 17),
        (0.975, 9, 9, 8),  # never beyond the largest
        (0.1, 9, 9, 0),
        (0.1, 19, 19, 1),
        (0.025, 9, 9, 0),
        (0.5, 9, 9, 4),
        (0.9, 190, 19, 179),  # one of nineteen lies beyond, so ten of ten times as many
        (0.1, 190, 19, 10),
        (0.9, 190, 9, 189),  # as of nine, the largest
        (0.5, 190, 2, 94),  # the middle stays the middle
    ],
)
def test_the_rank_of_a_level_errs_on_the_wide_side(level, count, alone, place):
    assert rank(level, count, alone) == place


def test_windows_that_overlap_count_less_so_that_outer_quantiles_lie_further_out():
    quantiles, truth = normal_case(num_windows=300, horizon=16, sigma=1.0)
    apart = scores(quantiles, truth)
    dense, sparse = offsets_of(apart, LEVELS), offsets_of(apart, LEVELS, spacing=16)
    assert np.array_equal(dense[0], sparse[0])  # one step ahead, nothing overlaps
    assert (dense[1:, 0] <= sparse[1:, 0]).all()
    assert (dense[1:, 2] >= sparse[1:, 2]).all()
    assert dense[15, 2] > sparse[15, 2]
    assert np.array_equal(dense[:, 1], sparse[:, 1])


def test_offsets_make_each_level_hold_on_new_data():
    quantiles, truth = normal_case()
    assert coverage(quantiles, truth) == pytest.approx(0.48, abs=0.02)
    offsets = offsets_of(scores(quantiles, truth), LEVELS)
    again, unseen = normal_case(seed=1)
    moved = shifted(again, offsets)
    for at, level in enumerate(LEVELS):
        assert (unseen <= moved[..., at]).mean() == pytest.approx(level, abs=0.02)


def test_each_step_has_offsets_of_its_own_where_there_are_windows_enough():
    quantiles, truth = normal_case(sigma=1.0)
    truth[:, 2] *= 3
    offsets = offsets_of(scores(quantiles, truth), LEVELS)
    assert offsets[:2, 2] == pytest.approx([0, 0], abs=0.05)
    assert offsets[2, 2] > 0.8


def test_few_windows_share_the_scores_of_neighbouring_steps():
    quantiles, truth = normal_case(num_windows=4, horizon=60, sigma=1.0)
    offsets = offsets_of(scores(quantiles, truth), LEVELS)
    alone = np.stack([np.sort(scores(quantiles, truth)[:, at], 0)[-1] for at in range(60)])
    assert offsets[:, 2].std() < alone[:, 2].std() / 1.5


def test_a_step_that_was_seldom_observed_shares_the_scores_of_its_neighbours():
    quantiles, truth = normal_case(num_windows=300, horizon=8, sigma=1.0)
    whole = offsets_of(scores(quantiles, truth), LEVELS)
    truth[1:, 3] = np.nan
    offsets = offsets_of(scores(quantiles, truth), LEVELS)
    others = np.arange(8) != 3
    assert np.array_equal(offsets[others], whole[others])
    assert offsets[3, 2] > 0.8 * whole[others, 2].max()
    assert offsets[3, 0] < 0.8 * whole[others, 0].min()


@pytest.mark.parametrize("unit", [1e-12, 1e9])
def test_intervals_in_another_unit_are_the_same_in_that_unit(unit):
    quantiles, truth = normal_case(60, 4)
    series, seen = np.repeat([0, 1], 30), np.ones((60, 4), bool)
    calibration = calibration_of(np.zeros((4, 3)), following_of(quantiles, truth, series, LEVELS, 6, 1))
    plain, other = Sureness(calibration, 1, 4), Sureness(calibration, 1, 4, units=np.array([unit, unit]))
    plain.add(series, quantiles, truth, seen)
    other.add(series, quantiles * unit, truth * unit, seen)
    for name, found in plain.intervals().items():
        assert other.intervals()[name]["coverage"] == found["coverage"]
        assert other.intervals()[name]["width"] == pytest.approx(found["width"] * unit)
    band = plain.bands(1, quantiles, truth, seen)
    for name, sides in other.bands(1, quantiles * unit, truth * unit, seen).items():
        assert np.array(sides) == pytest.approx(np.array(band[name]) * unit)


def test_what_was_not_observed_moves_no_offset():
    quantiles, truth = normal_case(horizon=1)
    holes = np.concatenate([truth, np.full_like(truth, np.nan)])
    twice = scores(np.concatenate([quantiles, quantiles]), holes)
    assert np.array_equal(offsets_of(twice, LEVELS), offsets_of(scores(quantiles, truth), LEVELS))
    assert not offsets_of(np.full((5, 1, 3), np.nan), LEVELS).any()


def test_quantiles_ascend_after_any_offsets():
    quantiles = np.array([[[1.0, 2.0, 3.0]]])
    assert (np.diff(shifted(quantiles, np.array([[5.0, 0.0, -5.0]]))) >= 0).all()


def test_rolling_offsets_are_worked_out_as_by_hand():
    # One step ahead, origins one step apart: the truth of an origin is known at the next.
    rolling = Rolling(np.zeros((1, 2)), (0.1, 0.9), spacing=1, rates=1.0)
    above, below = [[5.0, 5.0]], [[-5.0, -5.0]]
    followed = rolling.offsets_at(np.array([above, below, np.full((1, 2), np.nan), above]))
    # above both: up by each level; below both: down by 1 - level; nothing observed: stays
    wanted = [[0, 0], [0.1, 0.9], [-0.8, 0.8], [-0.8, 0.8]]
    assert followed[:, 0] == pytest.approx(np.array(wanted))


@pytest.mark.parametrize("spacing", [1, 2, 3])
def test_rolling_offsets_only_know_what_was_known_at_the_origin(spacing):
    rng, horizon = np.random.default_rng(0), 5
    apart = rng.normal(size=(40, horizon, 3))
    whole = Rolling(np.zeros((horizon, 3)), LEVELS, spacing, 0.1).offsets_at(apart)
    for origin in (7, 20):
        unknown = apart.copy()
        for earlier in range(40):
            for step in range(1, horizon + 1):
                if earlier * spacing + step > origin * spacing:
                    unknown[earlier, step - 1] = 1e6
        again = Rolling(np.zeros((horizon, 3)), LEVELS, spacing, 0.1).offsets_at(unknown)
        assert np.array_equal(whole[: origin + 1], again[: origin + 1])
        assert not np.array_equal(whole[origin + horizon + 1 :], again[origin + horizon + 1 :])


@pytest.mark.parametrize(
    ("alone", "found"),
    [(8, [-3, -3, 0, 4, 4]), (9, [-3, -3, 0, 4, 4]), (38, [-3, -3, 0, 4, 4]), (39, [-2, -3, 0, 4, 1])],
)
def test_levels_further_out_than_scores_can_tell_keep_their_distance_from_the_one_before_them(alone, found):
    assert spread_beyond([-2, -3, 0, 4, 1], (0.025, 0.1, 0.5, 0.9, 0.975), alone) == found


def test_of_few_windows_the_wider_interval_is_still_the_wider_one():
    levels, quantiles = (0.025, 0.1, 0.5, 0.9, 0.975), np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]])[None]
    target = np.array([[-4.0], [-1.0], [0.5], [1.0], [5.0]])
    moved = shifted(quantiles, offsets_of(scores(np.repeat(quantiles, 5, 0), target), levels))
    assert moved[0, 0].tolist() == [-5, -4, 0.5, 5, 6]


def test_told_in_parts_or_at_once_rolling_offsets_are_the_same():
    apart = np.random.default_rng(0).normal(size=(30, 4, 3))
    at_once = Rolling(np.zeros((4, 3)), LEVELS, 1, 0.1).offsets_at(apart)
    parts = Rolling(np.zeros((4, 3)), LEVELS, 1, 0.1)
    assert np.array_equal(np.concatenate([parts.offsets_at(part) for part in (apart[:3], apart[3:4], apart[4:])]), at_once)


def test_rolling_quantiles_hold_on_a_series_that_drifts_where_fixed_ones_do_not():
    quantiles, truth = normal_case(sigma=1.0)
    truth *= np.linspace(1, 3, len(truth))[:, None]
    start = offsets_of(scores(quantiles[:500], truth[:500]), LEVELS)
    later, one = slice(500, None), np.zeros(500, int)
    assert coverage(shifted(quantiles[later], start), truth[later]) < 0.58
    followed = Rolling(start, LEVELS, 1, FLAT_RATE).follow(quantiles[later], truth[later])
    assert coverage(followed, truth[later]) > 0.75
    calibration = calibration_of(start, following_of(quantiles[:500], truth[:500], one, LEVELS, half_life=50, spacing=1))
    followed = calibration.rolled(1).follow(quantiles[later], truth[later])
    assert coverage(followed, truth[later]) == pytest.approx(0.8, abs=0.015)


def calibration_of(offsets, following=None, rolling=True):
    return Calibration(levels=LEVELS, offsets=offsets, rolling=rolling, num_windows=9, held_out=3, following=following)


def test_offsets_that_do_not_roll_stay_as_validation_left_them():
    quantiles, truth = normal_case(50, 1)
    offsets, following = ((0.0, 0.1, 0.2),), following_of(quantiles, truth, np.zeros(50, int), LEVELS, 4, 1)
    still = calibration_of(offsets, following, rolling=False).rolled(1).follow(quantiles, truth)
    assert np.array_equal(still, shifted(quantiles, np.array(offsets)))
    for how in (None, following):
        assert not (calibration_of(offsets, how).rolled(1).follow(quantiles, truth) == still).all()


def test_the_size_of_errors_is_worked_out_as_by_hand():
    # Two steps ahead, an error counts half after one step; the errors of an origin are known one and two origins later.
    sizes = Sizes(np.array([1.0, 2.0]), half_life=1, spacing=1)
    followed = sizes.follow(np.array([[3.0, 2.0], [1.0, 8.0], [np.nan, np.nan], [1.0, 1.0]]))
    # origin 1: 3/1; origin 2: mean of 1/1 and 2/2; origin 3: 8/2 alone
    assert followed == pytest.approx([1, 2, 1.5, 2.75])


def test_errors_of_usual_size_leave_quantiles_as_they_are_and_larger_ones_spread_them():
    quantiles = np.tile([1.0, 2.0, 5.0], (4, 1, 1))
    usual = Sizes(np.array([0.25]), 10, 1).spread(quantiles, np.full((4, 1), 3.0), 1)  # 1 of a width of 4
    assert np.allclose(usual, quantiles)
    larger = Sizes(np.array([0.125]), 10, 1).spread(quantiles, np.full((4, 1), 3.0), 1)
    assert (np.diff(larger[:, 0, 2]) > 0).all()
    assert (larger[:, 0, 1] == 2.0).all()


def test_the_size_of_errors_has_a_least_and_a_most():
    sizes = Sizes(np.array([1.0]), 1, 1)
    assert sizes.follow(np.zeros((50, 1)))[-1] == SMALLEST
    assert sizes.follow(np.full((50, 1), 1e9))[-1] == LARGEST


@pytest.mark.parametrize("spacing", [1, 2, 3])
def test_quantiles_that_follow_only_know_what_was_known_at_the_origin(spacing):
    quantiles, truth = normal_case(40, 5)
    following = following_of(quantiles, truth, np.zeros(40, int), LEVELS, 6, spacing)
    calibration = calibration_of(offsets_of(scores(quantiles, truth), LEVELS), following)
    whole = calibration.rolled(spacing).follow(quantiles, truth)
    for origin in (7, 20):
        unknown = truth.copy()
        for earlier in range(40):
            for step in range(1, 6):
                if earlier * spacing + step > origin * spacing:
                    unknown[earlier, step - 1] = np.nan
        again = calibration.rolled(spacing).follow(quantiles, unknown)
        assert np.array_equal(whole[: origin + 1], again[: origin + 1])
        assert not np.array_equal(whole[origin + 6 :], again[origin + 6 :])


def test_told_in_parts_or_at_once_quantiles_that_follow_are_the_same():
    quantiles, truth = normal_case(30, 4)
    calibration = calibration_of(np.zeros((4, 3)), following_of(quantiles, truth, np.zeros(30, int), LEVELS, 6, 1))
    parts = calibration.rolled(1)
    joined = np.concatenate([parts.follow(quantiles[own], truth[own]) for own in (slice(3), slice(3, 4), slice(4, 30))])
    assert np.array_equal(joined, calibration.rolled(1).follow(quantiles, truth))


@pytest.mark.parametrize("spacing", [1, 2])
@pytest.mark.parametrize("follows", [True, False])
def test_a_later_fold_goes_on_where_an_earlier_one_has_left_the_quantiles_of_each_series(spacing, follows):
    quantiles, truth = normal_case(60, 4)
    truth[30:] *= 3  # of a second series
    series = np.repeat([0, 1], 30)
    how = following_of(quantiles, truth, series, LEVELS, 6, spacing) if follows else None
    calibration = calibration_of(np.zeros((4, 3)), how)
    earlier = Sureness(calibration, spacing, 4)
    for part in (slice(0, 20), slice(20, 60)):  # a series may go on in the next windows
        earlier.add(series[part], quantiles[part], truth[part], np.ones((len(series[part]), 4), bool))
    left = earlier.settle()
    assert sorted(left) == [0, 1]
    passing = -(-4 // spacing)  # origins until the truth of the last one's steps is known
    for one in (0, 1):
        own = slice(30 * one, 30 * one + 30)
        at_once = calibration.rolled(spacing)
        at_once.follow(quantiles[own], truth[own])
        at_once.follow(np.repeat(quantiles[:1], passing, 0), np.full((passing, 4), np.nan))
        later = calibration.rolled(spacing, left[one])
        assert np.allclose(later.follow(quantiles[:9], truth[:9]), at_once.follow(quantiles[:9], truth[:9]))
        assert not np.allclose(later.offsets, calibration.rolled(spacing).offsets)


def test_of_very_many_series_the_first_go_on(monkeypatch):
    monkeypatch.setattr(metrics, "MOST_SETTLED", 2)
    quantiles, truth = normal_case(9, 2)
    sure = Sureness(calibration_of(np.zeros((2, 3))), 1, 2)
    sure.add(np.repeat([0, 1, 2], 3), quantiles, truth, np.ones((9, 2), bool))
    assert sorted(sure.settle()) == [0, 1]


def test_each_series_of_validation_is_followed_by_itself():
    quantiles, truth = normal_case(400, 2, sigma=1.0)
    truth[200:] *= 5  # a second series, whose first quantiles must not know how the first one ended
    two = following_of(quantiles, truth, np.repeat([0, 1], 200), LEVELS, 20, 1)
    one = following_of(quantiles, truth, np.zeros(400, int), LEVELS, 20, 1)
    assert two.usual == one.usual
    assert two.offsets != one.offsets


def test_steps_that_were_never_observed_follow_nothing():
    quantiles, truth = normal_case(300, 2)
    truth[:, 1] = np.nan
    following = following_of(quantiles, truth, np.zeros(300, int), LEVELS, 20, 1)
    assert following.usual[1] == 1
    assert following.offsets[1] == (0, 0, 0)


def test_offsets_are_numbers():
    with pytest.raises(ValidationError, match="finite"):
        Calibration(levels=LEVELS, offsets=((0.0, float("nan"), 0.0),), rolling=True, num_windows=1, held_out=1)
