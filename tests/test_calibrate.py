"""A trained model is given quantiles that hold, on a shard made by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from shards import scaler_of, window_set

import tasks.seeds
from models.bundle import FORMAT, Bundle, Description, Member, dump_bundle, load_bundle
from models.errors import Fault
from models.networks import build_network
from models.series import Columns, SeriesFacts
from models.specs import FitSpec, QuantileSpec, ResidualSpec
from models.windows import FoldSpec, WindowSpec
from tasks.backtest import Backtest, Forecaster
from tasks.calibrate import forecast_fold, with_quantiles
from tasks.choose import forecast_validation
from tasks.judge import compared
from tasks.seeds import fit_seeds
from tasks.validate import run_backtests
from tasks.windows.task import Windows

CUT, FOLDS = WindowSpec(lookback=8, horizon=3), FoldSpec(validation=300, test=400)
LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)


def waves(length=2000, seed=0, drift=0.0):
    rng, at = np.random.default_rng(seed), np.arange(length)
    wild = 1 + drift * np.maximum(0, at - length + FOLDS.test) / FOLDS.test
    return (10 + 3 * np.sin(at / 5) + rng.normal(0, 0.5, length) * wild)[:, None]


def untrained(folder, columns=None, rows=None):
    """Windows of one series, and a model of them that repeats the last value."""
    columns = columns or Columns()
    rows = rows or {"a": waves()}
    cut = window_set(folder, columns, rows, CUT, FOLDS, season=2, scaler=scaler_of(columns, rows, FOLDS))
    spec = ResidualSpec(channels=4)
    about = Description(
        format=FORMAT, members=(Member(network=spec, seeds=(0,)),), windows=CUT, scaler=cut.scaler, trained_on="0" * 64,
        series=SeriesFacts(target="y", columns=columns, frequency="h", season=1, timezone="UTC"), calibration=None, versions={},
    )  # fmt: skip
    torch.manual_seed(0)
    return cut, Bundle(about, [[build_network(spec, columns, CUT, 1, len(rows)).state_dict()]])


def backtest(cut, bundle):
    return opened(cut, bundle).run({"worst": 1.0})


def about_windows(cut):
    return Windows(
        step="materialise_windows", key="k", digest="d", windows=CUT, columns=cut.columns, frequency="h", timezone="UTC",
        num_series=1, num_windows=1,
    )  # fmt: skip


def opened(cut, bundle, fold="test", before=None):
    return Backtest(cut, fold, about_windows(cut), bundle, before)


def test_calibrated_intervals_cover_what_they_say_on_the_test_fold(tmp_path):
    cut, bundle = untrained(tmp_path)
    sure = with_quantiles(bundle, cut, QuantileSpec(levels=LEVELS), FOLDS)
    result = backtest(cut, sure)
    for name, nominal in (("80", 0.8), ("95", 0.95)):
        assert result["detail"]["intervals"][name]["coverage"] == pytest.approx(nominal, abs=0.04)
    (example,) = result["detail"]["examples"]
    for low, high in example["intervals"].values():
        assert (np.array(low) <= example["forecast"]).all()
        assert (example["forecast"] <= np.array(high)).all()


def made(folder):
    folder.mkdir()
    return folder


def launched(length=2000):
    """A product that is not sold before the rows to train on end, then two hundred times a step."""
    return np.where(np.arange(length) < length - FOLDS.validation - FOLDS.test, 0.0, 200.0 + waves(length, 1)[:, 0])[:, None]


def test_a_series_that_never_changed_in_training_tells_nothing_of_how_sure_others_are(tmp_path):
    cut, bundle = untrained(made(tmp_path / "both"), rows={"a": waves(), "b": launched()})
    alone, plain = untrained(made(tmp_path / "alone"))
    assert cut.count("validation") == 2 * alone.count("validation")  # it is forecast and scored as others are
    both, one = (with_quantiles(*given, QuantileSpec(levels=LEVELS), FOLDS) for given in ((bundle, cut), (plain, alone)))
    assert both.description.calibration == one.description.calibration
    assert [{cut.series_id for cut in cut.telling(fold).cuts} for fold in ("train", "validation")] == [{"a"}, {"a"}]


def test_forms_are_compared_by_what_stops_at_0(tmp_path):
    calls = np.maximum(waves() - 10, 0)  # half of the time none
    cut, bundle = untrained(tmp_path, rows={"a": calls})
    torch.manual_seed(1)
    noisy = replace(bundle, weights=[[{name: one + 0.3 * torch.randn_like(one) for name, one in bundle.weights[0][0].items()}]])
    each, target, floors, _ = forecast_validation([bundle, noisy], cut)
    assert (each[1] < floors).any()  # the mean of forms is what stops, not each of them
    assert np.unique(floors) == target.min()
    error, _ = compared([noisy, bundle], cut, "mae")
    assert error == pytest.approx(np.abs(np.maximum(each[1], floors) - target).mean(), rel=1e-6)
    assert error < np.abs(each[1] - target).mean()


def test_intervals_are_scored_as_they_stop_at_0(tmp_path, monkeypatch):
    cut, bundle = untrained(tmp_path, rows={"a": np.maximum(waves() - 10, 0)})
    sure = with_quantiles(bundle, cut, QuantileSpec(levels=LEVELS), FOLDS)
    stopped = backtest(cut, sure)["detail"]["intervals"]
    monkeypatch.setattr(Forecaster, "floors_of", lambda forecaster, asked: np.full(len(asked.rows), -np.inf))
    free = backtest(cut, sure)["detail"]["intervals"]
    for name in ("80", "95"):
        assert stopped[name]["width"] < free[name]["width"]
        assert stopped[name]["coverage"] >= free[name]["coverage"]


def test_a_series_that_never_changed_in_training_judges_no_network(tmp_path, monkeypatch):
    cut, bundle = untrained(made(tmp_path / "both"), rows={"a": waves(), "b": launched()})
    alone, plain = untrained(made(tmp_path / "alone"))
    assert np.array_equal(forecast_validation([bundle], cut)[1], forecast_validation([plain], alone)[1])
    judged = []
    monkeypatch.setattr(tasks.seeds, "fit", lambda build, training, validation, *_, **__: judged.append(validation))
    fit_seeds(cut, bundle.description.series, ResidualSpec(channels=4), FitSpec(epochs=1, batch_size=8), tmp_path)
    assert judged[0].num_windows == alone.fold("validation").num_windows


def test_where_no_series_changed_in_training_all_of_them_tell(tmp_path):
    cut, _ = untrained(tmp_path, rows={"b": launched()})
    assert cut.telling("validation").num_windows == cut.fold("validation").num_windows != []


def test_the_forecast_itself_stays_as_it_was(tmp_path):
    cut, bundle = untrained(tmp_path)
    sure = with_quantiles(bundle, cut, QuantileSpec(levels=LEVELS), FOLDS)
    plain, scored = (backtest(cut, one)["scores"] for one in (bundle, sure))
    for steps, own in plain.items():
        assert {name: scored[steps][name] for name in ("mae", "rmse", "mase")} == {
            name: own[name] for name in ("mae", "rmse", "mase")
        }
        assert own["crps"] is None
        assert 0.4 * own["mae"] < scored[steps]["crps"] < own["mae"]


def test_rolling_intervals_cover_nearer_to_what_they_say_than_fixed_ones_where_the_test_fold_drifts(tmp_path):
    cut, bundle = untrained(tmp_path, rows={"a": waves(drift=8.0)})
    covered = {}
    for rolling in (False, True):
        sure = with_quantiles(bundle, cut, QuantileSpec(levels=LEVELS, rolling=rolling), FOLDS)
        covered[rolling] = backtest(cut, sure)["detail"]["intervals"]["80"]["coverage"]
    assert abs(covered[True] - 0.8) < abs(covered[False] - 0.8)


def test_the_intervals_that_are_drawn_are_those_that_were_scored(tmp_path, monkeypatch):
    cut, bundle = untrained(tmp_path, rows={"a": waves(drift=8.0)})
    fold, scored = opened(cut, with_quantiles(bundle, cut, QuantileSpec(levels=LEVELS), FOLDS)), []
    monkeypatch.setattr(fold.sureness.errors, "add", lambda quantiles, *_: scored.append(quantiles))
    (example,) = fold.run({"worst": 1.0})["detail"]["examples"]
    low, high = example["intervals"]["80"]
    matches = np.isclose(np.concatenate(scored)[:, :, [1, 3]], np.stack([low, high], 1), atol=1e-6).all((1, 2))
    assert matches.sum() == 1
    assert np.flatnonzero(matches)[0] > 200  # where the series is wild, and what validation left would be too narrow


def test_each_series_rolls_for_itself_whatever_lies_beside_it(tmp_path):
    alone, others = tmp_path / "alone", tmp_path / "others"
    alone.mkdir()
    others.mkdir()
    calm, wild = waves(), waves(seed=1, drift=5.0)
    cut, bundle = untrained(others, rows={"a": wild, "b": calm, "c": wild})
    sure = with_quantiles(bundle, cut, QuantileSpec(levels=LEVELS), FOLDS)
    together = backtest(cut, sure)["detail"]["intervals"]["80"]["coverage_by_step"]
    one_by_one = []
    for name, own in (("a", wild), ("b", calm), ("c", wild)):
        folder = alone / name
        folder.mkdir()
        single = window_set(folder, cut.columns, {name: own}, CUT, FOLDS, season=2, scaler=cut.scaler.only([name]))
        one_by_one.append(backtest(single, sure)["detail"]["intervals"]["80"]["coverage_by_step"])
    assert together == pytest.approx(np.mean(one_by_one, 0))


def test_the_test_fold_goes_on_where_validation_has_left_the_quantiles_of_each_series(tmp_path):
    rows = {"a": waves(), "b": waves(seed=1)}
    rows["b"][-FOLDS.test - FOLDS.validation :] += np.random.default_rng(2).normal(0, 4, (FOLDS.test + FOLDS.validation, 1))
    cut, bundle = untrained(tmp_path, rows=rows)
    sure = with_quantiles(bundle, cut, QuantileSpec(levels=LEVELS), FOLDS)
    found, validation = run_backtests(cut, about_windows(cut), sure), opened(cut, sure, "validation")
    assert found["validation"] == validation.run({})
    left = validation.settled()
    assert sorted(left) == ["a", "b"]
    assert left["a"].size < left["b"].size
    picks = {"good": 0.1, "median": 0.5, "worst": 1.0}
    assert found["test"] == opened(cut, sure, before=left).run(picks)
    afresh = opened(cut, sure).run(picks)
    assert found["test"]["scores"]["1"]["mae"] == afresh["scores"]["1"]["mae"]
    assert found["test"]["detail"]["intervals"] != afresh["detail"]["intervals"]
    for one, other in zip(found["test"]["detail"]["examples"], afresh["detail"]["examples"], strict=True):
        assert one["stamps"] == other["stamps"]
        assert one["intervals"] != other["intervals"]
    only_a = {name: own for name, own in left.items() if name == "a"}
    assert found["test"]["detail"]["intervals"] != opened(cut, sure, before=only_a).run({})["detail"]["intervals"]


def test_the_same_model_is_calibrated_to_the_same_bytes(tmp_path):
    cut, bundle = untrained(tmp_path)
    first, second = (dump_bundle(with_quantiles(bundle, cut, QuantileSpec(), FOLDS)) for _ in "ab")
    assert first == second


def test_a_calibrated_bundle_forecasts_the_same_quantiles_once_read_back(tmp_path):
    cut, bundle = untrained(tmp_path)
    sure = with_quantiles(bundle, cut, QuantileSpec(levels=LEVELS), FOLDS)
    again = load_bundle(*dump_bundle(sure).values())
    seen = forecast_fold(again, cut, "test", 8, 50)
    past, future = seen.target[:, :, None], seen.future
    quantiles = again.quantiles(past, future, again.forecast(past, future))
    assert quantiles.shape == (len(seen), 3, len(LEVELS))
    assert np.array_equal(quantiles, sure.quantiles(past, future, sure.forecast(past, future)))
    assert again.description.calibration == sure.description.calibration


def test_quantiles_in_one_file_only_are_refused(tmp_path):
    cut, bundle = untrained(tmp_path)
    sure = dump_bundle(with_quantiles(bundle, cut, QuantileSpec(levels=LEVELS), FOLDS))
    plain = dump_bundle(bundle)
    for weights, description in ((plain, sure), (sure, plain)):
        with pytest.raises(Fault, match=r"quantiles in one of its two files only. Train again.$"):
            load_bundle(weights["weights.safetensors"], description["bundle.json"])


def test_masked_steps_are_left_out_of_the_calibration(tmp_path):
    rows = np.column_stack([waves(), np.ones(2000)])
    rows[1400, 1] = 0
    cut, bundle = untrained(tmp_path, Columns(masked=True), {"a": rows})
    seen = forecast_fold(bundle, cut, "validation", 8, 10_000)
    holes = seen.truth.isnan().nonzero().tolist()
    assert holes == [[1400 - 1300 - step, step] for step in (2, 1, 0)]  # three windows ask for it
    sure = with_quantiles(bundle, cut, QuantileSpec(levels=LEVELS), FOLDS)
    assert np.isfinite(sure.description.calibration.offsets).all()


def test_so_many_windows_of_a_fold_are_looked_at_at_most(tmp_path):
    cut, bundle = untrained(tmp_path)
    seen = forecast_fold(bundle, cut, "train", 5, 100)
    assert 100 <= len(seen) < 200
    assert seen.target.shape[1] == 5
