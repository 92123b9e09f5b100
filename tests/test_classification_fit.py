"""Classifiers are fitted: they learn, and the same seed ends in the same weights, interrupted or not."""

from itertools import chain

import numpy as np
import pytest
import torch
from labelled import make_cases, waves

from models.classification.crossing import cross_validated
from models.classification.fit import cases_a_step, fit_classifier, fit_of_part, num_steps, predict, shuffled
from models.classification.networks import build_classifier
from models.classification.scaling import shape_of
from models.classification.specs import RECIPES, ReferenceClassifierSpec, ResidualClassifierSpec, RocketSpec, recipe
from models.networks import FitSettings
from models.specs import FitSpec
from models.training import Checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = [ReferenceClassifierSpec(filters=16, hidden=24), ResidualClassifierSpec(channels=8, depth=2), RocketSpec(features=504)]
SHORT = FitSpec(epochs=3, steps_per_epoch=4, batch_size=8, learning_rate=3e-3, keep="last")
CPU = torch.device("cpu")


def answers(spec, weights, cases, trained_on, num_classes=2) -> np.ndarray:
    network = build_classifier(spec, shape_of(trained_on, num_classes))
    network.load_state_dict(weights)
    return predict(network, cases)


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("unequal", [False, True], ids=["equal", "unequal"])
def test_every_kind_learns_to_tell_waves_apart(spec, unequal):
    train, test = waves(num_each=20, unequal=unequal, seed=0), waves(num_each=20, unequal=unequal, seed=1)
    epochs = 20 if spec.kind == "residual" else None
    fitted = fit_classifier(spec, recipe(spec, FitSettings(epochs=epochs)), train, 2, 0)
    enough = 0.7 if spec.kind == "reference" else 0.95  # its stretches know nothing of waves that begin anywhere
    assert (answers(spec, fitted.weights, test, train).argmax(1) == test.labels).mean() > enough


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
def test_the_same_seed_ends_in_the_same_weights_and_another_does_not(spec):
    cases = waves(unequal=True)
    one, same, other = (fit_classifier(spec, SHORT, cases, 2, seed).weights for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("spec", KINDS[:2], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("stopped_at", [4, 6], ids=["after an epoch", "within one"])
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_a_run_that_is_resumed_ends_in_the_weights_of_one_that_was_not_interrupted(spec, stopped_at, optimizer):
    cases, kept, fit = waves(unequal=True), [], SHORT.model_copy(update={"optimizer": optimizer})

    def save(checkpoint: Checkpoint) -> None:
        kept.append(checkpoint)

    whole = fit_classifier(spec, fit, cases, 2, 0, save=save, due=lambda: True)
    middle = next(checkpoint for checkpoint in kept if checkpoint.step == stopped_at)
    resumed = fit_classifier(spec, fit, cases, 2, 0, resume=middle)
    assert resumed.history == whole.history
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)


def test_a_pass_over_few_cases_takes_ten_steps_and_over_very_many_a_hundred():
    fit = FitSpec(epochs=40, batch_size=32)
    assert [num_steps(fit, count) for count in (5, 3200, 10**6)] == [(400, 10), (4000, 100), (4000, 100)]
    assert num_steps(FitSpec(max_steps=7, batch_size=32), 5) == (7, 10)


@pytest.mark.parametrize(
    ("num_cases", "num_left", "steps"),
    [(100, 67, 7), (100, 100, 10), (200, 133, 10), (10**5, 66_667, 67), (3, 2, 10)],
)
def test_a_fit_on_a_part_of_the_cases_sees_each_as_often_as_one_on_all_of_them(num_cases, num_left, steps):
    fit = FitSpec(epochs=40, batch_size=32)
    assert num_steps(fit_of_part(fit, num_cases, num_left), num_left) == (40 * steps, steps)


def test_steps_that_the_spec_names_are_those_of_every_part():
    for fit in (FitSpec(max_steps=7, batch_size=32), FitSpec(steps_per_epoch=3, epochs=2, batch_size=32)):
        assert fit_of_part(fit, 100, 67) == fit


def test_a_step_learns_from_an_eighth_of_few_cases():
    fit = FitSpec(epochs=40, batch_size=32)
    assert [cases_a_step(fit, count) for count in (5, 16, 40, 200, 256, 1000)] == [5, 16, 16, 25, 32, 32]
    assert cases_a_step(FitSpec(epochs=40, batch_size=8), 40) == 8


def test_every_pass_shows_every_case_once_and_a_later_start_shows_the_same_batches():
    cases = make_cases([[float(at)] for at in range(10)], range(10))
    batches = shuffled(cases, 4, 0, 0, CPU)
    seen = [next(batches).labels.tolist() for _ in range(10)]
    assert [sorted([*chain(*seen)][at : at + 10]) for at in (0, 10, 20, 30)] == [list(range(10))] * 4
    assert seen[:5] != seen[5:]
    assert [next(shuffled(cases, 4, 1, 0, CPU)).labels.tolist()] != seen[:1]
    later = shuffled(cases, 4, 0, 7, CPU)
    assert [next(later).labels.tolist() for _ in range(3)] == seen[7:]


def test_a_batch_is_never_larger_than_all_cases():
    assert len(next(shuffled(waves(num_each=2), 32, 0, 0, CPU))) == 4


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
def test_what_is_said_of_a_case_does_not_depend_on_those_asked_with_it(spec):
    cases = waves(num_each=10, unequal=True)
    weights = fit_classifier(spec, SHORT, cases, 2, 0).weights
    every, some = answers(spec, weights, cases, cases), np.array([7, 2, 11])
    np.testing.assert_allclose(answers(spec, weights, cases.pick(some), cases), every[some], atol=1e-4)


def test_no_case_asked_for_gives_no_answer():
    cases = waves()
    network = build_classifier(KINDS[1], shape_of(cases, 2))
    assert len(predict(network, cases.pick(np.array([], int)))) == 0


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
def test_weights_that_are_no_numbers_are_a_fault_and_not_an_answer(spec):
    cases = waves()
    network = build_classifier(spec, shape_of(cases, 2))
    with torch.no_grad():
        network.head.bias.fill_(torch.nan)
    with pytest.raises(Exception, match=r"no finite number\. Lower fit\.learning_rate or set fit\.clip_norm"):
        predict(network, cases)


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
def test_a_single_case_of_a_class_is_no_hindrance(spec):
    cases = make_cases([*np.random.default_rng(0).standard_normal((5, 12)), np.ones(1)], [0, 1, 0, 1, 0, 2])
    assert answers(spec, fit_classifier(spec, SHORT, cases, 3, 0).weights, cases, cases, 3).shape == (6, 3)


def test_cross_validation_asks_each_case_of_a_net_that_has_not_seen_it():
    cases = make_cases([[float(at)] * 3 for at in range(9)], [0, 1, 0, 1, 0, 1, 0, 1, 2])
    learned: dict[str, set[float]] = {}

    def learn(rest, name):
        learned[name] = set(rest.rows[rest.starts, 0].tolist())
        return build_classifier(KINDS[1], shape_of(rest, 3)).state_dict()

    found = cross_validated(KINDS[1], cases, 3, 3, learn)
    left_out = [set(map(float, range(9))) - seen for seen in learned.values()]
    assert sorted(chain(*left_out)) == list(map(float, range(8)))
    assert np.isnan(found[8]).all()
    assert np.allclose(np.exp(found[:8]).sum(1), 1)


def test_every_kind_has_a_recipe_that_settings_overrule():
    for spec in KINDS:
        assert recipe(spec, FitSettings(batch_size=5)).batch_size == 5
        assert spec.kind in RECIPES
    found = recipe(KINDS[1], FitSettings(max_steps=12))
    assert found.max_steps == 12
    assert found.epochs is None
    assert found.learning_rate == RECIPES["residual"]["learning_rate"]
