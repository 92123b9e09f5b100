"""A classifier as one ONNX graph, from raw values to probabilities and the class that is decided for.

A graph is drawn once for cases of every length, so nothing in it may depend on what the values are: here the nets are as they
were trained, but with a mask even where every step belongs to a case, and without what only training changes.

Axes in names: B batch, C channels, T steps of the longest case of a batch, K classes, W width of a layer.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.classification.bundle import Classifier
from models.classification.metrics import SMALLEST
from models.classification.networks import ResidualClassifier, ValidNorm, differences
from models.classification.rocket import KERNELS, Rocket
from models.classification.scaling import FAR, FLOOR, Standard, inside, own_scale
from models.graph import write_graph

INPUTS, OUTPUTS = ("values", "lengths"), ("probabilities", "label")


def filled(values: Tensor, mask: Tensor) -> Tensor:
    """What `models.classification.scaling.filled` makes of values (B, C, T), of what ONNX has: the values that were seen are
    moved to the front, and every step takes the one at the place of the last of them so far."""
    seen = ~values.isnan()
    places = seen.long().cumsum(2) - 1
    aside = values.shape[2]  # where what was not seen is put
    front = values.new_zeros(*values.shape[:2], aside + 1).scatter(2, torch.where(seen, places, aside), values)
    return front.gather(2, places.clamp(min=0)) * mask[:, None]


class FixedStandard(nn.Module):
    """`Standard`, which also calls its channels as that does."""

    def __init__(self, scale: Standard):
        super().__init__()
        self.masked, self.rescaled, self.num_values = scale.masked, scale.rescaled, scale.num_values
        self.register_buffer("mean", scale.mean)
        self.register_buffer("std", scale.std)
        self.register_buffer("floor", torch.tensor(FLOOR))

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        scaled = filled((values - self.mean) / self.std, mask).clamp(-FAR, FAR)
        parts = [scaled]
        if self.rescaled:
            parts.append(own_scale(scaled, mask, self.floor).clamp(-FAR, FAR))
        if self.masked:
            parts.append((~values.isnan() & mask[:, None]).to(scaled.dtype))
        return torch.cat(parts, 1)


class FixedNorm(nn.Module):
    """`ValidNorm` once it has learned: 0 is put past the end, where that looks at nothing."""

    def __init__(self, norm: ValidNorm):
        super().__init__()
        factor = norm.weight.detach() / (norm.variance + norm.epsilon).sqrt()
        self.register_buffer("factor", factor[:, None, None])
        self.register_buffer("shift", (norm.bias.detach() - norm.mean * factor)[:, None, None])

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        return (rows * self.factor + self.shift) * mask


class FixedResidual(nn.Module):
    """A residual net whose cases always lie side by side."""

    def __init__(self, network: ResidualClassifier):
        super().__init__()
        self.net = network

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        net, mask = self.net, inside(lengths, values.shape[2])
        seen = net.scale(values, mask)
        steps = differences(seen[:, : net.scale.num_values], mask) * net.steepness
        rows = torch.cat([seen, steps], 1)[:, :, None]  # (B, W, 1, T)
        if net.stem is not None:
            rows, lengths = torch.cat([layer(rows) for layer in net.stem], 1), coarser(lengths, net.stride)
            rows = F.relu(net.stem_norm(rows, valid(lengths, rows)))
        for block, halved in zip(net.blocks, net.halved, strict=True):
            own = valid(lengths, rows)
            rows = block(rows, own)
            if halved:
                rows, lengths = halve(rows, own), coarser(lengths, 2)
        mean = rows.sum((2, 3)) / lengths[:, None]
        return net.head(torch.cat([mean, rows.amax((2, 3))], 1) if net.with_largest else mean)


def valid(lengths: Tensor, rows: Tensor) -> Tensor:
    """(B, 1, 1, T) 1 where a step of rows (B, W, 1, T) belongs to a case."""
    return inside(lengths, rows.shape[3])[:, None, None].float()


def coarser(lengths: Tensor, stride: int) -> Tensor:
    return (lengths - 1) // stride + 1


def halve(rows: Tensor, own: Tensor) -> Tensor:
    """The mean of every two steps of rows, the last one of a case by itself where it has no partner."""
    pairs, shares = (F.avg_pool2d(F.pad(one, (0, 1)), (1, 2)) for one in (rows, own))
    return pairs / shares.clamp(min=0.5)


class FixedRocket(nn.Module):
    """A rocket that has settled whether each case is seen by its own scale."""

    def __init__(self, rocket: Rocket):
        super().__init__()
        self.rocket, self.own = rocket, bool(rocket.own)
        self.register_buffer("floor", torch.tensor(FLOOR))
        self.register_buffer("odd", (torch.arange(len(KERNELS)) % 2).bool()[:, None])

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        rocket, mask = self.rocket, inside(lengths, values.shape[2])
        ready = filled((values - rocket.mean) / rocket.std, mask)
        ready = own_scale(ready, mask, self.floor) if self.own else ready
        shares = [self.shares(ready, lengths, mask, at) for at in range(len(rocket.dilations))]
        return rocket.head((torch.cat(shares, 1) - rocket.middle) / rocket.spread)

    def shares(self, ready: Tensor, lengths: Tensor, mask: Tensor, at: int) -> Tensor:
        """The features of one dilation: of the steps that a kernel looks at, the share that exceeds each threshold."""
        reach, steps = 4 * int(self.rocket.dilations[at]), torch.arange(ready.shape[2])
        inner = (steps >= reach) & (steps < lengths[:, None] - reach) | (lengths[:, None] <= 2 * reach)
        whole = self.odd if at % 2 else ~self.odd  # kernels that look at every step of a case
        looked = mask[:, None] & (inner[:, None] | whole)  # (B, 84, T)
        made = torch.where(looked, self.rocket.responses(ready, at), -torch.inf)
        thresholds = getattr(self.rocket, f"thresholds_{at}").unbind(1)
        above = torch.stack([(made > one[:, None]).float().sum(2) for one in thresholds], 2)
        return (above / looked.float().sum(2).clamp(min=1)[:, :, None]).flatten(1)


class WholeClassifier(nn.Module):
    """Every network of a bundle, the blend of what they say, and what is decided; the blend in float64, as a bundle has it."""

    def __init__(self, model: Classifier):
        super().__init__()
        about = model.description
        self.blend = about.blend
        self.members = nn.ModuleList(nn.ModuleList(fixed(one) for one in seeds) for seeds in model.networks)
        shares = torch.tensor(about.shares, dtype=torch.float64).clamp(min=SMALLEST)
        self.register_buffer("shares", shares if about.decision == "balanced" else torch.ones_like(shares))

    def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B, K) float32 and the class (B,) int64 that each case is put into."""
        values = values.where(inside(lengths, values.shape[2])[:, None], torch.nan)
        mean = torch.zeros((), dtype=torch.float64)
        for seeds, weight, heat in zip(self.members, self.blend.weights, self.blend.temperatures, strict=True):
            said = torch.stack([one(values, lengths).double().log_softmax(1) for one in seeds]).mean(0)
            mean = mean + weight * (said / heat).softmax(1)
        sure = (mean.clamp(min=1e-30).log() / self.blend.temperature).softmax(1)
        probabilities = (1 - self.blend.doubt) * sure + self.blend.doubt / sure.shape[1]
        return probabilities.float(), (probabilities / self.shares).argmax(1)


def fixed(network: nn.Module) -> nn.Module:
    """The network, in a form that a graph can be drawn of."""
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()
    if isinstance(network, Rocket):
        return FixedRocket(network)
    network.scale = FixedStandard(network.scale)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ValidNorm):
                setattr(parent, name, FixedNorm(child))
    return FixedResidual(network) if isinstance(network, ResidualClassifier) else network


def classifier_to_onnx(model: Classifier) -> bytes:
    """An ONNX file of the whole classifier, with whatever a program needs to know of it.

    Inputs are `values` (B, C, T), raw and NaN where missing, and `lengths` (B,) int64, of any B and T; what lies past the end
    of a case is not looked at. Outputs are `probabilities` (B, K) and `label` (B,) int64, the place among the classes.

    Raises:
        Fault: the packages that write ONNX are not installed.
    """
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps", min=2)
    example = {"values": torch.zeros(2, model.description.shape.num_channels, 20), "lengths": torch.tensor([20, 11])}
    return write_graph(
        WholeClassifier(model), example, {"values": {0: batch, 2: steps}, "lengths": {0: batch}}, list(OUTPUTS), facts_of(model)
    )


def facts_of(model: Classifier) -> dict:
    """What a program needs to know to use a graph: plain values, as JSON has them."""
    about = model.description
    return {
        "task": about.task, "classes": about.classes, "channels": about.channels, "decision": about.decision,
        "shares": about.shares, "longest": about.shape.longest, "bundle_format": about.format, "trained_on": about.trained_on,
        "windows": about.windows.model_dump(mode="json") if about.windows else None,
    }  # fmt: skip
