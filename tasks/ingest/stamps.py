"""Stamps of any spelling as instants: int64 microseconds UTC."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from tasks.ingest.clock import Clock
from tasks.ingest.sources import SourceSpec
from tasks.ingest.spellings import ABSENT, EARLIEST, LATEST, Bad, parse
from tasks.ingest.timeline import parse_timezone

MICROS_A_DAY = 86_400_000_000


@dataclass
class Instants:
    """Stamps of some rows, and what could not be made of them."""

    micros: np.ndarray  # (R,) int64 UTC
    bad: Bad = field(default_factory=list)
    shifted: np.ndarray | None = None  # (R,) bool, moved out of an hour that the clock skipped
    dropped: np.ndarray | None = None  # (R,) bool, left out for the same reason


def to_instants(
    source: SourceSpec, columns: list[pa.ChunkedArray], codes: np.ndarray, names: list[str], state: dict
) -> Instants:
    """The instants of rows in file order.

    Args:
        codes: (R,) the series of each row, into `names`.
        state: what `repeated_hour: order` has to remember of earlier rows of the same file; changed in place.

    Raises:
        Fault: the column holds something else than stamps.
    """
    micros, naive, bad = parse(source, columns)
    result = Instants(micros, bad)
    if naive and len(micros):
        settle(source, micros, codes, names, state, result)
    beyond = (result.micros < EARLIEST) | (result.micros > LATEST)
    for row in np.flatnonzero(beyond & (micros != ABSENT)):
        result.bad.append((int(row), "no stamp", "the stamp lies beyond the years 1 to 9999"))
    return result


def settle(source: SourceSpec, wall: np.ndarray, codes: np.ndarray, names: list[str], state: dict, result: Instants) -> None:
    """Turn wall times into instants."""
    absent = wall == ABSENT
    some = bool(absent.any())
    clock = Clock(parse_timezone(source.timezone))
    found = clock.to_utc(np.where(absent, 0, wall) if some else wall)
    result.micros = np.where(absent, ABSENT, found.first) if some else found.first
    repeated, skipped = found.repeated & ~absent, found.skipped & ~absent
    if repeated.any() or state:
        settle_repeated(source, wall, repeated, found.second, codes, names, state, result)
    if skipped.any():
        settle_skipped(source, clock, wall, skipped, found.first, result)


def settle_repeated(source, wall, repeated, second, codes, names, state, result: Instants) -> None:
    """Choose between the two instants at which the clock showed the same."""
    if source.repeated_hour == "error":
        for row in np.flatnonzero(repeated):
            said = (
                f"{shown(wall[row])} was shown twice by the clock of {source.timezone}; set source.repeated_hour to "
                "'order', 'first' or 'second', or source.timezone to the offset that the stamps were taken in"
            )
            result.bad.append((int(row), "repeated hour", said))
        return
    if source.repeated_hour == "second":
        later = repeated
    elif source.repeated_hour == "order":
        later = second_time(wall, repeated, codes, names, state)
    else:
        later = np.zeros(len(wall), bool)
    result.micros = np.where(later, second, result.micros)


def second_time(wall: np.ndarray, repeated: np.ndarray, codes: np.ndarray, names: list[str], state: dict) -> np.ndarray:
    """Of stamps shown twice, those that come when the series' clock has already gone back."""
    later = np.zeros(len(wall), bool)
    order = np.argsort(codes, kind="stable")
    grouped = codes[order]
    places = np.flatnonzero(repeated[order])
    begins = np.searchsorted(grouped, grouped[places])
    ends = np.searchsorted(grouped, grouped[places], side="right")
    before = dict(state)
    for name in [names[code] for code in np.unique(codes).tolist()] if state else []:
        state.pop(name, None)
    last, gone_back, previous = None, False, -1
    for place, begin, end in zip(places.tolist(), begins.tolist(), ends.tolist(), strict=True):
        row = order[place]
        name = names[codes[row]]
        if place == begin:
            last, gone_back = before.get(name, (None, False))
        elif place != previous + 1:  # the clock has shown something else since
            last, gone_back = None, False
        if last is not None and wall[row] - last > MICROS_A_DAY:
            gone_back = False
        elif last is not None and wall[row] <= last:
            gone_back = True
        later[row], last, previous = gone_back, int(wall[row]), place
        if place == end - 1:
            state[name] = (last, gone_back)
    return later


def settle_skipped(source, clock: Clock, wall, skipped, jump: np.ndarray, result: Instants) -> None:
    """Shift, drop or refuse stamps that the clock never showed; `jump` is when it was put forward.

    Shifted stamps go forward as far as the clock did: 02:30 becomes 03:30, the instant that a clock left alone means by it.
    """
    if source.skipped_hour == "shift":
        before = jump[skipped] - 1
        offset = clock.to_local(before) - before
        result.micros = result.micros.copy()
        result.micros[skipped] = wall[skipped] - offset
        result.shifted = skipped
    elif source.skipped_hour == "drop":
        result.dropped = skipped
    else:
        for row in np.flatnonzero(skipped):
            said = (
                f"{shown(wall[row])} was never shown by the clock of {source.timezone}; set source.skipped_hour to "
                "'shift' or 'drop', or source.timezone to the offset that the stamps were taken in"
            )
            result.bad.append((int(row), "skipped hour", said))


def shown(micros: int) -> str:
    return np.datetime64(int(micros), "us").astype("datetime64[s]").item().isoformat()
