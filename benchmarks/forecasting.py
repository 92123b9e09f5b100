"""How long it takes to forecast very many series from a stored model, and where the time goes.

`--series` hourly series of `--steps` steps, each a level of its own, a day's cycle and noise, lie in canonical Parquet, in as
many shards as `tasks.ingest.shards` makes of them. Beside them lies a bundle of a residual network, and of a net that tells
eleven quantiles; its weights are as they were drawn, for better ones take as long. Timed is what the step `forecast` does:
read the bundle, read the newest rows of each series, forecast 48 steps with their quantiles, and publish the rows to the
Delta table.

How to read it: seconds and CPU-seconds of each part, without those that it calls, and how often it was called. On a busy
machine two threads wait for one another: OMP_NUM_THREADS=1 tells what the work itself takes. Then the same for the most
series whose quantiles follow the newest errors of each; of more, none does.

    python benchmarks/forecasting.py [--series 10000] [--steps 2000] [--folder DIR]
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import introduce

from models.bundle import FORMAT, Bundle, Description, Member, dump_bundle, load_bundle
from models.conformal import Calibration
from models.errors import counted
from models.networks import build_network
from models.scaling import Scaler, ScalingSpec, SeriesScale
from models.series import Columns, SeriesFacts
from models.specs import QuantileSpec, ResidualSpec
from models.spread import SpreadNet
from models.windows import WindowSpec
from tasks.forecast import outlook, table
from tasks.ingest.segments import ROW_GROUP
from tasks.ingest.shards import count_shards
from tasks.ingest.statics import Statics
from tasks.ingest.task import Segment, Series
from tasks.storage import Store

SEED, SEASON, HORIZON = 0, 24, 48
HOUR = 3_600_000_000  # microseconds
WINDOWS = WindowSpec(lookback=9 * SEASON, horizon=HORIZON)
COLUMNS = Columns()
HELD_OUT = 2 * 7 * SEASON  # steps of each series that nothing was trained on


def name_of(number: int) -> str:
    return f"series {number:06d}"


def write_shard(store: Store, shard: int, numbers: np.ndarray, num_steps: int) -> Series:
    """Series one after another, as the step `ingest` leaves them."""
    key = f"shard-{shard}"
    folder = store.folder("ingest", key)
    folder.mkdir(parents=True)
    rng = np.random.default_rng((SEED, shard))
    cycle = np.sin(2 * np.pi * np.arange(num_steps) / SEASON)
    load = np.exp(rng.normal(3, 1, (len(numbers), 1))) * (
        1 + 0.4 * cycle + 0.1 * rng.standard_normal((len(numbers), num_steps))
    )
    stamps = np.arange(num_steps) * HOUR
    ids = pa.DictionaryArray.from_arrays(np.repeat(np.arange(len(numbers), dtype=np.int32), num_steps), map(name_of, numbers))
    times = pa.array(np.tile(stamps, len(numbers))).view(pa.timestamp("us", "UTC"))
    columns = pa.table([ids, times, load.reshape(-1)], names=["series_id", "timestamp", "target"])
    pq.write_table(columns, folder / "segment-0.parquet", row_group_size=ROW_GROUP, store_schema=False)
    newest = {"rows": num_steps, "steps": num_steps, "first": 0, "last": int(stamps[-1])}
    facts = {"series": {name_of(number): newest for number in numbers}, "repairs": [], "faults": []}
    (folder / "index.json").write_text(json.dumps(facts))
    segment = Segment(name="segment-0.parquet", rows=load.size, continues=False, sha256="0" * 64)
    return Series(
        step="ingest", key=key, digest="d", shard=shard, rows=load.size, steps=load.size, num_series=len(numbers), first=0,
        last=newest["last"], segments=(segment,), repairs={}, num_faults=0,
    )  # fmt: skip


def make_bundle(num_series: int, num_steps: int) -> dict[str, bytes]:
    """The files of a model that knows every series."""
    scale = SeriesScale(mean=(25.0,), std=(10.0,), naive_mae=3.0, steps=num_steps)
    scales = {name_of(number): scale for number in range(num_series)}
    levels = QuantileSpec().levels
    torch.manual_seed(SEED)
    network = build_network(ResidualSpec(), COLUMNS, WINDOWS, SEASON)
    about = Description(
        format=FORMAT, members=(Member(network=ResidualSpec(), seeds=(SEED,)),), windows=WINDOWS,
        series=SeriesFacts(target="load", columns=COLUMNS, frequency="h", season=SEASON, timezone="UTC"),
        scaler=Scaler(channels=COLUMNS.names, season=SEASON, scaling=ScalingSpec(), series=scales), trained_on="0" * 64,
        calibration=Calibration(
            levels=levels, offsets=((0.0,) * len(levels),) * HORIZON, rolling=True, num_windows=1, held_out=HELD_OUT,
        ),
        versions={},
    )  # fmt: skip
    spread = SpreadNet.fresh(levels, COLUMNS, WINDOWS, SEASON)
    return dump_bundle(Bundle(about, [[network.state_dict()]], spread.state_dict()))


class Stopwatch:
    """Seconds and CPU-seconds of some functions, each without what it calls of the others."""

    def __init__(self):
        self.spent: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))  # seconds, CPU-seconds, calls
        self.within = [np.zeros(2)]  # of those that were called, for each that is running

    def watch(self, label: str, function: Callable) -> Callable:
        def timed(*args, **options):
            began = now()
            self.within.append(np.zeros(2))
            try:
                return function(*args, **options)
            finally:
                whole = now() - began
                self.spent[label] += [*(whole - self.within.pop()), 1]
                self.within[-1] += whole

        return timed

    def over(self, label: str, owner, name: str) -> None:
        setattr(owner, name, self.watch(label, getattr(owner, name)))


def now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def forecast(store: Store, files: dict[str, bytes], series: list[Series], read: Callable, publish: Callable) -> pd.DataFrame:
    """What the step `forecast` does, but for the receipt and the lock."""
    looking = outlook.Outlook(read(files["weights.safetensors"], files["bundle.json"]), Statics(), None)
    frames = looking.forecast_shards(store, series)
    looking.check(frames)
    rows = pd.concat(frames, ignore_index=True)
    stamp = {"model": "many@0", "model_digest": "0", "run_id": "0", "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
    publish(store.forecasts, rows.assign(**stamp))
    return rows


def show(folder: Path, num_series: int, num_steps: int, watch: Stopwatch) -> None:
    shards = np.array_split(np.arange(num_series), count_shards(num_series * num_steps, num_series))
    store = Store(folder)
    series = [write_shard(store, shard, numbers, num_steps) for shard, numbers in enumerate(shards)]
    files = make_bundle(num_series, num_steps)
    watch.spent.clear()
    parts = watch.watch("read the bundle", load_bundle), watch.watch("publish the table", table.publish)
    began = now()
    rows = watch.watch("all else", forecast)(store, files, series, *parts)
    seconds, cpu = now() - began
    quantiles = sum(name.startswith("q") for name in rows)
    print(f"{rows['series_id'].nunique():,} series x {HORIZON} steps, {quantiles} quantiles, {len(series)} shards")
    print(f"{'':44}{'seconds':>10}{'CPU-seconds':>13}{'calls':>10}")
    print(f"{'in all':44}{seconds:>10.1f}{cpu:>13.1f}")
    for label, (wall, own, calls) in sorted(watch.spent.items(), key=lambda pair: -pair[1][0]):
        print(f"  {label:42}{wall:>10.1f}{own:>13.1f}{calls:>10,.0f}")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=2_000, help="of each of them")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; else the system's temporary folder")
    given = parser.parse_args()
    title = f"forecasting many series on {counted(torch.get_num_threads(), 'threads')}, seed {SEED}"
    introduce(title, "torch", "pyarrow", "numpy", "pandas", "deltalake")
    watch = Stopwatch()
    watch.over("forecast the horizon and past origins", Bundle, "forecast")
    watch.over("quantiles of these", Bundle, "quantiles")
    watch.over("follow the newest errors of a series", outlook.Outlook, "following")
    watch.over("what is known of a series", outlook.Outlook, "view")
    watch.over("read rows, and gather the forecasts", outlook.Outlook, "forecast_shard")
    watch.over("scale, and make the rows of the table", outlook.Outlook, "forecast")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for num_series in dict.fromkeys((given.series, min(given.series, outlook.FORECAST_AGAIN // outlook.FEWEST))):
            show(Path(folder) / str(num_series), num_series, given.steps, watch)


if __name__ == "__main__":
    main()
