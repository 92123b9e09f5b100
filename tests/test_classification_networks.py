"""The nets that tell classes apart: what they see of a case, and what they must not."""

import numpy as np
import pytest
import torch
from labelled import make_cases, waves

import models.classification.layout
import models.classification.networks
from models.classification.augment import bent, vary
from models.classification.cases import Cases
from models.classification.layout import SideBySide, end_to_end
from models.classification.networks import ValidNorm, build_classifier, differences
from models.classification.scaling import Standard, filled, inside, own_scale, scale_of, shape_of, thinned
from models.classification.specs import ReferenceClassifierSpec, ResidualClassifierSpec, Shape

pytestmark = pytest.mark.usefixtures("one_thread")

NETS = [ReferenceClassifierSpec(filters=8, hidden=12), ResidualClassifierSpec(channels=8)]


def made(spec, cases: Cases, num_classes: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_classifier(spec, shape_of(cases, num_classes))
    network.learn_scale(cases)
    return network.eval()


def padded(values: torch.Tensor, more: int, filler: float) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, more), value=filler)


@pytest.mark.parametrize("spec", NETS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("steps", [1, 2, 5, 40, 700], ids="{} steps".format)
def test_a_net_takes_cases_of_any_length(spec, steps):
    cases = waves(steps=steps, num_channels=2)
    batch = cases.batch(np.arange(3))
    assert made(spec, cases)(batch.values, batch.lengths).shape == (3, 2)


@pytest.mark.parametrize("spec", NETS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("steps", [40, 1200], ids="{} steps".format)
def test_what_lies_past_the_end_of_a_case_changes_nothing(spec, steps):
    cases = waves(steps=steps, unequal=True, num_channels=2)
    network = made(spec, cases)
    alone, together = cases.batch(np.array([3])), cases.batch(np.array([3, 4, 5]))
    expected = network(alone.values, alone.lengths)
    torch.testing.assert_close(network(together.values, together.lengths)[:1], expected, atol=1e-5, rtol=1e-4)
    for filler in (torch.nan, 7.0):
        more = padded(alone.values, 9, filler)
        torch.testing.assert_close(network(more, alone.lengths), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rough", [False, True], ids=["smooth", "rough"])
@pytest.mark.parametrize(("steps", "depth"), [(7, 3), (40, 3), (250, 3), (1200, 3), (700, 1)])
def test_a_net_learns_the_same_from_cases_end_to_end_as_side_by_side(monkeypatch, steps, depth, rough):
    cases = waves(num_each=4, steps=steps, unequal=True, num_channels=2)
    batch, labels = cases.batch(np.arange(8)), torch.tensor([0, 1] * 4)
    assert batch.lengths.unique().numel() > 2
    shape = shape_of(cases, 2).model_copy(update={"rough": rough})
    spec, found = ResidualClassifierSpec(channels=8, depth=depth, dropout=0, augment=False), []
    for way in (end_to_end, side_by_side):
        monkeypatch.setattr(models.classification.networks, "end_to_end", way)
        torch.manual_seed(0)
        network = build_classifier(spec, shape)
        network.learn_scale(cases)
        logits = network.train()(batch.values, batch.lengths)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        found.append([logits, *(one.grad for one in network.parameters()), *network.buffers()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def side_by_side(values, mask, unit, gap):
    return values, SideBySide(mask.sum(1), values.shape[2])


def test_cases_end_to_end_begin_at_multiples_of_a_unit_with_a_gap_of_zeros_between(monkeypatch):
    values = torch.arange(1.0, 11).view(2, 1, 5)
    mask = torch.arange(5) < torch.tensor([5, 2])[:, None]
    monkeypatch.setattr(models.classification.layout, "GRAIN", 3)
    rows, lie = end_to_end(values, mask, unit=4, gap=2)
    assert rows.flatten().tolist() == [1, 2, 3, 4, 5, 0, 0, 0, 6, 7, 0, 0]
    assert lie.owner.tolist() == [0, 0, 0, 0, 0, 2, 2, 2, 1, 1, 2, 2]
    assert lie.coarser(2).owner.tolist() == [0, 0, 0, 2, 1, 2]
    assert lie.coarser(2).lengths.tolist() == SideBySide(lie.lengths, 5).coarser(2).lengths.tolist() == [3, 1]
    assert lie.mean(rows[:, :, None]).tolist() == [[3], [6.5]]
    assert lie.largest(rows[:, :, None]).tolist() == [[5], [7]]


@pytest.mark.parametrize("spec", NETS, ids=lambda spec: spec.kind)
def test_the_unit_of_a_channel_changes_nothing(spec):
    cases = waves(num_channels=2)
    other = make_cases([cases.values(at) * [1000.0, 0.01] + [5.0, -3.0] for at in range(len(cases))], cases.labels)
    which = np.arange(4)
    a, b = cases.batch(which), other.batch(which)
    expected = made(spec, cases)(a.values, a.lengths)
    torch.testing.assert_close(made(spec, other)(b.values, b.lengths), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("spec", NETS, ids=lambda spec: spec.kind)
def test_a_case_without_a_single_value_still_has_an_answer(spec):
    cases = waves()
    cases.rows[3::7] = np.nan
    network = made(spec, cases)
    nothing = torch.full((1, 1, 5), torch.nan)
    assert network(nothing, torch.tensor([5])).isfinite().all()


def test_a_channel_that_never_changes_divides_by_nothing():
    cases = make_cases([np.c_[np.arange(9.0), np.full(9, 4.0)] for _ in range(4)], [0, 1, 0, 1])
    batch = cases.batch(np.arange(4))
    for spec in NETS:
        assert made(spec, cases)(batch.values, batch.lengths).isfinite().all()


def test_a_state_holds_no_whole_numbers_so_that_a_mean_of_it_can_be_taken():
    for spec in NETS:
        assert all(value.is_floating_point() for value in made(spec, waves()).state_dict().values())


def test_missing_values_are_filled_by_the_last_one_seen_and_before_it_by_the_first():
    values = torch.tensor([[[torch.nan, 1, torch.nan, 3, torch.nan]], [[torch.nan] * 5]])
    found = filled(values, inside(torch.tensor([5, 4]), 5))
    assert found.tolist() == [[[1, 1, 1, 3, 3]], [[0] * 5]]


def test_only_where_training_cases_miss_values_a_channel_tells_which_are_there():
    whole, holed = waves(), waves()
    holed.rows[2, 0] = np.nan
    assert shape_of(holed, 2).masked
    assert not shape_of(whole, 2).masked
    scale = Standard(shape_of(holed, 2))
    assert scale.num_channels == scale.num_values + 1
    batch = holed.batch(np.array([0]))
    assert scale(batch.values, inside(batch.lengths, 40))[0, -1].tolist() == [1, 1, 0] + [1] * 37


def test_cases_that_differ_tenfold_in_spread_are_also_seen_by_their_own():
    alike = waves()
    factors = np.geomspace(1, 1000, len(alike))
    apart = make_cases([alike.values(at) * factors[at] for at in range(len(alike))], alike.labels)
    assert shape_of(apart, 2).rescaled
    assert not shape_of(alike, 2).rescaled
    values = torch.arange(6.0).reshape(1, 1, 6)
    mask = inside(torch.tensor([4]), 6)
    found = own_scale(values, mask, torch.tensor(1e-3))[0, 0]
    assert found[:4].mean().abs() < 1e-6
    assert found[:4].std(correction=0) == pytest.approx(1)
    assert found[4:].tolist() == [0, 0]


def test_cases_whose_levels_differ_far_more_than_they_change_are_also_seen_by_their_own():
    alike = waves()
    levels = np.random.default_rng(0).normal(0, 100, len(alike))
    apart = make_cases([alike.values(at) + levels[at] for at in range(len(alike))], alike.labels)
    assert shape_of(apart, 2).rescaled
    near = make_cases([alike.values(at) + levels[at] / 100 for at in range(len(alike))], alike.labels)
    assert not shape_of(near, 2).rescaled
    still = make_cases([np.c_[alike.values(at), np.full(40, 3.0)] for at in range(len(alike))], alike.labels)
    assert not shape_of(still, 2).rescaled


@pytest.mark.parametrize("unit", [1e-13, 1e-9, 1e9])
def test_cases_in_another_unit_are_of_the_same_shape(unit):
    cases = waves()
    other = make_cases([cases.values(at) * unit for at in range(len(cases))], cases.labels)
    assert shape_of(other, 2) == shape_of(cases, 2)
    assert scale_of(other)[1] == pytest.approx(scale_of(cases)[1] * unit)


def test_differences_begin_with_none_and_end_with_the_case():
    values = torch.tensor([[[1.0, 3, 2, 0]]])
    assert differences(values, inside(torch.tensor([3]), 4)).tolist() == [[[0, 2, -1, 0]]]


@pytest.mark.parametrize("training", [True, False], ids=["training", "asked"])
def test_the_norm_of_valid_steps_is_torch_s_own_where_all_are(training):
    ours, theirs = ValidNorm(3), torch.nn.BatchNorm2d(3)
    rows = torch.randn(4, 3, 1, 9, generator=torch.Generator().manual_seed(0)) * 3 + 1
    whole = torch.ones(4, 1, 1, 9)
    ours.train(training)
    theirs.train(training)
    expected = theirs(rows)
    torch.testing.assert_close(ours(rows, whole), expected)
    torch.testing.assert_close(ours.mean, theirs.running_mean)
    torch.testing.assert_close(ours.variance, theirs.running_var)


def test_the_norm_of_valid_steps_does_not_see_the_others():
    rows = torch.randn(2, 3, 1, 9, generator=torch.Generator().manual_seed(0))
    mask = inside(torch.tensor([9, 4]), 9)[:, None, None].float()
    rows = rows * mask
    found = ValidNorm(3)(rows, mask)
    valid = found.permute(1, 0, 2, 3)[:, mask.permute(1, 0, 2, 3)[0].bool()]
    torch.testing.assert_close(valid.mean(1), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(valid.var(1, correction=0), torch.ones(3), atol=1e-3, rtol=0)
    assert (found * (1 - mask) == 0).all()


def test_variation_moves_no_step_past_the_end_and_keeps_what_was_observed_apart():
    torch.manual_seed(0)
    values, lengths = torch.ones(3, 2, 12), torch.tensor([12, 7, 1])
    mask = inside(lengths, 12)
    found = vary(values * mask[:, None], lengths, mask, smooth=True, num_values=1)
    assert (found * ~mask[:, None] == 0).all()
    torch.testing.assert_close(found[:, 1], mask.float())


def test_time_that_is_bent_still_runs_forward_within_the_case():
    torch.manual_seed(0)
    lengths = torch.tensor([50, 20, 2])
    at = torch.arange(50.0).expand(3, 1, 50)
    for _ in range(20):
        found = bent(at, lengths)[:, 0]
        for row, length in zip(found, lengths.tolist(), strict=True):
            assert row[:length].min() >= 0
            assert row[:length].max() <= length - 1 + 1e-4
            assert (row[:length].diff() >= -1e-5).all()


def test_rough_series_are_not_bent():
    rng = np.random.default_rng(0)
    rough = make_cases(list(rng.standard_normal((6, 30))), [0, 1] * 3)
    smooth = make_cases(list(np.sin(np.arange(60) / 9 + rng.uniform(0, 6, (6, 1)))), [0, 1] * 3)
    assert shape_of(rough, 2).rough
    assert not shape_of(smooth, 2).rough
    for cases in (rough, smooth):
        assert build_classifier(NETS[1], shape_of(cases, 2)).smooth == (cases is smooth)


def test_a_shape_says_what_there_was_to_train_on():
    found = shape_of(waves(steps=40, unequal=True, num_channels=3), 2)
    assert isinstance(found, Shape)
    assert found.num_channels == 3
    assert found.num_classes == 2
    assert 20 <= found.usual <= found.longest <= 40
    assert not found.many


@pytest.mark.parametrize(("steps", "rough", "smooth"), [(512, 1, 1), (513, 2, 2), (1100, 3, 3), (1460, 3, 4)])
def test_long_cases_are_taken_several_steps_at_a_time_and_smooth_ones_more(steps, rough, smooth):
    rng = np.random.default_rng(0)
    for stride, values in ((rough, rng.normal(size=steps)), (smooth, np.sin(np.arange(steps) / 9))):
        cases = Cases(np.tile(values, 2)[:, None].astype(np.float32), np.array([0, steps]), np.full(2, steps), np.arange(2))
        shape = shape_of(cases, 2)
        assert (shape.stride, build_classifier(NETS[1], shape).stride) == (stride, stride)


def test_of_very_many_cases_some_tell_the_scale_but_all_of_them_what_is_missing_and_how_long(monkeypatch):
    cases = waves(num_each=100, steps=12)
    every = scale_of(cases)
    monkeypatch.setattr("models.classification.scaling.ASKED", 30)
    assert len(thinned(cases)) == 29
    mean, std = scale_of(cases)
    assert mean == pytest.approx(every[0], abs=0.1)
    assert std == pytest.approx(every[1], abs=0.1)
    cases.rows[cases.starts[1]] = np.nan
    assert 1 not in np.arange(0, 200, 7)
    assert shape_of(cases, 2).masked
