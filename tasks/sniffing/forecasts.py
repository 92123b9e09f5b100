"""A spec of a forecast for what a sample seems to hold."""

from dataclasses import replace

import numpy as np
import pandas as pd

from models.errors import Fault, counted, shortlist
from models.windows import FoldSpec, WindowSettings, steps_needed
from tasks.ingest.timeline import calendar_seasons
from tasks.sniffing.dialect import numbers_in
from tasks.sniffing.grouping import Groups, Kinds, find_groups, groups_by_file
from tasks.sniffing.roles import Roles, find_roles
from tasks.sniffing.sample import Sample
from tasks.sniffing.settings import Guess, Setting
from tasks.sniffing.stamping import Stamps
from tasks.sniffing.steps import Holes, Steps, find_steps, holes_in, usual_length

DRAWN = 6  # steps of the longest hole that a line is drawn through; a longer one is hidden from the net
FEW = 0.01  # share of rows that may be repeated, or lie off the grid, without a person having a look first
FAR, FEW_FAR = 50, 0.001  # spreads of the middle half, and share of values, of what is hardly real
SPARSE = 0.3  # share of absent rows above which they are no gaps
LONGEST_HORIZON = 288
FEWEST_STEPS = 12


def guess_forecast(name: str, sample: Sample, stamps: Stamps, kinds: Kinds) -> Guess:
    """A spec that forecasts, and why each line of it is as it is.

    Raises:
        Fault: there is nothing to forecast, or too little to learn from.
    """
    good = stamps.good
    kept = Sample(sample.columns, sample.parts[good], sample.num_rows, sample.whole, sample.dialect, sample.twice)
    kinds = rows_of(kinds, good)
    micros = stamps.micros[good]
    groups, by_file = find_groups(kinds, micros), None
    if not groups.columns and len(set(sample.names)) > 1:  # they may be a file each
        groups, by_file = groups_by_file(kinds, micros, sample.files[good], sample.names)
    values = np.stack(list(kinds.numbers.values()), 1) if kinds.numbers else np.empty((len(micros), 0))
    steps = find_steps(micros, groups.codes, kept.parts, values)
    roles = find_roles(kinds, groups.columns, steps, [*kinds.words, *kinds.empty, *stamps.columns])
    written = [] if sample.dialect is None else spoiled(kinds, stamps.columns)
    if roles is None:
        raise Fault(
            f"{name} has stamps in {stamps.columns[0]!r} and no column of numbers that varies beside them, so there is "
            f"nothing to forecast. It has {shortlist(sample.columns, 12)}." + "".join(f" {line}." for line in written)
        )
    if steps.frequency is None:
        raise Fault(
            f"{name} has no series with three different stamps in {stamps.columns[0]!r}, so their step can not be told."
        )
    guess = Guess("forecasting")
    guess.facts["stamps"] = f"{shown(stamps.columns)}, every {steps.frequency}" + (", taken for UTC" if stamps.naive else "")
    say_stamps(guess, stamps, steps)
    say_series(guess, groups, by_file, roles, "" if sample.whole else " in what was looked at")
    say_roles(guess, roles, kinds, sample)
    guess.doubts += written
    if not roles.wide:
        say_far(guess, roles.target, kinds.numbers[roles.target], groups.codes)
    say_faults(guess, kept, kinds, roles, steps)
    ahead = 0 if roles.wide else holes_in(steps, kinds.numbers[roles.target], kinds.numbers[roles.target]).ahead
    say_lengths(guess, steps, usual_length(steps, kept.parts) - ahead // groups.count)
    return guess


def spoiled(kinds: Kinds, stamps: tuple[str, ...]) -> list[str]:
    """A line for each column of words that look like numbers."""
    found = {name: numbers_in(kinds.texts[name]) for name in kinds.words if name not in stamps}
    return [f"{name!r} looks like numbers with {why}; write them without" for name, why in found.items() if why]


def say_far(guess: Guess, target: str, values: np.ndarray, codes: np.ndarray) -> None:
    """A doubt where a few values lie so far from all others of their series that they are hardly real."""
    grouped = pd.Series(np.where(np.isfinite(values), values, np.nan)).groupby(codes)
    low, middle, high = (grouped.quantile(share).reindex(codes).to_numpy() for share in (0.25, 0.5, 0.75))
    far = np.flatnonzero((np.abs(values - middle) > FAR * (high - low)) & (high > low) & np.isfinite(values))
    if 0 < len(far) <= max(1, FEW_FAR * len(values)):
        few = "a value that lies" if len(far) == 1 else f"{len(far):,} values that lie"
        guess.doubts.append(
            f"{target!r} holds {few} very far from all others, as {values[far[0]]:g}: where that is wrong, forecasts that see "
            "it are spoiled; mend it, or name bounds in source.rules"
        )


def rows_of(kinds: Kinds, good: np.ndarray) -> Kinds:
    """The same of some rows."""
    if good.all():
        return kinds
    numbers = {name: values[good] for name, values in kinds.numbers.items()}
    return replace(kinds, numbers=numbers, words={name: codes[good] for name, codes in kinds.words.items()})


def shown(names) -> str:
    return " and ".join(repr(name) for name in names)


def say_stamps(guess: Guess, stamps: Stamps, steps: Steps) -> None:
    """The lines on stamps, timezone and frequency."""
    also = f"; also stamps: {shortlist(stamps.others)}" if stamps.others else ""
    why = "stamps"
    if len(stamps.columns) > 1:
        why = "years and months" if stamps.form == "%Y %m" else "dates and times of day"
    guess.source.append(Setting("timestamp", stamps.setting, why + also))
    say_form(guess, stamps)
    if stamps.naive:
        why = "the stamps have no offset: change it if they are of another clock, as Europe/Paris"
        if steps.summer_time:
            why = "stamps come twice on Sundays in autumn: name their clock, as Europe/Paris, with repeated_hour: order"
            guess.doubts.append(f"{why}. Taken for UTC, the hours of summer are an hour off")
    elif stamps.zone:
        why = "as the file says: the clock whose hours and days the net sees"
    else:
        why = "of the local clock, whose hours and days the net sees: change it if that is another, as Europe/Paris"
    guess.source.append(Setting("timezone", stamps.zone or "UTC", why))
    guess.source.append(Setting("frequency", steps.frequency, "the most common step"))


def say_form(guess: Guess, stamps: Stamps) -> None:
    """The line on how stamps are written, and what is to be looked at."""
    if (bad := int((~stamps.good).sum())) > 0:
        guess.doubts.append(f"{counted(bad, 'rows')} without a stamp that can be read; mend them or take them out")
    if stamps.form is None:
        return
    why = "how they are written"
    if stamps.either:
        why = f"{stamps.either} would fit as well: look whether days and months are the right way round"
        guess.doubts.append(f"stamps may be {stamps.either} as well as {stamps.form}; look at source.timestamp_format")
    guess.source.append(Setting("timestamp_format", stamps.form, why))


def say_series(guess: Guess, groups: Groups, by_file: str | None, roles: Roles, where: str) -> None:
    """The lines on what names the series; `by_file` is the column with the name of each file, where there is one."""
    if groups.columns:
        if by_file in groups.columns:
            guess.source.append(Setting("file_column", by_file, "a column with the name of each file"))
        named = groups.columns[0] if len(groups.columns) == 1 else list(groups.columns)
        why = f"{groups.count:,} series{where}: stamps come again, once for each"
        guess.source.append(Setting("series_id", named, why))
        guess.facts["series"] = f"{groups.count:,}, named by {shown(groups.columns)}"
    elif roles.wide:
        guess.source.append(Setting("wide", roles.wide_globs, f"{len(roles.wide)} columns of numbers, a series each"))
        guess.facts["series"] = f"{len(roles.wide)}, a column each: {shortlist(roles.wide, 3)}"
    else:
        guess.facts["series"] = "one"


def say_roles(guess: Guess, roles: Roles, kinds: Kinds, sample: Sample) -> None:
    """The lines on target and covariates."""
    others = [*roles.past, *roles.future, *roles.static, *(name for name in roles.left_out if not roles.wide)]
    rest = f"; other numbers: {shortlist(others, 12)}" if others and not roles.wide else ""
    guess.source.append(Setting("target", roles.target, roles.why + rest))
    guess.facts["target"] = f"{roles.target!r}, {roles.why}"
    past = "known up to the origin only"
    if roles.known_perhaps:
        past += f"; of these {shortlist(roles.known_perhaps)} may be known ahead: then list them as future_covariates"
    for key, names, why in (
        ("past_covariates", roles.past, past),
        ("future_covariates", roles.future, "they go on where the target has ended"),
        ("static_covariates", roles.static, "they never change within a series"),
    ):
        if names:
            guess.source.append(Setting(key, names, why))
    kinds_of = {"past": roles.past, "ahead": roles.future, "static": roles.static}
    covariates = "; ".join(f"{what}: {shortlist(names, 6)}" for what, names in kinds_of.items() if names)
    guess.facts["covariates"] = covariates or "none"
    left = {**roles.left_out, **dict.fromkeys(kinds.empty, "empty"), **dict.fromkeys(sample.twice, "a name that comes twice")}
    used = {
        name
        for one in guess.source
        for name in (one.value if isinstance(one.value, list) else [one.value])
        if isinstance(name, str)
    }
    left |= {name: "words" for name in kinds.words if name not in used}
    if left:
        guess.facts["left out"] = shortlist((f"{name} ({why})" for name, why in left.items()), 6)


def say_faults(guess: Guess, sample: Sample, kinds: Kinds, roles: Roles, steps: Steps) -> None:
    """The lines on faults: settings where they do no harm, and doubts where a person has to look."""
    where = "" if sample.whole else " in what was looked at"
    found: list[str] = []
    if steps.backwards:
        found.append("rows out of order")
        why = f"{counted(steps.backwards, 'rows')}{where} come before an older one of the same series"
        guess.source.append(Setting("order", "sort", why))
    say_repeated(guess, steps, len(sample), where, found)
    say_gaps(guess, steps, len(sample), where, found)
    say_missing(guess, missing_of(kinds, roles, steps), where, found)
    if steps.off_grid:
        guess.doubts.append(
            f"{counted(steps.off_grid, 'stamps')}{where} not a whole number of {steps.frequency} steps after the first of "
            "their series; training refuses them: resample, or set source.frequency"
        )
    guess.facts["faults"] = ", ".join(found) or f"none{where}"


def say_repeated(guess: Guess, steps: Steps, rows: int, where: str, found: list[str]) -> None:
    if not steps.repeated:
        return
    found.append(counted(steps.repeated, "repeated stamps"))
    differ = steps.repeated - steps.copies
    said = f"{counted(steps.repeated, 'rows')}{where} with a stamp that its series had before, {steps.copies:,} of them copies"
    harmless = differ <= FEW * rows
    guess.source.append(
        Setting("duplicates", "first" if harmless else "mean", said + "; the first counts" * harmless, not harmless)
    )
    if not harmless:
        guess.doubts.append(
            f"{said}; training refuses them: name what tells them apart as source.series_id, or set source.duplicates"
        )


def say_gaps(guess: Guess, steps: Steps, rows: int, where: str, found: list[str]) -> None:
    gaps = steps.gaps
    if not gaps.count:
        return
    found.append(counted(gaps.count, "absent rows"))
    verb = "is" if gaps.count == 1 else "are"
    said = f"{counted(gaps.count, 'rows')} {verb} absent{where}, the longest hole {counted(gaps.longest, 'steps')}"
    if gaps.count > SPARSE * (rows + gaps.count):
        guess.source.append(Setting("gaps", "mask", said, off=True))
        guess.doubts.append(f"{said}: a step of {steps.frequency} may be wrong; look at source.frequency, or set source.gaps")
        return
    guess.source.append(Setting("gaps", *repair(gaps, said)))


def repair(holes: Holes, said: str) -> tuple[str, str]:
    """Draw a line through what is short and closed, hide what is not."""
    if holes.longest <= DRAWN and not holes.open:
        return "interpolate", said
    return "mask", f"{said}: hidden from the net"


def missing_of(kinds: Kinds, roles: Roles, steps: Steps) -> dict[str, Holes]:
    """The empty values of each column that is used and has some."""
    if roles.wide:
        columns = {name: (kinds.numbers[name], kinds.numbers[name]) for name in roles.wide}
        target = kinds.numbers[roles.wide[0]]
    else:
        target = kinds.numbers[roles.target]
        columns = {roles.target: (target, target)}
    columns |= {name: (kinds.numbers[name], target) for name in (*roles.past, *roles.future)}
    found = {name: holes_in(steps, own, against) for name, (own, against) in columns.items()}
    return {name: holes for name, holes in found.items() if holes.count}


def say_missing(guess: Guess, missing: dict[str, Holes], where: str, found: list[str]) -> None:
    if not missing:
        return
    total = Holes(
        sum(one.count for one in missing.values()), max(one.longest for one in missing.values()),
        sum(one.open for one in missing.values()),
    )  # fmt: skip
    found.append(counted(total.count, "empty values"))
    said = (
        f"{counted(total.count, 'values')} of {shortlist(missing, 3)} {'is' if total.count == 1 else 'are'} empty{where}, "
        f"the longest hole {counted(total.longest, 'steps')}"
    )
    guess.source.append(Setting("missing", *repair(total, said)))


def say_lengths(guess: Guess, steps: Steps, length: int) -> None:
    """The lines on folds and windows.

    Raises:
        Fault: the series are too short for any.
    """
    if length < FEWEST_STEPS:
        raise Fault(
            f"A typical series has {counted(length, 'steps')} of {steps.frequency}; at least {FEWEST_STEPS} are needed to "
            "learn from some and test on others. Bring more rows, or name what they belong to in fewer columns."
        )
    horizon, why = choose_horizon(steps, length)
    fold = max(horizon, length // 10)
    fold -= fold % horizon if fold > 3 * horizon else 0  # whole horizons
    share = f"about a tenth of {length:,} steps" if fold <= 0.15 * length else f"a horizon of {length:,} steps"
    guess.folds = [
        Setting("validation", fold, f"{share}: to choose and compare on"),
        Setting("test", fold, "the newest steps: to report on"),
    ]
    guess.windows = [Setting("horizon", horizon, why)]
    settings = WindowSettings(horizon=horizon)
    train = length - 2 * fold
    needed = steps_needed(FoldSpec(validation=fold, test=fold), settings.resolved(steps.season, train))
    if needed > length:
        lookback = max(1, min(train // 3, train - horizon))
        guess.windows.append(Setting("lookback", lookback, "as far as so few steps allow"))
    guess.facts["horizon"] = f"{counted(horizon, 'steps')} ({why}); validation and test {counted(fold, 'steps')} each"


def choose_horizon(steps: Steps, length: int) -> tuple[int, str]:
    """A season, or what of it the rows are enough for."""
    cycles = calendar_seasons(steps.frequency)
    fitting = {count: name for count, name in cycles.items() if count <= LONGEST_HORIZON}
    wanted, why = next(iter(fitting.items()), (24, "no season is known")) if steps.season > 1 else (24, "no season is known")
    if steps.season > LONGEST_HORIZON and not fitting:
        wanted, why = 60, f"a day would be {steps.season:,} steps"
    most = max(1, length // 12)
    return (wanted, why) if wanted <= most else (most, f"a twelfth of {length:,} steps")
