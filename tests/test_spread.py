"""The net that tells quantiles around a forecast."""

from statistics import NormalDist

import numpy as np
import pytest
import torch

from models.losses import pinball
from models.series import Columns
from models.spread import FLOOR, Forecasts, SpreadNet, fit_spread
from models.windows import WindowSpec

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
WINDOWS = WindowSpec(lookback=12, horizon=4)


def made(num_windows=600, seed=0, wild=None):
    """Noise around zero, forecast as zero; `wild` (N, H) multiplies the truth and is known ahead."""
    draw = torch.Generator().manual_seed(seed)
    target, truth = (torch.randn(num_windows, count, generator=draw) for count in (12, 4))
    future = torch.zeros(num_windows, 4, 1) if wild is None else wild[:, :, None]
    return Forecasts(target, future, torch.zeros(num_windows, 4), truth if wild is None else truth * wild)


def quantiles_of(network, seen):
    with torch.no_grad():
        return network(seen.target, seen.future, seen.forecast)


@pytest.mark.parametrize("levels", [LEVELS, (0.1, 0.2), (0.8, 0.9, 0.99), (0.3, 0.6), tuple(np.linspace(0.01, 0.99, 99))])
def test_quantiles_never_cross_whatever_the_weights(levels):
    network = SpreadNet.fresh(levels, Columns(future=("wind",)), WINDOWS, 4)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(3 * torch.randn_like(weight))
    quantiles = quantiles_of(network, made(100))
    assert quantiles.shape == (100, 4, len(levels))
    assert (quantiles.diff(dim=2) >= 0).all()


@pytest.mark.parametrize("levels", [LEVELS, (0.1, 0.2), (0.8, 0.9, 0.99)])
def test_an_untrained_spread_is_normal_in_the_size_of_a_windows_changes(levels):
    network, seen = SpreadNet.fresh(levels, Columns(future=("wind",)), WINDOWS, 4), made(50)
    size = network.changes(seen.target, 1)[0]
    wanted = torch.tensor([NormalDist().inv_cdf(level) for level in levels])
    assert torch.allclose(quantiles_of(network, seen), (size * wanted)[:, None].expand(-1, 4, -1), atol=1e-4)


def test_changes_are_measured_from_season_to_season():
    network = SpreadNet(LEVELS, Columns(), WINDOWS, 4)
    window = torch.tensor([[0.0, 0, 0, 0, 1, 2, 3, 4, 2, 4, 6, 8]])
    size, usual = network.changes(window, 6)
    assert size.tolist() == [[2.5]]
    wanted = np.log(np.array([1, 2, 3, 4, 1, 2]) / 2.5 + 0.05)
    assert usual[0].numpy() == pytest.approx(wanted, rel=1e-5)


def test_a_window_that_never_changes_still_has_a_size():
    size, _ = SpreadNet(LEVELS, Columns(), WINDOWS, 4).changes(torch.ones(1, 12), 4)
    assert size.item() == pytest.approx(FLOOR)


@pytest.mark.parametrize("season", [1, 4, 6, 7, 12, 100])
@pytest.mark.parametrize("lookback", [1, 2, 12])
def test_any_season_and_lookback_gives_numbers(season, lookback):
    network = SpreadNet(LEVELS, Columns(), WindowSpec(lookback=lookback, horizon=4), season)
    quantiles = network(torch.randn(3, lookback), torch.zeros(3, 4, 0), torch.randn(3, 4))
    assert torch.isfinite(quantiles).all()


def test_only_the_newest_targets_it_says_it_looks_at_matter():
    windows = WindowSpec(lookback=200, horizon=4)
    network = SpreadNet(LEVELS, Columns(), windows, 4)
    target, future, forecast = torch.randn(5, 200), torch.zeros(5, 4, 0), torch.randn(5, 4)
    assert network.seen < 200
    assert torch.equal(network(target, future, forecast), network(target[:, -network.seen :], future, forecast))


def test_it_learns_where_the_truth_is_known_to_be_wild():
    wild = torch.where(torch.rand(2000, 4, generator=torch.Generator().manual_seed(1)) < 0.5, 0.2, 3.0)
    seen, columns = made(2000, wild=wild), Columns(future=("wind",))
    network = fit_spread(SpreadNet.fresh(LEVELS, columns, WINDOWS, 4), LEVELS, seen)
    quantiles = quantiles_of(network, seen)
    width = quantiles[:, :, 3] - quantiles[:, :, 1]
    assert width[wild == 3.0].mean() > 5 * width[wild == 0.2].mean()
    for at, level in enumerate(LEVELS):
        assert (seen.truth <= quantiles[:, :, at]).float().mean().item() == pytest.approx(level, abs=0.04)


def test_of_very_few_windows_nothing_is_learned():
    network = SpreadNet.fresh(LEVELS, Columns(future=("wind",)), WINDOWS, 4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit_spread(network, LEVELS, made(100))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    fit_spread(network, LEVELS, made(400))
    assert not torch.equal(before["head.bias"], network.head.bias)


def test_steps_that_were_not_observed_teach_nothing():
    seen = made(400)
    seen.truth[:, 2:] = torch.nan
    network = fit_spread(SpreadNet.fresh(LEVELS, Columns(future=("wind",)), WINDOWS, 4), LEVELS, seen)
    assert all(torch.isfinite(weight).all() for weight in network.parameters())


def test_fitted_twice_it_is_the_same_and_the_random_state_of_others_is_left_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = (
        fit_spread(SpreadNet.fresh(LEVELS, Columns(future=("wind",)), WINDOWS, 4), LEVELS, made(400)).state_dict() for _ in "ab"
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_pinball_loss_weighs_what_lies_above_by_the_level():
    loss = pinball(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[3.0]]]), torch.tensor([0.1, 0.9]))
    assert loss[0, 0].tolist() == pytest.approx([0.2, 1.8])
    loss = pinball(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[0.0]]]), torch.tensor([0.1, 0.9]))
    assert loss[0, 0].tolist() == pytest.approx([0.9, 0.1])
