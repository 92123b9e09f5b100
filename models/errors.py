"""The one exception a user's own data or spec can raise, and the words that messages share."""

import re


class Fault(ValueError):
    """Something in the user's data, spec or store that a rerun will not mend.

    The message says whose, what was found, what was needed and what to do. It is never retried,
    and the command line prints it without a traceback and exits with 2.
    """


class Diverged(Fault):
    """A loss is no number any more: these settings do not train, though others may."""


def shortlist(items, limit: int = 5) -> str:
    """The first few items in order, comma separated, and how many were left out."""
    shown = [str(item) for item in items]
    rest = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + rest


def counted(count: int, what: str) -> str:
    """A number of things, which are given in the plural: 1 repeated stamp, 2,000 repeated stamps."""
    return f"{count:,} " + (re.sub(r"([a-z])s\b", r"\1", what, count=1) if count == 1 and what[:6] != "series" else what)
