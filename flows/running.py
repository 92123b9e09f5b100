"""What every flow run has: an id, a clock read once, and a journal of its steps."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.journal import Journal, StepState, journal
from tasks.storage import Store


def few_at_once() -> ThreadPoolTaskRunner:
    """Mapped steps run as many at a time as there are cores, so that memory stays bounded."""
    return ThreadPoolTaskRunner(max_workers=max(2, os.cpu_count() or 2))


@dataclass
class Run:
    """One run of a flow."""

    id: str
    now: datetime  # the scheduled start, which a run may begin a little before or after
    journal: Journal
    begun: float = field(default_factory=time.monotonic)

    @property
    def tasks(self) -> list[StepState]:
        return list(self.journal.entries)

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.begun, 3)


@contextmanager
def run_of(store: Store) -> Iterator[Run]:
    """The run that this code is part of, once its store is known to be writable."""
    store.check_writable()
    book = journal.get() or Journal()
    token = journal.set(book)
    try:
        yield Run(id=str(flow_run.id), now=flow_run.scheduled_start_time or datetime.now(UTC), journal=book)
    finally:
        journal.reset(token)
