"""Covariates that never change within a series, from a second file: numbers as they are, words as one channel each."""

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from models.errors import Fault, counted, shortlist
from tasks.ingest.files import SourceFile, first_line
from tasks.ingest.listing import KINDS, suffixes
from tasks.ingest.rowwise import join_ids, numbered_rows, to_number
from tasks.ingest.sources import USUAL_MARKERS, SourceSpec, is_url, without_secrets
from tasks.ingest.streams import open_text

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

    def of(self, name: str) -> tuple[float, ...]:
        """The static channels of one series.

        Raises:
            Fault: the file has no row for it.
        """
        if self.channels and name not in self.values:
            raise Fault(f"source.static_uri has no row for series {name}. Add one, or remove the series.")
        return self.values.get(name, ())

    def append(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows (R, C) with the static channels of their series after the others.

        Raises:
            Fault: the file has no row for the series.
        """
        own = np.asarray(self.of(name))
        return np.concatenate([rows, np.broadcast_to(own, (len(rows), len(own)))], 1) if self.channels else rows


def read_statics(source: SourceSpec, downloads: Path, channels: tuple[str, ...] | None = None) -> Statics:
    """The static covariates in `source.static_uri`.

    Args:
        downloads: folder for a copy of a file that lies elsewhere.
        channels: those of a model that was trained before; None: as the file has them.

    Raises:
        Fault: the file, a column, a row of a series, or a value is not as it has to be.
    """
    if not source.static_uri:
        return Statics()
    if not source.static_covariates:
        return Statics(channels=channels or ())
    ids = list(source.id_columns) or ["series_id"]
    file = find_file(source.static_uri, downloads)
    table = load_table(source, file, [*ids, *source.static_covariates])
    names = [join_ids(list(row)) for row in zip(*(to_texts(table[name]) for name in ids), strict=True)]
    for name, count in Counter(names).items():
        if count > 1:
            raise Fault(f"{file.name} has {count} rows for series {name}; one is needed. Remove the others.")
    columns: dict[str, np.ndarray] = {}
    for name in source.static_covariates:
        columns |= to_channels(source, file.name, name, table[name], names, channels)
    kept = channels if channels is not None else tuple(columns)
    rows = np.stack([columns[name] for name in kept], 1)
    return Statics(channels=kept, values={name: tuple(row) for name, row in zip(names, rows.tolist(), strict=True)})


def find_file(uri: str, downloads: Path) -> SourceFile:
    """The second file, copied here where it lies elsewhere.

    Raises:
        Fault: a URL leads to no file, or to several.
    """
    name, path = uri, Path(uri)
    if is_url(uri):
        from tasks.ingest.remote import fetch

        found = fetch(uri, downloads, "source.static_uri")
        if len(found) > 1:
            raise Fault(
                f"source.static_uri {without_secrets(uri)} leads to {len(found)} files; one is needed. Name one of them."
            )
        ((name, path, _),) = found
    suffix, codec = suffixes(path.name)
    return SourceFile(name=name, path=str(path), kind=KINDS.get(suffix, ""), codec=codec, bytes=0, modified=0)


def load_table(source: SourceSpec, file: SourceFile, wanted: list[str]) -> pa.Table:
    """The wanted columns of a second file, those of a CSV as text.

    Raises:
        Fault: it is not there, not whole, or a column is absent or there twice.
    """
    try:
        present, load = open_parquet(file) if file.kind == "parquet" else open_csv(source, file)
        for name in wanted:
            if (count := present.count(name)) != 1:
                found = f"has {count} columns named {name!r}; one is needed" if count else f"has no column {name!r}"
                raise Fault(f"{file.name} {found}; it has {shortlist(present, 12)}.")
        return load(wanted)
    except FileNotFoundError as error:
        raise Fault(f"{file.name} does not exist. Set source.static_uri to a .csv or .parquet file.") from error
    except (OSError, UnicodeError, csv.Error, pa.ArrowException) as error:
        raise Fault(
            f"{file.name} is no CSV or Parquet file that can be read ({first_line(error)}). Mend it or name another."
        ) from error


def open_parquet(file: SourceFile) -> tuple[list[str], Callable[[list[str]], pa.Table]]:
    present = pq.read_schema(file.path).names
    return present, lambda wanted: pq.read_table(file.path, columns=wanted, page_checksum_verification=True, partitioning=None)


def open_csv(source: SourceSpec, file: SourceFile) -> tuple[list[str], Callable[[list[str]], pa.Table]]:
    with open_text(file, source.encoding) as stream:
        content = stream.read()
    content.decode()  # or it is another encoding
    rows = [(line, row) for line, row in numbered_rows(source, content, 1) if any(row)]
    if not rows:
        raise Fault(f"{file.name} is empty; it needs a header and a row for each series.")
    present = rows[0][1]
    for line, row in rows:
        if len(row) != len(present):
            raise Fault(
                f"{file.name} line {line} has {counted(len(row), 'fields')}; the header has {len(present)}. "
                "Mend or remove the row."
            )
    cells = list(zip(*(row for _, row in rows[1:]), strict=True)) or [()] * len(present)
    return present, lambda wanted: pa.table({name: pa.array(cells[present.index(name)], pa.string()) for name in wanted})


def to_texts(column: pa.ChunkedArray) -> list[str]:
    """A column as the source's own ids are written, an absent one empty."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return [text or "" for text in plain.cast(pa.string()).to_pylist()]


def to_channels(
    source: SourceSpec, file: str, name: str, column: pa.ChunkedArray, names: list[str], known: tuple[str, ...] | None
) -> dict[str, np.ndarray]:
    """One channel of a column of numbers, one for each word of a column of words.

    A word that no channel is known for has a zero in each of them.
    """
    texts = to_texts(column)
    decimal, empty = source.decimal if pa.types.is_string(column.type) else ".", {*USUAL_MARKERS, *source.missing_markers}
    cells = [to_number(text, empty, decimal) for text in texts]
    absent = next((row for row, (number, good) in enumerate(cells) if good and np.isnan(number)), None)
    if absent is not None:
        raise Fault(f"{file}, column {name!r}: series {names[absent]} has no value. Fill it or leave the column out.")
    words = None if known is None else [channel.removeprefix(f"{name}=") for channel in known if channel.startswith(f"{name}=")]
    odd = next((row for row, (_, good) in enumerate(cells) if not good), None)
    if known is not None and name in known and odd is not None:
        raise Fault(
            f"{file}, column {name!r}: series {names[odd]} has {texts[odd]!r}; its model learnt numbers. Mend the value."
        )
    if not words and odd is None:
        values = np.array([number for number, _ in cells], np.float64)
        if not np.isfinite(values).all():
            raise Fault(f"{file}, column {name!r}: a value is infinite. Mend it or leave the column out.")
        return {name: values}
    words = words or sorted(set(texts))
    if len(words) > MOST_WORDS:
        raise Fault(
            f"{file}, column {name!r} has {len(words)} different words; {MOST_WORDS} are the most that get a channel each."
        )
    return {f"{name}={word}": np.array([text == word for text in texts], np.float64) for word in words}
