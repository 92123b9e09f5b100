"""How a network learns to forecast: from shuffled windows, validated after every epoch."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.batches import AT_ONCE, Batch, Blocks, ShuffledStream, in_order, rows_at_once
from models.errors import Fault
from models.losses import loss_of
from models.parallel import ALONE, Team
from models.precision import autocast, multiplying
from models.series import Columns
from models.specs import FitSpec
from models.training import Checkpoint, Fitted, Training, num_steps, resolve_device, run_epochs
from models.windows import WindowSpec

VALIDATED = 16_384  # validation windows looked at after an epoch, about: enough to tell epochs apart, and not longer than them


def fit(
    build: Callable[[], nn.Module],
    train: Blocks,
    validation: Blocks | None,
    columns: Columns,
    windows: WindowSpec,
    spec: FitSpec,
    seed: int,
    resume: Checkpoint | None = None,
    save: Callable[[Checkpoint], None] = lambda checkpoint: None,
    tell: Callable[[dict], None] = lambda entry: None,
    due: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda line: None,
    team: Team = ALONE,
) -> Fitted:
    """Train one network and return its kept weights.

    A run resumed from any checkpoint ends in the weights of an uninterrupted one. `save`, `tell` and `due` are those of
    `run_epochs`; `warn` receives a line where memory has run out and it goes on with fewer windows at a time.

    Where there is no `validation`, the weights of the last step are kept.

    In a `team` every process calls this alike, each learns from its part of every batch, and the first one alone validates.

    Raises:
        Fault: the loss is no longer finite. The last checkpoint given to `save` is still good.
    """
    device = resolve_device(spec.device)
    torch.manual_seed(seed)
    total, per_epoch = num_steps(spec, sum(train.num_windows))
    run = Training(build(), spec, total, device, warn, team, seed)
    if resume:
        run.restore(resume)
    team.check_alike(run.network)
    held = rows_at_once(device, columns.num_channels)
    stream = ShuffledStream(train, windows.span, spec.batch_size, seed, device, held, total, team).batches(run.step)
    batches = (Batch.split(rows, windows.lookback, columns) for rows in stream)

    def validate(run: Training) -> float | None:
        if validation is None:
            return None
        return team.told(validation_loss(run, validation, columns, windows) if team.is_first else math.nan)

    return run_epochs(run, per_epoch, batches, validate, save, tell, due)


@torch.no_grad()
def validation_loss(run: Training, blocks: Blocks, columns: Columns, windows: WindowSpec) -> float:
    """Mean loss over the validation windows, of the steps the network is trained on; of very many, an even selection.

    Raises:
        Fault: none of these steps was observed.
    """
    kept = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.network.load_state_dict(run.weights())
    run.network.eval()
    steps = run.network.trained_steps or windows.horizon
    found: list[tuple[Tensor, Tensor]] = []  # loss and weight of each chunk; a device is only waited for in the end
    for chunk in in_order(blocks, windows.span, AT_ONCE, VALIDATED, run.device):
        batch = Batch.split(chunk, windows.lookback, columns)
        with multiplying(run.spec.precision, run.device), autocast(run.spec.precision, run.device):
            forecast = run.network(batch.past, batch.future[:, :steps], batch.series)
        weight = torch.tensor(len(chunk)) if batch.weight is None else batch.weight[:, :steps].sum()
        found.append((loss_of(run.spec, forecast, batch), weight))
    total = sum(loss.item() * weight.item() for loss, weight in found)
    count = sum(weight.item() for _, weight in found)
    run.network.load_state_dict(kept)
    if not count:
        raise Fault("Every step of the validation fold is masked, so there is nothing to validate on. Set other folds.")
    return total / count
