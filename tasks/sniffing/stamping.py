"""Which column holds the stamps, or which two, and how they are spelt."""

from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import Fault, shortlist
from tasks.ingest.clock import Clock
from tasks.ingest.sources import Stamp
from tasks.ingest.spellings import ABSENT, parse
from tasks.ingest.timeline import parse_timezone
from tasks.sniffing.naming import STAMPS, is_hinted, rank, words_of
from tasks.sniffing.sample import Sample

GLANCED, PROBED = 4, 200  # values that a spelling is tried on before a whole column is
ENOUGH = 0.95  # share of the values that have to be stamps
DATES = ("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%Y.%m.%d", "%d.%m.%y", "%m/%d/%y",
         "%d/%m/%y", "%Y-%m-%d", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d%b%Y",
         "%Y%m%d", "%a %b %d %Y")  # fmt: skip
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M", "T%H:%M:%S", "T%H:%M:%SZ",
         ", %H:%M", ":%H:%M:%S", " %H", " %H.%M", " %H.%M.%S")  # fmt: skip
OFFSETS = ("", "%z", " %z")
FORMS = (
    None, *(date + time for date, time in product(DATES, TIMES)),
    *("%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%B %Y", "%b-%y", "%Y %m"),
    *(date + time + zone for date, time, zone in product(DATES, TIMES[1:4], OFFSETS[1:])),
)  # fmt: skip
COMPACT = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}  # by number of digits
EPOCHS = {"epoch_s": 1, "epoch_ms": 10**3, "epoch_us": 10**6}
FROM, TO = 300_000_000, 4_200_000_000  # seconds since 1970 that an epoch is looked for in: the years 1979 to 2103
YEARS = (1800, 2200)
A_DAY = 86_400_000_000  # microseconds
UTC = ("UTC", "Etc/UTC", "Z", "GMT", "Etc/GMT")
CLOCK = r"^\s*\d{1,2}(:\d{2}(:\d{2}(\.\d+)?)?|\.\d{2}\.\d{2})( ?[AaPp]\.?[Mm]\.?)?\s*$"


@dataclass
class Stamps:
    """The stamps of a sample."""

    columns: tuple[str, ...]
    form: str | None
    micros: np.ndarray  # (R,) int64 microseconds since 1970, ABSENT where none; of the clock where naive, or where all are days
    naive: bool
    others: tuple[str, ...] = ()  # columns that could have been it
    either: str | None = None  # another form that fits as well
    zone: str | None = None  # whose clock Parquet says they are of, where that is not UTC

    @property
    def good(self) -> np.ndarray:
        return self.micros != ABSENT

    @property
    def setting(self) -> str | list[str]:
        return self.columns[0] if len(self.columns) == 1 else list(self.columns)


def find_stamps(sample: Sample) -> Stamps | None:
    """The column or pair of columns that holds the stamps, None where there is none."""
    found = [one for name in sample.columns if (one := read_stamps(sample, (name,))) is not None]
    found = [one for one in found if len(np.unique(one.micros[one.good])) > 1]
    if not found:
        return month_and_year(sample)
    if all(one.form == "%Y" for one in found) and (joint := month_and_year(sample)):
        return joint
    order = list(sample.columns)
    best = min(found, key=lambda one: (rank(one.columns[0], STAMPS) >= 2 * len(STAMPS), order.index(one.columns[0])))
    best.others = tuple(one.columns[0] for one in found if one is not best)
    return with_time(sample, best)


def no_stamps(name: str, sample: Sample) -> Fault:
    return Fault(
        f"{name} has no column of stamps: none holds ISO 8601, as 2014-01-31 23:30, a date in another order, as 31.01.2014 or "
        f"1/31/2014, or a count of seconds since 1970. It has {shortlist(sample.columns, 12)}. Add one, as timestamp; or, for "
        "labelled cases, columns called case, step and label."
    )


def read_stamps(sample: Sample, names: tuple[str, ...]) -> Stamps | None:
    """The stamps that columns hold, None where they hold something else."""
    columns = [sample.columns[name] for name in names]
    probe = spread(columns)
    fitting = forms_for(sample, names, probe)
    if None in fitting and share_read(sample, None, probe) >= ENOUGH:
        fitting = [None]  # ISO 8601 is not to be taken for anything else
    for many in (GLANCED, PROBED):
        few = [column.slice(0, many) for column in probe]
        fitting = [form for form in fitting if share_read(sample, form, few) >= (ENOUGH if many == PROBED else 0.5)]
    read = []
    for form in fitting[:4]:
        micros, naive, _ = parse(spelt(sample, form, names), columns)
        if (micros != ABSENT).mean() >= ENOUGH * filled(columns):
            read.append((form, micros, naive))
    if not read:
        return None
    # Where days and months can be told apart by neither being above twelve, the order in which steps are alike is right.
    best = min(read, key=lambda one: (-np.count_nonzero(one[1] != ABSENT), unlike_steps(one[1])))
    same = [form for form, micros, _ in read if form != best[0] and (micros != ABSENT).sum() == (best[1] != ABSENT).sum()]
    differ = [form for form in same if form and best[0] and sorted(form) == sorted(best[0])]
    found = Stamps(names, *best, either=differ[0] if differ else None, zone=zone_of(columns[0].type))
    return by_local_days(found) if found.zone else found


def zone_of(kind: pa.DataType) -> str | None:
    """The zone that a type of Parquet names, None where it is UTC or none."""
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    try:
        return zone if zone and parse_timezone(zone).utcoffset(None) != timedelta(0) and zone not in UTC else None
    except Fault:
        return None


def by_local_days(stamps: Stamps) -> Stamps:
    """The same by the local clock where every one is a midnight there: days and months are 23 to 25 hours apart in UTC."""
    local = stamps.micros.copy()
    local[stamps.good] = Clock(parse_timezone(stamps.zone)).to_local(stamps.micros[stamps.good])
    return replace(stamps, micros=local) if not (local[stamps.good] % A_DAY).any() else stamps


def spread(columns: list[pa.ChunkedArray]) -> list[pa.ChunkedArray]:
    """Some values of each column from the same rows, all over the sample."""
    rows = pa.array(np.unique(np.linspace(0, len(columns[0]) - 1, PROBED).astype(int)))
    taken = [column.take(rows) for column in columns]
    full = taken[0].is_valid()
    if pa.types.is_string(taken[0].type):
        full = pc.and_(full, pc.not_equal(pc.utf8_trim_whitespace(taken[0]), ""))
    return [column.filter(full) for column in taken]


def filled(columns: list[pa.ChunkedArray]) -> float:
    """The share of rows that are not empty."""
    column = columns[0]
    empty = column.null_count
    if pa.types.is_string(column.type):
        empty += pc.sum(pc.equal(column, "")).as_py() or 0
    return 1 - empty / max(1, len(column))


def forms_for(sample: Sample, names: tuple[str, ...], probe: list[pa.ChunkedArray]) -> list[str | None]:
    """The spellings worth a try."""
    first = probe[0]
    if not len(first):
        return []
    if pa.types.is_timestamp(first.type) or pa.types.is_date(first.type):
        return [None] if len(names) == 1 else list(FORMS)
    if pa.types.is_integer(first.type) or pa.types.is_floating(first.type):
        return forms_of_numbers(names[0], first.cast(pa.float64()).to_numpy()) if len(names) == 1 else ["%Y %m"]
    if not pa.types.is_string(first.type):
        return []
    if len(names) == 1 and (values := as_numbers(sample, first)) is not None:
        return forms_of_numbers(names[0], values)
    digits = pc.match_substring_regex(first, r"\d.*\d").to_numpy(zero_copy_only=False).mean()
    longest = pc.max(pc.utf8_length(first)).as_py()
    return list(FORMS) if (digits >= ENOUGH and 5 <= longest <= 40) or len(names) > 1 else []


def as_numbers(sample: Sample, column: pa.ChunkedArray) -> np.ndarray | None:
    text = pc.utf8_trim_whitespace(column)
    if sample.spec().decimal == ",":
        text = pc.replace_substring(text, ",", ".")
    try:
        return pc.cast(text, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None


def forms_of_numbers(name: str, values: np.ndarray) -> list[str | None]:
    """Dates without marks between their digits, and epochs, where the numbers lie where such lie and go up."""
    values = values[np.isfinite(values)]
    if not len(values):
        return []
    low, high = values.min(), values.max()
    if not (is_hinted(name, STAMPS) or (len(values) > 2 and (np.diff(values) >= 0).mean() > 0.9)):
        return []
    digits = len(str(int(abs(low))))
    dated = np.all(values == np.rint(values)) and digits in COMPACT and digits == len(str(int(high)))
    year = low // 10 ** max(0, digits - 4)
    forms: list[str | None] = []
    if dated and YEARS[0] <= year <= YEARS[1] and (digits >= 8 or is_hinted(name, STAMPS)):
        forms.append(COMPACT[digits])
    return forms + [form for form, scale in EPOCHS.items() if FROM * scale <= low and high <= TO * scale]


def spelt(sample: Sample, form: str | None, names: tuple[str, ...]):
    stamp: Stamp = names[0] if len(names) == 1 else names
    return sample.spec(timestamp=stamp, timestamp_format=form)


def share_read(sample: Sample, form: str | None, columns: list[pa.ChunkedArray]) -> float:
    """The share of values that a spelling can read."""
    try:
        micros, _, _ = parse(spelt(sample, form, ("probe",) * len(columns)), columns)
    except (Fault, pa.ArrowException):
        return 0.0
    return float((micros != ABSENT).mean()) if len(micros) else 0.0


def unlike_steps(micros: np.ndarray) -> float:
    """The share of steps between neighbouring stamps that differ from the usual one."""
    apart = np.diff(np.unique(micros[micros != ABSENT]))
    if not len(apart):
        return 1.0
    _, counts = np.unique(apart, return_counts=True)
    return 1 - counts.max() / len(apart)


def with_time(sample: Sample, date: Stamps) -> Stamps:
    """The stamps with the times of day of another column, where theirs are dates alone and repeat."""
    known = date.micros[date.good]
    if len(date.columns) > 1 or (known % A_DAY).any() or len(np.unique(known)) == len(known):
        return date
    for name in sorted(
        sample.columns, key=lambda name: rank(name, ("time", "clock", "uhrzeit", "zeit", "hour", "hora", "stunde"))
    ):
        if name == date.columns[0] or not is_clock(sample, name):
            continue
        joint = read_stamps(sample, (date.columns[0], name))
        if joint is not None and len(np.unique(joint.micros)) > len(np.unique(known)):
            joint.others = tuple(one for one in date.others if one != name)
            return joint
    return date


def is_clock(sample: Sample, name: str) -> bool:
    """Whether a column holds times of day, or hours by its name."""
    column = sample.columns[name]
    if pa.types.is_time(column.type):
        return True
    if pa.types.is_string(column.type):
        probe = spread([column])[0]
        if len(probe) and pc.all(pc.match_substring_regex(probe, CLOCK)).as_py():
            return True
    hours = set(words_of(name)) & {"hour", "hours", "hr", "stunde", "hora", "h"}
    return bool(hours) and within(sample, name, 0, 23)


def within(sample: Sample, name: str, low: int, high: int) -> bool:
    """Whether a column holds whole numbers between two."""
    column = sample.columns[name]
    if pa.types.is_string(column.type):
        values = as_numbers(sample, column)
    elif pa.types.is_integer(column.type):
        values = column.drop_null().to_numpy()
    else:
        return False
    return (
        values is not None
        and len(values) > 0
        and bool(np.all((values >= low) & (values <= high) & (values == np.rint(values))))
    )


def month_and_year(sample: Sample) -> Stamps | None:
    """A column of years and one of months as stamps."""
    named = {word: name for name in sample.columns for word in words_of(name)[:1]}
    if "year" not in named or "month" not in named or "day" in named:
        return None
    names = (named["year"], named["month"])
    return read_stamps(sample, names) if within(sample, names[0], *YEARS) and within(sample, names[1], 1, 12) else None
