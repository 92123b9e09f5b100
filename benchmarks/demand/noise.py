"""Temperature as a forecast of it would have been, so that the horizon's is not known better than in real life.

The error of a forecast begins at zero at the origin and is carried from step to step, e(k) = 0.98 e(k-1) + noise, with the
noise so large that over all origins the error has the asked root mean square at step 48; at step 24 that is 0.84 of it.
Every origin draws an error of its own, always the same ones, and 1, 2 and 3 degrees are the same errors made larger; in real
life neighbouring origins share a forecast, which changes no mean but makes errors come in runs. Of WorkDay nothing changes.

Axes in names: N origins, H horizon.
"""

import numpy as np

from demand.year import LONGEST, SEASON

CARRIED = 0.98


def drawn(num_origins: int, degrees: float, seed: int = 0) -> np.ndarray:
    """Errors (N, H) of temperature forecasts, in degrees."""
    steps = np.random.default_rng(seed).standard_normal((num_origins, LONGEST))
    errors = np.zeros_like(steps)
    for at in range(LONGEST):
        errors[:, at] = steps[:, at] + (CARRIED * errors[:, at - 1] if at else 0.0)
    last = np.sqrt(np.sum(CARRIED ** (2.0 * np.arange(LONGEST))))  # what the recursion reaches with noise of 1
    return degrees * errors / last


def with_errors(temperature: np.ndarray, origins: np.ndarray, degrees: float) -> np.ndarray:
    """Temperature (N, H) of every origin's horizon, as forecast with so large an error."""
    return temperature[origins[:, None] + np.arange(LONGEST)] + drawn(len(origins), degrees)


def persisted(temperature: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """Temperature (N, H) when nothing is known of the horizon's: that of the last day, again."""
    return temperature[origins[:, None] + np.arange(LONGEST) - SEASON]
