"""What a training leaves on disk while it is on its way, so that a run that is killed goes on from there."""

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from models.errors import counted
from models.training import Checkpoint, Fitted
from tasks.progress import say
from tasks.storage import speaking_of, write_atomically

FORMAT = 2  # the form of the files
SECONDS = 60.0  # after which an epoch that is not over leaves a checkpoint too


class Keeper:
    """Keeps the checkpoint of one seed in a file, and says when the next one is due."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
        self.path, self.clock, self.saved_at = path, clock, clock()

    def due(self) -> bool:
        return self.clock() - self.saved_at >= SECONDS

    def save(self, checkpoint: Checkpoint) -> None:
        save_checkpoint(self.path, checkpoint)
        self.saved_at = self.clock()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint file; a kill leaves the old one or the new one."""
    from safetensors.torch import save

    about = {name: value for name, value in vars(checkpoint).items() if name != "tensors"}
    about |= {"format": FORMAT, "torch": version("torch"), "threads": torch.get_num_threads()}
    about["sha256"] = digest_of(checkpoint.tensors)
    with speaking_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(checkpoint.tensors, {"checkpoint": json.dumps(about)}))


def load_checkpoint(path: Path, to_go_on: bool = True) -> Checkpoint | None:
    """The checkpoint in a file, or None where there is none, or none that can be used: training then begins anew."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["checkpoint"])
            written, own = (about.pop("format", 1), about.pop("torch", "unknown")), (FORMAT, version("torch"))
            if written != own:
                raise ValueError("it has format {}, torch {}; this program has {}, {}".format(*written, *own))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        if about.pop("sha256") != digest_of(tensors):
            raise ValueError("its tensors are not what was written")
        threads, own = about.pop("threads"), torch.get_num_threads()
        if threads != own and to_go_on:
            made = f"{path.name} was made on {counted(threads, 'threads')}"
            say(f"{made}, this is {own}; the last digits of the weights may differ")
        return Checkpoint(tensors=tensors, **about)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        say(f"{path.name} can not be used ({error}); training begins anew")
        return None


def step_kept(path: Path) -> int:
    """The step that a checkpoint was made at, by its own account; 0 where there is none that can be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return int(json.loads(file.metadata()["checkpoint"])["step"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        return 0


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names and bytes; safetensors has no checksum of its own."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"=")
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def forget(checkpoints: Path) -> None:
    """Remove the checkpoints of a training that is done."""
    shutil.rmtree(checkpoints, ignore_errors=True)


def last_of(checkpoints: Path, seed: int) -> Fitted:
    """What the last checkpoint of a seed keeps.

    Raises:
        OSError: it can not be read.
    """
    last = load_checkpoint(checkpoints / f"seed-{seed}.safetensors", to_go_on=False)
    if last is None:
        raise OSError(
            errno.EIO, f"No checkpoint of seed {seed} that can be read is in {checkpoints}, though training ended well"
        )
    weights = {name.removeprefix("best."): value for name, value in last.tensors.items() if name.startswith("best.")}
    return Fitted(weights, last.history, last.best_epoch)
