"""Wall-clock time and UTC, converted as whole arrays.

pandas takes several times as long and does not tell in one pass which readings were skipped and what the repeated ones
may mean, and pyarrow needs the system's tz database, which not every machine has; here the zone is asked once for the
changes of its offset, and numpy does the rest.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple

import numpy as np

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400  # seconds
MICROSECOND = timedelta(microseconds=1)
CYCLE = 146_097 * DAY  # seconds in 400 years, after which dates fall on the same weekdays again
RULED = 2500  # long before this year the changes listed in the tz database end and yearly rules follow
# What a datetime can hold, less a day at each end for the offset of the zone.
EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, tzinfo=UTC)
MARGIN = 2 * DAY * 1_000_000  # microseconds; further than any clock is from UTC
BLOCK = 1 << 16  # readings at a time: they stay in the cache, and most blocks of a sorted column have one offset


class Instants(NamedTuple):
    """What wall readings mean in UTC: three arrays of the readings' shape.

    `second` is the very array `first` where no reading is repeated, to save its memory: copy it to change it.
    """

    first: np.ndarray  # int64 us since 1970 UTC: the instant, the earlier one where the clock read this twice
    second: np.ndarray  # int64 us since 1970 UTC: the later of the two, equal to first elsewhere
    skipped: np.ndarray  # bool: the clock never showed this; first and second are the instant at which it jumped

    @property
    def repeated(self) -> np.ndarray:
        """Bool, of the same shape: the clock read this twice."""
        return self.first != self.second


class Clock:
    """The clock of one zone: a `zoneinfo.ZoneInfo` or a fixed offset.

    Arrays are int64 microseconds since 1970-01-01, of any shape and in any order, without NaT. A wall time is what the
    clock shows, written as if it were UTC. Beyond the years that a datetime can hold the first and last offsets apply.
    """

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone

    def to_local(self, utc: np.ndarray) -> np.ndarray:
        """The wall time at each instant, in a new array of the same shape."""
        instants = flat(utc)
        local = np.empty_like(instants)
        if len(instants):
            spans = offsets_over(self.zone, *years_of(instants))
            for part, span in located(instants, spans.changes):
                np.add(instants[part], spans.offsets[span], out=local[part])
        return local.reshape(np.shape(utc))

    def to_utc(self, wall: np.ndarray) -> Instants:
        """The instants at which the clock showed each wall time."""
        readings = flat(wall)
        first = np.empty_like(readings)
        second = first
        skipped = np.zeros(len(readings), bool)
        if len(readings):
            table = readings_over(self.zone, *years_of(readings))
            odd = [(np.empty(0, np.intp), np.empty(0, np.intp))]  # rows that were skipped or repeated, their pieces
            for part, piece in located(readings, table.edges):
                np.subtract(readings[part], table.offsets[piece], out=first[part])
                if np.any(table.odd[piece]):
                    pieces = np.broadcast_to(piece, first[part].shape)
                    rows = np.flatnonzero(table.odd[pieces])
                    odd.append((part.start + rows, pieces[rows]))
            rows, pieces = (np.concatenate(column) for column in zip(*odd, strict=True))
            gap = table.skipped[pieces]
            skipped[rows[gap]] = True
            first[rows[gap]] = table.landings[pieces[gap]]
            if not gap.all():
                second = first.copy()
                second[rows] += table.extra[pieces]
        shape = np.shape(wall)
        return Instants(first.reshape(shape), second.reshape(shape), skipped.reshape(shape))


class Spans(NamedTuple):
    """The offsets of a zone, in microseconds: `offsets[k]` from `changes[k - 1]` on and before `changes[k]`."""

    changes: np.ndarray  # (K,) instants
    offsets: np.ndarray  # (K + 1,)


class Readings(NamedTuple):
    """The wall times of a zone in pieces, in microseconds: piece p lies from `edges[p - 1]` on and before `edges[p]`."""

    edges: np.ndarray  # (P - 1,) wall times
    offsets: np.ndarray  # (P,) of the earlier instant
    extra: np.ndarray  # (P,) from the earlier instant to the later
    skipped: np.ndarray  # (P,) bool
    landings: np.ndarray  # (P,) the instant at which the clock jumped, where skipped
    odd: np.ndarray  # (P,) bool: skipped or repeated


def flat(times: np.ndarray) -> np.ndarray:
    times = np.asarray(times)
    assert times.dtype == np.int64, f"times are {times.dtype}; microseconds as int64 are needed"
    return times.reshape(-1)


def years_of(times: np.ndarray) -> tuple[int, int]:
    """The first and last year whose offsets can matter to these times, wall or UTC."""
    low, high = int(times.min()) - MARGIN, int(times.max()) + MARGIN
    earliest, latest = ((end - EPOCH) // MICROSECOND for end in (EARLIEST, LATEST))
    first, last = (EPOCH + min(max(time, earliest), latest) * MICROSECOND for time in (low, high))
    return first.year, last.year


def located(times: np.ndarray, edges: np.ndarray) -> Iterator[tuple[slice, np.intp | np.ndarray]]:
    """Each block of the times, and between which edges they lie: one number where all lie between the same two."""
    for start in range(0, len(times), BLOCK):
        part = slice(start, min(start + BLOCK, len(times)))
        block = times[part]
        low, high = np.searchsorted(edges, [block.min(), block.max()], side="right")
        yield part, low if low == high else low + np.searchsorted(edges[low:high], block, side="right")


@lru_cache(maxsize=256)
def readings_over(zone: tzinfo, first_year: int, last_year: int) -> Readings:
    """What the wall times of these years mean.

    Assumes that changes lie further apart than the clock jumps, as they do in every zone of the tz database.
    """
    changes, offsets = offsets_over(zone, first_year, last_year)
    before, after = offsets[:-1], offsets[1:]
    opens, closes = changes + np.minimum(before, after), changes + np.maximum(before, after)  # of the odd piece
    edges = np.stack([opens, closes], axis=1).reshape(-1)
    piece = np.arange(len(edges) + 1)
    change = piece // 2  # the odd-numbered pieces lie at a change, the even-numbered between two
    jump = np.append(after - before, 0)[change] * (piece % 2)
    return Readings(
        edges=edges,
        offsets=offsets[change],
        extra=np.maximum(-jump, 0),
        skipped=jump > 0,
        landings=np.append(changes, 0)[change],
        odd=jump != 0,
    )


@lru_cache(maxsize=256)
def offsets_over(zone: tzinfo, first_year: int, last_year: int) -> Spans:
    """The offsets of a zone in these UTC years; the first and last of them reach beyond."""
    fixed = zone.utcoffset(None)
    if fixed is not None:
        return Spans(np.empty(0, np.int64), np.array([fixed // MICROSECOND]))
    changes = [change for year in range(first_year, last_year + 1) for change in changes_in(zone, year)]
    start = max(datetime(first_year, 1, 1, tzinfo=UTC), EARLIEST)
    offsets = [offset_at(zone, (start - EPOCH) // timedelta(seconds=1)), *(offset for _, offset in changes)]
    instants = np.array([second for second, _ in changes], np.int64) * 1_000_000
    return Spans(instants, np.array([offset // MICROSECOND for offset in offsets], np.int64))


@lru_cache(maxsize=1 << 15)
def changes_in(zone: tzinfo, year: int) -> tuple[tuple[int, timedelta], ...]:
    """Each change of a zone's offset in one UTC year: its second since 1970, and the offset from then on.

    The zone is asked once a day: no two changes of the tz database are less than three days apart, so none that
    undo each other fall between two questions.
    """
    if year > RULED:
        return tuple((second + CYCLE, offset) for second, offset in changes_in(zone, year - 400))
    start = max(datetime(year, 1, 1, tzinfo=UTC), EARLIEST)
    end = datetime(year + 1, 1, 1, tzinfo=UTC) if year < LATEST.year else LATEST
    days = range((start - EPOCH).days * DAY, (end - EPOCH).days * DAY + 1, DAY)
    offsets = [offset_at(zone, second) for second in days]
    return tuple(
        change
        for second, before, after in zip(days, offsets, offsets[1:], strict=False)
        if before != after
        for change in changes_between(zone, (second, before), (second + DAY, after))
    )


def changes_between(zone: tzinfo, low: tuple[int, timedelta], high: tuple[int, timedelta]) -> Iterator[tuple[int, timedelta]]:
    """The changes after `low` and up to `high`, each a second and the offset at it, found to the second by halving."""
    if low[1] == high[1]:
        return
    if high[0] - low[0] == 1:
        yield high
        return
    second = (low[0] + high[0]) // 2
    middle = second, offset_at(zone, second)
    yield from changes_between(zone, low, middle)
    yield from changes_between(zone, middle, high)


def offset_at(zone: tzinfo, second: int) -> timedelta:
    return (EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
