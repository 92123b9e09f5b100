"""A trained model as two files: weights as safetensors, everything else as JSON. Nothing in it can execute.

`bundle.json` says what the weights are for: network, windows, columns, season, frequency, scaler, versions. Reading
a bundle checks both files against each other, so that a model never meets data it was not made for.

A released format is read for ever; `tests/golden` holds bundles of each. What may change without raising `FORMAT`: a new
field that has a default which forecasts as before, a new kind of network, a wider range of a value, `versions`. What may
not: another name, shape or meaning of a weight or a field, and another forecast from the same two files. For these, raise
`FORMAT`, give `UPGRADES` a function that brings a document of the former format to the new one, and run
`tests/make_golden.py`. Format 4 is the first that was released.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.batches import AT_ONCE, Batch
from models.conformal import Calibration
from models.errors import Fault
from models.floors import floors_by_number, kept
from models.networks import NetworkSpec, build_network
from models.scaling import Scaler
from models.series import SeriesFacts
from models.soundness import brief, check_description, check_weights
from models.spread import SpreadNet
from models.windows import WindowSpec

FORMAT = 4
UPGRADES: dict[int, Callable[[dict], dict]] = {}  # by format: a document of it -> the same one format further
SPREAD = "spread"  # what its weights are called by


class Member(BaseModel):
    """One form of network, trained once a seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkSpec
    seeds: tuple[int, ...]


class Description(BaseModel):
    """`bundle.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    members: tuple[Member, ...]
    windows: WindowSpec
    series: SeriesFacts
    scaler: Scaler
    trained_on: str  # digest of the windows
    calibration: Calibration | None  # of its quantiles; None where it has none
    versions: dict[str, str]

    @model_validator(mode="after")
    def _parts_go_together(self):
        check_description(self)
        return self

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        """A network for this series, with fresh weights."""
        return build_network(spec, self.series.columns, self.windows, self.series.season, len(self.scaler.series))

    def build_spread(self) -> torch.nn.Module:
        """A net for the quantiles of a calibrated model, with fresh weights."""
        return SpreadNet(self.calibration.levels, self.series.columns, self.windows, self.series.season)


@dataclass(frozen=True)
class Bundle:
    """A model that can forecast: a description, and for each member the weights of one network a seed."""

    description: Description
    weights: list[list[dict[str, torch.Tensor]]]
    spread_weights: dict[str, torch.Tensor] | None = None  # of the net that tells the quantiles

    @cached_property
    def networks(self) -> list[list[torch.nn.Module]]:
        pairs = zip(self.description.members, self.weights, strict=True)
        return [[self.build(member.network, weights) for weights in seeds] for member, seeds in pairs]

    def build(self, spec: NetworkSpec, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
        network = self.description.build(spec)
        load_weights(network, weights)
        return network.eval()

    @cached_property
    def spread(self) -> torch.nn.Module:
        """The net that tells the quantiles of a calibrated model."""
        network = self.description.build_spread()
        load_weights(network, self.spread_weights)
        return network.eval()

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number by which a network with an embedding knows each series; 0 is left for those it never saw."""
        return number_series(self.description.scaler)

    @cached_property
    def floors(self) -> torch.Tensor:
        """The scaled floor (S + 1,) of each series by its number."""
        return floors_by_number(self.description.scaler)

    def floors_of(self, past: torch.Tensor, series: torch.Tensor) -> torch.Tensor:
        """The scaled floors (B,) that windows (B, L, C) of numbered series keep to."""
        return kept(self.floors[series], past[:, :, 0])

    @torch.no_grad()
    def forecast(
        self, past: torch.Tensor, future: torch.Tensor, series: torch.Tensor | None = None, floors: torch.Tensor | None = None
    ) -> np.ndarray:
        """Forecasts (B, H) in scaled space, the mean over members of the mean over seeds, none below its floor.

        Args:
            past: (B, L, C) scaled.
            future: (B, H, F) scaled.
            series: (B,) int64, the number of each window's series; None where all of them are unknown.
            floors: (B,) scaled; None: those that the windows of these series keep to.
        """
        series = torch.zeros(len(past), dtype=torch.int64) if series is None else series
        floors = self.floors_of(past, series) if floors is None else floors
        parts = zip(past.split(AT_ONCE), future.split(AT_ONCE), series.split(AT_ONCE), strict=True)
        means = [mean_of([mean_of([one(*part) for one in seeds]) for seeds in self.networks]) for part in parts]
        return torch.maximum(torch.cat(means), floors[:, None]).numpy()

    @torch.no_grad()
    def quantiles(self, past: torch.Tensor, future: torch.Tensor, forecast: np.ndarray) -> np.ndarray:
        """Quantiles (B, H, Q) in scaled space around forecasts (B, H), before any offsets; else as `forecast`."""
        parts = zip(past[:, :, 0].split(AT_ONCE), future.split(AT_ONCE), torch.from_numpy(forecast).split(AT_ONCE), strict=True)
        return torch.cat([self.spread(*part) for part in parts]).numpy()

    def forecast_windows(self, windows: torch.Tensor, series: torch.Tensor | None = None) -> np.ndarray:
        """Forecasts (B, H) in scaled space from whole windows (B, L+H, C), whose targets are not looked at."""
        batch = Batch.split(windows, self.description.windows.lookback, self.description.series.columns)
        return self.forecast(batch.past, batch.future, series)


def load_weights(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise Fault(f"The weights do not fit the network that bundle.json describes: {error}") from error


def mean_of(forecasts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(forecasts).float().mean(0)


def number_series(scaler: Scaler) -> dict[str, int]:
    """Series numbered from 1 in the order of their names."""
    return {name: number for number, name in enumerate(sorted(scaler.series), 1)}


def dump_bundle(bundle: Bundle) -> dict[str, bytes]:
    """The two files of a bundle, by name; the same bundle always gives the same bytes."""
    flat = {
        f"{member}.{seed}.{name}": value
        for member, seeds in enumerate(bundle.weights)
        for seed, weights in enumerate(seeds)
        for name, value in weights.items()
    }
    flat |= {f"{SPREAD}.{name}": value for name, value in (bundle.spread_weights or {}).items()}
    description = json.dumps(bundle.description.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    return {"weights.safetensors": save_tensors(flat), "bundle.json": description.encode()}


def load_bundle(weights: bytes, description: bytes) -> Bundle:
    """The bundle in these two files.

    Raises:
        Fault: they are no bundle, one of a format that is not read, damaged, or not of one another.
    """
    try:
        about = Description.model_validate(upgraded(json.loads(description)))
        flat = load_tensors(weights)
    except Fault:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part)[:40] for part in first["loc"]) + ": " if first["loc"] else ""
        raise Fault(f"This is no model bundle: {where}{first['msg'].removeprefix('Value error, ')}. Train again.") from error
    except (SafetensorError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise Fault(f"This is no model bundle: {brief(error)}. Train again.") from error
    spread = {name.removeprefix(f"{SPREAD}."): flat.pop(name) for name in list(flat) if name.startswith(f"{SPREAD}.")}
    if bool(spread) != bool(about.calibration):
        raise Fault("The bundle has quantiles in one of its two files only. Train again.")
    bundle = Bundle(about, by_member(flat, about.members), spread or None)
    for number, (member, seeds) in enumerate(zip(about.members, bundle.weights, strict=True)):
        for seed, own in enumerate(seeds):
            check_weights(f"{number}.{seed}", own, lambda network=member.network: about.build(network))
    if spread:
        check_weights(SPREAD, spread, about.build_spread)
    return bundle


def upgraded(document: dict) -> dict:
    """A description as the present format has it.

    Raises:
        Fault: it is of a format that is not read.
    """
    while type(found := document.get("format")) is int and found in UPGRADES:
        document = UPGRADES[found](document) | {"format": found + 1}
    if type(found) is not int or found != FORMAT:
        read = ", ".join(str(one) for one in (*UPGRADES, FORMAT))
        raise Fault(f"The bundle has format {str(found)[:40]}; this version reads {read}. Train again.")
    return document


def by_member(flat: dict[str, torch.Tensor], members: tuple[Member, ...]) -> list[list[dict[str, torch.Tensor]]]:
    """The weights of each member's seeds, from names such as `0.1.head.weight`."""
    weights_of: list[list[dict[str, torch.Tensor]]] = [[{} for _ in member.seeds] for member in members]
    for name, value in flat.items():
        place = name.split(".", 2)
        member, seed = (int(part) if part.isdecimal() else -1 for part in (*place, "", "")[:2])
        if not (0 <= member < len(weights_of) and 0 <= seed < len(weights_of[member]) and len(place) == 3):
            raise Fault(f"The bundle holds weights {name[:80]!r} of a member or seed that bundle.json does not list.")
        weights_of[member][seed][place[2]] = value
    return weights_of
