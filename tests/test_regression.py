import pytest
import torch

from models.batches import TensorBlocks
from models.errors import Fault
from models.fit import fit
from models.networks import FEW, FORMS, FitSettings, build_network, is_worth_trying, recipe
from models.series import Columns
from models.specs import LinearSpec, RegressionSpec, ResidualSpec
from models.windows import WindowSpec

WINDOWS = WindowSpec(lookback=14, horizon=7)
COLUMNS = Columns(past=("wind",), future=("workday", "warmth"))  # channels: target, wind, workday, warmth


def moved(columns=COLUMNS, windows=WINDOWS, season=7):
    """A net whose every weight has moved."""
    torch.manual_seed(0)
    network = build_network(RegressionSpec(), columns, windows, season)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    return network.eval()


def test_an_untrained_net_forecasts_the_mean_of_its_window():
    network = build_network(RegressionSpec(), COLUMNS, WINDOWS, 7).eval()
    past, future = torch.randn(3, 14, 4), torch.randn(3, 7, 2)
    assert torch.allclose(network(past, future), past[:, :, 0].mean(1, keepdim=True).expand(3, 7))


def test_what_covariates_explain_is_taken_from_the_past_and_added_to_the_future():
    network = build_network(RegressionSpec(), COLUMNS, WINDOWS, 7).eval()
    with torch.no_grad():
        network.linear.weight.copy_(torch.tensor([[2.0, -3.0]]))
    past, future = torch.randn(3, 14, 4), torch.randn(3, 7, 2)
    explained = 2 * past[:, :, 2] - 3 * past[:, :, 3]
    level = (past[:, :, 0] - explained).mean(1, keepdim=True)
    assert torch.allclose(network(past, future), level + 2 * future[:, :, 0] - 3 * future[:, :, 1], atol=1e-5)


def test_a_covariate_of_a_future_step_reaches_that_step_alone():
    network, past, future = moved(), torch.randn(1, 14, 4), torch.randn(1, 7, 2)
    other = future.clone()
    other[0, 3, 1] += 1
    differs = (network(past, future) - network(past, other)).abs()[0] > 1e-6
    assert differs.tolist() == [False] * 3 + [True] + [False] * 3


def test_past_covariates_are_not_looked_at_and_known_ones_of_the_past_are():
    network, past, future = moved(), torch.randn(2, 14, 4), torch.randn(2, 7, 2)
    for channel, sees in ((1, False), (2, True), (3, True)):
        changed = past.clone()
        changed[:, 5, channel] += 1
        assert torch.equal(network(past, future), network(changed, future)) != sees


def test_jitter_is_for_training_only():
    network, past, future = moved(), torch.randn(2, 14, 4), torch.randn(2, 7, 2)
    assert torch.equal(network(past, future), network(past, future))
    network.train()
    assert not torch.equal(network(past, future), network(past, future))


@pytest.mark.parametrize("season", [1, 4, 14, 300])
@pytest.mark.parametrize("lookback", [1, 2, 15])
def test_any_season_and_lookback_gives_every_step_and_can_be_learned(season, lookback):
    windows = WindowSpec(lookback=lookback, horizon=7)
    network = build_network(RegressionSpec(), COLUMNS, windows, season).train()
    forecast = network(torch.randn(5, lookback, 4), torch.randn(5, 7, 2))
    assert forecast.shape == (5, 7)
    forecast.square().sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in network.parameters() if weights.grad is not None)


def test_a_year_of_days_teaches_it_a_bend_that_no_line_follows():
    torch.manual_seed(1)
    warmth = torch.randn(330)
    target = warmth.square() + 0.05 * torch.randn(330)  # cold and heat both need power
    rows = torch.stack([target, torch.zeros(330), torch.zeros(330), warmth], 1)
    train, held_out = (TensorBlocks([part], WINDOWS.span) for part in (rows[:260], rows[260:]))

    def build():
        return build_network(RegressionSpec(), COLUMNS, WINDOWS, 7)

    fitted = fit(build, train, held_out, COLUMNS, WINDOWS, recipe(RegressionSpec(), FitSettings()), 0)
    network = build().eval()
    network.load_state_dict(fitted.weights)
    cut = torch.stack([rows[at : at + 21] for at in range(260, 309)])
    error = (network(cut[:, :14], cut[:, 14:, 2:]) - cut[:, 14:, 0]).abs().mean()
    assert error < 0.35 * (cut[:, 14:, 0] - target[:260].mean()).abs().mean()


def test_without_anything_known_ahead_it_is_refused():
    with pytest.raises(Fault, match="needs covariates known ahead, and it has none here"):
        build_network(RegressionSpec(), Columns(past=("wind",)), WINDOWS, 7)


def test_it_is_tried_where_something_is_known_and_windows_are_few_and_where_it_is_listed():
    def tried(listed=False, num_series=1, num_known=2, num_windows=300):
        return [is_worth_trying(form, listed, num_series, num_known, num_windows) for form in (RegressionSpec(), LinearSpec())]

    assert tried() == tried(num_windows=FEW) == tried(listed=True, num_windows=FEW + 1) == [True, True]
    assert tried(num_windows=FEW + 1) == tried(num_known=0) == tried(listed=True, num_known=0) == [False, True]
    assert RegressionSpec() in FORMS
    embedded = ResidualSpec(embedding=4)
    assert [is_worth_trying(embedded, False, series, 2, 300) for series in (1, 2)] == [False, True]


def test_what_is_not_known_yet_of_the_data_speaks_against_no_form():
    def tried(**known):
        about = dict.fromkeys(("num_series", "num_known", "num_windows")) | known
        return [is_worth_trying(form, False, **about) for form in (RegressionSpec(), ResidualSpec(embedding=4))]

    assert tried() == [True, True]
    assert tried(num_series=1) == [True, False]
    assert tried(num_known=0) == tried(num_windows=FEW + 1) == [False, True]
