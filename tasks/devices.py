"""Start the processes that train together on this machine, pass on what they say, and end them all if one fails."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.distributed import TCPStore

from models.errors import Diverged, Fault
from tasks import rank
from tasks.progress import say
from tasks.rank import Job
from tasks.watching import notice

HOST = "127.0.0.1"
GRACE_SECONDS = 3.0  # in which the others may say what they saw, once one has failed
FAULTS = (Fault, Diverged)  # that a process says it has raised


class ProcessLost(ConnectionError):
    """A process that trained with others is gone; a retry goes on from the last checkpoint."""


@dataclass
class Rank:
    """One of the processes."""

    number: int
    process: subprocess.Popen
    errors: Path  # what it wrote as errors
    waiting: bytes = b""  # of a line that is not whole yet
    failed: tuple[str, str] | None = None  # kind and message, by its own account

    def hear(self) -> bool:
        """Pass on the lines that have come; whether more can come."""
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        *lines, self.waiting = (self.waiting + chunk).split(b"\n")
        for words in map(json.loads, lines):
            if "say" in words:
                say(words["say"])
            elif "notice" in words:
                notice(*words["notice"])  # which may raise, to stop the training
            else:
                self.failed = tuple(words["failed"])
        return bool(chunk)

    @property
    def kind(self) -> str | None:
        """Why it ended, in a word; None where it has not, or ended well."""
        status = self.process.poll()
        if not status:
            return None
        if self.failed:
            return self.failed[0]
        return "killed" if status < 0 else "died"


def train_together(job: Job) -> None:
    """Run a job in `fit.devices` processes; their checkpoints hold what they learned.

    Raises:
        Fault: what one of them raised.
        Stopped: whoever watches this training wants no more of it.
        ProcessLost: one of them was killed, or stopped answering.
        torch.OutOfMemoryError: a device has too little memory for its part.
        RuntimeError: one of them failed in another way.
    """
    with TemporaryDirectory(prefix="convcast-") as folder:
        path = Path(folder, "job.json")
        path.write_text(job.model_dump_json(), encoding="utf-8")
        with started(path, job.fit.devices) as ranks:
            follow(ranks)
            failed = [one for one in ranks if one.process.poll() != 0]
            if failed:
                raise failure(failed, len(ranks))


@contextmanager
def started(job: Path, count: int) -> Iterator[list[Rank]]:
    """The processes, all of which have ended once the body has, however it ends; and so they do if this process is killed."""
    ranks: list[Rank] = []
    listening = socket.create_server((HOST, 0))  # bound here, so that nobody else can take the port
    port = listening.getsockname()[1]
    meeting = TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    lifeline, held = os.pipe()
    try:
        for number in range(count):
            errors = job.with_name(f"rank-{number + 1}.log")
            with open(errors, "wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", rank.__name__, str(job), str(lifeline)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    pass_fds=[lifeline],
                    env=os.environ | environment(number, count, port),
                )
            ranks.append(Rank(number + 1, process, errors))
        yield ranks
    finally:
        os.close(held)
        os.close(lifeline)
        for one in ranks:
            one.process.kill()
        for one in ranks:
            one.process.wait()
            one.process.stdout.close()
        del meeting


def environment(number: int, count: int, port: int) -> dict[str, str]:
    """What torchrun would set, modules where this process has them, and no network but loopback."""
    named = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    interface = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback} if loopback else {}
    return {
        **{name: str(value) for name, value in named.items()},
        **interface,
        "MASTER_ADDR": HOST,
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the one that listens is this process, not the first of theirs
        "TORCHELASTIC_RESTART_COUNT": "0",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }


def follow(ranks: list[Rank]) -> None:
    """Pass on what the processes say until all have ended, or one has failed and the others had their time to tell why."""
    deadline = None
    with selectors.DefaultSelector() as selector:
        for one in ranks:
            selector.register(one.process.stdout, selectors.EVENT_READ, one)
        while any(one.process.poll() is None for one in ranks) or selector.get_map():
            for key, _ in selector.select(timeout=0.1):
                if not key.data.hear():
                    selector.unregister(key.fileobj)
            if deadline is None and any(one.kind for one in ranks):
                deadline = time.monotonic() + GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                return


def failure(failed: list[Rank], count: int) -> Exception:
    """What to raise for the processes that did not end well: the cause, and not what followed from it.

    One that was ended by the others' silence says `PeerLost`; one that is still there has said nothing.
    """
    first = min(failed, key=lambda one: (one.kind is None, one.kind == "PeerLost", one.number))
    kind, said = first.kind, first.failed[1] if first.failed else last_words(first.errors)
    if faults := [fault for fault in FAULTS if fault.__name__ == kind]:
        return faults[0](said)
    who = f"Process {first.number} of {count} that train together (fit.devices)"
    if kind == "OutOfMemoryError":
        return torch.OutOfMemoryError(f"{who}: {said}")
    if kind == "killed":
        name = signal.Signals(-first.process.returncode).name
        return ProcessLost(
            f"{who} was ended by {name}, by hand or for want of memory; the others were stopped. "
            "What was learned up to the last checkpoint is kept, and the next run goes on from there."
        )
    if kind == "PeerLost":
        return ProcessLost(f"{who} heard no more of another one: {said}. The next run goes on from the last checkpoint.")
    return RuntimeError(f"{who} failed: {kind}: {said}")


def last_words(errors: Path) -> str:
    """The last line of what a process wrote as errors."""
    lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it left no word"
