"""What every flow run has: an id, a clock read once, a journal of its steps, and artifacts for Prefect's UI."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.journal import Journal, StepState, journal
from tasks.storage import Store
from tasks.validate import Scores


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


def show_scores(name: str, scores: dict[str, Scores | None], report: Path, reason: str) -> None:
    """Put the score table and a link to the report beside the run in Prefect's UI."""
    key = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    rows = [
        {"model": who, "fold": fold, "steps": int(steps)}
        | {metric: value if value is None else round(value, 6) for metric, value in values.items()}
        for who, own in scores.items()
        if own
        for fold, by_steps in own.scores.items()
        for steps, values in by_steps.items()
    ]
    create_table_artifact(key=f"{key}-scores", table=rows, description=reason)
    create_link_artifact(key=f"{key}-report", link=report.absolute().as_uri(), link_text=f"Report of {name}")
