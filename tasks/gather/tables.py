"""Long form: CSV and Parquet with a row a step."""

import difflib
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from models.errors import Fault, shortlist
from tasks.gather.arrays import Taken
from tasks.gather.files import FOLDS, CaseFile
from tasks.gather.ordering import steps_of
from tasks.gather.source import LabelledSource
from tasks.ingest.rowwise import join_ids, missing_numbers
from tasks.ingest.sources import USUAL_MARKERS
from tasks.ingest.streams import open_text
from tasks.sniffing.naming import is_index

LOSS = 0.1  # of a column's spread, which is too much to lose in single precision
SAMPLE = 200  # values that tell whether a column is meant to hold numbers
NO_LABEL = {mark for mark in USUAL_MARKERS if mark != "None"}  # which may well be the name of a class


def read_table(source: LabelledSource, file: CaseFile, needs_labels: bool = True) -> Taken:
    """The rows of one file in long form; without labels where it has no such column and does not need it.

    Raises:
        Fault: a column is absent, or holds something else than is needed.
    """
    if not needs_labels and source.label not in columns_of(source, file):
        source = source.model_copy(update={"label": None})
    table = read_parquet(source, file) if file.kind == "parquet" else read_csv(source, file)
    if not table.num_rows:
        raise Fault(f"{file.name} has a header and no rows.")
    channels = channels_of(source, file, table)
    if others := passed_over(source, table, channels):
        from tasks.progress import say  # and Prefect with it, which those who only look at values do without

        say(f"{file.name}: columns of words or row numbers are left out: {shortlist(others, 8)}")
    values = np.stack([numbers(source, file, table, name) for name in channels], 1)
    split = None if source.split is None else folds_of(file, texts(table, source.split), source.split)
    ids = named_ids(file, [texts(table, name) for name in source.id_columns], source.id_columns, table.num_rows)
    order = None if source.is_stream or source.step is None else steps_of(source, file, table, source.step, ids)
    labels = np.full(len(ids), None, object) if source.label is None else without_markers(texts(table, source.label), source)
    return Taken(name=file.name, ids=ids, values=values, channels=channels, labels=labels, order=order, splits=split)


def columns_of(source: LabelledSource, file: CaseFile) -> list[str]:
    """The names of a file's columns."""
    if file.kind == "parquet":
        return read_schema(file).names
    with open_text(file, source.encoding) as stream:
        return next(iter(csv_rows(stream.readline(1 << 26), source, file)), [])


def read_schema(file: CaseFile) -> pa.Schema:
    try:
        return pq.read_schema(file.path)
    except (pa.ArrowException, OSError, ValueError) as error:
        said = str(error).splitlines()[0][:120]
        raise Fault(f"{file.name} is no whole Parquet file ({said}). Write or fetch it again.") from error


def stamps_of(source: LabelledSource, file: CaseFile) -> pa.Table:
    """The columns of stamps alone, as they are written."""
    source = source.model_copy(update={"label": None})  # which what is to be labelled may lack
    if file.kind == "parquet":
        return pq.read_table(file.path, columns=list(source.stamp_columns))
    return read_csv(source, file).select(list(source.stamp_columns))


def read_parquet(source: LabelledSource, file: CaseFile) -> pa.Table:
    names = read_schema(file).names
    check_present(source, file, names)
    try:
        return pq.ParquetFile(file.path).read(columns=wanted(source, names))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Fault(
            f"{file.name} is no whole Parquet file ({str(error).splitlines()[0][:120]}). Write or fetch it again."
        ) from error


def read_csv(source: LabelledSource, file: CaseFile) -> pa.Table:
    """The wanted columns; of numbers those that are named channels, and of words those that are named otherwise."""
    words = [name for name in (source.label, source.split, *source.id_columns, *source.stamp_columns) if name]
    nulls = [*USUAL_MARKERS, *source.missing_markers]
    with open_text(file, source.encoding) as stream:
        header = stream.readline(1 << 26)
        names = next(iter(csv_rows(header, source, file)), [])
        check_present(source, file, names)
        kept = wanted(source, names)
        kinds = dict.fromkeys(words, pa.string()) | {name: pa.string() for name in kept if name not in words}
        options = pa.csv.ConvertOptions(
            column_types=kinds, include_columns=kept, null_values=nulls, strings_can_be_null=False, check_utf8=True
        )
        parse = pa.csv.ParseOptions(delimiter=file.delimiter, quote_char=source.quote, newlines_in_values=True)
        try:
            return pa.csv.read_csv(stream, pa.csv.ReadOptions(column_names=names), parse, options)
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                raise Fault(f"{file.name} has a header and no rows.") from error
            setting = "source.encoding, as to latin-1" if "UTF8" in str(error) else "source.quote"
            raise Fault(
                f"{file.name} can not be taken apart: {str(error).splitlines()[0][:160]}. Mend it or set {setting}."
            ) from error


def csv_rows(text: bytes, source: LabelledSource, file: CaseFile):
    import csv
    import io

    return csv.reader(io.StringIO(text.decode(), newline=""), delimiter=file.delimiter, quotechar=source.quote)


def check_present(source: LabelledSource, file: CaseFile, present: list[str]) -> None:
    """Raises a Fault for a column that the spec names and the file lacks."""
    plain = [name for name in source.channels or () if not is_glob(name)]
    for name in (source.label, source.step, source.split, *source.id_columns, *source.stamp_columns, *plain):
        if name and present.count(name) != 1:
            near = difflib.get_close_matches(name, present, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            if name in present:
                raise Fault(f"{file.name} has {present.count(name)} columns named {name!r}; one is needed. Rename the others.")
            raise Fault(f"{file.name} has no column {name!r}; it has {shortlist(present, 12)}.{hint}")


def is_glob(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def wanted(source: LabelledSource, present: list[str]) -> list[str]:
    """The columns that are read, in the order of the file; without source.channels every one."""
    if source.channels is None:
        return list(present)
    named = {source.label, source.step, source.split, *source.id_columns, *source.stamp_columns}
    return [name for name in present if name in named or any(fnmatchcase(name, own) for own in source.channels)]


def channels_of(source: LabelledSource, file: CaseFile, table: pa.Table) -> tuple[str, ...]:
    """The columns that are seen: those that the spec names, or all of numbers but for row numbers that were written along.

    Raises:
        Fault: there is none.
    """
    named = {source.label, source.step, source.split, *source.id_columns, *source.stamp_columns}
    others = [name for name in table.column_names if name not in named]
    if source.channels is None:
        others = [name for name in others if not is_index(name) and is_numeric(source, table[name])]
    if not others:
        sought = "that source.channels names" if source.channels else "of numbers beside those that the spec names"
        raise Fault(f"{file.name} has no column {sought}; it has {shortlist(table.column_names, 12)}. Set source.channels.")
    return tuple(others)


def passed_over(source: LabelledSource, table: pa.Table, channels: tuple[str, ...]) -> list[str]:
    """The columns that are there and are not looked at."""
    named = {source.label, source.step, source.split, *source.id_columns, *source.stamp_columns}
    return [name for name in table.column_names if name not in named and name not in channels]


def is_numeric(source: LabelledSource, column: pa.ChunkedArray) -> bool:
    """Whether a column is meant to hold numbers; text counts by what most of it reads as."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = to_numbers(source, column)
        if values is not None:
            return not np.isnan(values).all()
        seen = column.slice(0, SAMPLE)  # a few words among many numbers are a fault, which is named
        return (
            sum(to_numbers(source, pa.chunked_array([[one.as_py()]], pa.string())) is not None for one in seen) > len(seen) / 2
        )
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)


def to_numbers(source: LabelledSource, column: pa.ChunkedArray) -> np.ndarray | None:
    """Text as float64 with NaN where it stands for no value; None where some of it is no number."""
    text = pc.utf8_trim_whitespace(column)
    text = pc.if_else(pc.is_in(text, pa.array([*USUAL_MARKERS, *source.missing_markers])), None, text)
    if source.decimal == ",":
        if pc.any(pc.match_substring(text, ".")).as_py():  # a mark of thousands, which would be read as the decimal one
            return None
        text = pc.replace_substring(text, ",", ".")
    try:
        values = pc.cast(text, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    numbers = missing_numbers(source)
    return np.where(np.isin(values, numbers), np.nan, values) if numbers else values


def numbers(source: LabelledSource, file: CaseFile, table: pa.Table, name: str) -> np.ndarray:
    """A channel as float32, NaN where missing.

    Raises:
        Fault: it holds something that is no finite number.
    """
    column = table[name]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = to_numbers(source, column)
        if values is None:
            row, found = first_bad(source, column)
            raise Fault(f"{file.name} row {row:,}, column {name!r}: {found!r} is no number.")
    else:
        try:
            values = pc.cast(column, pa.float64(), safe=False).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise Fault(f"{file.name} column {name!r} holds {column.type}; a channel needs numbers.") from error
    with np.errstate(over="ignore"):  # which is told below
        single = values.astype(np.float32)
    if len(bad := np.flatnonzero(np.isinf(single))):
        raise Fault(
            f"{file.name} row {bad[0] + 1:,}, column {name!r}: {values[bad[0]]} is no finite number of single precision."
        )
    known = ~np.isnan(values)
    if (lost := np.abs(single - values).max(initial=0, where=known)) > 0 and lost > LOSS * (spread := values[known].std()):
        from tasks.progress import say

        say(
            f"{file.name}: column {name!r} varies by {spread:.2g} around {values[known].mean():.3g}, of which single precision "
            f"loses up to {lost:.2g}. Take a constant off it, or leave it out of source.channels."
        )
    return single


def first_bad(source: LabelledSource, column: pa.ChunkedArray) -> tuple[int, str]:
    """Number, from 1, and text of the first value that is no number."""
    for row, value in enumerate(column, 1):
        if to_numbers(source, pa.chunked_array([[value.as_py()]], pa.string())) is None:
            return row, value.as_py()
    raise AssertionError("every value is a number")


def texts(table: pa.Table, name: str) -> np.ndarray:
    """A column as text, None where it is null; whole numbers of a float column without a point, as they were meant."""
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_floating(column.type):
        whole = pc.all(pc.or_kleene(pc.is_null(column, nan_is_null=True), pc.equal(pc.round(column), column))).as_py()
        column = pc.if_else(pc.is_nan(column), None, column)
        column = pc.cast(column, pa.int64()) if whole else column
    return pc.cast(column, pa.string()).to_numpy(zero_copy_only=False)


def without_markers(labels: np.ndarray, source: LabelledSource) -> np.ndarray:
    """Labels without what stands for none, and without blanks around them."""
    none = NO_LABEL | set(source.missing_markers)
    known, back = np.unique(np.array(["" if one is None else one.strip() for one in labels], object), return_inverse=True)
    return np.array([None if one in none else one for one in known], object)[back]


def folds_of(file: CaseFile, said: np.ndarray, column: str) -> np.ndarray:
    """The fold of each row.

    Raises:
        Fault: a value names none.
    """
    words = {**FOLDS, "training": "train", "testing": "test", "dev": "validation"}
    known = {one: words.get((one or "").strip().lower()) for one in set(said)}
    for row, one in enumerate(said, 1):
        if known[one] is None:
            raise Fault(f"{file.name} row {row:,}, column {column!r}: {one!r} is no fold; it can be train, validation or test.")
    return np.array([known[one] for one in said], object)


def named_ids(file: CaseFile, parts: list[np.ndarray], columns: tuple[str, ...], rows: int) -> np.ndarray:
    """What each row's case or series is called; several columns joined by slashes, which their own are not taken for.

    Raises:
        Fault: a row has no name.
    """
    for part, column in zip(parts, columns, strict=True):
        empty = [row for row, one in enumerate(part, 1) if one is None or not one.strip()]
        if empty:
            raise Fault(
                f"{file.name} row {empty[0]:,}, column {column!r}: it is empty ({len(empty):,} such); every row needs one."
            )
    if not parts:
        return np.full(rows, "series", object)
    return parts[0] if len(parts) == 1 else np.array([join_ids(list(one)) for one in zip(*parts, strict=True)], object)
