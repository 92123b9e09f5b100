"""A spec of a classification, where a sample seems to hold labelled cases, or a stream with a label."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import counted, shortlist
from tasks.gather.files import FOLDS
from tasks.ingest.sources import USUAL_MARKERS
from tasks.sniffing.forecasts import say_form, shown
from tasks.sniffing.grouping import Groups, Kinds, find_groups, share_repeated
from tasks.sniffing.naming import CASES, LABELS, SPLITS, STATES, STEPS, glob_of, is_hinted, rank
from tasks.sniffing.roles import unfit
from tasks.sniffing.sample import Sample
from tasks.sniffing.settings import Guess, Setting
from tasks.sniffing.stamping import Stamps
from tasks.sniffing.steps import Steps, find_steps, usual_length

MOST_CLASSES = 1000  # of cases
MOST_WORDS, MOST_NUMBERS = 100, 20  # classes of a stream: different words, or whole numbers
FEWEST_ROWS = 5  # of each class, on average
LARGEST_CLASS = 1e9
SAID = {*FOLDS, "training", "testing", "dev"}  # what a column of folds holds
USUAL_WINDOW = 48  # steps of a window where no season is known
TO_LEARN = 20  # windows that a series is enough for, one after the other


@dataclass
class Labels:
    """A column that may hold classes."""

    name: str
    codes: np.ndarray  # (R,) -1 where there is none
    classes: list[str]
    are_words: bool


def guess_labels(sample: Sample, stamps: Stamps | None, kinds: Kinds) -> Guess | None:
    """A spec that tells classes apart, and why each line of it is as it is; None where no column seems to hold classes."""
    for labels in candidates(sample, kinds):
        case = case_column(kinds, labels)
        if not seen_columns(kinds, {labels.name, case, *(stamps.columns if stamps else ())}):
            continue
        if case is not None:
            return of_cases(sample, stamps, kinds, labels, case)
        plainly = labels.are_words or rank(labels.name, LABELS) < LABELS.index("target")
        plainly = plainly and len(labels.classes) <= (MOST_WORDS if labels.are_words else MOST_NUMBERS)
        if stamps is not None and plainly:
            return of_stream(sample, stamps, kinds, labels)
    return without_names(sample, kinds) if stamps is None else None


def without_names(sample: Sample, kinds: Kinds) -> Guess | None:
    """A spec of cases whose columns have names that tell nothing: some column orders the rows of cases of one word each."""
    words = sorted(kinds.words, key=lambda name: len(kinds.texts[name]))
    for name in words:
        labels = Labels(name, kinds.words[name], sorted(kinds.texts[name]), True)
        cases = {one: codes for one, codes in whole_numbers(kinds).items() if changes_within(codes, labels.codes) == 0}
        cases |= {one: kinds.words[one] for one in words if one != name and not changes_within(kinds.words[one], labels.codes)}
        for case, codes in cases.items():
            count = int(codes.max(initial=-1)) + 1
            fit = 2 <= len(labels.classes) < count and len(codes) >= FEWEST_ROWS * count and codes.min() >= 0
            if fit and step_column(sample, None, kinds, codes) and seen_columns(kinds, {name, case}):
                guess = of_cases(sample, None, kinds, labels, case)
                guess.doubts.append(
                    f"no column is called case or label; {case!r} and {name!r} were taken by what they hold. To forecast, the "
                    "file needs a column of stamps"
                )
                return guess
    return None


def whole_numbers(kinds: Kinds) -> dict[str, np.ndarray]:
    """Codes of the columns of whole numbers."""
    whole = {name: values for name, values in kinds.numbers.items() if not np.isnan(values).any()}
    return {name: pd.factorize(values)[0] for name, values in whole.items() if np.all(values == np.rint(values))}


def candidates(sample: Sample, kinds: Kinds) -> list[Labels]:
    """Columns named as labels are that hold few different words or whole numbers, the most telling name first."""
    found = []
    for name, codes in kinds.words.items():
        if is_hinted(name, LABELS) and 2 <= len(kinds.texts[name]) <= min(MOST_CLASSES, len(codes) // FEWEST_ROWS):
            found.append(Labels(name, codes, sorted(kinds.texts[name]), True))
    for name, values in kinds.numbers.items():
        known = np.unique(values[~np.isnan(values)])
        if not is_hinted(name, LABELS) or not 2 <= len(known) <= min(MOST_CLASSES, len(values) // FEWEST_ROWS):
            continue
        if np.all(known == np.rint(known)) and np.abs(known).max() < LARGEST_CLASS:
            found.append(Labels(name, pd.factorize(values)[0], written(sample, name, known), False))
    return sorted(found, key=lambda one: rank(one.name, LABELS))


def written(sample: Sample, name: str, known: np.ndarray) -> list[str]:
    """Classes that are numbers, as the file has them: 01, or true."""
    column = sample.columns[name]
    if pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
        text = pc.unique(pc.utf8_trim_whitespace(pc.cast(column, pa.string()))).to_pylist()
        said = [one for one in text if one not in (None, *USUAL_MARKERS)]
        if len(said) == len(known):
            return sorted(said)
    return [f"{value:.0f}" for value in known]


def case_column(kinds: Kinds, labels: Labels) -> str | None:
    """The column within whose values the label never changes, with more values than there are classes."""
    found = {}
    for name, codes in coded(kinds).items():
        count = int(codes.max(initial=-1)) + 1
        named = is_hinted(name, CASES)
        if name == labels.name or codes.min() < 0 or count <= len(labels.classes) or len(codes) < 2 * count:
            continue
        if (named or name in kinds.words) and changes_within(codes, labels.codes) == 0:
            found[name] = (rank(name, CASES), -count)
    return min(found, key=found.get, default=None)


def coded(kinds: Kinds) -> dict[str, np.ndarray]:
    """Codes of the words, and of the whole numbers whose name says that they name something."""
    return kinds.words | {name: codes for name, codes in whole_numbers(kinds).items() if is_hinted(name, CASES)}


def changes_within(codes: np.ndarray, labels: np.ndarray) -> int:
    """How many cases have more than one label."""
    return int((pd.DataFrame({"case": codes, "label": labels}).groupby("case")["label"].nunique() > 1).sum())


def split_column(kinds: Kinds) -> str | None:
    """The column that says which fold a row belongs to."""
    fitting = [name for name in kinds.words if is_hinted(name, SPLITS) and {one.lower() for one in kinds.texts[name]} <= SAID]
    return min(fitting, key=lambda name: rank(name, SPLITS), default=None)


def step_column(sample: Sample, stamps: Stamps | None, kinds: Kinds, codes: np.ndarray) -> str | None:
    """The column that orders the rows of a case, None where none does."""
    plain = stamps is not None and len(stamps.columns) == 1 and stamps.form is None and bool(stamps.good.all())
    if plain and not share_repeated(codes, stamps.micros):
        return stamps.columns[0]
    for name in sorted(kinds.numbers, key=lambda name: rank(name, STEPS)):
        values = kinds.numbers[name]
        if not is_hinted(name, STEPS) or np.isnan(values).any():
            continue
        order = np.lexsort((np.arange(len(codes)), codes))
        rises = np.diff(values[order])[np.diff(codes[order]) == 0] > 0
        if len(rises) and rises.mean() > 0.99:
            return name
    return None


def of_cases(sample: Sample, stamps: Stamps | None, kinds: Kinds, labels: Labels, case: str) -> Guess:
    """The spec of cases in long form."""
    codes = (whole_numbers(kinds) | coded(kinds))[case]
    if any(sample.folds):  # files of different folds may number their cases alike
        codes = pd.factorize(codes + (codes.max() + 1) * sample.files)[0]
    split, step = split_column(kinds), step_column(sample, stamps, kinds, codes)
    guess, count = Guess("classification"), int(codes.max()) + 1
    where = "" if sample.whole else " in what was looked at"
    lengths = np.bincount(codes)
    steps = f"{lengths.min():,}" if lengths.min() == lengths.max() else f"{lengths.min():,} to {lengths.max():,}"
    guess.facts["cases"] = f"{count:,} of {steps} steps{where}, named by {case!r}"
    say_labels(guess, labels)
    guess.source.append(Setting("case", case, f"{count:,} cases of {steps} steps{where}, each of one class"))
    guess.source.append(
        Setting("step", step, "orders the rows of a case" if step else "no column orders the rows: as they come")
    )
    named = {labels.name, case, step, split, *(stamps.columns if stamps else ())}
    channels = say_channels(guess, kinds, named)
    if split:
        guess.source.append(Setting("split", split, f"says of each case: {shortlist(sorted(kinds.texts[split]))}"))
    say_empty(guess, kinds, channels, where)
    if (unknown := len(np.unique(codes[labels.codes < 0]))) > 0:
        guess.source.append(
            Setting("unlabelled", "skip", f"{counted(unknown, 'cases')}{where} without a label: not trained on")
        )
    if split:
        guess.facts["folds"] = f"as {split!r} says"
    elif "test" in sample.folds:
        guess.facts["folds"] = "as the names of the files say"
    else:
        guess.folds = [Setting("test", 0.2, "share of the cases to report on; the rest train, and are cross-validated")]
        guess.facts["folds"] = "a fifth of the cases, drawn, to test on"
    return guess


def doubts_of(kinds: Kinds, named: set[str]) -> list[str]:
    """Of a table that is to be forecast, the columns whose name and values say that they hold classes, but those named."""
    few = {name: len(kinds.texts[name]) for name in kinds.words}
    few |= {name: int(codes.max()) + 1 for name, codes in whole_numbers(kinds).items()}
    return [
        f"{name!r} holds {count} classes; to tell them apart instead, write task: classification with label: {name}"
        for name, count in few.items()
        if name not in named and 2 <= count <= MOST_NUMBERS and is_hinted(name, (*LABELS, *STATES))
    ]


def of_stream(sample: Sample, stamps: Stamps, kinds: Kinds, labels: Labels) -> Guess:
    """The spec of a stream, whose label changes in time."""
    good = stamps.good
    others = Kinds(
        {name: values[good] for name, values in kinds.numbers.items() if name != labels.name},
        {name: codes[good] for name, codes in kinds.words.items() if name != labels.name}, kinds.texts, order=kinds.order,
    )  # fmt: skip
    groups, parts = find_groups(others, stamps.micros[good]), sample.parts[good]
    steps = find_steps(stamps.micros[good], groups.codes, parts, np.empty((int(good.sum()), 0)))
    guess = Guess("classification")
    every = f"every {steps.frequency}" if steps.frequency else "at uneven steps"
    guess.facts["stamps"] = f"{shown(stamps.columns)}, {every}" + (", taken for UTC" if stamps.naive else "")
    say_labels(guess, labels)
    guess.source.append(Setting("timestamp", stamps.setting, f"stamps, {every}: it is a stream"))
    say_form(guess, stamps)
    if stamps.naive:
        guess.source.append(Setting("timezone", "UTC", "the stamps have no offset: change it if they are of another clock"))
    elif stamps.zone:
        guess.source.append(Setting("timezone", stamps.zone, "as the file says"))
    say_streams(guess, groups)
    channels = say_channels(guess, kinds, {labels.name, *stamps.columns, *groups.columns})
    if steps.repeated:
        guess.source.append(
            Setting("duplicates", "first", f"{counted(steps.repeated, 'rows')} with a stamp that its series had before")
        )
    say_empty(guess, kinds, channels, "" if sample.whole else " in what was looked at")
    say_windows(guess, steps, usual_length(steps, parts) if steps.frequency else len(parts) // max(1, groups.count))
    return guess


def say_streams(guess: Guess, groups: Groups) -> None:
    if groups.columns:
        named = groups.columns[0] if len(groups.columns) == 1 else list(groups.columns)
        guess.source.append(Setting("series_id", named, f"{groups.count:,} series: stamps come again, once for each"))
        guess.facts["series"] = f"{groups.count:,}, named by {shown(groups.columns)}"


def say_windows(guess: Guess, steps: Steps, length: int) -> None:
    """The lines on folds and windows of a stream."""
    wanted, why = (steps.season, "a season") if 1 < steps.season <= 288 else (USUAL_WINDOW, "a guess: no season is known")
    lookback = max(1, min(wanted, length // TO_LEARN))
    why = why if lookback == wanted else f"a twentieth of {length:,} steps"
    guess.folds = [Setting("test", 0.2, "share of the newest rows of each series to report on; as many before them validate")]
    guess.windows = [
        Setting("lookback", lookback, f"steps that are seen before a label is given ({why})"),
        Setting("stride", max(1, lookback // 24), "steps between windows: a smaller one makes more of them"),
        Setting("label", "origin", "a window has the label of its last step; or majority"),
    ]
    guess.facts["windows"] = f"{counted(lookback, 'steps')} ({why}), the label of the last one"


def say_labels(guess: Guess, labels: Labels) -> None:
    count = f"{len(labels.classes):,} classes: {shortlist(labels.classes, 4)}"
    guess.source.append(Setting("label", labels.name, count))
    guess.facts["label"] = f"{labels.name!r}, {count}"


def say_channels(guess: Guess, kinds: Kinds, named: set) -> list[str]:
    """The line on the columns that are seen, which are given back."""
    channels = seen_columns(kinds, named)
    dropped = {
        name: unfit(kinds.numbers[name], name) or "true and false" for name in kinds.numbers if name not in (*named, *channels)
    }
    rest = [*dropped, *kinds.words, *kinds.empty, *(name for name in named if name)]
    glob = glob_of(channels, rest)
    guess.source.append(Setting("channels", [glob] if glob else channels, f"{counted(len(channels), 'columns')} of numbers"))
    guess.facts["channels"] = shortlist(channels, 6)
    left = {**dropped, **dict.fromkeys([name for name in kinds.words if name not in named], "words")}
    if left:
        guess.facts["left out"] = shortlist((f"{name} ({why})" for name, why in left.items()), 6)
    return channels


def seen_columns(kinds: Kinds, named: set) -> list[str]:
    """The columns of numbers that may be channels."""
    fit = [name for name, values in kinds.numbers.items() if not unfit(values, name)]
    return [name for name in fit if name not in named and name not in kinds.flags]


def say_empty(guess: Guess, kinds: Kinds, channels: list[str], where: str) -> None:
    empty = sum(int(np.isnan(kinds.numbers[name]).sum()) for name in channels)
    if empty:
        guess.source.append(Setting("missing", "mask", f"{counted(empty, 'values')}{where} are empty: hidden from the net"))
    guess.facts["faults"] = f"{counted(empty, 'empty values')}" if empty else f"none{where}"
