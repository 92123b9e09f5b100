"""What a user says of a classifier, and the recipe that each kind is fitted with: plain values, read without torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.networks import FitSettings, filled_in
from models.specs import FitSpec


class ReferenceClassifierSpec(BaseModel):
    """The net this project began with: one convolution, pooling, one hidden layer, softmax."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["reference"] = "reference"
    filters: int = Field(64, ge=1)
    kernel: int = Field(4, ge=1, description="steps")
    pool: int = Field(16, ge=1, description="stretches of equal length that a case is pooled into")
    hidden: int = Field(216, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)


class ResidualClassifierSpec(BaseModel):
    """Residual convolutions of several widths over the values and their differences, averaged over a case."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["residual"] = "residual"
    channels: int = Field(64, ge=1, description="of the first block; twice as many in the others")
    depth: int = Field(3, ge=1, le=8, description="blocks")
    dropout: float = Field(0.2, ge=0, lt=1)
    augment: bool = Field(True, description="vary the cases while training: scale, jitter, and of smooth ones crops and time")


class RocketSpec(BaseModel):
    """Many fixed convolutions of several dilations, how often each exceeds a threshold, and a ridge regression on that."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["rocket"] = "rocket"
    features: int = Field(10_000, ge=84, description="about so many")


Decision = Annotated[
    Literal["probable", "balanced"],
    Field(
        description="the class a case is put into: the most probable, or, for rare ones, the one that most exceeds its share"
    ),
]
ClassifierSpec = Annotated[ReferenceClassifierSpec | ResidualClassifierSpec | RocketSpec, Field(discriminator="kind")]
FORMS = (ResidualClassifierSpec(), RocketSpec())


class AutoClassifierSpec(BaseModel):
    """Several classifiers are trained; the model is the blend of them that cases held out speak for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto"] = "auto"
    forms: tuple[ClassifierSpec, ...] = Field(FORMS, min_length=2, max_length=6, description="the classifiers to choose from")

    @field_validator("forms")
    @classmethod
    def _distinct(cls, forms):
        if len(set(forms)) < len(forms):
            raise ValueError("a form is named twice; it would only be trained twice")
        return forms


class Shape(BaseModel):
    """What sizes the tensors of a classifier beside its spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_channels: int = Field(ge=1, le=4096)
    num_classes: int = Field(ge=2, le=4096)
    longest: int = Field(ge=1, le=1 << 20, description="steps of the longest case to train on")
    usual: int = Field(ge=1, le=1 << 20, description="steps of the median one")
    masked: bool = Field(description="whether values are missing among the cases to train on")
    rough: bool = Field(description="whether neighbouring steps differ much, so that time can not be stretched")
    rescaled: bool = Field(description="whether cases differ so much in spread or level that each is also seen by its own")
    alike: bool = Field(description="whether every case has the same mean and spread")
    many: bool = Field(description="whether there are so many cases that a rocket takes fewer features")
    stride: int | None = Field(None, ge=1, le=1 << 20, description="steps that a net takes at a time; older bundles have none")


CLASSIFIERS = {
    kind.model_fields["kind"].default: kind
    for kind in (AutoClassifierSpec, ReferenceClassifierSpec, ResidualClassifierSpec, RocketSpec)
}

# An epoch of a classifier is a pass over its cases, of ten steps or more and a hundred at most.
RECIPES = {
    "reference": {"epochs": 50, "batch_size": 32, "learning_rate": 1e-3, "optimizer": "rmsprop", "keep": "last"},
    "residual": {
        "epochs": 40,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "schedule": "one_cycle",
        "weight_decay": 0.05,
        "precision": "auto",
        "clip_norm": 5.0,
        "keep": "last",
    },
    "rocket": {"max_steps": 1, "keep": "last"},  # nothing is learned step by step
}


def recipe(network: ClassifierSpec, settings: FitSettings) -> FitSpec:
    """How a classifier is fitted: its recipe, but for what the settings say."""
    return filled_in(RECIPES[network.kind], settings)


def forms_of(network: AutoClassifierSpec | ClassifierSpec) -> tuple[ClassifierSpec, ...]:
    """The classifiers that are trained."""
    return network.forms if isinstance(network, AutoClassifierSpec) else (network,)


class ClassGateSpec(BaseModel):
    """What a new classifier has to be better at than the live one and the majority class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Literal["log_loss", "accuracy", "balanced_accuracy", "macro_f1"] = "log_loss"
    fold: Literal["validation", "test"] = Field("validation", description="the test fold is best left for the last word")
