"""Making quantiles hold: offsets by level and step, learned from forecasts whose truth has become known.

Quantiles are (N, H, Q), ascending in the last axis. Offsets (H, Q) are in widths, that is in the distance from the lowest
to the highest quantile of the same step, so that one set of offsets serves quiet and wild moments alike.

Source: conformalised quantile regression, Romano, Patterson and Candes 2019; a level at a time, as its section 4.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

TINY = 1e-9
RATE = 0.01  # widths that an offset moves at most for each new origin
NEEDED = 200  # scores that an offset is taken from, where neighbouring steps can make them up


class Calibration(BaseModel):
    """What makes a model's quantiles hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    levels: tuple[float, ...]
    offsets: tuple[tuple[float, ...], ...]  # (H, Q)
    rolling: bool  # whether the offsets go on to follow the newest errors
    num_windows: int  # that the offsets were taken from
    held_out: int  # steps at the end of each series that the networks were not trained on

    def rolled(self, spacing: int) -> "Rolling":
        """The offsets as they go on from here, for origins `spacing` steps apart; as they are where they do not follow."""
        return Rolling(np.array(self.offsets), self.levels, spacing, RATE if self.rolling else 0.0)


def widths(quantiles: np.ndarray) -> np.ndarray:
    """The distance (N, H, 1) from the lowest to the highest quantile."""
    return np.maximum(quantiles[:, :, -1:] - quantiles[:, :, :1], TINY)


def scores(quantiles: np.ndarray, target: np.ndarray) -> np.ndarray:
    """How far targets (N, H) lie above each quantile, in widths (N, H, Q); NaN where the target is."""
    return (target[:, :, None] - quantiles) / widths(quantiles)


def offsets_of(apart: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """The offsets (H, Q) with which each level holds for scores (N, H, Q), NaN where nothing was observed.

    Few windows are not enough for a step of its own: each takes in as many neighbouring steps as make up `NEEDED` scores.
    """
    num_windows, horizon, _ = apart.shape
    around = min(horizon, -(-NEEDED // max(num_windows, 1))) // 2
    offsets = np.zeros((horizon, len(levels)))
    for at in range(horizon):
        near = apart[:, max(0, at - around) : at + around + 1].reshape(-1, len(levels))
        near = np.sort(near[~np.isnan(near[:, 0])], 0)
        if len(near):
            offsets[at] = [near[rank(level, len(near)), number] for number, level in enumerate(levels)]
    return offsets


def rank(level: float, count: int) -> int:
    """Which of `count` sorted scores a new one lies below with a probability of `level`, erring on the wide side."""
    wide = np.ceil((count + 1) * level) if level > 0.5 else np.floor((count + 1) * level)
    return int(np.clip(wide, 1, count)) - 1


def shifted(quantiles: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Quantiles (N, H, Q) moved by offsets (H, Q) or (N, H, Q), ascending again (Chernozhukov et al. 2010)."""
    return np.sort(quantiles + offsets * widths(quantiles), -1)


class Rolling:
    """Offsets that follow the newest errors of one series, so that quantiles hold when it drifts.

    Each time the truth of a quantile that was given becomes known, the offset of its step and level moves: down by `rate`
    times (1 - level) where the truth lay below, up by `rate` times level where it lay above. Over many origins each level
    so holds as often as it says, whatever the series does. Nothing is used before the origin has reached it.

    Source: adaptive conformal inference, Gibbs and Candes 2021, on the scale of the scores as in Angelopoulos, Candes and
    Tibshirani 2023.
    """

    def __init__(self, offsets: np.ndarray, levels: Sequence[float], spacing: int, rate: float):
        """`spacing` is the number of steps between the origins that will be told of."""
        self.offsets, self.levels, self.rate = offsets.copy(), np.asarray(levels), rate
        steps = np.arange(1, len(offsets) + 1)
        self.delay = -(-steps // spacing)  # origins after which the truth of each step is known
        self.steps = steps - 1
        self.moves = np.zeros((self.delay[-1], *offsets.shape))  # by origin, until they are due
        self.told = 0

    def follow(self, apart: np.ndarray) -> np.ndarray:
        """The offsets (N, H, Q) at N origins in turn, whose scores (N, H, Q) are only used once they are known.

        A score is NaN where nothing was observed, and moves nothing.
        """
        followed, length = np.empty_like(apart), len(self.moves)
        for at, own in enumerate(apart):
            self.offsets += self.rate * self.moves[(self.told - self.delay) % length, self.steps]
            followed[at] = self.offsets
            with np.errstate(invalid="ignore"):
                self.moves[self.told % length] = np.where(np.isnan(own), 0.0, self.levels - (own <= self.offsets))
            self.told += 1
        return followed
