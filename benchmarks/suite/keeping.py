"""Forecasts of the rivals kept between runs: of the same data, the same code and the same versions only."""

import hashlib
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from suite.panel import Panel
from suite.simple import Outcome

LIBRARIES = {"suite.simple": ("numpy", "torch"), "suite.trees": ("numpy", "lightgbm")}


def kept(folder: Path | None, name: str, rival: Callable[[Panel, int], Outcome], panel: Panel, num_seeds: int) -> Outcome:
    """What a rival forecasts, from `folder` if it was kept there, else made now and kept."""
    if folder is None:
        return rival(panel, num_seeds)
    path = folder / f"{panel.name}-{name.replace(' ', '-')}-{fingerprint(panel, num_seeds, rival.__module__)}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as held:
            return Outcome(list(held["forecasts"]), held["seconds"].tolist(), str(held["chosen"]))
    outcome = rival(panel, num_seeds)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, forecasts=np.stack(outcome.forecasts), seconds=outcome.seconds, chosen=outcome.chosen)
    partial.replace(path)
    return outcome


def fingerprint(panel: Panel, num_seeds: int, module: str) -> str:
    """Of everything that decides the forecasts of a rival in `module`, but for the number of threads."""
    digest = hashlib.sha256()
    for name in ("suite.panel", module):
        digest.update(Path(sys.modules[name].__file__).read_bytes())
    versions = [version(name) for name in LIBRARIES[module]]
    digest.update(json.dumps([panel.name, panel.frequency, panel.season, panel.horizon, num_seeds, *versions]).encode())
    for name, one in panel.series.items():
        digest.update(name.encode())
        for values in (one.target, one.future, one.past, one.stamps.to_numpy()):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]
