"""Where the rows of a CSV end: a line break between quotes ends none."""

import re

import numpy as np


def ends_open(text: bytes, quote: bytes, delimiter: bytes, opened: bool = False) -> bool:
    """Whether text ends between quotes.

    Args:
        text: begins where a row begins, or on a line between quotes.
        opened: it begins between quotes.
    """
    count = text.count(quote)
    if not count or len(quote) > 1 or len(delimiter) != 1:
        return opened ^ bool(count % 2)
    content = np.frombuffer(text, np.uint8)
    at = np.flatnonzero(content == quote[0])[int(opened) :: 2]  # those that open, if every quote does its work
    begins = np.zeros(256, bool)
    begins[list(quote + delimiter + b"\r\n")] = True  # what a quote that opens may stand behind
    if begins[content[at[at[:1].tolist() == [0] :] - 1]].all():
        return opened ^ bool(count % 2)
    return ends_open_exactly(text, quote, delimiter, opened)


def ends_open_exactly(text: bytes, quote: bytes, delimiter: bytes, opened: bool) -> bool:
    """As `ends_open` where some quotes stand within a field: one opens only where a field begins."""
    one, rest = re.escape(quote), rb"[^%b]*(?:%b%b[^%b]*)*(%b|\Z)" % ((re.escape(quote),) * 5)
    begin = 0
    if opened:
        first = re.match(rest, text)
        opened, begin = not first[1], first.end()
    for found in re.compile(rb"(?:\A|(?<=[%b\r\n]))%b%b" % (re.escape(delimiter), one, rest)).finditer(text, begin):
        opened = not found[1]
    return opened
