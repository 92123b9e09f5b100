"""Which numbers are the target, which its covariates, and which columns are a series each."""

from dataclasses import dataclass, field

import numpy as np

from tasks.ingest.panel import LARGEST
from tasks.ingest.sources import RESERVED
from tasks.sniffing.grouping import Kinds
from tasks.sniffing.naming import KNOWN_AHEAD, TARGETS, alike, glob_of, is_hinted, rank
from tasks.sniffing.steps import Steps, goes_on

LIKE_NAMED, SHARE = 5, 0.6  # columns that differ by a number, and their share of all, which make a wide form
MANY = 20  # columns of numbers which, without one named like a target, are a series each
COUNTS = "numbers the rows"
TOO_EMPTY = 0.5  # share of empty values above which a covariate is left out


@dataclass
class Roles:
    """What each column of numbers is for."""

    target: str
    why: str
    wide: list[str] = field(default_factory=list)
    wide_globs: list[str] = field(default_factory=list)
    past: list[str] = field(default_factory=list)
    future: list[str] = field(default_factory=list)
    static: list[str] = field(default_factory=list)
    known_perhaps: list[str] = field(default_factory=list)  # of the past ones, those whose name says that they are known ahead
    left_out: dict[str, str] = field(default_factory=dict)  # why


def find_roles(kinds: Kinds, groups: tuple[str, ...], steps: Steps, others: list[str]) -> Roles | None:
    """The roles of the numbers; None where none can be a target.

    Args:
        groups: columns that name the series.
        others: columns that are no numbers.
    """
    left_out = {name: reason for name in kinds.numbers if name not in groups and (reason := unfit(kinds.numbers[name], name))}
    usable = [name for name in kinds.numbers if name not in groups and name not in left_out]
    if not usable:
        usable = [name for name, reason in left_out.items() if reason == COUNTS]
        left_out = {name: reason for name, reason in left_out.items() if reason != COUNTS}
    if not usable:
        return None
    if not groups and (series := wide_series(usable)):
        rest = [name for name in usable if name not in series]
        known = [name for name in others if name not in left_out]
        glob = glob_of(series, [*rest, *left_out, *known])
        roles = Roles("value", "a name for what these columns hold", wide=series, wide_globs=[glob] if glob else series)
        target = kinds.numbers[series[0]]
    else:
        target_name, why = choose_target(usable, kinds)
        roles = Roles(target_name, why)
        target, rest = kinds.numbers[target_name], [name for name in usable if name != target_name]
    roles.left_out = left_out
    for name in rest:
        add_covariate(roles, name, kinds.numbers[name], target, steps, bool(groups))
    return roles


def wide_series(names: list[str]) -> list[str]:
    """The columns that are a series each, none where the table is in long form."""
    group = alike(names)
    if len(group) >= LIKE_NAMED and len(group) >= SHARE * len(names):
        return [] if any(is_hinted(name, TARGETS) for name in names if name not in group) else group
    return names if len(names) >= MANY and not any(is_hinted(name, TARGETS) for name in names) else []


def unfit(values: np.ndarray, name: str) -> str:
    """Why a column of numbers is of no use, '' where it may be."""
    known = values[~np.isnan(values)]
    if not len(known):
        return "empty"
    if len(known) == len(values) > 2 and np.all(np.diff(values) == 1):
        return COUNTS
    if np.abs(known).max() > LARGEST:
        return "beyond single precision"
    if known.min() == known.max():
        return "constant"
    return ""


def is_angle(values: np.ndarray) -> bool:
    """Whether numbers fill a circle in degrees and go no further."""
    low, high = np.nanmin(values), np.nanmax(values)
    return bool((0 <= low < 5 and 355 < high <= 360) or (-180 <= low < -175 and 175 < high <= 180))


def choose_target(names: list[str], kinds: Kinds) -> tuple[str, str]:
    """The column to forecast, and why it."""
    if len(names) == 1:
        return names[0], "the only column of numbers"
    hinted = [name for name in names if is_hinted(name, TARGETS)]
    if hinted:
        return min(hinted, key=lambda name: (rank(name, TARGETS), names.index(name))), "by its name"
    varying = [name for name in names if varies(kinds.numbers[name]) and not is_hinted(name, KNOWN_AHEAD)]
    fit = [name for name in varying if not is_angle(kinds.numbers[name])]
    return (fit or varying or names)[-1], "the last column of numbers that varies, for none has a name that tells"


def varies(values: np.ndarray) -> bool:
    """Whether numbers are more than a flag."""
    return len(np.unique(values[~np.isnan(values)][:10_000])) > 3


def add_covariate(roles: Roles, name: str, values: np.ndarray, target: np.ndarray, steps: Steps, several: bool) -> None:
    """Put one more column of numbers where it belongs."""
    empty = float(np.isnan(values[~np.isnan(target)]).mean())
    if name in RESERVED:
        roles.left_out[name] = "a name that is kept; rename it to use it"
    elif is_angle(values):
        roles.left_out[name] = "seems an angle; give it as sine and cosine"
    elif empty > TOO_EMPTY:
        roles.left_out[name] = f"{100 * empty:.0f} % empty"
    elif several and not roles.wide and is_static(values, steps):
        roles.static.append(name)
    elif goes_on(steps, values, target):
        roles.future.append(name)
    else:
        roles.past.append(name)
        if is_hinted(name, KNOWN_AHEAD):
            roles.known_perhaps.append(name)


def is_static(values: np.ndarray, steps: Steps) -> bool:
    """Whether a column never changes within a series."""
    own = values[steps.order]
    same = np.diff(steps.codes) == 0
    return not np.isnan(own).any() and bool((np.diff(own)[same] == 0).all())
