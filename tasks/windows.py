"""Windows on disk: blocked Parquet, written once, read with its checksums verified.

A row group is a block: up to `BLOCK` window starts of one fold of one series, and the rows that the last of them
needs besides. Every window so lies wholly inside one row group, which can be read, shuffled and trained from alone.
Channels are flat float32 columns without nulls, dictionary or codec. The footer tells how to read them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.errors import Fault
from models.scaling import Scaler
from models.windows import FOLDS, Columns, FoldSpec, SeriesFacts, WindowSpec, fold_rows, window_starts
from tasks.normalise import Normalised, each_series
from tasks.policy import step, this_call
from tasks.progress import progress, say
from tasks.storage import Receipt, Store

BLOCK = 65_536  # window starts in a row group at most
FORMAT = 1
FOOTER = b"convcast.windows"


class Windows(Receipt):
    """`windows.parquet` in blocks, and the `scaler.json` that its values are scaled by."""

    windows: WindowSpec
    facts: SeriesFacts
    num_windows: dict[str, int]  # by fold
    num_series: int


@dataclass(frozen=True)
class Block:
    """One row group to be: which rows of a series it takes, for which fold, and how many windows begin in it."""

    fold: str
    rows: range
    num_windows: int


@step(libraries=("numpy", "pyarrow"))
def materialise_windows(normalised: Normalised, windows: WindowSpec, folds: FoldSpec, store: Store) -> Windows:
    """Cut every series into the windows of its folds and write them as blocks."""
    table = pq.read_table(store.file(normalised, "normalised.parquet"), page_checksum_verification=True)
    with store.draft(this_call()) as draft, progress("windows", normalised.num_series) as bar:
        counts = write_windows(draft.path("windows.parquet"), table, normalised.facts.columns, windows, folds, bar.advance)
        draft.write_bytes("scaler.json", store.file(normalised, "scaler.json").read_bytes())
        say("windows: " + ", ".join(f"{count:,} {fold}" for fold, count in counts.items()))
        facts = {"facts": normalised.facts, "num_series": normalised.num_series}
        return draft.commit(Windows, windows=windows, num_windows=counts, **facts)


def cut_blocks(num_rows: int, windows: WindowSpec, folds: FoldSpec, series_id: str, block: int = BLOCK) -> list[Block]:
    """The blocks of one series, fold by fold and oldest first.

    Raises:
        Fault: the series is too short for its folds.
    """
    blocks = []
    for fold, rows in fold_rows(num_rows, folds, windows, series_id).items():
        starts = window_starts(len(rows), windows)
        for at in range(0, len(starts), block):
            part = starts[at : at + block]  # of a range: nothing is counted out
            blocks.append(Block(fold, range(rows.start + part[0], rows.start + part[-1] + windows.span), len(part)))
    return blocks


def window_schema(columns: Columns) -> pa.Schema:
    """The columns of a window file; series_id and timestamp say where a row came from."""
    ids, stamps = pa.dictionary(pa.int8(), pa.string()), pa.timestamp("us", "UTC")
    return pa.schema(
        [pa.field("series_id", ids, nullable=False), pa.field("timestamp", stamps, nullable=False)]
        + [pa.field(name, pa.float32(), nullable=False) for name in columns.names]
    )


def window_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Beside the channels, series_id repeats one value a row group and timestamp one step: encoded, they cost nothing.
    return pq.ParquetWriter(
        path,
        schema,
        compression="none",
        use_dictionary=["series_id"],
        column_encoding={"timestamp": "DELTA_BINARY_PACKED"},
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    )


def write_windows(
    path: Path, table: pa.Table, columns: Columns, windows: WindowSpec, folds: FoldSpec, tell=lambda: None
) -> dict[str, int]:
    """Write the blocks of every series of a normalised table; returns the number of windows by fold.

    Raises:
        Fault: a series is too short for its folds.
    """
    schema, blocks = window_schema(columns), []
    with window_writer(path, schema) as writer:
        for series_id, piece in each_series(table):
            for block in cut_blocks(len(piece), windows, folds, series_id):
                rows = piece.slice(block.rows.start, len(block.rows))
                ids = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int8), [series_id])
                rows = pa.table([ids, rows["timestamp"], *(rows[name] for name in columns.names)], schema=schema)
                writer.write_table(rows, row_group_size=len(rows))
                blocks.append({"fold": block.fold, "series_id": series_id, "num_windows": block.num_windows})
            tell()
        footer = {"format": FORMAT, **windows.model_dump(), "block": BLOCK, "columns": columns.model_dump(), "blocks": blocks}
        writer.add_key_value_metadata({FOOTER: json.dumps(footer).encode()})
    return {fold: sum(block["num_windows"] for block in blocks if block["fold"] == fold) for fold in FOLDS}


class WindowFile:
    """A window file, its footer read and its pages verified as they are read."""

    def __init__(self, path: Path):
        self.path = path
        footer = (pq.read_metadata(path).metadata or {}).get(FOOTER)
        if footer is None:
            raise Fault(f"{path} is a Parquet file but holds no windows; it lacks the footer {FOOTER.decode()!r}.")
        self.footer = json.loads(footer)
        if self.footer["format"] != FORMAT:
            raise Fault(f"{path} has window format {self.footer['format']}; this version reads {FORMAT}. Run train again.")
        self.windows = WindowSpec(**{name: self.footer[name] for name in ("lookback", "horizon", "stride")})
        self.columns = Columns(**self.footer["columns"])

    @cached_property
    def file(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, page_checksum_verification=True)

    def fold(self, fold: str) -> "FoldBlocks":
        """The blocks of one fold, in the form that training and validation read (`models.windows.Blocks`)."""
        chosen = [index for index, block in enumerate(self.footer["blocks"]) if block["fold"] == fold]
        return FoldBlocks(self, chosen)


@dataclass
class FoldBlocks:
    """The row groups of one fold."""

    file: WindowFile
    groups: list[int]

    @property
    def stride(self) -> int:
        return self.file.windows.stride

    @cached_property
    def num_windows(self) -> list[int]:
        return [self.file.footer["blocks"][group]["num_windows"] for group in self.groups]

    def series_id(self, block: int) -> str:
        return self.file.footer["blocks"][self.groups[block]]["series_id"]

    def read(self, block: int) -> torch.Tensor:
        """The rows of a block, float32 (R, C)."""
        table = self.file.file.read_row_group(self.groups[block], columns=list(self.file.columns.names), use_threads=False)
        rows = np.empty((table.num_rows, table.num_columns), np.float32)
        for channel, column in enumerate(table.columns):
            rows[:, channel] = column.to_numpy()
        return torch.from_numpy(rows)

    def timestamps(self, block: int) -> np.ndarray:
        """The UTC stamps (R,) of a block's rows, datetime64[us]."""
        return self.file.file.read_row_group(self.groups[block], columns=["timestamp"])["timestamp"].to_numpy()


def exploded(file: WindowFile, fold: str, scaler: Scaler) -> Iterator[pa.RecordBatch]:
    """A row a window, for people to look at: series_id, origin, then every channel by step, in its own unit.

    `<channel>[-k]` is k steps before the origin, `[-0]` the origin itself, `[+k]` step k of the horizon.
    """
    blocks, windows, columns = file.fold(fold), file.windows, file.columns
    past = [(channel, at) for channel in range(columns.num_channels) for at in range(windows.lookback)]
    known = [0, *range(1 + len(columns.past), columns.num_channels)]
    ahead = [(channel, at) for channel in known for at in range(windows.lookback, windows.span)]
    names = [f"{columns.names[channel]}{step_label(at, windows.lookback)}" for channel, at in past + ahead]
    for block, count in enumerate(blocks.num_windows):
        series_id = blocks.series_id(block)
        scale, rows, stamps = scaler.of(series_id), blocks.read(block).numpy(), blocks.timestamps(block)
        for at in range(0, count, 4096):
            starts = np.arange(at, min(at + 4096, count)) * windows.stride
            values = [
                pa.array((rows[starts + offset, channel] * scale.std[channel] + scale.mean[channel]).astype(np.float32))
                for channel, offset in past + ahead
            ]
            origins = pa.array(stamps[starts + windows.lookback - 1]).cast(pa.timestamp("us", "UTC"))
            ids = pa.repeat(pa.scalar(series_id), len(starts))
            yield pa.record_batch([ids, origins, *values], names=["series_id", "origin", *names])


def step_label(at: int, lookback: int) -> str:
    return f"[-{lookback - 1 - at}]" if at < lookback else f"[+{at - lookback + 1}]"
