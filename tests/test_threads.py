"""Same seed, same weights: what the number of threads may change, and what it may not."""

from functools import partial

import pyarrow as pa
import pytest
import torch
from test_fit import same
from training_child import COLUMNS, FOLDS, NETWORK, SEASON, WINDOWS, write_windows

from models.batches import TensorBlocks
from models.fit import fit
from models.networks import build_network
from models.scaling import Scaler
from models.series import Columns
from models.specs import FitSpec, LinearSpec, PeriodicSpec, ReferenceSpec, ResidualSpec
from models.windows import WindowSpec
from tasks.windows.folds import WindowSet

WIDE = WindowSpec(lookback=96, horizon=24)
FIT = FitSpec(max_steps=2, batch_size=256, device="cpu")


@pytest.fixture(autouse=True)
def _threads_as_before():
    computing, reading, fetching = torch.get_num_threads(), pa.cpu_count(), pa.io_thread_count()
    yield
    torch.set_num_threads(computing)
    pa.set_cpu_count(reading)
    pa.set_io_thread_count(fetching)


def weights_with(threads: int, network) -> dict[str, torch.Tensor]:
    """What a network learns in two large steps on so many threads."""
    torch.set_num_threads(threads)
    rows = torch.sin(torch.arange(1500) * 0.26)[:, None] + 0.1 * torch.randn(
        1500, 1, generator=torch.Generator().manual_seed(0)
    )
    train, validation = TensorBlocks([rows[:1200]], WIDE.span), TensorBlocks([rows[1200:]], WIDE.span)
    build = partial(build_network, network, Columns(), WIDE, 24)
    return fit(build, train, validation, Columns(), WIDE, FIT, 0).weights


@pytest.mark.parametrize(
    "network",
    [LinearSpec(), PeriodicSpec(), ResidualSpec(channels=4), ReferenceSpec(filters=8, hidden=8)],
    ids=lambda one: one.kind,
)
def test_every_form_learns_the_same_bytes_on_as_many_threads_and_nearly_so_on_others(network):
    one, two = weights_with(1, network), weights_with(2, network)
    assert same(weights_with(2, network), two)
    assert same(weights_with(1, network), one)
    for name, value in one.items():  # sums are made in another order
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)


def test_the_number_of_threads_that_read_windows_changes_no_byte(tmp_path):
    write_windows(tmp_path)
    torch.set_num_threads(1)
    scaler = Scaler.model_validate_json((tmp_path / "scaler.json").read_text())

    def weights(threads: int) -> dict[str, torch.Tensor]:
        pa.set_cpu_count(threads)
        pa.set_io_thread_count(threads)
        cut = WindowSet(sorted(tmp_path.glob("windows-*.parquet")), scaler, FOLDS)
        numbers = {"a": 1, "b": 2}
        build = partial(build_network, NETWORK, COLUMNS, WINDOWS, SEASON, 2)
        folds = (cut.fold(fold, numbers) for fold in ("train", "validation"))
        return fit(build, *folds, COLUMNS, WINDOWS, FIT.model_copy(update={"batch_size": 16}), 0).weights

    one = weights(1)
    assert all(same(weights(threads), one) for threads in (2, 8))
