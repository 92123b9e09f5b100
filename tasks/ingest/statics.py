"""Covariates that never change within a series, from a second file: numbers as they are, words as one channel each."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from models.errors import Fault, shortlist
from tasks.ingest.reading import join_ids
from tasks.ingest.sources import USUAL_MARKERS, SourceSpec

MOST_WORDS = 50  # different words of one column that get a channel each


class Statics(BaseModel):
    """The static channels of a source, and their values by series; empty where there is no second file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[str, ...] = ()
    values: dict[str, tuple[float, ...]] = {}

    def cache_identity(self) -> list | str:
        blob = repr((self.channels, sorted(self.values.items())))
        return hashlib.sha256(blob.encode()).hexdigest() if self.channels else []

    def only(self, names: Iterable[str]) -> "Statics":
        """The values of some series."""
        return Statics(channels=self.channels, values={name: self.values[name] for name in names if name in self.values})

    def append(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows (R, C) with the static channels of their series after the others.

        Raises:
            Fault: the file has no row for the series.
        """
        if not self.channels:
            return rows
        if name not in self.values:
            raise Fault(f"source.static_uri has no row for series {name}. Add one, or remove the series.")
        own = np.broadcast_to(np.asarray(self.values[name]), (len(rows), len(self.channels)))
        return np.concatenate([rows, own], 1)


def read_statics(source: SourceSpec, channels: tuple[str, ...] | None = None) -> Statics:
    """The static covariates in `source.static_uri`.

    Args:
        channels: those of a model that was trained before; None: as the file has them.

    Raises:
        Fault: the file, a column, a row of a series, or a value is not as it has to be.
    """
    if not source.static_uri:
        return Statics()
    path, ids = Path(source.static_uri), list(source.id_columns) or ["series_id"]
    frame = load_frame(path, source)
    wanted = [*ids, *source.static_covariates]
    if lacking := [name for name in wanted if name not in frame.columns]:
        raise Fault(f"{path} has no column {lacking[0]!r}; it has {shortlist(frame.columns, 12)}.")
    names = [join_ids([str(part) for part in row]) for row in frame[ids].itertuples(index=False)]
    twice = pd.Index(names)[pd.Index(names).duplicated()]
    if len(twice):
        raise Fault(f"{path} has {names.count(twice[0])} rows for series {twice[0]}; one is needed. Remove the others.")
    columns: dict[str, np.ndarray] = {}
    for name in source.static_covariates:
        columns |= to_channels(path, name, frame[name], names, channels)
    kept = channels if channels is not None else tuple(columns)
    table = np.stack([columns.get(name, np.zeros(len(names))) for name in kept], 1)
    return Statics(channels=kept, values={name: tuple(row) for name, row in zip(names, table.tolist(), strict=True)})


def load_frame(path: Path, source: SourceSpec) -> pd.DataFrame:
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pq.read_table(path, page_checksum_verification=True).to_pandas(ignore_metadata=True)
        return pd.read_csv(
            path, sep=source.delimiter, decimal=source.decimal, encoding=source.encoding, dtype=dict.fromkeys(source.id_columns, str),
            keep_default_na=False, na_values={name: [*USUAL_MARKERS, *source.missing_markers] for name in source.static_covariates},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise Fault(f"{path} does not exist. Set source.static_uri to a .csv or .parquet file.") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        said = (str(error).splitlines() or [""])[0][:160]
        raise Fault(
            f"{path} is no CSV or Parquet file that can be read ({said}). Mend it or set another source.static_uri."
        ) from error


def to_channels(
    path: Path, name: str, column: pd.Series, names: list[str], known: tuple[str, ...] | None
) -> dict[str, np.ndarray]:
    """One channel of a column of numbers, one for each word of a column of words."""
    if column.isna().any():
        row = int(column.isna().to_numpy().argmax())
        raise Fault(f"{path}, column {name!r}: series {names[row]} has no value. Fill it or leave the column out.")
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(np.float64)
        if not np.isfinite(values).all():
            raise Fault(f"{path}, column {name!r}: a value is infinite. Mend it or leave the column out.")
        return {name: values}
    words = sorted(set(column.astype(str)))
    if known is not None:
        words = [channel.split("=", 1)[1] for channel in known if channel.startswith(f"{name}=")]
    if len(words) > MOST_WORDS:
        raise Fault(
            f"{path}, column {name!r} has {len(words)} different words; {MOST_WORDS} are the most that get a channel each."
        )
    return {f"{name}={word}": (column.astype(str) == word).to_numpy(np.float64) for word in words}
