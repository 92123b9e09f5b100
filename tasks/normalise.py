"""Scale every series by its own training steps: normalised Parquet and the scaler that undoes it."""

from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import Fault
from models.scaling import Scaler, ScalingSpec, fit_scale
from models.windows import Columns, FoldSpec, SeriesFacts
from tasks.ingest.checks import num_observed
from tasks.ingest.task import Series
from tasks.policy import step, this_call
from tasks.storage import Receipt, Store


class Normalised(Receipt):
    """Parquet of scaled float32 rows up to the last target of each series, and `scaler.json`."""

    facts: SeriesFacts
    num_series: int


@step(libraries=("numpy", "pyarrow"))
def normalise(series: Series, scaling: ScalingSpec, folds: FoldSpec, season: int, store: Store) -> Normalised:
    """Fit a scaler on the training steps of every series and apply it to all of them."""
    table = pq.read_table(store.file(series, "series.parquet"), page_checksum_verification=True)
    facts = series.facts.model_copy(update={"season": season})
    scaled, scaler = scale_series(table, facts, scaling, folds)
    with store.draft(this_call()) as draft:
        draft.write_table("normalised.parquet", scaled)
        draft.write_json("scaler.json", scaler)
        return draft.commit(Normalised, facts=facts, num_series=series.num_series)


def scale_series(table: pa.Table, facts: SeriesFacts, scaling: ScalingSpec, folds: FoldSpec) -> tuple[pa.Table, Scaler]:
    """The scaled table, without the rows after a series' last target, and its scaler.

    Raises:
        Fault: a series has no training steps, or is constant over them.
    """
    columns, season, scales, pieces = facts.columns, facts.season, {}, []
    for series_id, piece in each_series(table):
        values = to_values(piece, columns)
        observed = num_observed(values[:, 0])
        values = values[:observed]
        training = values[: max(0, observed - folds.validation - folds.test)]
        if len(training) < 2:
            raise Fault(
                f"{series_id} has {observed} steps; folds.validation {folds.validation} and folds.test {folds.test} leave "
                f"{len(training)} to train on. Set smaller folds, bring more rows or drop the series."
            )
        scales[series_id] = fit_scale(training, season, scaling, series_id, facts.target)
        one = Scaler(channels=columns.names, season=season, series={series_id: scales[series_id]})
        scaled = [pa.array(channel) for channel in one.apply(series_id, values).T]
        kept = piece.slice(0, observed)
        pieces.append(pa.table([kept["series_id"], kept["timestamp"], *scaled], names=kept.column_names))
    return pa.concat_tables(pieces), Scaler(channels=columns.names, season=season, series=scales)


def each_series(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each series in turn, from a table sorted by series."""
    ids, begin = table["series_id"], 0
    while begin < len(ids):
        series_id = ids[begin].as_py()
        end = bisect_left(ids, True, begin, key=lambda one: one.as_py() != series_id)
        yield series_id, table.slice(begin, end - begin)
        begin = end


def to_values(piece: pa.Table, columns: Columns) -> np.ndarray:
    """Rows (R, C) in the order of `columns`, float64, NaN where absent."""
    return np.stack([piece[name].to_numpy() for name in columns.names], 1)
