"""What orders the rows of a case: steps as numbers, durations, stamps, or text that has an order."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import Fault
from tasks.gather.files import CaseFile
from tasks.gather.source import LabelledSource

SORTS = r"\d{4}-\d{2}|\d{4}-?W\d{2}(-?\d)?|\d{4}-?Q\d|\d{2}:\d{2}(:\d{2}(\.\d+)?)?"  # text that sorts as what it means
DURATION = r"-?\d+ days? [+-]?\d{2}:\d{2}:\d{2}(\.\d+)?"  # as pandas writes them
NUMBERED = r"^(.*?)(\d+(?:\.\d+)?)(\D*)$"  # a word with a number at its end or before its unit
DATE = r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}"  # in whatever order


def steps_of(source: LabelledSource, file: CaseFile, table: pa.Table, name: str, ids: np.ndarray) -> np.ndarray:
    """What orders the rows of a case: numbers, durations, stamps, or text that has an order, as ISO stamps and t1 to t12 have.

    Raises:
        Fault: a row has none, or the text of one has no order.
    """
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    kind = column.type
    missing = pc.is_null(column, nan_is_null=True).to_numpy()
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if is_text:
        column = pc.utf8_trim_whitespace(column)
        missing = missing | pc.equal(column, "").to_numpy(zero_copy_only=False)
    if missing.any():
        raise Fault(
            f"{file.name} row {np.flatnonzero(missing)[0] + 1:,}, column {name!r}: it is empty; every row needs a step."
        )
    if is_text:
        return ordered(source, file, column, name, ids)
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        column = pc.cast(column, pa.int64() if pa.types.is_time64(kind) or pa.types.is_duration(kind) else pa.int32())
    elif pa.types.is_decimal(kind):
        column = pc.cast(column, pa.float64(), safe=False)
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "iufM":
        raise Fault(f"{file.name} column {name!r} holds {kind}, which orders nothing; steps are numbers or stamps.")
    return values


def ordered(source: LabelledSource, file: CaseFile, text: pa.ChunkedArray, name: str, ids: np.ndarray) -> np.ndarray:
    """Steps that are written out, as what sorts like them.

    Args:
        ids: (R,) the case of each row, within which a word with a number may not change but for that.
    """
    if source.decimal == ",":
        text = pc.replace_substring(text, ",", ".")
    if (numbers := numbers_of(text)) is not None:
        return numbers
    steps = pd.Series(text.to_numpy(zero_copy_only=False), dtype=object)
    if steps.str.fullmatch(SORTS).all():
        return steps.to_numpy().astype(str)
    if steps.str.fullmatch(DURATION).all():
        return pd.to_timedelta(steps).to_numpy().astype("timedelta64[us]").astype(np.int64)
    if (instants := instants_of(steps)) is not None:
        return instants
    parts = steps.str.extract(NUMBERED)
    if not (steps.str.contains(DATE).any() or parts[1].isna().any()):
        words = pd.DataFrame({"case": ids, "word": parts[0] + "#" + parts[2]}).drop_duplicates()
        if not words["case"].duplicated().any():
            return parts[1].astype(float).to_numpy()
    raise Fault(
        f"{file.name} row 1, column {name!r}: {steps[0][:40]!r} and the like have no order that can be told. Steps are "
        "numbers, ISO stamps, durations, or a word with a number, as t1 to t12. Write them so, or leave source.step out where "
        "rows are in order."
    )


def numbers_of(text: pa.ChunkedArray) -> np.ndarray | None:
    """Text as whole numbers, or as others; None where it is none."""
    for kind in (pa.int64(), pa.float64()):
        try:
            return pc.cast(text, kind).to_numpy()
        except pa.ArrowInvalid:
            continue
    return None


def instants_of(steps: pd.Series) -> np.ndarray | None:
    """ISO stamps, with offsets or without, as instants; None where one of them is none."""
    try:
        instants = pd.DatetimeIndex(pd.to_datetime(steps, format="ISO8601", utc=True))
    except ValueError:
        return None
    return instants.tz_localize(None).as_unit("us").to_numpy()
