"""Windows on disk: blocked Parquet, written once, read with its checksums verified.

A row group is a block: the rows of up to `BLOCK` window starts of one series, and those that the last of them needs
besides. Every window so lies wholly inside one row group, which can be read, shuffled and trained from alone. Rows are
kept in the user's units, as float32 around an anchor for each block and channel, and scaled as they are read: neither
another scaling nor other folds, nor rows that come later, change what is written here. Channels are flat columns without
nulls, dictionary or codec. The footer tells how to read them.
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
from pydantic import BaseModel, ConfigDict

from models.errors import Fault
from models.scaling import Scaler
from models.series import Columns
from models.windows import FoldSpec, WindowSpec, fold_rows, steps_needed, window_starts
from tasks.ingest.calendar import Calendar
from tasks.ingest.canonical import read_segment
from tasks.ingest.statics import Statics
from tasks.ingest.task import Segment, Series
from tasks.policy import step, this_call
from tasks.storage import Receipt, Store

BLOCK = 65_536  # window starts in a row group at most
AT_ONCE = 65_536  # rows of small neighbours that are made or read together
FORMAT = 2
FOOTER = b"convcast.windows"


class Windows(Receipt):
    """`windows.parquet`: the blocks of one segment."""

    windows: WindowSpec
    columns: Columns
    frequency: str
    timezone: str
    num_series: int
    num_windows: int  # of all folds together


class Stretch(BaseModel):
    """One canonical segment, and the one before it where a series goes on from there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    series: Series
    number: int  # of the segment in its shard
    first_row: int  # number of the segment's first row in its series

    @property
    def segment(self) -> Segment:
        return self.series.segments[self.number]

    @property
    def before(self) -> Segment | None:
        return self.series.segments[self.number - 1] if self.segment.continues else None

    def cache_identity(self) -> list:
        return [self.before.sha256 if self.before else None, self.segment.sha256, self.first_row]


def stretches(series: Series) -> list[Stretch]:
    """The segments of a shard, each with the number of its first row."""
    found, row = [], 0
    for number, segment in enumerate(series.segments):
        row = row if segment.continues else 0
        found.append(Stretch(series=series, number=number, first_row=row))
        row += segment.rows
    return found


@step(libraries=("numpy", "pandas", "pyarrow", "tzdata"))
def materialise_windows(
    stretch: Stretch, windows: WindowSpec, columns: Columns, calendar: Calendar, statics: Statics, store: Store
) -> Windows:
    """Cut one segment into blocks of windows."""
    with store.draft(this_call()) as draft:
        pieces = window_rows(stretch, windows, columns, calendar, statics, store)
        blocks = write_windows(draft.path("windows.parquet"), pieces, columns, windows)
        return draft.commit(
            Windows, windows=windows, columns=columns, frequency=calendar.frequency, timezone=calendar.timezone,
            num_series=len({block["series_id"] for block in blocks}), num_windows=sum(block["num_starts"] for block in blocks),
        )  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """Rows of one series, every channel of them known."""

    series_id: str
    first_row: int  # number of the first of them in its series
    stamps: np.ndarray  # (R,) int64 microseconds UTC
    rows: np.ndarray  # (R, C) float64


def window_rows(
    stretch: Stretch, windows: WindowSpec, columns: Columns, calendar: Calendar, statics: Statics, store: Store
) -> Iterator[Piece]:
    """The rows of each series that a segment's windows touch, up to its last target."""
    held = last_rows(stretch, windows.span - 1, columns, store) if stretch.before else None
    for group in neighbours(read_segment(store, stretch.series, stretch.segment, columns)):
        if held is not None:
            name, *own = group[0]
            group[0] = (name, *(np.concatenate(pair) for pair in zip(held, own, strict=True)))
        first = stretch.first_row - (len(held[0]) if held is not None else 0)
        held = None
        stamps, rows = (np.concatenate(part) for part in list(zip(*group, strict=True))[1:])
        made = calendar.insert(rows, stamps, columns)  # the calendar takes its time for each call
        begin = 0
        for name, own, values in group:
            seen = np.flatnonzero(~np.isnan(values[:, 0]))
            kept = slice(begin, begin + (int(seen[-1]) + 1 if len(seen) else 0))
            yield Piece(name, first, stamps[kept], statics.append(name, made[kept]))
            begin, first = begin + len(own), stretch.first_row


def neighbours(series: Iterator[tuple[str, np.ndarray, np.ndarray]]) -> Iterator[list[tuple[str, np.ndarray, np.ndarray]]]:
    """Series with their stamps and rows, as many at a time as have `AT_ONCE` rows; a longer one goes by itself."""
    group, held = [], 0
    for one in series:
        if group and held + len(one[1]) > AT_ONCE:
            yield group
            group, held = [], 0
        group.append(one)
        held += len(one[1])
    if group:
        yield group


def last_rows(stretch: Stretch, count: int, columns: Columns, store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Stamps and rows of the end of the segment before.

    Raises:
        Fault: a window would reach back further than that.
    """
    if count > stretch.before.rows:
        raise Fault(f"windows.lookback and horizon span {count + 1} steps; at most {stretch.before.rows} are possible here.")
    *_, (_, stamps, rows) = read_segment(store, stretch.series, stretch.before, columns)
    return stamps[len(stamps) - count :], rows[len(rows) - count :]


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


def write_windows(path: Path, pieces: Iterator[Piece], columns: Columns, windows: WindowSpec) -> list[dict]:
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


@dataclass(frozen=True)
class Cut:
    """The windows of one fold that lie in one block."""

    file: int
    block: int
    series_id: str
    first: int  # row of the block at which the first of them starts
    num_windows: int


class WindowSet:
    """The windows of many files, told apart by fold."""

    def __init__(self, paths: list[Path], scaler: Scaler, folds: FoldSpec):
        self.files = [WindowFile(path) for path in paths]
        self.windows, self.columns = self.files[0].windows, self.files[0].columns
        steps = {name: scale.steps for name, scale in scaler.series.items()}
        needed = steps_needed(folds, self.windows)
        self.too_short = {name: count for name, count in steps.items() if count < needed}
        self.rows = {
            name: fold_rows(count, folds, self.windows, name) for name, count in steps.items() if name not in self.too_short
        }
        if not self.rows:
            longest = max(steps, key=steps.get)
            fold_rows(steps[longest], folds, self.windows, longest)  # says what is needed
        # A series without a window is as good as unknown: nothing is learned of it.
        self.scaler = scaler.only(self.rows) if self.too_short else scaler

    def fold(self, fold: str, numbers: dict[str, int] | None = None) -> "FoldBlocks":
        """The blocks of one fold, in the form that training and validation read (`models.windows.Blocks`).

        Args:
            numbers: of the series, for a network with an embedding; they become a last channel.
        """
        cuts = []
        for number, file in enumerate(self.files):
            for block, about in enumerate(file.blocks):
                rows = self.rows.get(about["series_id"])
                if rows is None:
                    continue
                starts = window_starts(len(rows[fold]), self.windows)
                low = max(about["first_row"] - rows[fold].start, starts.start)
                low += (starts.start - low) % starts.step  # the first start of the fold that lies in this block
                until = min(about["first_row"] + about["num_starts"] - rows[fold].start, starts.stop)
                if low < until:
                    count = len(range(low, until, starts.step))
                    cuts.append(Cut(number, block, about["series_id"], rows[fold].start + low - about["first_row"], count))
        return FoldBlocks(self, cuts, numbers)

    def count(self, fold: str) -> int:
        return sum(self.fold(fold).num_windows)


@dataclass
class FoldBlocks:
    """The blocks of one fold, scaled as they are read."""

    set: WindowSet
    cuts: list[Cut]
    numbers: dict[str, int] | None = None

    @property
    def stride(self) -> int:
        return self.set.windows.stride

    @cached_property
    def num_windows(self) -> list[int]:
        return [cut.num_windows for cut in self.cuts]

    def series_id(self, block: int) -> str:
        return self.cuts[block].series_id

    def span(self, block: int) -> slice:
        """The rows of the stored block that these windows touch."""
        cut = self.cuts[block]
        return slice(cut.first, cut.first + (cut.num_windows - 1) * self.stride + self.set.windows.span)

    def read(self, block: int) -> torch.Tensor:
        """The rows of a block, scaled float32 (R, C), with the number of the series as a last channel where asked for."""
        cut, scale = self.cuts[block], self.set.scaler.of(self.series_id(block))
        rows = self.set.files[cut.file].shifted(cut.block)[self.span(block)]
        std = np.asarray(scale.std)
        shift = (self.set.files[cut.file].anchors(cut.block) - np.asarray(scale.mean)) / std
        # In float64 only for what is the same in every row, so that a block costs one pass.
        scaled = np.empty((len(rows), rows.shape[1] + (self.numbers is not None)), np.float32)
        if self.numbers is not None:
            scaled[:, -1] = self.numbers.get(cut.series_id, 0)
        own = scaled[:, : rows.shape[1]]
        np.multiply(rows, (1 / std).astype(np.float32), out=own)
        np.add(own, shift.astype(np.float32), out=own)
        return torch.from_numpy(scaled)

    def raw(self, block: int) -> np.ndarray:
        """The rows of a block in the user's units, float64 (R, C)."""
        cut = self.cuts[block]
        file = self.set.files[cut.file]
        return file.shifted(cut.block)[self.span(block)] + file.anchors(cut.block)

    def timestamps(self, block: int) -> np.ndarray:
        """The UTC stamps (R,) of a block's rows, int64 microseconds."""
        cut = self.cuts[block]
        return self.set.files[cut.file].stamps(cut.block)[self.span(block)]


def open_windows(windows: list[Windows], scaler: Scaler, folds: FoldSpec, store: Store) -> WindowSet:
    """The windows that these receipts stand for."""
    return WindowSet([store.file(one, "windows.parquet") for one in windows], scaler, folds)


def exploded(blocks: FoldBlocks) -> Iterator[pa.RecordBatch]:
    """A row a window, for people to look at: series_id, origin, then every channel by step, in its own unit.

    `<channel>[-k]` is k steps before the origin, `[-0]` the origin itself, `[+k]` step k of the horizon. Values are
    rounded to the decimals that were kept, about six digits of how far a block's rows lie apart.
    """
    windows, columns = blocks.set.windows, blocks.set.columns
    past = [(channel, at) for channel in range(columns.num_channels) for at in range(windows.lookback)]
    known = [0, *([1] if columns.masked else []), *range(columns.first_known, columns.num_channels)]
    ahead = [(channel, at) for channel in known for at in range(windows.lookback, windows.span)]
    names = [f"{columns.names[channel]}{step_label(at, windows.lookback)}" for channel, at in past + ahead]
    for block, count in enumerate(blocks.num_windows):
        series_id = blocks.series_id(block)
        rows, stamps = rounded(blocks.raw(block)), blocks.timestamps(block)
        for at in range(0, count, 4096):
            starts = np.arange(at, min(at + 4096, count)) * windows.stride
            values = [pa.array(rows[starts + offset, channel]) for channel, offset in past + ahead]
            origins = pa.array(stamps[starts + windows.lookback - 1]).view(pa.timestamp("us", "UTC"))
            ids = pa.repeat(pa.scalar(series_id), len(starts))
            yield pa.record_batch([ids, origins, *values], names=["series_id", "origin", *names])


def rounded(rows: np.ndarray) -> np.ndarray:
    """Rows (R, C) without the digits that float32 around an anchor does not hold."""
    apart = np.maximum(np.ptp(rows, axis=0), 1e-12 * np.abs(rows).max(0))
    for channel in np.flatnonzero(apart > 0):
        rows[:, channel] = rows[:, channel].round(min(300, 6 - int(np.floor(np.log10(apart[channel])))))
    return rows


def step_label(at: int, lookback: int) -> str:
    return f"[-{lookback - 1 - at}]" if at < lookback else f"[+{at - lookback + 1}]"
