"""The code that a step's output depends on: the project's own files that it reaches, and the versions of libraries."""

import ast
import hashlib
import importlib.util
from functools import cache
from importlib import metadata
from pathlib import Path

TRIES = 20  # at a tree of syntax
ROOMS = ("flows", "tasks", "models")
# They decide when a step runs and how that looks, never what it makes.
SHAPE_NOTHING = (
    "tasks/policy.py",
    "tasks/sourcecode.py",
    "tasks/journal.py",
    "tasks/lease.py",
    "tasks/planning.py",
    "tasks/progress.py",
    "models/errors.py",
)


@cache
def version(library: str) -> str:
    """The installed version; looking it up parses a file."""
    return metadata.version(library)


@cache
def source_reached(file: str) -> dict[str, str]:
    """SHA-256 of every project file that a file imports, directly or through others, itself included."""
    root = Path(__file__).parent.parent
    found: dict[str, str] = {}
    waiting = [Path(file)]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if name in found or name in SHAPE_NOTHING:
            continue
        source = path.read_bytes()
        found[name] = hashlib.sha256(source).hexdigest()
        waiting += [Path(origin) for module in imported(source) if (origin := project_file(module))]
    return dict(sorted(found.items()))


@cache
def imported(source: bytes) -> frozenset[str]:
    """Every dotted name that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def parsed(source: bytes) -> ast.Module:
    """The tree of a module. Python 3.11 fails at one now and then while another thread, as Prefect's, makes another."""
    for _ in range(TRIES - 1):
        try:
            return ast.parse(source)
        except SystemError:  # python/cpython#106905: they count their depth together
            continue
    return ast.parse(source)


def project_file(module: str) -> str | None:
    """The file of a project module, or None for anything else."""
    if module.split(".")[0] not in ROOMS:
        return None
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # a name inside a module
        return None
    return found.origin if found and found.origin and not found.origin.endswith("__init__.py") else None
