"""Whoever looks at a training while it runs, and may stop it. No part of its key: what is trained to the end is the same."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Stopped(Exception):
    """A training was stopped on purpose before its end; it leaves nothing behind, and is no failure."""


Watch = Callable[[int, dict, int], None]  # seed, history entry of an epoch, epochs in all; may raise Stopped

watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


def notice(seed: int, entry: dict, epochs: int) -> None:
    """Show an epoch to whoever watches, or a part of a cross-validation, which learns anew from other cases."""
    if (watcher := watch.get()) is not None:
        watcher(seed, entry, epochs)


@contextmanager
def watched_by(watcher: Watch) -> Iterator[None]:
    """Trainings in here are seen by `watcher` after each epoch, or part."""
    token = watch.set(watcher)
    try:
        yield
    finally:
        watch.reset(token)
