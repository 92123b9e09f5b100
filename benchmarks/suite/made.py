"""Generated data sets whose structure is known."""

import numpy as np
import pandas as pd

from suite.panel import Panel, history


def remembered(rng: np.random.Generator, num_rows: int, memory: float, spread: float) -> np.ndarray:
    """First-order autoregressive noise (R,) with a standard deviation of `spread`."""
    noise = np.empty(num_rows)
    noise[0] = rng.normal(0, spread)
    shocks = rng.normal(0, spread * (1 - memory**2) ** 0.5, num_rows)
    for row in range(1, num_rows):
        noise[row] = memory * noise[row - 1] + shocks[row]
    return noise


def hours_made() -> Panel:
    """A day, a week and a year upon a trend that doubles the level in two years."""
    rng = np.random.default_rng(11)
    stamps = pd.date_range("2020-01-01", periods=2 * 8760, freq="h")
    at = np.arange(len(stamps))
    day = np.sin(2 * np.pi * at / 24) + 0.5 * np.cos(4 * np.pi * at / 24)
    week = np.where(stamps.day_of_week >= 5, 0.5, 1.0)
    level = 50 * (1 + at / len(at)) + 10 * np.cos(2 * np.pi * at / 8766)
    target = level + 12 * day * week + remembered(rng, len(at), 0.9, 3.0)
    series = {"made": history(stamps, target)}
    return Panel("hours_made", "generated: day, week, year and a straight trend", "h", 24, 24, series)


def weeks_made() -> Panel:
    """Three to five years of 60 products whose level is lifted or cut two times on average."""
    rng = np.random.default_rng(12)
    series = {}
    for number in range(60):
        stamps = pd.date_range("2019-01-06", periods=int(rng.integers(160, 261)), freq="W")
        at = np.arange(len(stamps))
        level = np.full(len(at), rng.lognormal(4, 1))
        for moment in rng.integers(0, len(at), rng.poisson(2)):
            level[moment:] *= rng.lognormal(0, 0.4)
        wave = 1 + 0.3 * np.sin(2 * np.pi * (at / 52.18 + rng.uniform(-0.1, 0.1)))
        series[f"product_{number:02d}"] = history(stamps, level * wave * rng.lognormal(0, 0.1, len(at)))
    return Panel("weeks_made", "generated: 60 short series, a season a year, levels that shift", "W-SUN", 52, 8, series)


def counts_made() -> Panel:
    """Three years of 20 slow items: mostly none sold on a day, nothing on holidays, three times as much the day before."""
    rng = np.random.default_rng(13)
    stamps = pd.date_range("2021-01-01", periods=3 * 365, freq="D")
    holiday = np.isin(stamps.strftime("%m-%d"), ["01-01", "04-10", "05-01", "07-04", "10-03", "11-01", "12-25", "12-26"])
    holiday |= rng.random(len(stamps)) < 0.02
    eve = np.roll(holiday, -1)
    week = np.array([0.6, 0.6, 0.8, 1.0, 1.4, 1.8, 0.0])[stamps.day_of_week]
    series = {}
    for number in range(20):
        rate = rng.lognormal(-0.5, 0.8) * week * np.where(eve, 3.0, 1.0) * np.where(holiday, 0.0, 1.0)
        counts = rng.poisson(rate) * (1 + rng.poisson(0.5, len(stamps)))
        series[f"item_{number:02d}"] = history(stamps, counts, np.stack([holiday, eve], 1))
    return Panel("counts_made", "generated: 20 items mostly at zero, known holidays", "D", 7, 14, series, ("holiday", "eve"))
