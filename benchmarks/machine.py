"""What a figure was measured on, as the first lines of every benchmark, and how a spread is printed."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median


def introduce(title: str, *libraries: str) -> None:
    """Print what is measured, on which machine and with which versions."""
    print(title)
    print(f"machine: {processor()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, {platform.system()}")
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in libraries)]
    print(f"versions: {', '.join(versions)}\n", flush=True)


def processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median and, in brackets, the range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
