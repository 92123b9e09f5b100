"""The columns of a table as arrays: values as float64, series as codes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import Fault
from tasks.ingest.columns import wide_columns
from tasks.ingest.files import SourceFile
from tasks.ingest.rowwise import Places, join_ids, to_number
from tasks.ingest.sources import USUAL_MARKERS, SourceSpec


def series_columns(source: SourceSpec, file: SourceFile, present: list[str]) -> list[str]:
    """The columns of a wide file that are a series each; a folder's are none."""
    folders = dict(file.partitions)
    return wide_columns(source, list(file.header) or [name for name in present if name not in folders])


def list_columns(source: SourceSpec, file: SourceFile, table: pa.Table) -> list[np.ndarray]:
    """The value columns as float64."""
    targets = series_columns(source, file, table.column_names) if source.wide else [source.target]
    return [to_floats(file, name, table.column(name)) for name in (*targets, *source.covariates)]


def to_floats(file: SourceFile, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """A column as float64, NaN where absent.

    Raises:
        Fault: it holds something else than numbers.
    """
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        encoded = encode(column)
        numbers = np.append(whole_to_floats(file, name, encoded.dictionary), np.nan)
        return numbers[codes_of(encoded)]
    return whole_to_floats(file, name, column)


def whole_to_floats(file: SourceFile, name: str, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        cells = [to_number(text or "", set(USUAL_MARKERS), ".") for text in column.to_pylist()]
        if all(good for _, good in cells):
            return np.array([number for number, _ in cells], np.float64)
    elif pa.types.is_boolean(kind):
        return floats(pc.cast(column, pa.int8()))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return floats(column)
    raise Fault(f"{file.name}, column {name!r} holds {kind}; numbers are needed. Convert it, or name another column.")


def floats(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    typed = pc.cast(column, pa.float64(), safe=False)
    return typed.to_numpy() if isinstance(typed, pa.ChunkedArray) else typed.to_numpy(zero_copy_only=False)


def encode(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Distinct values and, for each row, which it is."""
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    whole = encoded.unify_dictionaries().combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def codes_of(encoded: pa.DictionaryArray) -> np.ndarray:
    """(R,) int32 into the distinct values, -1 where absent."""
    return encoded.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)


def series_codes(source: SourceSpec, file: SourceFile, table: pa.Table, places: Places) -> tuple[np.ndarray, list[str]]:
    """For each row its series, as a code into the list of names.

    Raises:
        Fault: a row names no series.
    """
    if not source.id_columns:
        return np.zeros(len(table), np.int32), [source.target]
    columns = []
    for name in source.id_columns:
        column = table.column(name)
        encoded = encode(column if pa.types.is_dictionary(column.type) else pc.cast(column, pa.string()))
        own, codes = [None if one is None else str(one) for one in encoded.dictionary.to_pylist()], codes_of(encoded)
        nameless = [-1, *(code for code, one in enumerate(own) if not one)]
        empty = np.flatnonzero(codes == -1 if len(nameless) == 1 else np.isin(codes, nameless))
        if len(empty):
            more = f" ({len(empty)} such rows)" if len(empty) > 1 else ""
            raise Fault(
                f"{file.name} {places.of(int(empty[0]))}: column {name!r} is empty{more}. Name the series or remove the row."
            )
        columns.append((codes, own))
    return columns[0] if len(columns) == 1 else join_codes(columns)


def join_codes(columns: list[tuple[np.ndarray, list[str]]]) -> tuple[np.ndarray, list[str]]:
    """One code for the codes of several columns, and the names they make together."""
    codes, own = columns[0]
    parts = [[one] for one in own]
    for others, own in columns[1:]:
        pairs = pc.dictionary_encode(pa.array(codes.astype(np.int64) * len(own) + others))
        parts = [[*parts[pair // len(own)], own[pair % len(own)]] for pair in pairs.dictionary.to_pylist()]
        codes = codes_of(pairs)
    return codes, [join_ids(part) for part in parts]


def melt(many: int, stamps: np.ndarray, columns: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Codes, stamps and values of wide rows in long form: one series after the other, the covariates repeated for each."""
    codes = np.repeat(np.arange(many, dtype=np.int32), len(stamps))
    covariates = [np.tile(column, many) for column in columns[many:]]
    return codes, np.tile(stamps, many), [np.concatenate(columns[:many]), *covariates]
