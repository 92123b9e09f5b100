"""A training that is killed again and again ends in the bytes of one that never was."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from training_child import write_windows

TESTS = Path(__file__).parent
PHASES = ("begins", "learns", "saves within an epoch", "saves after an epoch", "validates")
AIMS = (*PHASES, "learns", "any moment")


@contextmanager
def nursery(folder: Path) -> Iterator[subprocess.Popen]:
    """A process that forks trainings off, and ends with its standard input."""
    places = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / "training_child.py"), str(folder)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        yield parent


def tell(parent: subprocess.Popen, line: str) -> None:
    parent.stdin.write(f"{line}\n")
    parent.stdin.flush()


def live(parent: subprocess.Popen, checkpoints: Path, result: Path, aim: str | None, seconds: float, chance: random.Random):
    """Begin a training and kill it at a random moment of the phase that is aimed at, or of its whole life.

    Returns the phase it was killed in, None where it came to its end first.
    """
    tell(parent, f"{checkpoints} {result}")
    pid, phase = int(parent.stdout.readline()), "begins"
    passing = chance.randint(1, 40 if aim == "learns" else 2)
    if aim == "any moment":
        time.sleep(chance.uniform(0, seconds))
    while aim != "any moment" and phase not in ("done", "failed"):
        phase = parent.stdout.readline().strip()
        passing -= phase == aim
        if phase == aim and not passing:
            time.sleep(chance.uniform(0, 0.003))
            break
    os.kill(pid, signal.SIGKILL)  # of no effect on one that has ended, whose number nobody else has yet
    tell(parent, "wait for it")
    while not (line := parent.stdout.readline().strip()).startswith("ended"):
        phase = line
    assert line in (f"ended with {-signal.SIGKILL}", "ended with 0"), phase
    return None if phase == "done" else phase


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=[pytest.mark.kills, pytest.mark.timeout(3600)])])
def test_a_training_killed_at_random_moments_ends_in_the_bytes_of_an_uninterrupted_one(tmp_path, kills):
    write_windows(tmp_path)
    whole, chance, found, ended = tmp_path / "whole.safetensors", random.Random(kills), Counter(), 0
    with nursery(tmp_path) as parent:
        begun = time.monotonic()
        assert live(parent, tmp_path / "whole", whole, None, 0, chance) is None
        seconds = time.monotonic() - begun
        while found.total() < kills:
            checkpoints, result = tmp_path / f"run-{ended}", tmp_path / f"run-{ended}.safetensors"
            while not result.exists():
                aim = AIMS[found.total() % len(AIMS)] if found.total() < kills else None
                phase = live(parent, checkpoints, result, aim, seconds, chance)
                if phase is not None:
                    found[phase] += 1
            assert result.read_bytes() == whole.read_bytes()
            ended += 1
    said = ", ".join(f"{count} as it {phase}" for phase, count in found.most_common())
    print(f"\n{found.total()} kills of {ended} trainings: {said}; each ended in the bytes of an uninterrupted one")
    assert len(found) >= min(kills, len(PHASES))
