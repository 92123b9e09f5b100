"""Rows that were read as cases: each a run of rows with one label, whatever order the files had them in."""

from collections import Counter
from dataclasses import replace

import numpy as np

from models.errors import Fault, counted, shortlist
from tasks.gather.arrays import Gathered, Taken
from tasks.gather.source import LabelledSource

FORMS_OF_STEPS = {"i": "numbers", "u": "numbers", "f": "numbers", "M": "stamps"}  # by kind of dtype


def assemble(source: LabelledSource, parts: list[Taken]) -> Gathered:
    """The cases of all files, in the order in which they first appear.

    Raises:
        Fault: files differ in their channels, a case comes twice, has two labels or two folds, or values are missing.
    """
    parts = named_apart(with_same_channels(parts))
    ids, first_row = np.concatenate([part.ids for part in parts]), np.cumsum([0, *(len(part.ids) for part in parts)])
    names, first, codes = np.unique(ids, return_index=True, return_inverse=True)
    appearing = np.argsort(first)
    rank = np.empty(len(names), np.int64)
    rank[appearing] = np.arange(len(names))
    codes = rank[codes]

    def place(row: int) -> str:
        part = int(np.searchsorted(first_row, row, side="right")) - 1
        return parts[part].at(int(row - first_row[part]))

    order = sorted_rows(source, parts, codes, names[appearing], place)
    codes = codes[order]
    lengths = np.bincount(codes, minlength=len(names))
    starts = np.cumsum(lengths) - lengths
    labels = one_a_case(parts, "labels", codes, order, names[appearing], place, "source.label")
    splits = one_a_case(parts, "splits", codes, order, names[appearing], place, "source.split")
    rows = np.concatenate([part.values for part in parts])[order]
    gathered = Gathered(
        rows=rows, channels=parts[0].channels, ids=names[appearing].tolist(), starts=starts, lengths=lengths, labels=labels,
        splits=splits,
    )  # fmt: skip
    check_missing(source, gathered)
    return gathered


def with_same_channels(parts: list[Taken]) -> list[Taken]:
    """The same rows, channels in the order of the first file.

    Raises:
        Fault: files differ in their channels.
    """
    channels = parts[0].channels
    for part in parts[1:]:
        if sorted(part.channels) != sorted(channels):
            raise Fault(
                f"{part.name} has the channels {shortlist(part.channels, 8)}, {parts[0].name} has "
                f"{shortlist(channels, 8)}; all files need the same ones. Set source.channels or mend the files."
            )
    return [
        part
        if part.channels == channels
        else replace(part, channels=channels, values=part.values[:, [part.channels.index(name) for name in channels]])
        for part in parts
    ]


def named_apart(parts: list[Taken]) -> list[Taken]:
    """The same rows; where two files of different folds number their cases alike, with the file's name before each.

    A case is one file's own only where the names of the files say which fold they are.
    """
    sets = [set(np.unique(part.ids)) for part in parts]
    folds = [set() if part.splits is None else set(part.splits) for part in parts]
    shared = any(sets[a] & sets[b] for a in range(len(parts)) for b in range(a) if not folds[a] & folds[b] and folds[a])
    if not shared:
        return parts
    stems = [part.name.replace("\\", "/").rsplit("/", 1)[-1].split(".")[0] for part in parts]
    return [
        replace(part, ids=np.char.add(f"{stem}:", part.ids.astype(str)).astype(object))
        for part, stem in zip(parts, stems, strict=True)
    ]


def sorted_rows(source: LabelledSource, parts: list[Taken], codes: np.ndarray, names: np.ndarray, place) -> np.ndarray:
    """The order that puts the rows of each case together, by its steps.

    Raises:
        Fault: a case has a step twice, or, without steps, comes back after another.
    """
    if all(part.order is None for part in parts):
        order = np.argsort(codes, kind="stable")
        new = np.flatnonzero(np.diff(codes)) + 1
        again = new[codes[new] < np.maximum.accumulate(codes)[new - 1]].tolist()
        if again and source.case:
            raise Fault(
                f"Case {names[codes[again[0]]]} comes back at {place(again[0])} after other cases ({len(again):,} such). "
                "Give every case a name of its own, or name the column that orders its rows in source.step."
            )
        return order
    forms = [FORMS_OF_STEPS.get(part.order.dtype.kind, "words") for part in parts]
    for part, form in zip(parts, forms, strict=True):
        if form != forms[0]:
            raise Fault(
                f"{part.name} has {form} in column {source.step!r}, {parts[0].name} has {forms[0]}; they share no order. "
                "Write the steps of all files alike."
            )
    steps = np.concatenate([part.order for part in parts])
    order = np.lexsort((steps, codes))
    same = (codes[order][1:] == codes[order][:-1]) & (steps[order][1:] == steps[order][:-1])
    if same.any():
        at = int(np.flatnonzero(same)[0])
        one, other = sorted((int(order[at]), int(order[at + 1])))
        raise Fault(
            f"Case {names[codes[one]]} has step {shown(steps[one])} twice, at {place(one)} and {place(other)} "
            f"({counted(int(same.sum()), 'such rows')}). Two cases may share a name, or rows were written twice; mend the file."
        )
    return order


def shown(step) -> str:
    return f"{step:g}" if isinstance(step, float) else str(step)


def one_a_case(parts: list[Taken], what: str, codes: np.ndarray, order: np.ndarray, names: np.ndarray, place, key: str) -> list:
    """The label, or the fold, of each case.

    Raises:
        Fault: a case has two.
    """
    if all(getattr(part, what) is None for part in parts):
        return [None] * len(names)
    each = [np.full(len(part.ids), None, object) if getattr(part, what) is None else getattr(part, what) for part in parts]
    values = np.concatenate(each)[order]
    starts = np.searchsorted(codes, np.arange(len(names)))
    first = values[starts]
    differ = np.flatnonzero(values != first[codes])
    if len(differ):
        row = int(differ[0])
        whose, said = names[codes[row]], ("no value" if values[row] is None else repr(values[row]))
        raise Fault(
            f"Case {whose} has the {what[:-1]} {first[codes[row]]!r} and, at {place(int(order[row]))}, {said} "
            f"({counted(len(np.unique(codes[differ])), 'such cases')}). A case needs one, the same in every row of {key}."
        )
    return first.tolist()


def check_missing(source: LabelledSource, gathered: Gathered) -> None:
    """Raises a Fault where values are missing and may not be; a case without any value is always one."""
    missing = np.isnan(gathered.rows)
    gathered.notes["missing values"] = int(missing.sum())
    if not missing.any():
        return
    owner = np.repeat(np.arange(len(gathered.ids)), gathered.lengths)
    if source.missing == "error":
        row, channel = (int(one[0]) for one in np.nonzero(missing))
        raise Fault(
            f"Case {gathered.ids[owner[row]]} has no value of {gathered.channels[channel]!r} at its row "
            f"{row - gathered.starts[owner[row]] + 1:,} ({counted(int(missing.sum()), 'values')} missing in "
            f"{counted(len(np.unique(owner[missing.any(1)])), 'cases')}). Fill them, or set source.missing: mask."
        )
    some = np.zeros(len(gathered.ids), bool)
    np.logical_or.at(some, owner, ~missing.all(1))
    if not some.all():
        empty = [gathered.ids[at] for at in np.flatnonzero(~some)]
        raise Fault(f"{counted(len(empty), 'cases')} without any value: {shortlist(empty)}. Take them out of the source.")


def count_labels(labels: list[str | None]) -> dict[str, int]:
    """How many cases each class has, by name."""
    return dict(sorted(Counter(label for label in labels if label is not None).items()))
