"""benchmarks/forecasting.py forecasts every series, and leaves no second out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import forecasting

ROOT = Path(__file__).parent.parent


def test_every_series_is_forecast_and_every_part_is_called():
    done = subprocess.run(
        [sys.executable, "-W", "error", "benchmarks/forecasting.py", "--series", "24", "--steps", "700"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "24 series x 48 steps, 11 quantiles, 8 shards" in lines
    calls = {line.strip().rsplit(None, 3)[0]: int(line.split()[-1]) for line in lines if re.match("  [a-z]", line)}
    assert calls == {
        "read the bundle": 1, "read rows, and gather the forecasts": 8, "what is known of a series": 24,
        "scale, and make the rows of the table": 8, "follow the newest errors of a series": 24,
        "forecast the horizon and past origins": 8 + 24, "quantiles of these": 8 + 24, "publish the table": 1, "all else": 1,
    }  # fmt: skip


def test_the_time_of_a_part_is_without_what_it_calls(monkeypatch):
    clock, watch = np.zeros(2), forecasting.Stopwatch()
    monkeypatch.setattr(forecasting, "now", clock.copy)

    def work(seconds, cpu):
        clock[:] += seconds, cpu

    inner = watch.watch("inner", work)
    watch.watch("outer", lambda: [inner(2, 1), work(4, 3), inner(8, 5)])()
    assert watch.spent["inner"].tolist() == [10, 6, 2]
    assert watch.spent["outer"].tolist() == [4, 3, 1]
