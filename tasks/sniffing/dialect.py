"""How a text is written: its encoding, what stands between its fields, its decimal mark, and what stands for no value."""

import codecs
import csv
import io
import re
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from models.errors import Fault
from tasks.ingest.rowwise import NUMBER
from tasks.ingest.sources import USUAL_MARKERS

DELIMITERS = (",", ";", "\t", "|", " ")
LINES = 200  # that the delimiter is judged by
WITH_POINT, WITH_COMMA = re.compile(r"[+-]?\d+\.\d+"), re.compile(r"[+-]?\d+,\d+")
MARKED = re.compile(r"[+-]?\d{1,3}([.,'\s]\d{3})+([.,]\d+)?")  # thousands set apart
UNMARKED = re.compile(r"[+-]?\d+([.,]\d+)?")
WITH_UNIT = re.compile(r"[+-]?[\d.,]*\d\s*([^\W\d_]+|%|€|\$)")
MOST = 0.9  # of the words of a column
SENTINELS = {-999.0, -9999.0, -99999.0}  # numbers that many programs write for no value
MOST_MARKERS = 3  # different words that stand for no value in one column of numbers


def guess_encoding(*texts: bytes) -> str:
    """The encoding of pieces of one file, the first of which begins it; their ends may be cut within a character."""
    if texts[0].startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = texts[0][:4096].count(0)
    if zeros > 100 or zeros * 4 > len(texts[0]):
        return "utf-16-le" if texts[0][1:4096:2].count(0) >= texts[0][:4096:2].count(0) else "utf-16-be"
    if all(is_utf8(text) for text in texts):
        return "utf-8"
    try:
        for text in texts:
            text.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def is_utf8(text: bytes) -> bool:
    text = re.sub(rb"^[\x80-\xbf]{1,3}", b"", text)  # the end of a character that was cut
    try:
        codecs.getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return False
    return True


def guess_delimiter(text: str) -> str:
    """What stands between the fields: what parts the header into as many fields as the rows below it, and into the most."""
    scores = {}
    for mark in DELIMITERS:
        rows = split_rows(text, mark)
        widths = Counter(len(row) for row in rows)
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        alike = len(rows[0]) == width if rows else False
        # Blanks stand in stamps and names too, so they part fields only where nothing else does.
        scores[mark] = (width > 1, alike, round(count / max(1, len(rows)), 1), mark != " ", width)
    return max(scores, key=scores.get)


def split_rows(text: str, delimiter: str) -> list[list[str]]:
    """The first rows of a text that are not blank."""
    try:
        return [row for row, _ in zip(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), range(LINES)) if row]  # noqa: B905
    except csv.Error as error:
        raise Fault(
            f"The file can not be taken apart ({error}). End its lines with a line feed and close its quotes."
        ) from error


def guess_decimal(rows: list[list[str]], delimiter: str) -> str:
    """The decimal mark of most numbers that have one."""
    fields = [field.strip() for row in rows for field in row]
    commas = sum(bool(WITH_COMMA.fullmatch(field)) for field in fields)
    points = sum(bool(WITH_POINT.fullmatch(field)) for field in fields)
    return "," if commas > points and delimiter != "," else "."


def stray_words(column: pa.ChunkedArray, decimal: str) -> list[str] | None:
    """The words that stand for no value in a column of numbers; None where it holds something else than numbers."""
    values = pc.value_counts(pc.utf8_trim_whitespace(column)).to_pylist()
    odd, numbers, usual = [], 0, set(USUAL_MARKERS)
    for entry in values:
        text, count = entry["values"], entry["counts"]
        if text is None or text in usual:
            continue
        if NUMBER.fullmatch(text.replace(",", ".") if decimal == "," else text):
            numbers += count
            continue
        odd.append(text)
        if len(odd) > MOST_MARKERS or any(letter.isdigit() for letter in text):
            return None
    return odd if numbers and len(odd) <= MOST_MARKERS else None


def numbers_in(words: list[str]) -> str | None:
    """What keeps words from being read as the numbers that they look like, and one of them; None where they are words."""
    marked = [word for word in words if MARKED.fullmatch(word)]
    if marked and len(marked) + sum(bool(UNMARKED.fullmatch(word)) for word in words) >= MOST * len(words):
        return f"thousands marks, as {marked[0]}"
    units = [(word, found[1]) for word in words if (found := WITH_UNIT.fullmatch(word))]
    if len(units) >= max(2, MOST * len(words)) and len({unit for _, unit in units}) == 1:
        return f"a unit, as {units[0][0]}"
    return None


def sentinel_of(values) -> float | None:
    """A number such as -999 that stands for no value: the lowest of a column, often, and far from all others."""
    known = values[values == values]
    low = known.min(initial=0.0)
    if low not in SENTINELS or (known == low).sum() < 2:
        return None
    others = known[known > low]
    return float(low) if len(others) and others.min() > low / 2 else None
