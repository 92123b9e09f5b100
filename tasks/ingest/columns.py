"""Which columns of a file are read, and what is said where one is absent."""

import difflib
import glob
from fnmatch import fnmatchcase

from models.errors import Fault, shortlist
from tasks.ingest.sources import SourceSpec


def dialect(source: SourceSpec) -> dict:
    """How Python's reader is to read a CSV of this source."""
    return {"delimiter": source.delimiter, "quotechar": source.quote}


def check_columns(source: SourceSpec, file, present: list[str]) -> None:
    """Raises a Fault for a column that the spec names and the file lacks, or has twice."""
    if source.file_column in present:
        raise Fault(
            f"source.file_column is {source.file_column!r}, and {file.name} has a column of that name. Give it another, and "
            "source.series_id too."
        )
    given = [*present, *(name for name, _ in file.partitions if name not in present)]
    for column in columns_wanted(source, given):
        count = given.count(column)
        if count == 0 and len(present) == 1 and (mark := next((one for one in ";\t|," if one in present[0]), None)):
            raise Fault(
                f"{file.name} has one column, {present[0]!r}; it seems to be separated by {mark!r}. "
                f"Set source.delimiter={mark!r}."
            )
        if count == 0:
            near = difflib.get_close_matches(column, present, n=1)
            folded = {name.casefold(): name for name in present}
            near = [folded[column.casefold()]] if column.casefold() in folded else near
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise Fault(f"{file.name} has no column {column!r}; it has {shortlist(present, 12)}.{hint}")
        if count > 1:
            raise Fault(f"{file.name} has {count} columns named {column!r}; one is needed. Rename or remove the others.")
    if source.wide and not wide_columns(source, present):
        raise Fault(
            f"{file.name} has no column that source.wide {shortlist(source.wide)} names; it has {shortlist(present, 12)}."
        )


def columns_wanted(source: SourceSpec, present: list[str]) -> list[str]:
    """The columns that are read, each once: stamps, ids, then values."""
    target = wide_columns(source, present) if source.wide else [source.target]
    return [*source.stamp_columns, *source.id_columns, *target, *source.covariates]


def wide_columns(source: SourceSpec, present: list[str]) -> list[str]:
    """The columns that are a series each: those named, and those a glob matches, in file order."""
    taken = (*source.stamp_columns, *source.covariates)
    plain = [name for name in source.wide if not glob.has_magic(name)]
    globs = [name for name in source.wide if glob.has_magic(name)]
    matched = [name for name in present if name not in taken and any(fnmatchcase(name, one) for one in globs)]
    return [*plain, *(name for name in matched if name not in plain)]
