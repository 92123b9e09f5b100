"""The spec of a classification: what to tell apart, and in what."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.common import LineSpec, check_offset, with_recipes
from models.classification.folds import CaseFolds
from models.classification.specs import (
    AutoClassifierSpec,
    ClassGateSpec,
    ClassifierSpec,
    Decision,
    FitSpec,
    RocketSpec,
    forms_of,
    recipe,
)
from models.classification.windows import LabelWindows
from models.networks import FitSettings
from tasks.gather.source import LabelledSource
from tasks.ingest.streams import find_encoding
from tasks.ingest.timeline import parse_timezone

NOT_HERE = {  # settings of fit that forecasting has alone
    "loss": "a classifier learns by cross-entropy",
    "level": "a classifier learns by cross-entropy",
    "init": "a classifier begins with fresh weights",
    "devices": "a classifier is trained by one process",
}


def check_fit(fit: FitSettings) -> None:
    """Raises a ValueError where something is said of a fit that no classifier has."""
    for key, reason in NOT_HERE.items():
        if getattr(fit, key) is not None:
            raise ValueError(f"fit.{key} is {getattr(fit, key)!r}; {reason}. Leave it out")
    if fit.schedule == "plateau":
        raise ValueError("fit.schedule is 'plateau', and a classifier is not validated as it learns; use constant or one_cycle")


class LabelSpec(BaseModel):
    """What `convcast forecast` labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str | tuple[str, ...] | None = Field(
        None, description="files of cases to label, with or without labels; null: cases of the source that have none"
    )
    origin: datetime | None = Field(None, description="of a stream: the last stamp that is seen; null: the newest")


class ClassificationSpec(LineSpec):
    """Everything a pipeline needs to train, validate, promote and use a classifier."""

    name: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of this line of models")
    task: Literal["classification"]
    store: str = Field(description="folder for everything the pipeline makes; relative to the spec's own file")
    source: LabelledSource
    folds: CaseFolds = CaseFolds()
    windows: LabelWindows | None = Field(None, description="of a stream; cases are seen whole")
    network: Annotated[AutoClassifierSpec | ClassifierSpec, Field(discriminator="kind")] = AutoClassifierSpec()
    fit: FitSettings = FitSettings()
    refit: bool = Field(True, description="what goes live goes on learning, a little, from all cases with a label")
    decision: Decision = "probable"
    gate: ClassGateSpec = ClassGateSpec()
    forecast: LabelSpec = LabelSpec()

    @model_validator(mode="after")
    def _fits_together(self):
        """What no single section can check, before any task starts."""
        parse_timezone(self.source.timezone)
        find_encoding(self.source.encoding)
        if self.source.is_stream and self.windows is None:
            raise ValueError("source.timestamp makes it a stream, which is cut into windows; give windows.lookback")
        if self.windows and not self.source.is_stream:
            raise ValueError("windows are of a stream, and source.timestamp is not given; cases are seen whole. Leave them out")
        check_offset(self.forecast.origin)
        if self.forecast.origin is not None and not self.source.is_stream:
            raise ValueError("forecast.origin is of a stream, and source.timestamp is not given; leave it out")
        check_fit(self.fit)
        _ = self.recipes  # raises where settings of fit do not suit one of them
        return self

    @property
    def recipes(self) -> list[tuple[ClassifierSpec, FitSpec]]:
        """The classifiers that the model is chosen from, and how each is fitted."""
        return with_recipes(forms_of(self.network), self.fit, recipe)

    @property
    def rival(self) -> tuple[ClassifierSpec, FitSpec] | None:
        """What is trained beside the model to be held against it; None where it is one of its forms."""
        if any(network.kind == "rocket" for network, _ in self.recipes):
            return None
        return RocketSpec(), recipe(RocketSpec(), FitSettings())
