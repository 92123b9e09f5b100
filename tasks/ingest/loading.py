"""What was read of some series, loaded from its runs: all the rows of a few, or one long series slab by slab."""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from tasks.ingest import segments
from tasks.ingest.grid import SMALL_GRID
from tasks.ingest.panel import Ledger, Panel
from tasks.ingest.shards import MappedRun, Shard, run_path
from tasks.ingest.sources import SourceSpec
from tasks.storage import Store


@dataclass
class RunRows:
    """The rows of one run, mapped from disk."""

    slice_number: int
    follows: bool
    sha256: str
    names: list[str]  # sorted
    codes: np.ndarray
    stamps: np.ndarray
    columns: list[np.ndarray]
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)  # a run is sorted by series
    mapped: MappedRun | None = None


def load_runs(shard: Shard, store: Store) -> list[RunRows]:
    """Every run of a shard, in the order of the source."""
    pieces = []
    for number, one in enumerate(shard.slices):
        for run in one.runs:
            mapped = MappedRun(run_path(store, one.part, run))
            table = mapped.table
            ids = table["series_id"].chunk(0)
            codes, names = ids.indices.to_numpy(), ids.dictionary.to_pylist()
            edges = np.searchsorted(codes, np.arange(len(names) + 1)).tolist()
            stamps = table["timestamp"].chunk(0).cast(pa.int64()).to_numpy()
            columns = [column.chunk(0).to_numpy() for column in table.columns[2:]]
            spans = zip(names, itertools.pairwise(edges), strict=True)
            ranges = {name: span for name, span in spans if span[0] < span[1]}
            mapped.release()
            pieces.append(RunRows(number, one.follows, run.sha256, names, codes, stamps, columns, ranges, mapped))
    return pieces


def check_order_between_files(source: SourceSpec, pieces: list[RunRows], ledger: Ledger, names: set[str]) -> None:
    """Stamps that go back from one part of a file to the next; within a part, reading has seen to them."""
    if not any(piece.follows for piece in pieces):
        return
    newest: dict[str, int] = {}
    before: dict[str, int] = {}
    number = -1
    for piece in pieces:
        if piece.slice_number != number:
            number = piece.slice_number
            newest = newest if piece.follows else {}
            before = dict(newest) if piece.follows else {}
        for name, (begin, end) in piece.ranges.items():
            first, latest = int(piece.stamps[begin]), before.get(name)
            if name in names and latest is not None and first < latest:
                tell_of_order(source, name, first, latest, ledger)
            newest[name] = max(newest.get(name, first), int(piece.stamps[end - 1]))


def tell_of_order(source: SourceSpec, name: str, first: int, before: int, ledger: Ledger) -> None:
    panel, row = Panel([name], np.zeros(1, np.int32), np.array([first]), np.zeros((1, 1))), np.array([0])
    if source.order == "sort":
        ledger.repaired(panel, row, "stamps out of order")
        return
    said = f"{ledger.say(first)} comes after {ledger.say(before)}. Sort the file or set source.order='sort'."
    ledger.fault(panel, row, "order", lambda row, count: said)


def gather(pieces: list[RunRows], names: list[str]) -> Panel:
    """The rows of some neighbouring series, sorted by series and time; rows of one stamp stay in the order of the source."""
    number = {name: at for at, name in enumerate(names)}
    codes, stamps, columns = [], [], []
    for piece in pieces:
        low, high = bisect_left(piece.names, names[0]), bisect_right(piece.names, names[-1])
        begin, end = np.searchsorted(piece.codes, [low, high])
        if begin == end:
            continue
        own = np.array([number.get(name, -1) for name in piece.names[low:high]], np.int32)[piece.codes[begin:end] - low]
        rows = slice(begin, end)
        if (own < 0).any():  # series set aside
            rows = begin + np.flatnonzero(own >= 0)
            own = own[own >= 0]
        codes.append(own)
        stamps.append(piece.stamps[rows])
        columns.append([column[rows] for column in piece.columns])
    return let_go(pieces, to_panel(names, codes, stamps, columns))


def let_go(pieces: list[RunRows], panel: Panel | None) -> Panel | None:
    """The panel, a copy, once the memory of what it was copied from is given back."""
    for piece in pieces:
        if piece.mapped:
            piece.mapped.release()
    return panel


def to_panel(names: list[str], codes: list, stamps: list, columns: list[list]) -> Panel:
    codes, stamps = np.concatenate(codes), np.concatenate(stamps)
    values = np.empty((len(codes), len(columns[0])), order="F")  # whole columns lie together: most steps go by column
    for column in range(values.shape[1]):
        np.concatenate([own[column] for own in columns], out=values[:, column])
    if ((codes[1:] < codes[:-1]) | ((codes[1:] == codes[:-1]) & (stamps[1:] < stamps[:-1]))).any():
        order = np.lexsort((stamps, codes))
        codes, stamps, values = codes[order], stamps[order], np.asfortranarray(values[order])
    return Panel(names, codes, stamps, values)


class Slabs:
    """The rows of one series in the order of time, about `SEGMENT` rows or steps at a time.

    Args:
        step: microseconds, the usual step of the series.
    """

    def __init__(self, pieces: list[RunRows], name: str, step: float):
        self.name = name
        self.own = [(piece, *piece.ranges[name]) for piece in pieces if name in piece.ranges]
        self.ends = [(int(run[0]), int(run[-1])) for run in self.runs()]  # kept: to look them up would map many pages
        low, high = min(first for first, _ in self.ends), max(last for _, last in self.ends)
        rows, steps = sum(end - begin for _, begin, end in self.own), (high - low) / step
        self.stretched = steps > max(SMALL_GRID, 2 * rows)  # perhaps too many steps for so few rows
        inner = cut_times(self.runs())
        if steps > 2 * rows:
            inner = np.concatenate([inner, cut_steps(self.runs(), step)])
        self.edges = [low, *[edge for edge in np.unique(inner).tolist() if low < edge <= high], high + 1]

    def runs(self) -> Iterator[np.ndarray]:
        """The stamps of each run, let go of once they have been looked at."""
        for piece, begin, end in self.own:
            yield piece.stamps[begin:end]
            let_go([piece], None)

    def onwards(self, edge: int | None = None) -> Iterator[tuple[Panel, int]]:
        """Each slab from an edge on, or from the first, and the edge that it ends at."""
        for low, high in itertools.pairwise(self.edges):
            if (edge is None or low >= edge) and (panel := self.between(low, high)) is not None:
                yield panel, high

    def backwards(self) -> Iterator[Panel]:
        for high, low in itertools.pairwise(reversed(self.edges)):
            if (panel := self.between(low, high)) is not None:
                yield panel

    def first_row(self) -> Panel:
        low = self.edges[0]
        return self.between(low, low + 1).keep(slice(0, 1))

    def between(self, low: int, high: int) -> Panel | None:
        """The rows from one instant on and before another."""
        parts = self.parts(low, high)
        stamps = [piece.stamps[at:until] for piece, at, until in parts]
        columns = [[column[at:until] for column in piece.columns] for piece, at, until in parts]
        codes = [np.zeros(len(part), np.int32) for part in stamps]
        panel = to_panel([self.name], codes, stamps, columns) if stamps else None
        return let_go([piece for piece, _, _ in parts], panel)

    def parts(self, low: int, high: int) -> list[tuple[RunRows, int, int]]:
        """Which rows of which runs lie between two instants, in the order of the source."""
        found = []
        for (piece, begin, end), (first, last) in zip(self.own, self.ends, strict=True):
            if last < low or first >= high:
                continue
            at, until = (begin + np.searchsorted(piece.stamps[begin:end], [low, high])).tolist()
            if at < until:
                found.append((piece, at, until))
        return found


def cut_times(runs: Iterable[np.ndarray]) -> np.ndarray:
    """Instants that part sorted runs of stamps into slabs of about `SEGMENT` rows."""
    spacing = max(1, segments.SEGMENT >> 8)
    marks = np.sort(np.concatenate([run[::spacing].copy() for run in runs]))
    each = max(1, segments.SEGMENT // spacing)
    return marks[each::each]


def cut_steps(runs: Iterable[np.ndarray], step: float) -> np.ndarray:
    """Stamps that part runs into slabs of about `SEGMENT` steps, as far as there are stamps to part at."""
    cuts = [run[np.flatnonzero(np.diff(run // int(step * segments.SEGMENT))) + 1] for run in runs]
    return np.concatenate(cuts)
