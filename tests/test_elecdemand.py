"""What benchmarks/elecdemand.py compares looks at nothing that an origin cannot know, and its tables say what they seem to."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from demand.nets import Nets, Recipe
from demand.noise import drawn, persisted, with_errors
from demand.structured import Known, Structured, like_rows
from demand.tables import Model, block_means, gain, interval
from demand.year import END, FIRST_ORIGIN, FIRST_VALIDATION, LONGEST, SEASON, continued, truth_of
from suite.intervals import LEVELS, PLAIN, Folds, held_by, plain_quantiles

from models.networks import RECIPES, build_network
from models.series import Columns
from models.specs import FitSpec, ResidualSpec
from models.spread import Forecasts
from models.windows import WindowSpec

ORIGIN = FIRST_ORIGIN + 100
FEW = {"num_leaves": 4, "num_iterations": 3, "num_threads": 1, "objective": "l2", "learning_rate": 0.5}


@cache
def made_year() -> pd.DataFrame:
    """Demand that follows the clock, working days and temperature."""
    rows, rng = np.arange(END), np.random.default_rng(0)
    temperature = 15 + 8 * np.sin(2 * np.pi * rows / SEASON) + rng.normal(0, 2, END // SEASON).repeat(SEASON)
    working = (rows // SEASON % 7 < 5).astype(int)
    demand = 4 + working + 0.1 * np.abs(temperature - 17) + rng.normal(0, 0.05, END)
    stamps = pd.date_range("2014-01-01", periods=END, freq="30min", tz="+10:00")
    return pd.DataFrame({"Demand": demand, "WorkDay": working, "Temperature": temperature}, stamps)


def changed_from(row: int, *names: str) -> pd.DataFrame:
    year = made_year().copy()
    year.iloc[row:, [year.columns.get_loc(name) for name in names]] += 50
    return year


def untrained(year: pd.DataFrame) -> Nets:
    columns, windows = Columns(future=("WorkDay", "Temperature"), calendar=("hour",)), WindowSpec(lookback=144, horizon=48)
    nets = Nets(Recipe(ResidualSpec(), columns, windows, FitSpec(**RECIPES["residual"])), year)
    torch.manual_seed(0)
    network = build_network(ResidualSpec(), columns, windows, SEASON)
    torch.nn.init.normal_(network.head.weight)  # else it begins without the covariates
    nets.networks.append(network.eval())
    return nets


def of_noise(sizes: np.ndarray, seed: int) -> Forecasts:
    """Forecasts of 0 whose truth lies so far off; a changing past of the same size."""
    draw = torch.Generator().manual_seed(seed)
    size = torch.from_numpy(sizes).float()[:, None]
    target, truth = size * torch.randn(len(size), 40, generator=draw), size * torch.randn(len(size), 6, generator=draw)
    return Forecasts(target, torch.zeros(len(size), 6, 0), torch.zeros(len(size), 6), truth)


def test_a_like_row_is_of_the_same_time_on_an_earlier_day_of_the_same_kind():
    working = np.repeat([1, 1, 0, 1, 0, 1], SEASON)
    at = 5 * SEASON + 7
    assert like_rows(working)[at].tolist() == [3 * SEASON + 7, SEASON + 7, 7]
    assert like_rows(working)[4 * SEASON + 7][0] == 2 * SEASON + 7


def test_the_structured_rival_knows_nothing_of_demand_or_temperature_after_its_origin():
    pytest.importorskip("lightgbm")
    ahead, rows, told, seen = np.full((1, LONGEST), 20.0), ORIGIN + np.arange(LONGEST), [], []
    for year in (made_year(), changed_from(ORIGIN, "Demand", "Temperature"), changed_from(ORIGIN - 1, "Demand")):
        rival = Structured(Known(year), FEW, 0).carried(1.0)
        told.append(rival.forecast(np.array([ORIGIN]), ahead))
        seen.append(rival.known.features(rows, ahead[0], ahead[0]))
    assert np.array_equal(told[0], told[1])
    assert np.array_equal(seen[0], seen[1])
    assert not np.allclose(told[0], told[2])


def test_the_structured_rival_forecasts_better_than_its_base_and_follows_the_temperature_it_is_given():
    pytest.importorskip("lightgbm")
    known = Known(made_year())
    rival, origins = Structured(known, FEW | {"num_iterations": 40}, 0).carried(1.0), np.arange(ORIGIN, ORIGIN + 200)
    rows = origins[:, None] + np.arange(LONGEST)
    errors = np.abs(rival.forecast(origins) - known.demand[rows]).mean()
    assert errors < 0.5 * np.abs(known.base[rows] - known.demand[rows]).mean()
    assert np.array_equal(rival.forecast(origins, known.temperature[rows]), rival.forecast(origins))
    assert np.abs(rival.forecast(origins, known.temperature[rows] + 10) - known.demand[rows]).mean() > 2 * errors


def test_the_smoothed_temperature_of_a_horizon_goes_on_from_the_origin():
    known, origins = Known(made_year()), np.array([ORIGIN, ORIGIN + 5])
    rows = origins[:, None] + np.arange(LONGEST)
    assert np.allclose(known.smoothed(origins, known.temperature[rows]), known.smooth[rows])


def test_a_net_told_another_temperature_sees_it_over_the_horizon_only():
    nets, origins = untrained(made_year()), np.array([ORIGIN, ORIGIN + 1])
    true = made_year()["Temperature"].to_numpy()[origins[:, None] + np.arange(LONGEST)]
    plain, other = nets.windows(origins), nets.windows(origins, true + 5)
    moved = (plain != other).numpy()
    assert moved[:, nets.lookback :, 2].all()
    moved[:, nets.lookback :, 2] = False
    assert not moved.any()
    assert torch.equal(nets.windows(origins, true), plain)
    assert not np.allclose(nets.forecast(origins, true + 5)[0], nets.forecast(origins)[0])


def test_a_net_knows_nothing_of_demand_after_its_origin():
    origins = np.array([ORIGIN])
    plain, other = (untrained(year).forecast(origins)[0] for year in (made_year(), changed_from(ORIGIN, "Demand")))
    assert np.array_equal(plain, other)


def test_errors_of_temperature_forecasts_grow_to_the_size_asked_for():
    errors = drawn(20_000, 2.0)
    by_step = np.sqrt(np.square(errors).mean(0))
    assert by_step[-1] == pytest.approx(2.0, rel=0.03)
    assert by_step[23] == pytest.approx(0.84 * 2.0, rel=0.03)
    assert (np.diff(by_step) > 0).all()
    assert np.array_equal(2 * drawn(5, 1.0), drawn(5, 2.0))
    true, origins = np.arange(200.0), np.array([100, 101])
    assert np.allclose(with_errors(true, origins, 1.0) - drawn(2, 1.0), [np.arange(100, 148), np.arange(101, 149)])


def test_a_temperature_not_known_is_that_of_the_day_before():
    assert np.array_equal(persisted(np.arange(200.0), np.array([100])), [np.arange(52.0, 100.0)])


def test_the_difference_to_a_rival_and_its_interval_are_those_of_the_errors():
    demand = made_year()["Demand"].to_numpy()
    true = np.zeros((END - FIRST_ORIGIN, LONGEST))
    true[: END - FIRST_ORIGIN - LONGEST + 1] = truth_of(demand)
    assert gain([true + 0.5, true - 0.5], [true - 2], demand, LONGEST, "mae").tolist() == pytest.approx([-1.5] * 3)
    assert gain([true + 3, true + 4], [true], demand, LONGEST, "rmse").tolist() == pytest.approx([12.5**0.5] * 3)


def test_an_interval_is_wider_where_errors_come_in_runs():
    rng = np.random.default_rng(0)
    alone, runs = rng.normal(size=1344), rng.normal(size=4).repeat(336)
    low, high = interval(alone)
    assert low < alone.mean() < high
    assert np.ptp(interval(runs)) > 5 * (high - low)
    assert len(block_means(alone, draws=20)) == 20


def test_the_mean_of_seeds_is_scored_where_there_are_several():
    assert list(Model([np.zeros((2, 3))], []).each()) == ["a seed"]
    pooled = Model([np.zeros((2, 3)), np.ones((2, 3))], []).each()["mean of seeds"]
    assert pooled[0].tolist() == [[0.5] * 3] * 2


def test_plain_quantiles_are_those_of_the_errors_of_validation_around_the_forecast():
    validation, test = of_noise(np.ones(999), 0), of_noise(np.ones(3), 1)
    validation.truth[:] = torch.arange(1.0, 1000.0)[:, None]
    test.forecast[1] = 7.0
    quantiles = plain_quantiles(validation, test)
    assert quantiles.shape == (3, 6, len(LEVELS))
    assert quantiles[0, 0].tolist() == pytest.approx([1000 * level for level in LEVELS])
    assert np.allclose(quantiles[1] - quantiles[0], 7.0)


def test_quantiles_of_convcast_hold_and_follow_the_size_that_plain_ones_do_not_know():
    rng = np.random.default_rng(0)
    sizes = [np.exp(rng.normal(0, 1, count)) for count in (3000, 2000, 2000)]
    folds = Folds(*(of_noise(size, seed) for seed, size in enumerate(sizes)), mean=5.0, std=2.0, held_out=0)
    found = held_by(folds, Columns(), WindowSpec(lookback=40, horizon=6), 1)
    assert {way: errors.intervals()["80"]["coverage"] for way, errors in found.items()} == pytest.approx(
        dict.fromkeys(("convcast, fixed", "convcast, rolling", PLAIN), 0.8), abs=0.03
    )
    crps = {way: errors.score(6)["crps"] for way, errors in found.items()}
    assert crps["convcast, fixed"] < 0.95 * crps[PLAIN]
    size = found[PLAIN].size.sum() / found[PLAIN].count.sum()
    assert size == pytest.approx(np.abs(5.0 + 2.0 * folds.test.truth.numpy()).mean(), rel=1e-5)


def test_the_year_goes_on_with_its_last_day():
    longer = continued(made_year())
    assert len(longer) == END + LONGEST
    assert np.array_equal(longer["Temperature"][END:], made_year()["Temperature"][-LONGEST:])
    assert FIRST_VALIDATION < FIRST_ORIGIN < END
