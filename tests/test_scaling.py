import math

import numpy as np
import pyarrow as pa
import pytest

from models.errors import Fault
from models.metrics import StepErrors, score
from models.naive import seasonal_naive
from models.scaling import Scaler, ScalingSpec, fit_scale
from models.windows import Columns, FoldSpec, SeriesFacts
from tasks.normalise import scale_series

STANDARD, RAW = ScalingSpec(), ScalingSpec(kind="none")


def fitted(*channels, season=1, spec=STANDARD):
    return fit_scale(np.array(channels, float).T, season, spec, "store_12", "sales")


def scaler_of(scale):
    return Scaler(channels=("target", "x")[: len(scale.mean)], season=1, series={"store_12": scale})


def make_canonical(columns, **series):
    """A canonical table; each series is a list of rows, None where a value is absent."""
    parts = []
    for series_id, rows in series.items():
        stamps = pa.array(np.arange(len(rows)) * 3_600_000_000).cast(pa.timestamp("us", "UTC"))
        channels = [pa.array([row[at] for row in rows], pa.float64()) for at in range(columns.num_channels)]
        ids = pa.repeat(pa.scalar(series_id), len(rows))
        parts.append(pa.table([ids, stamps, *channels], names=["series_id", "timestamp", *columns.names]))
    return pa.concat_tables(parts)


def facts_of(columns, season=1):
    return SeriesFacts(target="sales", columns=columns, frequency="h", season=season, timezone="UTC")


def test_a_scale_is_the_mean_and_population_deviation_of_each_channel():
    scale = fitted([1, 3, 1, 3], [10, 10, 20, 20])
    assert (scale.mean, scale.std) == ((2, 15), (1, 5))


def test_scaling_kind_none_changes_nothing():
    scale = fitted([1, 3, 1, 3], spec=RAW)
    assert (scale.mean, scale.std) == ((0,), (1,))
    assert scaler_of(scale).apply("store_12", np.array([[7.5]])).tolist() == [[7.5]]


@pytest.mark.parametrize("spec", [STANDARD, RAW])
def test_a_constant_target_is_refused_by_name(spec):
    with pytest.raises(Fault, match=r"^store_12: sales is constant \(4\.5\) over its 3 training steps.*Drop the series"):
        fitted([4.5, 4.5, 4.5], [1, 2, 3], spec=spec)


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


def test_scaling_is_undone_on_targets_of_any_shape():
    scaler = scaler_of(fitted([1e6, 3e6, 7e6]))
    values = np.array([[1.0, -2e6], [3.25e6, 0.125]])
    undone = scaler.undo_target("store_12", scaler.apply_target("store_12", values))
    assert undone == pytest.approx(values, rel=1e-12, abs=1e-6)
    assert undone.dtype == np.float64
    assert np.array_equal(
        scaler.apply("store_12", values[:, :1])[:, 0], scaler.apply_target("store_12", values[:, 0]).astype("f4")
    )


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


def test_only_training_rows_shape_the_scaler():
    columns = Columns(future=("x",))
    rows = [(float(step % 3), float(step)) for step in range(10)]
    wild = [*rows[:6], *[(1e6 * step, -1e6) for step in range(4)]]
    folds = FoldSpec(validation=2, test=2)
    _, scaler = scale_series(make_canonical(columns, a=rows), facts_of(columns), STANDARD, folds)
    _, other = scale_series(make_canonical(columns, a=wild), facts_of(columns), STANDARD, folds)
    assert scaler == other
    assert scaler.series["a"].mean == (1, 2.5)
    assert scaler.series["a"].naive_mae == pytest.approx((1 + 1 + 2 + 1 + 1) / 5)


def test_every_series_is_scaled_by_itself():
    table = make_canonical(Columns(), a=[(1.0,), (3.0,)] * 3, b=[(100.0,), (500.0,)] * 3)
    scaled, scaler = scale_series(table, facts_of(Columns()), STANDARD, FoldSpec(validation=1, test=1))
    assert scaled["target"].to_pylist() == [-1, 1] * 6
    assert (scaler.series["b"].mean, scaler.series["b"].std) == ((300,), (200,))
    assert scaled["series_id"].to_pylist() == ["a"] * 6 + ["b"] * 6


def test_rows_after_the_last_target_are_left_out_and_do_not_count():
    columns = Columns(future=("x",))
    rows = [(1.0, 1.0), (3.0, 3.0), (1.0, 1.0), (3.0, 3.0), (9.0, 9.0), (8.0, 8.0)]
    folds = FoldSpec(validation=1, test=1)
    scaled, scaler = scale_series(make_canonical(columns, a=rows), facts_of(columns), STANDARD, folds)
    longer = make_canonical(columns, a=[*rows, (None, 5.0), (None, None)])
    again, other = scale_series(longer, facts_of(columns), STANDARD, folds)
    assert again.equals(scaled)
    assert other == scaler
    assert scaler.series["a"].mean == (2, 2)


@pytest.mark.parametrize(
    ("past", "horizon", "season", "forecast"),
    [
        ([1, 2, 3, 4], 3, 1, [4, 4, 4]),
        ([1, 2, 3, 4], 2, 2, [3, 4]),
        ([1, 2, 3, 4], 5, 2, [3, 4, 3, 4, 3]),  # horizon beyond the season
        ([1, 2, 3, 4], 6, 4, [1, 2, 3, 4, 1, 2]),  # the whole past is one season
        ([1, 2, 3, 4], 2, 5, [4, 4]),  # the past is shorter than a season
        ([1, 2, 3, 4], 1, 3, [2]),
    ],
)
def test_seasonal_naive_repeats_the_last_whole_season(past, horizon, season, forecast):
    assert seasonal_naive(np.array([past]), horizon, season).tolist() == [forecast]


def test_seasonal_naive_keeps_forecasts_apart():
    assert seasonal_naive(np.array([[1, 2], [8, 9]]), 3, 2).tolist() == [[1, 2, 1], [8, 9, 8]]


def errors_of(naive_mae, *errors):
    one = StepErrors(len(errors[0]), naive_mae)
    one.add(np.array(errors, float))
    return one


def test_scores_are_those_worked_out_by_hand():
    first = errors_of(2.0, [1, -3], [0, 2])  # two forecasts of two steps
    second = errors_of(0.5, [4, 0])
    assert score([first, second], 2) == {
        "mae": pytest.approx((1 + 3 + 0 + 2 + 4 + 0) / 6),
        "rmse": pytest.approx(math.sqrt((1 + 9 + 0 + 4 + 16 + 0) / 6)),
        "mase": pytest.approx(((6 / 4) / 2.0 + (4 / 2) / 0.5) / 2),  # each series counts once, however many forecasts
    }
    assert score([first, second], 1) == {
        "mae": pytest.approx((1 + 0 + 4) / 3),
        "rmse": pytest.approx(math.sqrt((1 + 0 + 16) / 3)),
        "mase": pytest.approx(((1 / 2) / 2.0 + 4 / 0.5) / 2),
    }


def test_errors_added_piece_by_piece_score_as_those_added_at_once():
    pieces = StepErrors(2, 2.0)
    for piece in ([[1, -3]], [[0, 2], [5, 5]], np.zeros((0, 2))):
        pieces.add(np.array(piece, float))
    whole = errors_of(2.0, [1, -3], [0, 2], [5, 5])
    assert score([pieces], 2) == score([whole], 2)
    assert pieces.num_forecasts == 3


def test_mase_is_one_for_a_forecast_as_wrong_as_naive_is_in_training():
    assert score([errors_of(3.0, [3, -3], [-3, 3])], 2)["mase"] == 1


def test_mase_is_left_out_where_a_series_repeats_itself_exactly():
    scores = score([errors_of(0.0, [1, 1]), errors_of(2.0, [1, 1])], 2)
    assert scores == {"mae": 1, "rmse": 1, "mase": None}
