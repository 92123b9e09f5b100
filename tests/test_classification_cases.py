"""Labelled series side by side."""

import numpy as np
import torch
from labelled import make_cases

from models.classification.cases import Cases


def test_a_batch_is_as_long_as_its_longest_case_and_unknown_past_the_end_of_the_others():
    cases = make_cases([[1, 2, 3], [4], [5, 6]], [0, 1, 0])
    batch = cases.batch(np.array([1, 2]))
    assert torch.equal(batch.values.nan_to_num(-1), torch.tensor([[[4.0, -1.0]], [[5.0, 6.0]]]))
    assert batch.lengths.tolist() == [1, 2]
    assert batch.labels.tolist() == [1, 0]


def test_windows_that_overlap_share_their_rows():
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    windows = Cases(rows, np.array([0, 1, 2]), np.array([3, 3, 3]), np.array([0, 1, -1]))
    batch = windows.pick(np.array([2, 0])).batch(np.array([0, 1]))
    assert batch.values[:, 0].tolist() == [[4, 6, 8], [0, 2, 4]]
    assert batch.labels.tolist() == [-1, 0]
    assert windows.pick(np.array([True, False, False])).rows is rows


def test_batches_hold_every_case_once_with_those_of_like_length_together():
    cases = make_cases([[0] * count for count in (5, 1, 4, 2, 3)], [0] * 5)
    assert [which.tolist() for which in cases.in_batches(2)] == [[1, 3], [4, 2], [0]]


def test_a_batch_holds_no_more_steps_than_asked_but_for_a_case_that_alone_has_more():
    cases = make_cases([[0] * count for count in (9, 1, 4, 2, 3)], [0] * 5)
    assert [which.tolist() for which in cases.in_batches(9, 6)] == [[1, 3], [4], [2], [0]]
    assert [which.tolist() for which in cases.in_batches(9, 9)] == [[1, 3, 4], [2], [0]]
    assert [which.tolist() for which in cases.in_batches(9)] == [[1, 3, 4, 2, 0]]
    assert cases.pick(np.array([], int)).in_batches(9, 6) == []
