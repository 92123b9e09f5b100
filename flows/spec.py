"""The composed spec: one YAML file, one flow parameter, one form in Prefect's UI."""

import difflib
from datetime import datetime
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from flows.classification import ClassificationSpec
from flows.common import LineSpec, check_offset, with_recipes
from models.classification.specs import CLASSIFIERS
from models.errors import Fault, shortlist
from models.inputs import keep_channels
from models.metrics import score_steps
from models.networks import KINDS, AutoSpec, FitSettings, NetworkSpec, build_network, forms_of, needs_known, recipe
from models.scaling import ScalingSpec
from models.series import Columns
from models.specs import FitSpec, GateSpec, QuantileSpec
from models.windows import FoldSpec, WindowSettings
from tasks.ingest.sources import SourceSpec, is_url
from tasks.ingest.streams import find_encoding
from tasks.ingest.timeline import parse_offset, parse_timezone, season_of

ENOUGH = 1 << 20  # steps of a series of which nothing is known yet
WAVES = ("hour", "weekday", "day_of_year", "date")  # of the local clock; the data say which where none is named
EITHER = {  # keys that take more than one kind of value, and which
    "source.uri": "a path or URL is needed, or a list of some",
    "source.timestamp": "the name of a column is needed, or a list of two: of dates and of times of day",
    "source.series_id": "the name of a column is needed, or a list of some",
    "network.inputs": "it can be all, auto, or a list of names of covariates",
}


class ForecastSpec(BaseModel):
    """What batch forecasts start from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: datetime | None = Field(None, description="last stamp a forecast may see; null: the last row with a target")


class PipelineSpec(LineSpec):
    """Everything a pipeline needs to train, validate, promote and forecast."""

    name: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of this line of models")
    task: Literal["forecasting"] = "forecasting"
    store: str = Field(description="folder for everything the pipeline makes; relative to the spec's own file")
    source: SourceSpec
    season: int | None = Field(None, ge=1, description="steps after which the series repeats; null: as the data show")
    folds: FoldSpec
    scaling: ScalingSpec = ScalingSpec()
    windows: WindowSettings
    network: Annotated[AutoSpec | NetworkSpec, Field(discriminator="kind")] = AutoSpec()
    fit: FitSettings = FitSettings()
    refit: bool = Field(True, description="what goes live goes on learning, a little, from the rows of all folds")
    quantiles: QuantileSpec = QuantileSpec()
    gate: GateSpec = GateSpec()
    forecast: ForecastSpec = ForecastSpec()

    @model_validator(mode="after")
    def _fits_together(self):
        """What no single section can check, before any task starts."""
        parse_timezone(self.source.timezone)
        find_encoding(self.source.encoding)
        if self.source.frequency:
            parse_offset(self.source.frequency)
        check_offset(self.forecast.origin)
        for fold, steps in (("validation", self.folds.validation), ("test", self.folds.test)):
            if steps < self.windows.horizon:
                raise ValueError(
                    f"folds.{fold} is {steps:,} and windows.horizon {self.windows.horizon:,} steps; a fold holds one horizon "
                    f"at least. Set folds.{fold} to {self.windows.horizon:,} or more, or a shorter horizon"
                )
        season = self.season or (season_of(self.source.frequency) if self.source.frequency else None)
        if season:
            check_gate(self.gate, self.windows, season)
        seen_columns(self)  # raises where an input is named that there is not
        _ = self.recipes  # raises where settings of fit do not suit one of them
        return self

    @property
    def recipes(self) -> list[tuple[NetworkSpec, FitSpec]]:
        """The networks that are trained, and how."""
        return with_recipes(forms_of(self.network), self.fit, recipe)


def task_of(document: Any) -> str:
    """Which kind of spec a mapping, or a spec, is."""
    return document.get("task", "forecasting") if isinstance(document, dict) else getattr(document, "task", "forecasting")


KINDS_OF_SPEC = {"forecasting": PipelineSpec, "classification": ClassificationSpec}
AnySpec = Annotated[
    Annotated[PipelineSpec, Tag("forecasting")] | Annotated[ClassificationSpec, Tag("classification")], Discriminator(task_of)
]


def declared_columns(source: SourceSpec) -> Columns:
    """The channels as far as the spec tells them; words of a static covariate only become channels once its file is read."""
    return Columns(
        masked=source.masks, past=source.past_covariates, future=source.future_covariates, calendar=source.calendar or (),
        holidays=source.holidays, static=source.static_covariates,
    )  # fmt: skip


def seen_columns(spec: PipelineSpec) -> Columns:
    """The channels that networks see, as far as the spec tells them: where it is silent, all that a clock can make.

    Raises:
        Fault: `network.inputs` names a covariate that there is not.
    """
    columns, inputs = declared_columns(spec.source), spec.network.inputs
    if spec.source.calendar is None:
        columns = columns.model_copy(update={"calendar": WAVES})
    return columns if isinstance(inputs, str) else keep_channels(columns, inputs)


def check_gate(gate: GateSpec, windows: WindowSettings, season: int) -> None:
    """Raises a Fault where the gate looks at a number of steps that no score is made for."""
    allowed = score_steps(windows.horizon, season)
    if gate.steps and gate.steps not in allowed:
        raise Fault(f"gate.steps is {gate.steps}; with this horizon and season it can be {shortlist(allowed)}")


def check_networks(spec: PipelineSpec | ClassificationSpec) -> None:
    """Raises a Fault where a network does not fit the windows, columns and season, or fit.devices are not there.

    Torch takes its time and memory, so this is asked by what trains, and not by every command that reads a spec.
    """
    if spec.task == "classification":  # a classifier takes its form from the cases
        return
    import torch

    from models.parallel import check_devices
    from models.training import resolve_device

    season = spec.season or (season_of(spec.source.frequency) if spec.source.frequency else 1)
    windows = spec.windows.resolved(season, ENOUGH)
    columns, alone = seen_columns(spec), len(spec.recipes) == 1
    with torch.device("meta"):  # shapes only, no memory
        for network, _ in spec.recipes:
            if alone or columns.known or not needs_known(network):  # of several forms, one that can not be is not tried
                build_network(network, columns, windows, season)
    for _, fit in spec.recipes:
        if fit.devices > 1:
            check_devices(fit.devices, resolve_device(fit.device))


def load_spec(path: str | Path) -> PipelineSpec | ClassificationSpec:
    """The spec in a YAML file, its relative paths made absolute from the file's own folder.

    Raises:
        Fault: there is no such file, it is no YAML, or a key or value in it is not allowed.
    """
    path = Path(path)
    try:
        document = Once(path.read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError as error:
        raise Fault(f"{path} does not exist. Name a spec, as deployments/demo.yaml.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Fault(f"{path} can not be read: {error}.") from error
    except (yaml.YAMLError, ValueError) as error:  # an impossible date is the latter
        raise Fault(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise Fault(f"{path} holds {type(document).__name__}, not a mapping with name, store, source, folds and windows.")
    return check_spec(resolved(document, path.resolve().parent), str(path))


class Once(yaml.SafeLoader):
    """YAML in which every key of a section stands once: of two, a reader would take either for the one that counts."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge")):
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise ValueError(f"{key.value} stands twice, in lines {lines[name]} and {line}; take one of them out")
            lines[name] = line
        return node


def resolved(document: dict, folder: Path) -> dict:
    """The document with its paths absolute."""
    document = dict(document)
    if isinstance(document.get("store"), str):
        document["store"] = absolute("store", document["store"], folder)
    source = document.get("source")
    if isinstance(source, dict):
        document["source"] = source = dict(source)
        for key in ("uri", "static_uri"):
            if isinstance(source.get(key), str):
                source[key] = located(f"source.{key}", source[key], folder)
        if isinstance(source.get("uri"), list):
            source["uri"] = [located("source.uri", one, folder) if isinstance(one, str) else one for one in source["uri"]]
    forecast = document.get("forecast")
    if isinstance(forecast, dict) and "uri" in forecast:
        document["forecast"] = forecast = dict(forecast)
        uris = forecast["uri"] if isinstance(forecast["uri"], list) else [forecast["uri"]]
        placed = [located("forecast.uri", one, folder) if isinstance(one, str) else one for one in uris]
        forecast["uri"] = placed if isinstance(forecast["uri"], list) else placed[0]
    return document


def located(key: str, place: str, folder: Path) -> str:
    """A URL as it is, a path made absolute."""
    return place if is_url(place) else absolute(key, place, folder)


def absolute(key: str, place: str, folder: Path) -> str:
    """A path made absolute from `folder`.

    Raises:
        Fault: it is no path of this machine.
    """
    if is_url(place) or not place:
        raise Fault(f"{key} is {place!r}; this version writes to local folders only. Name a path.")
    try:
        return str((folder / Path(place).expanduser()).resolve())
    except (RuntimeError, ValueError, OSError) as error:
        raise Fault(f"{key} is {place!r}, which is no path: {error}. Name another.") from error


def check_spec(document: dict, where: str) -> PipelineSpec | ClassificationSpec:
    """The spec that a mapping describes.

    Raises:
        Fault: naming each key that is unknown, missing or out of range, and what is allowed there.
    """
    task = task_of(document)
    if task not in KINDS_OF_SPEC:
        raise Fault(f"{where}: task is {task!r}; it can be {', '.join(KINDS_OF_SPEC)}")
    document = with_sections(document)
    try:
        return KINDS_OF_SPEC[task].model_validate(document)
    except ValidationError as error:
        said = list(dict.fromkeys(describe_error(fault, document) for fault in error.errors()))
        raise Fault(f"{where}: " + "; ".join(said[:5]) + ("" if len(said) <= 5 else f"; and {len(said) - 5} more")) from error


def with_sections(document: dict) -> dict:
    """The document with networks that are only named, as `linear`, as the sections {kind: linear} that they stand for."""

    def section(network: Any) -> Any:
        return {"kind": network} if isinstance(network, str) else network

    network = section(document.get("network"))
    if isinstance(network, dict) and isinstance(network.get("forms"), list):
        network = network | {"forms": [section(form) for form in network["forms"]]}
    return document | {"network": network} if "network" in document else document


def describe_error(fault: dict, document: dict) -> str:
    """One pydantic error as a clause that names the key, what was found and what is allowed."""
    kinds = kinds_of(document)
    place = [str(part) for part in fault["loc"] if not (part in kinds and "network" in fault["loc"])]
    key = ".".join(place)
    if fault["type"] == "extra_forbidden":
        allowed = allowed_keys(place[:-1], document)
        near = difflib.get_close_matches(place[-1], allowed, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{key} is no key of this spec{hint}; allowed here: {', '.join(allowed)}"
    if len(place) > 2 and (either := ".".join(place[:2])) in EITHER:
        return describe_either(either, document[place[0]][place[1]])
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "union_tag_invalid":
        return f"{key}.kind is {fault['ctx']['tag']!r}; it can be {', '.join(kinds)}"
    if key == "source.timezone" and isinstance(fault["input"], int):
        return f"{key} is {fault['input']} to YAML; put an offset such as '+10:00' in quotes"
    message = fault["msg"].removeprefix("Value error, ")
    shown = f" ({fault['input']!r} given)" if key and not isinstance(fault["input"], dict) else ""
    return f"{key}: {message}{shown}" if key else message


def kinds_of(document: dict) -> dict[str, type]:
    """The kinds of network that a spec can name."""
    return CLASSIFIERS if task_of(document) == "classification" else KINDS


def describe_either(key: str, found: Any) -> str:
    """One clause for a key that takes more than one kind of value, where pydantic has one for each kind."""
    numbers = [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, int | float)]
    quotes = f"; put {numbers[0]} in quotes if that is its name" if numbers else ""
    return f"{key} is {found!r}; {EITHER[key]}{quotes}"


def allowed_keys(place: list[str], document: dict) -> list[str]:
    """The keys allowed in the section that `place` leads to."""
    if place[:1] == ["network"]:
        section = document.get("network") or {}
        if len(place) > 2:  # network.forms.0
            section = section["forms"][int(place[2])]
        kinds = kinds_of(document)
        fields = kinds.get(section.get("kind", "auto"), kinds["auto"]).model_fields
        return [name for name in fields if name != "inputs" or len(place) == 1]  # which is said once for all forms
    kind = KINDS_OF_SPEC[task_of(document)]
    for part in place:
        if getattr(kind, "__origin__", None) is dict:  # the user's own names, each with a section below it
            kind = kind.__args__[1]
            continue
        kind = kind.model_fields[part].annotation
        if isinstance(kind, UnionType):  # a section that may be null
            kind = next(one for one in get_args(kind) if hasattr(one, "model_fields"))
    return list(kind.model_fields)
