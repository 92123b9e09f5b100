import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import write_shard

from models.errors import Fault
from models.scaling import HALF_ROOT, Moments, NaiveError, Scaler, ScalingSpec, SeriesScale, fit_scale, merge_scales
from models.series import Columns
from models.windows import FoldSpec
from tasks.ingest.statics import Statics
from tasks.normalise import Normalised, Scales, read_scaler, scale_series
from tasks.storage import Store

STANDARD, RAW = ScalingSpec(), ScalingSpec(kind="none")


def fitted(*channels, season=1, spec=STANDARD):
    """The scale of training rows given channel by channel."""
    rows = np.array(channels, float).T
    columns = Columns(future=tuple("xyz"[: rows.shape[1] - 1]))
    return fit_scale([rows], columns, season, len(rows), len(rows), spec)


def scaler_of(scale):
    return Scaler(channels=("target", "x")[: len(scale.mean)], season=1, scaling=STANDARD, series={"store_12": scale})


def scales_of(tmp_path, columns, rows, folds, season=1, spec=STANDARD, cut=None, statics=None):
    store = Store(tmp_path)
    return scale_series(write_shard(store, columns, rows, cut=cut), columns, statics or Statics(), spec, folds, season, store)


def in_pieces(rows, sizes):
    """Rows in pieces of these sizes, over and over."""
    at = 0
    while at < len(rows):
        for size in sizes:
            yield rows[at : at + size]
            at += size


def test_a_scale_is_the_mean_and_population_deviation_of_each_channel():
    scale = fitted([1, 3, 1, 3], [10, 10, 20, 20])
    assert (scale.mean, scale.std) == ((2, 15), (1, 5))


def test_scaling_kind_none_changes_nothing():
    scale = fitted([1, 3, 1, 3], spec=RAW)
    assert (scale.mean, scale.std) == ((0,), (1,))
    assert scaler_of(scale).apply("store_12", np.array([[7.5]])).tolist() == [[7.5]]


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        (0.0, 4),
        (7.0, 4),
        (0.1, 3),  # three times 0.1, divided by 3, is not 0.1: the deviation of equal values comes out as 1e-17
        (0.1, 39),
        (1e9 / 3, 7),
    ],
)
def test_a_constant_covariate_keeps_a_deviation_of_one(value, steps):
    scale = fitted(np.arange(steps), np.full(steps, value))
    assert scale.std[1] == 1
    later = scaler_of(scale).apply("store_12", np.array([[0.0, value + 1]]))
    assert later[0, 1] == pytest.approx(1, rel=1e-6)


def test_scaled_training_rows_have_mean_zero_and_deviation_one():
    values = np.random.default_rng(0).normal(50, 9, size=(200, 2))
    scaled = scaler_of(fitted(*values.T)).apply("store_12", values)
    assert scaled.dtype == np.float32
    assert scaled.mean(0) == pytest.approx([0, 0], abs=1e-5)
    assert scaled.std(0) == pytest.approx([1, 1], abs=1e-5)


def test_a_forecast_in_float32_is_undone_in_double_precision():
    scale = fitted([1e6, 3e6])
    undone = scaler_of(scale).undo_target("store_12", np.float32([0.1]))
    assert undone[0] == float(np.float32(0.1)) * 1e6 + 2e6


def test_a_series_that_was_not_trained_on_is_named():
    with pytest.raises(Fault, match=r"^Series store_13 was not in the training data, which has store_12\. Train again"):
        scaler_of(fitted([1, 2])).of("store_13")


@pytest.mark.parametrize(
    ("target", "season", "error"),
    [
        ([1, 2, 4, 8], 1, (1 + 2 + 4) / 3),
        ([1, 2, 4, 8], 2, (3 + 6) / 2),
        ([1, 2, 4, 8], 4, (1 + 2 + 4) / 3),  # fewer steps than a season and one: the last value instead
        ([1, 5, 1, 5], 2, 0),  # repeats itself
    ],
)
def test_the_scale_of_mase_is_the_seasonal_naive_error_in_the_targets_unit(target, season, error):
    assert fitted(target, season=season).naive_mae == pytest.approx(error)


@settings(max_examples=100, deadline=None)
@given(
    offset=st.sampled_from([0.0, 1.0, -1e3, 1e6, -1e9]), spread=st.sampled_from([1e-3, 1.0, 1e4]),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5), length=st.integers(2, 300), seed=st.integers(0, 99),
)  # fmt: skip
def test_moments_of_rows_in_pieces_are_those_of_the_whole(offset, spread, sizes, length, seed):
    rows = offset + spread * np.random.default_rng(seed).normal(size=(length, 2))
    counted = np.random.default_rng(seed).random(length) < 0.8
    counted[:2] = True
    moments = Moments(2)
    for part, own in zip(in_pieces(rows, sizes), in_pieces(counted, sizes), strict=True):
        moments.add(part, own)
    tolerance = 1e-9 + 1e-15 * abs(offset) / spread * 100
    assert moments.count.tolist() == [counted.sum(), length]
    assert moments.mean == pytest.approx([rows[counted, 0].mean(), rows[:, 1].mean()], rel=1e-13, abs=1e-13 * spread)
    assert moments.std == pytest.approx([rows[counted, 0].std(), rows[:, 1].std()], rel=tolerance)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4), season=st.integers(1, 12), length=st.integers(1, 80),
    hidden=st.floats(0, 0.9), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_naive_error_of_rows_in_pieces_is_that_of_the_whole_and_skips_what_was_not_observed(
    sizes, season, length, hidden, seed
):
    rng = np.random.default_rng(seed)
    target = np.where(rng.random(length) < hidden, np.nan, rng.normal(size=length))
    error = NaiveError(season)
    for part in in_pieces(target, sizes):
        error.add(part)
    pairs = [abs(b - a) for a, b in zip(target[:-season], target[season:], strict=True) if not np.isnan(a + b)]
    assert error.mae == (pytest.approx(np.mean(pairs)) if pairs else None)


def test_only_observed_steps_shape_the_scale_of_the_target():
    columns = Columns(masked=True, past=("p",))
    rows = np.array([[1.0, 1, 10], [99, 0, 20], [3, 1, 30], [99, 0, 40], [5, 1, 50], [6, 1, 60]])
    scale = fit_scale([rows[:2], rows[2:]], columns, 1, 6, 9, STANDARD)
    target = np.array([1, 3, 5, 6])
    assert scale.mean == pytest.approx((target.mean(), 0, 35))
    assert scale.std == pytest.approx((target.std(), 1, rows[:, 2].std()))
    assert scale.naive_mae == 1  # from 5 to 6 alone
    assert (scale.steps, scale.constant) == (9, False)


def test_a_target_that_was_never_observed_in_training_has_a_plain_scale():
    scale = fit_scale([np.array([[7.0, 0], [7, 0], [7, 0]])], Columns(masked=True), 1, 3, 5, STANDARD)
    assert (scale.mean, scale.std, scale.naive_mae, scale.constant) == ((0, 0), (1, 1), None, True)


@pytest.mark.parametrize(("spec", "wave"), [(STANDARD, HALF_ROOT), (RAW, 1.0)])
def test_channels_of_the_calendar_have_a_fixed_scale_before_the_static_ones(spec, wave):
    columns = Columns(future=("f",), calendar=("hour",), holidays="AU", static=("size",))
    rows = np.array([[1.0, 10, 7], [3, 30, 7]])  # target, f, size
    scale = fit_scale([rows], columns, 1, 2, 4, spec)
    assert scale.mean == ((2, 20, 0, 0, 0, 7) if spec is STANDARD else (0, 0, 0, 0, 0, 7))
    assert scale.std == pytest.approx((1, 10, wave, wave, 1, 1) if spec is STANDARD else (1, 1, 1, 1, 1, 1))


@pytest.mark.parametrize(("spec", "mean", "std"), [(STANDARD, 20, 200**0.5 / 3**0.5), (RAW, 0, 1)])
def test_static_channels_are_scaled_across_all_series(spec, mean, std):
    columns = Columns(static=("size", "same"))
    sizes = {"a": 10.0, "b": 20.0, "c": 30.0}
    scales = {
        name: fit_scale(
            [np.array([[1.0, size, 0.1], [3, size, 0.1], [2, size, 0.1]][: 2 + (name == "b")])], columns, 1, 2, 4, spec
        )
        for name, size in sizes.items()
    }
    merged = merge_scales([{"a": scales["a"], "c": scales["c"]}, {"b": scales["b"]}], columns, 1, spec)
    for scale in merged.series.values():
        assert scale.mean[1] == pytest.approx(mean)
        assert scale.std[1] == pytest.approx(std)
        assert scale.std[2] == 1  # the same everywhere, whatever the number of rows: rounding makes no spread
    assert merged.of("a").mean[0] == (2 if spec is STANDARD else 0)


def test_a_series_of_later_takes_the_static_scale_of_those_in_training():
    columns = Columns(static=("size",))
    parts = {
        name: fit_scale([np.array([[1.0, size], [3, size]])], columns, 1, 2, 4, STANDARD)
        for name, size in [("a", 10), ("b", 30)]
    }
    merged = merge_scales([parts], columns, 1, STANDARD)
    own = merged.adopted(fit_scale([np.array([[5.0, 99], [9, 99]])], columns, 1, 2, 2, STANDARD), 1)
    assert (own.mean, own.std) == ((7, 20), (2, 10))


def test_only_training_rows_shape_the_scaler(tmp_path):
    columns, folds = Columns(future=("x",)), FoldSpec(validation=2, test=2)
    rows = np.array([(step % 3, step) for step in range(10)], float)
    wild = np.concatenate([rows[:6], np.full((4, 2), 1e6) * np.arange(4)[:, None]])
    scales = [scales_of(tmp_path / str(at), columns, {"a": own}, folds) for at, own in enumerate((rows, wild))]
    assert scales[0] == scales[1]
    assert scales[0].series["a"].mean == (1, 2.5)
    assert scales[0].series["a"].naive_mae == pytest.approx((1 + 1 + 2 + 1 + 1) / 5)


@pytest.mark.parametrize("cut", [None, 4, 7])
def test_every_series_is_scaled_by_itself_however_it_is_stored(tmp_path, cut):
    rows = {"a": np.array([[1.0], [3]] * 10), "b": np.array([[100.0], [500]] * 3)}
    scales = scales_of(tmp_path, Columns(), rows, FoldSpec(validation=1, test=1), cut=cut)
    assert {name: (one.mean, one.std, one.steps) for name, one in scales.series.items()} == {
        "a": ((2,), (1,), 20),
        "b": ((300,), (200,), 6),
    }


def test_rows_after_the_last_target_are_left_out_and_do_not_count(tmp_path):
    columns, folds = Columns(future=("x",)), FoldSpec(validation=1, test=1)
    rows = np.array([(1, 1), (3, 3), (1, 1), (3, 3), (9, 9), (8, 8)], float)
    longer = np.concatenate([rows, [(np.nan, 5), (np.nan, np.nan)]])
    one, other = (scales_of(tmp_path / str(at), columns, {"a": own}, folds) for at, own in enumerate((rows, longer)))
    assert one == other
    assert one.series["a"].mean == (2, 2)
    assert one.series["a"].steps == 6


def test_a_second_file_gives_its_static_channels_to_every_series(tmp_path):
    columns, statics = Columns(static=("kind=x",)), Statics(channels=("kind=x",), values={"a": (1.0,), "b": (0.0,)})
    rows = {"a": np.arange(6.0), "b": np.arange(6.0)}
    scales = scales_of(tmp_path, columns, rows, FoldSpec(validation=1, test=1), statics=statics)
    assert [scales.series[name].mean[1] for name in "ab"] == [1, 0]


def stored(tmp_path, *parts):
    store, receipts = Store(tmp_path), []
    for number, part in enumerate(parts):
        folder = store.folder("normalise", str(number))
        folder.mkdir(parents=True)
        (folder / "scales.json").write_text(part.model_dump_json())
        facts = {"shard": number, "season": 1, "scaling": STANDARD, "num_series": len(part.series)}
        receipts.append(Normalised(step="normalise", key=str(number), digest="d", **facts))
    return read_scaler(receipts, Columns(), store)


def scale_with(constant):
    return SeriesScale(mean=(4.5,), std=(1,), naive_mae=0, steps=9, constant=constant)


def test_series_without_steps_to_train_on_are_set_aside_by_name(tmp_path):
    rows = {"a": np.arange(9.0), "b": np.arange(5.0)}
    scales = scales_of(tmp_path, Columns(), rows, FoldSpec(validation=2, test=2))
    assert (list(scales.series), scales.too_short) == (["a"], {"b": 5})
    scaler, too_short = stored(tmp_path, scales, Scales(series={}, too_short={"c": 1}))
    assert (list(scaler.series), too_short) == (["a"], {"b": 5, "c": 1})


def test_a_source_without_any_steps_to_train_on_is_refused(tmp_path):
    with pytest.raises(
        Fault, match=r"^No series has steps to train on: folds leave none of the 5 steps of b, the longest of 2 series\."
    ):
        stored(tmp_path, Scales(series={}, too_short={"a": 2, "b": 5}))


def test_a_target_that_is_constant_in_every_series_is_refused_by_name(tmp_path):
    parts = [
        Scales(series={"store_12": scale_with(True)}, too_short={}),
        Scales(series={"store_13": scale_with(True)}, too_short={}),
    ]
    with pytest.raises(Fault, match=r"^store_12, store_13: the target is constant over the training steps"):
        stored(tmp_path, *parts)


def test_one_constant_series_among_others_goes_along(tmp_path):
    scaler, _ = stored(tmp_path, Scales(series={"a": scale_with(True), "b": scale_with(False)}, too_short={}))
    assert sorted(scaler.series) == ["a", "b"]
