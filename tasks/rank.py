"""One of the processes that train together: `python -m tasks.rank JOB`, started by `tasks.devices` as torchrun would.

It reads the windows itself. Of what all processes learn alike, the first one tells.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from models.bundle import load_bundle
from models.networks import NetworkSpec
from models.parallel import Team, join, leave
from models.scaling import Scaler
from models.series import SeriesFacts
from models.specs import FitSpec
from models.training import resolve_device
from models.windows import FoldSpec
from tasks.children import be_child


class Job(BaseModel):
    """What every process is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[Path, ...]  # of windows
    scaler: Scaler
    folds: FoldSpec
    facts: SeriesFacts
    network: NetworkSpec
    fit: FitSpec
    checkpoints: Path  # a folder
    start: Path | None = None  # the folder of a bundle whose weights to begin with
    fold: str = "train"  # what is learned from


def learn(given: bytes, tell: Callable[[dict], None]) -> None:
    """Fit every seed of a job in step with the other processes; the first one leaves the checkpoints."""
    from tasks.progress import listener
    from tasks.seeds import fit_seeds
    from tasks.watching import watch
    from tasks.windows.folds import WindowSet

    job = Job.model_validate_json(given)
    device = resolve_device(job.fit.device)
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    team: Team = join(device)
    torch.set_num_threads(max(1, torch.get_num_threads() // team.size))  # the cores are shared
    if team.is_first:
        listener.set(lambda line: tell({"say": line}))
        watch.set(lambda *noticed: tell({"notice": noticed}))
    start = None
    if job.start:
        start = load_bundle(*((job.start / name).read_bytes() for name in ("weights.safetensors", "bundle.json")))
    cut = WindowSet(list(job.files), job.scaler, job.folds)
    fit_seeds(cut, job.facts, job.network, job.fit, job.checkpoints, start, job.fold, team)
    leave()


if __name__ == "__main__":
    be_child(learn, *sys.argv[1:])
