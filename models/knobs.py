"""What a search turns on a network and on how it is fitted: which settings, and how far."""

import difflib
from collections.abc import Callable, Collection
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from models.errors import Fault
from models.networks import FitSettings, NetworkSpec, recipe
from models.specs import FitSpec

Value = bool | int | float | str | None
OF_A_BRANCH = ("network.channels", "network.dropout", "network.head_dropout")  # of a periodic network that has one
FIXED = (
    "network.kind",
    "fit.seeds",
    "fit.device",
    "fit.keep",
    "fit.level",
)  # say what is compared, or where, and not how good it gets


class Knob(BaseModel):
    """One setting and the values it may take: some choices, or all from `low` to `high`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str  # fit.learning_rate, network.channels
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False  # as likely between 1 and 10 as between 10 and 100
    whole: bool = False

    def with_value(self, value: Value) -> "Knob":
        """The same knob, with `value` among what it may take."""
        if self.choices:
            return self if value in self.choices else self.model_copy(update={"choices": (*self.choices, value)})
        return self.model_copy(update={"low": min(self.low, value), "high": max(self.high, value)})

    def takes(self, value: Value) -> bool:
        """Whether the knob can be turned to `value`."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

    def ends(self) -> tuple[Value, ...]:
        """Its choices, or the smallest and the largest value."""
        return self.choices or tuple(int(one) if self.whole else one for one in (self.low, self.high))


def usual_knobs(network: NetworkSpec, fit: FitSpec, season: int, lookback: int, num_series: int) -> list[Knob]:
    """The few settings that matter most for a kind of network, around the values they have now.

    The loss is none of them: it is what the forecasts are for, and not a matter of taste.
    """
    noise = Knob(name="network.noise", low=0.0, high=max(0.5, 2 * getattr(network, "noise", 0.0)))
    decay = Knob(name="fit.weight_decay", choices=(0.0, 0.01, 0.1, 1.0))
    dropout = Knob(name="network.dropout", low=0.0, high=0.5)
    looks = Knob(name="network.lookback", choices=(None, *shorter(season, lookback)))
    own = {
        "residual": [
            Knob(name="network.channels", choices=(16, 32, 64)), dropout, noise, decay, looks,
            *([Knob(name="network.embedding", choices=(0, 4))] if num_series > 1 else []),
        ],
        "periodic": [
            Knob(name="network.branch", choices=("recent", "all", "none")), Knob(name="network.channels", choices=(8, 16, 32)),
            Knob(name="network.head_dropout", low=0.0, high=0.8), noise, decay,
        ],
        "pyramid": [
            Knob(name="network.width", choices=(64, 128, 256)), Knob(name="network.detail", choices=(4, 8, 16)), dropout, noise,
            decay,
        ],
        "regression": [Knob(name="network.width", choices=(8, 16, 32, 64)), noise, decay],
        "linear": [noise, decay, looks],
        "reference": [Knob(name="network.filters", choices=(32, 64, 128)), dropout, decay],
    }  # fmt: skip
    return [knob.with_value(value_of(network, fit, knob.name)) for knob in learning_knobs(fit) + own[network.kind]]


def learning_knobs(fit: FitSpec) -> list[Knob]:
    """How fast, and how long, a network learns."""
    length = "max_steps" if fit.max_steps else "epochs"
    now, rate = getattr(fit, length), fit.learning_rate
    return [
        Knob(name="fit.learning_rate", low=rate / 8, high=rate * 4, log=True),
        Knob(name=f"fit.{length}", choices=tuple(dict.fromkeys((max(1, now // 2), now, now * 2)))),
    ]


def shorter(season: int, lookback: int) -> list[int]:
    """Lookbacks below the windows' own: whole seasons, or, without a season, parts of it."""
    steps = [season * many for many in (2, 4, 8, 16)] if season > 1 else [lookback // 4, lookback // 2]
    return [one for one in steps if 0 < one < lookback]


def matters(name: str, settings: dict[str, Value]) -> bool:
    """Whether a setting changes anything, once the others are known."""
    return not (settings.get("network.branch") == "none" and name in OF_A_BRANCH)


def value_of(network: BaseModel, fit: FitSpec, name: str) -> Value:
    """What a setting is now."""
    section, _, key = name.partition(".")
    return getattr(network if section == "network" else fit, key)


def turned(
    network: BaseModel, said: FitSettings, settings: dict[str, Value], recipe: Callable[[Any, FitSettings], FitSpec] = recipe
) -> tuple[Any, FitSettings]:
    """The network and what is said of its fit, with these settings.

    Args:
        recipe: how such a network is fitted, but for what is said.

    Raises:
        Fault: a value is not allowed for a setting.
    """
    parts: dict[str, dict[str, Any]] = {"network": network.model_dump(), "fit": said.model_dump(exclude_none=True)}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        parts[section][key] = value
    for one, other in (("epochs", "max_steps"), ("max_steps", "epochs")):
        if f"fit.{one}" in settings:
            parts["fit"].pop(other, None)
    try:
        made = type(network).model_validate(parts["network"]), FitSettings.model_validate(parts["fit"])
        recipe(*made)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        place = next((name for name in settings if name.endswith(f".{key}")), "a setting") if key else "a setting"
        raise Fault(f"{place} can not be {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}.") from error
    return made


def parse_over(text: str) -> Knob:
    """The knob that `--over KEY=VALUES` describes, as `fit.learning_rate=1e-4..1e-1` or `network.channels=16,32,64`.

    Raises:
        Fault: it is not of that form.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    form = "write it as fit.learning_rate=1e-4..1e-1, from and to, or network.channels=16,32,64, values to choose from"
    if not (name and equals and values):
        raise Fault(f"--over {text!r} names no values; {form}.")
    if ".." not in values:
        return Knob(name=name, choices=tuple(dict.fromkeys(parse_value(one, text) for one in values.split(","))))
    try:
        low, high = (float(one) for one in values.split(".."))
    except ValueError as error:
        raise Fault(f"--over {text!r} is no range of two numbers; {form}.") from error
    if not low < high:
        raise Fault(f"--over {text!r} goes from {low:g} to {high:g}; the first has to be the smaller one.")
    whole = not any(mark in values.replace("..", " ").lower() for mark in ".ein")
    return Knob(name=name, low=low, high=high, log=low > 0 and high / low >= 10, whole=whole)


def parse_value(text: str, whole: str) -> Value:
    """A number, word, true, false or null as YAML has it; 1e-4 is a number too."""
    try:
        value = yaml.safe_load(text)
        value = float(value) if isinstance(value, str) and "e-" in value else value
    except (yaml.YAMLError, ValueError):
        value = text.strip()
    if isinstance(value, bool | int | float | str | None) and text.strip():
        return value
    raise Fault(f"--over {whole!r} has {text!r} among its values; a number, a word, true, false or null is needed.")


def overridden(knobs: list[Knob], over: list[Knob], network: BaseModel, names: Collection[str]) -> list[Knob]:
    """The knobs of a network, with those that a user named in place of, or beside, the usual ones.

    Args:
        names: what can be turned on this network.
    """
    ours = [knob for knob in over if knob.name in names]
    instead = {knob.name for knob in ours}
    if instead & {"fit.epochs", "fit.max_steps"}:
        instead |= {"fit.epochs", "fit.max_steps"}
    numbers = [as_needed(knob, network) for knob in ours]
    return [knob for knob in knobs if knob.name not in instead] + numbers


def as_needed(knob: Knob, network: BaseModel) -> Knob:
    """The knob with whole numbers only where its setting counts something."""
    section, _, key = knob.name.partition(".")
    field = (type(network) if section == "network" else FitSpec).model_fields[key]
    return knob.model_copy(update={"whole": knob.whole and "float" not in str(field.annotation)})


def turnable(network: BaseModel) -> list[str]:
    """Every setting of a network, and of how it is fitted, that can be turned."""
    every = [f"{place}.{key}" for place, kind in (("network", type(network)), ("fit", FitSpec)) for key in kind.model_fields]
    return [name for name in every if name not in FIXED]


def check_names(over: list[Knob], every: list[str]) -> None:
    """Raises a Fault where a knob is named twice, or is none of the settings that can be turned."""
    names = [knob.name for knob in over]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Fault(f"--over names {twice[0]} twice. Say it once, with all its values.")
    allowed = sorted(dict.fromkeys(every), key=lambda name: name.startswith("fit."))
    for name in names:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise Fault(f"--over {name} is nothing that a search turns{hint}; it can be {', '.join(allowed)}.")
