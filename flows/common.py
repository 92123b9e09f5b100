"""What the specs of all tasks have in common."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from models.networks import FitSettings
from models.specs import FitSpec


class LineSpec(BaseModel):
    """Everything that a line of models needs, whatever they do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _name_kind(cls, values: Any) -> Any:
        """Say which kind of network is meant where a spec does not."""
        network = values.get("network", {}) if isinstance(values, dict) else None
        return values | {"network": {"kind": "auto"} | network} if isinstance(network, dict) else values


def check_offset(origin: datetime | None) -> None:
    """Raises a ValueError where the instant to forecast from could be another one elsewhere."""
    if origin is not None and origin.tzinfo is None:
        raise ValueError(f"forecast.origin {origin.isoformat()} has no offset; write it as 2014-12-30T23:30+10:00")


def with_recipes(
    networks: tuple[Any, ...], said: FitSettings, recipe: Callable[[Any, FitSettings], FitSpec]
) -> list[tuple[Any, FitSpec]]:
    """Each network and how it is fitted.

    Raises:
        ValueError: a setting of `fit` does not suit one of them.
    """
    try:
        return [(network, recipe(network, said)) for network in networks]
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
