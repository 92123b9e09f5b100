"""Weights that a training begins with: those of a model that was trained before, where it has the same form."""

from collections.abc import Callable

from torch import Tensor, nn

from models.bundle import Bundle, load_weights, number_series
from models.errors import Fault, shortlist
from models.networks import NetworkSpec, form_name
from models.scaling import Scaler
from models.series import SeriesFacts
from models.windows import WindowSpec

UNSHAPED = {"dropout", "head_dropout", "noise"}  # settings that no weight is shaped by
EMBEDDED = "series.weight"  # what a network with an embedding learned of each series, a row a series
FRESH = "Set fit.init: fresh to train from the beginning."


def starting_weights(bundle: Bundle, network: NetworkSpec, seed: int, scaler: Scaler) -> dict[str, Tensor] | None:
    """The weights of the member of the same form and seed; None where there is none.

    A series that the bundle does not know begins as what it learned of unknown ones.
    """
    about = bundle.description
    for member, seeds in zip(about.members, bundle.weights, strict=True):
        if shaping(member.network) == shaping(network) and seed in member.seeds:
            weights = dict(seeds[member.seeds.index(seed)])
            if EMBEDDED in weights:
                rows = [0, *(bundle.numbers.get(name, 0) for name in number_series(scaler))]
                weights[EMBEDDED] = weights[EMBEDDED][rows]
            return weights
    return None


def shaping(network: NetworkSpec) -> dict:
    """The settings that weights are shaped by."""
    return network.model_dump(exclude=UNSHAPED)


def check_form(bundle: Bundle, network: NetworkSpec, name: str) -> None:
    """Raises a Fault, saying what differs, where no member has the form of a network."""
    members = [member.network for member in bundle.description.members]
    if any(shaping(member) == shaping(network) for member in members):
        return
    alike = [member for member in members if member.kind == network.kind]
    if not alike:
        said = f"it is made of {shortlist(map(form_name, members))}, this spec has network.kind {network.kind!r}"
    else:
        there, here = shaping(alike[0]), shaping(network)
        said = "; ".join(f"it has network.{key} {there[key]}, this spec {here[key]}" for key in here if there[key] != here[key])
    raise Fault(f"fit.init is 'live', but the weights of {name} do not fit: {said}. {FRESH}")


def check_shape(bundle: Bundle, windows: WindowSpec, facts: SeriesFacts, name: str) -> None:
    """Raises a Fault, naming them, where the windows or channels that a model was made for are not these."""
    about = bundle.description
    pairs = {
        "windows.lookback": (about.windows.lookback, windows.lookback),
        "windows.horizon": (about.windows.horizon, windows.horizon),
        "season": (about.series.season, facts.season),
        "channels": (", ".join(about.series.columns.names), ", ".join(facts.columns.names)),
        "covariates known ahead": (", ".join(about.series.columns.known) or "none", ", ".join(facts.columns.known) or "none"),
    }
    said = [f"it has {key} {there}, this training {here}" for key, (there, here) in pairs.items() if there != here]
    if said:
        raise Fault(
            f"fit.init is 'live', but the weights of {name} do not fit: {'; '.join(said)}. Make them alike, or: {FRESH}"
        )


def build_with(build: Callable[[], nn.Module], weights: dict[str, Tensor]) -> nn.Module:
    """A network with these weights, torch's random state as after building one with fresh weights."""
    network = build()
    load_weights(network, weights)
    return network
