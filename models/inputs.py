"""Which inputs carry information about the target that those chosen before them do not: partial mutual information.

Forward selection as Sharma (2000) and Bowden et al. (2005) do it: of all candidates, each a channel at a lag, take the one
that shares the most information with the target given the inputs already taken, and stop where chance shares as much.

- What the inputs taken explain is removed from target and candidates by a local linear regression (loess, Cleveland 1979):
  with several inputs it holds where the kernel means of those papers leave much of the explained in.
- The information between what is left is that of a Gaussian copula, -log(1 - r^2) / 2 nats, where r is the largest
  correlation that cubic functions of the two ranks can have: it sees what is not monotone, too.
- Chance is the best candidate after the target was shifted in time against all of them at once, so that neither the
  memory of the series nor the number of candidates passes for information.

Axes in names: N moments, C candidates, D inputs taken.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.errors import Fault, shortlist
from models.series import Columns, clock_channels

SPAN = 0.3  # share of all moments that a local regression looks at
SHIFTS = 200  # of the target, to learn what chance gives
NEXT = 1e-2  # standard deviations that a local regression looks at the least: rounding parts inputs that are equal
NOTHING = 1e-4  # standard deviations; an input of which no more is left repeats those taken
LEVEL = 0.95  # quantile of what chance gives that an input has to pass
MOST = 15  # inputs taken for one step ahead
SEASONAL_LAGS = 4  # seasons back that the moment itself is a candidate


class Input(BaseModel):
    """A channel at a lag: so many steps before the origin, or, where it is known ahead, after it (negative)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: str
    lag: int


class Pick(BaseModel):
    """One input with its score given those taken before it; the one at which a selection stopped is not taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ahead: int  # step of the horizon that was explained
    input: Input
    information: float  # nats
    chance: float  # what had to be passed
    taken: bool


def candidates(columns: Columns, lookback: int, horizon: int, season: int) -> dict[int, list[Input]]:
    """The inputs to choose from, for the first, a middle and the last step of the horizon.

    What is known up to the origin is a candidate at lags that grow by about a half each, and, within the lookback, at the
    moments whole seasons before the one that is forecast; what is known ahead, at the origin and at that moment. The numbers
    of a day are no quantities, and so no candidates.
    """
    aheads = sorted({1, round(horizon**0.5), horizon})
    grown = [0, 1]
    while (lag := grown[-1] + max(1, grown[-1] // 2)) < lookback:
        grown.append(lag)
    found = {}
    for ahead in aheads:
        seasons = [count * season - ahead for count in range(1, SEASONAL_LAGS + 1)] if season > 1 else []
        lags = sorted({lag for lag in (*grown, *seasons) if 0 <= lag < lookback})
        past = [Input(channel=name, lag=lag) for name in ("target", *columns.past) for lag in lags]
        known = [name for name in columns.known[: len(columns.known) - len(columns.static)] if name not in columns.numbers]
        found[ahead] = past + [Input(channel=name, lag=lag) for name in known for lag in (0, -ahead)]
    return found


def select_inputs(values: np.ndarray, target: np.ndarray, inputs: Sequence[Input], ahead: int, seed: int = 0) -> list[Pick]:
    """The inputs in the order they are taken, and last the best of those that chance gives as well.

    Args:
        values: (N, C) the candidates, moments in order of time over all series, so that a shift parts series too.
        target: (N,) what is to be explained, `ahead` steps after the origins.
    """
    rng = np.random.default_rng(seed)
    every, wanted = normal_scores(values), normal_scores(target[:, None])
    open_, taken, picks = list(np.flatnonzero(values.std(0) > 0)), [], []
    while open_ and len(taken) < MOST:
        smoother = loess(every[:, taken]) if taken else np.full((len(values), len(values)), 1 / len(values), np.float32)
        left, rest = every[:, open_], wanted
        left, rest = left - smoother @ left, rest - smoother @ rest
        scores, chance = information(np.where(left.std(0) > NOTHING, left, 0), rest[:, 0], rng)
        best = int(np.argmax(scores))
        passed = bool(scores[best] > chance)
        picks.append(Pick(ahead=ahead, input=inputs[open_[best]], information=float(scores[best]), chance=chance, taken=passed))
        if not passed:
            break
        taken.append(open_.pop(best))
    return picks


def lookback_for(picks: Sequence[Pick], usual: int, horizon: int, season: int) -> int:
    """Steps to look back that reach twice as far as any input taken, or the usual ones where one lies about a season back."""
    furthest = max((pick.input.lag for pick in picks if pick.taken), default=0)
    if season > 1 and furthest >= season - horizon:
        return usual
    return min(usual, max(4 * horizon, 48, 2 * furthest))


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Columns (N, C) with their ranks as quantiles of a normal distribution, equal values at their mean rank, float32."""
    from statistics import NormalDist

    quantiles = np.array([NormalDist().inv_cdf((at + 0.5) / len(values)) for at in range(len(values))])
    scores = np.empty(values.shape, np.float32)
    for column in range(values.shape[1]):
        _, which, counts = np.unique(values[:, column], return_inverse=True, return_counts=True)
        sums = np.add.reduceat(quantiles, np.cumsum(counts) - counts)
        scores[:, column] = (sums / counts)[which]
    return scores


def loess(inputs: np.ndarray, span: float = SPAN) -> np.ndarray:
    """The matrix (N, N) that takes values to what the inputs (N, D) explain of each, learned from all others alike.

    Source: Cleveland 1979, local linear regression with tricube weights; distances are of whitened inputs.
    """
    num, (basis, keep) = len(inputs), whitening(inputs)
    white = (inputs - inputs.mean(0)) @ basis[:, keep]
    squares = np.square(white).sum(1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * white @ white.T, 0))
    reach = np.partition(apart, max(int(span * num), 2) - 1, axis=1)[:, max(int(span * num), 2) - 1]
    weights = (1 - np.minimum(apart / np.maximum(reach, NEXT)[:, None], 1) ** 3) ** 3
    np.fill_diagonal(weights, 0)
    design = np.concatenate([np.ones((num, 1), np.float32), white], 1)
    size = design.shape[1]
    outer = (design[:, :, None] * design[:, None]).reshape(num, -1)
    normal = (weights @ outer).reshape(num, size, size).astype(np.float64)
    normal += 1e-6 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(size) + 1e-9 * np.eye(size)
    own = np.linalg.solve(normal, design[:, :, None].astype(np.float64))[:, :, 0].astype(np.float32)
    return weights * (own @ design.T)


def whitening(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix (D, D) that makes columns uncorrelated with variance 1, and which of its columns stand for something."""
    spread, axes = np.linalg.eigh(np.cov(values.T.astype(np.float64), bias=True).reshape(values.shape[1], -1))
    keep = spread > 1e-6 * max(float(spread.max()), 1e-12)
    return (axes / np.sqrt(np.where(keep, spread, 1.0))).astype(values.dtype), keep


def information(values: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Nats that each column (N, C) shares with the target (N,), and what the best of them shares with it by chance."""
    num = len(values)
    theirs = np.stack([rank_functions(values[:, column]) for column in range(values.shape[1])], 1)  # (N, C, 3)
    own = rank_functions(target)  # (N, 3)
    shifts = [0, *rng.integers(max(1, num // 20), max(2, num - num // 20), SHIFTS).tolist()]
    shifted = np.stack([np.roll(own, shift, 0) for shift in shifts], 1)  # (N, 1 + SHIFTS, 3)
    products = theirs.reshape(num, -1).T @ shifted.reshape(num, -1) / num
    products = products.reshape(-1, 3, len(shifts), 3).transpose(2, 0, 1, 3)  # (1 + SHIFTS, C, 3, 3)
    largest = np.linalg.svd(products, compute_uv=False)[..., 0]
    nats = -0.5 * np.log1p(-np.minimum(np.square(largest.astype(np.float64)), 1 - 1e-9))
    return nats[0], float(np.quantile(nats[1:].max(1), LEVEL))


def rank_functions(values: np.ndarray) -> np.ndarray:
    """(N, 3) uncorrelated functions of the ranks that span their cubic polynomials, mean 0 and variance 1."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts + 1) / 2)[which] / len(values) * 2 - 1
    powers = np.stack([ranks, (3 * ranks**2 - 1) / 2, (5 * ranks**3 - 3 * ranks) / 2], 1)
    powers -= powers.mean(0)
    basis, keep = whitening(powers)
    return (powers @ basis * keep).astype(np.float32)


def keep_channels(columns: Columns, names: Sequence[str]) -> Columns:
    """These columns with only those covariates that are named; what tells of holes or never changes always stays.

    A part of the calendar is named by either of its channels, or by its own name.

    Raises:
        Fault: a name stands for no covariate.
    """
    waves = {channel: name for name in columns.calendar for channel in clock_channels(name)}
    wanted = {waves.get(name, name) for name in names}
    own = (*columns.past, *columns.future, *columns.calendar, *(("holiday",) if columns.holidays else ()))
    static = dict.fromkeys(name.split("=")[0] for name in columns.static)
    if unknown := sorted(wanted - {*own, *static}):
        there = shortlist([*own, *static], 12) if own or static else "none"
        raise Fault(
            f"network.inputs names {shortlist(unknown)}; the covariates of this source are {there}. "
            "Name some of these, or use 'auto' or 'all'."
        )
    return columns.model_copy(
        update={
            "past": tuple(name for name in columns.past if name in wanted),
            "future": tuple(name for name in columns.future if name in wanted),
            "calendar": tuple(name for name in columns.calendar if name in wanted),
            "holidays": columns.holidays if "holiday" in wanted else None,
        }
    )
