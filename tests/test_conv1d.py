import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from models.conv1d import SeasonalLags, depth_to_see, receptive_field, rows_used
from models.dropout import Dropout
from models.errors import Fault
from models.naive import seasonal_naive
from models.networks import build_network
from models.series import Columns
from models.specs import ReferenceSpec, ResidualSpec
from models.windows import WindowSpec

PLAIN = Columns()
FULL = Columns(past=("p", "q"), future=("f",), calendar=("hour",))  # 1 target, 2 past, 3 known


def build(spec, columns=PLAIN, lookback=12, horizon=4, season=1):
    torch.manual_seed(0)
    network = build_network(spec, columns, WindowSpec(lookback=lookback, horizon=horizon), season)
    return network.eval()


def make_batch(columns, lookback=12, horizon=4, size=3):
    torch.manual_seed(1)
    past = torch.randn(size, lookback, columns.num_channels)
    return past, torch.randn(size, horizon, len(columns.known))


def scrambled(network):
    """The network with weights that are not those it starts with."""
    torch.manual_seed(2)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(0.3 * torch.randn_like(value))
    return network


def test_the_reference_net_is_the_one_that_was_published():
    columns = Columns(future=("a", "b", "c", "d", "e"))
    layers = build(ReferenceSpec(), columns, lookback=72, horizon=1).layers
    kinds = [nn.Conv1d, nn.ReLU, nn.MaxPool1d, nn.Flatten, nn.Linear, nn.ReLU, Dropout, nn.Linear]
    assert [type(layer) for layer in layers] == kinds
    assert layers[0].weight.shape == (64, 6, 4)  # 64 filters, 6 channels, kernel 4
    assert (layers[0].stride, layers[0].padding, layers[0].dilation) == ((1,), (0,), (1,))
    assert (layers[2].kernel_size, layers[2].stride) == (4, 4)
    assert layers[4].weight.shape == (216, 64 * 17)  # 72 steps give 69 positions, pooled to 17
    assert layers[6].p == 0.2
    assert layers[7].weight.shape == (1, 216)
    assert sum(value.numel() for value in layers.parameters()) == 64 * 6 * 4 + 64 + 216 * 64 * 17 + 216 + 216 + 1


def test_the_reference_net_starts_as_keras_does():
    layers = build(ReferenceSpec(), lookback=72).layers
    for layer in (layers[0], layers[4], layers[7]):
        fan_out, fan_in = layer.weight.shape[0], layer.weight[0].numel()
        if isinstance(layer, nn.Conv1d):
            fan_out *= layer.kernel_size[0]
        limit = math.sqrt(6 / (fan_in + fan_out))
        assert 0.9 * limit < layer.weight.abs().max() <= limit
        assert (layer.bias == 0).all()


@pytest.mark.parametrize(
    ("lookback", "flat"),
    [
        (7, 64),  # 4 positions, one pooled
        (10, 64),  # 7 positions: a part of a pool is left out
        (11, 128),
        (168, 64 * 41),
    ],
)
def test_the_dense_layer_takes_what_the_pool_leaves(lookback, flat):
    network = build(ReferenceSpec(), lookback=lookback)
    assert network.layers[4].in_features == flat
    past, future = make_batch(PLAIN, lookback)
    assert network(past, future).shape == (3, 4)


SHAPES = [
    (72, ReferenceSpec()),
    (12, ReferenceSpec(filters=3, kernel=1, pool=1, hidden=5)),
    (13, ReferenceSpec(filters=3, kernel=5, pool=2, hidden=5)),  # 9 positions, one left out
    (7, ReferenceSpec(filters=3, hidden=5)),  # a single pooled position
]


@pytest.mark.parametrize(("lookback", "spec"), SHAPES)
def test_one_matrix_product_makes_what_the_layers_make(lookback, spec):
    columns = Columns(future=("f",))
    network, (past, _) = scrambled(build(spec, columns, lookback)), make_batch(columns, lookback, size=40)
    layers = network.layers(past.transpose(1, 2)).detach()
    assert torch.allclose(network.one_step(past), layers, rtol=1e-4, atol=1e-5)  # as it learns
    with torch.no_grad():
        exact = copy.deepcopy(network).double().layers(past.double().transpose(1, 2))
        own, theirs = ((values - exact).abs().max() for values in (network.one_step(past), layers))
    assert own < 1.5 * theirs + 1e-6


@pytest.mark.parametrize(("lookback", "spec"), SHAPES)
def test_a_run_of_rows_gives_what_its_windows_give_one_by_one(lookback, spec):
    columns = Columns(future=("f",))
    network, rows = build(spec, columns, lookback), torch.randn(100, 2)
    windows = rows.unfold(0, lookback, 1).transpose(1, 2)
    expected = network.layers(windows.transpose(1, 2))
    assert (network.one_step_of_run(rows, lookback) - expected).abs().max() < 1e-6


def test_windows_that_are_neighbours_are_forecast_as_a_run(monkeypatch):
    network, rows = build(ReferenceSpec(filters=3, hidden=5)), torch.randn(60, 1)
    windows = rows.unfold(0, 12, 1).transpose(1, 2).contiguous()
    expected = network.layers(windows.transpose(1, 2))
    runs, one_step_of_run = [], network.one_step_of_run
    monkeypatch.setattr(
        network, "one_step_of_run", lambda rows, lookback: runs.append(len(rows)) or one_step_of_run(rows, lookback)
    )
    future = torch.zeros(len(windows), 1, 0)
    assert (network(windows, future) - expected).abs().max() < 1e-6
    assert runs == [60]
    for others in (windows[::2], windows.flip(0), torch.cat([windows[:20], windows[21:]])):
        network(others, future[: len(others)])
    assert runs == [60]


def test_the_matrix_product_trains_to_the_weights_that_the_layers_train_to():
    columns = Columns(future=("f",))
    fast, plain = (build(ReferenceSpec(dropout=0), columns, lookback=72).train() for _ in range(2))
    optimizers = [torch.optim.RMSprop(one.parameters(), 1e-3, alpha=0.9, eps=1e-7) for one in (fast, plain)]
    torch.manual_seed(3)
    for _ in range(20):
        past, target = torch.randn(32, 72, 2), torch.randn(32, 1)
        losses = []
        for optimizer, forecast in zip(optimizers, (fast.one_step, lambda x: plain.layers(x.transpose(1, 2))), strict=True):
            loss = nn.functional.mse_loss(forecast(past), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert abs(losses[0] - losses[1]) < 1e-5
    for value, other in zip(fast.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(value, other, atol=1e-5)


def test_the_reference_net_is_trained_on_one_step_and_forecasts_all():
    columns = Columns(future=("f",))
    network, (past, future) = build(ReferenceSpec(dropout=0), columns), make_batch(columns)
    assert network.trained_steps == 1
    assert network.train()(past, future).shape == (3, 1)
    assert network.eval()(past, future).shape == (3, 4)
    assert torch.equal(network.train()(past, future), network.eval()(past, future)[:, :1])


def test_recursion_feeds_back_its_own_forecasts_beside_the_known_covariates():
    seen = []

    def one_step(past):
        """Forecasts the sum of the oldest target, twice the newest target and 100 times the newest covariate."""
        seen.append(past[0].tolist())
        return (past[:, 0, 0] + 2 * past[:, -1, 0] + 100 * past[:, -1, 1])[:, None]

    columns = Columns(future=("f",))
    network = build(ReferenceSpec(kernel=1, pool=1), columns, lookback=3, horizon=3)
    network.one_step = one_step
    past = torch.tensor([[[1.0, 0], [2, 0], [3, 1]]])
    future = torch.tensor([[[2.0], [3], [4]]])
    assert network(past, future).tolist() == [[107, 416, 1135]]  # 1+2*3+100, 2+2*107+200, 3+2*416+300
    assert seen == [
        [[1, 0], [2, 0], [3, 1]],
        [[2, 0], [3, 1], [107, 2]],
        [[3, 1], [107, 2], [416, 3]],
    ]


def test_the_last_known_covariate_is_not_looked_at_by_the_reference_net():
    columns = Columns(future=("f",))
    network, (past, future) = build(ReferenceSpec(), columns, lookback=11), make_batch(columns, lookback=11)
    before = network(past, future)
    future[:, -1] += 1  # would join the row of the last step, which only a further step would see
    assert torch.equal(network(past, future), before)
    future[:, 0] += 1
    after = network(past, future)
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 1] != before[:, 1]).all()


def test_the_reference_net_refuses_past_covariates_by_name():
    with pytest.raises(Fault, match=r"past_covariates has wind, sun\. Move them to source\.future_covariates .* 'residual'"):
        build(ReferenceSpec(), Columns(past=("wind", "sun")))


@pytest.mark.parametrize(("kernel", "pool", "shortest"), [(4, 4, 7), (1, 1, 1), (5, 2, 6)])
def test_the_reference_net_says_how_long_a_lookback_it_takes(kernel, pool, shortest):
    build(ReferenceSpec(kernel=kernel, pool=pool), lookback=shortest)
    if shortest > 1:
        with pytest.raises(Fault, match=rf"windows\.lookback {shortest - 1} is too short .* it takes {shortest} steps"):
            build(ReferenceSpec(kernel=kernel, pool=pool), lookback=shortest - 1)


@pytest.mark.parametrize(
    ("lookback", "horizon", "season"),
    [
        (12, 4, 4),  # as usual
        (12, 4, 6),  # the shortest lookback that has a like row for every row of the last season
        (13, 4, 6),  # a row to spare
        (12, 12, 4),  # a horizon of three seasons
        (12, 11, 4),
        (14, 50, 7),  # a horizon much longer than the lookback
        (432, 48, 48),
        (9, 1, 2),
        (5, 3, 2),
    ],
)
def test_seasonal_lags_lie_whole_seasons_back_within_the_lookback(lookback, horizon, season):
    lags = build(ResidualSpec(), lookback=lookback, horizon=horizon, season=season).lags.lags
    rows = torch.arange(lookback - season, lookback + horizon)[:, None]
    assert lags.shape == (season + horizon, (lookback - season) // season)
    assert (lags >= 0).all()
    assert (lags < lookback).all()
    assert (lags < rows).all()
    assert ((rows - lags) % season == 0).all()
    past = rows[:, 0] < lookback
    assert torch.equal(lags[past, 0], rows[past, 0] - season)
    assert (lags[~past, 0] >= lookback - season).all()  # the latest like row before the origin
    assert (lags.diff(dim=1) == -season).all()


def test_every_seasonal_lag_lies_before_the_origin_for_all_small_shapes():
    for season in range(2, 8):
        for lookback in range(2 * season, 4 * season + 2):
            for horizon in range(1, 3 * season + 2):
                lags = SeasonalLags(0, lookback, horizon, season, season).lags
                assert lags.min() >= 0, (season, lookback, horizon)
                assert lags.max() < lookback, (season, lookback, horizon)


@pytest.mark.parametrize("columns", [PLAIN, Columns(future=("f",)), FULL], ids=["target", "known", "past and known"])
@pytest.mark.parametrize(
    ("lookback", "horizon", "season"),
    [
        (12, 4, 4),
        (12, 9, 4),  # horizon beyond a season
        (7, 4, 4),  # lookback under two seasons: the season is left aside
        (12, 4, 1),  # no season
        (1, 1, 1),
        (2, 3, 2),
        (4, 1, 2),
    ],
)
def test_the_residual_net_forecasts_every_step_at_once(columns, lookback, horizon, season):
    network = build(ResidualSpec(channels=4), columns, lookback, horizon, season)
    past, future = make_batch(columns, lookback, horizon)
    assert network.trained_steps is None
    for mode in (True, False):
        forecast = network.train(mode)(past, future)
        assert forecast.shape == (3, horizon)
        assert forecast.isfinite().all()


def by_hand(past, future, num_past, horizon, season):
    """The untrained residual net, row by row: a weighted seasonal naive, and the last error fading away."""
    target, known = past[:, 0], np.concatenate([past[:, 1 + num_past :], future])
    lookback = len(target)

    def base(row):
        newest = row if row < lookback else row - (row - lookback) // season * season
        lags = [newest - season * j for j in range(1, (lookback - season) // season + 1)]
        blended = 0.0
        for decay in (1.0, 0.4, 0.1):
            apart = np.abs(known[row] - known[lags]).sum(1) * math.log(2)
            logits = -decay * np.arange(len(lags)) - apart
            weights = np.exp(logits - logits.max())
            blended += (weights / weights.sum()) @ target[lags] / 3
        return blended

    error = target[-1] - base(lookback - 1)
    return [base(lookback + step) + error * math.exp(-2 / season) ** (step + 1) for step in range(horizon)]


@pytest.mark.parametrize("columns", [PLAIN, Columns(future=("f", "g")), FULL], ids=["target", "known", "past and known"])
@pytest.mark.parametrize(("lookback", "horizon", "season"), [(12, 4, 4), (14, 9, 4), (15, 15, 5), (12, 3, 6)])
def test_an_untrained_residual_net_is_a_weighted_seasonal_naive(columns, lookback, horizon, season):
    network = build(ResidualSpec(channels=4), columns, lookback, horizon, season)
    past, future = make_batch(columns, lookback, horizon)
    with torch.no_grad():
        forecast = network(past, future).numpy()
    for own, rows, ahead in zip(forecast, past.double().numpy(), future.double().numpy(), strict=True):
        assert own == pytest.approx(by_hand(rows, ahead, len(columns.past), horizon, season), abs=1e-5)


@pytest.mark.parametrize(("lookback", "horizon", "season"), [(12, 4, 4), (13, 4, 4), (12, 9, 4), (21, 30, 7)])
def test_an_untrained_residual_net_continues_a_repeating_series_as_seasonal_naive_does(lookback, horizon, season):
    steps = np.arange(lookback, dtype=np.float32) % season
    network = build(ResidualSpec(channels=4), lookback=lookback, horizon=horizon, season=season)
    with torch.no_grad():
        forecast = network(torch.from_numpy(steps)[None, :, None], torch.zeros(1, horizon, 0))
    assert forecast.numpy() == pytest.approx(seasonal_naive(steps[None], horizon, season), abs=1e-5)


def test_an_untrained_residual_net_without_a_season_repeats_the_last_value():
    past, future = make_batch(PLAIN)
    with torch.no_grad():
        forecast = build(ResidualSpec())(past, future)
    assert torch.equal(forecast, past[:, -1:, 0].expand(3, 4))


@pytest.mark.parametrize("season", [1, 4])
def test_every_input_of_a_trained_residual_net_counts(season):
    network = scrambled(build(ResidualSpec(channels=4), FULL, season=season))
    past, future = (value.requires_grad_() for value in make_batch(FULL))
    network(past, future).sum().backward()
    assert (future.grad != 0).all()
    assert (past.grad[:, -season:, 1:] != 0).all()  # covariates of the rows the convolutions see
    assert (past.grad[:, :, 0] != 0).all()


def test_a_known_covariate_of_one_step_reaches_the_forecast_of_the_others():
    network, (past, future) = scrambled(build(ResidualSpec(channels=4), FULL, season=4)), make_batch(FULL)
    with torch.no_grad():
        before = network(past, future)
        future[:, -1] += 1
        assert (network(past, future) != before).all()


def test_a_residual_net_in_training_jitters_only_what_its_noise_says():
    past, future = make_batch(FULL)
    quiet = scrambled(build(ResidualSpec(channels=4, dropout=0, noise=0), FULL, season=4)).train()
    loud = scrambled(build(ResidualSpec(channels=4, dropout=0, noise=0.5), FULL, season=4)).train()
    with torch.no_grad():
        assert torch.equal(quiet(past, future), quiet(past, future))
        assert not torch.equal(loud(past, future), loud(past, future))
        assert torch.equal(loud.eval()(past, future), quiet(past, future))


@pytest.mark.parametrize(("depth", "kernel", "seen"), [(1, 3, 3), (2, 3, 7), (4, 3, 31), (3, 5, 29), (5, 1, 1)])
def test_receptive_field_counts_the_rows_one_output_sees(depth, kernel, seen):
    assert receptive_field(depth, kernel) == seen


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 96, 97, 480])
def test_depth_to_see_is_the_least_that_spans_the_rows(num_rows, kernel):
    depth = depth_to_see(num_rows, kernel)
    assert receptive_field(depth, kernel) >= num_rows
    assert depth == 1 or receptive_field(depth - 1, kernel) < num_rows


def test_the_blocks_really_see_as_far_as_the_receptive_field_says():
    blocks = build(ResidualSpec(channels=2, depth=3), lookback=8, horizon=1).blocks
    for block in blocks:
        block.norm = nn.Identity()  # it looks at every row at once
    x = torch.randn(1, 2, 41, requires_grad=True)
    scrambled(blocks)(x)[0, :, 20].sum().backward()
    touched = (x.grad[0].abs().sum(0) > 0).nonzero()[:, 0]
    assert touched.tolist() == list(range(20 - 7, 20 + 8))
    assert len(touched) == receptive_field(3, 3)


def test_too_shallow_a_residual_net_is_refused_with_the_depth_it_needs():
    rows = r"has 12 rows to read \(4 before the origin, 8 after\)"
    with pytest.raises(Fault, match=rf"^Network sees 7 steps \(depth 2, kernel 3\) but {rows}\. Use depth=3\.$"):
        build(ResidualSpec(depth=2), lookback=16, horizon=8, season=4)
    assert len(build(ResidualSpec(depth=3), lookback=16, horizon=8, season=4).blocks) == 3


def test_without_a_season_the_residual_net_has_the_whole_lookback_to_read():
    with pytest.raises(Fault, match=r"has 24 rows to read \(16 before the origin, 8 after\)\. Use depth=4\."):
        build(ResidualSpec(depth=2), lookback=16, horizon=8, season=1)


def test_an_even_kernel_is_refused_with_the_next_odd_one():
    with pytest.raises(Fault, match=r"network\.kernel is 4; a residual net needs an odd one\. Use 5\."):
        build(ResidualSpec(kernel=4))


@pytest.mark.parametrize("spec", [ReferenceSpec(), ResidualSpec(channels=4)], ids=["reference", "residual"])
def test_a_seed_fixes_how_a_network_starts(spec):
    first, second = build(spec).state_dict(), build(spec).state_dict()
    torch.manual_seed(5)
    other = build_network(spec, PLAIN, WindowSpec(lookback=12, horizon=4), 1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_reference_net_does_not_see_which_steps_were_filled_in():
    plain, masked = Columns(future=("f",)), Columns(masked=True, future=("f",))
    with_mask, without = build(ReferenceSpec(), masked), build(ReferenceSpec(), plain)
    without.load_state_dict(with_mask.state_dict())
    past, future = make_batch(masked)
    for mode in (True, False):
        torch.manual_seed(3)
        forecast = with_mask.train(mode)(past, future)
        torch.manual_seed(3)
        assert torch.equal(forecast, without.train(mode)(past[:, :, [0, 2]], future))


def test_the_residual_net_sees_which_steps_were_filled_in():
    columns = Columns(masked=True, future=("f",))
    network, (past, future) = scrambled(build(ResidualSpec(channels=4), columns, season=4)), make_batch(columns)
    past.requires_grad_()
    network(past, future).sum().backward()
    assert (past.grad[:, -4:, 1] != 0).all()


def test_an_embedding_holds_a_row_for_each_series_and_one_for_all_others():
    spec = ResidualSpec(channels=4, embedding=3)
    network = build_network(spec, PLAIN, WindowSpec(lookback=12, horizon=4), 1, num_series=5)
    assert network.series.weight.shape == (6, 3)
    assert build(ResidualSpec(channels=4)).series is None


def test_series_are_hidden_now_and_then_in_training_and_never_after():
    spec = ResidualSpec(channels=4, embedding=2)
    network = build_network(spec, PLAIN, WindowSpec(lookback=12, horizon=4), 1, num_series=1)
    series = torch.ones(10_000, dtype=torch.int64)
    torch.manual_seed(0)
    hidden = (network.train()._embedded(series) == network.series.weight[0]).all(1).float().mean().item()
    assert hidden == pytest.approx(0.1, abs=0.02)
    assert (network.eval()._embedded(series) == network.series.weight[1]).all()


@pytest.mark.parametrize(
    ("lookback", "season", "given", "used"),
    [
        (200, 12, None, (108, 12, True)),  # nine seasons
        (60, 12, None, (60, 12, True)),
        (200, 12, 30, (30, 12, True)),
        (200, 12, 20, (20, 20, False)),  # not two seasons
        (20, 12, None, (20, 20, False)),
        (200, 1, None, (200, 200, False)),
        (200, 1, 50, (50, 50, False)),
        (20, 12, 50, (20, 20, False)),
    ],
)
def test_a_residual_net_uses_as_many_of_the_newest_rows_as_it_has_use_for(lookback, season, given, used):
    windows, spec = WindowSpec(lookback=lookback, horizon=3), ResidualSpec(channels=4, lookback=given)
    assert rows_used(spec, windows, season) == used
    network = build_network(spec, FULL, windows, season).eval()
    past, future = torch.randn(2, lookback, FULL.num_channels), torch.randn(2, 3, 3)
    changed = past.clone()
    changed[:, : lookback - used[0]] = 0
    assert torch.equal(network(past, future), network(changed, future))
