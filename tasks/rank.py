"""One of the processes that train together: `python -m tasks.rank JOB`, started by `tasks.devices` as torchrun would.

It reads the windows itself. What it has to say goes to standard output, a JSON object a line: {"say": ...} and
{"notice": [seed, entry, epochs]} from the first process, and {"failed": [kind, message]} from any that fails.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from models.bundle import load_bundle
from models.errors import Diverged, Fault
from models.networks import NetworkSpec
from models.parallel import Team, join, leave
from models.scaling import Scaler
from models.series import SeriesFacts
from models.specs import FitSpec
from models.training import resolve_device
from models.windows import FoldSpec


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


def main(job: str, lifeline: str | None = None) -> int:
    """Train, and return the exit status.

    Args:
        job: the file that holds it.
        lifeline: number of the end of a pipe that is read from; once nobody holds its other end, this process ends.
    """
    tell = own_output()
    if lifeline:
        threading.Thread(target=end_with, args=(int(lifeline),), daemon=True).start()
    try:
        learn(Job.model_validate_json(Path(job).read_bytes()), tell)
    except Exception as error:
        kind = Fault if isinstance(error, Fault) and not isinstance(error, Diverged) else type(error)
        tell({"failed": [kind.__name__, str(error)]})
        raise
    return 0


def own_output() -> Callable[[dict], None]:
    """Where this process's words go; whatever libraries print goes the way of errors."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(words: dict) -> None:
        channel.write(json.dumps(words) + "\n")
        channel.flush()

    return tell


def end_with(lifeline: int) -> None:
    """End this process, whatever it does, as soon as the one that started it is gone."""
    os.read(lifeline, 1)
    os._exit(1)


def learn(job: Job, tell: Callable[[dict], None]) -> None:
    """Fit every seed of a job in step with the other processes; the first one leaves the checkpoints."""
    from tasks.progress import listener
    from tasks.seeds import fit_seeds
    from tasks.watching import watch
    from tasks.windows.folds import WindowSet

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
    fit_seeds(cut, job.facts, job.network, job.fit, job.checkpoints, start, team)
    leave()


if __name__ == "__main__":
    try:
        status = main(*sys.argv[1:])
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)  # a peer that is gone keeps the usual way out from ending
    sys.exit(status)
