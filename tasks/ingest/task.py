"""The step: canonical Parquet out, sorted by series and time, regular, checked."""

from typing import Any

import pandas as pd
import pyarrow as pa

from models.errors import Fault, shortlist
from models.windows import Columns, SeriesFacts
from tasks.ingest.checks import check_values, fill_inside, num_observed
from tasks.ingest.sources import RESERVED, SourceFile, SourceSpec, fingerprint, read_source
from tasks.ingest.timeline import (
    calendar_columns,
    infer_frequency,
    parse_offset,
    parse_timezone,
    regular,
    season_of,
    to_instants,
)
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Receipt, Store


class Series(Receipt):
    """Canonical Parquet: series_id, timestamp (UTC), target, past covariates, future covariates."""

    rows: int
    steps: int  # rows that have a target
    num_series: int
    first: str  # the oldest stamp, ISO 8601 with the local offset
    last: str  # the newest stamp that has a target
    facts: SeriesFacts
    repairs: dict[str, int]


@step(libraries=("numpy", "pandas", "pyarrow", "tzdata"))
def ingest(source: SourceSpec, file: SourceFile, store: Store) -> Series:
    """Read one source into canonical Parquet."""
    table, facts = canonical(source, read_source(source))
    if fingerprint(source).digest != file.digest:
        raise Fault(f"{source.uri} changed while it was being read. Run again once it is written.")
    say(f"{table.num_rows:,} rows of {facts['num_series']} series, every {facts['facts'].frequency}; {repaired(facts)}")
    with store.draft(this_call()) as draft:
        draft.write_table("series.parquet", table)
        return draft.commit(Series, rows=table.num_rows, **facts)


def repaired(facts: dict) -> str:
    return ", ".join(f"{count} {what}" for what, count in facts["repairs"].items()) or "nothing to repair"


def canonical(source: SourceSpec, table: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
    """The canonical table and the facts that its receipt states.

    Raises:
        Fault: a series is irregular, incomplete or not finite, and no setting of the source allows for it.
    """
    check_names(source)
    zone = parse_timezone(source.timezone)
    frame = table.to_pandas(ignore_metadata=True)
    frame.index = to_instants(source, table.column(source.timestamp))
    ids = frame[source.series_id] if source.series_id else pd.Series(source.target, index=frame.index)
    if ids.isna().any() or (ids == "").any():
        row = int((ids.isna() | (ids == "")).to_numpy().argmax())
        raise Fault(
            f"{source.uri} data row {row + 1}: column {source.series_id!r} is empty. Name the series or remove the row."
        )
    renamed = {"target": source.target} | {name: name for name in source.value_columns[1:]}
    frame = frame[list(source.value_columns)].set_axis(list(renamed), axis=1)
    groups = list(frame.groupby(ids.to_numpy(), sort=True))
    frequency = source.frequency or infer_frequency(source, groups[0][1].index)
    offset, repairs = parse_offset(frequency), {}
    pieces = [one_series(str(name), piece, source, offset, renamed, repairs) for name, piece in groups]
    facts = {
        "steps": sum(num_observed(piece["target"].to_numpy()) for piece in pieces),
        "num_series": len(pieces),
        "first": min(piece.index[0] for piece in pieces).isoformat(),
        "last": max(piece.index[num_observed(piece["target"].to_numpy()) - 1] for piece in pieces).isoformat(),
        "facts": SeriesFacts(
            target=source.target, columns=source.columns, frequency=frequency, season=season_of(frequency), timezone=str(zone)
        ),
        "repairs": repairs,
    }
    return to_arrow([str(name) for name, _ in groups], pieces, source.columns), facts


def check_names(source: SourceSpec) -> None:
    names = source.columns.names[1:]
    used = [source.timestamp, *([source.series_id] if source.series_id else []), source.target, *names]
    twice = sorted({name for name in used if used.count(name) > 1})
    if twice:
        raise Fault(
            f"source names {shortlist(twice)} more than once among timestamp, series_id, target and covariates; once is enough."
        )
    taken = [name for name in names if name in RESERVED]
    if taken:
        raise Fault(f"The covariate {taken[0]!r} has a name that the canonical table keeps for itself. Rename the column.")


def one_series(series_id, frame, source, offset, renamed, repairs) -> pd.DataFrame:
    """One series, regular and complete, with its calendar columns."""
    frame = regular(series_id, frame, source, offset, repairs)
    if source.missing == "interpolate":
        frame, filled = fill_inside(frame)
        if filled:
            repairs["values filled"] = repairs.get("values filled", 0) + filled
    check_values(series_id, frame, renamed)
    return frame.assign(**calendar_columns(frame.index, source.calendar))


def to_arrow(names: list[str], pieces: list[pd.DataFrame], columns: Columns) -> pa.Table:
    schema = pa.schema(
        [pa.field("series_id", pa.string(), nullable=False), pa.field("timestamp", pa.timestamp("us", "UTC"), nullable=False)]
        + [pa.field(name, pa.float64()) for name in columns.names]
    )
    tables = []
    for name, piece in zip(names, pieces, strict=True):
        stamps = pa.array(piece.index.tz_convert("UTC").as_unit("us").asi8).cast(pa.timestamp("us", "UTC"))
        values = [pa.array(piece[column].to_numpy(), from_pandas=True) for column in columns.names]
        tables.append(pa.table([pa.repeat(pa.scalar(name), len(piece)), stamps, *values], schema=schema))
    return pa.concat_tables(tables)
