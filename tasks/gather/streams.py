"""Streams: long series with a label at every step, cut into windows that are cases."""

import numpy as np
import pandas as pd

from models.classification.windows import LabelWindows
from models.errors import Fault, counted, shortlist
from tasks.gather.arrays import Gathered, Taken
from tasks.gather.assembling import with_same_channels
from tasks.gather.files import CaseFile
from tasks.gather.source import LabelledSource
from tasks.gather.tables import stamps_of
from tasks.ingest.grid import Grid
from tasks.ingest.reading import count_repairs
from tasks.ingest.stamps import to_instants
from tasks.ingest.timeline import fixed_seconds, infer_frequency, parse_offset, parse_timezone

AN_HOUR = 3_600_000_000  # microseconds
A_DAY = 24 * AN_HOUR


def with_instants(source: LabelledSource, file: CaseFile, part: Taken) -> tuple[Taken, np.ndarray]:
    """The rows that count, and their stamps (R,), int64 microseconds UTC.

    Raises:
        Fault: one of them is none.
    """
    table = stamps_of(source, file)
    names, codes = np.unique(part.ids, return_inverse=True)
    found = to_instants(source, [table[name] for name in source.stamp_columns], codes, names.tolist(), {})
    if found.bad:
        row, _, said = found.bad[0]
        raise Fault(f"{part.at(row)}: {said} ({len(found.bad):,} such).")
    part.notes |= {what: count for (_, what), count in count_repairs(found, np.zeros(len(codes), np.int64), [""]).items()}
    if found.dropped is None:
        return part, found.micros
    return part.keep(~found.dropped), found.micros[~found.dropped]


def cut_streams(source: LabelledSource, parts: list[Taken], stamps: list[np.ndarray], windows: LabelWindows) -> Gathered:
    """Every window of every series that no absent row breaks, oldest first, labelled as the spec says.

    Windows whose label is not known are there without one.

    Raises:
        Fault: files differ in their channels, a stamp is repeated, or no window is whole.
    """
    parts = with_same_channels(parts)
    ids, micros = np.concatenate([part.ids for part in parts]), np.concatenate(stamps)
    labels = np.concatenate([part.labels for part in parts])
    names, codes = np.unique(ids, return_inverse=True)
    order, dropped = in_time(source, names, codes, micros)
    codes, micros, labels = codes[order], micros[order], labels[order]
    rows = np.concatenate([part.values for part in parts])[order]
    counts = np.bincount(codes, minlength=len(names))
    firsts = np.cumsum(counts) - counts
    apart, step = breaks(source, codes, micros)
    broken = np.concatenate([[0], np.cumsum(apart)])
    starts = [whole_windows(first + np.arange(count), broken, windows) for first, count in zip(firsts, counts, strict=True)]
    start = np.concatenate(starts)
    if not len(start):
        raise Fault(
            f"No series has {windows.lookback:,} rows without an absent one between them, the longest has "
            f"{int(counts.max()):,} rows in all. Set a shorter windows.lookback."
        )
    last = start + windows.lookback - 1
    gathered = Gathered(
        rows=rows, channels=parts[0].channels, ids=names[codes[start]].tolist(), starts=start,
        lengths=np.full(len(start), windows.lookback), labels=windows.label_of(labels, start), splits=[None] * len(start),
        origins=micros[last], series=list(zip(names.tolist(), firsts.tolist(), counts.tolist(), strict=True)),
    )  # fmt: skip
    settle_missing(source, gathered, names[codes], micros)
    possible = sum(max(0, int(count) - windows.lookback + 1) for count in counts)
    gathered.notes |= {"repeated stamps dropped": dropped, "absent rows between others": int(apart.sum())}
    for part in parts:
        gathered.notes |= {what: gathered.notes.get(what, 0) + count for what, count in part.notes.items()}
    gathered.notes["windows in all"] = possible
    if without := [name for name, own in zip(names.tolist(), starts, strict=True) if not len(own)]:
        gathered.notes["series without a whole window"] = len(without)
        gathered.left_out = (
            f"{counted(len(without), 'series')} left out, without {windows.lookback:,} rows in a row at steps of {step}: "
            f"{shortlist(without)}"
        )
    return gathered


def in_time(source: LabelledSource, names: np.ndarray, codes: np.ndarray, micros: np.ndarray) -> tuple[np.ndarray, int]:
    """The order that sorts rows by series and stamp, and how many repeated ones were left out.

    Raises:
        Fault: a stamp is repeated and the spec does not say which row counts.
    """
    order = np.lexsort((micros, codes))
    same = (codes[order][1:] == codes[order][:-1]) & (micros[order][1:] == micros[order][:-1])
    if not same.any():
        return order, 0
    if source.duplicates == "error":
        at = order[int(np.flatnonzero(same)[0])]
        stamp = np.datetime64(int(micros[at]), "us").astype("datetime64[s]")
        raise Fault(
            f"{names[codes[at]]} has {stamp} UTC twice ({counted(int(same.sum()), 'such rows')}). Mend the file, or set "
            "source.duplicates to first or last."
        )
    out = np.concatenate([[False], same]) if source.duplicates == "first" else np.concatenate([same, [False]])
    return order[~out], int(same.sum())


def usual_step(codes: np.ndarray, micros: np.ndarray) -> int:
    """The most common time between neighbours of a series, in microseconds."""
    apart = np.diff(micros)[np.diff(codes) == 0]
    if not len(apart):
        raise Fault("Every series has a single row; a stream needs many. For cases name source.case, not source.timestamp.")
    values, counts = np.unique(apart, return_counts=True)
    return int(values[counts.argmax()])


def breaks(source: LabelledSource, codes: np.ndarray, micros: np.ndarray) -> tuple[np.ndarray, str]:
    """(R - 1,) whether rows are absent between two neighbours of a series, and the step between those that are not.

    Days and longer steps are those of the local calendar: the day on which clocks change is a day like any other.
    """
    same, step = np.diff(codes) == 0, usual_step(codes, micros)
    frequency = frequency_of(source, codes, micros) if step >= A_DAY - 2 * AN_HOUR else None
    if frequency is None:
        return same & (np.diff(micros) != step), str(pd.Timedelta(step, "us")).removeprefix("0 days ")
    grid, places, on_step = Grid(frequency, source.timezone), np.zeros(len(micros), np.int64), np.zeros(len(micros), bool)
    for own in np.split(np.arange(len(micros)), np.flatnonzero(~same) + 1):
        steps = grid.calendar(micros[own[0]], micros[own[-1]])
        places[own] = np.searchsorted(steps, micros[own])
        on_step[own] = np.isin(micros[own], steps)
    return same & ~((np.diff(places) == 1) & on_step[1:] & on_step[:-1]), frequency


def frequency_of(source: LabelledSource, codes: np.ndarray, micros: np.ndarray) -> str | None:
    """The calendar step of the longest series, None where it has none."""
    longest = micros[codes == np.bincount(codes).argmax()]
    stamps = pd.DatetimeIndex(longest.view("datetime64[us]"), tz="UTC").tz_convert(parse_timezone(source.timezone))
    try:
        frequency = infer_frequency(stamps)
    except Fault:
        return None
    return None if fixed_seconds(parse_offset(frequency)) else frequency


def whole_windows(rows: np.ndarray, broken: np.ndarray, windows: LabelWindows) -> np.ndarray:
    """The first rows of the windows of one series that no absent row breaks; the newest one is always among them.

    Args:
        broken: (R,) how many times rows are absent before each row.
    """
    lookback = windows.lookback
    if len(rows) < lookback:
        return np.empty(0, np.int64)
    starts = rows[(len(rows) - lookback) % windows.stride : len(rows) - lookback + 1 : windows.stride]
    return starts[broken[starts + lookback - 1] == broken[starts]]


def settle_missing(source: LabelledSource, gathered: Gathered, series: np.ndarray, micros: np.ndarray) -> None:
    """Raises a Fault where values are missing and may not be."""
    missing = np.isnan(gathered.rows)
    gathered.notes["missing values"] = int(missing.sum())
    if missing.any() and source.missing == "error":
        row, channel = (int(one[0]) for one in np.nonzero(missing))
        stamp = np.datetime64(int(micros[row]), "us").astype("datetime64[s]")
        raise Fault(
            f"{series[row]} has no value of {gathered.channels[channel]!r} at {stamp} UTC ({int(missing.sum()):,} values "
            "missing). Fill them, or set source.missing: mask."
        )
