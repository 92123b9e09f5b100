import copy
import math
from functools import partial

import pytest
import torch
from pydantic import ValidationError

from models.batches import AT_ONCE, SHUFFLE_ROWS, Batch, TensorBlocks, in_order
from models.errors import Fault
from models.fit import fit, validation_loss
from models.losses import loss_of
from models.networks import RECIPES, build_network
from models.series import Columns
from models.specs import FitSpec, LinearSpec, ReferenceSpec, ResidualSpec
from models.training import SMALLEST_RATE, Training, check_finite, hash_pair, num_steps, plateau_rate, resolve_device
from models.windows import WindowSpec

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = Columns()
SMALL = {"reference": ReferenceSpec(filters=4, hidden=8), "residual": ResidualSpec(channels=4)}


def short(kind, **changed):
    """The recipe of a network, cut down to three epochs of four small steps."""
    recipe = RECIPES[kind] | {"epochs": 3, "max_steps": None, "steps_per_epoch": 4, "batch_size": 8, "device": "cpu"}
    return FitSpec(**recipe | changed)


def sine(num_rows=1200):
    return torch.sin(0.1 * torch.arange(num_rows))[:, None]


def split(rows, windows, num_training):
    training, validation = rows[:num_training], rows[num_training - windows.lookback :]
    return TensorBlocks([training], windows.span), TensorBlocks([validation], windows.span)


def run(network, spec, seed=0, resume=None, rows=None, windows=None, season=4, **calls):
    windows = windows or WindowSpec(lookback=12, horizon=4)
    train, validation = split(sine(120) if rows is None else rows, windows, 90)
    build = partial(build_network, network, PLAIN, windows, season)
    return fit(build, train, validation, PLAIN, windows, spec, seed, resume, **calls)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("network", "windows", "spec"),
    [
        # the recipe, but four epochs and a falling learning rate, so that it settles
        (ReferenceSpec(), WindowSpec(lookback=72, horizon=1), {"epochs": 4, "schedule": "one_cycle"}),
        (ResidualSpec(channels=16), WindowSpec(lookback=64, horizon=8), {"max_steps": 100}),
    ],
    ids=["reference", "residual"],
)
def test_a_network_learns_to_continue_a_sine(network, windows, spec):
    kind, rows = network.kind, sine(2000)
    spec = FitSpec(**{name: value for name, value in RECIPES[kind].items() if name not in ("epochs", "max_steps")} | spec)
    build = partial(build_network, network, PLAIN, windows, 1)
    test = Batch.split(torch.cat(list(in_order(split(rows, windows, 1500)[1], windows.span, 500))), windows.lookback, PLAIN)

    def test_mse(weights):
        fresh = build()
        fresh.load_state_dict(weights)
        with torch.no_grad():
            return torch.nn.functional.mse_loss(fresh.eval()(test.past, test.future), test.target).item()

    torch.manual_seed(0)
    assert test_mse(build().state_dict()) > 1e-2
    train, validation = split(rows[:1500], windows, 1200)
    fitted = fit(build, train, validation, PLAIN, windows, spec, seed=0)
    assert test_mse(fitted.weights) < 1e-3


@pytest.mark.parametrize("kind", ["reference", "residual"])
def test_the_same_seed_gives_the_same_losses_and_weights(kind):
    first, second = run(SMALL[kind], short(kind)), run(SMALL[kind], short(kind))
    assert first.history == second.history
    assert same(first.weights, second.weights)
    other = run(SMALL[kind], short(kind), seed=1)
    assert other.history != first.history


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("reference", {}),
        ("reference", {"keep": "best", "average": 0.9}),
        ("residual", {}),
        ("residual", {"keep": "last", "average": 0.0}),
        ("residual", {"epochs": None, "max_steps": 10}),  # the last epoch is cut short
        ("residual", {"steps_per_epoch": None}),  # an epoch is a pass
    ],
)
def test_a_run_killed_after_any_epoch_ends_in_the_weights_of_an_uninterrupted_one(kind, changed):
    spec, checkpoints = short(kind, **changed), []
    whole = run(SMALL[kind], spec, save=checkpoints.append)
    assert [checkpoint.epoch for checkpoint in checkpoints] == [1, 2, 3]
    for checkpoint in checkpoints:
        torch.manual_seed(99)  # what ran before in the process must not matter
        later = []
        again = run(SMALL[kind], spec, resume=checkpoint, save=later.append)
        assert same(again.weights, whole.weights)
        assert again.history == whole.history
        assert again.best_epoch == whole.best_epoch
        for own, other in zip(later, checkpoints[checkpoint.epoch :], strict=True):
            assert same(own.tensors, other.tensors)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("reference", {"dropout": 0.3}),
        ("residual", {}),  # draws noise and dropout, and keeps a running mean
        ("residual", {"epochs": None, "max_steps": 10}),  # the last epoch is cut short
        ("residual", {"steps_per_epoch": None, "epochs": 2, "batch_size": 24}),  # an epoch is a pass, its last batch smaller
        ("residual", {"steps_per_epoch": 7, "batch_size": 24}),  # passes end in the middle of epochs
    ],
)
def test_a_run_killed_after_any_step_ends_in_the_weights_of_an_uninterrupted_one(kind, changed):
    changed = dict(changed)
    network = SMALL[kind].model_copy(update={"dropout": changed.pop("dropout", 0.2)})
    spec, checkpoints = short(kind, **changed), []
    whole = run(network, spec)
    often = run(network, spec, save=checkpoints.append, due=lambda: True)
    assert same(often.weights, whole.weights)  # to save draws nothing and changes nothing
    total, per_epoch = num_steps(spec, 75)
    assert [one.step for one in checkpoints] == list(range(1, total + 1))
    assert [one.epoch for one in checkpoints] == [*(step // per_epoch for step in range(1, total)), -(-total // per_epoch)]
    for checkpoint in checkpoints:
        torch.manual_seed(99)  # what ran before in the process must not matter
        later = []
        again = run(network, spec, resume=checkpoint, save=later.append, due=lambda: True)
        assert same(again.weights, whole.weights)
        assert again.history == whole.history
        assert again.best_epoch == whole.best_epoch
        for own, other in zip(later, checkpoints[checkpoint.step :], strict=True):
            assert same(own.tensors, other.tensors)


def test_a_checkpoint_in_the_middle_of_an_epoch_never_holds_a_loss_that_is_no_number():
    rows, saved = sine(120), []
    rows[60] = math.nan
    with pytest.raises(Fault, match=r"^Loss became nan at epoch 1, step [1-4]; "):
        run(SMALL["residual"], short("residual"), rows=rows, save=saved.append, due=lambda: True)
    assert all(one.tensors["losses"].isfinite().all() for one in saved)


def test_what_a_checkpoint_holds_does_not_change_as_training_goes_on():
    checkpoints, copies = [], []

    def save(checkpoint):
        checkpoints.append(checkpoint)
        copies.append({name: value.clone() for name, value in checkpoint.tensors.items()})

    run(SMALL["residual"], short("residual"), save=save)
    assert [len(checkpoint.history) for checkpoint in checkpoints] == [1, 2, 3]
    assert all(same(checkpoint.tensors, copy) for checkpoint, copy in zip(checkpoints, copies, strict=True))


def test_a_history_entry_is_told_and_saved_for_every_epoch():
    told = []
    fitted = run(SMALL["residual"], short("residual", epochs=None, max_steps=10), tell=told.append)
    assert told == fitted.history
    assert [(entry["epoch"], entry["step"]) for entry in told] == [(1, 4), (2, 8), (3, 10)]
    assert all(set(entry) == {"epoch", "step", "train", "validation"} for entry in told)


@pytest.mark.parametrize("kind", ["reference", "residual"])
def test_a_loss_that_is_no_number_names_epoch_and_step(kind):
    rows = sine(120)
    rows[60] = math.nan
    with pytest.raises(Fault, match=r"^Loss became nan at epoch 1, step [1-4]; .* Lower fit\.learning_rate \(now 0\.00"):
        run(SMALL[kind], short(kind), rows=rows)


def test_a_learning_rate_beyond_reason_is_named_and_the_last_checkpoint_stays():
    spec, saved = short("reference", learning_rate=1e18, epochs=50), []
    with pytest.raises(Fault, match=r"oss became (inf|nan) at epoch \d+, step \d+; .*Lower fit\.learning_rate \(now 1e\+18\)"):
        run(SMALL["reference"], spec, save=saved.append)
    assert all(math.isfinite(entry[name]) for one in saved for entry in one.history for name in ("train", "validation"))


@pytest.mark.parametrize(
    ("losses", "last_step", "message"),
    [
        ([1.0, math.inf, math.nan], 30, "^Loss became inf at epoch 3, step 29; the checkpoint of epoch 2 is kept"),
        ([math.nan, 1.0, 1.0], 30, "^Loss became nan at epoch 3, step 28; "),
        ([1.0, 1.0, -math.inf], 30, "^Loss became -inf at epoch 3, step 30; "),
    ],
)
def test_the_first_step_that_went_wrong_is_named(losses, last_step, message):
    with pytest.raises(Fault, match=message):
        check_finite(torch.tensor(losses), 3, last_step, FitSpec(epochs=5))


def test_a_validation_loss_that_is_no_number_is_named():
    rows = sine(120)
    rows[100] = math.inf  # after the last training row
    with pytest.raises(Fault, match=r"^Validation loss became (inf|nan) at epoch 1, step 4; no epoch was finished"):
        run(SMALL["residual"], short("residual"), rows=rows)


def test_best_keeps_the_weights_of_the_epoch_with_the_lowest_validation_loss():
    spec = short("reference", keep="best", epochs=6, learning_rate=0.05)  # so large that it does not end at its best
    seen = []
    fitted = run(SMALL["reference"], spec, save=seen.append)
    losses = [entry["validation"] for entry in fitted.history]
    assert fitted.best_epoch == 1 + losses.index(min(losses)) != 6
    best = seen[fitted.best_epoch - 1].tensors
    assert same(fitted.weights, {name[8:]: value for name, value in best.items() if name.startswith("network.")})


def test_last_keeps_the_weights_of_the_last_epoch():
    spec, seen = short("reference", epochs=8, learning_rate=0.05), []
    assert spec.keep == "last"
    fitted = run(SMALL["reference"], spec, save=seen.append)
    assert fitted.best_epoch == 8
    last = seen[-1].tensors
    assert same(fitted.weights, {name[8:]: value for name, value in last.items() if name.startswith("network.")})


def test_the_running_mean_of_weights_is_what_is_kept_and_validated():
    spec, seen = short("residual", average=0.9, keep="last"), []
    windows = WindowSpec(lookback=12, horizon=4)
    fitted = run(SMALL["residual"], spec, save=seen.append)
    means = {name[5:]: value for name, value in seen[-1].tensors.items() if name.startswith("mean.")}
    raw = {name[8:]: value for name, value in seen[-1].tensors.items() if name.startswith("network.")}
    assert same(fitted.weights, means)
    assert not same(means, raw)
    network = build_network(SMALL["residual"], PLAIN, windows, 4)
    network.load_state_dict(means)
    alone = Training(network, short("residual", average=0.0), 1, torch.device("cpu"))
    validation = split(sine(120), windows, 90)[1]
    assert fitted.history[-1]["validation"] == validation_loss(alone, validation, PLAIN, windows)


def test_the_validation_loss_is_the_mean_over_every_window_and_leaves_the_network_as_it_is():
    windows = WindowSpec(lookback=12, horizon=4)
    torch.manual_seed(0)
    network = build_network(SMALL["residual"], PLAIN, windows, 1)  # untrained without a season: the last value
    before = {name: value.clone() for name, value in network.state_dict().items()}
    training = Training(network, FitSpec(epochs=1, loss="mae"), 1, torch.device("cpu"))
    rows = torch.randn(30, 1)
    blocks = TensorBlocks([rows[:20], rows[14:]], windows.span)
    by_hand = [
        (part[i + 12 : i + 16, 0] - part[i + 11, 0]).abs().mean().item()
        for part in (rows[:20], rows[14:])
        for i in range(len(part) - 15)
    ]
    assert validation_loss(training, blocks, PLAIN, windows) == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-6)
    assert same(network.state_dict(), before)


def test_of_very_many_windows_an_even_selection_is_validated_on_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr("models.fit.VALIDATED", 400)
    windows, seen = WindowSpec(lookback=12, horizon=4), []
    network = build_network(SMALL["residual"], PLAIN, windows, 1)
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0][:, 0, 0]))
    rows = torch.arange(1215.0)[:, None]  # 1,200 windows, each named by its first row
    training = Training(network, FitSpec(epochs=1), 1, torch.device("cpu"))
    validation_loss(training, TensorBlocks([rows], windows.span), PLAIN, windows)
    assert torch.cat(seen).tolist() == list(range(0, 1200, 3))
    assert max(map(len, seen)) <= AT_ONCE < 400


def test_the_reference_net_is_validated_on_the_one_step_it_is_trained_on():
    windows = WindowSpec(lookback=12, horizon=4)
    network = build_network(SMALL["reference"], PLAIN, windows, 1)
    training = Training(network, FitSpec(epochs=1), 1, torch.device("cpu"))
    rows = torch.randn(20, 1)
    loss = validation_loss(training, TensorBlocks([rows], 16), PLAIN, windows)
    batch = Batch.split(next(in_order(TensorBlocks([rows], 16), 16, 100)), 12, PLAIN)
    with torch.no_grad():
        forecast = network.eval()(batch.past, batch.future)
    assert loss == pytest.approx((forecast[:, 0] - batch.target[:, 0]).square().mean().item(), rel=1e-6)
    assert loss != pytest.approx((forecast - batch.target).square().mean().item(), rel=1e-3)


def test_the_recipe_of_the_reference_net_is_the_one_that_was_published():
    spec = FitSpec(**RECIPES["reference"])
    assert (spec.epochs, spec.steps_per_epoch, spec.batch_size) == (50, 50, 168)
    assert (spec.optimizer, spec.learning_rate, spec.loss) == ("rmsprop", 0.001, "mse")
    assert (spec.schedule, spec.weight_decay, spec.clip_norm, spec.average, spec.keep) == ("constant", 0, None, 0, "last")
    assert num_steps(spec, 30_000) == (2500, 50)
    network = build_network(ReferenceSpec(), PLAIN, WindowSpec(lookback=72, horizon=1), 1)
    optimizer = Training(network, spec, 2500, torch.device("cpu")).optimizer
    plain = copy.deepcopy(network)
    published = torch.optim.RMSprop(plain.parameters(), lr=0.001, alpha=0.9, eps=1e-7)
    for step in range(20):
        for own, other in zip(network.parameters(), plain.parameters(), strict=True):
            own.grad = other.grad = torch.randn(own.shape, generator=torch.Generator().manual_seed(step)) * 10.0 ** -(step % 4)
        optimizer.step()
        published.step()
    for own, other in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "num_windows", "steps"),
    [
        ({"epochs": 3}, 100, (6, 2)),  # an epoch is a pass, its last batch smaller
        ({"epochs": 3, "steps_per_epoch": 5}, 100, (15, 5)),
        ({"max_steps": 7}, 100, (7, 2)),
        ({"max_steps": 7, "steps_per_epoch": 5}, 100, (7, 5)),
    ],
)
def test_steps_in_all_and_in_an_epoch(spec, num_windows, steps):
    assert num_steps(FitSpec(batch_size=64, **spec), num_windows) == steps


@pytest.mark.parametrize("lengths", [{}, {"epochs": 3, "max_steps": 3}])
def test_a_fit_has_one_length(lengths):
    with pytest.raises(ValidationError, match=r"give either fit\.epochs or fit\.max_steps, and not both"):
        FitSpec(**lengths)


def test_a_repeated_seed_is_refused():
    with pytest.raises(ValidationError, match=r"fit\.seeds \[0, 1, 0\] repeats a seed"):
        FitSpec(epochs=1, seeds=(0, 1, 0))


def test_one_cycle_rises_over_a_fifth_of_the_run_and_falls_to_nearly_nothing():
    network = build_network(SMALL["residual"], PLAIN, WindowSpec(lookback=12, horizon=4), 1)
    training = Training(network, FitSpec(max_steps=100, schedule="one_cycle"), 100, torch.device("cpu"))
    rates = []
    for training.step in range(100):
        rates.append(training._rate())
    assert rates[0] == pytest.approx(0.05)
    assert rates[20] == 1.0 == max(rates)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[60] == pytest.approx(0.5, abs=1e-3)  # half way down
    assert 0.001 <= rates[-1] < 0.002


def test_weight_decay_spares_biases_and_norms():
    network = build_network(SMALL["residual"], PLAIN, WindowSpec(lookback=12, horizon=4), 1)
    optimizer = Training(network, FitSpec(max_steps=1, weight_decay=0.1), 1, torch.device("cpu")).optimizer
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for value in network.parameters():
        assert decay[id(value)] == (0.1 if value.ndim > 1 else 0.0)


def test_every_epoch_of_a_seed_draws_from_its_own_generator():
    pairs = {hash_pair(seed, epoch) for seed in range(20) for epoch in range(100)}
    assert len(pairs) == 2000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(Fault, match=r"fit\.device is 'cuda' but torch sees no CUDA device here\. Use 'auto' or 'cpu'\."):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("kind", ["reference", "residual"])
def test_a_run_killed_on_a_gpu_ends_in_the_weights_of_an_uninterrupted_one(kind):
    spec, checkpoints = short(kind, device="cuda"), []
    whole = run(SMALL[kind], spec, save=checkpoints.append)
    assert all(value.device.type == "cpu" for value in whole.weights.values())
    again = run(SMALL[kind], spec, resume=checkpoints[0])
    assert all(torch.allclose(again.weights[name], whole.weights[name], atol=1e-6) for name in whole.weights)


MASKED = Columns(masked=True)


def masked_rows(num_rows=120, filled=0.0):
    """A sine whose every fifth step was filled in."""
    seen = torch.arange(num_rows) % 5 != 0
    return torch.stack([sine(num_rows)[:, 0].where(seen, torch.tensor(filled)), seen.float()], 1)


LOSSES = [{"loss": "mse"}, {"loss": "mae"}, {"loss": "huber"}, {"loss": "quantile", "level": 0.9}]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["loss"])
@pytest.mark.parametrize("filled", [3.0, 1e30, math.inf, math.nan])
def test_what_was_filled_in_changes_neither_loss_nor_gradient(loss, filled):
    torch.manual_seed(0)
    spec, forecast = FitSpec(epochs=1, **loss), torch.randn(4, 3, requires_grad=True)
    target, weight = torch.randn(4, 3), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [1, 1, 0]])
    results = []
    for value in (0.0, filled):
        batch = Batch(None, None, torch.where(weight > 0, target, value), weight)
        result = loss_of(spec, forecast, batch)
        (gradient,) = torch.autograd.grad(result, forecast)
        results.append((result.item(), gradient.tolist()))
    assert results[0] == results[1]
    seen = weight > 0
    alone = loss_of(spec, forecast[seen][None], Batch(None, None, target[seen][None]))
    assert results[0][0] == pytest.approx(alone.item(), rel=1e-6)
    assert torch.tensor(results[0][1])[~seen].eq(0).all()


def test_a_window_that_is_masked_throughout_has_no_effect():
    torch.manual_seed(0)
    forecast, target, weight = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([[1.0, 1], [0, 0], [1, 0]])
    whole = loss_of(FitSpec(epochs=1), forecast, Batch(None, None, target, weight))
    kept = [0, 2]
    assert whole == loss_of(FitSpec(epochs=1), forecast[kept], Batch(None, None, target[kept], weight[kept]))
    assert loss_of(FitSpec(epochs=1), forecast[1:2], Batch(None, None, target[1:2], weight[1:2])) == 0


def test_the_reference_net_is_trained_on_the_first_step_of_a_masked_horizon_only():
    weight, target = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[2.0, 5], [7, 9]])
    assert loss_of(FitSpec(epochs=1), torch.zeros(2, 1), Batch(None, None, target, weight)) == 4


@pytest.mark.parametrize("kind", ["reference", "residual"])
def test_networks_learn_from_masked_series(kind):
    windows = WindowSpec(lookback=12, horizon=4)
    train, validation = split(masked_rows(), windows, 90)
    build = partial(build_network, SMALL[kind], MASKED, windows, 4)
    fitted = fit(build, train, validation, MASKED, windows, short(kind), 0)
    assert all(math.isfinite(entry["validation"]) for entry in fitted.history)


def test_the_validation_loss_is_the_mean_over_observed_steps():
    windows, rows = WindowSpec(lookback=12, horizon=4), masked_rows(40)
    network = build_network(SMALL["residual"], MASKED, windows, 1)  # untrained without a season: the last value
    training = Training(network, FitSpec(epochs=1, loss="mae"), 1, torch.device("cpu"))
    errors = [
        abs(rows[at + step, 0] - rows[at + 11, 0]).item() for at in range(25) for step in range(12, 16) if rows[at + step, 1]
    ]
    loss = validation_loss(training, TensorBlocks([rows], windows.span), MASKED, windows)
    assert loss == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_a_validation_fold_that_is_masked_throughout_is_refused():
    windows, rows = WindowSpec(lookback=12, horizon=4), masked_rows(40)
    rows[:, 1] = 0
    training = Training(build_network(SMALL["residual"], MASKED, windows, 1), FitSpec(epochs=1), 1, torch.device("cpu"))
    with pytest.raises(Fault, match=r"^Every step of the validation fold is masked.* Set other folds\.$"):
        validation_loss(training, TensorBlocks([rows], windows.span), MASKED, windows)


def test_an_embedding_is_trained_the_same_for_a_seed_and_for_the_series_that_were_there():
    windows = WindowSpec(lookback=12, horizon=4)
    rows = torch.cat([sine(120), torch.full((120, 1), 2.0)], 1)  # all of them of series 2
    train, validation = split(rows, windows, 90)
    network = ResidualSpec(channels=4, embedding=3)
    build = partial(build_network, network, PLAIN, windows, 4, 2)
    spec = short("residual", weight_decay=0.0, average=0.0, keep="last")
    first, second = (fit(build, train, validation, PLAIN, windows, spec, 5) for _ in range(2))
    assert same(first.weights, second.weights)
    assert first.history == second.history
    torch.manual_seed(5)
    moved = (first.weights["series.weight"] != build().series.weight).any(1).tolist()
    assert moved[1:] == [False, True]  # series 1 was never seen


def test_a_run_shorter_than_a_pass_learns_from_all_of_a_long_history():
    class Counting(TensorBlocks):
        def read(self, block):
            reads.append(block)
            return super().read(block)

    reads, windows = [], WindowSpec(lookback=12, horizon=4)
    rows = torch.zeros(SHUFFLE_ROWS, 1)
    training, (_, validation) = Counting([rows, rows, rows], windows.span), split(sine(120), windows, 90)
    build = partial(build_network, SMALL["residual"], PLAIN, windows, 1)
    fit(build, training, validation, PLAIN, windows, short("residual", epochs=None, max_steps=6), seed=0)
    assert sorted(reads) == [0, 1, 2]


@pytest.mark.parametrize(
    ("losses", "rate"),
    [
        ([], 1),
        ([3.0], 1),
        ([3.0, 2.0, 1.0], 1),
        ([3.0, 3.0], 0.5),  # as good is no better
        ([3.0, 2.0, 4.0, 2.5, 1.0, 1.5], 0.125),
    ],
)
def test_the_rate_halves_for_each_epoch_that_is_no_better_than_all_before(losses, rate):
    assert plateau_rate([{"validation": loss} for loss in losses]) == rate


def test_a_run_by_plateaus_ends_once_it_does_not_improve_and_goes_on_to_the_same_weights_after_a_kill():
    windows = WindowSpec(lookback=12, horizon=4)
    training, validation = split(sine(160), windows, 120)
    spec = short("residual", epochs=None, max_steps=4000, steps_per_epoch=4, schedule="plateau", learning_rate=0.02)
    build, kept = partial(build_network, SMALL["residual"], PLAIN, windows, 1), []
    whole = fit(build, training, validation, PLAIN, windows, spec, seed=0, save=kept.append)
    assert plateau_rate(whole.history) < SMALLEST_RATE <= plateau_rate(whole.history[:-1])
    assert len(whole.history) < 1000
    for checkpoint in (kept[0], kept[len(kept) // 2], kept[-1]):
        again = fit(build, training, validation, PLAIN, windows, spec, seed=0, resume=checkpoint)
        assert again.history == whole.history
        assert all(torch.equal(again.weights[name], whole.weights[name]) for name in whole.weights)


def test_the_quantile_loss_at_the_median_is_the_absolute_error():
    forecast, batch = torch.randn(5, 2), Batch(None, None, torch.randn(5, 2))
    median, absolute = FitSpec(epochs=1, loss="quantile", level=0.5), FitSpec(epochs=1, loss="mae")
    assert loss_of(median, forecast, batch).item() == pytest.approx(loss_of(absolute, forecast, batch).item())


@pytest.mark.parametrize("level", [0.1, 0.9])
def test_a_net_with_the_quantile_loss_forecasts_that_quantile(level):
    torch.manual_seed(0)
    rows = torch.randn(3000, 1)
    windows = WindowSpec(lookback=4, horizon=2)
    spec = FitSpec(max_steps=300, steps_per_epoch=100, learning_rate=0.02, loss="quantile", level=level, batch_size=256)
    train, validation = split(rows, windows, 2000)
    build = partial(build_network, LinearSpec(), PLAIN, windows, 1)
    network = build()
    network.load_state_dict(fit(build, train, validation, PLAIN, windows, spec, 0).weights)
    batch = Batch.split(torch.cat(list(in_order(validation, windows.span, 500))), windows.lookback, PLAIN)
    below = (batch.target <= network.eval()(batch.past, batch.future)).float().mean().item()
    assert below == pytest.approx(level, abs=0.04)


@pytest.mark.parametrize("said", [{"loss": "quantile"}, {"loss": "mae", "level": 0.5}])
def test_a_level_belongs_to_the_quantile_loss_alone(said):
    with pytest.raises(ValidationError, match=r"loss 'quantile' needs a level, such as 0\.9, and no other loss takes one"):
        FitSpec(epochs=1, **said)
