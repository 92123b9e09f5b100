"""Files with a case a row: the archive's text files, and .ts with several channels."""

import re
from decimal import Decimal

import numpy as np

from models.errors import Fault
from tasks.gather.arrays import Taken
from tasks.gather.files import CaseFile, fields_of, text_of
from tasks.gather.source import LabelledSource
from tasks.gather.tables import NO_LABEL
from tasks.ingest.sources import USUAL_MARKERS
from tasks.ingest.streams import open_text

STAMPED = re.compile(r"^\s*\(")  # a pair of stamp and value


def read_rows(source: LabelledSource, file: CaseFile) -> Taken:
    """A text file whose rows are a label and the values of one case, of one channel.

    Values at a row's end that stand for none are past the end of its case.

    Raises:
        Fault: a value is no number, or a case has none.
    """
    none = {*USUAL_MARKERS, *source.missing_markers, "?"}
    cases: list[np.ndarray] = []
    labels: list[str] = []
    lines: list[int] = []
    with open_text(file, source.encoding) as stream:
        for line, raw in enumerate(stream, 1):
            text = text_of(raw, f"{file.name} line {line:,}")
            if not text.strip():
                continue
            fields = fields_of(text.rstrip("\r\n"), file.delimiter, source.quote, f"{file.name} line {line:,}")
            values = parsed(fields[1:], none, source.decimal, f"{file.name} line {line:,}")
            values = values[: 1 + np.flatnonzero(~np.isnan(values)).max(initial=-1)]
            if not len(values):
                raise Fault(f"{file.name} line {line:,} has a label and no values. Give the case some, or take the line out.")
            cases.append(values[:, None])
            labels.append(plain_label(fields[0].strip()))
            lines.append(line)
    check_no_header(file, cases, labels)
    return taken(file, cases, labels, lines, ("value",))


def check_no_header(file: CaseFile, cases: list[np.ndarray], labels: list[str]) -> None:
    """Raises a Fault where the first line counts its fields, as pandas writes above a table without names."""
    first, label = (cases[0][:, 0], labels[0]) if len(cases) > 1 else (np.empty(0), None)
    counts = len(first) > 2 and first[0] in (0, 1) and np.array_equal(first, first[0] + np.arange(len(first)))
    if counts and label is not None and (labels.count(label) == 1 or label == f"{first[0] - 1:g}"):
        raise Fault(
            f"{file.name} begins with a line that counts: {label}, {first[0]:g}, {first[1]:g}, {first[2]:g} and so on. It "
            "is a header, where every line has to be a case; take it out."
        )


def read_ts(source: LabelledSource, file: CaseFile) -> Taken:
    """A .ts file: a header of words that begin with @, then a case a line, its channels and its label parted by colons.

    Raises:
        Fault: there are no data, cases have different numbers of channels, or a value is no number.
    """
    none = {*USUAL_MARKERS, *source.missing_markers, "?"}
    cases, labels, lines, labelled, begun, listed = [], [], [], True, False, set()
    with open_text(file, source.encoding) as stream:
        for line, raw in enumerate(stream, 1):
            text = text_of(raw, f"{file.name} line {line:,}").strip()
            if not text or text.startswith(("#", "%")):
                continue
            if not begun:
                word, _, rest = text.partition(" ")
                begun = word.lower() == "@data"
                if word.lower() == "@classlabel":
                    labelled, listed = rest.strip().lower().startswith("true"), set(rest.split()[1:])
                continue
            parts = text.split(":")
            label = plain_label(parts.pop().strip()) if labelled else None
            where = f"{file.name} line {line:,}"
            if listed and label is not None and label not in {plain_label(one) for one in listed}:
                raise Fault(f"{where} ends in {label[:40]!r}, which @classLabel does not list. Mend the line or the list.")
            if any(STAMPED.match(part) for part in parts):
                raise Fault(f"{where} has values with stamps; values alone are read. Write them in long form.")
            channels = [parsed(part.split(","), none, ".", where) for part in parts]
            cases.append(side_by_side(channels, where))
            labels.append(label)
            lines.append(line)
    if not cases:
        raise Fault(f"{file.name} has no line after @data; it needs a case a line.")
    widths = [case.shape[1] for case in cases]
    if len(set(widths)) > 1:
        at = next(at for at, width in enumerate(widths) if width != widths[0])
        raise Fault(
            f"{file.name} line {lines[at]:,} has {widths[at]} channels, the cases before it have {widths[0]}. "
            "Every case needs the same ones."
        )
    return taken(file, cases, labels, lines, tuple(f"dim_{number}" for number in range(widths[0])))


def side_by_side(channels: list[np.ndarray], where: str) -> np.ndarray:
    """Channels of a case as (T, C).

    Raises:
        Fault: they have different lengths, or no value.
    """
    lengths = {len(channel) for channel in channels}
    if len(lengths) > 1:
        raise Fault(f"{where} has channels of {sorted(lengths)} steps; all channels of a case need as many. Fill them with ?.")
    if not channels or not len(channels[0]):
        raise Fault(f"{where} has no values. Give the case some, or take the line out.")
    return np.stack(channels, 1)


def parsed(fields: list[str], none: set[str], decimal: str, where: str) -> np.ndarray:
    """Values as float32, NaN where there is none.

    Raises:
        Fault: one of them is no finite number.
    """
    values = np.empty(len(fields), np.float32)
    for at, text in enumerate(one.strip() for one in fields):
        try:
            if "_" in text or (decimal != "." and "." in text):  # 1_000, as Python takes it, and 1.234,5
                raise ValueError(text)
            with np.errstate(over="ignore"):  # which is told below
                values[at] = np.nan if text in none else float(text.replace(decimal, "."))
        except ValueError as error:
            raise Fault(f"{where}, value {at + 1:,}: {text[:40]!r} is no number.") from error
        if np.isinf(values[at]):
            raise Fault(f"{where}, value {at + 1:,}: {text[:40]!r} is no finite number of single precision.")
    return values


def plain_label(text: str) -> str | None:
    """A label as it is written; but whole numbers with a point, as old files have 1.0000000e+00, as the long form has them."""
    if text in NO_LABEL or text == "?":
        return None
    if not re.fullmatch(r"[+-]?\d+\.\d*([eE][+-]?\d{1,2})?", text):
        return text
    number = Decimal(text)
    return str(int(number)) if number == number.to_integral_value() else text


def taken(file: CaseFile, cases: list[np.ndarray], labels: list, lines: list[int], channels: tuple[str, ...]) -> Taken:
    if not cases:
        raise Fault(f"{file.name} holds blank lines only; it needs a case a line.")
    lengths = [len(case) for case in cases]
    names = np.array([f"{file.stem}:{line}" for line in lines], object)
    return Taken(
        name=file.name, ids=names.repeat(lengths), values=np.concatenate(cases), channels=channels,
        labels=np.array(labels, object).repeat(lengths), order=None, splits=None,
    )  # fmt: skip
