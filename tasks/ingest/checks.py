"""What a network can not learn from: values that are absent, infinite, or beyond float32."""

import numpy as np
import pandas as pd

from models.errors import Fault

LARGEST = float(np.finfo(np.float32).max)


def num_observed(target: np.ndarray) -> int:
    """Steps up to the last one that has a target; rows after it only bring covariates ahead of time."""
    present = np.flatnonzero(~np.isnan(target))
    return int(present[-1]) + 1 if len(present) else 0


def check_values(series_id: str, frame: pd.DataFrame, columns: dict[str, str]) -> None:
    """Check one series on its regular grid.

    Args:
        frame: indexed by local stamps; the target and the covariates, NaN where absent.
        columns: canonical name of each column -> the user's name for it.

    Raises:
        Fault: a value is infinite or beyond float32, or absent where one is needed.
    """
    observed = num_observed(frame["target"].to_numpy())
    if observed == 0:
        raise Fault(f"{series_id}: {columns['target']} has no value at all. Name another source.target or drop the series.")
    for name, shown in columns.items():
        values = frame[name].to_numpy()
        wild = np.flatnonzero(np.abs(values) > LARGEST)  # infinities too
        if len(wild):
            raise Fault(
                f"{series_id}, column {shown!r}: {values[wild[0]]:g} at {frame.index[wild[0]].isoformat()} is infinite or "
                f"beyond float32 ({len(wild)} such). Mend the values or leave the column out."
            )
        # After the last target, covariates may still be unknown; the forecast asks for those it needs.
        absent = np.flatnonzero(np.isnan(values[:observed]))
        if len(absent):
            raise Fault(
                f"{series_id}, column {shown!r}: no value at {frame.index[absent[0]].isoformat()} ({len(absent)} in all). "
                "Fill them or set source.missing='interpolate'."
            )


def fill_inside(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Linear interpolation in time between known values, and how many values it set."""
    filled = frame.interpolate(method="linear", limit_area="inside")
    return filled, int(frame.isna().sum().sum() - filled.isna().sum().sum())
