"""A convolution, ReLU and max-pool as one operation, against torch's own three."""

import pytest
import torch
from torch import nn

from models.conv1d import ReferenceNet
from models.pooled_conv import PooledConv
from models.series import Columns
from models.specs import ReferenceSpec
from models.windows import WindowSpec

FILTERS, CHANNELS, KERNEL, POOL = 5, 2, 3, 4


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(CHANNELS, FILTERS, KERNEL), nn.ReLU(), nn.MaxPool1d(POOL))


def learned(forward, conv, gradient):
    """Values, and what weight and bias learn from a gradient of them."""
    conv.zero_grad()
    values = forward()
    values.backward(gradient)
    return values.detach(), conv.weight.grad.clone(), conv.bias.grad.clone()


def as_one(net, rows):
    conv = net[0]
    patches = rows.unfold(2, KERNEL, 1).transpose(1, 2).flatten(2)  # (B, P, C * K)
    pools = patches.reshape(-1, POOL, CHANNELS * KERNEL).transpose(0, 1)
    pooled = PooledConv.apply(pools, conv.weight.flatten(1), conv.bias)
    return pooled.unflatten(0, (len(rows), -1)).transpose(1, 2)


def rows_of(kind):
    torch.manual_seed(1)
    rows = torch.randn(7, CHANNELS, 3 * POOL + KERNEL - 1)
    return {"random": rows, "constant": torch.ones_like(rows), "few values": rows.round()}[kind]


@pytest.mark.parametrize("kind", ["random", "constant", "few values"])
def test_values_and_gradients_are_those_of_the_layers_also_where_positions_of_a_pool_are_equal(kind):
    net, rows = layers(), rows_of(kind)
    gradient = torch.randn(7, FILTERS, 3)
    expected = learned(lambda: net(rows), net[0], gradient)
    found = learned(lambda: as_one(net, rows), net[0], gradient)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


def test_in_bfloat16_the_gradients_are_near_and_of_single_precision():
    net, rows = layers(), rows_of("random")
    gradient = torch.randn(7, FILTERS, 3)
    expected = learned(lambda: net(rows), net[0], gradient)
    with torch.autocast("cpu", torch.bfloat16):
        found = learned(lambda: as_one(net, rows), net[0], gradient)
    for own, other in zip(found, expected, strict=True):
        assert own.dtype == torch.float32
        assert (own - other).norm() < 0.05 * other.norm()


def test_rows_that_want_a_gradient_get_theirs():
    network = ReferenceNet(ReferenceSpec(filters=3, hidden=5, dropout=0), Columns(), WindowSpec(lookback=12, horizon=1))
    rows = torch.randn(4, 12, 1, requires_grad=True)
    (found,) = torch.autograd.grad(network.one_step(rows).sum(), rows)
    (expected,) = torch.autograd.grad(network.layers(rows.transpose(1, 2)).sum(), rows)
    torch.testing.assert_close(found, expected)
    assert expected.abs().sum() > 0
