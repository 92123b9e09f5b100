"""Processes that do a part of a step's work: started, listened to, and all ended with the one that started them.

What a child has to say goes to its standard output, a JSON object a line: {"say": ...}, {"notice": [seed, entry, epochs]},
and {"failed": [kind, message]} where it fails. What libraries print there goes the way of errors, into a file.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from models.errors import Diverged, Fault
from tasks.progress import say
from tasks.watching import notice

GRACE_SECONDS = 3.0  # in which the others may say what they saw, once one has failed
FAULTS = (Fault, Diverged)  # that a process says it has raised


class ProcessLost(ConnectionError):
    """A process that did a part of the work is gone; a retry goes on from the last checkpoint."""


@dataclass
class Child:
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


@contextmanager
def started(module: str, job: Path, environments: Sequence[dict[str, str]]) -> Iterator[list[Child]]:
    """A process for each environment that runs `module` on a job file in a folder of its own.

    All have ended once the body has, however it ends; and so they do if this process is killed.
    """
    children: list[Child] = []
    lifeline, held = os.pipe()
    try:
        for number, environment in enumerate(environments, 1):
            errors = job.with_name(f"process-{number}.log")
            with open(errors, "wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, str(job), str(lifeline)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    pass_fds=[lifeline],
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)} | environment,
                )
            children.append(Child(number, process, errors))
        yield children
    finally:
        os.close(held)
        os.close(lifeline)
        for one in children:
            one.process.kill()
        for one in children:
            one.process.wait()
            one.process.stdout.close()


def follow(children: list[Child]) -> None:
    """Pass on what the processes say until all have ended, or one has failed and the others had their time to tell why."""
    deadline = None
    with selectors.DefaultSelector() as selector:
        for one in children:
            selector.register(one.process.stdout, selectors.EVENT_READ, one)
        while any(one.process.poll() is None for one in children) or selector.get_map():
            for key, _ in selector.select(timeout=0.1):
                if not key.data.hear():
                    selector.unregister(key.fileobj)
            if deadline is None and any(one.kind for one in children):
                deadline = time.monotonic() + GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                return


def failure(failed: list[Child], what: str) -> Exception:
    """What to raise for the processes that did not end well: the cause, and not what followed from it. `what` they all do.

    One that was ended by the others' silence says `PeerLost`; one that is still there has said nothing.
    """
    first = min(failed, key=lambda one: (one.kind is None, one.kind == "PeerLost", one.number))
    kind, said = first.kind, first.failed[1] if first.failed else last_words(first.errors)
    if faults := [fault for fault in FAULTS if fault.__name__ == kind]:
        return faults[0](said)
    who = f"Process {first.number} of {what}"
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


def own_output() -> Callable[[dict], None]:
    """Where a child's words go; whatever libraries print goes the way of errors."""
    channel, lock = os.fdopen(os.dup(1), "w", encoding="utf-8"), threading.Lock()
    os.dup2(2, 1)

    def tell(words: dict) -> None:
        with lock:
            channel.write(json.dumps(words) + "\n")
            channel.flush()

    return tell


def end_with(lifeline: int) -> None:
    """End this process, whatever it does, as soon as the one that started it is gone."""
    os.read(lifeline, 1)
    os._exit(1)


def be_child(work: Callable[[bytes, Callable[[dict], None]], None], job: str, lifeline: str | None = None) -> None:
    """Do the work of a child and end its process.

    Args:
        work: given what is in the job file, and where to tell of it.
        lifeline: number of the end of a pipe that is read from; once nobody holds its other end, this process ends.
    """
    tell = own_output()
    if lifeline:
        threading.Thread(target=end_with, args=(int(lifeline),), daemon=True).start()
    status = 0
    try:
        work(Path(job).read_bytes(), tell)
    except Exception as error:
        kind = Fault if isinstance(error, Fault) and not isinstance(error, Diverged) else type(error)
        tell({"failed": [kind.__name__, str(error)]})
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # The usual way out waits for peers that are gone, and aborts where one of torch's own threads is not through yet.
    os._exit(status)
