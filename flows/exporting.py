"""The windows of a spec as a table with a row a window, for people who want to look at them."""

from pathlib import Path

import pyarrow.parquet as pq
from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.running import run_of
from flows.spec import PipelineSpec
from flows.training import prepare
from models.scaling import Scaler
from tasks.ingest.sources import fingerprint
from tasks.policy import StepState
from tasks.storage import Store, speaking_of
from tasks.windows import WindowFile, exploded


class Exported(BaseModel):
    """What an export wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: list[StepState]
    path: str
    rows: int


@flow(name="exporting", persist_result=False, validate_parameters=True)
def exporting(spec: PipelineSpec, fold: str, path: str) -> Exported:
    """Write one fold's windows, exploded and in the user's units, to a Parquet file."""
    store = Store(spec.store)
    with run_of(store) as run:
        _, windows = prepare(spec, spec.source, fingerprint(spec.source), spec.windows, store)
        rows = write_exploded(windows, fold, Path(path), store)
        return Exported(tasks=run.tasks, path=path, rows=rows)


def write_exploded(windows, fold: str, path: Path, store: Store) -> int:
    """The number of windows written; the file takes its name only once it is whole."""
    file = WindowFile(store.file(windows, "windows.parquet"))
    scaler = Scaler.model_validate(store.read_json(windows, "scaler.json"))
    partial, writer, rows = path.with_name(f".{path.name}.partial"), None, 0
    with speaking_of(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for batch in exploded(file, fold, scaler):
                writer = writer or pq.ParquetWriter(partial, batch.schema, compression="zstd")
                writer.write_batch(batch)
                rows += batch.num_rows
            writer.close()
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return rows
