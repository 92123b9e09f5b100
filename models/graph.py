"""A model as one ONNX graph, for programs that have neither torch nor this project.

Inputs and outputs are scaled, as `metadata_props["convcast"]` says: scaled = (raw - mean) / std by series and channel, and
raw = scaled * std[0] + mean[0] for what comes out. Where a model knows dates, a day has as `date_day` the number
(month - 1) * 31 + day - 1, as `date_weekday` (month - 1) * 35 + (day - 1) // 7 * 7 + weekday, of Mondays 0. Quantiles are
moved by the offsets of validation; those that follow the newest errors (`quantiles.rolling`) take the truth of earlier
forecasts, which a graph does not see.

Axes in names: B batch, L lookback, H horizon, C channels (target first), F future covariates, Q levels.
"""

import copy
import json
import logging
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from models.bundle import Bundle, mean_of
from models.conformal import TINY
from models.errors import Fault
from models.floors import kept
from models.periodic import PeriodicMap, PeriodicNet
from models.regression import RegressionNet

OPSET = 20
PACKAGES = ("onnx", "onnxscript")


class FixedMap(nn.Module):
    """A periodic map whose matrix is worked out once."""

    def __init__(self, periodic: PeriodicMap):
        super().__init__()
        self.register_buffer("matrix", periodic.matrix().detach())
        self.register_buffer("recent", periodic.recent.detach().clone())

    def forward(self, past: Tensor) -> Tensor:
        return past @ self.matrix + past[:, -len(self.recent) :] @ self.recent


class WholeModel(nn.Module):
    """Every network of a bundle at once: the mean over members of the mean over seeds, and quantiles where it has them."""

    def __init__(self, bundle: Bundle):
        super().__init__()
        self.members = nn.ModuleList(nn.ModuleList(fixed(one) for one in seeds) for seeds in bundle.networks)
        self.register_buffer("floors", bundle.floors)
        self.spread = None
        if calibration := bundle.description.calibration:
            self.spread = bundle.spread
            self.register_buffer("offsets", torch.tensor(calibration.offsets, dtype=torch.float32))  # (H, Q)

    def forward(self, past: Tensor, future: Tensor, series: Tensor) -> tuple[Tensor, ...]:
        """Forecasts (B, H), and quantiles (B, H, Q), from past (B, L, C), future (B, H, F) and numbers of series (B,)."""
        floors = kept(self.floors[series], past[:, :, 0])[:, None]
        forecast = mean_of([mean_of([one(past, future, series) for one in seeds]) for seeds in self.members])
        forecast = torch.maximum(forecast, floors)
        if self.spread is None:
            return (forecast,)
        around = self.spread(past[:, :, 0], future, forecast)
        width = (around[:, :, -1:] - around[:, :, :1]).clamp(min=TINY)
        return forecast, torch.maximum((around + self.offsets * width).sort(-1).values, floors[:, :, None])


def fixed(network: nn.Module) -> nn.Module:
    """The network, without what only training changes."""
    if not isinstance(network, PeriodicNet | RegressionNet):
        return network
    network = copy.deepcopy(network)
    network.map = FixedMap(network.map)
    return network.eval()


def to_onnx(bundle: Bundle) -> bytes:
    """An ONNX file of the whole model, with whatever a program needs to know of it.

    Inputs are `past` (B, L, C), `future` (B, H, F) and `series` (B,) int64, of any B; outputs `forecast` (B, H) and, where
    the model is calibrated, `quantiles` (B, H, Q), ascending. An input that no network looks at is there nevertheless.

    Raises:
        Fault: the packages that write ONNX are not installed.
    """
    about = bundle.description
    rows = torch.zeros(2, about.windows.span, about.series.columns.num_channels)
    past, future = rows[:, : about.windows.lookback], rows[:, about.windows.lookback :, about.series.columns.first_known :]
    batch = torch.export.Dim("batch")
    return write_graph(
        WholeModel(bundle), {"past": past, "future": future, "series": torch.zeros(2, dtype=torch.int64)},
        {name: {0: batch} for name in ("past", "future", "series")}, ["forecast", "quantiles"][: 1 + bool(about.calibration)],
        facts_of(bundle),
    )  # fmt: skip


def write_graph(
    network: nn.Module, inputs: dict[str, Tensor], dynamic: dict[str, dict[int, Any]], outputs: list[str], facts: dict
) -> bytes:
    """An ONNX file of a network; the same one always gives the same bytes.

    Args:
        inputs: what its forward takes, by name, of any size that is allowed.
        dynamic: axes of each that may have any size.
        facts: what a program needs to know to use it, as JSON in its metadata.

    Raises:
        Fault: the packages that write ONNX are not installed.
    """
    if lacking := [name for name in PACKAGES if find_spec(name) is None]:
        raise Fault(f"Writing ONNX takes {' and '.join(lacking)}, which is not installed. pip install 'convcast[onnx]'.")
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it tells of packages that it would have used
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            network.eval(), tuple(inputs.values()), dynamo=True, opset_version=OPSET, input_names=list(inputs),
            output_names=outputs, dynamic_shapes=dynamic, verbose=False,
        )  # fmt: skip
    model = program.model_proto
    onnx.helper.set_model_props(model, {"convcast": json.dumps(facts, sort_keys=True)})
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def facts_of(bundle: Bundle) -> dict:
    """What a program needs to know to use a graph: plain values, as JSON has them."""
    about = bundle.description
    columns = about.series.columns
    scales = {name: {"mean": one.mean, "std": one.std} for name, one in sorted(about.scaler.series.items())}
    return {
        "target": about.series.target, "frequency": about.series.frequency, "timezone": about.series.timezone,
        "season": about.series.season, "lookback": about.windows.lookback, "horizon": about.windows.horizon,
        "past": columns.names, "future": columns.known, "columns": columns.model_dump(mode="json"),
        "series": {name: scales[name] | {"number": number} for name, number in bundle.numbers.items()},
        "levels": about.calibration.levels if about.calibration else (),
        "bundle_format": about.format, "trained_on": about.trained_on,
    }  # fmt: skip
