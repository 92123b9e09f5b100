"""The windows of a spec as a table with a row a window, for people who want to look at them."""

from pathlib import Path

import pyarrow.parquet as pq
from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.preparing import prepare, stock_of
from flows.running import few_at_once, run_of
from flows.spec import PipelineSpec
from tasks.journal import StepState
from tasks.normalise import read_scaler
from tasks.storage import Store, speaking_of
from tasks.windows.export import exploded
from tasks.windows.folds import FoldBlocks, open_windows


class Exported(BaseModel):
    """What an export wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: list[StepState]
    path: str
    rows: int


@flow(name="exporting", persist_result=False, validate_parameters=True, task_runner=few_at_once())
def exporting(spec: PipelineSpec, fold: str, path: str) -> Exported:
    """Write one fold's windows, exploded and in the user's units, to a Parquet file."""
    store = Store(spec.store)
    with run_of(store) as run:
        made = prepare(spec, spec.source, stock_of(spec, store), spec.windows, store)
        scaler, _ = read_scaler(made.normalised, made.ingested.columns, store)
        cut = open_windows(made.windows, scaler, spec.folds, store)
        rows = write_exploded(cut.fold(fold), Path(path))
        return Exported(tasks=run.tasks, path=path, rows=rows)


def write_exploded(blocks: FoldBlocks, path: Path) -> int:
    """The number of windows written; the file takes its name only once it is whole."""
    partial, writer, rows = path.with_name(f".{path.name}.partial"), None, 0
    with speaking_of(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for batch in exploded(blocks):
                writer = writer or pq.ParquetWriter(partial, batch.schema, compression="zstd")
                writer.write_batch(batch)
                rows += batch.num_rows
            writer.close()
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return rows
