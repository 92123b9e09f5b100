"""Make the golden bundles of the present format: `python tests/make_golden.py`, once for each format that is raised.

Each is a folder `tests/golden/format-<n>/<kind>/` with the two files of a small bundle, and `case.json` with windows and what
the bundle said of them when its format was new. A folder that is there already is left as it is, for ever.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.batches import Batch
from models.bundle import FORMAT, Bundle, Description, Member, dump_bundle
from models.conformal import Calibration, shifted
from models.networks import NetworkSpec
from models.scaling import Scaler, ScalingSpec, SeriesScale
from models.series import Columns, SeriesFacts
from models.specs import LinearSpec, PeriodicSpec, PyramidSpec, ReferenceSpec, RegressionSpec, ResidualSpec
from models.windows import WindowSpec

GOLDEN = Path(__file__).resolve().parent / "golden"
KNOWN = Columns(future=("x",), calendar=("hour",))
MIXED = Columns(masked=True, past=("p",), future=("x",), holidays="AU", static=("size",))
DATED = Columns(masked=True, future=("x",), calendar=("hour", "date"), static=("size",))
WINDOWS = WindowSpec(lookback=12, horizon=3)
LEVELS = (0.1, 0.5, 0.9)
SMALL = ResidualSpec(channels=2, depth=4)
PERIODIC = PeriodicSpec(channels=2)
REFERENCE, PYRAMID, REGRESSION = ReferenceSpec(filters=2, hidden=4), PyramidSpec(detail=3, width=3), RegressionSpec(width=3)
EMBEDDING = ResidualSpec(channels=2, depth=4, embedding=2)
# by name: the networks, the columns, the season, and whether there are quantiles
KINDS: dict[str, tuple[tuple[NetworkSpec, ...], Columns, int, bool]] = {
    "reference": ((REFERENCE,), KNOWN, 4, False),
    "residual": ((SMALL,), KNOWN, 4, False),
    "residual-mixed": ((SMALL,), MIXED, 4, False),
    "residual-no-season": ((SMALL,), Columns(), 1, False),
    "residual-embedding": ((EMBEDDING,), KNOWN, 4, False),
    "periodic": ((PERIODIC,), KNOWN, 4, False),
    "periodic-no-rescale": ((PeriodicSpec(channels=2, branch="all", rescale=False),), KNOWN, 1, False),
    "periodic-no-branch": ((PeriodicSpec(branch="none"),), KNOWN, 4, False),
    "pyramid": ((PYRAMID,), MIXED, 4, False),
    "regression": ((REGRESSION,), MIXED, 4, False),
    "linear": ((LinearSpec(lookback=8),), KNOWN, 4, False),
    "linear-quantiles": ((LinearSpec(),), Columns(), 1, True),
    "blend-quantiles": ((EMBEDDING, PERIODIC, LinearSpec()), KNOWN, 4, True),
    "dates-quantiles": ((SMALL, PERIODIC, PYRAMID, REGRESSION, REFERENCE), DATED, 4, True),
    "floor-quantiles": ((PERIODIC, LinearSpec()), KNOWN, 4, True),
}


def small_bundle(kind: str) -> Bundle:
    """A bundle of this kind, two seeds a network, with weights that say something."""
    networks, columns, season, sure = KINDS[kind]
    ones = (1.0,) * columns.num_channels
    floor = 0.0 if kind == "floor-quantiles" else None
    scales = {name: SeriesScale(mean=ones, std=ones, naive_mae=0.5, steps=50, floor=floor) for name in ("a", "b")}
    offsets = ((-0.1, 0.0, 0.2), (-0.2, 0.9, 0.1), (0.0, 0.1, 0.3))  # some make neighbours change places
    calibration = Calibration(levels=LEVELS, offsets=offsets, rolling=True, num_windows=40, held_out=20)
    about = Description(
        format=FORMAT, members=tuple(Member(network=one, seeds=(0, 7)) for one in networks), windows=WINDOWS,
        series=SeriesFacts(target="y", columns=columns, frequency="h", season=season, timezone="UTC"),
        scaler=Scaler(channels=columns.names, season=season, scaling=ScalingSpec(), series=scales),
        trained_on="0" * 64, calibration=calibration if sure else None, versions={},
    )  # fmt: skip
    torch.manual_seed(0)
    weights = [[stirred(about.build(one)) for _ in (0, 7)] for one in networks]
    return Bundle(about, weights, stirred(about.build_spread()) if sure else None)


def stirred(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights of which none is zero."""
    return {name: value + 0.1 * torch.randn_like(value) for name, value in network.state_dict().items()}


def told(bundle: Bundle, windows: list, series: list[int]) -> dict[str, list]:
    """What a bundle says of windows (B, L+H, C) of series with these numbers; targets of the horizon are not looked at."""
    about = bundle.description
    batch, numbers = Batch.split(torch.tensor(windows), about.windows.lookback, about.series.columns), torch.tensor(series)
    forecast = bundle.forecast(batch.past, batch.future, numbers)
    if not about.calibration:
        return {"forecast": forecast.tolist()}
    around = shifted(bundle.quantiles(batch.past, batch.future, forecast), about.calibration.rolled(1).offsets)
    floors = bundle.floors_of(batch.past, numbers).numpy()
    return {"forecast": forecast.tolist(), "quantiles": np.maximum(around, floors[:, None, None]).tolist()}


def small_windows(kind: str) -> list:
    torch.manual_seed(1)
    windows = (torch.randn(3, WINDOWS.span, KINDS[kind][1].num_channels) * 1000).round().div(1000)
    if kind == "floor-quantiles":
        windows[2, :, 0] = windows[2, :, 0].clamp(min=0) - 1  # where its targets are 0 or more
    return windows.tolist()


def make_golden(kind: str, folder: Path) -> None:
    bundle, series = small_bundle(kind), [0, 1, 2]
    windows = small_windows(kind)
    folder.mkdir(parents=True)
    for name, content in dump_bundle(bundle).items():
        (folder / name).write_bytes(content)
    case = {"windows": windows, "series": series, **told(bundle, windows, series)}
    (folder / "case.json").write_text(json.dumps(case) + "\n")


if __name__ == "__main__":
    for kind in KINDS:
        place = GOLDEN / f"format-{FORMAT}" / kind
        if not place.exists():
            make_golden(kind, place)
            print(place.relative_to(GOLDEN))
