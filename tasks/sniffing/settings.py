"""What was guessed of a file: the lines of a spec with a reason each, and the same in words."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One line of a spec."""

    key: str
    value: Any
    why: str = ""
    off: bool = False  # shown as a comment, for the user to take up


@dataclass
class Guess:
    """A spec, section by section, and what a person is told."""

    task: str
    source: list[Setting] = field(default_factory=list)
    folds: list[Setting] = field(default_factory=list)
    windows: list[Setting] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)  # what training may refuse, or a person should look at

    def named(self, *keys: str) -> set[str]:
        """The columns that these lines of `source` name."""
        values = [one.value for one in self.source if one.key in keys and one.value is not None]
        return {name for value in values for name in (value if isinstance(value, list | tuple) else [value])}
