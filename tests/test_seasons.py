"""The season of series whose season is known, and of series that have none."""

import numpy as np
import pytest

from models.seasons import agreement, can_tell, main_season, moving_mean

HOURS, DAYS, MONTHS = (24, 168), (7, 365), (12,)


def noise(steps: int, seed: int = 0, size: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, steps)


def wave(steps: int, period: float) -> np.ndarray:
    return np.sin(2 * np.pi * np.arange(steps) / period)


def cycle_without_a_steady_length(steps: int, seed: int = 0) -> np.ndarray:
    """Ups and downs of 132 steps, each drawn anew between 100 and 164, as the sun's."""
    lengths = np.random.default_rng(seed).uniform(100, 164, steps // 100)
    turns = np.concatenate([np.linspace(0, 1, int(length), endpoint=False) + at for at, length in enumerate(lengths)])
    return np.sin(2 * np.pi * turns[:steps]) + noise(steps, seed, 0.3)


def pulses(steps: int, period: int) -> np.ndarray:
    return (np.arange(steps) % period == 0).astype(float)


@pytest.mark.parametrize(
    ("values", "calendar", "season"),
    [
        (wave(2000, 24), HOURS, 24),
        (wave(2000, 24) + noise(2000), HOURS, 24),
        (wave(600, 24) + np.arange(600) / 10, HOURS, 24),  # a trend that outgrows it
        (wave(2000, 24) + 0.3 * noise(2000).cumsum(), HOURS, 24),  # a level that wanders
        (wave(2000, 24) + wave(2000, 168), HOURS, 24),  # two: the day
        (wave(2000, 168), HOURS, 168),
        (wave(2000, 168) + noise(2000, size=0.5), HOURS, 168),
        (wave(2000, 20), HOURS, 20),  # close to a day, and none
        (wave(3000, 200), DAYS, 200),  # smooth, and slow
        (wave(3000, 3000), DAYS, 1),
        (wave(2000, 12) + 0.5 * wave(2000, 24), HOURS, 24),  # two humps a day, one higher
        (wave(1500, 37) + 0.5 * noise(1500), HOURS, 37),  # a machine's own
        (pulses(1500, 37), HOURS, 37),  # a spectrum of harmonics only
        (np.tile(2 * noise(37, seed=21), 60)[:2000] + noise(2000, seed=1, size=0.5), HOURS, 37),  # at 24 it agrees a little
        (wave(3000, 365.25) + noise(3000, size=0.5), DAYS, 365),
        (wave(100, 12) + noise(100, size=0.5), MONTHS, 12),
        (wave(48, 12), MONTHS, 12),  # four years
        (wave(300, 12) * np.exp(np.arange(300) / 60), MONTHS, 12),  # it grows
        (noise(2000), HOURS, 1),
        (noise(2000).cumsum(), HOURS, 1),
        (np.arange(2000.0), HOURS, 1),
        (cycle_without_a_steady_length(2600), MONTHS, 1),
        (np.full(500, 3.0), HOURS, 1),
        ((np.arange(500) == 499).astype(float), HOURS, 1),  # constant but for the last
        (noise(40), HOURS, 1),  # too short for any
        (wave(9000, 2000), (2000,), 1),  # longer than is ever looked back
        (np.array([1.0]), HOURS, 1),
        (np.full(100, np.nan), HOURS, 1),
    ],
)
def test_the_season_is_found(values, calendar, season):
    assert main_season([values], calendar) == season


@pytest.mark.parametrize("steps", [60, 300, 2000])
@pytest.mark.parametrize("calendar", [HOURS, DAYS, MONTHS])
def test_where_nothing_repeats_a_season_is_seldom_seen(steps, calendar):
    series = [make(noise(steps, seed)) for seed in range(25) for make in (np.asarray, np.cumsum)]
    assert sum(main_season([one], calendar) != 1 for one in series) <= 3  # of 50


def test_steps_not_observed_do_not_count():
    values = wave(2000, 24) + noise(2000, size=0.5)
    holed = np.where(np.random.default_rng(1).random(2000) < 0.4, np.nan, values)
    holed[300:700] = np.nan
    assert main_season([holed], HOURS) == 24
    noisy = np.where(np.isnan(holed), np.nan, noise(2000))
    assert main_season([noisy], HOURS) == 1


def test_one_value_that_is_wildly_wrong_does_not_hide_a_season():
    values = wave(500, 24)
    values[250] = 1e6
    assert main_season([values], HOURS) == 24


def test_series_that_tell_little_alone_are_pooled():
    series = [wave(60, 12) + noise(60, seed, 1.2) for seed in range(40)]
    assert sum(main_season([one], MONTHS) == 12 for one in series) < 30
    assert main_season(series, MONTHS) == 12
    assert main_season([noise(60, seed).cumsum() for seed in range(40)], MONTHS) == 1


def test_the_few_series_that_repeat_do_not_speak_for_the_many_that_do_not():
    assert main_season([wave(500, 24), *(noise(500, seed).cumsum() for seed in range(20))], HOURS) == 1


def test_no_series_have_no_season():
    assert main_season([], HOURS) == 1


def test_the_same_series_have_the_same_season_whatever_their_unit():
    values = wave(1500, 37) + noise(1500, size=0.5)
    assert main_season([values], HOURS) == main_season([1e6 + 1e-3 * values], HOURS) == 37


@pytest.mark.parametrize(
    ("period", "expected"),
    [(3, [None, 2, 3, 4, 5, None]), (4, [None, None, 3, 4, None, None])],  # an even one is centred by a mean of two
)
def test_a_moving_mean_is_centred_and_needs_a_whole_period(period, expected):
    found = moving_mean(np.arange(1.0, 7.0), period)
    assert found.tolist() == pytest.approx([np.nan if one is None else one for one in expected], nan_ok=True)


def test_a_moving_mean_is_of_what_was_observed():
    assert moving_mean(np.array([1.0, np.nan, 3.0, 5.0]), 3).tolist()[1:3] == [2.0, 4.0]
    assert np.isnan(moving_mean(np.full(5, np.nan), 3)).all()


def test_agreement_is_one_where_series_repeat_exactly_and_minus_one_half_a_period_off():
    assert agreement([wave(480, 24)], 24)[0] == pytest.approx(1, abs=0.01)
    assert agreement([np.tile([1.0, -1.0], 50)], 3)[0] < -0.9


def test_a_longer_series_makes_an_agreement_surer():
    assert agreement([wave(4800, 24)], 24)[1] < 0.5 * agreement([wave(480, 24)], 24)[1]


@pytest.mark.parametrize(("steps", "period", "told"), [(48, 12, True), (47, 12, False), (9000, 1501, False), (9, 1, False)])
def test_four_seasons_at_least_tell(steps, period, told):
    assert can_tell(steps, period) == told
