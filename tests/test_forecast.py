"""What a model may know at an origin, and the forecasts made from it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import torch
from deltalake import DeltaTable
from shards import HOUR, scaler_of, write_shard

import tasks.forecast.outlook
from models.bundle import FORMAT, Bundle, Description, Member
from models.conformal import FLAT_RATE, Calibration, Following
from models.errors import Fault
from models.networks import build_network
from models.series import Columns, SeriesFacts
from models.specs import ResidualSpec
from models.spread import SpreadNet
from models.windows import FoldSpec, WindowSpec
from tasks.forecast.outlook import FEWEST, Outlook, quantile_name
from tasks.forecast.table import publish
from tasks.ingest.calendar import Calendar
from tasks.ingest.statics import Statics
from tasks.storage import Store

WINDOWS, FOLDS = WindowSpec(lookback=6, horizon=3), FoldSpec(validation=3, test=3)
FULL = Columns(past=("p",), future=("f",), calendar=("hour",), static=("size",))
NONE = Statics()


def noise(length, channels=1, seed=0, level=50.0):
    return level + np.random.default_rng(seed).normal(0, 5, (length, channels))


def bundle_of(columns, rows, embedding=0, frequency="h"):
    """A model with weights drawn at random, trained, as it were, on these series (R, C - made)."""
    facts = SeriesFacts(target="y", columns=columns, frequency=frequency, season=1, timezone="+02:00")
    spec, own = ResidualSpec(channels=4, embedding=embedding), scaler_of(columns, rows, FOLDS)
    about = Description(
        format=FORMAT,
        members=(Member(network=spec, seeds=(0,)),),
        windows=WINDOWS,
        series=facts,
        scaler=own,
        trained_on="0" * 64,
        calibration=None,
        versions={},
    )
    torch.manual_seed(0)
    network = build_network(spec, columns, WINDOWS, 1, len(own.series))
    weights = {name: value + 0.2 * torch.randn_like(value) for name, value in network.state_dict().items()}
    return Bundle(about, [[weights]])


def calibrated(bundle, held_out, levels=(0.1, 0.5, 0.9), rolling=True):
    """The same model with quantiles that were never trained, and offsets to tell the steps apart."""
    about = bundle.description
    offsets = tuple(tuple(0.1 * step + 0.01 * at for at in range(len(levels))) for step in range(about.windows.horizon))
    own = Calibration(levels=levels, offsets=offsets, rolling=rolling, num_windows=1, held_out=held_out)
    network = SpreadNet.fresh(levels, about.series.columns, about.windows, about.series.season)
    return replace(bundle, description=about.model_copy(update={"calibration": own}), spread_weights=network.state_dict())


def outlook(bundle, origin=None, quarantine=False, statics=NONE, scored=None):
    at = None if origin is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=origin)
    return Outlook(bundle, statics, at, quarantine, scored)


def forecast(tmp_path, bundle, rows, origin=None, first=None, cut=None, statics=NONE, scored=None):
    """The forecasts of every series, and the outlook that made them."""
    store, looking = Store(tmp_path), outlook(bundle, origin, statics=statics, scored=scored)
    frames = looking.forecast_shards(store, [write_shard(store, bundle.description.series.columns, rows, first, cut)])
    looking.check(frames)
    return frames[0], looking


def by_hand(bundle, past, future, scale, number):
    """One forecast in the user's units, from every channel (L, C) and (H, F)."""
    first, (mean, std) = bundle.description.series.columns.first_known, (np.array(scale.mean), np.array(scale.std))
    args = ((past - mean) / std).astype(np.float32), ((future - mean[first:]) / std[first:]).astype(np.float32)
    scaled = bundle.forecast(*(torch.from_numpy(one)[None] for one in args), torch.tensor([number]))
    return scaled[0] * std[0] + mean[0]


def full_rows(length, size, seed=0):
    """Target, p, f, size; over the last three rows only f and size are known."""
    rows = np.column_stack([noise(length, 3, seed), np.full(length, size)])
    rows[-3:, :2] = np.nan
    return rows


@pytest.mark.parametrize("cut", [None, 10])
def test_a_forecast_is_what_the_model_says_of_the_last_lookback_and_what_is_known_ahead(tmp_path, cut):
    rows = {"a": full_rows(30, 10.0), "b": full_rows(30, 30.0, 1)}
    bundle = bundle_of(FULL, {name: own[:27] for name, own in rows.items()}, embedding=2)
    frame, looking = forecast(tmp_path, bundle, rows, cut=cut)
    calendar, stamps = Calendar(frequency="h", timezone="+02:00"), np.arange(30) * HOUR
    assert list(frame["series_id"]) == ["a"] * 3 + ["b"] * 3
    assert list(frame["step"]) == [1, 2, 3] * 2
    assert list(frame["timestamp"].astype("int64") // HOUR) == [27, 28, 29] * 2
    assert set(frame["origin"].astype("int64") // HOUR) == {26}
    assert not frame["new_series"].any()
    assert frame["truth"].isna().all()
    assert looking.set_aside == []
    for name, own in rows.items():
        every = calendar.insert(own, stamps, FULL)
        wanted = by_hand(bundle, every[21:27], every[27:, 2:], bundle.description.scaler.of(name), bundle.numbers[name])
        assert frame.loc[frame["series_id"] == name, "forecast"].to_numpy() == pytest.approx(wanted, rel=1e-5)


def test_a_series_that_was_not_there_in_training_is_scaled_by_its_own_history_and_flagged(tmp_path):
    rows = {"a": full_rows(30, 10.0), "new": full_rows(20, 90.0, 2) * [100, 1, 1, 1]}
    bundle = bundle_of(FULL, {"a": rows["a"][:27], "z": full_rows(30, 30.0)[:27]}, embedding=2)
    frame, _ = forecast(tmp_path, bundle, rows)
    assert frame.groupby("series_id")["new_series"].all().to_dict() == {"a": False, "new": True}
    target = rows["new"][:17, 0]
    scale = outlook(bundle).own_scale("new", rows["new"][:17])
    assert (scale.mean[0], scale.std[0]) == pytest.approx((target.mean(), target.std()))
    assert (scale.mean[-1], scale.std[-1]) == (20, 10)  # as the sizes 10 and 30 of training
    every = Calendar(frequency="h", timezone="+02:00").insert(rows["new"], np.arange(20) * HOUR, FULL)
    wanted = by_hand(bundle, every[11:17], every[17:, 2:], scale, 0)
    assert frame.loc[frame["new_series"], "forecast"].to_numpy() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("held_out", [0, 26])
def test_series_that_are_often_0_and_never_less_are_not_forecast_below_it(tmp_path, monkeypatch, held_out):
    monkeypatch.setattr(tasks.forecast.outlook, "FEWEST", 1)
    rng = np.random.default_rng(2)
    rows = {name: np.maximum(rng.normal(0, 3, (40, 1)), 0) for name in ("a", "lower", "new")}
    known = {name: own for name, own in rows.items() if name != "new"}
    bundle = calibrated(bundle_of(Columns(), known), held_out)
    rows["lower"][-3] = -0.001
    assert [one.floor for one in bundle.description.scaler.series.values()] == [0, 0]
    frame, _ = forecast(tmp_path, bundle, rows)
    lowest = frame.groupby("series_id")[["forecast", "q10", "q50", "q90"]].min().min(axis=1)
    assert lowest["a"] == lowest["new"] == 0
    assert lowest["lower"] < -0.1
    assert (frame.loc[frame["series_id"] != "lower", ["forecast", "q10"]] == 0).any().all()


@pytest.mark.parametrize("sure", [False, True])
def test_nothing_after_the_origin_is_seen(tmp_path, monkeypatch, sure):
    monkeypatch.setattr(tasks.forecast.outlook, "FEWEST", 1)
    columns, rows = Columns(past=("p",), masked=True), np.column_stack([noise(30), np.ones(30), noise(30, 1, 1)])
    changed = rows.copy()
    changed[20:] = [1e6, 0, -1e6]
    frames = []
    for at, own in enumerate((rows, changed, rows[:20])):
        series = {"a": own, "new": own}
        bundle = bundle_of(columns, {"a": rows})
        bundle = calibrated(bundle, held_out=20) if sure else bundle
        frames.append(forecast(tmp_path / str(at), bundle, series, origin=19)[0])
    for other in frames[1:]:
        for told in ["forecast", *(["q10", "q90"] if sure else [])]:
            assert other[told].tolist() == frames[0][told].tolist()
    assert frames[0]["truth"].tolist() == rows[20:23, 0].tolist() * 2
    assert frames[1]["truth"].isna().all()  # it was filled in
    assert frames[2]["truth"].isna().all()


@pytest.mark.parametrize(
    "stamps",
    [np.arange(80) * HOUR, pd.date_range("2001-01-01", periods=80, freq="MS", tz="Etc/GMT-2").as_unit("us").asi8],
    ids=["hours", "months"],
)
def test_quantiles_follow_what_nothing_was_trained_on_wherever_a_series_begins_now(stamps):
    columns, rows, training = Columns(), noise(80), slice(10, 70)
    bundle = calibrated(bundle_of(columns, {"a": rows[training]}, frequency="h" if stamps[0] == 0 else "MS"), held_out=20)
    scale = bundle.description.scaler.of("a").model_copy(update={"first": int(stamps[10])})
    looking = outlook(bundle)
    looking.followed = 1000
    seen = {}
    for begin in (10, 0, 25):  # as it was in training, with older rows before it, and without its oldest ones
        facts = {"first": int(stamps[begin])}
        seen[begin] = looking.before(stamps[begin:70], rows[begin:70], scale, facts)[0][0]
    assert seen == dict.fromkeys((10, 0, 25), stamps[50 - WINDOWS.lookback])
    old = scale.model_copy(update={"first": None})  # of a bundle that does not say
    assert looking.before(stamps[25:70], rows[25:70], old, {"first": int(stamps[25])})[0][0] == stamps[65 - WINDOWS.lookback]


def test_every_series_is_forecast_from_its_own_last_target(tmp_path):
    rows = {"a": noise(30), "b": noise(12, 1, 1), "c": np.concatenate([noise(20, 1, 2), [[np.nan]] * 2])}
    frame, _ = forecast(tmp_path, bundle_of(Columns(), {"a": rows["a"]}), rows, first={"b": 5})
    origins = frame.groupby("series_id")["origin"].first().astype("int64") // HOUR
    assert origins.to_dict() == {"a": 29, "b": 16, "c": 19}
    assert ((frame["timestamp"] - frame["origin"]).dt.total_seconds() / 3600 == frame["step"]).all()


def test_series_together_are_forecast_as_each_alone(tmp_path):
    rows = {"a": noise(30), "b": noise(12, 1, 1), "c": noise(40, 1, 2)}
    columns = Columns(calendar=("hour", "weekday"))
    bundle = bundle_of(columns, {name: rows[name] for name in "ac"})
    together, _ = forecast(tmp_path / "all", bundle, rows, first={"b": 7})
    for name, own in rows.items():
        alone, _ = forecast(tmp_path / name, bundle, {name: own}, first={"b": 7})
        found = together.loc[together["series_id"] == name]
        assert found["forecast"].to_numpy() == pytest.approx(alone["forecast"].to_numpy(), rel=1e-6)
        assert found["timestamp"].tolist() == alone["timestamp"].tolist()


def test_a_series_too_short_to_look_back_or_without_the_origin_is_set_aside_by_name(tmp_path):
    rows = {"a": noise(30), "short": noise(5), "late": noise(30)}
    bundle = bundle_of(Columns(), {"a": rows["a"]})
    frame, looking = forecast(tmp_path, bundle, rows, origin=4 + 6, first={"short": 6, "late": 20})
    assert set(frame["series_id"]) == {"a"}
    assert looking.set_aside == [
        "short has 5 steps up to its origin 1970-01-01T12:00:00+02:00; the model looks back 6. "
        "Bring more rows or drop the series.",
        "late has no 1970-01-01T12:00:00+02:00 with a target; its targets run from 1970-01-01T22:00:00+02:00 to "
        "1970-01-03T03:00:00+02:00. Choose an origin among them.",
    ]


def test_where_no_series_can_be_forecast_the_first_reason_is_given(tmp_path):
    bundle = bundle_of(Columns(), {"a": noise(30)})
    with pytest.raises(Fault, match=r"^x has 4 steps up to its origin .* \(2 series, all of them for such a reason\)$"):
        forecast(tmp_path, bundle, {"x": noise(4), "y": noise(5)})


def lacking(tmp_path, quarantine):
    columns = Columns(future=("f", "g"))
    whole = np.column_stack([noise(30, 3)])
    whole[-3:, 0] = np.nan
    holey, ending = whole.copy(), whole[:28]
    holey[28, 2] = np.nan
    store, looking = Store(tmp_path), outlook(bundle_of(columns, {"a": whole[:27]}), quarantine=quarantine)
    frames = looking.forecast_shards(store, [write_shard(store, columns, {"a": whole, "b": holey, "c": ending})])
    return looking, frames[0] if frames else None


def test_a_covariate_missing_over_the_horizon_is_named_with_series_and_stamp(tmp_path):
    looking, frame = lacking(tmp_path, quarantine=False)
    with pytest.raises(Fault, match=r"^Future covariates are missing over the horizon of 3 steps: ") as error:
        looking.check([frame])
    assert "b g from 1970-01-02T06:00:00+02:00, c f from 1970-01-02T06:00:00+02:00, c g from" in str(error.value)
    assert "source.quarantine" in str(error.value)


def test_quarantine_goes_on_without_series_that_lack_covariates(tmp_path):
    looking, frame = lacking(tmp_path, quarantine=True)
    looking.check([frame])
    assert set(frame["series_id"]) == {"a"}
    assert looking.set_aside == [
        "b lacks a future covariate: b g from 1970-01-02T06:00:00+02:00",
        "c lacks a future covariate: c f from 1970-01-02T06:00:00+02:00",
    ]


def test_static_channels_of_a_second_file_reach_over_the_horizon(tmp_path):
    columns, rows = Columns(static=("kind=x", "kind=y")), {"a": noise(20), "b": noise(20)}
    known = {name: np.column_stack([own, np.full((20, 2), [name == "a", name == "b"])]) for name, own in rows.items()}
    bundle = bundle_of(columns, known)
    statics = Statics(channels=columns.static, values={"a": (1.0, 0.0), "b": (0.0, 1.0)})
    frame, _ = forecast(tmp_path, bundle, rows, statics=statics)
    for name, own in known.items():
        wanted = by_hand(bundle, own[14:], own[:3, 1:], bundle.description.scaler.of(name), 0)
        assert frame.loc[frame["series_id"] == name, "forecast"].to_numpy() == pytest.approx(wanted, rel=1e-5)


def test_days_ahead_follow_the_local_calendar():
    origin = int(datetime(2024, 3, 29, 23, tzinfo=UTC).timestamp() * 1e6)  # midnight in Paris, a day before summer time
    bundle = bundle_of(Columns(), {"a": noise(30)}, frequency="D")
    facts = bundle.description.series.model_copy(update={"timezone": "Europe/Paris"})
    bundle = Bundle(bundle.description.model_copy(update={"series": facts}), bundle.weights)
    ahead = outlook(bundle).ahead(origin)
    assert ((ahead - origin) // HOUR).tolist() == [24, 47, 71]


def changed(bundle):
    """The model once it has gone on to all rows: other weights, and nothing held out."""
    about = bundle.description
    own = about.calibration.model_copy(update={"held_out": 0})
    weights = [[{name: 1.5 * value for name, value in one.items()} for one in seeds] for seeds in bundle.weights]
    return replace(bundle, description=about.model_copy(update={"calibration": own}), weights=weights)


def quantiles_by_hand(bundle, rows, at):
    """Quantiles (Q, H) before offsets, scaled, of a plain target (R, 1) as of row `at`."""
    scale, cut = bundle.description.scaler.of("a"), bundle.description.windows
    past = torch.from_numpy(((rows[at - cut.lookback + 1 : at + 1] - scale.mean) / scale.std).astype(np.float32))[None]
    future = torch.zeros(1, cut.horizon, 0)
    return bundle.quantiles(past, future, bundle.forecast(past, future))[0].T


@pytest.mark.parametrize("went_on", [False, True])
def test_quantiles_follow_the_errors_since_training_as_a_plain_loop_works_out(tmp_path, monkeypatch, went_on):
    monkeypatch.setattr(tasks.forecast.outlook, "FEWEST", 1)
    rows, held_out, levels = noise(40), 16, (0.1, 0.5, 0.9)
    bundle = calibrated(bundle_of(Columns(), {"a": rows[:30]}), held_out)  # rows 0 to 13 were trained on
    newest = changed(bundle) if went_on else bundle
    frame, looking = forecast(tmp_path, newest, {"a": rows}, scored=bundle if went_on else None)
    assert looking.followed > 30
    scale = bundle.description.scaler.of("a")
    truth = ((rows[:, 0] - scale.mean[0]) / scale.std[0]).astype(np.float32)
    offsets, moves = np.array(bundle.description.calibration.offsets).T, {}
    for origin in range(13, 40):  # the first origin whose whole horizon was not trained on
        for step in (1, 2, 3):
            offsets[:, step - 1] += FLAT_RATE * moves.get((origin - step, step), np.zeros(3))
        if origin == 39:
            break
        quantiles = quantiles_by_hand(bundle, rows, origin)
        for step in (1, 2, 3):
            if origin + step < 40:
                width = quantiles[2, step - 1] - quantiles[0, step - 1]
                given = quantiles[:, step - 1] + offsets[:, step - 1] * width
                moves[origin, step] = np.array(levels) - (truth[origin + step] <= given)
    assert moves
    last = quantiles_by_hand(newest, rows, 39)
    wanted = np.sort(last + offsets * (last[2] - last[0]), 0) * scale.std[0] + scale.mean[0]
    for level, own in zip(("q10", "q50", "q90"), wanted, strict=True):
        assert frame[level].to_numpy() == pytest.approx(own, rel=1e-5)


def test_quantiles_follow_the_size_of_errors_with_all_that_is_known_ahead_of_each_origin(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks.forecast.outlook, "FEWEST", 1)
    rows = full_rows(40, 10.0)
    bundle = calibrated(bundle_of(FULL, {"a": rows[:30]}), held_out=16)
    about = bundle.description
    following = Following(offsets=about.calibration.offsets, usual=(0.02, 0.03, 0.04), half_life=5)
    calibration = about.calibration.model_copy(update={"following": following})
    bundle = replace(bundle, description=about.model_copy(update={"calibration": calibration}))
    frame, _ = forecast(tmp_path, bundle, {"a": rows})  # from row 36 on nothing but f and size is known

    scale = about.scaler.of("a")
    every = Calendar(frequency="h", timezone="+02:00").insert(rows, np.arange(40) * HOUR, FULL)
    scaled = torch.from_numpy(((every - scale.mean) / scale.std).astype(np.float32))
    around, truth = [], []
    for origin in range(13, 37):
        past, future = scaled[None, origin - 5 : origin + 1], scaled[None, origin + 1 : origin + 4, 2:]
        around.append(bundle.quantiles(past, future, bundle.forecast(past, future))[0])
        truth.append([scaled[origin + step, 0] if origin + step <= 36 else np.nan for step in (1, 2, 3)])
    moved = calibration.rolled(1).follow(np.array(around), np.array(truth))[-1] * scale.std[0] + scale.mean[0]
    for at, level in enumerate(("q10", "q50", "q90")):
        assert frame[level].to_numpy() == pytest.approx(moved[:, at], rel=1e-4)


@pytest.mark.parametrize("rolling", [False, True])
def test_without_rows_since_training_quantiles_are_as_validation_left_them(tmp_path, rolling):
    rows = noise(30)
    bundle = calibrated(bundle_of(Columns(), {"a": rows}), held_out=2 if rolling else 20, rolling=rolling)
    frame, _ = forecast(tmp_path, bundle, {"a": rows})
    last, offsets = quantiles_by_hand(bundle, rows, 29), np.array(bundle.description.calibration.offsets).T
    scale = bundle.description.scaler.of("a")
    wanted = np.sort(last + offsets * (last[2] - last[0]), 0) * scale.std[0] + scale.mean[0]
    assert np.stack([frame[name] for name in ("q10", "q50", "q90")]) == pytest.approx(wanted, rel=1e-5)


def test_so_many_series_that_few_origins_are_left_for_each_follow_none(monkeypatch):
    looking = outlook(calibrated(bundle_of(Columns(), {"a": noise(30)}), held_out=3))
    monkeypatch.setattr(tasks.forecast.outlook, "FORECAST_AGAIN", 1000)
    assert [looking.origins_followed(count) for count in (1, 10, 31, 32, 1000)] == [512, 100, 32, 0, 0]


def test_the_series_of_all_shards_share_the_windows_that_are_forecast_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks.forecast.outlook, "FORECAST_AGAIN", 4 * FEWEST)
    rows, store = {name: noise(40) for name in "ab"}, Store(tmp_path)
    bundle, shard = calibrated(bundle_of(Columns(), rows), held_out=16), write_shard(store, Columns(), rows)
    for times, followed in ((1, 2 * FEWEST), (2, FEWEST), (3, 0)):
        looking = outlook(bundle)
        assert len(looking.forecast_shards(store, times * [shard])) == times
        assert looking.followed == followed


def test_the_column_of_a_level_is_its_percentage():
    assert [quantile_name(level) for level in (0.025, 0.1, 0.5, 0.975, 0.999)] == ["q2_5", "q10", "q50", "q97_5", "q99_9"]


def published(rows=2, **columns):
    stamps = pd.date_range("2024-01-01", periods=rows, freq="h", tz="UTC")
    frame = pd.DataFrame({"series_id": "a", "origin": stamps[0], "step": range(1, rows + 1), "timestamp": stamps})
    facts = {"forecast": 1.0, "new_series": False, "model_digest": "d", "run_id": "r", "created_at": stamps[0]}
    return frame.assign(**facts, **columns)


def test_a_table_takes_in_other_levels_than_it_began_with(tmp_path):
    uri = str(tmp_path / "table")
    publish(uri, published(model="without"))
    publish(uri, published(model="first", q10=0.5, q90=1.5))
    publish(uri, published(model="second", q2_5=0.25, q90=1.75))
    publish(uri, published(model="first", q10=0.6, q90=1.6))
    table = DeltaTable(uri).to_pandas().set_index("model")
    assert len(table) == 6
    assert table.loc["first", ["q10", "q90"]].drop_duplicates().to_numpy().tolist() == [[0.6, 1.6]]
    assert table.loc["second", ["q2_5", "q90"]].drop_duplicates().to_numpy().tolist() == [[0.25, 1.75]]
    assert table.loc["without", ["q2_5", "q10", "q90"]].isna().all(axis=None)
    assert table.loc["second", "q10"].isna().all()
