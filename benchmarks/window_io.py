"""How fast windows are written to disk and fed from it, against the limit and the two usual ways.

Writing. Compared: `tasks.windows.files.write_windows` (blocks of rows, page checksums, stamps and series ids, from
float64 rows); the same floats written raw, which is the limit; and exploded Parquet (a row a window, past and target as
fixed-size binary, page checksums), with and without zstd. All end with fsync. The exploded files hold only `--part`
windows, for all of them would take gigabytes; their seconds and bytes are scaled to the whole by the number of windows.

Reading. Compared, in windows per CPU-second, one thread, files in the page cache: batches of 168 (past, target) from
`models.batches.ShuffledStream` over that file, checksums verified; the exploded files, shuffled within row groups,
checksums verified too; and a `torch.utils.data.DataLoader` that takes one item at a time from rows in memory.

How to read it: repetitions are interleaved, so a ratio is of two runs next to each other in time; printed is the median
and the range. "Peak" is the most memory above what the process held before, the table to be written included in that.

    python benchmarks/window_io.py [--rows 10000000] [--folder DIR]
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import introduce, spread
from torch.utils.data import DataLoader, Dataset

from models.batches import Batch, ShuffledStream
from models.scaling import Scaler, ScalingSpec, SeriesScale
from models.series import Columns
from models.windows import FoldSpec, WindowSpec
from tasks.windows.files import SeriesRows, write_windows
from tasks.windows.folds import WindowSet

COLUMNS = Columns(future=("WorkDay", "Temperature"))
WINDOWS = WindowSpec(lookback=72, horizon=24)
FOLDS = FoldSpec(validation=WINDOWS.horizon, test=WINDOWS.horizon)  # a window each, the smallest there are
BATCH = 168
ROW_GROUP = 16_384  # windows in a row group of an exploded file: 15 MB
SEED = 0


def make_rows(num_rows: int) -> np.ndarray:
    """Scaled float32 rows (R, C): two cycles and noise."""
    rng = np.random.default_rng(SEED)
    rows = 0.6 * rng.standard_normal((num_rows, COLUMNS.num_channels), np.float32)
    steps = np.arange(num_rows)
    for period in (48, 336):
        rows += np.sin(2 * np.pi * (steps % period) / period).astype(np.float32)[:, None]
    return rows


def to_piece(rows: np.ndarray) -> SeriesRows:
    """The rows as one series of canonical Parquet hands them on."""
    minute = 60_000_000  # microseconds
    return SeriesRows("demand", 0, np.arange(len(rows)) * minute, np.asfortranarray(rows, np.float64))


def open_fold(path: Path, num_rows: int):
    """The training windows of a file, their scale left as it is."""
    zero, one = (0.0,) * COLUMNS.num_channels, (1.0,) * COLUMNS.num_channels
    scale = SeriesScale(mean=zero, std=one, naive_mae=1.0, steps=num_rows)
    scaler = Scaler(channels=COLUMNS.names, season=48, scaling=ScalingSpec(), series={"demand": scale})
    return WindowSet([path], scaler, FOLDS).fold("train")


def exploded_windows(rows: np.ndarray, num_windows: int, each: int = ROW_GROUP) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Past (N, L*C) and target (N, H) of the oldest windows, `each` at a time."""
    channels = rows.shape[1]
    past = np.lib.stride_tricks.sliding_window_view(rows.reshape(-1), WINDOWS.lookback * channels)[::channels]
    target = np.lib.stride_tricks.sliding_window_view(rows[WINDOWS.lookback :, 0], WINDOWS.horizon)
    for at in range(0, num_windows, each):
        end = min(at + each, num_windows)
        yield np.ascontiguousarray(past[at:end]), np.ascontiguousarray(target[at:end])


def to_binary(values: np.ndarray) -> pa.Array:
    """The rows of a float32 matrix as fixed-size binary, without a copy."""
    width = values.shape[1] * 4
    return pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])


def write_exploded(path: Path, rows: np.ndarray, num_windows: int, codec: str) -> None:
    sizes = {"past": WINDOWS.lookback * rows.shape[1] * 4, "target": WINDOWS.horizon * 4}
    schema = pa.schema([pa.field(name, pa.binary(size), nullable=False) for name, size in sizes.items()])
    options = {"compression": codec, "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for past, target in exploded_windows(rows, num_windows):
            writer.write_batch(pa.record_batch([to_binary(past), to_binary(target)], schema=schema), row_group_size=ROW_GROUP)


def memory(field: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000


def timed_write(path: Path, write: Callable[[Path], object]) -> tuple[float, float, float]:
    """Seconds, CPU-seconds and peak MB above the baseline of writing one file and flushing it to the disk."""
    path.unlink(missing_ok=True)
    os.sync()
    pa.default_memory_pool().release_unused()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    baseline, cpu, wall = memory("VmRSS"), time.process_time(), time.perf_counter()
    write(path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - wall, time.process_time() - cpu, memory("VmHWM") - baseline


def compare_writing(folder: Path, rows: np.ndarray, part: int, repetitions: int) -> None:
    piece, num_windows = to_piece(rows), len(rows) - WINDOWS.span + 1
    ways = {
        "ours": lambda path: write_windows(path, [piece], COLUMNS, WINDOWS),
        "raw": lambda path: rows.tofile(path),
        "exploded": lambda path: write_exploded(path, rows, part, "none"),
        "exploded, zstd": lambda path: write_exploded(path, rows, part, "zstd"),
    }
    scale = {"ours": 1, "raw": 1, "exploded": num_windows / part, "exploded, zstd": num_windows / part}
    runs = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, write in ways.items():
            seconds, cpu, peak = timed_write(folder / name, write)
            runs[name].append((seconds * scale[name], cpu * scale[name], peak))
    print(f"writing {len(rows):,} rows, {num_windows:,} windows, {repetitions} repetitions; exploded: {part:,} windows, scaled")
    print(f"{'':16s}{'seconds':>24s}{'CPU-seconds':>24s}{'x raw write':>24s}{'MB on disk':>12s}{'peak MB':>9s}")
    for name, own in runs.items():
        seconds, cpu, peaks = zip(*own, strict=True)
        ratios = [mine / raw[0] for mine, raw in zip(seconds, runs["raw"], strict=True)]
        size = (folder / name).stat().st_size * scale[name] / 1e6
        print(f"{name:16s}{spread(seconds):>24s}{spread(cpu):>24s}{spread(ratios):>24s}{size:>12,.0f}{max(peaks):>9.0f}")
    for name in ("exploded", "exploded, zstd"):
        less = [other[1] / mine[1] for other, mine in zip(runs[name], runs["ours"], strict=True)]
        print(f"CPU of {name} / ours: {spread(less, 1)}")


def compare_small(folder: Path, rows: np.ndarray, num_windows: int, repetitions: int) -> None:
    """Ours against `save_to_disk` where there is little to write."""
    try:
        from datasets import Dataset, disable_progress_bars
    except ImportError:
        print("\nsave_to_disk: not measured, the package datasets is not installed")
        return
    disable_progress_bars()
    rows = rows[: num_windows + WINDOWS.span - 1]
    past, target = next(exploded_windows(rows, num_windows, num_windows))
    lists = {
        name: pa.FixedSizeListArray.from_arrays(part.reshape(-1), part.shape[1])
        for name, part in (("past", past), ("target", target))
    }
    peer, piece, seconds = Dataset(pa.table(lists)), to_piece(rows), {"ours": [], "peer": []}
    for turn in range(2 * repetitions + 1):
        for name, write in (
            ("ours", lambda: write_windows(folder / "small", [piece], COLUMNS, WINDOWS)),
            ("peer", lambda turn=turn: peer.save_to_disk(str(folder / f"peer-{turn}"))),
        ):
            begun = time.perf_counter()
            write()
            if turn:  # the first turn pays for what is only done once
                seconds[name].append(time.perf_counter() - begun)
    ratio = [b / a for a, b in zip(seconds["ours"], seconds["peer"], strict=True)]
    print(
        f"\n{num_windows:,} windows: ours {spread(seconds['ours'], 4)} s, save_to_disk {spread(seconds['peer'], 4)} s; "
        f"ours is {spread(ratio, 1)} times faster"
    )


def feed_ours(path: Path, num_windows: int, num_rows: int) -> int:
    """Windows fed: whole batches of past and target, shuffled over eight blocks at a time."""
    stream = ShuffledStream(open_fold(path, num_rows), WINDOWS.span, BATCH, SEED, "cpu").batches()
    fed = 0
    while fed < num_windows:
        batch = Batch.split(next(stream), WINDOWS.lookback, COLUMNS)
        fed += len(batch.past)
    return fed


def feed_exploded(path: Path, num_windows: int) -> int:
    """Windows fed from fixed-size binary, row groups in random order, shuffled within each."""
    file, fed = pq.ParquetFile(path, page_checksum_verification=True), 0
    torch.manual_seed(SEED)
    for group in torch.randperm(file.num_row_groups).tolist():
        table = file.read_row_group(group, use_threads=False)
        past, target = (
            torch.frombuffer(bytearray(column.combine_chunks().buffers()[1]), dtype=torch.float32).view(len(column), -1)
            for column in table.columns
        )
        for chosen in torch.randperm(table.num_rows).split(BATCH):
            fed += len(past.index_select(0, chosen))
            target.index_select(0, chosen)
    return min(fed, num_windows)


class Items(Dataset):
    """One window an item, from rows in memory."""

    def __init__(self, rows: np.ndarray):
        self.rows = torch.from_numpy(rows)

    def __len__(self) -> int:
        return len(self.rows) - WINDOWS.span + 1

    def __getitem__(self, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        origin = start + WINDOWS.lookback
        return self.rows[start:origin], self.rows[origin : origin + WINDOWS.horizon, 0]


def feed_items(rows: np.ndarray, num_windows: int) -> int:
    """Windows fed by a DataLoader that collates single items."""
    fed = 0
    for past, _ in DataLoader(Items(rows), batch_size=BATCH, shuffle=True, num_workers=0):
        fed += len(past)
        if fed >= num_windows:
            break
    return fed


def compare_reading(folder: Path, rows: np.ndarray, part: int, repetitions: int) -> None:
    ways = {
        "ours": lambda: feed_ours(folder / "ours", min(len(rows) - WINDOWS.span, 16 * 65_536), len(rows)),
        "exploded": lambda: feed_exploded(folder / "exploded", part),
        "exploded, zstd": lambda: feed_exploded(folder / "exploded, zstd", part),
        "DataLoader": lambda: feed_items(rows[:part], 50_000),
    }
    rates = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, feed in ways.items():
            begun = time.process_time()
            rates[name].append(feed() / (time.process_time() - begun) / 1000)
    print(f"\nfeeding shuffled batches of {BATCH}, {repetitions} repetitions")
    print(f"{'':16s}{'thousand windows per CPU-second':>34s}{'ours is so many times faster':>34s}")
    for name, own in rates.items():
        times = [ours / other for ours, other in zip(rates["ours"], own, strict=True)]
        print(f"{name:16s}{spread(own, 0):>34s}{spread(times, 1):>34s}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--part", type=int, default=500_000, help="windows in the exploded files")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; else the system's temporary folder")
    given = parser.parse_args()
    torch.set_num_threads(1)
    title = f"windows on disk: {COLUMNS.num_channels} channels, lookback {WINDOWS.lookback}, horizon {WINDOWS.horizon}"
    introduce(f"{title}, seed {SEED}", "pyarrow", "torch", "numpy")
    rows, part = make_rows(given.rows), min(given.part, given.rows - WINDOWS.span + 1)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        compare_writing(Path(folder), rows, part, given.repetitions)
        compare_small(Path(folder), rows, min(30_000, part), given.repetitions)
        compare_reading(Path(folder), rows, part, given.repetitions)


if __name__ == "__main__":
    main()
