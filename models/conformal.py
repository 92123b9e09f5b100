"""Making quantiles hold: moved by what was learned from forecasts whose truth has become known.

Quantiles are (N, H, Q), ascending in the last axis. Offsets (H, Q) are in widths, that is in the distance from the lowest
to the highest quantile of the same step, so that one set of offsets serves quiet and wild moments alike. Where they follow
the newest errors, two things move: how wide all quantiles are, with the size that errors have had of late, which is quick;
and each offset, until its level holds as often as it says, which is slow and sure.

Source: conformalised quantile regression, Romano, Patterson and Candes 2019; a level at a time, as its section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

TINY = 1e-9
FLAT_RATE = 0.01  # widths that an offset moves at most for each new origin, in bundles that say nothing of how they follow
RATE = 0.03  # the same for one step ahead; divided by the origins that pass before the truth of a step is known
HALF_LIVES = 4  # seasons or horizons, whichever is longer, after which an error counts half
SMALLEST, LARGEST = 1 / 8, 8.0  # that errors are ever taken to be, beside their usual size
FOLLOWED = 512  # origins before one whose errors its quantiles follow at most, where they are forecast again for that
OVERLAP = 0.5  # of N windows of which each d share steps, N / d ** 0.5 count: what held best on thirteen data sets
NEEDED = 200  # scores that an offset is taken from, where neighbouring steps can make them up


class Following(BaseModel):
    """How quantiles follow the newest errors of their series."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    offsets: tuple[tuple[float, ...], ...]  # (H, Q) with which they hold on validation as they follow
    usual: tuple[float, ...]  # (H,) mean size of an error on validation, in widths
    half_life: float = Field(gt=0)  # steps after which an error counts half
    rate: float = Field(RATE, ge=0)


class Calibration(BaseModel):
    """What makes a model's quantiles hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    levels: tuple[float, ...]
    offsets: tuple[tuple[float, ...], ...]  # (H, Q) with which they hold on validation, following nothing
    rolling: bool  # whether they go on to follow the newest errors
    num_windows: int  # that the offsets were taken from
    held_out: int  # steps at the end of each series that the networks were not trained on
    following: Following | None = None  # None: only the offsets follow, at one rate, as in the first bundles

    def rolled(self, spacing: int, before: "Settled | None" = None) -> "Rolling":
        """Quantiles as they go on from here, for origins `spacing` steps apart; as they are where they do not follow.

        Args:
            before: where earlier origins of the series have left them; None: where validation did.
        """
        how = self.following
        if not (self.rolling and how):
            offsets = np.array(before.offsets if before else self.offsets)
            return Rolling(offsets, self.levels, spacing, FLAT_RATE if self.rolling else 0.0)
        rates = how.rate / delays(len(how.usual), spacing)[:, None]
        sizes = Sizes(np.array(how.usual), how.half_life, spacing, before.size if before else 1.0)
        return Rolling(np.array(before.offsets if before else how.offsets), self.levels, spacing, rates, sizes)


@dataclass(frozen=True)
class Settled:
    """Where the quantiles of one series stand, once the truth of all that was forecast is known."""

    offsets: np.ndarray  # (H, Q)
    size: float = 1.0  # of errors of late


def widths(quantiles: np.ndarray) -> np.ndarray:
    """The distance (N, H, 1) from the lowest to the highest quantile."""
    return np.maximum(quantiles[:, :, -1:] - quantiles[:, :, :1], TINY)


def scores(quantiles: np.ndarray, target: np.ndarray) -> np.ndarray:
    """How far targets (N, H) lie above each quantile, in widths (N, H, Q); NaN where the target is."""
    return (target[:, :, None] - quantiles) / widths(quantiles)


def offsets_of(apart: np.ndarray, levels: Sequence[float], spacing: int = 1) -> np.ndarray:
    """The offsets (H, Q) with which each level holds for scores (N, H, Q), NaN where nothing was observed.

    `spacing` is the number of steps between the origins of a series: windows that overlap err alike, and count less.
    """
    offsets, overlaps = np.zeros((apart.shape[1], len(levels))), delays(apart.shape[1], spacing)
    for at in range(len(offsets)):
        near = np.sort(observed_near(apart, at), 0)
        if len(near):
            alone = max(1, np.count_nonzero(~np.isnan(apart[:, at, 0]))) / overlaps[at] ** OVERLAP
            own = [near[rank(level, len(near), alone), number] for number, level in enumerate(levels)]
            offsets[at] = spread_beyond(own, levels, alone)
    return offsets


def spread_beyond(offsets: Sequence[float], levels: Sequence[float], alone: float) -> list[float]:
    """Offsets (Q,) with which a level further out than so many scores can tell keeps its distance from the one before it.

    They leave 1 / (alone + 1) to either side of them. All levels further out would come to lie where the last of them does,
    and an interval of 95 % be no wider than one of 80 %.
    """
    found = list(offsets)
    middle, untold = middle_of(levels), [min(level, 1 - level) * (alone + 1) < 1 for level in levels]
    for number in range(middle - 1, -1, -1):
        if untold[number]:
            found[number] = min(found[number], found[number + 1])
    for number in range(middle + 1, len(found)):
        if untold[number]:
            found[number] = max(found[number], found[number - 1])
    return found


def observed_near(apart: np.ndarray, at: int) -> np.ndarray:
    """The observed scores (M, Q) of a step; none of one that was never observed.

    Few windows, or few that were observed, are not enough for a step of its own: each takes in as many neighbouring steps as
    make up `NEEDED` scores, or as would if all had been observed.
    """
    num_windows, horizon, num_levels = apart.shape
    if np.isnan(apart[:, at, 0]).all():
        return apart[:0, at]
    around = min(horizon, -(-NEEDED // max(num_windows, 1))) // 2
    needed = min(NEEDED, apart[:, max(0, at - around) : at + around + 1, 0].size)
    while True:
        near = apart[:, max(0, at - around) : at + around + 1].reshape(-1, num_levels)
        observed = near[~np.isnan(near[:, 0])]
        if len(observed) >= needed or around >= horizon:
            return observed
        around += 1


def following_of(
    quantiles: np.ndarray, target: np.ndarray, series: np.ndarray, levels: Sequence[float], half_life: float, spacing: int
) -> Following:
    """How quantiles (N, H, Q) follow, learned from targets (N, H) of the series (N,), one after the other, oldest first.

    `spacing` is the number of steps between the origins of a series.
    """
    sizes = np.abs(target - quantiles[:, :, middle_of(levels)])[:, :, None] / widths(quantiles)
    near = (observed_near(sizes, at) for at in range(sizes.shape[1]))
    usual = np.array([max(float(own.mean()), TINY) if len(own) else 1.0 for own in near])
    around = np.empty_like(quantiles)
    for own in np.split(np.arange(len(series)), np.flatnonzero(np.diff(series)) + 1):
        around[own] = Sizes(usual, half_life, spacing).spread(quantiles[own], target[own], middle_of(levels))
    offsets = offsets_of(scores(around, target), levels, spacing)
    return Following(offsets=offsets.tolist(), usual=usual.tolist(), half_life=half_life)


def middle_of(levels: Sequence[float]) -> int:
    """The place of the level nearest to 0.5."""
    return int(np.argmin(np.abs(np.asarray(levels) - 0.5)))


def delays(horizon: int, spacing: int) -> np.ndarray:
    """Origins (H,) after which the truth of each step is known."""
    return -(-np.arange(1, horizon + 1) // spacing)


def rank(level: float, count: int, alone: float) -> int:
    """Which of `count` sorted scores, worth `alone` that know nothing of each other, a new one lies below with `level`.

    So many leave 1 / (alone + 1) to either side of them. It errs on the wide side.
    """
    if level == 0.5:
        return (count - 1) // 2
    nearer = min(level, 1 - level) * (alone + 1) - 1  # scores on the nearer side, of those that know nothing of each other
    beyond = int(np.clip(np.floor(nearer / alone * count + 1e-9), 0, count - 1))
    return beyond if level < 0.5 else count - 1 - beyond


def shifted(quantiles: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Quantiles (N, H, Q) moved by offsets (H, Q) or (N, H, Q), ascending again (Chernozhukov et al. 2010)."""
    return np.sort(quantiles + offsets * widths(quantiles), -1)


class Sizes:
    """How large the errors of one series have been of late: 1 where they are as usual.

    At each origin the errors that have just become known, each over what is usual at its step, are averaged and taken into
    a mean in which an error counts half after `half_life` steps. Nothing is used before the origin has reached it.
    """

    def __init__(self, usual: np.ndarray, half_life: float, spacing: int, size: float = 1.0):
        self.usual, self.kept = usual, 0.5 ** (spacing / half_life)
        self.delay, self.steps = delays(len(usual), spacing), np.arange(len(usual))
        self.waiting = np.full((self.delay[-1], len(usual)), np.nan)  # errors by origin, until they are due
        self.size = size

    def spread(self, quantiles: np.ndarray, target: np.ndarray, middle: int) -> np.ndarray:
        """Quantiles (N, H, Q) at N origins in turn, as far from the middle one as errors are large at that origin."""
        own = quantiles[:, :, middle : middle + 1]
        sizes = self.follow(np.abs(target - own[:, :, 0]) / widths(quantiles)[:, :, 0])
        return own + (quantiles - own) * sizes[:, None, None]

    def follow(self, errors: np.ndarray) -> np.ndarray:
        """The sizes (N,) at N origins in turn, whose errors (N, H), in widths, are only used once they are known.

        An error is NaN where nothing was observed, and changes nothing.
        """
        every = np.concatenate([self.waiting, errors / self.usual])
        due = every[np.arange(len(errors))[:, None] + len(self.waiting) - self.delay, self.steps]
        count = (~np.isnan(due)).sum(1)
        means, sizes = np.nansum(due, 1) / np.maximum(count, 1), np.empty(len(errors))
        for at, mean in enumerate(means.tolist()):
            if count[at]:
                self.size = min(max(self.kept * self.size + (1 - self.kept) * mean, SMALLEST), LARGEST)
            sizes[at] = self.size
        self.waiting = every[len(errors) :]
        return sizes


class Rolling:
    """Quantiles of one series that follow its newest errors, so that they hold when it drifts.

    All of them are first spread by the size that errors have had of late. Then, each time the truth of a quantile that was
    given becomes known, the offset of its step and level moves: down by its rate times (1 - level) where the truth lay
    below, up by its rate times level where it lay above. Over many origins each level so holds as often as it says,
    whatever the series does. Nothing is used before the origin has reached it.

    Source: adaptive conformal inference, Gibbs and Candes 2021, on the scale of the scores as in Angelopoulos, Candes and
    Tibshirani 2023. Until the truth of h steps ahead is known, h origins err alike: its rate is divided by h.
    """

    def __init__(
        self, offsets: np.ndarray, levels: Sequence[float], spacing: int, rates: np.ndarray | float, sizes: Sizes | None = None
    ):
        """`spacing` is the number of steps between the origins that will be told of; `rates` (H, 1) are in widths."""
        self.offsets, self.levels, self.rates, self.sizes = offsets.copy(), np.asarray(levels), rates, sizes
        self.delay, self.steps = delays(len(offsets), spacing), np.arange(len(offsets))
        self.moves = np.zeros((self.delay[-1], *offsets.shape))  # by origin, until they are due
        self.told = 0

    def settled(self) -> Settled:
        """Where they stand once all is known that was forecast: as if as many origins passed without a forecast."""
        nothing = np.full((len(self.moves), *self.offsets.shape), np.nan)
        self.offsets_at(nothing)
        if self.sizes is not None:
            self.sizes.follow(nothing[:, :, 0])
        return Settled(self.offsets.copy(), self.sizes.size if self.sizes is not None else 1.0)

    def follow(self, quantiles: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Quantiles (N, H, Q) at N origins in turn, moved; targets (N, H) are only used once they are known.

        A target is NaN where nothing was observed, and moves nothing.
        """
        if self.sizes is not None:
            quantiles = self.sizes.spread(quantiles, target, middle_of(self.levels))
        return shifted(quantiles, self.offsets_at(scores(quantiles, target)))

    def offsets_at(self, apart: np.ndarray) -> np.ndarray:
        """The offsets (N, H, Q) at N origins in turn, whose scores (N, H, Q) are only used once they are known."""
        followed, length = np.empty_like(apart), len(self.moves)
        for at, own in enumerate(apart):
            self.offsets += self.rates * self.moves[(self.told - self.delay) % length, self.steps]
            followed[at] = self.offsets
            with np.errstate(invalid="ignore"):
                self.moves[self.told % length] = np.where(np.isnan(own), 0.0, self.levels - (own <= self.offsets))
            self.told += 1
        return followed
