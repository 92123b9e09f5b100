from datetime import timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tasks.ingest.checks import num_observed

from models.errors import Fault
from tasks.ingest.sources import SourceSpec
from tasks.ingest.task import canonical
from tasks.ingest.timeline import (
    calendar_columns,
    following,
    grid_between,
    infer_frequency,
    parse_offset,
    parse_timezone,
    season_of,
    to_instants,
)

NAN = float("nan")


def spec_of(**changed):
    return SourceSpec(**{"uri": "sales.csv", "timestamp": "t", "target": "y"} | changed)


def ingest(stamps, values=None, covariates=None, **spec):
    """The canonical rows of stamps (text) and values, and the facts of their receipt."""
    values = [float(number) for number in range(len(stamps))] if values is None else values
    table = {"t": pa.array([str(stamp) for stamp in stamps]), "y": pa.array(values, pa.float64())}
    for name, column in (covariates or {}).items():
        table[name] = pa.array(column, pa.float64() if name != "s" else pa.string())
    rows, facts = canonical(spec_of(**spec), pa.table(table))
    return rows, facts


def targets(rows):
    return rows["target"].to_pylist()


def hours(*numbers):
    return [f"2024-01-01 {number:02}:00" for number in numbers]


def instants(stamps, **spec):
    return to_instants(spec_of(**spec), pa.chunked_array([stamps]))


def shown(stamps):
    return [stamp.isoformat() for stamp in stamps]


def test_canonical_rows_are_sorted_by_series_then_time():
    stamps = hours(0, 1, 2) * 2
    rows, facts = ingest(stamps, [1, 2, 3, 4, 5, 6], {"s": ["b"] * 3 + ["a"] * 3}, series_id="s")
    assert rows["series_id"].to_pylist() == ["a"] * 3 + ["b"] * 3
    assert targets(rows) == [4, 5, 6, 1, 2, 3]
    assert rows.schema.field("timestamp").type == pa.timestamp("us", "UTC")
    assert not rows.schema.field("timestamp").nullable
    assert (facts["num_series"], facts["steps"], facts["repairs"]) == (2, 6, {})
    assert (facts["first"], facts["last"]) == ("2024-01-01T00:00:00+00:00", "2024-01-01T02:00:00+00:00")


def test_rows_of_several_series_may_be_interleaved():
    rows, facts = ingest(hours(0, 0, 1, 1, 2, 2), [1, 10, 2, 20, 3, 30], {"s": list("abababab"[:6])}, series_id="s")
    assert targets(rows) == [1, 2, 3, 10, 20, 30]
    assert facts["repairs"] == {}


def test_a_file_of_one_series_names_it_after_its_target():
    rows, facts = ingest(hours(0, 1, 2))
    assert rows["series_id"].to_pylist() == ["y"] * 3
    assert facts["facts"].target == "y"


def test_columns_are_target_past_future_and_calendar():
    rows, facts = ingest(
        hours(0, 1, 2), None, {"f": [1, 2, 3], "p": [4, 5, 6]},
        past_covariates=["p"], future_covariates=["f"], calendar=["weekday"],
    )  # fmt: skip
    names = ["series_id", "timestamp", "target", "p", "f", "weekday_sin", "weekday_cos"]
    assert rows.column_names == names
    assert facts["facts"].columns.names == tuple(names[2:])


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        # repeated
        (hours(0, 1, 1, 2, 2, 2), r"^y repeats 2024-01-01T01:00:00\+00:00 \(3 repeated .*source\.duplicates='first'"),
        # going back
        (hours(0, 1, 4, 2, 3, 5), r"^y: 2024-01-01T02:00:00\+00:00 comes after 2024-01-01T04:00:00\+00:00 \(1 .*order='sort'"),
        # absent rows
        (hours(0, 1, 2, 5, 6, 8), r"^y has a gap: no row at 2024-01-01T03:00:00\+00:00 \(3 absent .*h\).*gaps='interpolate'"),
        # off the grid
        ([*hours(0, 1, 2), "2024-01-01 02:20", *hours(3)], r"^y: 2024-01-01T02:20:00\+00:00 is not a .*\(1 such stamps\)"),
        # two frequencies
        (hours(*range(20), 21, 23) + [f"2024-01-02 {hour:02}:00" for hour in range(1, 18, 2)],
         r"^y has two frequencies: steps of 0 days 01:00:00 and, from 2024-01-01T19:00:00\+00:00, 11 of 0 days 02:00:00;"),
    ],
    ids=["repeated", "unordered", "gap", "off the grid", "two frequencies"],
)  # fmt: skip
def test_an_irregular_series_is_refused_with_where_and_how_many(stamps, message):
    with pytest.raises(Fault, match=message):
        ingest(stamps, frequency="h")


def test_the_irregular_series_of_several_is_the_one_that_is_named():
    with pytest.raises(Fault, match=r"^store_2 has a gap: no row at 2024-01-01T01:00:00"):
        ingest(hours(0, 1, 2, 0, 2), None, {"s": ["store_1"] * 3 + ["store_2"] * 2}, series_id="s")


@pytest.mark.parametrize(
    ("duplicates", "kept"),
    [("first", [1, 2, 8]), ("last", [1, 6, 8]), ("mean", [1, 4, 8])],
)
def test_repeated_stamps_are_settled_as_the_source_says_and_counted(duplicates, kept):
    rows, facts = ingest(hours(0, 1, 1, 1, 2), [1, 2, 4, 6, 8], duplicates=duplicates, frequency="h")
    assert targets(rows) == kept
    assert facts["repairs"] == {"repeated stamps": 2}


def test_stamps_out_of_order_are_sorted_where_the_source_allows_it_and_counted():
    rows, facts = ingest(hours(3, 1, 2, 0), [3, 1, 2, 0], order="sort", frequency="h")
    assert targets(rows) == [0, 1, 2, 3]
    assert facts["repairs"] == {"stamps out of order": 2}


def test_sorting_keeps_the_file_order_of_repeated_stamps():
    rows, _ = ingest(hours(2, 1, 1, 0), [8, 2, 4, 1], order="sort", duplicates="first", frequency="h")
    assert targets(rows) == [1, 2, 8]


def test_absent_rows_are_inserted_where_the_source_allows_it_and_counted():
    rows, facts = ingest(hours(0, 1, 4, 5), [0, 1, 4, 10], gaps="interpolate", frequency="h")
    assert targets(rows) == [0, 1, 2, 3, 4, 10]
    assert facts["repairs"] == {"rows inserted for gaps": 2}
    assert facts["steps"] == 6


def test_absent_rows_are_interpolated_in_every_column():
    columns = {"f": [0, 10, 40, 50], "p": [5, 5, 8, 8]}
    rows, _ = ingest(
        hours(0, 1, 4, 5), [0, 1, 4, 5], columns, gaps="interpolate", frequency="h",
        past_covariates=["p"], future_covariates=["f"],
    )  # fmt: skip
    assert targets(rows) == [0, 1, 2, 3, 4, 5]
    assert rows["f"].to_pylist() == [0, 10, 20, 30, 40, 50]
    assert rows["p"].to_pylist() == [5, 5, 6, 7, 8, 8]


def test_filling_gaps_does_not_fill_empty_values():
    with pytest.raises(Fault, match=r"^y, column 'y': no value at 2024-01-01T01:00:00\+00:00 \(1 in all\)"):
        ingest(hours(0, 1, 2, 4, 5), [0, NAN, 2, 4, 5], gaps="interpolate", frequency="h")


@pytest.mark.parametrize("column", ["y", "f", "p"])
def test_an_empty_value_is_refused_with_where_and_how_many(column):
    columns = {"y": [0.0, 1, 2, 3, 4, 5], "f": [0.0] * 6, "p": [0.0] * 6}
    columns[column][2] = columns[column][3] = NAN
    target = columns.pop("y")
    message = rf"^y, column '{column}': no value at 2024-01-01T02:00:00\+00:00 \(2 in all\)\. Fill them or set source\.missing="
    with pytest.raises(Fault, match=message):
        ingest(hours(*range(6)), target, columns, future_covariates=["f"], past_covariates=["p"])


def test_empty_values_are_interpolated_where_the_source_allows_it_and_counted():
    rows, facts = ingest(
        hours(*range(5)), [0, NAN, None, 3, 4], {"f": [0, 2, NAN, 6, 8]}, missing="interpolate", future_covariates=["f"]
    )
    assert targets(rows) == [0, 1, 2, 3, 4]
    assert rows["f"].to_pylist() == [0, 2, 4, 6, 8]
    assert facts["repairs"] == {"values filled": 3}


def test_an_empty_value_before_the_first_is_not_made_up():
    with pytest.raises(Fault, match=r"no value at 2024-01-01T00:00:00\+00:00 \(1 in all\)"):
        ingest(hours(0, 1, 2), [NAN, 1, 2], missing="interpolate")


@pytest.mark.parametrize("missing", ["error", "interpolate"])
def test_rows_after_the_last_target_are_kept_for_their_covariates(missing):
    rows, facts = ingest(
        hours(*range(6)), [0, 1, 2, 3, NAN, None], {"f": [0, 1, 2, 3, 4, NAN], "p": [0, 1, 2, 3, NAN, NAN]},
        missing=missing, future_covariates=["f"], past_covariates=["p"],
    )  # fmt: skip
    assert targets(rows) == [0, 1, 2, 3, None, None]
    assert rows["f"].to_pylist() == [0, 1, 2, 3, 4, None]
    assert rows["p"].to_pylist() == [0, 1, 2, 3, None, None]
    assert (facts["steps"], rows.num_rows, facts["repairs"]) == (4, 6, {})
    assert facts["last"] == "2024-01-01T03:00:00+00:00"


@pytest.mark.parametrize(
    ("target", "steps"),
    [([1, 2, 3], 3), ([1, NAN, 3, NAN, NAN], 3), ([NAN, NAN], 0), ([], 0), ([NAN, 0], 2)],
)
def test_steps_are_counted_up_to_the_last_target(target, steps):
    assert num_observed(np.array(target, float)) == steps


def test_a_series_without_any_target_is_refused():
    with pytest.raises(Fault, match=r"^y: y has no value at all\. Name another source\.target or drop the series"):
        ingest(hours(0, 1, 2), [NAN] * 3)


@pytest.mark.parametrize(
    ("value", "said"),
    [(float("inf"), "inf"), (float("-inf"), "-inf"), (3.5e38, r"3\.5e\+38"), (-1e300, r"-1e\+300")],
)
@pytest.mark.parametrize("column", ["y", "f"])
def test_values_that_float32_can_not_hold_are_refused(value, said, column):
    columns = {"y": [0.0, 1, 2, 3, 4], "f": [0.0] * 5}
    columns[column][1] = columns[column][4] = value
    target = columns.pop("y")
    message = rf"^y, column '{column}': {said} at 2024-01-01T01:00:00\+00:00 is infinite or beyond float32 \(2 such\)"
    with pytest.raises(Fault, match=message):
        ingest(hours(*range(5)), target, columns, future_covariates=["f"])


def test_an_infinite_covariate_after_the_last_target_is_refused_too():
    with pytest.raises(Fault, match=r"^y, column 'f': inf at 2024-01-01T02:00:00"):
        ingest(hours(0, 1, 2), [0, 1, NAN], {"f": [0, 1, float("inf")]}, future_covariates=["f"])


@pytest.mark.parametrize(
    ("stamps", "zone", "read"),
    [
        (["2024-01-01 00:30", "2024-07-01 00:30"], "UTC", ["2024-01-01T00:30:00+00:00", "2024-07-01T00:30:00+00:00"]),
        # the local clock of a zone, in winter and in summer
        (["2024-01-01T00:30", "2024-07-01T00:30"], "Europe/Paris", ["2024-01-01T00:30:00+01:00", "2024-07-01T00:30:00+02:00"]),
        # a fixed offset knows no summer
        (["2024-01-01", "2024-07-01"], "+10:00", ["2024-01-01T00:00:00+10:00", "2024-07-01T00:00:00+10:00"]),
        # offsets in the stamps name instants; the zone only says which clock they are shown on
        (["2024-01-01T00:30Z", "2024-01-01T06:00+05:30"], "Asia/Tokyo", ["2024-01-01T09:30:00+09:00"] * 2),
        (["2024-07-01 00:30:15.25-04:00"], "Europe/Paris", ["2024-07-01T06:30:15.250000+02:00"]),
    ],
)  # fmt: skip
def test_stamps_become_instants_on_the_local_clock(stamps, zone, read):
    assert shown(instants(pa.array(stamps), timezone=zone)) == read


@pytest.mark.parametrize(
    ("column", "read"),
    [
        (pa.array([19_723], pa.int32()).cast(pa.date32()), "2024-01-01T00:00:00+01:00"),
        (pa.array([1_704_067_200], pa.timestamp("s")), "2024-01-01T00:00:00+01:00"),
        (pa.array([1_704_067_200_000_000_000], pa.timestamp("ns")), "2024-01-01T00:00:00+01:00"),
        (pa.array([1_704_067_200_000], pa.timestamp("ms", "UTC")), "2024-01-01T01:00:00+01:00"),
        (pa.array([1_704_067_200_000], pa.timestamp("ms", "+10:00")), "2024-01-01T01:00:00+01:00"),
        (pa.array(["2024-01-01"], pa.large_string()), "2024-01-01T00:00:00+01:00"),
    ],
)
def test_stamps_of_any_time_type_are_read(column, read):
    assert shown(instants(column, timezone="Europe/Paris")) == [read]


def test_stamps_finer_than_a_microsecond_are_no_traceback():
    with pytest.raises(Fault, match=r"^sales\.csv, column 't': "):
        instants(pa.array([1_704_067_200_000_000_001], pa.timestamp("ns")))


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (["2024-01-01", "soon"], r"data row 2, column 't': 'soon' is no ISO 8601 stamp"),
        (["2024-01-01", "01/02/2024"], r"data row 2, column 't': '01/02/2024' is no ISO 8601 stamp"),
        (["2024-01-01", "2024-02-30"], r"data row 2, column 't': '2024-02-30' is no ISO 8601 stamp"),
        (["2024-01-01", ""], r"data row 2, column 't': '' is no ISO 8601 stamp"),
        (["2024-01-01T00:00", "2024-01-01T01:00Z"], r"data row 2, column 't': '2024-01-01T01:00Z' mixes stamps with"),
        (["2024-01-01T00:00Z", "2024-01-01T01:00"], r"data row 2, column 't': '2024-01-01T01:00' mixes stamps with"),
        (["2024-01-01", None], r"data row 2: column 't' has no stamp"),
    ],
)  # fmt: skip
def test_a_stamp_that_is_none_is_named_by_row(stamps, message):
    with pytest.raises(Fault, match=rf"^sales\.csv {message}"):
        instants(pa.array(stamps))


def test_numbers_are_no_stamps():
    with pytest.raises(Fault, match=r"column 't' holds int64; stamps are needed\. Name another column"):
        instants(pa.array([1, 2]))


@pytest.mark.parametrize(
    "stamp",
    [
        "2024-03-31 02:30",  # the clock jumps from 02:00 to 03:00
        "2024-10-27 02:30",  # the hour from 02:00 comes twice
    ],
)
def test_an_hour_that_the_clock_skips_or_repeats_is_refused(stamp):
    message = r"column 't': .*2024-(03-31|10-27) 02:30.* clock of Europe/Paris skips or repeats that hour; write stamps"
    with pytest.raises(Fault, match=message):
        instants(pa.array([stamp]), timezone="Europe/Paris")
    assert len(instants(pa.array([stamp]), timezone="+01:00")) == 1
    assert len(instants(pa.array([stamp + "+01:00"]), timezone="Europe/Paris")) == 1


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("UTC", ZoneInfo("UTC")),
        ("Europe/Paris", ZoneInfo("Europe/Paris")),
        ("+10:00", timezone(timedelta(hours=10))),
        ("-03:30", timezone(-timedelta(hours=3, minutes=30))),
        ("+5", timezone(timedelta(hours=5))),
        ("+0530", timezone(timedelta(hours=5, minutes=30))),
        ("UTC+02:00", timezone(timedelta(hours=2))),
    ],
)
def test_zones_are_names_or_fixed_offsets(name, zone):
    assert parse_timezone(name) == zone
    assert parse_timezone(str(zone)) == zone  # as receipts keep it


@pytest.mark.parametrize("name", ["Mars/Base", "", "+25:00", "+10:99", "Europe", "../etc/passwd", "/etc/hosts", "10:00", "+"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(Fault, match=r"^source\.timezone .* is no zone; use an IANA name, as Europe/Paris, or an offset, as"):
        parse_timezone(name)


@pytest.mark.parametrize(
    ("frequency", "season"),
    [
        ("min", 1440), ("5min", 288), ("15min", 96), ("30min", 48), ("h", 24), ("3h", 8), ("12h", 2),  # a day
        ("7h", 1), ("24h", 1), ("36h", 1),  # no whole part of a day
        ("D", 7), ("B", 5),  # a week
        ("W", 52), ("W-MON", 52), ("MS", 12), ("ME", 12), ("BMS", 12), ("BME", 12),  # a year
        ("QS", 4), ("QE", 4), ("QE-NOV", 4), ("BQS", 4),
        ("YS", 1), ("YE", 1),  # nothing longer
        ("2D", 1), ("2W", 1), ("3MS", 1),  # steps that do not divide their cycle evenly, or not the usual one
    ],
)  # fmt: skip
def test_the_season_follows_from_the_frequency(frequency, season):
    assert season_of(frequency) == season


@pytest.mark.parametrize("frequency", ["M", "H", "fortnight", "", "0h", "-1h", "0D"])
def test_what_is_no_frequency_is_refused(frequency):
    with pytest.raises(Fault, match=r"^source\.frequency .* use one as 30min, h, D, W, MS, or null"):
        parse_offset(frequency)


@pytest.mark.parametrize(
    ("first", "frequency", "alias"),
    [
        ("2024-01-01 00:10", "30min", "30min"),
        ("2024-01-01", "h", "h"),
        ("2024-01-01", "15s", "15s"),
        ("2024-01-01", "D", "D"),
        ("2024-01-01", "B", "B"),
        ("2024-01-01", "W-MON", "W-MON"),
        ("2024-01-01", "MS", "MS"),
        ("2024-01-31", "ME", "ME"),
        ("2024-01-01", "QS", "QS-JAN"),
        ("2024-12-31", "YE-DEC", "YE-DEC"),
        ("2024-01-01", "2D", "2D"),
    ],
)
@pytest.mark.parametrize("count", [4, 40])
def test_the_frequency_is_inferred(first, frequency, alias, count):
    if frequency == "B" and count == 4:
        frequency, alias = "D", "D"  # Monday to Thursday tell no more
    stamps = pd.date_range(first, periods=count, freq=frequency, tz="UTC")
    assert infer_frequency(spec_of(), stamps) == alias
    assert infer_frequency(spec_of(), stamps[::-1]) == alias


@pytest.mark.parametrize("frequency", ["30min", "D", "W-MON", "MS", "B"])
def test_a_frequency_is_inferred_through_gaps_and_repeats(frequency):
    stamps = pd.date_range("2024-01-01", periods=60, freq=frequency, tz="UTC")
    holed = stamps.delete([5, 30, 31, 50]).insert(20, stamps[20])
    assert infer_frequency(spec_of(), holed) == frequency


@pytest.mark.parametrize("frequency", ["h", "D"])
def test_a_frequency_is_inferred_across_daylight_saving(frequency):
    stamps = pd.date_range("2024-03-20", periods=20 if frequency == "D" else 480, freq=frequency, tz="Europe/Paris")
    assert infer_frequency(spec_of(), stamps) == frequency


def test_weekly_stamps_with_many_holes_are_still_a_calendar_step():
    stamps = pd.date_range("2024-01-01", periods=60, freq="7D", tz="Europe/Paris")
    holed = stamps[[at for at in range(60) if at % 5 != 3]]
    offset = parse_offset(infer_frequency(spec_of(), holed))
    assert len(grid_between(stamps[0], stamps[-1], offset)) == 60
    assert holed.isin(grid_between(stamps[0], stamps[-1], offset)).all()


def test_too_few_stamps_tell_no_frequency():
    with pytest.raises(Fault, match=r"sales\.csv has 2 different stamps in its first series; set source\.frequency"):
        ingest(hours(0, 1, 1), duplicates="last")


def test_a_frequency_that_begins_on_another_day_says_so():
    with pytest.raises(Fault, match=r"^y begins at 2024-01-01T00:00:00\+00:00.* W-SUN .*\(3 such stamps\).*source\.frequency"):
        ingest(["2024-01-01", "2024-01-08", "2024-01-15"], frequency="W")


@pytest.mark.parametrize(
    ("stamps", "frequency", "zone", "rows"),
    [
        (["2024-01-31", "2024-02-29", "2024-03-31"], "ME", "UTC", 3),  # months of unequal length
        (["2024-02-28", "2024-02-29", "2024-03-01"], "D", "UTC", 3),  # a leap day
        (["2024-03-30", "2024-03-31", "2024-04-01"], "D", "Europe/Paris", 3),  # a day of 23 hours
        (["2024-10-26", "2024-10-27", "2024-10-28"], "D", "Europe/Paris", 3),  # a day of 25 hours
        (["2024-03-31T01:00", "2024-03-31T03:00", "2024-03-31T04:00"], "h", "Europe/Paris", 3),  # a skipped hour
        (["2024-01-05", "2024-01-08", "2024-01-09"], "B", "UTC", 3),  # a weekend
    ],
)
def test_calendar_steps_of_unequal_length_are_no_gaps(stamps, frequency, zone, rows):
    table, facts = ingest(stamps, frequency=frequency, timezone=zone)
    assert table.num_rows == rows
    assert facts["repairs"] == {}


def test_the_hour_that_comes_twice_is_two_steps():
    stamps = ["2024-10-27T01:00+02:00", "2024-10-27T02:00+02:00", "2024-10-27T02:00+01:00", "2024-10-27T03:00+01:00"]
    rows, _ = ingest(stamps, timezone="Europe/Paris", frequency="h")
    assert targets(rows) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("last", "zone", "frequency", "ahead"),
    [
        ("2024-01-31", "UTC", "ME", ["2024-02-29T00:00:00+00:00", "2024-03-31T00:00:00+00:00"]),
        ("2024-11-01", "UTC", "MS", ["2024-12-01T00:00:00+00:00", "2025-01-01T00:00:00+00:00"]),
        ("2024-01-04", "UTC", "B", ["2024-01-05T00:00:00+00:00", "2024-01-08T00:00:00+00:00"]),
        # hours count instants: the clock skips one, then shows one twice
        ("2024-03-31 01:30", "Europe/Paris", "h", ["2024-03-31T03:30:00+02:00", "2024-03-31T04:30:00+02:00"]),
        ("2024-10-27 01:30", "Europe/Paris", "h", ["2024-10-27T02:30:00+02:00", "2024-10-27T02:30:00+01:00"]),
        # days keep the hour of the clock
        ("2024-03-30 09:00", "Europe/Paris", "D", ["2024-03-31T09:00:00+02:00", "2024-04-01T09:00:00+02:00"]),
        ("2024-10-26 09:00", "Europe/Paris", "D", ["2024-10-27T09:00:00+01:00", "2024-10-28T09:00:00+01:00"]),
        # a midnight that the clock skips: the first instant after it, and midnights again
        ("2024-04-25", "Africa/Cairo", "D", ["2024-04-26T01:00:00+03:00", "2024-04-27T00:00:00+03:00"]),
        # a midnight that comes twice: the first of the two
        ("2024-11-02", "America/Havana", "D", ["2024-11-03T00:00:00-04:00", "2024-11-04T00:00:00-05:00"]),
    ],
)
def test_the_stamps_that_follow_keep_to_the_clock(last, zone, frequency, ahead):
    assert shown(following(pd.Timestamp(last, tz=zone), 2, parse_offset(frequency))) == ahead


def test_the_stamps_that_follow_a_fixed_offset_keep_it():
    zone = parse_timezone("+10:00")
    ahead = following(pd.Timestamp("2014-12-30 23:30", tz=zone), 2, parse_offset("30min"))
    assert shown(ahead) == ["2014-12-31T00:00:00+10:00", "2014-12-31T00:30:00+10:00"]


@pytest.mark.parametrize("frequency", ["30min", "h", "D", "W-SUN", "MS", "B"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris", "Australia/Lord_Howe"])  # whose summer is half an hour
def test_what_follows_is_what_the_grid_goes_on_with(frequency, zone):
    offset = parse_offset(frequency)
    first = pd.Timestamp("2024-01-01 12:00", tz=zone)
    if frequency == "W-SUN":
        first = pd.Timestamp("2024-01-07 12:00", tz=zone)
    ahead = following(first, 400, offset)
    assert grid_between(first, ahead[-1], offset)[1:].equals(ahead)


def test_the_calendar_is_read_off_the_local_clock():
    stamps = pd.DatetimeIndex(["2024-01-01T23:00Z", "2024-07-01T04:00Z"]).tz_convert("Europe/Paris")  # 00:00 Tue, 06:00 Mon
    columns = calendar_columns(stamps, ("hour", "weekday"))
    assert list(columns) == ["hour_sin", "hour_cos", "weekday_sin", "weekday_cos"]
    assert columns["hour_sin"] == pytest.approx([0, 1])
    assert columns["hour_cos"] == pytest.approx([1, 0], abs=1e-12)
    assert columns["weekday_sin"] == pytest.approx([np.sin(2 * np.pi / 7), 0])
    assert columns["weekday_cos"] == pytest.approx([np.cos(2 * np.pi / 7), 1])


def test_the_hour_of_the_calendar_has_minutes_and_the_year_begins_at_zero():
    columns = calendar_columns(pd.DatetimeIndex(["2024-01-01T00:00", "2024-01-02T04:30"]), ("hour", "day_of_year"))
    assert columns["hour_sin"] == pytest.approx([0, np.sin(2 * np.pi * 4.5 / 24)])
    assert columns["day_of_year_sin"] == pytest.approx([0, np.sin(2 * np.pi / 365.25)])
    assert columns["day_of_year_cos"] == pytest.approx([1, np.cos(2 * np.pi / 365.25)])


def test_calendar_columns_are_known_for_rows_without_a_target():
    rows, _ = ingest(hours(0, 6, 12, 18), [1, 2, 3, NAN], calendar=["hour"], frequency="6h")
    assert rows["hour_sin"].to_numpy() == pytest.approx([0, 1, 0, -1], abs=1e-12)
