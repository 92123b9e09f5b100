import numpy as np
import pytest
import torch

from models.networks import RECIPES, build_network, form_name, tells_apart
from models.periodic import PatchBranch, PeriodicMap, PeriodicNet
from models.series import Columns
from models.specs import LinearSpec, PeriodicSpec, ResidualSpec
from models.windows import WindowSpec

WINDOWS = WindowSpec(lookback=14, horizon=7)
COLUMNS = Columns(past=("wind",))
PERIOD = 4


def make_map(lookback=14, horizon=7, period=PERIOD):
    """A map with weights drawn at random."""
    torch.manual_seed(0)
    made = PeriodicMap(lookback, horizon, period)
    with torch.no_grad():
        for weights in made.parameters():
            weights.normal_()
    return made.double()


def by_hand(made, past, horizon):
    """What the map says of one past, by smoothing, laying out in periods, and mapping them: step by step."""
    period, kernel = made.period, len(made.smooth)
    used = past[len(past) - made.num_past * period :]
    # The convolution pads with nothing at the oldest and at the newest end of what the periods hold.
    whole = np.concatenate([past[: len(past) - len(used)], used, np.zeros(kernel)])
    first = len(past) - len(used)
    smooth = np.zeros(len(used))
    for at in range(len(used)):
        for tap in range(kernel):
            source = first + at + tap - kernel // 2
            if 0 <= source < len(past):
                smooth[at] += whole[source] * made.smooth.tolist()[tap]
    layout = smooth.reshape(made.num_past, period)
    forecast = (made.periods.detach().numpy() @ layout).reshape(-1)[:horizon]
    recent = past[len(past) - len(made.recent) :] @ made.recent.detach().numpy()
    return forecast + recent


@pytest.mark.parametrize(
    ("lookback", "horizon", "period"),
    [
        (12, 4, 4),  # whole periods, an even kernel made odd
        (12, 4, 3),  # an odd period
        (14, 7, 4),  # the lookback and the horizon end within a period
        (5, 9, 4),  # one period, and a horizon of three
        (6, 2, 6),
        (6, 3, 1),
    ],
)
def test_the_matrix_is_smoothing_laying_out_in_periods_and_mapping_them(lookback, horizon, period):
    made = make_map(lookback, horizon, period)
    past = np.random.default_rng(1).normal(size=lookback)
    forecast = made(torch.from_numpy(past)[None])[0].detach().numpy()
    assert forecast == pytest.approx(by_hand(made, past, horizon), abs=1e-12)


@pytest.mark.parametrize("branch", ["none", "recent", "all"])
def test_an_untrained_net_forecasts_the_mean_of_its_window(branch):
    network = PeriodicNet(PeriodicSpec(branch=branch), COLUMNS, WINDOWS, PERIOD).eval()
    past = torch.randn(3, 14, 2)
    assert torch.allclose(network(past, torch.zeros(3, 7, 0)), past[:, :, 0].mean(1, keepdim=True).expand(3, 7))


@pytest.mark.parametrize("branch", ["none", "recent", "all"])
@pytest.mark.parametrize("rescale", [True, False])
def test_a_window_moved_to_another_level_is_forecast_at_that_level(branch, rescale):
    network = trained_like(PeriodicSpec(branch=branch, rescale=rescale))
    past, future = torch.randn(3, 14, 2), torch.zeros(3, 7, 0)
    higher = past + torch.tensor([10.0, 0.0])
    assert torch.allclose(network(higher, future), network(past, future) + 10, atol=1e-4)


def test_a_window_stretched_is_forecast_as_stretched_where_each_is_rescaled():
    past, future = torch.randn(3, 14, 2), torch.zeros(3, 7, 0)
    stretched = past * torch.tensor([5.0, 1.0])
    for rescale in (True, False):
        network = trained_like(PeriodicSpec(rescale=rescale))
        assert torch.allclose(network(stretched, future), 5 * network(past, future), atol=1e-2) == rescale


def trained_like(spec, columns=COLUMNS, windows=WINDOWS, season=PERIOD):
    """A net whose every weight has moved."""
    torch.manual_seed(0)
    network = build_network(spec, columns, windows, season)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    return network.eval()


@pytest.mark.parametrize("spec", [PeriodicSpec(branch="none"), PeriodicSpec(), PeriodicSpec(branch="all"), LinearSpec()])
@pytest.mark.parametrize("season", [1, 4, 7, 14, 15, 300])
@pytest.mark.parametrize("lookback", [1, 2, 14, 15])
def test_any_season_and_lookback_gives_a_forecast_of_every_step_that_can_be_learned(spec, season, lookback):
    windows = WindowSpec(lookback=lookback, horizon=7)
    network = build_network(spec, COLUMNS, windows, season).train()
    forecast = network(torch.randn(5, lookback, 2), torch.zeros(5, 7, 0))
    assert forecast.shape == (5, 7)
    forecast.square().sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in network.parameters() if weights.grad is not None)


def test_only_the_branch_sees_past_covariates_and_only_recent_ones():
    past = torch.randn(1, 14, 2)
    other = past.clone()
    other[:, -1, 1] += 1
    older = past.clone()
    older[:, 0, 1] += 1
    future = torch.zeros(1, 7, 0)
    for branch, sees_newest, sees_oldest in (("none", False, False), ("recent", True, False), ("all", True, True)):
        network = trained_like(PeriodicSpec(branch=branch))
        assert torch.equal(network(past, future), network(other, future)) != sees_newest
        assert torch.equal(network(past, future), network(older, future)) != sees_oldest


def test_jitter_of_the_inputs_is_for_training_only():
    for spec in (PeriodicSpec(branch="none", noise=0.5), LinearSpec(noise=0.5)):
        network, past, future = trained_like(spec), torch.randn(2, 14, 2), torch.zeros(2, 7, 0)
        assert torch.equal(network(past, future), network(past, future))
        network.train()
        assert not torch.equal(network(past, future), network(past, future))


def test_the_branch_reads_whole_patches_up_to_the_newest_step():
    branch = PatchBranch(1, lookback=11, horizon=2, patch=4, spec=PeriodicSpec())
    assert (branch.used, branch.head.in_features) == (8, 2 * 16)
    past = torch.randn(1, 1, 11)
    changed = past.clone()
    changed[:, :, :3] = 0
    with torch.no_grad():
        branch.head.weight.normal_()
    branch.eval()
    assert torch.equal(branch(past), branch(changed))
    changed[:, :, 3] += 1
    assert not torch.equal(branch(past), branch(changed))


def test_a_linear_net_begins_as_seasonal_naive():
    network = build_network(LinearSpec(), Columns(), WINDOWS, PERIOD).eval()
    past = torch.arange(14.0)[None, :, None]
    assert network(past, torch.zeros(1, 7, 0)).tolist() == [[10, 11, 12, 13, 10, 11, 12]]


def test_a_linear_net_without_a_season_or_with_too_short_a_lookback_begins_as_the_last_value():
    past, future = torch.arange(14.0)[None, :, None], torch.zeros(1, 7, 0)
    for spec, season in ((LinearSpec(), 1), (LinearSpec(), 300), (LinearSpec(lookback=3), 30)):
        assert build_network(spec, Columns(), WINDOWS, season).eval()(past, future).tolist() == [[13.0] * 7]


def test_a_linear_net_uses_the_newest_steps_of_its_lookback_only():
    network, past = trained_like(LinearSpec(lookback=3), Columns()), torch.randn(1, 14, 1)
    changed = past.clone()
    changed[:, :11] = 0
    assert torch.equal(network(past, torch.zeros(1, 7, 0)), network(changed, torch.zeros(1, 7, 0)))


def test_forms_are_named_by_what_is_unusual_of_them():
    specs = (LinearSpec(), PeriodicSpec(), PeriodicSpec(branch="none"), LinearSpec(lookback=9), ResidualSpec(embedding=4))
    assert [form_name(spec) for spec in specs] == [
        "linear", "periodic", "periodic-none", "linear-lookback9", "residual-embedding4",
    ]  # fmt: skip
    assert [tells_apart(spec) for spec in specs] == [False] * 4 + [True]


def test_every_kind_has_a_recipe():
    assert set(RECIPES) == {"reference", "residual", "periodic", "pyramid", "regression", "linear"}
