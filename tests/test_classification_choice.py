"""Which blend of several classifiers held-out cases speak for, and how sure it is."""

import numpy as np
import pytest

from models.classification.choice import (
    PRIOR,
    Blend,
    choose_members,
    fit_shares,
    fit_temperature,
    losses_of,
    parts_of,
    softmax,
)


def said_by(truth: np.ndarray, right: float, sure: float, seed: int) -> np.ndarray:
    """Logits of a classifier of two classes that is right so often and always equally sure."""
    rng = np.random.default_rng(seed)
    answer = np.where(rng.random(len(truth)) < right, truth, 1 - truth)
    return sure * (np.arange(2) == answer[:, None]).astype(float)


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 2, 400)


def test_parts_deal_every_class_out_evenly():
    labels = np.repeat([0, 1, 2], [10, 6, 3])
    parts = parts_of(labels, 3, seed=1)
    for label, most in ((0, 4), (1, 2), (2, 1)):
        counts = np.bincount(parts[labels == label], minlength=3)
        assert counts.max() == most
        assert counts.min() >= most - 1
    assert (parts_of(labels, 3, seed=1) == parts).all()
    assert not (parts_of(labels, 3, seed=2) == parts).all()


def test_the_only_case_of_a_class_is_never_held_out():
    parts = parts_of(np.array([0, 1, 1, 1, 2, 2]), 3)
    assert parts[0] == -1
    assert (parts[1:] >= 0).all()


def test_with_two_cases_a_class_one_of_them_is_always_left_to_learn_from():
    labels = np.repeat(np.arange(52), 2)
    parts = parts_of(labels, 3)
    assert (np.bincount(parts, minlength=3) > 30).all()
    for part in range(3):
        assert set(labels[parts != part]) == set(range(52))


def test_a_member_beside_which_another_has_next_to_no_share_is_left_alone(truth):
    choice = choose_members([said_by(truth, 0.99, 4, 1), said_by(truth, 0.5, 4, 2)], truth)
    assert choice.chosen == (0,)
    assert choice.blend.weights == (1.0,)
    assert choice.losses[0] == choice.losses[2] < choice.losses[1]
    assert choice.accuracies[0] == choice.accuracies[2] == pytest.approx(0.99, abs=0.01)


def test_members_that_are_equally_good_have_like_shares_and_are_better_together(truth):
    choice = choose_members([said_by(truth, 0.85, 2, 1), said_by(truth, 0.85, 2, 2)], truth)
    assert choice.chosen == (0, 1)
    assert choice.blend.weights == pytest.approx((0.5, 0.5), abs=0.1)
    assert choice.losses[2] < min(choice.losses[:2])


def test_the_better_member_has_the_larger_share_and_few_cases_say_little(truth):
    better, worse = said_by(truth, 0.9, 2, 1), said_by(truth, 0.75, 2, 2)
    of_many = choose_members([worse, better], truth).blend.weights
    of_few = choose_members([worse[:12], better[:12]], truth[:12]).blend.weights
    assert sum(of_many) == pytest.approx(1)
    assert of_many[0] < 0.35
    assert of_few == pytest.approx((0.5, 0.5), abs=0.1)


def test_shares_make_the_labels_most_likely_beside_a_belief_in_every_member(truth):
    rng = np.random.default_rng(3)
    right = [rng.uniform(0.3, 0.9, len(truth)), rng.uniform(0.1, 0.95, len(truth))]
    said = [np.where(truth[:, None] == np.arange(2), one[:, None], 1 - one[:, None]) for one in right]
    grid = np.linspace(0.001, 0.999, 999)
    likely = [np.log(at * right[0] + (1 - at) * right[1]).sum() + PRIOR * np.log(at * (1 - at)) for at in grid]
    assert fit_shares(said, truth)[0] == pytest.approx(grid[np.argmax(likely)], abs=0.002)


def test_a_member_of_next_to_no_share_is_left_out_and_the_others_share_it(truth):
    good, also = said_by(truth, 0.9, 2, 1), said_by(truth, 0.9, 2, 2)
    choice = choose_members([good, -good, also], truth)
    assert choice.chosen == (0, 2)
    assert choice.blend == choose_members([good, also], truth).blend
    assert len(choice.losses) == 4


def test_few_cases_speak_against_no_member():
    few = np.array([0, 1, 0, 1])
    better = np.array([[1.0, 0], [0, 1], [1, 0], [0, 0.2]])
    worse = np.array([[1.0, 0], [0, 1], [0, 0.1], [0, 0.3]])
    choice = choose_members([better, worse], few)
    assert choice.chosen == (0, 1)
    assert choice.blend.weights == pytest.approx((0.5, 0.5), abs=0.1)


def test_without_a_case_held_out_the_choice_is_the_blend_as_it_is():
    none = np.full((3, 2), np.nan)
    choice = choose_members([none, none], np.array([0, 1, 1]))
    assert choice.chosen == (0, 1)
    assert choice.blend.weights == (0.5, 0.5)
    assert choice.blend.temperatures == (1.0, 1.0)
    assert np.isnan(choice.losses).all()


def test_cases_that_a_member_always_learned_from_count_for_none(truth):
    one, other = said_by(truth, 0.8, 2, 1), said_by(truth, 0.8, 2, 2)
    one[:100], other[50:120] = np.nan, np.nan
    kept = choose_members([one[120:], other[120:]], truth[120:])
    assert choose_members([one, other], truth) == kept


def test_a_temperature_makes_too_sure_a_classifier_as_sure_as_it_is_right(truth):
    logits = said_by(truth, 0.8, 10, 1)
    right = (logits.argmax(1) == truth).mean()
    heat = fit_temperature(logits, truth, doubt=0.0)
    assert heat == pytest.approx(10 / np.log(right / (1 - right)), rel=0.1)
    assert losses_of(softmax(logits, heat), truth).mean() < 0.3 * losses_of(softmax(logits), truth).mean()


def test_a_temperature_fitted_on_few_cases_stays_near_one():
    logits = np.array([[3.0, 0], [0, 3.0], [0, 3.0]])
    assert 0.6 < fit_temperature(logits, np.array([0, 1, 1]), doubt=0.2) < 1
    assert 1 < fit_temperature(logits, np.array([1, 0, 1]), doubt=0.2) < 4


def test_probabilities_of_a_blend_lie_between_those_of_its_members_and_add_up_to_one():
    blend = Blend(weights=(0.5, 0.5), temperatures=(1.0, 2.0), temperature=1.0, doubt=0.0)
    one, other = np.array([[2.0, 0, 0]]), np.array([[0.0, 2, 0]])
    found = blend.probabilities([one, other])
    assert found == pytest.approx((softmax(one) + softmax(other, 2.0)) / 2)
    assert found.sum() == pytest.approx(1)
