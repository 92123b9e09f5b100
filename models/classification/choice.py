"""Of several classifiers the one, or the blend, that is best on cases held out, and how sure it may say it is.

Axes in names: M members, N cases, K classes.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.classification.metrics import SMALLEST

TEMPERATURES = np.exp(np.linspace(np.log(0.1), np.log(10), 121))
PRIOR = 4.0  # cases' worth of belief that a temperature is 1: of few cases, little is learned
DOUBT = 1.0  # standard errors by which a single member has to be better than the blend


class Blend(BaseModel):
    """How the members of a classifier make one probability of a class."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weights: tuple[float, ...]  # (M,) that add up to one
    temperatures: tuple[float, ...]  # (M,) by which each member's logits are divided
    temperature: float  # by which the logarithm of their mean is divided
    doubt: float  # share of every probability that is dealt out evenly: some cases without a mistake prove no certainty

    def probabilities(self, logits: list[np.ndarray]) -> np.ndarray:
        """The probabilities (N, K) that M times (N, K) logits make together."""
        each = [softmax(one, heat) for one, heat in zip(logits, self.temperatures, strict=True)]
        mean = sum(weight * one for weight, one in zip(self.weights, each, strict=True))
        return doubted(softmax(np.log(np.maximum(mean, 1e-30)), self.temperature), self.doubt)


def doubted(probabilities: np.ndarray, doubt: float) -> np.ndarray:
    return (1 - doubt) * probabilities + doubt / probabilities.shape[1]


@dataclass(frozen=True)
class Choice:
    """What was chosen, and the log-loss on cases held out of every candidate: each member, then all of them together."""

    chosen: tuple[int, ...]
    blend: Blend  # over those that were chosen
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]


def choose_members(logits: list[np.ndarray], labels: np.ndarray) -> Choice:
    """The best single member where held-out cases show it clearly, else the blend of all.

    A member is clearly better where its log-loss is lower than the blend's by more than the standard error of the difference
    over cases. Of few cases that is seldom so, and a mean of different models seldom does much worse than the best of them.

    Args:
        logits: M times (N, K), of cases that the member had not learned from; rows of NaN where there is no such.
        labels: (N,)
    """
    asked = ~np.isnan(np.stack([one[:, 0] for one in logits])).any(0)
    held, truth = [one[asked] for one in logits], labels[asked]
    every = tuple(range(len(held)))
    candidates = [(member,) for member in every] + ([every] if len(every) > 1 else [])
    blends = [fit_blend([held[at] for at in members], truth) for members in candidates]
    made = [blend.probabilities([held[at] for at in members]) for members, blend in zip(candidates, blends, strict=True)]
    losses = [losses_of(one, truth) for one in made]
    best = len(candidates) - 1
    for at in sorted(range(len(every)), key=lambda at: losses[at].mean() if len(truth) else 0.0):
        gain = losses[best] - losses[at]
        if len(every) > 1 and len(truth) > 1 and gain.mean() > DOUBT * gain.std(ddof=1) / np.sqrt(len(gain)):
            best = at
            break
    return Choice(
        chosen=candidates[best], blend=blends[best],
        losses=tuple(float(one.mean()) if len(one) else float("nan") for one in losses),
        accuracies=tuple(float((one.argmax(1) == truth).mean()) if len(truth) else float("nan") for one in made),
    )  # fmt: skip


def fit_blend(logits: list[np.ndarray], labels: np.ndarray) -> Blend:
    """Members in equal parts, each at the temperature that suits it, and all of them together at one more.

    Doubt is what the rule of succession leaves after so many cases without a mistake.
    """
    doubt = 1 / (len(labels) + 2)
    heats = tuple(fit_temperature(one, labels, doubt) for one in logits)
    plain = Blend(weights=(1 / len(logits),) * len(logits), temperatures=heats, temperature=1.0, doubt=0.0)
    if len(logits) == 1 or not len(labels):
        return plain.model_copy(update={"doubt": doubt})
    together = np.log(np.maximum(plain.probabilities(logits), 1e-30))
    return plain.model_copy(update={"temperature": fit_temperature(together, labels, doubt), "doubt": doubt})


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
