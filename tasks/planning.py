"""What a run would do, and why, without doing it: steps are asked in turn whether the store has their answer.

While a plan is being made, a step that is cached returns its receipt and one that is not returns `Unknown`, so that
the flow itself, not a copy of it, lays out the plan.
"""

from contextvars import ContextVar
from typing import Any

from pydantic import BaseModel

REASONS = 4  # changes named for one step at most


class Planned(BaseModel):
    """What a run would do with one step."""

    step: str
    cached: bool
    because: str


class Unknown:
    """The receipt of a step that has yet to run; whatever is read off it is as unknown."""

    def __init__(self, step: str):
        self.step = step

    def __getattr__(self, name: str) -> "Unknown":
        if name.startswith("__"):
            raise AttributeError(name)
        return Unknown(self.step)


plan: ContextVar[list[Planned] | None] = ContextVar("plan", default=None)


def unknown_steps(value: Any) -> list[str]:
    """The steps whose receipts a value waits for."""
    if isinstance(value, Unknown):
        return [value.step]
    if isinstance(value, dict):
        return [step for item in value.values() for step in unknown_steps(item)]
    if isinstance(value, list | tuple):
        return [step for item in value for step in unknown_steps(item)]
    return []


def why(made_from: dict[str, Any], manifests: list[dict], waits_for: list[str]) -> str:
    """What changed since the most similar artifact of the same step, or that there is none, or that it was damaged."""
    wanted = flatten(made_from)
    if not manifests:
        return "it never ran in this store"
    changes = min((differences(flatten(one["made_from"]), wanted) for one in reversed(manifests)), key=len)
    upstream = [f"{step} will run" for step in dict.fromkeys(waits_for)]
    if not changes and not upstream:
        return "its stored artifact is gone or damaged"
    said = changes[:REASONS] + ([f"{len(changes) - REASONS} more changes"] if len(changes) > REASONS else [])
    return ", ".join(upstream + said)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= flatten(item, f"{prefix}.{name}" if prefix else str(name))
    return flat


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Each changed ingredient in the words of a reader: a setting, source bytes, code, a library, an input."""
    changed = [name for name in (*now, *before) if before.get(name) != now.get(name)]
    changed = [name for name in dict.fromkeys(changed) if not unknown_steps(now.get(name)) and not is_awaited(name, now)]
    return [describe_change(name, before.get(name), now.get(name)) for name in changed]


def is_awaited(name: str, now: dict[str, Any]) -> bool:
    """Whether it is the words on a season that has yet to be found, which are empty until then."""
    return name.endswith("subject.season") and now.get(name) == ""


def describe_change(name: str, before: Any, now: Any) -> str:
    room, _, rest = name.partition(".")
    if room == "code":
        return f"code of {rest}"
    if room == "libraries":
        return f"{rest} {before} -> {now}"
    if rest == "chunk":
        return "new source bytes"
    if rest == "shard":
        return "other rows of its series"
    if is_digest(now) or is_digest(before):
        return f"another {rest.split('.')[-1]}"  # a receipt's digest tells a reader nothing
    if isinstance(now, list) and isinstance(before, list) and all(map(is_digest, [*now, *before])):
        new = len(set(now) - set(before))
        return f"{new} of {len(now)} {rest} are new" if len(now) > 1 else f"other {rest}"
    return f"{rest} {shown(before)} -> {shown(now)}"


def is_digest(value: Any) -> bool:
    """Whether a value is a SHA-256, or a list of such and other marks of content, as of a segment."""
    if isinstance(value, list) and any(isinstance(item, list | int) or item is None for item in value):
        return any(is_digest(item) for item in value if isinstance(item, str | list))
    return isinstance(value, str) and len(value) == 64


def shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(shown(item) for item in value)}]"
    return "null" if value is None else str(value)
