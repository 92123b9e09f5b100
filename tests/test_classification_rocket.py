"""Fixed convolutions and a ridge regression: features counted by hand, and leave-one-out by leaving one out."""

import numpy as np
import pytest
import torch
from labelled import make_cases, waves

from models.classification import rocket
from models.classification.fit import fit_classifier, predict
from models.classification.networks import build_classifier
from models.classification.rocket import KERNELS, Rocket, dilations_of, even_share, fit_ridge, own_responses, set_thresholds
from models.classification.scaling import shape_of
from models.classification.specs import RocketSpec
from models.specs import FitSpec

pytestmark = pytest.mark.usefixtures("one_thread")

ONCE = FitSpec(max_steps=1)
FEW = RocketSpec(features=504)


def fitted(cases, num_classes=2, seed=0, spec=FEW):
    made = fit_classifier(spec, ONCE, cases, num_classes, seed)
    network = build_classifier(spec, shape_of(cases, num_classes))
    network.load_state_dict(made.weights)
    return network.eval(), made.history[-1]["train"]


def test_kernels_are_all_ways_to_choose_three_of_nine_and_add_up_to_nothing():
    assert len({tuple(kernel) for kernel in KERNELS.tolist()}) == 84
    assert (KERNELS.sum(1) == 0).all()


@pytest.mark.parametrize("length", [1, 9, 24, 300, 5000])
def test_dilations_reach_up_to_the_length_of_a_case_and_thresholds_are_as_many_as_asked(length):
    dilations, counts = dilations_of(length, 10_000)
    assert dilations[0] == 1
    assert dilations[-1] * 8 < max(length, 9)
    assert (np.diff(dilations) > 0).all()
    assert counts.sum() == 10_000 // 84
    assert (counts > 0).all()


def test_features_are_the_share_of_steps_that_exceed_each_threshold():
    cases = waves(num_each=3, steps=20, num_channels=2, unequal=True)
    network, _ = fitted(cases)
    batch = cases.batch(np.arange(len(cases)))
    found = network.features(batch.values, batch.lengths)
    case = 4
    values = torch.from_numpy(cases.values(case).T)
    ready = network.prepared(values[None], torch.ones(1, values.shape[1], dtype=torch.bool))[0].double().numpy()
    begin = 0
    for at, (dilation, count) in enumerate(zip(network.dilations, network.counts, strict=True)):
        for kernel in (0, 1, 83):
            line = (ready * network.seen[at, kernel].numpy()[:, None]).sum(0)
            wide = np.concatenate([np.zeros(4 * dilation), line, np.zeros(4 * dilation)])
            made = np.array([sum(KERNELS[kernel][tap] * wide[step + tap * dilation] for tap in range(9))
                             for step in range(len(line))])  # fmt: skip
            if kernel % 2 != at % 2 and len(made) > 8 * dilation:
                made = made[4 * dilation : len(made) - 4 * dilation]
            for number in range(count):
                threshold = getattr(network, f"thresholds_{at}")[kernel, number].item()
                place = begin + kernel * count + number
                assert found[case, place].item() == pytest.approx((made > threshold).mean(), abs=1 / len(made) + 1e-6)
        begin += 84 * count
    assert begin == found.shape[1]


def test_thresholds_are_quantiles_of_what_a_kernel_makes_of_one_training_case():
    cases = waves(num_each=1, num_classes=1, steps=30)
    network = Rocket(FEW, shape_of(cases, 2))
    set_thresholds(network, cases, np.random.default_rng(0))
    batch = cases.batch(np.array([0]))
    made = network.responses(network.prepared(batch.values, torch.ones(1, 30, dtype=torch.bool)), 0)[0]
    levels = torch.from_numpy((np.arange(1, network.counts[0] + 1) * (np.sqrt(5) + 1) / 2 % 1).astype(np.float32))
    torch.testing.assert_close(network.thresholds_0, torch.quantile(made, levels, dim=1).T)


def test_what_a_kernel_makes_of_a_case_does_not_depend_on_longer_ones_beside_it():
    cases = waves(steps=30, unequal=True, num_channels=3)
    network, _ = fitted(cases)
    kernels, at = torch.tensor([5, 40, 80]), 1
    together = own_responses(network, cases.batch(np.array([0, 3, 9])), at, kernels)
    for row, case, kernel in zip(together, (0, 3, 9), kernels, strict=True):
        alone = own_responses(network, cases.batch(np.array([case])), at, kernel[None])[0]
        torch.testing.assert_close(row[: len(alone)], alone)
        assert row[len(alone) :].isnan().all()


@pytest.mark.parametrize(
    ("cases", "features", "given"),
    [(12, 30, 2.0), (12, 1000, 1e-3), (40, 7, 2.0)],
    ids=["more features", "so many that it gets every case right", "more cases"],
)
def test_leave_one_out_in_closed_form_is_what_leaving_one_out_gives(cases, features, given, monkeypatch):
    rng = np.random.default_rng(0)
    rows, labels = rng.standard_normal((cases, features)).astype(np.float32), np.arange(cases) % 3
    rows -= rows.mean(0)
    monkeypatch.setattr(rocket, "STRENGTHS", np.array([given]))
    strength, wanted = given * cases / 100, np.where(labels[:, None] == np.arange(3), 1.0, -1.0)

    def ridge(kept):
        """Weights and intercept of a ridge that does not shrink its intercept."""
        own, height = rows[kept].astype(np.float64), wanted[kept].mean(0)
        centre = own.mean(0)
        inner = own - centre
        weights = np.linalg.solve(inner.T @ inner + strength * np.eye(features), inner.T @ (wanted[kept] - height))
        return weights, height - centre @ weights

    found = fit_ridge(rows, labels, 3)
    weights, intercept = ridge(np.ones(cases, bool))
    heat = intercept[0] / found.intercept[0]
    np.testing.assert_allclose(found.weights * heat, weights, atol=1e-5)
    left_out = []
    for one in range(cases):
        weights, intercept = ridge(np.arange(cases) != one)
        left_out.append(rows[one] @ weights + intercept)
    said = np.array(left_out) / heat
    losses = np.log(np.exp(said).sum(1)) - said[np.arange(cases), labels]
    assert found.loss == pytest.approx(losses.mean(), abs=1e-4)


def test_leave_one_out_of_very_few_cases_and_a_whole_rocket_is_what_leaving_one_out_gives(monkeypatch):
    cases = waves(num_each=2)
    network, _ = fitted(cases, spec=RocketSpec())
    found = rocket.features_of(network, cases).astype(np.float64)
    features = ((found - found.mean(0)) / (found.std(0) + 1e-8)).astype(np.float32)
    weakest = rocket.STRENGTHS[0]
    monkeypatch.setattr(rocket, "STRENGTHS", np.array([weakest]))
    seen = []
    monkeypatch.setattr(rocket, "losses_of", lambda said, labels: seen.append(said) or np.zeros(len(labels)))
    monkeypatch.setattr(rocket, "softmax", lambda scores, heat: scores)
    fit_ridge(features, cases.labels, 2)
    wanted = np.where(cases.labels[:, None] == np.arange(2), 1.0, -1.0)
    for out in range(len(cases)):
        rest = np.arange(len(cases)) != out
        own, middle = features[rest].astype(np.float64), features[rest].mean(0, dtype=np.float64)
        centred, mean = own - middle, wanted[rest].mean(0)
        dual = np.linalg.solve(centred @ centred.T + weakest * len(cases) / 100 * np.eye(rest.sum()), wanted[rest] - mean)
        assert seen[0][out] == pytest.approx((features[out] - middle) @ centred.T @ dual + mean, abs=1e-5)


def stairs(num_each: int, seed: int, most: int = 120):
    """Levels that are held for a while, as many as the number of the class and four."""
    rng = np.random.default_rng(seed)
    series, labels = [], []
    for label in range(3):
        for _ in range(num_each):
            count = int(rng.integers(70, most))
            cuts = np.sort(rng.choice(np.arange(4, count - 4), label + 3, replace=False))
            levels = np.round(rng.uniform(0, 100, label + 4), 1)
            series.append(levels[np.searchsorted(cuts, np.arange(count), side="right")])
            labels.append(label)
    return make_cases(series, labels)


def test_the_rounding_of_steps_that_do_not_change_tells_nothing():
    train, asked = stairs(20, 0), stairs(30, 1)
    network, _ = fitted(train, 3, spec=RocketSpec())
    together = predict(network, asked)
    alone = np.concatenate([predict(network, asked.pick(np.array([at]))) for at in range(len(asked))])
    assert np.abs(together - alone).max() < 1e-3
    assert min(getattr(network, f"thresholds_{at}").abs().min() for at in range(len(network.dilations))) >= rocket.NOUGHT


def test_a_ridge_that_gets_every_case_right_is_sure_but_not_certain():
    labels = np.arange(20) % 2
    rows = np.where(labels[:, None] == 1, 1.0, -1.0).astype(np.float32) * np.ones((1, 6), np.float32)
    assert 1e-6 < fit_ridge(rows, labels, 2).loss < 0.1


@pytest.mark.parametrize(
    "cases",
    [
        waves(),
        waves(num_channels=12, unequal=True),
        waves(num_each=2, num_classes=9),
        make_cases([[1.0], [2.0], [1.1], [2.2]], [0, 1, 0, 1]),  # a single step
        make_cases([[1.0, 2], [2.0], [1.1, 2], [2.2]], [0, 1, 0, 1]),
    ],
    ids=["one channel", "unequal", "two cases a class", "one step", "one or two steps"],
)
def test_a_rocket_takes_cases_of_every_form(cases):
    num_classes = int(cases.labels.max()) + 1
    network, loss = fitted(cases, num_classes)
    logits = predict(network, cases)
    assert logits.shape == (len(cases), num_classes)
    assert np.isfinite(loss)
    assert (logits.argmax(1) == cases.labels).mean() > 0.8


def test_a_rocket_does_not_see_past_the_end_of_a_case():
    cases = waves(unequal=True)
    network, _ = fitted(cases)
    alone, together = cases.batch(np.array([3])), cases.batch(np.array([3, 4, 5]))
    torch.testing.assert_close(network(together.values, together.lengths)[:1], network(alone.values, alone.lengths))


def test_a_rocket_tells_by_the_height_of_cases_or_by_their_form_as_leave_one_out_says():
    high = make_cases([np.full(20, 5.0) + np.sin(np.arange(20)) * (at % 2) for at in range(12)], [0] * 12)
    by_height = make_cases([high.values(at) + 10 * (at < 6) for at in range(12)], [0] * 6 + [1] * 6)
    assert float(fitted(by_height)[0].own) == 0
    form = waves(num_each=20, steps=30)
    factors = np.random.default_rng(0).permutation(np.geomspace(0.001, 1000, len(form)))
    by_form = make_cases([form.values(at) * factors[at] for at in range(len(form))], form.labels)
    assert float(fitted(by_form)[0].own) == 1


def test_missing_values_do_not_reach_the_answer():
    cases = waves()
    cases.rows[5::9] = np.nan
    network, _ = fitted(cases)
    assert np.isfinite(predict(network, cases)).all()


def test_of_many_cases_an_even_share_of_each_class_is_taken():
    cases = make_cases([[0.0]] * 1000, [0] * 900 + [1] * 99 + [2])
    some = even_share(cases, 100)
    assert np.bincount(some.labels).tolist() == pytest.approx([90, 10, 1], abs=1)
    assert (some.labels == 2).sum() == 1
    assert even_share(cases, 1000) is cases
    assert (np.diff(some.starts) > 0).all()


def test_many_cases_are_fitted_with_fewer_features(monkeypatch):
    monkeypatch.setattr("models.classification.scaling.MANY", 20)
    monkeypatch.setattr(rocket, "FEWER", 168)
    cases = waves(num_each=200, steps=20)
    network, loss = fitted(cases)
    assert network.head.in_features == 168
    assert loss < 0.2
