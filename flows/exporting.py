"""The windows or cases of a spec as a table with a row each, for people who want to look at them."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.classification import ClassificationSpec
from flows.gathering import check_labels, gathered
from flows.preparing import prepare, stock_of
from flows.running import few_at_once, run_of
from flows.spec import AnySpec, PipelineSpec
from models.errors import Fault, counted
from tasks.gather.export import rows_of_cases
from tasks.gather.opening import open_folds
from tasks.journal import StepState
from tasks.normalise import read_scaler
from tasks.storage import Store, speaking_of
from tasks.windows.export import exploded
from tasks.windows.folds import open_windows


class Exported(BaseModel):
    """What an export wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: list[StepState]
    path: str
    rows: int
    what: str  # windows, or cases


@flow(name="exporting", persist_result=False, validate_parameters=True, task_runner=few_at_once())
def exporting(spec: AnySpec, fold: str, path: str) -> Exported:
    """Write one fold's windows or cases, in the user's units, to a Parquet file."""
    check_parquet(Path(path))
    store = Store(spec.store)
    with run_of(store) as run:
        classifies = spec.task == "classification"
        batches, what = (cases_of if classifies else windows_of)(spec, fold, store)
        rows = write_batches(batches, Path(path))
        return Exported(tasks=run.tasks, path=path, rows=rows, what=what)


def windows_of(spec: PipelineSpec, fold: str, store: Store) -> tuple[Iterable[pa.RecordBatch], str]:
    made = prepare(spec, spec.source, stock_of(spec, store), spec.windows, store)
    scaler, _ = read_scaler(made.normalised, made.ingested.columns, store)
    return exploded(open_windows(made.windows, scaler, spec.folds, store).fold(fold)), "windows"


def cases_of(spec: ClassificationSpec, fold: str, store: Store) -> tuple[Iterable[pa.RecordBatch], str]:
    """The rows of a fold's cases, and whether they are cases or windows.

    Raises:
        Fault: there is no validation fold, as cases are cross-validated.
    """
    labelled = gathered(spec, store)
    check_labels(spec, labelled)
    data, what = open_folds(store, labelled, spec.folds), "windows" if labelled.stream else "cases"
    if fold == "validation" and not data.is_held_out:
        raise Fault(
            f"{spec.name!r} has no validation fold: its {counted(len(data.of('train')), what)} to train on are cross-validated "
            f"in {spec.folds.parts} parts. Export --fold train, or set folds.validation."
        )
    return rows_of_cases(data, fold, labelled.channels), what


def check_parquet(path: Path) -> None:
    """Raises a Fault where a table would be written under a name that says another form."""
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise Fault(f"Windows are written as Parquet, and {path.name} does not end in .parquet. Give --out such a name.")


def write_batches(batches: Iterable[pa.RecordBatch], path: Path) -> int:
    """The number of rows written; the file takes its name only once it is whole."""
    partial, writer, rows = path.with_name(f".{path.name}.partial"), None, 0
    with speaking_of(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for batch in batches:
                writer = writer or pq.ParquetWriter(partial, batch.schema, compression="zstd")
                writer.write_batch(batch)
                rows += batch.num_rows
            writer.close()
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return rows
