"""The step that finds the season: what it looks at, what it says, and what a pipeline makes of it."""

import json

import numpy as np
import pytest
from conftest import make_frame
from shards import HOUR, write_shard

from flows.checking import checking
from flows.explaining import explaining
from flows.forecasting import forecasting
from flows.training import training
from models.series import Columns
from models.windows import FoldSpec
from tasks import find_season as looking
from tasks.find_season import decide, describe_season, sample_targets, sampled_shards
from tasks.ingest.timeline import calendar_seasons, season_of
from tasks.promote import read_live
from tasks.storage import Store

FOLDS = FoldSpec(validation=3, test=2)


def wave(steps: int, period: float) -> np.ndarray:
    return np.sin(2 * np.pi * np.arange(steps) / period)


@pytest.mark.parametrize(
    ("frequency", "seasons"),
    [
        ("30min", {48: "a day", 336: "a week"}),
        ("h", {24: "a day", 168: "a week"}),
        ("7h", {}),  # no day is made of these
        ("D", {7: "a week", 365: "a year"}),
        ("B", {5: "a week", 261: "a year"}),
        ("2D", {}),
        ("W-SUN", {52: "a year"}),
        ("MS", {12: "a year"}),
        ("QE-DEC", {4: "a year"}),
        ("YE", {}),
    ],
)
def test_the_calendar_has_seasons_of_its_own(frequency, seasons):
    assert calendar_seasons(frequency) == seasons
    assert season_of(frequency) == next(iter(seasons), 1)


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ([wave(500, 24)], (24, "found in the data")),
        ([np.random.default_rng(0).normal(size=500)], (1, "found in the data")),
        ([wave(50, 24)], (24, "by the calendar, as there are too few steps to tell")),
        ([wave(47, 24)], (1, "found in the data")),  # not two days
        ([], (1, "found in the data")),
    ],
)
def test_the_calendar_has_the_word_where_too_few_steps_tell_and_two_of_its_seasons_fit(targets, found):
    assert decide(targets, "h") == found


@pytest.mark.parametrize(
    ("steps", "said"),
    [(24, "24 steps (a day), given"), (37, "37 steps, given"), (1, "none, given"), (1008, "1,008 steps, given")],
)
def test_a_season_is_told_in_words(steps, said):
    assert describe_season(steps, "h", "given") == said


@pytest.mark.parametrize("cut", [None, 64])
@pytest.mark.parametrize("masked", [False, True])
def test_only_the_newest_training_steps_are_looked_at(tmp_path, monkeypatch, masked, cut):
    monkeypatch.setattr(looking, "STEPS_A_SERIES", 100)
    columns, store = Columns(masked=masked), Store(tmp_path)
    values = np.arange(300.0)
    seen = values % 7 != 0
    rows = np.stack([values, seen], 1) if masked else values[:, None]
    rows = np.concatenate([rows, np.full((4, rows.shape[1]), np.nan)])  # steps yet to come
    shard = write_shard(store, columns, {"a": rows, "b": rows[:50]}, cut=cut)
    long, short = sample_targets([shard], masked, FOLDS, store)
    expected = np.where(seen, values, np.nan) if masked else values
    np.testing.assert_array_equal(long, expected[195:295])
    np.testing.assert_array_equal(short, expected[:45])


def test_a_series_whose_steps_are_of_several_lengths_shows_no_row_of_a_later_fold(tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "STEPS_A_SERIES", 50)
    store = Store(tmp_path)
    shard = write_shard(store, Columns(), {"a": np.arange(300.0)[:, None]})
    index = store.file(shard, "index.json")
    document = json.loads(index.read_text())
    document["series"]["a"]["first"] = -10_000 * HOUR  # as if a long gap had been dropped
    index.write_text(json.dumps(document))
    (values,) = sample_targets([shard], False, FOLDS, store)
    assert values[-1] == 294
    assert 0 < len(values) <= 50


def test_of_very_many_series_some_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "SAMPLED_SERIES", 3)
    store = Store(tmp_path)
    shard = write_shard(store, Columns(), {name: np.arange(20.0)[:, None] for name in "abcde"})
    assert len(sample_targets([shard, shard], False, FOLDS, store)) == 3
    assert sampled_shards([shard.model_copy(update={"num_series": 0}), shard, shard]) == [shard]
    monkeypatch.setattr(looking, "SAMPLED_STEPS", 20)
    assert len(sample_targets([shard], False, FOLDS, store)) == 2  # fifteen steps each


def write_period(case, period: int, num_rows: int = 600, **changes) -> None:
    """A spec without a season, and a load that repeats itself after `period` hours."""
    frame = make_frame(num_rows)
    frame["load"] = (10 + 3 * wave(num_rows, period) + np.random.default_rng(2).normal(0, 0.2, num_rows)).round(3)
    case.write_frame(frame)
    case.write_spec(**changes)


def test_a_season_that_the_calendar_does_not_know_is_found_said_and_learned(server, case):
    write_period(case, 20, windows__lookback=None)
    assert checking(case.spec).season == "20 steps, found in the data"
    outcome = training(case.spec)
    assert outcome.season == "20 steps, found in the data"
    assert next(entry.state for entry in outcome.tasks if entry.step == "find_season") == "Cached"
    assert read_live(case.store, "small").model.facts.season == 20
    assert set(outcome.scores["new"]["test"]) == {"1", "10", "12", "20", "24"}  # the calendar's too: a gate may name them
    assert "20 steps, found in the data" in (case.folder / "store" / "reports" / "small.html").read_text()


def test_a_season_that_is_given_is_not_looked_for(server, case):
    write_period(case, 20, season=24)
    outcome = training(case.spec)
    assert outcome.season == "24 steps (a day), given"
    assert "find_season" not in {entry.step for entry in outcome.tasks}
    assert read_live(case.store, "small").model.facts.season == 24


def test_explain_says_what_the_season_waits_for(server, trained):
    trained.write_spec(folds__test=48)
    planned = {one.step: one.because for one in explaining(trained.spec)}
    assert planned["find_season"] == "folds.test 72 -> 48"
    assert planned["normalise"] == "find_season will run; what that leaves as it was stays cached"
    trained.write_frame(make_frame().assign(load=1.0))
    planned = {one.step: one.because for one in explaining(trained.spec)}
    assert planned["find_season"].startswith("ingest will run")


def test_a_live_model_of_another_season_is_held_against_the_new_one(server, case):
    changes = {"windows__lookback": None, "gate__steps": 12, "forecast__origin": "2024-01-24T23:00+00:00"}
    write_period(case, 24, **changes)
    assert training(case.spec).promoted
    write_period(case, 20, **changes)
    outcome = training(case.spec)
    assert set(outcome.scores["live"]["validation"]) == set(outcome.scores["new"]["validation"])
    assert outcome.promoted, outcome.reason
    live = read_live(case.store, "small")
    assert [live.model.facts.season, live.previous.facts.season] == [20, 24]
    assert forecasting(case.spec).rows_written == 24


def test_where_nothing_repeats_the_last_value_is_the_rival_and_networks_keep_the_calendars_period(server, case):
    frame = make_frame()
    frame["load"] = np.random.default_rng(3).normal(size=len(frame)).cumsum().round(3)
    case.write_frame(frame)
    case.write_spec(windows__lookback=None)
    outcome = training(case.spec)
    assert outcome.season == "none, found in the data"
    (trained,) = case.store.manifests("train")
    assert trained["receipt"]["facts"]["season"] == 24
    page = (case.folder / "store" / "reports" / "small.html").read_text()
    assert "which repeats the last value" in page
