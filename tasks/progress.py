"""How a long step tells where it is: a bar on a terminal, a log line otherwise."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

# Who is told in place of a log: the run that started this process for a part of its work.
listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


class Progress:
    """Steps done of a total, with a word on how it goes."""

    def __init__(self, what: str, total: int, bar=None):
        self.what, self.total, self.done, self.bar = what, total, 0, bar
        self.task = bar.add_task(what, total=total) if bar else None

    def advance(self, by: int = 1, note: str = "") -> None:
        self.done += by
        if self.bar:
            self.bar.update(self.task, completed=self.done, description=f"{self.what}  {note}")
        if note:
            say(f"{self.what} {self.done}/{self.total}: {note}")


def say(line: str) -> None:
    """A line in the log of the run; nothing outside one."""
    if told := listener.get():
        told(line)
        return
    try:
        get_run_logger().info(line)
    except MissingContextError:
        return


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """Progress through `total` units of one piece of work."""
    if not sys.stderr.isatty():
        yield Progress(what, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Progress(what, total, bar)
