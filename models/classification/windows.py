"""Windows of a stream as cases: how long they are, how far apart, and which label each has."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class LabelWindows(BaseModel):
    """How a stream is cut into windows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lookback: int = Field(ge=1, description="steps of a window, the origin its last")
    stride: int = Field(1, ge=1, description="steps between origins")
    label: Literal["origin", "majority"] = Field("origin", description="of the last step, or of most steps")

    def label_of(self, labels: np.ndarray, starts: np.ndarray) -> list[str | None]:
        """The label of each window; None where it is not known.

        By majority the one that most steps have, of equally many the one that comes last; not known where fewer than half
        of the steps have any.

        Args:
            labels: (R,) of each row, None where there is none.
            starts: (N,) first row of each window.
        """
        if self.label == "origin":
            return labels[starts + self.lookback - 1].tolist()
        known = sorted({label for label in labels.tolist() if label is not None})
        best, newest, num_known = np.zeros(len(starts)), np.full(len(starts), -1), np.zeros(len(starts))
        chosen, rows = np.full(len(starts), None, object), np.arange(len(labels))
        for name in known:
            has = labels == name
            seen = np.concatenate([[0], np.cumsum(has)])
            count = seen[starts + self.lookback] - seen[starts]
            last = np.maximum.accumulate(np.where(has, rows, -1))[starts + self.lookback - 1]
            better = (count > best) | ((count == best) & (count > 0) & (last > newest))
            best, newest = np.where(better, count, best), np.where(better, last, newest)
            chosen[better] = name
            num_known += count
        chosen[num_known * 2 < self.lookback] = None
        return chosen.tolist()
