"""Which columns name the series, and what else the columns of a sample hold."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.gather.tables import to_numbers
from tasks.ingest.rowwise import FALSE, TRUE
from tasks.ingest.sources import USUAL_MARKERS
from tasks.sniffing.dialect import sentinel_of, stray_words
from tasks.sniffing.naming import SERIES, is_hinted, is_index, rank
from tasks.sniffing.sample import Sample

REPEATED = 0.02  # share of rows whose stamp has come before, from which on there are several series
LEFT = 0.1  # the same within each series, above which the columns do not name them
FEWEST = 3  # rows a series, on average
MOST_COLUMNS = 3  # that name the series together


@dataclass
class Kinds:
    """What the columns beside the stamps hold."""

    numbers: dict[str, np.ndarray] = field(default_factory=dict)  # (R,) float64, NaN where there is none
    words: dict[str, np.ndarray] = field(default_factory=dict)  # (R,) int64 codes of text, -1 where there is none
    texts: dict[str, list[str]] = field(default_factory=dict)  # what the codes of `words` stand for
    empty: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)  # of the numbers, those that a text has as true and false
    order: list[str] = field(default_factory=list)  # all columns, as the file has them
    infinite: dict[str, int] = field(default_factory=dict)  # how many of a column of numbers are, which are NaN here
    markers: dict[str, str] = field(default_factory=dict)  # what stands for no value -> in which column it was met first


def sort_columns(sample: Sample, stamps: tuple[str, ...]) -> Kinds:
    """Every other column as numbers or as codes of words."""
    kinds = Kinds(order=list(sample.columns))
    for name, column in sample.columns.items():
        if name not in stamps and not is_index(name):
            add_column(kinds, sample, name, column)
    for name, values in kinds.numbers.items():
        if len(values) > (count := int(np.isinf(values).sum())) > 0:
            kinds.infinite[name], values = count, np.where(np.isinf(values), np.nan, values)
            kinds.numbers[name] = values
        if sample.dialect and (low := sentinel_of(values)) is not None:
            kinds.markers.setdefault(f"{low:.0f}", name)
            kinds.numbers[name] = np.where(values == low, np.nan, values)
    return kinds


def add_column(kinds: Kinds, sample: Sample, name: str, column: pa.ChunkedArray) -> None:
    if pa.types.is_null(column.type):
        kinds.empty.append(name)
    elif pa.types.is_string(column.type):
        add_text(kinds, sample, name, column)
    elif pa.types.is_temporal(column.type):
        add_words(kinds, name, pc.cast(column, pa.string()))
    else:
        values = pc.cast(column, pa.float64()) if not pa.types.is_boolean(column.type) else pc.cast(column, pa.uint8())
        kinds.numbers[name] = pc.cast(values, pa.float64()).to_numpy()


def add_text(kinds: Kinds, sample: Sample, name: str, column: pa.ChunkedArray) -> None:
    """Text of a CSV that reads as numbers counts as such, that of Parquet does not."""
    known = pc.utf8_trim_whitespace(column.slice(0, 5000))
    known = known.filter(pc.invert(pc.is_in(known, pa.array(USUAL_MARKERS))))
    if sample.dialect and len(known) and pc.all(pc.is_in(known, pa.array(TRUE + FALSE))).as_py() and not is_digits(known):
        truth = pc.is_in(pc.utf8_trim_whitespace(column), pa.array(TRUE))
        kinds.numbers[name] = pc.cast(truth, pa.uint8()).to_numpy().astype(float)
        kinds.flags.append(name)
        return
    values = to_numbers(sample.spec(), column) if sample.dialect else None
    if values is None and sample.dialect and (odd := stray_words(known, sample.dialect.decimal)) is not None:
        odd = stray_words(column, sample.dialect.decimal) or []
        values = to_numbers(sample.spec(missing_markers=tuple(odd)), column)
        for word in odd if values is not None else []:
            kinds.markers.setdefault(word, name)
    if values is None:
        add_words(kinds, name, column)
    elif np.isnan(values).all():
        kinds.empty.append(name)
    else:
        kinds.numbers[name] = values


def is_digits(column: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.is_in(column, pa.array(("0", "1")))).as_py())


def add_words(kinds: Kinds, name: str, column: pa.ChunkedArray) -> None:
    text = pc.utf8_trim_whitespace(column)
    text = pc.if_else(pc.is_in(text, pa.array(USUAL_MARKERS)), None, text)
    codes, found = pd.factorize(text.to_pandas())
    if len(found):
        kinds.words[name], kinds.texts[name] = codes, [str(one) for one in found]
    else:
        kinds.empty.append(name)


@dataclass
class Groups:
    """The series of a sample."""

    columns: tuple[str, ...]
    codes: np.ndarray  # (R,) number of each row's series
    repeated: float  # share of rows whose stamp has come before, whatever the series

    @property
    def count(self) -> int:
        return int(self.codes.max(initial=-1)) + 1


def share_repeated(codes: np.ndarray, micros: np.ndarray) -> float:
    """The share of rows whose series and stamp have come before."""
    return float(pd.DataFrame({"code": codes, "stamp": micros}).duplicated().mean())


def find_groups(kinds: Kinds, micros: np.ndarray) -> Groups:
    """The fewest columns by which no stamp comes twice within a series; none where none does anyway, or nothing helps."""
    one = np.zeros(len(micros), np.int64)
    repeated = share_repeated(one, micros)
    if repeated <= REPEATED:
        return Groups((), one, repeated)
    candidates = group_candidates(kinds, micros)
    telling = {name: codes for name, codes in candidates.items() if name in kinds.words or is_hinted(name, SERIES)}
    for some in (telling, candidates):  # numbers whose name says nothing may tell rows apart by chance
        chosen, codes, left = choose_groups(some, kinds, micros, repeated)
        if chosen and left <= LEFT:
            return Groups(tuple(name for name in candidates if name in chosen), codes, repeated)
    return Groups((), one, repeated)


def groups_by_file(kinds: Kinds, micros: np.ndarray, files: np.ndarray, names: list[str]) -> tuple[Groups, str]:
    """The series where a column with the name of each file may tell them apart too, and what that column is called.

    Args:
        files: (R,) numbers into `names`.
    """
    column = "file"
    while column in kinds.order:
        column += "_"
    codes, found = pd.factorize(np.array(names, object)[files])
    words, texts = kinds.words | {column: codes}, kinds.texts | {column: [str(one) for one in found]}
    return find_groups(replace(kinds, words=words, texts=texts, order=[*kinds.order, column]), micros), column


def choose_groups(
    candidates: dict[str, np.ndarray], kinds: Kinds, micros: np.ndarray, repeated: float
) -> tuple[tuple[str, ...], np.ndarray, float]:
    """Columns added one by one, each time the one that leaves the fewest repeated stamps, with the share that is left."""
    left, chosen, codes, waiting = repeated, (), np.zeros(len(micros), np.int64), dict(candidates)
    while left > REPEATED and len(chosen) < MOST_COLUMNS and waiting:
        tried = {name: share_repeated(paired(codes, own), micros) for name, own in waiting.items()}
        least = min(tried.values())
        if least > 0.9 * left:
            break
        names, order = [name for name, share in tried.items() if share <= least + 0.001], list(tried)
        best = min(names, key=lambda name: (rank(name, SERIES), name in kinds.numbers, waiting[name].max(), order.index(name)))
        chosen, codes, left = (*chosen, best), paired(codes, waiting.pop(best)), tried[best]
    return chosen, codes, left


def group_candidates(kinds: Kinds, micros: np.ndarray) -> dict[str, np.ndarray]:
    """Codes of the columns that may name series: words, and whole numbers that are few or have a telling name."""
    most = int(np.unique(micros, return_counts=True)[1].max(initial=1))
    found = {
        name: codes for name, codes in kinds.words.items() if codes.min() >= 0 and len(codes) >= FEWEST * (codes.max() + 1)
    }
    for name, values in kinds.numbers.items():
        if np.isnan(values).any() or (values != np.rint(values)).any():
            continue
        codes, names = pd.factorize(values)
        limit = len(values) / FEWEST if is_hinted(name, SERIES) else 2 * most
        if len(names) <= min(limit, len(values) / FEWEST):
            found[name] = codes
    return {name: found[name] for name in kinds.order if name in found and found[name].max() > 0}


def paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Codes of the pairs that two columns of codes make."""
    return pd.factorize(first.astype(np.int64) * (int(second.max()) + 1) + second)[0]
