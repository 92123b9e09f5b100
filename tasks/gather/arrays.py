"""Labelled rows on their way from files to cases."""

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass
class Taken:
    """What was read of one file, rows in file order."""

    name: str  # of the file
    ids: np.ndarray  # (R,) str, of each row's case or series
    values: np.ndarray  # (R, C) float32, NaN where missing
    channels: tuple[str, ...]
    labels: np.ndarray  # (R,) object: str, or None where there is none
    order: np.ndarray | None = None  # (R,) what the rows of a case are sorted by; None: as they come
    splits: np.ndarray | None = None  # (R,) object: train, validation, test
    first_line: int = 1  # what the first row is called: its line, or its number
    what: str = "row"  # that a row is called by: row, or line
    notes: dict[str, int] = field(default_factory=dict)  # what was left out or repaired -> how often

    def keep(self, rows: np.ndarray) -> "Taken":
        """The same without some rows, which are then called by their place among those that are left."""
        order, splits = (None if own is None else own[rows] for own in (self.order, self.splits))
        kept = {"ids": self.ids[rows], "values": self.values[rows], "labels": self.labels[rows]}
        return replace(self, **kept, order=order, splits=splits)

    def at(self, row: int) -> str:
        """Where a row stands, in words."""
        return f"{self.name} {self.what} {row + self.first_line:,}"


@dataclass
class Gathered:
    """All cases of a source: runs of rows, which overlap where they are windows of a stream."""

    rows: np.ndarray  # (R, C) float32, NaN where missing
    channels: tuple[str, ...]
    ids: list[str]  # of each case; the series for a window of a stream
    starts: np.ndarray  # (N,) int64, first row of each case
    lengths: np.ndarray  # (N,) int64
    labels: list[str | None]
    splits: list[str | None]  # that the source says
    origins: np.ndarray | None = None  # (N,) int64 microseconds UTC, of windows of a stream
    series: list[tuple[str, int, int]] = field(default_factory=list)  # of a stream: name, first row, rows
    notes: dict[str, int] = field(default_factory=dict)  # what was left out or repaired -> how often
    left_out: str = ""  # which series of a stream have no window, in words
