"""How the steps of a run ended, for whoever shows or returns it."""

from collections.abc import Callable
from contextvars import ContextVar

from pydantic import BaseModel


class StepState(BaseModel):
    """How one step of a run ended."""

    step: str
    state: str  # Prefect's name for it: Completed, Cached, Failed, ...; of many calls, Cached if all were
    seconds: float
    calls: int = 1
    cached: int = 0  # of these calls
    note: str = ""  # what came of it


class Journal:
    """The steps of one run, in the order in which they ended, told to whoever listens."""

    def __init__(self, listen: Callable[[StepState], None] = lambda entry: None):
        self.entries: list[StepState] = []
        self.listen = listen

    def note(self, entry: StepState) -> None:
        self.entries.append(entry)
        self.listen(entry)


journal: ContextVar[Journal | None] = ContextVar("journal", default=None)
