"""What `fit.precision` changes, and where."""

import pytest
import torch
from test_fit import SMALL, run, same, short

import models.precision
from models.batches import RESIDENT, SHUFFLE_ROWS, ShuffledStream, TensorBlocks, in_order, rows_at_once
from models.precision import misgiving, multiplying

PLACES = (torch.backends.cuda.matmul, torch.backends.cudnn)


def allowed() -> list[bool]:
    """Whether TF32 is, in matrix products and in convolutions."""
    return [place.allow_tf32 for place in PLACES]


@pytest.mark.parametrize(("precision", "rounds"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_a_gpu_rounds_to_tf32_where_that_is_asked_for_and_nowhere_else(precision, rounds):
    before = allowed()
    with multiplying(precision, torch.device("cuda")):
        assert allowed() == [rounds, rounds]
    assert allowed() == before


def test_a_step_that_fails_leaves_torch_as_it_was():
    before = allowed()
    with pytest.raises(ZeroDivisionError), multiplying("tf32", torch.device("cuda")):
        _ = 1 / 0
    assert allowed() == before


def test_nothing_is_set_for_a_processor():
    before = allowed()
    with multiplying("tf32", torch.device("cpu")):
        assert allowed() == before


@pytest.mark.parametrize("precision", ["float32", "tf32", "auto", "bfloat16"])
def test_there_is_a_misgiving_where_bfloat16_is_asked_of_what_only_imitates_it(monkeypatch, precision):
    monkeypatch.setattr(models.precision, "multiplies_bfloat16", lambda device: True)
    assert misgiving(precision, torch.device("cpu")) is None
    monkeypatch.setattr(models.precision, "multiplies_bfloat16", lambda device: False)
    line = misgiving(precision, torch.device("cpu"))
    assert ("imitates bfloat16" in line) if precision == "bfloat16" else line is None


@pytest.mark.parametrize("kind", SMALL)
def test_a_processor_learns_the_same_bytes_in_tf32_as_in_float32(kind):
    exact = run(SMALL[kind], short(kind))
    assert same(run(SMALL[kind], short(kind, precision="tf32")).weights, exact.weights)


def test_a_gpu_holds_rows_by_their_bytes_and_a_processor_by_its_cache():
    assert rows_at_once(torch.device("cpu"), 3) == SHUFFLE_ROWS
    assert rows_at_once(torch.device("cuda"), 4) * 4 * 4 == RESIDENT


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gathers_the_windows_that_a_processor_does():
    rows = [torch.randn(count, 3, generator=torch.Generator().manual_seed(count)) for count in (90, 40, 70)]
    for device in ("cpu", "cuda"):
        blocks = TensorBlocks(list(rows), 12)
        stream = ShuffledStream(blocks, 12, 16, 0, torch.device(device)).batches()
        found = [*(next(stream) for _ in range(30)), *in_order(blocks, 12, 16, device=device)]
        assert {windows.device.type for windows in found} == {device}
        wanted = found if device == "cpu" else wanted  # noqa: F821, of the round before
        assert all(torch.equal(one.cpu(), other) for one, other in zip(found, wanted, strict=True))
