"""The step that finds whether single days of the year are worth learning of, and what a pipeline makes of it."""

import numpy as np
import pandas as pd
import pytest
from conftest import Case
from shards import write_shard

from flows.checking import checking
from flows.explaining import explaining
from flows.forecasting import forecasting
from flows.training import training
from models.series import Columns
from models.windows import FoldSpec
from tasks import find_dates as looking
from tasks.find_dates import by_others, daily_means, deviations, explained_by_other_years
from tasks.promote import read_live
from tasks.storage import Store

FIRST = 14_610  # days from 1970 to 2010
HOLIDAYS = ["01-01", "05-01", "07-14", "11-11", "12-25", "12-26"]


def days_of(years: int) -> pd.DatetimeIndex:
    return pd.date_range("2010-01-01", periods=round(years * 365.25), freq="D")


def noise(years: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=len(days_of(years)))


def fixed(years: int) -> np.ndarray:
    """1 on holidays that have their date."""
    return np.isin(days_of(years).strftime("%m-%d"), HOLIDAYS).astype(float)


def floating(years: int) -> np.ndarray:
    """1 on the first Monday of May, the last of five Mondays, and on fourth Thursdays of November."""
    days = days_of(years)
    nth, weekday = (days.day - 1) // 7 + 1, days.day_of_week
    return ((days.month == 11) & (weekday == 3) & (nth == 4) | (days.month == 5) & (weekday == 0) & (nth == 1)).astype(float)


def test_each_is_told_by_the_others_of_its_group_as_if_there_were_a_zero_among_them():
    values, group = np.array([3.0, 6.0, 9.0, 5.0]), np.array([1, 1, 1, 7])
    assert by_others(values, group).tolist() == [5.0, 4.0, 3.0, 0.0]


def test_a_day_is_held_against_the_same_weekday_of_the_weeks_around_it():
    values = np.tile([0.0, 10, 20, 30, 40, 50, 60], 9)
    values[30] += 7
    apart = deviations(values)
    assert np.flatnonzero(apart).tolist() == [30]
    values[31:45] = np.nan  # then only the weeks before are left
    assert deviations(values)[30] > 0
    assert np.isnan(deviations(values)[31:45]).all()


def test_a_series_that_never_changes_and_one_too_short_tell_nothing():
    assert np.isnan(deviations(np.ones(40))).all()
    assert np.isnan(deviations(np.arange(5.0))).all()
    assert explained_by_other_years([(FIRST, np.ones(1500))]) == explained_by_other_years([]) == -1


@pytest.mark.parametrize("years", [3, 6, 12])
def test_holidays_are_found_whether_they_have_a_date_or_a_weekday(years):
    for holidays in (fixed(years), floating(years)):
        assert explained_by_other_years([(FIRST, 0.2 * noise(years) - 3 * holidays)]) > 0.1


@pytest.mark.parametrize("years", [3, 6, 12])
def test_noise_heavy_tails_a_walk_and_a_yearly_wave_are_not_taken_for_holidays(years):
    rng, at = np.random.default_rng(1), np.arange(len(days_of(years)))
    for values in (
        noise(years),
        rng.standard_t(2, len(at)),
        rng.normal(size=len(at)).cumsum(),
        5 * np.sin(2 * np.pi * at / 365.25) + noise(years),
        rng.poisson(0.3, len(at)).astype(float),
    ):
        assert explained_by_other_years([(FIRST, values)]) < 0


def test_what_series_have_in_common_is_found_where_none_of_them_shows_it_alone():
    several = [(FIRST + shift, (noise(5, shift) - 0.7 * fixed(5))[shift:]) for shift in range(40)]
    assert explained_by_other_years(several[:1]) < 0 < explained_by_other_years(several)


@pytest.mark.parametrize("cut", [None, 31])
@pytest.mark.parametrize("masked", [False, True])
def test_days_are_local_and_only_those_of_steps_to_train_on(tmp_path, masked, cut):
    store, values = Store(tmp_path), np.arange(100.0)
    seen = np.arange(100) // 24 != 1
    rows = np.stack([values, seen], 1) if masked else values[:, None]
    shard = write_shard(store, Columns(masked=masked), {"a": rows, "b": rows[:50]}, cut=cut)
    (first, means), (_, short) = daily_means([shard], masked, FoldSpec(validation=3, test=1), "+02:00", store)
    assert first == 0
    assert len(means) == 5
    # 22 steps of the first day, then whole days, and of the last one 94 and 95; steps 24 to 47 were not observed
    assert means.tolist() == ([10.5, 22.5, 58.5, 81.5, 94.5] if masked else [10.5, 33.5, 57.5, 81.5, 94.5])
    assert short.tolist() == ([10.5, 22.5] if masked else [10.5, 33.5])  # 46 steps


def test_of_very_many_series_some_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "SAMPLED_SERIES", 3)
    store = Store(tmp_path)
    shard = write_shard(store, Columns(), {name: np.arange(60.0)[:, None] for name in "abcde"})
    assert len(daily_means([shard], False, FoldSpec(validation=3, test=2), "UTC", store)) == 3


def write_days(case: Case, holidays: bool, years: int = 6, **changes) -> Case:
    days = days_of(years)
    load = 10 + np.sin(2 * np.pi * np.arange(len(days)) / 7) + 0.2 * noise(years) - (3 * fixed(years) if holidays else 0)
    case.write_frame(pd.DataFrame({"when": days.strftime("%Y-%m-%d"), "load": load.round(4)}))
    document = {
        "source__frequency": "D", "source__future_covariates": [], "source__calendar": None,
        "folds": {"validation": 90, "test": 90}, "windows": {"horizon": 7}, "network": {"kind": "residual", "channels": 8},
    }  # fmt: skip
    case.write_spec(**document | changes)
    return case


def known_of(case: Case) -> tuple[str, ...]:
    return read_live(case.store, "small").model.facts.columns.known


def test_days_that_are_like_themselves_in_other_years_are_learned_of_and_a_rerun_is_cached(server, case):
    write_days(case, holidays=True)
    outcome = training(case.spec)
    assert known_of(case) == ("weekday_sin", "weekday_cos", "date_day", "date_weekday")
    assert [entry.state for entry in outcome.tasks if entry.step == "find_dates"] == ["Completed"]
    assert forecasting(case.spec).rows_written == 7
    assert [entry.state for entry in training(case.spec).tasks if entry.step == "find_dates"] == ["Cached"]
    write_days(case, holidays=True, folds={"validation": 90, "test": 60})
    planned = {entry.step: entry.because for entry in explaining(case.spec)}
    assert planned["find_dates"] == "folds.test 90 -> 60"


def test_days_that_are_not_are_left_alone(server, case):
    write_days(case, holidays=False)
    training(case.spec)
    assert known_of(case) == ("weekday_sin", "weekday_cos")


@pytest.mark.parametrize(
    ("changes", "known"),
    [({"source__calendar": ["date"]}, ("date_day", "date_weekday")), ({"source__calendar": []}, ())],
)
def test_a_calendar_that_is_named_is_taken_at_its_word(server, case, changes, known):
    write_days(case, holidays=not known, **changes)
    outcome = training(case.spec)
    assert known_of(case) == known
    assert "find_dates" not in {entry.step for entry in outcome.tasks}


def test_of_less_than_four_years_nobody_asks(server, case):
    write_days(case, holidays=True, years=3)
    assert "find_dates" not in {entry.step for entry in training(case.spec).tasks}
    assert checking(case.spec).season
