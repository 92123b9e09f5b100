"""Windows on disk: blocked Parquet, written once, read with its checksums verified.

A row group is a block: the rows of up to `BLOCK` window starts of one series, and those that the last of them needs
besides. Every window so lies wholly inside one row group, which can be read, shuffled and trained from alone. Rows are
kept in the user's units, as float32 around an anchor for each block and channel, and scaled as they are read: neither
another scaling nor other folds, nor rows that come later, change what is written here. Channels are flat columns without
nulls, dictionary or codec. The footer tells how to read them.
"""

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import Fault
from models.series import Columns
from models.windows import WindowSpec

BLOCK = 65_536  # window starts in a row group at most
AT_ONCE = 65_536  # rows of small neighbours that are made or read together
FORMAT = 2
FOOTER = b"convcast.windows"


@dataclass(frozen=True)
class SeriesRows:
    """Rows of one series, every channel of them known."""

    series_id: str
    first_row: int  # number of the first of them in its series
    stamps: np.ndarray  # (R,) int64 microseconds UTC
    rows: np.ndarray  # (R, C) float64


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


def write_windows(path: Path, pieces: Iterable[SeriesRows], columns: Columns, windows: WindowSpec) -> list[dict]:
    """Write the blocks of every piece; returns what the footer says of each."""
    schema, blocks = window_schema(columns), []
    with window_writer(path, schema) as writer:
        for piece in pieces:
            num_starts = len(piece.rows) - windows.span + 1
            for at in range(0, num_starts, BLOCK):
                count = min(BLOCK, num_starts - at)
                rows = piece.rows[at : at + count + windows.span - 1]
                anchors = rows.mean(0)
                if columns.masked:
                    anchors[1] = 0.0  # what was filled in has to come back as exactly 0
                ids = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int8), [piece.series_id])
                stamps = pa.array(piece.stamps[at : at + len(rows)]).view(pa.timestamp("us", "UTC"))
                channels = [pa.array(less(rows[:, channel], anchor)) for channel, anchor in enumerate(anchors)]
                writer.write_table(pa.table([ids, stamps, *channels], schema=schema), row_group_size=len(rows))
                block = {"series_id": piece.series_id, "first_row": piece.first_row + at, "num_starts": count}
                blocks.append(block | {"anchors": anchors.tolist()})
        footer = {"format": FORMAT, **windows.model_dump(), "block": BLOCK, "columns": columns.model_dump(), "blocks": blocks}
        writer.add_key_value_metadata({FOOTER: json.dumps(footer).encode()})
    return blocks


def less(values: np.ndarray, anchor: float) -> np.ndarray:
    """Values (R,) less their anchor, subtracted as float64 and kept as float32."""
    return np.subtract(values, anchor, out=np.empty(len(values), np.float32), casting="same_kind")


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
        self.blocks: list[dict] = self.footer["blocks"]
        self.lock = threading.Lock()  # training reads ahead in a thread of its own

    @cached_property
    def file(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, page_checksum_verification=True)

    @cached_property
    def ends(self) -> np.ndarray:
        """How many rows there are up to the end of each block."""
        return np.cumsum([block["num_starts"] + self.windows.span - 1 for block in self.blocks])

    @cached_property
    def channels(self) -> "Reader":
        return Reader(self, list(self.columns.names))

    @cached_property
    def clock(self) -> "Reader":
        return Reader(self, ["timestamp"])

    def shifted(self, block: int) -> np.ndarray:
        """The rows of a block as they are stored, float32 (R, C), less their anchors; not to be written to."""
        return self.channels.read(block)

    def anchors(self, block: int) -> np.ndarray:
        return np.asarray(self.blocks[block]["anchors"])

    def stamps(self, block: int) -> np.ndarray:
        """The UTC stamps (R,) of a block's rows, int64 microseconds; not to be written to."""
        return self.clock.read(block)[:, 0]


class Reader:
    """Some columns of a window file, block by block.

    A row group costs the same to begin whatever its size, so small ones that are asked for one after another are read
    many at a time.
    """

    def __init__(self, file: WindowFile, columns: list[str]):
        self.file, self.columns = file, columns
        self.held = range(0)  # the blocks that lie in memory
        self.rows = np.empty((0, len(columns)))

    def read(self, block: int) -> np.ndarray:
        """The rows (R, columns) of a block."""
        with self.file.lock:
            ends = self.file.ends
            before = int(ends[block - 1]) if block else 0
            if block not in self.held:
                stop = block + 1
                if block == self.held.stop:
                    stop = max(stop, int(np.searchsorted(ends, before + AT_ONCE, side="right")))
                self.rows, self.held = self.load(range(block, stop)), range(block, stop)
            first = int(ends[self.held.start - 1]) if self.held.start else 0
            return self.rows[before - first : int(ends[block]) - first]

    def load(self, blocks: range) -> np.ndarray:
        table = self.file.file.read_row_groups(list(blocks), columns=self.columns, use_threads=False)
        is_time = self.columns == ["timestamp"]
        rows = np.empty((table.num_rows, table.num_columns), np.int64 if is_time else np.float32)
        for channel, column in enumerate(table.columns):
            rows[:, channel] = (column.cast(pa.int64()) if is_time else column).to_numpy()
        return rows
