"""Of several classifiers the blend that is best on cases held out, and how sure it may say it is.

Axes in names: M members, N cases, K classes.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.classification.metrics import SMALLEST

TEMPERATURES = np.exp(np.linspace(np.log(0.1), np.log(10), 121))
PRIOR = 4.0  # cases' worth of belief that a temperature is 1, and in each member: of few cases, little is learned
LEAST = 0.05  # share of a blend below which a member is not worth asking
STEPS, SETTLED = 1_000, 1e-6  # at most, in which shares are found; change of a share from which on they are


class Blend(BaseModel):
    """How the members of a classifier make one probability of a class."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weights: tuple[Annotated[float, Field(ge=0)], ...]  # (M,) that add up to one
    temperatures: tuple[Annotated[float, Field(gt=0)], ...]  # (M,) by which each member's logits are divided
    temperature: float = Field(gt=0)  # by which the logarithm of their mean is divided
    doubt: float = Field(ge=0, le=1)  # of every probability, dealt out evenly: cases without a mistake prove no certainty

    @model_validator(mode="after")
    def _parts_go_together(self):
        if len(self.temperatures) != len(self.weights):
            raise ValueError(f"temperatures are {len(self.temperatures)} of {len(self.weights)} members")
        if abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(f"weights add up to {sum(self.weights):.6g}; they are shares of one")
        return self

    def probabilities(self, logits: list[np.ndarray]) -> np.ndarray:
        """The probabilities (N, K) that M times (N, K) logits make together."""
        each = [softmax(one, heat) for one, heat in zip(logits, self.temperatures, strict=True)]
        mean = sum(weight * one for weight, one in zip(self.weights, each, strict=True))
        return doubted(softmax(np.log(np.maximum(mean, 1e-30)), self.temperature), self.doubt)


def doubted(probabilities: np.ndarray, doubt: float) -> np.ndarray:
    return (1 - doubt) * probabilities + doubt / probabilities.shape[1]


@dataclass(frozen=True)
class Choice:
    """What was chosen, and how good on cases held out each member is, then what was chosen of several."""

    chosen: tuple[int, ...]
    blend: Blend  # over those that were chosen
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]


def choose_members(logits: list[np.ndarray], labels: np.ndarray) -> Choice:
    """All members in one blend, by shares that held-out cases speak for; those of next to no share are left out.

    Args:
        logits: M times (N, K), of cases that the member had not learned from; rows of NaN where there is no such.
        labels: (N,)
    """
    asked = ~np.isnan(np.stack([one[:, 0] for one in logits])).any(0)
    held, truth = [one[asked] for one in logits], labels[asked]
    blend = fit_blend(held, truth)
    chosen = tuple(at for at, share in enumerate(blend.weights) if share >= LEAST)
    if len(chosen) < len(held):
        blend = fit_blend([held[at] for at in chosen], truth)
    alone = [((at,), fit_blend([one], truth)) for at, one in enumerate(held)] if len(held) > 1 else []
    made = [own.probabilities([held[at] for at in members]) for members, own in [*alone, (chosen, blend)]]
    return Choice(
        chosen=chosen, blend=blend,
        losses=tuple(float(losses_of(one, truth).mean()) if len(truth) else float("nan") for one in made),
        accuracies=tuple(float((one.argmax(1) == truth).mean()) if len(truth) else float("nan") for one in made),
    )  # fmt: skip


def fit_blend(logits: list[np.ndarray], labels: np.ndarray) -> Blend:
    """Members by their shares, each at the temperature that suits it, and all of them together at one more.

    Doubt is what the rule of succession leaves after so many cases without a mistake.
    """
    doubt = 1 / (len(labels) + 2)
    heats = tuple(fit_temperature(one, labels, doubt) for one in logits)
    shares = fit_shares([softmax(one, heat) for one, heat in zip(logits, heats, strict=True)], labels)
    plain = Blend(weights=shares, temperatures=heats, temperature=1.0, doubt=0.0)
    if len(logits) == 1 or not len(labels):
        return plain.model_copy(update={"doubt": doubt})
    together = np.log(np.maximum(plain.probabilities(logits), 1e-30))
    return plain.model_copy(update={"temperature": fit_temperature(together, labels, doubt), "doubt": doubt})


def fit_shares(probabilities: list[np.ndarray], labels: np.ndarray) -> tuple[float, ...]:
    """The share of each member with which M times (N, K) probabilities make labels most likely, near equal of few cases.

    A mixture whose parts are known: expectation and maximisation (Dempster et al. 1977) in turn, with `PRIOR` cases' worth of
    belief in each member.
    """
    cases, count = np.arange(len(labels)), len(probabilities)
    right = np.maximum(np.stack([one[cases, labels] for one in probabilities], 1), SMALLEST)  # (N, M)
    shares = np.full(count, 1 / count)
    for _ in range(STEPS):
        owed = shares * right
        before, shares = shares, ((owed / owed.sum(1, keepdims=True)).sum(0) + PRIOR) / (len(labels) + count * PRIOR)
        if np.abs(shares - before).max() < SETTLED:
            break
    return tuple(shares.tolist())


def fit_temperature(logits: np.ndarray, labels: np.ndarray, doubt: float) -> float:
    """What logits (N, K) are to be divided by for the lowest log-loss (Guo et al. 2017, section 4.2); near 1 of few cases."""
    if not len(labels):
        return 1.0
    said = [doubted(softmax(logits, heat), doubt) for heat in TEMPERATURES]
    costs = [losses_of(one, labels).sum() + PRIOR * np.log(heat) ** 2 for one, heat in zip(said, TEMPERATURES, strict=True)]
    return float(TEMPERATURES[int(np.argmin(costs))])


def losses_of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-ln(probability of the right class) of each case, (N,)."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], SMALLEST))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    heated = logits.astype(np.float64) / temperature
    raised = np.exp(heated - heated.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def parts_of(labels: np.ndarray, num_parts: int, seed: int = 0) -> np.ndarray:
    """The part (N,) of cross-validation in which each case is held out, -1 for the only case of a class.

    Every class is dealt out evenly, so that what is left always has a case of each class to learn from.
    """
    parts = np.full(len(labels), -1)
    draw = np.random.default_rng(seed)
    begin = 0
    for label in np.unique(labels):
        members = draw.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            parts[members] = (begin + np.arange(len(members))) % num_parts
            begin += len(members)
    return parts
