"""Where a classifier looked."""

import numpy as np
import pytest
from labelled import make_cases

from models.classification.where import occlusion, without


def high_at(step: int):
    """Probabilities of a class that is all about how high one step of the first channel lies."""

    def probabilities(cases):
        high = np.array([cases.values(at)[step, 0] for at in range(len(cases))])
        return np.stack([1 - high / 10, high / 10], 1)

    return probabilities


@pytest.mark.parametrize("step", [0, 3, 57, 99])
def test_the_stretch_that_an_answer_hangs_on_stands_out(step):
    values = np.zeros((100, 2))
    values[step, 0] = 8.0
    for label, sign in ((1, 1), (0, -1)):
        found = sign * occlusion(high_at(step), make_cases([values], [1]), label)
        assert found.shape == (100,)
        assert found[step] > 0.2
        away = np.abs(np.arange(100) - step) > 12
        assert np.abs(found[away]).max() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_short_cases_are_looked_at_step_by_step(steps):
    found = occlusion(high_at(0), make_cases([np.full(steps, 3.0)], [1]), 1)
    assert found.shape == (steps,)
    assert np.isfinite(found).all()


def test_a_stretch_is_replaced_by_a_line_between_its_neighbours():
    values = np.array([[0.0], [9], [8], [9], [4]])
    assert without(values, 1, 4)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert without(values, 3, 5)[:, 0].tolist() == [0, 9, 8, 8, 8]
    assert without(values, 0, 2)[:, 0].tolist() == [8, 8, 8, 9, 4]
    assert values[1, 0] == 9
