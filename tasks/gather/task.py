"""The step that makes one table of cases of all files of a source."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from models.classification.windows import LabelWindows
from models.errors import counted
from tasks.gather.archive import read_rows, read_ts
from tasks.gather.arrays import Gathered, Taken
from tasks.gather.assembling import assemble, count_labels
from tasks.gather.files import CaseFile
from tasks.gather.source import LabelledSource
from tasks.gather.streams import cut_streams, with_instants
from tasks.gather.tables import read_table
from tasks.ingest.files import check_unchanged
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Receipt, Store

ROWS, INDEX = "rows.parquet", "cases.parquet"


class Part(BaseModel):
    """One series of a stream: where its rows lie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    first: int
    rows: int


class Labelled(Receipt):
    """`rows.parquet`, the rows of all cases, and `cases.parquet`, which rows are whose and what label they have."""

    stream: bool
    channels: tuple[str, ...]
    num_rows: int
    num_cases: int
    shortest: int  # steps
    longest: int
    classes: dict[str, int]  # cases of each
    num_unlabelled: int
    unlabelled: tuple[str, ...]  # the first few of these cases
    has_splits: bool  # whether the source says which fold a case belongs to
    notes: dict[str, int]  # what was found or left out -> how often
    left_out: str = ""  # which series of a stream have no window, in words


class Table(BaseModel):
    """The index of what was gathered, as arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    ids: list[str]
    origins: np.ndarray | None  # (N,) int64 microseconds UTC
    labels: list[str | None]
    splits: list[str | None]
    starts: np.ndarray
    lengths: np.ndarray
    series: tuple[Part, ...]


@step(libraries=("numpy", "pandas", "pyarrow", "tzdata"))
def gather(files: list[CaseFile], source: dict, windows: LabelWindows | None, needs_labels: bool, store: Store) -> Labelled:
    """Read every file and store its cases; `source` is what `LabelledSource.to_read` keeps.

    Args:
        needs_labels: whether a file without the column of labels is at fault; what is to be labelled may lack it.
    """
    given = LabelledSource.model_validate(source | {"uri": [file.path for file in files]})
    parts = [read_file(given, file, needs_labels) for file in files]
    if given.is_stream:
        timed = [with_instants(given, file, part) for file, part in zip(files, parts, strict=True)]
        gathered = cut_streams(given, [part for part, _ in timed], [micros for _, micros in timed], windows)
    else:
        gathered = assemble(given, parts)
    say(described(gathered))
    if gathered.left_out:
        say(gathered.left_out)
    with store.draft(this_call()) as draft:
        write_rows(draft.path(ROWS), gathered)
        draft.write_table(INDEX, index_of(gathered))
        draft.write_json("series.json", [{"name": name, "first": at, "rows": rows} for name, at, rows in gathered.series])
        return draft.commit(
            Labelled, stream=given.is_stream, channels=gathered.channels, num_rows=len(gathered.rows),
            num_cases=len(gathered.ids), shortest=int(gathered.lengths.min()), longest=int(gathered.lengths.max()),
            classes=count_labels(gathered.labels), num_unlabelled=sum(label is None for label in gathered.labels),
            unlabelled=tuple(name for name, label in zip(gathered.ids, gathered.labels, strict=True) if label is None)[:5],
            has_splits=any(split is not None for split in gathered.splits), notes=gathered.notes,
            left_out=gathered.left_out,
        )  # fmt: skip


def read_file(source: LabelledSource, file: CaseFile, needs_labels: bool = True) -> Taken:
    """The rows of one file; where it has no column of folds, its name may say which one it is.

    Raises:
        Fault: the file is not what it was when the run began, or not what it should be.
    """
    check_unchanged(file)
    if file.kind == "ts":
        part = read_ts(source, file)
    elif file.kind == "rows":
        part = read_rows(source, file)
    else:
        part = read_table(source, file, needs_labels)
    check_unchanged(file)
    if part.splits is None and file.split and not source.is_stream:
        part.splits = np.full(len(part.ids), file.split, object)
    return part


def described(gathered: Gathered) -> str:
    """One line of what there is."""
    what = "windows" if gathered.origins is not None else "cases"
    shortest, longest = gathered.lengths.min(), gathered.lengths.max()
    steps = counted(longest, "steps") if shortest == longest else f"{shortest:,} to {longest:,} steps"
    classes = len(count_labels(gathered.labels))
    said = f"{classes:,} class" + ("es" if classes != 1 else "")
    return f"{counted(len(gathered.ids), what)} of {steps} and {counted(len(gathered.channels), 'channels')}, {said}"


def write_rows(path, gathered: Gathered) -> None:
    columns = [pa.array(gathered.rows[:, at]) for at in range(gathered.rows.shape[1])]
    table = pa.table(columns, names=list(gathered.channels))
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def index_of(gathered: Gathered) -> pa.Table:
    origins = gathered.origins
    return pa.table(
        {
            "id": pa.array(gathered.ids, pa.string()),
            "origin": pa.array(origins if origins is not None else [None] * len(gathered.ids), pa.int64()),
            "label": pa.array(gathered.labels, pa.string()),
            "split": pa.array(gathered.splits, pa.string()),
            "first": pa.array(gathered.starts, pa.int64()),
            "rows": pa.array(gathered.lengths, pa.int64()),
        }
    )


def read_index(store: Store, labelled: Labelled) -> Table:
    """What is known of every case but its values."""
    table = pq.read_table(store.file(labelled, INDEX), page_checksum_verification=True)
    return Table(
        ids=table["id"].to_pylist(), labels=table["label"].to_pylist(), splits=table["split"].to_pylist(),
        origins=table["origin"].to_numpy() if labelled.stream else None, starts=table["first"].to_numpy(),
        lengths=table["rows"].to_numpy(), series=[Part(**one) for one in store.read_json(labelled, "series.json")],
    )  # fmt: skip
