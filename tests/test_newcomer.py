"""The suite of data sets that benchmarks/newcomer.py compares convcast with its rivals on: same origins, no look ahead."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from suite.comparing import lead, scores_of
from suite.keeping import fingerprint
from suite.made import counts_made, weeks_made
from suite.ours import Scaled
from suite.panel import MOST_WINDOWS, Panel, history
from suite.simple import last_season, last_value, nlinear, nlinear_rival
from suite.trees import Lagged

from models.networks import build_network
from models.specs import ResidualSpec
from models.windows import WindowSpec


def make_panel(rows: int = 400, season: int = 24, horizon: int = 3, series: int = 2, **changes) -> Panel:
    stamps = pd.date_range("2024-01-01", periods=rows, freq="h")
    rng = np.random.default_rng(0)
    waves = [10 + np.sin(2 * np.pi * np.arange(rows) / season) + rng.normal(0, 0.1, rows) for _ in range(series)]
    known = rng.normal(size=(rows, 1))
    made = {f"s{number}": history(stamps, wave, known, known) for number, wave in enumerate(waves)}
    return replace(Panel("small", "", "h", season, horizon, made, ("known",), ("seen",)), **changes)


def changed_from(panel: Panel, name: str, row: int) -> Panel:
    """The panel with another target and other past covariates of one series from a row on."""
    one = panel.series[name]
    target, past = one.target.copy(), one.past.copy()
    target[row:] += 100
    past[row:] += 100
    return replace(panel, series={**panel.series, name: history(one.stamps, target, one.future, past)})


def test_folds_are_a_tenth_each_and_two_horizons_at_least():
    assert make_panel(rows=400).folds.test == make_panel(rows=400).folds.validation == 40
    assert make_panel(rows=400, horizon=30).folds.test == 60


def test_origins_lie_inside_their_fold_and_no_horizon_leaves_it():
    panel = make_panel()
    one = panel.series["s0"]
    assert panel.origins(one, "validation").tolist() == list(range(320, 358))
    assert panel.origins(one, "test").tolist() == list(range(360, 398))


def test_very_many_origins_are_thinned_out_and_still_meet_every_moment_of_a_season():
    panel = make_panel(rows=20_000, series=3)
    origins = panel.origins(panel.series["s0"], "test")
    assert 0.5 * MOST_WINDOWS < 3 * len(origins) <= MOST_WINDOWS
    assert set(origins % panel.season) == set(range(panel.season))
    assert origins[-1] == 20_000 - panel.horizon


def test_the_simple_rivals_repeat_what_came_before_the_origin():
    panel = make_panel(rows=100, season=4, horizon=6, series=1)
    target, origins = panel.series["s0"].target, panel.origins(panel.series["s0"], "test")
    season, last = last_season(panel, 1).forecasts[0][0], last_value(panel, 1).forecasts[0][0]
    for own, naive, origin in zip(season, last, origins, strict=True):
        assert own.tolist() == [*target[origin - 4 : origin], *target[origin - 4 : origin - 2]]
        assert naive.tolist() == [target[origin - 1]] * 6


def test_nlinear_maps_how_the_past_differs_from_its_last_value():
    past, weight, bias = (
        torch.tensor([[1.0, 2.0, 5.0]]),
        torch.tensor([[1.0, 0.0, 9.0], [0.0, 0.0, 0.0]]),
        torch.tensor([0.0, 7.0]),
    )
    assert nlinear(past, weight, bias).tolist() == [[1.0, 12.0]]


def test_nlinear_learns_a_season_that_drifts():
    panel = make_panel(rows=400, season=8, horizon=4, series=1)
    target = np.sin(2 * np.pi * np.arange(400) / 8) + np.arange(400) / 20
    line = replace(panel, series={"s0": history(panel.series["s0"].stamps, target)}, future=(), past=())
    found = nlinear_rival(line, 1)
    assert scores_of(found.forecasts[0], line)["mase"] < 0.2
    assert found.chosen.startswith("lookback ")


@pytest.mark.parametrize("base", ["last", "season", "drift"])
def test_the_features_of_lightgbm_see_nothing_behind_the_origin(base):
    panel, origin = make_panel(rows=400, season=4, horizon=6), 350
    origins, steps = np.full(panel.horizon, origin), np.arange(panel.horizon)

    def features(given):
        return Lagged(given, 0, given.series["s0"], 0.0, 1.0).features(origins, steps, base)

    np.testing.assert_array_equal(features(panel), features(changed_from(panel, "s0", origin)))
    assert not np.array_equal(features(panel), features(changed_from(panel, "s0", origin - 1)), equal_nan=True)


@pytest.mark.parametrize(
    ("base", "expected"), [("last", [19] * 6), ("season", [16, 17, 18, 19, 16, 17]), ("drift", [20, 21, 22, 23, 20, 21])]
)
def test_lightgbm_corrects_the_last_value_the_last_season_or_that_and_a_seasons_gain(base, expected):
    panel = make_panel(rows=100, season=4, horizon=6, series=1)
    line = history(panel.series["s0"].stamps, np.arange(100))
    found = Lagged(panel, 0, line, 0.0, 1.0).base(np.full(6, 20), np.arange(6), base)
    assert found.tolist() == expected


def test_convcast_is_scaled_by_training_rows_only():
    panel = make_panel(rows=400)
    scale, later = (Scaled(given).scaler.of("s0") for given in (panel, changed_from(panel, "s0", 320)))
    assert scale.mean == later.mean
    assert Scaled(changed_from(panel, "s0", 319)).scaler.of("s0").mean != scale.mean


def test_convcast_sees_nothing_behind_the_origin():
    panel = make_panel(rows=400)
    windows = WindowSpec(lookback=48, horizon=panel.horizon)
    columns = Scaled(panel).columns
    network = build_network(ResidualSpec(), columns, windows, panel.season, 2).eval()
    before, at, behind = (Scaled(given).forecast([network], windows)[0, -1] for given in shifted(panel, 400 - panel.horizon))
    np.testing.assert_array_equal(before, behind)
    assert not np.array_equal(before, at)


def shifted(panel: Panel, origin: int) -> list[Panel]:
    """The panel as it is, changed from the last row before an origin on, and from the origin on."""
    return [panel, changed_from(panel, "s0", origin - 1), changed_from(panel, "s0", origin)]


def test_convcast_validates_on_the_origins_that_the_rivals_have():
    panel = make_panel(rows=20_000, series=2)
    assert panel.stride > 1
    windows = WindowSpec(lookback=48, horizon=panel.horizon)
    blocks = Scaled(panel).validation(windows)
    assert blocks.num_windows == [len(panel.origins(panel.series["s0"], "validation"))] * 2


def test_an_unobserved_step_does_not_count():
    panel = make_panel(rows=100, season=4, series=1)
    target = panel.series["s0"].target.copy()
    target[95] = np.nan
    holed = replace(panel, series={"s0": history(panel.series["s0"].stamps, target)}, future=(), past=())
    forecast = np.nan_to_num(holed.truth("test"))
    forecast[np.isnan(holed.truth("test"))] = 1e9
    assert scores_of(forecast, holed)["mae"] == 0


def test_a_lead_that_is_the_same_everywhere_has_no_width():
    panel = make_panel(rows=20_000, series=1)
    truth = panel.truth("test")
    found = lead([truth + 1.0], [truth - 3.0], panel)
    assert [found.difference, found.low, found.high] == pytest.approx([-2.0] * 3)


def test_a_lead_over_few_test_rows_is_drawn_from_series_or_not_at_all():
    for series, drawn in ((5, "5 series"), (1, "too few rows")):
        panel = make_panel(rows=100, season=24, horizon=10, series=series)
        truth = panel.truth("test")
        assert lead([truth], [truth + 1], panel).drawn == drawn


@pytest.mark.parametrize("part", ["target", "future", "past"])
def test_kept_forecasts_are_of_the_same_data_only(part):
    panel = make_panel()
    one = panel.series["s0"]
    other = replace(panel, series={**panel.series, "s0": replace(one, **{part: getattr(one, part) + 1})})
    assert fingerprint(panel, 1, "suite.simple") == fingerprint(make_panel(), 1, "suite.simple")
    assert fingerprint(panel, 1, "suite.simple") != fingerprint(other, 1, "suite.simple")


@pytest.mark.parametrize("make", [counts_made, weeks_made])
def test_generated_data_are_the_same_every_time(make):
    assert fingerprint(make(), 1, "suite.simple") == fingerprint(make(), 1, "suite.simple")
