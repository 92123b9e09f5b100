"""Files with a case a row, which need no column named: .ts, and text that begins with a label and numbers."""

from pathlib import Path

import numpy as np

from models.errors import counted, shortlist
from tasks.gather.archive import read_rows, read_ts
from tasks.gather.arrays import Taken
from tasks.gather.files import CaseFile, describe_case_file
from tasks.gather.source import LabelledSource
from tasks.ingest.files import SourceFile
from tasks.ingest.streams import open_text
from tasks.sniffing.dialect import guess_encoding
from tasks.sniffing.sample import is_number, looks_like_stamp
from tasks.sniffing.settings import Guess, Setting

FEWEST_VALUES = 5  # numbers behind a label, below which a line is a row of some table
LOOKED_AT = 8 << 20  # bytes that tell an encoding
LARGEST = 256 << 20  # bytes of a file whose cases are counted
PAIRS = {"_TRAIN.": "_TEST.", "_train.": "_test."}


def has_case_a_row(file: SourceFile) -> bool:
    """Whether every line of a file is a case."""
    if file.kind == "ts":
        return True
    if file.kind != "csv":
        return False
    with open_text(file, "utf-8") as stream:
        line = stream.readline(1 << 26).decode(errors="replace").strip()
    mark = next((mark for mark in "\t," if mark in line), None)
    fields = line.split(mark)
    numbers = all(is_number(field) or field.strip() in ("", "?", "NaN") for field in fields[1:])
    return len(fields) > FEWEST_VALUES and numbers and not looks_like_stamp(fields[0])


def with_other_fold(uris: list[str]) -> list[str]:
    """The files, and the test cases that lie beside training cases of the same name."""
    found = list(uris)
    for uri in uris:
        for train, test in PAIRS.items():
            other = uri.replace(train, test)
            if other != uri and other not in found and Path(other).is_file():
                found.append(other)
    return found


def guess_archive(files: list[SourceFile]) -> Guess:
    """A spec that tells the classes of such files apart.

    Raises:
        Fault: a file can not be read.
    """
    source = LabelledSource(uri=[file.path for file in files], encoding=encoding_of(files))
    cases = [describe_case_file(source, file.name, Path(file.path)) for file in files]
    guess = Guess("classification")
    if source.encoding != "utf-8":
        guess.source.append(Setting("encoding", source.encoding, "it is no UTF-8"))
    if sum(file.bytes for file in files) <= LARGEST:
        count_cases(guess, source, cases)
    else:
        guess.facts["cases"] = f"{counted(len(files), 'files')} with a case a row"
    if any(case.split == "test" for case in cases):
        guess.facts["folds"] = "as the names of the files say"
    else:
        guess.folds = [Setting("test", 0.2, "share of the cases to report on; the rest train, and are cross-validated")]
        guess.facts["folds"] = "a fifth of the cases, drawn, to test on"
    return guess


def encoding_of(files: list[SourceFile]) -> str:
    """The encoding of the first file that is not UTF-8."""
    for file in files:
        with open_text(file, "utf-8") as stream:
            if (found := guess_encoding(stream.read(LOOKED_AT))) != "utf-8":
                return found
    return "utf-8"


def count_cases(guess: Guess, source: LabelledSource, files: list[CaseFile]) -> None:
    """Say how many cases there are, how long they are, and of which classes."""
    taken: list[Taken] = [(read_ts if file.kind == "ts" else read_rows)(source, file) for file in files]
    lengths = np.concatenate([np.unique(part.ids, return_counts=True)[1] for part in taken])
    steps = f"{lengths.min():,}" if lengths.min() == lengths.max() else f"{lengths.min():,} to {lengths.max():,}"
    classes = sorted({str(one) for part in taken for one in set(part.labels.tolist()) if one is not None})
    guess.facts["cases"] = f"{len(lengths):,} of {steps} steps, {counted(len(taken[0].channels), 'channels')}, a case a row"
    guess.facts["label"] = f"{len(classes):,} classes: {shortlist(classes, 6)}"
    empty = sum(int(np.isnan(part.values).sum()) for part in taken)
    if empty:
        guess.source.append(Setting("missing", "mask", f"{counted(empty, 'values')} are empty: hidden from the net"))
    guess.facts["faults"] = counted(empty, "empty values") if empty else "none"
