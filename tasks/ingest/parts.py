"""The step that reads one chunk: its rows parsed, made instants, and laid out by series and time in Arrow files.

A run is one such file: rows of the series of one bucket, sorted by series and time. Series fall into buckets by a
digest of their names, so that the rows of one series are found again without looking at those of the others.
"""

import zlib
from dataclasses import asdict

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from tasks.ingest.chunks import Chunk
from tasks.ingest.reading import Rows, read_piece
from tasks.ingest.rowwise import Found, RowFault
from tasks.ingest.sources import SourceSpec
from tasks.ingest.stamps import shown
from tasks.policy import step, this_call
from tasks.storage import Draft, Receipt, Store

BUCKETS = 64
FLUSH = 1 << 18  # rows of a long stream that are sorted at a time
RUN = 1 << 19  # rows in a run at most


class Run(BaseModel):
    """One Arrow file of a part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bucket: int
    rows: int
    first: int  # microseconds UTC, the oldest stamp
    last: int
    sha256: str


class Part(Receipt):
    """The rows of one chunk as runs, and `notes.json` with its faults and repairs."""

    rows: int
    runs: tuple[Run, ...]
    num_faults: int
    num_repairs: int


@step(libraries=("numpy", "pandas", "pyarrow", "tzdata"))
def read(source: SourceSpec, chunk: Chunk, store: Store) -> Part:
    """Read one chunk of a source into runs."""
    with store.draft(this_call()) as draft:
        runs, notes = write_runs(source, chunk, draft)
        draft.write_json("notes.json", notes)
        files = draft.files()
        runs = [Run(sha256=files[run["name"]]["sha256"], **run) for run in runs]
        counts = {"num_faults": len(notes["faults"]), "num_repairs": len(notes["repairs"])}
        return draft.commit(Part, rows=sum(run.rows for run in runs), runs=tuple(runs), **counts)


def write_runs(source: SourceSpec, chunk: Chunk, draft: Draft) -> tuple[list[dict], dict]:
    """Write the runs of a chunk; returns what each holds, and the faults and repairs met on the way."""
    runs: list[dict] = []
    waiting: list[Rows] = []
    faults: list[dict] = []
    repairs: dict[tuple[str, str], int] = {}

    def flush() -> None:
        for bucket, table in to_runs(source, waiting):
            for at in range(0, len(table), RUN):
                piece = table.slice(at, RUN)
                name = f"{len(runs):05d}.arrow"
                with pa.OSFile(str(draft.path(name)), "wb") as sink, pa.ipc.new_file(sink, piece.schema) as writer:
                    writer.write_table(piece)
                stamps = piece["timestamp"].chunk(0).cast(pa.int64()).to_numpy()
                low, high = int(stamps.min()), int(stamps.max())
                runs.append({"name": name, "bucket": bucket, "rows": len(piece), "first": low, "last": high})
        waiting.clear()

    file, last = None, {}
    for number, piece in enumerate(chunk.pieces):
        if piece.file.name != file:
            file, last = piece.file.name, {}  # the newest stamp of each series in this file
        for rows in read_piece(source, piece):
            faults += [{"piece": number} | asdict(fault) for fault in [*rows.faults, *check_order(source, rows, last, repairs)]]
            for key, count in rows.repairs.items():
                repairs[key] = repairs.get(key, 0) + count
            waiting.append(rows)
            if sum(len(one.stamps) for one in waiting) >= FLUSH:
                flush()
    flush()
    done = [{"series_id": series_id, "what": what, "count": count} for (series_id, what), count in sorted(repairs.items())]
    return runs, {"faults": faults, "repairs": done}


def check_order(source: SourceSpec, rows: Rows, last: dict[str, int], repairs: dict[tuple[str, str], int]) -> list[RowFault]:
    """The series whose stamps go back in time; `last` is what came before, and is brought up to date."""
    if not len(rows.codes):
        return []
    order = order_by(rows.codes)
    codes, stamps = (rows.codes, rows.stamps) if order is None else (rows.codes[order], rows.stamps[order])
    begins = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    names = [rows.names[code] for code in codes[begins].tolist()]
    newest = stamps[np.append(begins[1:], len(codes)) - 1].tolist()
    before = np.concatenate([stamps[:1], stamps[:-1]])
    before[begins] = [last.get(name, stamp) for name, stamp in zip(names, stamps[begins].tolist(), strict=True)]
    last.update(zip(names, newest, strict=True))
    back = np.flatnonzero(stamps < before)
    whose, firsts, counts = np.unique(codes[back], return_index=True, return_counts=True)
    found = Found()
    for code, at, count in zip(whose.tolist(), back[firsts].tolist(), counts.tolist(), strict=True):
        name = rows.names[code]
        if source.order == "sort":
            repairs[name, "stamps out of order"] = repairs.get((name, "stamps out of order"), 0) + count
            continue
        said = f"{shown(stamps[at])} UTC comes after {shown(before[at])} UTC; sort the file or set source.order='sort'"
        found.add("order", name, "", said, count, int(stamps[at]))
    return found.entries()


def order_by(codes: np.ndarray) -> np.ndarray | None:
    """What brings the rows of each series together, in file order; None where they are already."""
    if (codes[1:] >= codes[:-1]).all():
        return None
    # numpy sorts 16 bits at a time many times faster than 32.
    return np.argsort(codes.astype(np.uint16) if codes.max() < 1 << 16 else codes, kind="stable")


def bucket_of(series_id: str) -> int:
    """The bucket of a series, the same for ever."""
    return zlib.crc32(series_id.encode()) % BUCKETS


def to_runs(source: SourceSpec, waiting: list[Rows]) -> list[tuple[int, pa.Table]]:
    """The rows of each bucket, sorted by series and time; rows of one stamp stay in file order."""
    waiting = [rows for rows in waiting if len(rows.codes)]
    if not waiting:
        return []
    keyed = sorted((bucket_of(name), name) for name in {name for rows in waiting for name in rows.names})
    buckets, names = np.array([bucket for bucket, _ in keyed]), [name for _, name in keyed]
    rank = {name: number for number, name in enumerate(names)}
    codes = joined([np.array([rank[name] for name in rows.names], np.int32)[rows.codes] for rows in waiting])
    stamps = joined([rows.stamps for rows in waiting])
    values = [joined(list(columns)) for columns in zip(*(rows.values for rows in waiting), strict=True)]
    order = sorting(codes, stamps)
    if order is not None:
        codes, stamps, values = codes[order], stamps[order], [column[order] for column in values]
    present, firsts = np.unique(buckets, return_index=True)
    lasts = np.append(firsts[1:], len(names))
    edges = np.append(np.searchsorted(codes, firsts), len(codes)).tolist()
    runs = []
    for bucket, first, last, begin, end in zip(present.tolist(), firsts, lasts, edges[:-1], edges[1:], strict=True):
        if begin < end:
            own = [column[begin:end] for column in values]
            runs.append((bucket, run_table(source, codes[begin:end] - first, names[first:last], stamps[begin:end], own)))
    return runs


def joined(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def sorting(codes: np.ndarray, stamps: np.ndarray) -> np.ndarray | None:
    """What sorts rows by series and time, ties in file order; None where they are sorted already."""
    order = order_by(codes)
    if order is not None:
        codes, stamps = codes[order], stamps[order]
    if ((codes[1:] == codes[:-1]) & (stamps[1:] < stamps[:-1])).any():
        within = np.lexsort((stamps, codes))
        return within if order is None else order[within]
    return order


def run_table(source: SourceSpec, codes: np.ndarray, names: list[str], stamps: np.ndarray, values: list) -> pa.Table:
    """The rows of one run, which are sorted by code."""
    begins = np.concatenate([[True], codes[1:] != codes[:-1]])
    index = np.cumsum(begins, dtype=np.int32) - 1
    ids = pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), [names[code] for code in codes[begins].tolist()])
    columns = [ids, pa.array(stamps).view(pa.timestamp("us", "UTC")), *(pa.array(column) for column in values)]
    return pa.table(columns, names=["series_id", "timestamp", *source.value_columns])
