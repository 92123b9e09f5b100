"""Products by oneDNN against torch's own, and where they are left to torch."""

import platform

import pytest
import torch
import torch.nn.functional as F

from models import products
from models.products import FEW, LONGEST, has_onednn, product

IN, OUT = LONGEST + 44, 20
ROWS = {
    "a batch": lambda: torch.randn(40, IN),
    "a batch of runs": lambda: torch.randn(8, 5, IN),
    "every other row": lambda: torch.randn(80, IN)[::2],
    "every other column": lambda: torch.randn(40, 2 * IN)[:, ::2],
    "laid out by columns": lambda: torch.randn(IN, 40).t(),
    "overlapping": lambda: torch.randn(IN + 39).unfold(0, IN, 1),
    "one": lambda: torch.randn(1, IN),
    "none": lambda: torch.randn(0, IN),
}
WEIGHTS = {
    "as it lies": lambda: torch.randn(OUT, IN),
    "laid out by columns": lambda: torch.randn(IN, OUT).t(),
    "a part of a wider one": lambda: torch.randn(OUT, 2 * IN)[:, 7 : 7 + IN],
    "of one output": lambda: torch.randn(1, IN),
}


@pytest.fixture(autouse=True)
def processor(monkeypatch):
    """Whichever this is, products are those of one with AVX-512; a test may say that it is another."""

    def is_one(name: str) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)
        has_onednn.cache_clear()

    is_one("AVX512")
    yield is_one
    has_onednn.cache_clear()


@pytest.fixture
def calls(monkeypatch):
    """The shapes that oneDNN is given."""
    seen, whole = [], products.multiplied
    monkeypatch.setattr(products, "multiplied", lambda *parts: seen.append(parts[0].shape) or whole(*parts))
    has_onednn()  # which tries it
    seen.clear()
    return seen


def learned(multiply, rows, weight, bias):
    """Values, and what each factor learns from a gradient of them."""
    parts = [part.detach().requires_grad_() for part in (rows, weight, bias) if part is not None]
    values = multiply(*parts)
    torch.manual_seed(1)
    values.backward(torch.randn_like(values))
    return values.detach(), *(part.grad for part in parts)


@pytest.mark.parametrize("biased", [True, False], ids=["with a bias", "without"])
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("rows", ROWS)
def test_values_and_gradients_are_those_of_a_linear_layer(rows, weight, biased):
    torch.manual_seed(0)
    rows, weight = ROWS[rows](), WEIGHTS[weight]()
    bias = torch.randn(len(weight)) if biased else None
    found, expected = (learned(multiply, rows, weight, bias) for multiply in (product, F.linear))
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=3e-5)


def test_long_sums_lose_no_more_than_torch_s_own():
    torch.manual_seed(0)
    rows, weight = torch.randn(168, 1088), torch.randn(216, 1088)
    exact = rows.double() @ weight.double().t()
    own, other = ((multiply(rows, weight) - exact).abs().mean() for multiply in (product, F.linear))
    assert own < 1.5 * other


def test_only_what_learns_is_given_a_gradient():
    weight = torch.randn(OUT, IN, requires_grad=True)
    rows = torch.randn(40, IN)
    product(rows, weight).sum().backward()
    assert rows.grad is None
    torch.testing.assert_close(weight.grad, rows.sum(0).expand(OUT, IN), rtol=1e-5, atol=3e-5)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is asked for on x86 only")
def test_single_precision_is_multiplied_by_onednn_in_parts_where_nothing_is_learned(calls):
    rows, weight, bias = torch.randn(40, IN), torch.randn(OUT, IN), torch.randn(OUT)
    product(rows, weight, bias)
    assert calls == [(40, IN // 2), (40, IN // 2)]
    calls.clear()
    learned(product, rows, weight, bias)
    assert calls == [(40, IN), (40, OUT), (OUT, 40)]


@pytest.mark.parametrize("shape", [(FEW - 1, OUT), (40, FEW - 1)], ids=["few rows", "few outputs"])
def test_small_products_are_left_to_torch(calls, shape):
    rows, weight = torch.randn(shape[0], IN), torch.randn(shape[1], IN)
    assert torch.equal(product(rows, weight), F.linear(rows, weight))
    assert not calls


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16], ids=str)
def test_other_precisions_are_left_to_torch(calls, precision):
    rows, weight = torch.randn(40, IN, dtype=precision), torch.randn(OUT, IN, dtype=precision)
    assert torch.equal(product(rows, weight), F.linear(rows, weight))
    assert not calls


def test_an_autocast_multiplies_in_its_own_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert product(torch.randn(40, IN), torch.randn(OUT, IN)).dtype == torch.bfloat16


def test_a_torch_without_the_operation_multiplies_as_it_always_did(monkeypatch):
    def refuse(*_):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(products, "multiplied", refuse)
    rows, weight = torch.randn(40, IN), torch.randn(OUT, IN)
    assert not has_onednn()
    assert torch.equal(product(rows, weight), F.linear(rows, weight))


@pytest.mark.parametrize("name", ["AVX2", "DEFAULT"])
def test_a_processor_without_avx_512_multiplies_as_torch_does(calls, processor, name):
    processor(name)
    rows, weight = torch.randn(40, IN), torch.randn(OUT, IN)
    assert torch.equal(product(rows, weight), F.linear(rows, weight))
    assert not calls


def test_a_graph_is_made_of_a_plain_linear_layer():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(OUT, IN))

        def forward(self, rows):
            return product(rows, self.weight)

    graph = torch.export.export(Layer(), (torch.randn(40, IN),)).graph
    called = str([node.target for node in graph.nodes])
    assert "linear" in called
    assert "mkldnn" not in called
