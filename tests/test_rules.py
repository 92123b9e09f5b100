"""Each rule names the series, the stamp and the value that break it, and counts the breaches exactly."""

import pytest
from canonical_rows import NAN, hours, make, rows_of


def broken(folder, rule, values, numbers=None, frequency="h", **changed):
    """Kind, what was said and how often, of the breaches of one rule for the target."""
    numbers = range(len(values)) if numbers is None else numbers
    made = make(folder, rows_of(hours(*numbers), values), rules={"y": rule}, frequency=frequency, **changed)
    return [(fault["kind"], fault["said"], fault["count"]) for fault in made.index["faults"]]


@pytest.mark.parametrize(
    ("rule", "values", "said", "count"),
    [
        ({"min": 0}, [0, -0.5, 1, -2],
         "column 'y': -0.5 at 2024-01-01T01:00:00+00:00 is below rules.y.min 0 (2 such values)", 2),
        ({"max": 3}, [3, 4, 1, 9], "column 'y': 4 at 2024-01-01T01:00:00+00:00 is above rules.y.max 3 (2 such values)", 2),
        ({"max_flat": 2}, [1, 1, 2, 5, 5, 5, 3, 3, 3, 3],
         "column 'y': 5 for 3 steps from 2024-01-01T03:00:00+00:00; rules.y.max_flat is 2 (2 such runs)", 2),
        ({"max_flat": 1}, [1, 2, 2], "column 'y': 2 for 2 steps from 2024-01-01T01:00:00+00:00; rules.y.max_flat is 1", 1),
        ({"max_jump": 2}, [0, 2, 5, 3, 0],
         "column 'y': from 2 to 5 at 2024-01-01T02:00:00+00:00; rules.y.max_jump is 2 (2 such jumps)", 2),
    ],
)  # fmt: skip
def test_values_that_break_a_rule_are_named_and_counted(tmp_path, rule, values, said, count):
    ((kind, found, times),) = broken(tmp_path, rule, values)
    assert kind == f"rule {next(iter(rule))} of y"
    assert found.startswith(said)
    assert times == count


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ({"min": 0, "max": 3}, [0, 3, 1, 2]),
        ({"max_flat": 2}, [1, 1, 2, 2]),
        ({"max_jump": 2}, [0, 2, 4, 2]),
        ({"max_gap": 2, "max_flat": 3}, [0, NAN, NAN, 0, 0]),
        ({"not_null": True, "max_gap": 0}, [0, 1, NAN, NAN]),  # after the last target nothing is amiss
    ],
)
def test_values_that_keep_to_a_rule_pass(tmp_path, rule, values):
    assert broken(tmp_path, rule, values, missing="mask") == []


def test_absent_and_empty_steps_make_one_run_for_max_gap(tmp_path):
    ((kind, said, count),) = broken(
        tmp_path, {"max_gap": 2}, [0, NAN, 3, 4, NAN, NAN, 9], [0, 1, 3, 4, 5, 6, 9], missing="mask", gaps="mask"
    )
    assert kind == "rule max_gap of y"
    assert said.startswith("column 'y': no value for 4 steps from 2024-01-01T05:00:00+00:00; rules.y.max_gap is 2. Fill")
    assert count == 1


def test_not_null_asks_for_every_step_whatever_is_repaired(tmp_path):
    ((kind, said, count),) = broken(tmp_path, {"not_null": True}, [0, NAN, 3, 4], [0, 1, 3, 4], missing="mask", gaps="mask")
    assert kind == "rule not_null of y"
    assert said.startswith("column 'y': no value at 2024-01-01T01:00:00+00:00, which rules.y.not_null asks for (2 such steps)")
    assert count == 2


def test_a_jump_across_an_absent_step_is_none(tmp_path):
    assert broken(tmp_path, {"max_jump": 1}, [0, 5], [0, 2], gaps="interpolate") == []


def test_rules_see_what_the_source_holds_and_not_what_was_filled_in(tmp_path):
    assert broken(tmp_path, {"max_flat": 2}, [1, NAN, NAN, NAN, 2], missing="mask") == []


def test_runs_and_jumps_end_with_their_series(tmp_path):
    rows = rows_of(hours(0, 1, 0, 1), [1, 1, 1, 90], series=list("aabb"))
    rule = {"max_flat": 2, "max_jump": 100, "max_gap": 0}
    assert make(tmp_path, rows, rules={"y": rule}).index["faults"] == []


def test_a_rule_of_a_covariate_names_its_column_and_series(tmp_path):
    rows = rows_of(hours(0, 1, 0, 1), [1, 2, 3, 4], series=list("aabb"), temp=[1, 2, 3, -60])
    made = make(tmp_path, rows, rules={"temp": {"min": -50}}, past_covariates=["temp"])
    ((fault),) = made.index["faults"]
    assert (fault["series_id"], fault["kind"], fault["stamp"]) == ("b", "rule min of temp", hours(1)[0])
    assert fault["said"].startswith("column 'temp': -60 at 2024-01-01T01:00:00+00:00 is below rules.temp.min -50")
    assert list(made.index["series"]) == ["a"]
