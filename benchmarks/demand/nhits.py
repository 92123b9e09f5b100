"""neuralforecast's NHITS, a peer that need not be installed.

Seven days back, 500 steps of 128 windows on absolute errors, everything else as the package has it; it is given what the
`residual` net is given: WorkDay, Temperature, and the clock and the calendar as waves. Nothing of it was searched for.
"""

import time

import numpy as np
import pandas as pd

from demand.year import END, FIRST_ORIGIN, FIRST_TEST, FIRST_VALIDATION, LONGEST, SEASON, continued

WAVES = {"day": SEASON, "half": SEASON // 2, "week": 7 * SEASON}  # rows
STEPS, WINDOWS = 500, 128


def is_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("neuralforecast") is not None


def table_of(year: pd.DataFrame) -> pd.DataFrame:
    """The year as the package wants it, demand and temperature scaled by the training rows."""
    year = continued(year)
    scaled = (year - year[:FIRST_VALIDATION].mean()) / year[:FIRST_VALIDATION].std(ddof=0)
    turns = {name: 2 * np.pi * np.arange(len(year)) / rows for name, rows in WAVES.items()}
    made = {f"{name}_sin": np.sin(turn) for name, turn in turns.items()} | {
        f"{name}_cos": np.cos(turn) for name, turn in turns.items()
    }
    told = {
        "unique_id": "demand",
        "ds": year.index.tz_localize(None),
        "y": scaled["Demand"],
        "Temperature": scaled["Temperature"],
    }
    return pd.DataFrame(told | {"WorkDay": year["WorkDay"].astype(float)} | made).reset_index(drop=True)


def nhits(year: pd.DataFrame, num_seeds: int) -> tuple[list[np.ndarray], list[tuple[float, float]]]:
    """Demand (N, H) after each origin, and the seconds and CPU-seconds of fitting, a seed each."""
    import logging
    import warnings

    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MAE
    from neuralforecast.models import NHITS

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    seconds = []

    class Timed(NHITS):
        def fit(self, *given, **named):
            wall, cpu = time.perf_counter(), time.process_time()
            fitted = super().fit(*given, **named)
            seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
            return fitted

    table = table_of(year)[:-1]  # the last origin's horizon ends there
    mean, std = year["Demand"][:FIRST_VALIDATION].mean(), year["Demand"][:FIRST_VALIDATION].std(ddof=0)
    quiet = {"enable_progress_bar": False, "logger": False, "enable_model_summary": False, "enable_checkpointing": False}
    forecasts = []
    for seed in range(num_seeds):
        model = Timed(
            h=LONGEST, input_size=7 * SEASON, futr_exog_list=list(table.columns[3:]), max_steps=STEPS, loss=MAE(),
            batch_size=1, windows_batch_size=WINDOWS, inference_windows_batch_size=512, val_check_steps=STEPS,
            scaler_type="identity", random_seed=seed, accelerator="cpu", alias="NHITS", **quiet,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the package and its trainer say of themselves
            told = NeuralForecast([model], freq="30min").cross_validation(
                table, val_size=FIRST_TEST - FIRST_VALIDATION, test_size=END - FIRST_ORIGIN + LONGEST - 1, n_windows=None
            )
        told = told.sort_values(["cutoff", "ds"])["NHITS"].to_numpy()
        forecasts.append(told.reshape(-1, LONGEST).astype(np.float64) * std + mean)
    return forecasts, seconds
