import pytest
import torch

from models.batches import TensorBlocks
from models.fit import fit
from models.networks import FORMS, FitSettings, build_network, is_worth_trying, recipe
from models.pyramid import Pyramid
from models.series import Columns
from models.specs import PyramidSpec
from models.windows import WindowSpec

WINDOWS = WindowSpec(lookback=20, horizon=6)
COLUMNS = Columns(past=("wind",), future=("warmth",), calendar=("hour",))  # target, wind, warmth, sine and cosine


def moved(columns=COLUMNS, windows=WINDOWS, season=4, **settings):
    """A net whose every weight has moved."""
    torch.manual_seed(0)
    network = build_network(PyramidSpec(**settings), columns, windows, season)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    return network.eval()


def test_a_pyramid_has_the_newest_steps_then_means_of_two_of_four_and_so_on_up_to_the_origin():
    past = torch.tensor([[10.0, 1, 2, 3, 4, 5, 6, 7, 8]])  # nine steps: the oldest is no part of any mean
    pyramid = Pyramid(9, 3)
    assert pyramid(past).tolist() == [[6, 7, 8, 3.5, 5.5, 7.5, 2.5, 6.5]]
    assert pyramid.num_features == 8


@pytest.mark.parametrize(("lookback", "num_features"), [(1, 1), (8, 8), (9, 12), (16, 16), (720, 8 * 7 + 5)])
def test_features_grow_with_the_logarithm_of_the_lookback(lookback, num_features):
    pyramid = Pyramid(lookback, 8)
    assert pyramid.num_features == num_features
    assert pyramid(torch.zeros(2, lookback)).shape == (2, num_features)


def test_each_step_of_the_horizon_sees_its_place_in_the_last_season_and_in_the_mean_of_the_last_four():
    network = build_network(PyramidSpec(detail=1), Columns(), WINDOWS, 4)
    steps = network.steps(torch.arange(20.0)[None])[0, network.pyramid.num_features :]
    assert steps.tolist() == [16, 17, 18, 19, 16, 17, 10, 11, 12, 13, 10, 11]


def test_an_untrained_net_forecasts_the_last_value():
    network = build_network(PyramidSpec(), COLUMNS, WINDOWS, 4).eval()
    past = torch.randn(3, 20, 5)
    assert torch.equal(network(past, torch.randn(3, 6, 3)), past[:, -1:, 0].expand(3, 6))


def test_a_window_that_is_higher_and_wider_is_forecast_higher_and_wider():
    network, past, future = moved(), torch.randn(3, 20, 5), torch.randn(3, 6, 3)
    other = past.clone()
    other[:, :, 0] = 5 * past[:, :, 0] + 100
    assert torch.allclose(network(other, future), 5 * network(past, future) + 100, atol=1e-2)


def test_a_window_without_any_change_is_forecast_without_a_number_that_is_none():
    network = moved().train()
    past = torch.randn(3, 20, 5)
    past[:, :, 0] = 7
    forecast = network(past, torch.randn(3, 6, 3))
    forecast.sum().backward()
    assert torch.isfinite(forecast).all()
    assert all(torch.isfinite(weights.grad).all() for weights in network.parameters())


def test_covariates_are_seen_up_to_the_origin_and_what_is_known_ahead_over_the_horizon_too():
    network, past, future = moved(), torch.randn(1, 20, 5), torch.randn(1, 6, 3)

    def sees(step, channel):
        changed = past.clone()
        changed[0, step, channel] += 1
        return not torch.equal(network(past, future), network(changed, future))

    assert [sees(-1, channel) for channel in range(5)] == [True] * 5
    assert [sees(-5, channel) for channel in range(5)] == [True, True, False, False, False]
    ahead = future.clone()
    ahead[0, 5, 0] += 1
    assert not torch.equal(network(past, future), network(past, ahead))


@pytest.mark.parametrize("static", [(), ("size",)])
def test_the_clock_and_what_never_changes_are_seen_at_the_origin_as_the_rest_of_the_horizon_follows_from_it(static):
    network = moved(Columns(calendar=("hour",), static=static))
    past, future = torch.randn(2, 20, 3 + len(static)), torch.randn(2, 6, 2 + len(static))
    assert torch.equal(network(past, future), network(past, future + 1))


def test_jitter_and_dropout_are_for_training_only():
    network, past, future = moved(dropout=0.0, noise=0.5), torch.randn(2, 20, 5), torch.randn(2, 6, 3)
    assert torch.equal(network(past, future), network(past, future))
    network.train()
    assert not torch.equal(network(past, future), network(past, future))


@pytest.mark.parametrize("season", [1, 4, 14, 300])
@pytest.mark.parametrize("lookback", [1, 2, 15])
def test_any_season_and_lookback_gives_every_step_and_can_be_learned(season, lookback):
    windows = WindowSpec(lookback=lookback, horizon=7)
    network = build_network(PyramidSpec(), COLUMNS, windows, season).train()
    forecast = network(torch.randn(5, lookback, 5), torch.randn(5, 7, 3))
    assert forecast.shape == (5, 7)
    forecast.square().sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in network.parameters())


def test_it_learns_a_bend_in_how_the_next_step_follows_from_the_last_which_no_line_does():
    values = [0.3]
    for _ in range(900):
        values.append(3.9 * values[-1] * (1 - values[-1]))  # the logistic map: chaos, but known one step ahead
    rows = torch.tensor(values)[:, None]
    windows, columns = WindowSpec(lookback=8, horizon=1), Columns()
    train, held_out = (TensorBlocks([part], windows.span) for part in (rows[:700], rows[700:]))

    def build():
        return build_network(PyramidSpec(), columns, windows, 1)

    fitted = fit(build, train, held_out, columns, windows, recipe(PyramidSpec(), FitSettings()), 0)
    network = build().eval()
    network.load_state_dict(fitted.weights)
    cut = torch.stack([rows[at : at + 9] for at in range(700, 890)])
    errors = (network(cut[:, :8], cut[:, 8:, 1:])[:, 0] - cut[:, 8, 0]).abs().mean()
    assert errors < 0.3 * (cut[:, 8, 0] - rows[:700].mean()).abs().mean()


def test_it_is_tried_on_any_data():
    assert PyramidSpec() in FORMS
    assert is_worth_trying(PyramidSpec(), False, 1, 0, 1_000_000)
