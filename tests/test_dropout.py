import pytest
import torch
from torch import nn

from models.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_dropout_leaves_the_mean_and_drops_its_share(share):
    torch.manual_seed(0)
    dropped = Dropout(share)(torch.ones(1000, 101))
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, rel=0.02)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - share)], rel=1e-4)


def test_dropout_is_drawn_from_the_seed():
    x = torch.ones(50, 7)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(Dropout(0.3)(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_dropout_keeps_everything_when_forecasting_or_where_there_is_none():
    x = torch.randn(5, 3)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_the_gradient_passes_where_the_value_did():
    x = torch.ones(40, 5, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert isinstance(Dropout(0.5), nn.Dropout)
