"""A trained classifier as two files: weights as safetensors, everything else as JSON. Nothing in it can execute.

A released format is read for ever; `tests/golden/classifier-<n>` holds bundles of each. What may change without raising
`FORMAT` is what `models.bundle` says of its own.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.bundle import by_member, load_weights
from models.classification.cases import Cases
from models.classification.choice import Blend
from models.classification.fit import predict
from models.classification.metrics import decide
from models.classification.networks import build_classifier
from models.classification.specs import ClassifierSpec, Decision, Shape
from models.classification.windows import LabelWindows
from models.errors import Fault
from models.soundness import brief, check_weights

FORMAT = 1


class ClassMember(BaseModel):
    """One form of classifier, trained once a seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: ClassifierSpec
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]


class ClassDescription(BaseModel):
    """`bundle.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    task: Literal["classification"] = "classification"
    members: Annotated[tuple[ClassMember, ...], Field(min_length=1)]
    shape: Shape
    classes: tuple[str, ...]
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...]  # of the classes among the cases trained on
    channels: tuple[str, ...]
    windows: LabelWindows | None  # of a stream
    blend: Blend  # how members make one probability, and how sure that is
    decision: Decision = "probable"
    trained_on: str  # digest of the cases
    versions: dict[str, str]

    @model_validator(mode="after")
    def _parts_go_together(self):
        for what, found, needed in (
            ("classes", len(self.classes), self.shape.num_classes),
            ("shares", len(self.shares), self.shape.num_classes),
            ("channels", len(self.channels), self.shape.num_channels),
            ("blend.weights", len(self.blend.weights), len(self.members)),
        ):
            if found != needed:
                raise ValueError(f"{what} are {found}; the rest of the bundle makes them {needed}")
        for what, names in (("classes", self.classes), ("channels", self.channels)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} has one of them twice")
        return self


@dataclass(frozen=True)
class Classifier:
    """A model that can tell classes apart: a description, and for each member the weights of one network a seed."""

    description: ClassDescription
    weights: list[list[dict[str, torch.Tensor]]]

    @cached_property
    def networks(self) -> list[list[torch.nn.Module]]:
        pairs = zip(self.description.members, self.weights, strict=True)
        return [[self.build(member.network, weights) for weights in seeds] for member, seeds in pairs]

    def build(self, spec: ClassifierSpec, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
        network = build_classifier(spec, self.description.shape)
        load_weights(network, weights)
        return network.eval()

    def logits(self, cases: Cases) -> list[np.ndarray]:
        """Of each member the logits (N, K), the mean over seeds of its log-probabilities."""
        return [np.mean([log_softmax(predict(one, cases)) for one in seeds], 0) for seeds in self.networks]

    def probabilities(self, cases: Cases) -> np.ndarray:
        """(N, K), rows that add up to one."""
        return self.description.blend.probabilities(self.logits(cases))

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """The class (N,) that each case is put into."""
        balanced = self.description.decision == "balanced"
        return decide(probabilities, np.array(self.description.shares) if balanced else None)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logits (N, K) as log-probabilities."""
    above = logits - logits.max(1, keepdims=True)
    return above - np.log(np.exp(above).sum(1, keepdims=True))


def dump_classifier(model: Classifier) -> dict[str, bytes]:
    """The two files of a bundle, by name; the same model always gives the same bytes."""
    flat = {
        f"{member}.{seed}.{name}": value.contiguous()
        for member, seeds in enumerate(model.weights)
        for seed, weights in enumerate(seeds)
        for name, value in weights.items()
    }
    description = json.dumps(model.description.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    return {"weights.safetensors": save_tensors(flat), "bundle.json": description.encode()}


def load_classifier(weights: bytes, description: bytes) -> Classifier:
    """The classifier in these two files.

    Raises:
        Fault: they are no bundle of a classifier, one of a format that is not read, damaged, or not of one another.
    """
    try:
        document = json.loads(description)
        if type(found := document.get("format")) is not int or found != FORMAT:
            raise Fault(f"The bundle has format {str(found)[:40]}; this version reads {FORMAT}. Train again.")
        about = ClassDescription.model_validate(document)
        flat = load_tensors(weights)
    except Fault:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part)[:40] for part in first["loc"]) + ": " if first["loc"] else ""
        raise Fault(
            f"This is no bundle of a classifier: {where}{first['msg'].removeprefix('Value error, ')}. Train again."
        ) from error
    except (SafetensorError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise Fault(f"This is no bundle of a classifier: {brief(error)}. Train again.") from error
    model = Classifier(about, by_member(flat, about.members))
    for number, (member, seeds) in enumerate(zip(about.members, model.weights, strict=True)):
        for seed, own in enumerate(seeds):
            check_weights(f"{number}.{seed}", own, lambda network=member.network: build_classifier(network, about.shape))
    return model
