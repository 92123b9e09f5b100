"""CSV to canonical Parquet, every check on, against readers that check nothing.

The same CSV (10-second rows of one series with three numbers each) is read

    bare       by pyarrow.csv.read_csv into memory, stamps and numbers typed, and no more
    streamed   by pyarrow.csv.open_csv, a block at a time, and no more
    pandas     by pandas.read_csv, stamps parsed, sorted and checked for repeats, then written as Parquet
    ours       by the flow behind `convcast check`: read, surveyed, arranged, checked, written, every artifact hashed

each in a process of its own, in turn, so that a ratio is of two runs next to each other in time. Seconds are of the work
alone, without imports and the start of a server; peak memory is of the whole process, imports included. The first table is
on a tenth of the rows: memory should stay as it is, and time grow with the rows. At the end 1 % more rows are appended and
the source is read again.

    python benchmarks/ingest.py [--gigabytes 1] [--repetitions 3] [--folder DIR]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from machine import introduce, spread

BLOCK = 1_000_000  # rows written at a time
STEP = 10  # seconds
SEED = 0
FIRST = np.datetime64("2000-01-01T00:00:00", "us")
TYPES = {"timestamp": pa.timestamp("us"), "demand": pa.float64(), "temperature": pa.float64(), "workday": pa.float64()}
SPEC = {
    "name": "bench",
    "source": {
        "timestamp": "timestamp",
        "frequency": "10s",
        "target": "demand",
        "future_covariates": ["temperature", "workday"],
    },
    "folds": {"validation": 1000, "test": 1000},
    "windows": {"lookback": 72, "horizon": 24},
}


def make_rows(first: int, count: int) -> pa.Table:
    rng = np.random.default_rng((SEED, first))
    at = np.arange(first, first + count)
    return pa.table(
        {
            "timestamp": (FIRST + at * np.timedelta64(STEP, "s")).astype("datetime64[s]"),
            "demand": np.round(5 + np.sin(2 * np.pi * at / 8640) + rng.normal(0, 0.3, count), 5),
            "temperature": np.round(rng.normal(20, 5, count), 2),
            "workday": (at // 8640 % 7 < 5).astype(np.int8),
        }
    )


def append_rows(path: Path, first: int, count: int) -> None:
    with open(path, "ab") as file:
        for at in range(first, first + count, BLOCK):
            options = pyarrow.csv.WriteOptions(include_header=at == 0, quoting_style="none")
            pyarrow.csv.write_csv(make_rows(at, min(BLOCK, first + count - at)), file, options)


def bare(path: Path, _: Path) -> dict:
    options = pyarrow.csv.ConvertOptions(column_types=TYPES)
    return {"rows": pyarrow.csv.read_csv(path, convert_options=options).num_rows}


def streamed(path: Path, _: Path) -> dict:
    options = pyarrow.csv.ConvertOptions(column_types=TYPES)
    return {"rows": sum(batch.num_rows for batch in pyarrow.csv.open_csv(path, convert_options=options))}


def with_pandas(path: Path, folder: Path) -> dict:
    import pandas as pd

    frame = pd.read_csv(path, parse_dates=["timestamp"])
    if not frame["timestamp"].is_monotonic_increasing or frame["timestamp"].duplicated().any():
        raise SystemExit("out of order")
    frame.to_parquet(folder / "pandas.parquet")
    return {"rows": len(frame)}


def ours(path: Path, folder: Path) -> dict:
    from flows.checking import checking
    from flows.spec import check_spec

    document = SPEC | {"store": str(folder / "store"), "source": SPEC["source"] | {"uri": str(path)}}
    checked = checking(check_spec(document, "bench"))
    steps = {entry.step: {"seconds": entry.seconds, "calls": entry.calls, "cached": entry.cached} for entry in checked.tasks}
    return {"rows": checked.rows, "seconds": checked.seconds, "steps": steps}


WAYS = {"bare": bare, "streamed": streamed, "pandas": with_pandas, "ours": ours}


def do_one(way: str, path: Path, folder: Path) -> None:
    """The body of a process: one way, timed, its figures as JSON on stdout."""
    if way == "ours":
        os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
        import flows.checking  # noqa: F401, its imports do not count

    begun, cpu = time.perf_counter(), time.process_time()
    facts = WAYS[way](path, folder)
    facts = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu} | facts
    print(json.dumps(facts))


def measure(way: str, path: Path, folder: Path) -> dict:
    """Seconds, CPU-seconds and peak MB of one way in a process of its own."""
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, __file__, "--way", way, str(path), str(folder)], stdout=write)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{way} failed")
    return json.loads(said.splitlines()[-1]) | {"peak": usage.ru_maxrss / 1000}


def compare(path: Path, repetitions: int) -> list[dict]:
    """A table of all ways on one file; returns the runs of ours."""
    runs: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(repetitions):
        for way in WAYS:
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                runs[way].append(measure(way, path, Path(folder)))
                assert runs[way][-1]["rows"] == runs["bare"][0]["rows"]
    size = path.stat().st_size
    print(f"\n{size / 1e9:.2f} GB, {runs['bare'][0]['rows']:,} rows, {repetitions} repetitions")
    heads = {"seconds": 22, "CPU-seconds": 22, "MB a second": 16, "peak MB": 10, "of bare throughput": 24, "of streamed": 22}
    print(" " * 12 + "".join(f"{head:>{width}s}" for head, width in heads.items()))
    for way, own in runs.items():
        seconds = [one["seconds"] for one in own]
        share, other = (
            [a["seconds"] / b["seconds"] for a, b in zip(runs[peer], own, strict=True)] for peer in ("bare", "streamed")
        )
        rate = size / 1e6 / sorted(seconds)[len(seconds) // 2]
        peak = max(one["peak"] for one in own)
        cpu = spread([one["cpu"] for one in own])
        print(f"{way:12s}{spread(seconds):>22s}{cpu:>22s}{rate:>16.0f}{peak:>10.0f}{spread(share):>24s}{spread(other):>22s}")
    for name in runs["ours"][0]["steps"]:
        print(f"  ours, {name:10s}{spread([one['steps'][name]['seconds'] for one in runs['ours']]):>18s} s")
    return runs["ours"]


def appended(path: Path, rows: int) -> None:
    """Ours on a file, and again after a hundredth of its rows were appended."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        first = measure("ours", path, Path(folder))
        append_rows(path, rows, rows // 100)
        second = measure("ours", path, Path(folder))
    read = second["steps"]["read"]
    print(
        f"\nafter 1 % more rows: {second['seconds']:.2f} s, {first['seconds'] / second['seconds']:.1f} times faster than from "
        f"nothing ({first['seconds']:.2f} s); {read['cached']} of {read['calls']} parts were not read again"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; else the system's temporary folder")
    parser.add_argument("--way", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        do_one(given.way[0], Path(given.way[1]), Path(given.way[2]))
        return
    from flows.console import use_server

    os.environ["PREFECT_API_URL"] = use_server(print)  # one server for every turn
    introduce("CSV to canonical Parquet", "pyarrow", "pandas", "numpy", "prefect")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        large, small = Path(folder) / "large.csv", Path(folder) / "small.csv"
        append_rows(small, 0, 100_000)
        rows = int(given.gigabytes * 1e9 / small.stat().st_size * 100_000) // 10 * 10
        small.unlink()
        append_rows(large, 0, rows)
        append_rows(small, 0, rows // 10)
        tenth, whole = compare(small, given.repetitions), compare(large, given.repetitions)
        time_ratio = [a["seconds"] / b["seconds"] for a, b in zip(whole, tenth, strict=True)]
        peak_ratio = [a["peak"] / b["peak"] for a, b in zip(whole, tenth, strict=True)]
        print(f"\nours, ten times the rows: time x {spread(time_ratio)}, peak memory x {spread(peak_ratio)}")
        appended(large, rows)


if __name__ == "__main__":
    main()
