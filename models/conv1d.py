"""Convolutional networks. Each maps (past, future) to all steps of the horizon, in scaled space.

Axes in names: B batch, L lookback, H horizon, C channels (target first), F future covariates,
R rows the convolutions see, J seasonal lags, M lag mixtures.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dates import Dates, without_dates
from models.dropout import Dropout
from models.errors import Fault
from models.pooled_conv import PooledConv
from models.products import LONGEST, is_symbolic, product
from models.series import Columns
from models.specs import ReferenceSpec, ResidualSpec
from models.windows import WindowSpec

SEASONS = 9  # that a residual net looks back where nothing else is said
RUN = 16  # windows that a batch has at least where it is worth a look whether they are neighbours
HIDDEN = 0.1  # share of windows whose series a network with an embedding is not told while training


class ReferenceNet(nn.Module):
    """Conv1d, ReLU, max-pool, flatten, dense, ReLU, dropout, dense 1; its own forecasts feed the next step."""

    trained_steps = 1

    def __init__(self, spec: ReferenceSpec, columns: Columns, windows: WindowSpec):
        super().__init__()
        pooled = (windows.lookback - spec.kernel + 1) // spec.pool
        if pooled < 1:
            raise Fault(
                f"windows.lookback {windows.lookback} is too short for network.kernel {spec.kernel} and network.pool "
                f"{spec.pool}; it takes {spec.kernel + spec.pool - 1} steps. Use a longer lookback."
            )
        # What was filled in is told by a channel that its own forecasts could not go on with; days are no quantities.
        self.seen = [at for at, name in enumerate(columns.names) if name not in ("observed", *columns.numbers)]
        self.date_at = columns.date_at
        if columns.past:
            raise Fault(
                f"network.kind 'reference' feeds its own forecasts back and so needs every covariate over the horizon; "
                f"source.past_covariates has {', '.join(columns.past)}. Move them to source.future_covariates if they "
                "are known ahead, leave them out, or use network.kind 'residual'."
            )
        self.layers = nn.Sequential(
            nn.Conv1d(len(self.seen), spec.filters, spec.kernel),
            nn.ReLU(),
            nn.MaxPool1d(spec.pool),
            nn.Flatten(),
            nn.Linear(spec.filters * pooled, spec.hidden),
            nn.ReLU(),
            Dropout(spec.dropout),
            nn.Linear(spec.hidden, 1),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv1d | nn.Linear):  # Keras' defaults, with which the net was published
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, past: Tensor, future: Tensor, series: Tensor | None = None) -> Tensor:
        """One step (B, 1) while training; the whole horizon (B, H), step by step, when forecasting."""
        if len(self.seen) < past.shape[2]:
            past, future = past[:, :, self.seen], without_dates(future, self.date_at)
        return self.one_step(past) if self.training else self.recursive(past, future)

    def one_step(self, past: Tensor) -> Tensor:
        """What `layers` make of (B, L, C): the convolution as one matrix product, bias and ReLU after the pool.

        Both commute with a maximum, and the pool leaves a fraction of the positions to do them for. Positions that
        the pool would drop are not made at all.
        """
        conv, pool = self.layers[0], self.layers[2].kernel_size
        num_pooled = (past.shape[1] - conv.kernel_size[0] + 1) // pool
        patches = past.unfold(1, conv.kernel_size[0], 1)[:, : num_pooled * pool]  # (B, P, C, K)
        if past.device.type == "cpu" and not (past.requires_grad or is_symbolic()):
            # A position of the pools after another, and each patch as it lies in memory, row by row.
            pools = patches.unflatten(1, (num_pooled, pool)).permute(2, 0, 1, 4, 3).flatten(3).flatten(1, 2)
            weight = conv.weight.transpose(1, 2).flatten(1)
            pooled = PooledConv.apply(pools, weight, conv.bias).unflatten(0, (-1, num_pooled)).transpose(1, 2)
        else:
            # As an image (B, filters, P, 1) whose channels lie innermost, as the product left them: pooled fastest so.
            image = F.linear(patches.flatten(2), conv.weight.flatten(1)).unsqueeze(2).permute(0, 3, 1, 2)
            pooled = (F.max_pool2d(image, (pool, 1)).squeeze(3) + conv.bias[:, None]).relu()
        hidden = product(pooled.flatten(1), self.layers[4].weight, self.layers[4].bias)
        return self.layers[6:](hidden.relu_())

    def one_step_of_run(self, rows: Tensor, lookback: int) -> Tensor:
        """What `one_step` makes of every window (R - L + 1, 1) of a run of rows (R, C), each row convolved once.

        The pool slides by one row, and each window takes every so many of its positions. In single precision the dense
        layer adds up a few positions of all windows after another; lower precision would lose too much in these sums.
        """
        conv, pool, dense = self.layers[0], self.layers[2].kernel_size, self.layers[4]
        num_pooled = (lookback - conv.kernel_size[0] + 1) // pool
        hidden = product(rows.unfold(0, conv.kernel_size[0], 1).flatten(1), conv.weight.flatten(1), conv.bias).relu()
        slid = hidden[: len(hidden) - pool + 1]
        for shift in range(1, pool):
            slid = torch.maximum(slid, hidden[shift : len(hidden) - pool + 1 + shift])
        filters, windows = slid.shape[1], len(rows) - lookback + 1
        weight = dense.weight.unflatten(1, (filters, num_pooled)).transpose(1, 2)  # (hidden, P, filters)
        at_once = max(1, LONGEST // filters) if slid.dtype == weight.dtype else num_pooled
        summed = None
        for number, part in enumerate(weight.split(at_once, 1)):
            taken = slid[number * at_once * pool :].as_strided((windows, *part.shape[1:]), (filters, pool * filters, 1))
            own = product(taken.flatten(1), part.flatten(1), None if number else dense.bias)
            summed = summed.add_(own) if number else own
        return self.layers[6:](summed.relu_())

    def first_step(self, past: Tensor) -> Tensor:
        """`one_step`, by way of the rows where the windows are neighbours, as those of a backtest and of validation are."""
        if is_symbolic() or past.device.type != "cpu" or len(past) < RUN or not torch.equal(past[1:, :-1], past[:-1, 1:]):
            return self.one_step(past)
        return self.one_step_of_run(torch.cat([past[0], past[1:, -1]]), past.shape[1])

    def recursive(self, past: Tensor, future: Tensor) -> Tensor:
        """Each forecast joins the known covariates of its own step as the newest row of the next window."""
        steps = []
        for step in range(future.shape[1]):
            forecast = self.one_step(past) if step else self.first_step(past)  # (B, 1)
            steps.append(forecast)
            row = torch.cat([forecast, future[:, step]], 1)  # (B, C): the target, then the future covariates
            past = torch.cat([past[:, 1:], row[:, None]], 1)
        return torch.cat(steps, 1)


class ResidualBlock(nn.Module):
    """Normalise, a dilated gated convolution, dropout of whole channels, a 1x1 convolution, add."""

    def __init__(self, channels: int, kernel: int, dilation: int, dropout: float):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.wide = nn.Conv1d(channels, 2 * channels, kernel, dilation=dilation, padding="same")
        self.drop = nn.Dropout1d(dropout)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.drop(F.glu(self.wide(self.norm(x)), dim=1)))


class SeasonalLags(nn.Module):
    """For every row, the target of like rows whole seasons earlier, weighted by how alike they are.

    Row r looks at rows r - j * season (for a future row, the latest ones that lie before the origin). A lag
    weighs more the more recent it is and the less its known covariates differ from the row's own: a working day
    so finds working days. Recency and the weight of each covariate are learned, `mixtures` times over.
    """

    def __init__(self, num_future: int, lookback: int, horizon: int, season: int, memory: int, mixtures: int = 3):
        super().__init__()
        num_lags = (lookback - memory) // season
        rows = torch.arange(lookback - memory, lookback + horizon)
        newest = torch.where(rows < lookback, rows, rows - (rows - lookback) // season * season)
        lags = newest[:, None] - season * torch.arange(1, num_lags + 1)  # (R, J), all within the lookback
        self.register_buffer("lags", lags, persistent=False)
        ages = torch.arange(num_lags, dtype=torch.float32)
        self.recency = nn.Parameter(-ages * torch.tensor([1.0, 0.4, 0.1])[:mixtures, None])  # (M, J)
        self.distance = nn.Parameter(torch.zeros(mixtures, num_future))  # softplus: 0.7 a standard deviation

    def forward(self, target: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Lagged targets (B, M, R) and lagged covariates (B, M, R, F), from target (B, L) and known (B, L+H, F)."""
        lagged_known = known[:, self.lags]  # (B, R, J, F)
        rows = known[:, -len(self.lags) :, None]  # (B, R, 1, F)
        apart = (rows - lagged_known).abs()
        alike = -torch.einsum("brjf,mf->bmrj", apart, F.softplus(self.distance))
        weights = (alike + self.recency[:, None]).softmax(-1)  # (B, M, R, J)
        lagged_target = torch.einsum("bmrj,brj->bmr", weights, target[:, self.lags])
        return lagged_target, torch.einsum("bmrj,brjf->bmrf", weights, lagged_known)


class ResidualNet(nn.Module):
    """A regression with autoregressive errors, trained end to end.

    base:    what like moments one or more seasons ago showed (`SeasonalLags`); without a season, the last value
    g:       dilated residual convolutions over known channels correct the base, on past rows as on future ones
    memory:  one linear map carries the past errors (target - base - g) into the horizon
    forecast = base + g + memory, so the net starts as a weighted seasonal naive and learns what that misses.
    """

    trained_steps = None  # all of them

    def __init__(self, spec: ResidualSpec, columns: Columns, windows: WindowSpec, season: int, num_series: int):
        super().__init__()
        self.horizon = windows.horizon
        self.lookback, self.memory, seasonal = rows_used(spec, windows, season)
        num_past, num_future = len(columns.past_only), len(columns.known)
        self.num_past, self.noise = num_past, spec.noise
        self.dates = Dates(columns)
        num_rows = self.memory + windows.horizon
        self.lags = None
        inputs = num_future + num_past + 1  # known covariates, masked past covariates, past or future
        if seasonal:
            self.lags = SeasonalLags(num_future, self.lookback, windows.horizon, season, self.memory)
            inputs += 3 + 3 * num_future  # lagged targets, and how far their covariates lie from the row's own
            self.blend = nn.Parameter(torch.zeros(3))
        # Number 0 stands for a series that was not there in training; it is learned from series that are hidden now and then.
        self.series = nn.Embedding(num_series + 1, spec.embedding) if spec.embedding else None
        inputs += spec.embedding
        depth = spec.depth or depth_to_see(num_rows, spec.kernel)
        self.embed = nn.Conv1d(inputs, spec.channels, 1)
        self.blocks = nn.Sequential(
            *[ResidualBlock(spec.channels, spec.kernel, 2**level, spec.dropout) for level in range(depth)]
        )
        self.norm = nn.GroupNorm(1, spec.channels)
        self.head = nn.Conv1d(spec.channels, 1, 1)
        self.carry = nn.Linear(self.memory, windows.horizon)
        for layer in (self.head, self.carry):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():  # begin by carrying the last error, fading within about one memory length
            fade = math.exp(-2 / max(self.memory, 2))
            self.carry.weight[:, -1] = fade ** torch.arange(1.0, windows.horizon + 1)

    def forward(self, past: Tensor, future: Tensor, series: Tensor | None = None) -> Tensor:
        """All steps (B, H) from past (B, L, C), future (B, H, F) and, where series are embedded, their numbers (B,)."""
        past = past[:, -self.lookback :]
        target = past[:, :, 0]
        known = self.dates(torch.cat([past[:, :, 1 + self.num_past :], future], 1))  # (B, L+H, F)
        if self.training and self.noise:
            known = known + self.noise * torch.randn_like(known[:, :1])  # one shift a window
        base, features = self._base(target, known)
        is_future = torch.zeros_like(base[:, None])  # (B, 1, R)
        is_future[:, :, self.memory :] = 1
        past_covariates = past[:, -self.memory :, 1 : 1 + self.num_past].transpose(1, 2)
        features += [F.pad(past_covariates, (0, self.horizon)), is_future]
        if self.series is not None:
            features.append(self._embedded(series).unsqueeze(2).expand(-1, -1, is_future.shape[2]))
        g = self.head(self.norm(self.blocks(self.embed(torch.cat(features, 1)))))[:, 0]  # (B, R)
        errors = target[:, -self.memory :] - base[:, : self.memory] - g[:, : self.memory]
        return base[:, self.memory :] + g[:, self.memory :] + self.carry(errors)

    def _embedded(self, series: Tensor) -> Tensor:
        """(B, E) what was learned of each series."""
        if self.training:
            series = torch.where(torch.rand(series.shape, device=series.device) < HIDDEN, 0, series)
        return self.series(series)

    def _base(self, target: Tensor, known: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The base (B, R) and the channels the convolutions see, each (B, some, R)."""
        rows = known[:, -(self.memory + self.horizon) :]  # (B, R, F)
        channels = rows.transpose(1, 2)
        if self.lags is None:
            return target[:, -1:].expand(-1, self.memory + self.horizon), [channels]
        lagged, lagged_known = self.lags(target, known)
        base = torch.einsum("bmr,m->br", lagged, self.blend.softmax(0))
        level = target.mean(1)[:, None, None]
        shape = lagged - level
        if self.training and self.noise:
            shape = shape + 0.5 * self.noise * torch.randn_like(shape[:, :, :1])
        apart = rows[:, None] - lagged_known  # (B, M, R, F)
        return base, [channels, shape, apart.permute(0, 1, 3, 2).flatten(1, 2)]


def rows_used(spec: ResidualSpec, windows: WindowSpec, season: int) -> tuple[int, int, bool]:
    """How many newest rows a residual net uses, how many of them it corrects, and whether it looks seasons back."""
    usual = SEASONS * season if season > 1 else windows.lookback
    lookback = min(spec.lookback or usual, windows.lookback)
    seasonal = season > 1 and lookback >= 2 * season
    if not seasonal and not spec.lookback:
        lookback = windows.lookback
    return lookback, season if seasonal else lookback, seasonal


def receptive_field(depth: int, kernel: int) -> int:
    """Rows that one output of `depth` blocks sees, dilations 1, 2, 4, ..."""
    return 1 + (kernel - 1) * (2**depth - 1)


def depth_to_see(num_rows: int, kernel: int) -> int:
    """The fewest blocks whose receptive field spans `num_rows`; one block if the kernel has a single step."""
    if kernel == 1:
        return 1
    depth = 1
    while receptive_field(depth, kernel) < num_rows:
        depth += 1
    return depth


def check_receptive_field(spec: ResidualSpec, windows: WindowSpec, season: int) -> None:
    """Raises a Fault where the convolutions are even-sized, or too shallow for the rows they are given."""
    if spec.kernel % 2 == 0:
        raise Fault(f"network.kernel is {spec.kernel}; a residual net needs an odd one. Use {spec.kernel + 1}.")
    _, memory, _ = rows_used(spec, windows, season)
    if spec.depth is None or spec.kernel == 1:
        return
    seen, needed = receptive_field(spec.depth, spec.kernel), memory + windows.horizon
    if seen < needed:
        raise Fault(
            f"Network sees {seen} steps (depth {spec.depth}, kernel {spec.kernel}) but has {needed} rows to read "
            f"({memory} before the origin, {windows.horizon} after). Use depth={depth_to_see(needed, spec.kernel)}."
        )
