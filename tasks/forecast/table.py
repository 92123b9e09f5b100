"""The forecast table: a Delta table that takes all rows of a run or none."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from models.errors import Fault
from tasks.storage import speaking_of

SCHEMA = pa.schema(
    [
        ("series_id", pa.string()),
        ("origin", pa.timestamp("us", "UTC")),
        ("step", pa.int32()),
        ("model", pa.string()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("forecast", pa.float64()),
        ("new_series", pa.bool_()),
        ("model_digest", pa.string()),
        ("run_id", pa.string()),
        ("created_at", pa.timestamp("us", "UTC")),
    ]
)
QUANTILE = re.compile(r"q\d+(_\d+)?")  # a column of quantiles, named by its level in percent: q2_5, q10
KEY = ("series_id", "origin", "step", "model")


def publish(uri: str, rows: pd.DataFrame) -> int:
    """Upsert rows by (series_id, origin, step, model) in one atomic commit; returns the table's new version.

    A reader sees all of a run's rows or none, and the same forecast published again replaces itself.
    """
    schema = pa.schema([*SCHEMA, *((name, pa.float64()) for name in rows.columns if QUANTILE.fullmatch(name))])
    same = " AND ".join(f"old.{column} = new.{column}" for column in KEY)
    with writing(uri):
        create(uri, schema)
        schema = add_columns(uri, schema)
        others = {name: np.nan for name in schema.names if name not in rows}
        table = pa.Table.from_pandas(rows.assign(**others)[schema.names], schema=schema, preserve_index=False)
        return upsert(uri, table, same)


def create(uri: str, schema: pa.Schema) -> None:
    """An empty table, unless there is one."""
    if not DeltaTable.is_deltatable(uri):
        write_deltalake(uri, schema.empty_table(), mode="ignore")


def upsert(uri: str, rows: pa.Table, same: str) -> int:
    """Replace the rows that are the same, add the others, in one atomic commit; returns the table's new version."""
    merge = DeltaTable(uri).merge(rows, predicate=same, source_alias="new", target_alias="old")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
    return DeltaTable(uri).version()


@contextmanager
def writing(uri: str) -> Iterator[None]:
    """Turn what no other try will mend into one sentence that names the table."""
    try:
        with speaking_of(uri):
            yield
    except CommitFailedError:  # another writer came first; worth another try
        raise
    except (DeltaError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        said = re.sub(r"\x1b\[[0-9;]*m|↳", "", str(error)).strip().splitlines()[-1].strip()
        raise Fault(f"Can not write {uri}: {said}. The table is as it was. Make room, or mend or move the folder.") from error


def add_columns(uri: str, schema: pa.Schema) -> pa.Schema:
    """Give a table the columns that it lacks, of a later version or of other levels; its older rows have no value there.

    Returns:
        The schema, and the quantiles that only the table has.
    """
    table = DeltaTable(uri)
    present = {field.name for field in table.schema().fields}
    lacking = [field for field in schema if field.name not in present]
    if lacking:
        table.alter.add_columns(Schema.from_arrow(pa.schema(lacking)).fields)
    others = sorted(name for name in present - set(schema.names) if QUANTILE.fullmatch(name))
    return pa.schema([*schema, *((name, pa.float64()) for name in others)])
