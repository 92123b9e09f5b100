"""Data sets from files of a folder: `elecdemand.csv`, `ETTh1.csv`, `ETTm1.csv.gz`, `la_haute_borne.csv.gz`."""

from pathlib import Path

import numpy as np
import pandas as pd

from suite.panel import Panel, history


def elecdemand(folder: Path) -> Panel:
    frame = pd.read_csv(folder / "elecdemand.csv", parse_dates=["timestamp"])
    known = frame[["WorkDay", "Temperature"]].to_numpy(np.float64)
    series = {"Demand": history(pd.DatetimeIndex(frame["timestamp"]), frame["Demand"], known)}
    about = "half-hourly demand, working days and temperature known"
    return Panel("elecdemand", about, "30min", 48, 48, series, ("WorkDay", "Temperature"))


def elecdemand_alone(folder: Path) -> Panel:
    frame = pd.read_csv(folder / "elecdemand.csv", parse_dates=["timestamp"])
    series = {"Demand": history(pd.DatetimeIndex(frame["timestamp"]), frame["Demand"])}
    return Panel("elecdemand_alone", "half-hourly demand and nothing else", "30min", 48, 48, series)


def transformer(path: Path, name: str, frequency: str, season: int) -> Panel:
    """Seven columns of a transformer, each a series."""
    frame = pd.read_csv(path, parse_dates=["date"])
    stamps = pd.DatetimeIndex(frame.pop("date"))
    series = {column: history(stamps, frame[column]) for column in frame}
    return Panel(name, "loads and oil temperature of a transformer", frequency, season, season, series)


def etth1(folder: Path) -> Panel:
    return transformer(folder / "ETTh1.csv", "ETTh1", "h", 24)


def ettm1(folder: Path) -> Panel:
    return transformer(folder / "ETTm1.csv.gz", "ETTm1", "15min", 96)


def wind(folder: Path) -> Panel:
    """Power of four turbines, six hours ahead, with the wind up to the origin; absent rows stay absent."""
    frame = pd.read_csv(folder / "la_haute_borne.csv.gz")
    frame["stamp"] = pd.to_datetime(frame["Date_time"], utc=True)
    series = {}
    for name, rows in frame.groupby("Wind_turbine_name"):
        rows = rows.drop_duplicates("stamp").set_index("stamp").sort_index().asfreq("10min")
        stamps = rows.index.tz_convert("Europe/Paris").tz_localize(None)
        series[name] = history(stamps, rows["P_avg"].to_numpy(), past=rows[["Ws_avg"]].ffill().to_numpy())
    return Panel("wind", "10-minute power of four turbines, with faults", "10min", 144, 36, series, past=("Ws_avg",))
