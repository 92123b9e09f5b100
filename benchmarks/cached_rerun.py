"""What a rerun costs when nothing changed, against Prefect's own share of it.

Compared, in one process and on one local server, turn by turn: the `training` flow with every step answered from the
store (keys made, every artifact's bytes verified, the report put in place, two artifacts for Prefect's UI), and a bare
flow of as many tasks that do nothing. The server, its database and the data live in a temporary folder and go with it.

How to read it: seconds of each, median and range; then the ratio of the medians, and the range of the ratios of
neighbouring turns. 1.0 would mean that verifying everything costs nothing next to what Prefect does anyway. It is done
twice. By default a flow run ends by waiting, up to a second, for the thread that sends its heartbeats; a run shorter
than that takes a second whatever it does, and the ratio says nothing. The first table is therefore without heartbeats
and is the one to judge by; the second is with them, as a user finds it.

    python benchmarks/cached_rerun.py [--turns 20]
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from machine import introduce, spread

SEED = 0
NUM_ROWS = 4_000


def write_source(path: Path) -> None:
    """An hourly series: a day's cycle and noise."""
    noise = np.random.default_rng(SEED).standard_normal(NUM_ROWS)
    target = 10 + 3 * np.sin(2 * np.pi * np.arange(NUM_ROWS) / 24) + 0.3 * noise
    stamps = pd.date_range("2024-01-01", periods=NUM_ROWS, freq="h")
    pd.DataFrame({"timestamp": stamps, "load": target}).to_csv(path, index=False)


def document(folder: Path) -> dict:
    """A spec as its YAML would say it; training is short, for it only has to be there."""
    return {
        "name": "rerun",
        "store": str(folder / "store"),
        "source": {"uri": str(folder / "load.csv"), "timestamp": "timestamp", "frequency": "h", "target": "load"},
        "folds": {"validation": 400, "test": 400},
        "windows": {"lookback": 72, "horizon": 24},
        "network": {"kind": "residual"},
        "fit": {"max_steps": 20},
    }


@contextmanager
def prefect_server(home: Path) -> Iterator[None]:
    """A Prefect server of this process' own, which every Prefect call after this goes to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "ERROR",  # for both flows: the console is kept for the figures
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(home / "server.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(server, home)
        yield
    finally:
        server.terminate()
        server.wait()


def wait_for(server: subprocess.Popen, home: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(os.environ["PREFECT_API_URL"] + "/health", timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"The Prefect server did not start; it said: {(home / 'server.log').read_text()[-2000:]}")


def compare(folder: Path, turns: int) -> None:
    from prefect import flow, task  # only now: Prefect reads its settings when it is imported
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.spec import check_spec
    from flows.training import training

    write_source(folder / "load.csv")
    spec = check_spec(document(folder), "benchmark")
    training(spec)
    states = [entry.state for entry in training(spec).tasks]

    @task
    def nothing(number: int) -> int:
        return number

    @flow(persist_result=False)
    def bare(num_tasks: int) -> None:
        for number in range(num_tasks):
            nothing(number)

    bare(len(states))
    flows = {"training, all cached": lambda: training(spec), "bare flow": lambda: bare(len(states))}
    print(f"{len(states)} task runs a flow: {states.count('Cached')} cached, the others have nothing to do; {turns} turns")
    for heartbeat in (None, 180):
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: heartbeat}):
            print_turns(f"heartbeats {f'every {heartbeat} s' if heartbeat else 'off'}", flows, turns)


def print_turns(title: str, flows: dict[str, Callable], turns: int) -> None:
    """Run the flows in turn and print how long each took, and their ratio."""
    seconds = {name: [] for name in flows}
    for _ in range(turns):
        for name, run in flows.items():
            time.sleep(1)  # let the server write down the run before, or this one waits for its database
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    print(f"\n{title}")
    for name, own in seconds.items():
        print(f"{name:22s}{spread(own, 3)} s")
    ours, rival = seconds.values()
    ratios = [mine / other for mine, other in zip(ours, rival, strict=True)]
    print(f"ratio of the medians {median(ours) / median(rival):.2f}; turn by turn {spread(ratios)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20)
    given = parser.parse_args()
    introduce(f"a rerun with nothing changed, seed {SEED}", "prefect", "pydantic", "pyarrow")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "prefect"
        home.mkdir()
        with prefect_server(home):
            compare(Path(folder), given.turns)


if __name__ == "__main__":
    main()
