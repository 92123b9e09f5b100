"""What is done about repeated, absent and empty rows, by the setting that says so."""

import itertools

import pytest
from canonical_rows import NAN, hours, make, micros, rows_of

INF = float("inf")


@pytest.mark.parametrize(
    ("duplicates", "kept"),
    [("first", [1, 2, 8]), ("last", [1, 6, 8]), ("mean", [1, 4, 8])],
)
def test_repeated_stamps_are_settled_as_the_source_says_and_counted(tmp_path, duplicates, kept):
    made = make(tmp_path, rows_of(hours(0, 1, 1, 1, 2), [1, 2, 4, 6, 8]), duplicates=duplicates)
    assert made.column() == kept
    assert made.repairs == {"repeated stamps": 2}


def test_repeated_stamps_may_be_dropped_altogether(tmp_path):
    made = make(tmp_path, rows_of(hours(0, 1, 1, 2), [1, 2, 4, 3]), duplicates="drop", gaps="mask")
    assert made.column() == [1, 1, 3]
    assert made.column("observed") == [1, 0, 1]
    assert made.repairs == {"absent rows masked": 1, "repeated stamps": 1}


def test_repeated_stamps_are_refused_by_default(tmp_path):
    made = make(tmp_path, rows_of(hours(0, 1, 1, 2, 2, 2)))
    assert made.faults["duplicates"] == (
        "repeats 2024-01-01T01:00:00+00:00 (3 repeated stamps in all). Remove the rows or set source.duplicates='first', "
        "'last', 'mean' or 'drop'."
    )
    assert made.receipt.num_faults == 1


def test_a_mean_is_over_the_values_there_are_and_leaves_single_rows_their_bits(tmp_path):
    rows = rows_of(hours(0, 1, 1, 2, 2), [0.1 + 0.2, 1, NAN, 5, 7], p=[1e-320, NAN, NAN, 0.1, 0.1])
    made = make(tmp_path, rows, duplicates="mean", missing="mask", past_covariates=["p"])
    assert made.column() == [0.30000000000000004, 1, 6]
    assert made.column("p") == [1e-320, 1e-320, 0.1]


def test_infinities_do_not_cancel_in_a_mean(tmp_path):
    made = make(tmp_path, rows_of(hours(0, 1, 1), [0, INF, -INF]), duplicates="mean", missing="mask")
    assert list(made.faults) == ["wild y"]


def test_rows_of_one_stamp_stay_in_the_order_of_the_source(tmp_path):
    first, second = rows_of(hours(0, 1), [1, 2]), rows_of(hours(1, 2), [9, 3])
    assert make(tmp_path / "a", first, second, duplicates="first").column() == [1, 2, 3]
    assert make(tmp_path / "b", first, second, duplicates="last").column() == [1, 9, 3]


def test_an_absent_row_is_refused_by_default_with_where_and_how_many(tmp_path):
    made = make(tmp_path, rows_of(hours(0, 1, 2, 5, 6, 8)))
    assert made.faults == {
        "gap": "has a gap: no row at 2024-01-01T03:00:00+00:00 (3 absent rows in all, at a step of h). Add what is absent or "
        "set source.gaps='mask', 'interpolate' or 'drop'."
    }
    assert made.index["faults"][0]["count"] == 3


def test_absent_rows_are_interpolated_in_every_column_and_counted(tmp_path):
    rows = rows_of(hours(0, 1, 4, 5), [0, 1, 4, 10], f=[0, 10, 40, 50], p=[5, 5, 8, 8])
    made = make(tmp_path, rows, gaps="interpolate", past_covariates=["p"], future_covariates=["f"])
    assert made.column() == [0, 1, 2, 3, 4, 10]
    assert made.column("f") == [0, 10, 20, 30, 40, 50]
    assert made.column("p") == [5, 5, 6, 7, 8, 8]
    assert made.repairs == {"rows inserted for gaps": 2}
    assert made.stamps() == hours(*range(6)).tolist()


def test_what_lies_before_the_last_gap_may_be_dropped(tmp_path):
    made = make(tmp_path, rows_of(hours(0, 1, 3, 4, 7, 8)), gaps="drop")
    assert (made.column(), made.stamps()) == ([4, 5], hours(7, 8).tolist())
    assert made.repairs == {"rows before the last gap dropped": 4}


def test_filling_gaps_does_not_fill_empty_values(tmp_path):
    made = make(tmp_path, rows_of(hours(0, 1, 2, 4, 5), [0, NAN, 2, 4, 5]), gaps="interpolate")
    assert list(made.faults) == ["missing y"]
    assert made.faults["missing y"].startswith("column 'y': no value at 2024-01-01T01:00:00+00:00. Fill them or set")


@pytest.mark.parametrize("column", ["y", "f", "p"])
def test_an_empty_value_is_refused_with_where_and_how_many(tmp_path, column):
    columns = {"y": [0.0, 1, 2, 3, 4, 5], "f": [0.0] * 6, "p": [0.0] * 6}
    columns[column][2] = columns[column][3] = NAN
    rows = rows_of(hours(*range(6)), columns.pop("y"), **columns)
    made = make(tmp_path, rows, future_covariates=["f"], past_covariates=["p"])
    assert made.faults == {
        f"missing {column}": f"column '{column}': no value at 2024-01-01T02:00:00+00:00 (2 in all). Fill them or set "
        "source.missing='interpolate', 'mask' or 'drop'."
    }


def test_empty_values_are_interpolated_where_the_source_allows_it_and_counted(tmp_path):
    rows = rows_of(hours(*range(5)), [0, NAN, NAN, 3, 4], f=[0, 2, NAN, 6, 8])
    made = make(tmp_path, rows, missing="interpolate", future_covariates=["f"])
    assert (made.column(), made.column("f")) == ([0, 1, 2, 3, 4], [0, 2, 4, 6, 8])
    assert made.repairs == {"values filled": 3}


@pytest.mark.parametrize(("values", "where"), [([NAN, 1, 2], "before"), ([1, 2, 3], "after")])
def test_an_empty_value_without_one_on_each_side_is_not_made_up(tmp_path, values, where):
    rows = rows_of(hours(0, 1, 2), values, f=[0, 1, 2] if where == "before" else [0, 1, NAN])
    made = make(tmp_path, rows, missing="interpolate", future_covariates=["f"])
    ((said),) = made.faults.values()
    assert f"and none {where} to draw a line from. Fill" in said


def test_a_hole_longer_than_the_limit_is_refused_whole(tmp_path):
    rows = rows_of(hours(0, 1, 2, 4, 5, 7), [0, NAN, 2, NAN, NAN, 7])
    made = make(tmp_path, rows, missing="interpolate", gaps="interpolate", interpolate_limit=3)
    assert made.faults == {
        "long hole in y": "column 'y': the hole from 2024-01-01T03:00:00+00:00 is longer than source.interpolate_limit 3 (4 "
        "such values). Set a higher limit, or 'mask'."
    }
    assert make(tmp_path, rows, missing="interpolate", gaps="interpolate", interpolate_limit=4, key="b").faults == {}


def test_masked_steps_take_the_last_true_value_and_are_not_observed(tmp_path):
    rows = rows_of(hours(0, 1, 2, 5, 6), [1, NAN, 3, 9, 7], p=[5, 6, NAN, NAN, 8])
    made = make(tmp_path, rows, gaps="mask", missing="mask", past_covariates=["p"])
    assert made.column() == [1, 1, 3, 3, 3, 9, 7]
    assert made.column("p") == [5, 6, 6, 6, 6, 6, 8]
    assert made.column("observed") == [1, 0, 1, 0, 0, 1, 1]  # a filled covariate is not what is forecast
    assert made.repairs == {"absent rows masked": 2, "empty values of p masked": 2, "steps masked": 1}


def test_a_mask_never_looks_ahead(tmp_path):
    def masked(later):
        rows = rows_of(hours(0, 1, 2, 4), [1, NAN, NAN, later])
        return make(tmp_path / str(later), rows, gaps="mask", missing="mask").column()[:4]

    assert masked(5) == masked(500) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("gaps", "missing", "values", "observed"),
    [
        # hours 1 (empty), 2 (absent), 3 (empty) lie between 0 and 8
        ("interpolate", "mask", [0, 0, 4, 0, 8], [1, 0, 1, 0, 1]),
        ("mask", "interpolate", [0, 2, 0, 6, 8], [1, 1, 0, 1, 1]),
        ("mask", "mask", [0, 0, 0, 0, 8], [1, 0, 0, 0, 1]),
        ("mask", "drop", [0, 0, 0, 0, 8], [1, 0, 0, 0, 1]),
    ],
)
def test_a_hole_of_absent_and_empty_rows_goes_by_both_settings(tmp_path, gaps, missing, values, observed):
    made = make(tmp_path, rows_of(hours(0, 1, 3, 4), [0, NAN, NAN, 8]), gaps=gaps, missing=missing)
    assert (made.column(), made.column("observed")) == (values, observed)


def test_rows_with_empty_values_may_be_dropped_and_leave_gaps(tmp_path):
    rows = rows_of(hours(*range(5)), [0, 1, 2, 3, 4], f=[0, NAN, 2, 3, 4])
    made = make(tmp_path / "gap", rows, missing="drop", future_covariates=["f"])
    assert list(made.faults) == ["gap"]
    made = make(tmp_path / "drop", rows, missing="drop", gaps="drop", future_covariates=["f"])
    assert made.column() == [2, 3, 4]
    assert made.repairs == {"rows before the last gap dropped": 1, "rows with empty values dropped": 1}


def test_leading_rows_that_a_mask_can_not_fill_are_dropped(tmp_path):
    rows = rows_of(hours(*range(5)), [NAN, 1, 2, NAN, 4], p=[0, NAN, 2, 3, 4])
    made = make(tmp_path, rows, missing="mask", past_covariates=["p"])
    assert (made.column(), made.column("p")) == ([1, 2, 2, 4], [0, 2, 3, 4])
    assert made.repairs == {"empty values of p masked": 1, "rows before the first values dropped": 1, "steps masked": 1}


def test_a_series_of_wide_form_begins_with_its_first_value(tmp_path):
    rows = rows_of(hours(0, 1, 2, 3).tolist() * 2, [NAN, NAN, 2, 3, 0, 1, 2, NAN], series=list("aaaabbbb"))
    made = make(tmp_path, rows, wide=["a", "b"])
    assert (made.column(series="a"), made.stamps("a")) == ([2, 3], hours(2, 3).tolist())
    assert made.column(series="b") == [0, 1, 2, None]
    assert made.repairs == {}


@pytest.mark.parametrize("missing", ["error", "interpolate", "mask", "drop"])
def test_rows_after_the_last_target_are_kept_for_their_covariates(tmp_path, missing):
    rows = rows_of(hours(*range(6)), [0, 1, 2, 3, NAN, NAN], f=[0, 1, 2, 3, 4, NAN], p=[0, 1, 2, 3, NAN, NAN])
    made = make(tmp_path, rows, missing=missing, future_covariates=["f"], past_covariates=["p"])
    assert made.column() == [0, 1, 2, 3, None, None]
    assert made.column("f") == [0, 1, 2, 3, 4, None]
    assert made.column("p") == [0, 1, 2, 3, None, None]
    if missing == "mask":
        assert made.column("observed") == [1, 1, 1, 1, 0, 0]
    assert made.index["series"]["y"] == {"rows": 6, "steps": 4, "first": hours(0)[0], "last": hours(3)[0]}
    assert (made.receipt.steps, made.receipt.rows, made.receipt.last, made.repairs) == (4, 6, hours(3)[0], {})


def test_a_gap_among_the_rows_ahead_is_one(tmp_path):
    rows = rows_of(hours(0, 1, 2, 4), [0, 1, NAN, NAN], f=[0, 1, 2, 4])
    assert list(make(tmp_path / "a", rows, future_covariates=["f"]).faults) == ["gap"]
    made = make(tmp_path / "b", rows, future_covariates=["f"], gaps="mask")
    assert (made.column(), made.column("f")) == ([0, 1, None, None, None], [0, 1, 2, None, 4])


def test_a_series_without_any_target_is_refused(tmp_path):
    for missing, gaps in itertools.product(["error", "interpolate", "mask", "drop"], ["error", "drop", "mask"]):
        rows = rows_of(hours(0, 1, 2), [NAN] * 3, f=[1, 2, 3])
        made = make(tmp_path / missing / gaps, rows, missing=missing, gaps=gaps, future_covariates=["f"])
        assert made.faults == {"no target": "y has no value at all. Name another source.target or drop the series."}


@pytest.mark.parametrize(
    ("stamps", "values", "f", "settings"),
    [
        (hours(0, 1, 2), [1, 2, 3], [NAN] * 3, {"missing": "drop"}),  # no row is complete
        (hours(0, 1, 2), [1, 2, 3], [NAN] * 3, {"missing": "mask"}),  # no value that a mask could take
        (hours(0, 1, 4, 5), [1, 2, NAN, NAN], [1, 2, 3, 4], {"gaps": "drop"}),  # all targets before the gap
    ],
)
def test_a_series_never_goes_without_a_word(tmp_path, stamps, values, f, settings):
    made = make(tmp_path, rows_of(stamps, values, f=f), future_covariates=["f"], **settings)
    assert list(made.faults) == ["nothing left"]
    assert made.faults["nothing left"].startswith("has no target left once rows are dropped that lack a value or lie before")


@pytest.mark.parametrize(("value", "said"), [(INF, "inf"), (-INF, "-inf"), (3.5e38, "3.5e+38"), (-1e300, "-1e+300")])
@pytest.mark.parametrize("column", ["y", "f"])
def test_values_that_float32_can_not_hold_are_refused(tmp_path, value, said, column):
    columns = {"y": [0.0, 1, 2, 3, 4], "f": [0.0] * 5}
    columns[column][1] = columns[column][4] = value
    made = make(tmp_path, rows_of(hours(*range(5)), columns.pop("y"), **columns), future_covariates=["f"])
    assert made.faults == {
        f"wild {column}": f"column '{column}': {said} at 2024-01-01T01:00:00+00:00 is infinite or beyond float32 (2 such). "
        "Mend the values or leave the column out."
    }


def test_an_infinite_covariate_after_the_last_target_is_refused_too(tmp_path):
    made = make(tmp_path, rows_of(hours(0, 1, 2), [0, 1, NAN], f=[0, 1, INF]), future_covariates=["f"])
    assert made.faults["wild f"].startswith("column 'f': inf at 2024-01-01T02:00:00")


def test_a_static_covariate_that_changes_is_refused(tmp_path):
    rows = rows_of(hours(0, 1, 2, 3), s=[NAN, 7, 8, 7])
    made = make(tmp_path, rows, static_covariates=["s"], missing="mask")
    assert list(made.faults) == ["static s"]
    assert made.faults["static s"].startswith(
        "column 's' is 7 at first and 8 at 2024-01-01T02:00:00+00:00, but is named in source.static_covariates. Mend"
    )


def test_every_kind_of_fault_of_a_series_is_told_in_one_pass_and_others_go_on(tmp_path):
    bad = rows_of(hours(0, 1, 1, 2, 5, 6, 6), [0, 1, 1, INF, 5, 6, 6], series="bad")
    odd = rows_of(hours(0, 2), [0, 2], series="odd")
    good = rows_of(hours(0, 1, 2), series="good")
    made = make(tmp_path, bad, odd, good, frequency="h")
    found = [(one["series_id"], one["kind"], one["stamp"], one["count"]) for one in made.index["faults"]]
    assert found == [
        ("bad", "duplicates", hours(1)[0], 2),
        ("bad", "gap", hours(5)[0], 2),
        ("bad", "wild y", hours(2)[0], 1),
        ("odd", "gap", hours(2)[0], 1),
    ]
    assert (made.receipt.num_faults, made.receipt.num_series, list(made.index["series"])) == (2, 1, ["good"])
    assert made.column(series="good") == [0, 1, 2]
    assert list(made.read()) == ["good"]


def test_repairs_are_counted_series_by_series(tmp_path):
    a, b = rows_of(hours(0, 1, 1, 2), series="a"), rows_of(hours(0, 0, 1, 1, 3), series="b")
    made = make(tmp_path, a, b, duplicates="last", gaps="mask")
    assert made.index["repairs"] == [
        {"series_id": "a", "what": "repeated stamps", "count": 1},
        {"series_id": "b", "what": "absent rows masked", "count": 1},
        {"series_id": "b", "what": "repeated stamps", "count": 2},
    ]
    assert made.repairs == {"absent rows masked": 1, "repeated stamps": 3}


def test_a_stamp_of_a_far_year_is_a_fault_and_fills_no_memory(tmp_path):
    far = micros(["2999-01-01"]).tolist()
    rows = [rows_of(hours(*range(50)).tolist() + far, series=f"s{at}") for at in range(20)]
    made = make(tmp_path, *rows, rows_of(hours(0, 1), series="z"), gaps="mask")
    assert {fault["kind"] for fault in made.index["faults"]} == {"gap"}
    assert made.receipt.num_faults == 20
    assert made.index["faults"][0]["said"].startswith(
        "has 51 rows for 8546689 steps of h: 8546638 are absent before 2999-01-01T00"
    )
    assert made.column(series="z") == [0, 1]
