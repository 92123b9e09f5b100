"""Training from end to end on very many series, and on one very long one.

First `--series` hourly series of `--steps` steps each, one Parquet file: a level of its own for each, a day's cycle and
noise. `train` runs on it as the command does; then one value of one series is changed in the file, and it runs again.
Then one series of `--long` steps, one a second: a minute's cycle, a slow drift and noise. It is trained for `--updates`
optimiser steps, and forecast.

How to read it: a table a run, with the seconds of each step, of how many calls it was made, and how many of these were
computed; the others came from the cache. A call is of one part of the file, one shard of series or one segment of a shard.
Peak memory is of the process that runs the flow and of all its children, imports included and the Prefect server left out,
looked at ten times a second; CPU-seconds are of the same, so that they hold on a busy machine too. Seconds are of the flow,
without imports and the start of a server. The scores are of the test fold. Steps are told on stderr as they end.

    python benchmarks/many_series.py [--series 10000] [--steps 2000] [--long 50000000] [--updates 300] [--folder DIR]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from machine import introduce

SEED = 0
ROWS = 1_000_000  # written at a time, about
FIRST = np.datetime64("2000-01-01T00:00:00", "us")
DAY, MINUTE = 24, 60  # steps of a cycle: hours, seconds


def stamps_from(first: int, count: int, unit: str) -> np.ndarray:
    return FIRST + np.arange(first, first + count) * np.timedelta64(1, unit)


def write_many(path: Path, num_series: int, num_steps: int, changed: int | None = None) -> None:
    """Series one after another; of the one that is `changed`, one value is another."""
    group = max(1, ROWS // num_steps)
    cycle, stamps = np.sin(2 * np.pi * np.arange(num_steps) / DAY), stamps_from(0, num_steps, "h")
    schema = pa.schema([("series", pa.string()), ("timestamp", pa.timestamp("us")), ("load", pa.float64())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, num_series, group):
            numbers = np.arange(first, min(first + group, num_series))
            rng = np.random.default_rng((SEED, first))
            level = np.exp(rng.normal(3, 1, (len(numbers), 1)))
            load = level * (1 + 0.4 * cycle + 0.1 * rng.standard_normal((len(numbers), num_steps)))
            if changed is not None and changed in numbers:
                load[changed - first, num_steps // 2] += 1
            names = np.repeat([f"series {number:06d}" for number in numbers], num_steps)
            columns = [names, np.tile(stamps, len(numbers)), load.reshape(-1)]
            writer.write_table(pa.table(columns, schema=schema))


def write_long(path: Path, num_steps: int) -> None:
    with pq.ParquetWriter(path, pa.schema([("timestamp", pa.timestamp("us")), ("load", pa.float64())])) as writer:
        for first in range(0, num_steps, ROWS):
            at = np.arange(first, min(first + ROWS, num_steps))
            noise = np.random.default_rng((SEED, first)).normal(0, 0.3, len(at))
            load = 10 + 3 * np.sin(2 * np.pi * at / MINUTE) + 2 * np.sin(2 * np.pi * at / 86_400) + noise
            writer.write_table(pa.table([stamps_from(first, len(at), "s"), load], schema=writer.schema))


def many_spec(num_steps: int) -> dict:
    fold = min(48, num_steps // 8)
    return {
        "name": "many",
        "store": "many-store",
        "source": {
            "uri": "many.parquet", "timestamp": "timestamp", "frequency": "h", "series_id": "series", "target": "load",
        },
        "folds": {"validation": fold, "test": fold},
        "windows": {"lookback": 3 * DAY, "horizon": DAY},
        "network": {"kind": "residual"},
        "fit": {"max_steps": 600, "schedule": "one_cycle"},
    }  # fmt: skip


def long_spec(num_steps: int, updates: int) -> dict:
    fold = min(100_000, num_steps // 8)
    return {
        "name": "long",
        "store": "long-store",
        "season": MINUTE,
        "source": {"uri": "long.parquet", "timestamp": "timestamp", "frequency": "s", "target": "load"},
        "folds": {"validation": fold, "test": fold},
        "windows": {"lookback": 2 * MINUTE, "horizon": MINUTE // 2},
        "network": {"kind": "residual"},
        "fit": {"max_steps": updates, "schedule": "one_cycle"},
    }


def write_spec(path: Path, document: dict) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path


def do_one(command: str, spec: Path) -> None:
    """The body of a process: one command; its outcome as JSON on stdout."""
    from flows.console import follow

    with follow(spec) as loaded:
        from flows.forecasting import forecasting
        from flows.training import training

        print({"train": training, "forecast": forecasting}[command](loaded).model_dump_json())


def measure(command: str, spec: Path) -> dict:
    """The outcome of one command in a process of its own, its CPU-seconds, and its peak memory in MB."""
    before = cpu_of_children()
    process = subprocess.Popen([sys.executable, __file__, "--do", command, str(spec)], stdout=subprocess.PIPE, text=True)
    peak, ended = [0], threading.Event()
    watch = threading.Thread(target=watch_memory, args=(process.pid, peak, ended))
    watch.start()
    said, _ = process.communicate()
    ended.set()
    watch.join()
    if process.returncode:
        raise SystemExit(f"{command} {spec.name} ended with {process.returncode}")
    return json.loads(said.splitlines()[-1]) | {"peak": peak[0] / 1e6, "cpu": cpu_of_children() - before}


def cpu_of_children() -> float:
    """CPU-seconds of every child process that has ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def watch_memory(pid: int, peak: list[int], ended: threading.Event) -> None:
    """Keep in `peak` the most bytes that a process and its children held at once."""
    while not ended.wait(0.1):
        try:
            process = psutil.Process(pid)
            held = sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])
        except psutil.NoSuchProcess:  # one of them ended meanwhile
            continue
        peak[0] = max(peak[0], held)


def tell(title: str, outcome: dict) -> None:
    """A table of the steps of one run."""
    seconds, cpu, peak = (outcome[name] for name in ("seconds", "cpu", "peak"))
    print(f"\n{title}: {seconds:.1f} s, {cpu:.1f} CPU-seconds, peak memory {peak:,.0f} MB")
    print(f"  {'step':24s}{'seconds':>10s}{'calls':>8s}{'computed':>10s}{'cached':>8s}")
    for one in outcome["tasks"]:
        computed = one["calls"] - one["cached"]
        print(f"  {one['step']:24s}{one['seconds']:>10.1f}{one['calls']:>8d}{computed:>10d}{one['cached']:>8d}")
    sys.stdout.flush()


def tell_scores(outcome: dict) -> None:
    """The model against seasonal naive over the whole horizon."""
    new, naive = (list(outcome["scores"][who]["test"].items())[-1] for who in ("new", "naive"))
    print(
        f"  test fold, {new[0]} steps: MAE {new[1]['mae']:.4g}, seasonal naive {naive[1]['mae']:.4g}; "
        f"MASE {new[1]['mase']:.3f}, seasonal naive {naive[1]['mase']:.3f}",
        flush=True,
    )


def calls_of(outcome: dict, step: str) -> int:
    return next(one["calls"] for one in outcome["tasks"] if one["step"] == step)


def many(folder: Path, num_series: int, num_steps: int) -> None:
    source, spec = folder / "many.parquet", write_spec(folder / "many.yaml", many_spec(num_steps))
    write_many(source, num_series, num_steps)
    first = measure("train", spec)
    size, shards = source.stat().st_size / 1e6, calls_of(first, "ingest")
    tell(f"{num_series:,} series of {num_steps:,} steps ({size:,.0f} MB), {shards} shards", first)
    tell_scores(first)
    write_many(source, num_series, num_steps, changed=num_series // 2)
    tell("one value of one series changed", measure("train", spec))


def long(folder: Path, num_steps: int, updates: int) -> None:
    source, spec = folder / "long.parquet", write_spec(folder / "long.yaml", long_spec(num_steps, updates))
    write_long(source, num_steps)
    trained = measure("train", spec)
    segments, size = calls_of(trained, "materialise_windows"), source.stat().st_size / 1e6
    tell(f"one series of {num_steps:,} steps ({size:,.0f} MB), {segments} segments, {updates} optimiser steps", trained)
    tell_scores(trained)
    if trained["promoted"]:
        tell("forecast of it", measure("forecast", spec))
    else:
        print(f"  no forecast: {trained['reason']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000, help="0 leaves this part out")
    parser.add_argument("--steps", type=int, default=2_000, help="of each of them")
    parser.add_argument("--long", type=int, default=50_000_000, help="steps of the long series; 0 leaves this part out")
    parser.add_argument("--updates", type=int, default=300, help="optimiser steps on the long series")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; else the system's temporary folder")
    parser.add_argument("--do", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        do_one(given.do[0], Path(given.do[1]))
        return
    from flows.console import use_server

    os.environ["PREFECT_API_URL"] = use_server(print)  # one server for every run
    introduce(f"many series, and a long one, seed {SEED}", "pyarrow", "numpy", "torch", "prefect")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        if given.series:
            many(Path(folder), given.series, given.steps)
        if given.long:
            long(Path(folder), given.long, given.updates)


if __name__ == "__main__":
    main()
