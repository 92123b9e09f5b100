"""Too little memory: a step in portions is the step of the whole batch, and training goes on."""

import pytest
import torch
from test_fit import MASKED, PLAIN, SMALL, masked_rows, same, short, sine, split
from torch import nn

from models.batches import Batch
from models.fit import fit
from models.losses import FORECASTS
from models.memory import ran_out
from models.memory import split as split_batch
from models.networks import build_network
from models.specs import ResidualSpec
from models.training import Training, share
from models.windows import WindowSpec

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = WindowSpec(lookback=12, horizon=4)
OOM = torch.OutOfMemoryError("CUDA out of memory.")
QUIET = ResidualSpec(channels=4, dropout=0.0, noise=0.0)  # draws nothing, so that portions and a whole batch can be compared


class Cramped(nn.Module):
    """A network with room for so many windows at a time, in training or in its backward pass."""

    def __init__(self, network: nn.Module, room: int, error=None, backward=False):
        super().__init__()
        self.network, self.room, self.error, self.backward = network, room, error or OOM, backward
        self.trained_steps, self.seen = network.trained_steps, []

    def forward(self, past, future, series=None):
        forecast = self.network(past, future, series)
        if self.training:
            self.seen.append(len(past))
            if len(past) > self.room and self.backward:
                forecast.register_hook(self.run_out)
            elif len(past) > self.room:
                self.run_out()
        return forecast

    def run_out(self, *gradient):
        raise self.error


def batch_of(rows, columns, size=13, weight=None):
    train, _ = split(rows, WINDOWS, 90)
    windows = train.rows[0].unfold(0, WINDOWS.span, 1).transpose(1, 2)[:size].contiguous()
    if weight is not None:
        windows[:, WINDOWS.lookback :, 1] = weight
    return Batch.split(windows, WINDOWS.lookback, columns)


def training(network=QUIET, columns=PLAIN, room=None, warn=lambda line: None, **changed):
    """A training whose network may be cramped; always from the same weights."""
    torch.manual_seed(0)
    module = build_network(network, columns, WINDOWS, 4)
    module = Cramped(module, room or 10**9, **{name: changed.pop(name) for name in ("error", "backward") if name in changed})
    return Training(module, short(network.kind, **changed), 12, torch.device("cpu"), warn)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "quantile"])
@pytest.mark.parametrize("room", [1, 3, 4, 12])
def test_a_step_in_portions_is_that_of_the_whole_batch(loss, room):
    changed = {"loss": loss} | ({"level": 0.9} if loss == "quantile" else {})
    whole, cramped, batch = training(**changed), training(room=room, **changed), batch_of(sine(120), PLAIN)
    for _ in range(3):
        assert cramped.learn(batch) == pytest.approx(whole.learn(batch).item(), rel=1e-6)
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(cramped.network.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert cramped.network.seen[0] == 13
    assert max(cramped.network.seen[-5:]) <= room


def test_masked_steps_weigh_in_a_portion_as_in_the_whole_batch():
    weight = torch.zeros(13, 4)
    weight[2:5], weight[6, 1], weight[12] = 1, 1, 1  # some portions are masked in part, some throughout
    batch = batch_of(masked_rows(120), MASKED, weight=weight)
    whole, cramped = training(columns=MASKED), training(columns=MASKED, room=2)
    assert cramped.learn(batch) == pytest.approx(whole.learn(batch).item(), rel=1e-6)
    gradients = [{name: value.grad for name, value in one.network.named_parameters()} for one in (whole, cramped)]
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-4, atol=1e-6)
    network = nn.Module()
    network.trained_steps = 4
    assert sum(share(FORECASTS, network, portion, batch) for portion in split_batch(batch, 2)) == pytest.approx(1)
    unseen = batch_of(masked_rows(120), MASKED, weight=0)
    assert share(FORECASTS, network, unseen, unseen) == 0


def test_the_reference_net_weighs_its_one_step_alone():
    weight = torch.ones(13, 4)
    weight[:7, 0] = 0
    batch, network = batch_of(masked_rows(120), MASKED, weight=weight), SMALL["reference"].model_copy(update={"dropout": 0.0})
    whole, cramped = training(network, MASKED), training(network, MASKED, room=4)
    assert cramped.learn(batch) == pytest.approx(whole.learn(batch).item(), rel=1e-6)


def test_each_halving_is_told_once_and_stays():
    told = []
    cramped, batch = training(room=4, warn=told.append), batch_of(sine(120), PLAIN)
    for _ in range(3):
        cramped.learn(batch)
    assert told == [
        "out of memory with 13 windows at a time; going on with 7, their gradients added up",
        "out of memory with 7 windows at a time; going on with 4, their gradients added up",
    ]
    assert cramped.network.seen == [13, 7, *([4, 4, 4, 1] * 3)]


def test_what_an_attempt_that_failed_drew_and_added_is_undone():
    batch, noisy = batch_of(sine(120), PLAIN), SMALL["residual"]
    cramped, small = training(noisy, room=7, backward=True), training(noisy)
    small.portions.at_once = 7  # from the first
    for one in (cramped, small):
        torch.manual_seed(5)
        one.learn(batch)
    assert same(cramped.network.state_dict(), small.network.state_dict())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_every_form_in_which_torch_says_that_memory_ran_out_is_known(error):
    assert ran_out(error)
    cramped = training(room=7, error=error)
    cramped.learn(batch_of(sine(120), PLAIN))
    assert cramped.portions.at_once == 7


def test_any_other_error_is_none_of_memory():
    cramped = training(room=7, error=RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        cramped.learn(batch_of(sine(120), PLAIN))
    assert cramped.portions.at_once == 0


def test_too_little_memory_for_a_single_window_stays_an_error_that_may_pass():
    with pytest.raises(torch.OutOfMemoryError, match="too little memory for a single window: CUDA out of memory"):
        training(room=0.5).learn(batch_of(sine(120), PLAIN))


def test_a_run_that_ran_out_of_memory_ends_in_the_same_weights_when_it_is_resumed():
    spec, saved, train, validation = short("residual"), [], *split(sine(120), WINDOWS, 90)

    def train_with(room, resume=None, save=lambda checkpoint: None):
        def build():
            return Cramped(build_network(SMALL["residual"], PLAIN, WINDOWS, 4), room)

        return fit(build, train, validation, PLAIN, WINDOWS, spec, 0, resume, save, due=lambda: True)

    whole = train_with(3, save=saved.append)
    assert {one.at_once for one in saved} == {2}
    for checkpoint in saved[::3]:
        assert same(train_with(10**9, checkpoint).weights, whole.weights)  # even where there is room again
