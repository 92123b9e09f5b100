"""The one exception a user's own data or spec can raise."""


class Fault(ValueError):
    """Something in the user's data, spec or store that a rerun will not mend.

    The message says whose, what was found, what was needed and what to do. It is never retried,
    and the command line prints it without a traceback and exits with 2.
    """


def shortlist(items, limit: int = 5) -> str:
    """The first few items in order, comma separated, and how many were left out."""
    shown = [str(item) for item in items]
    rest = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + rest
