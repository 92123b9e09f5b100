"""Canonical Parquet: sorted, regular in every frequency and zone, cut into segments, and read back in part."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from canonical_rows import NAN, hours, make, micros, rows_of

from tasks.ingest import segments
from tasks.ingest.canonical import needed_groups, read_series, read_tails


def test_canonical_rows_are_sorted_by_series_then_time(tmp_path):
    made = make(tmp_path, rows_of(hours(0, 0, 1, 1, 2, 2), [4, 1, 5, 2, 6, 3], series=list("bababa")))
    assert list(made.read()) == ["a", "b"]
    assert (made.column(series="a"), made.column(series="b")) == ([1, 2, 3], [4, 5, 6])
    assert (made.receipt.num_series, made.receipt.steps, made.repairs) == (2, 6, {})
    assert (made.receipt.first, made.receipt.last) == tuple(hours(0, 2).tolist())
    table = pq.read_table(made.store.file(made.receipt, made.receipt.segments[0].name))
    assert [(field.name, field.nullable) for field in table.schema] == [
        ("series_id", False), ("timestamp", False), ("target", True),
    ]  # fmt: skip


def test_parts_may_come_in_any_order_of_time(tmp_path):
    made = make(tmp_path, rows_of(hours(4, 5), [4, 5]), rows_of(hours(0, 1, 2, 3)))
    assert (made.column(), made.index["faults"]) == ([0, 1, 2, 3, 4, 5], [])


@pytest.mark.parametrize("order", ["error", "sort"])
def test_a_part_that_goes_back_before_the_one_it_follows_is_out_of_order(tmp_path, order):
    made = make(tmp_path, rows_of(hours(2, 3), [2, 3]), rows_of(hours(0, 1), [0, 1]), follows=True, order=order)
    if order == "sort":
        assert (made.column(), made.repairs) == ([0, 1, 2, 3], {"stamps out of order": 1})
    else:
        assert made.faults == {
            "order": "2024-01-01T00:00:00+00:00 comes after 2024-01-01T03:00:00+00:00. Sort the file or set "
            "source.order='sort'."
        }


def test_the_order_of_a_series_is_followed_through_parts_that_lack_it(tmp_path):
    parts = [rows_of(hours(2, 3), series="a"), rows_of(hours(0, 1), series="b"), rows_of(hours(0, 1), series="a")]
    made = make(tmp_path, *parts, follows=True)
    assert [(fault["series_id"], fault["kind"]) for fault in made.index["faults"]] == [("a", "order")]


def test_repairs_of_reading_are_counted_with_those_of_their_series(tmp_path):
    noted = [{"series_id": "y", "what": "stamps out of order", "count": 3}]
    assert make(tmp_path, rows_of(hours(0, 1)), repairs=noted).repairs == {"stamps out of order": 3}


def test_series_that_were_set_aside_while_reading_are_left_out(tmp_path):
    rows = rows_of(hours(0, 0, 0, 1, 1, 1), series=list("abcabc"))
    made = make(tmp_path, rows, set_aside=("b",))
    assert (list(made.read()), made.column(series="c")) == (["a", "c"], [2, 5])


def test_a_shard_of_nothing_but_faults_still_has_a_segment(tmp_path):
    made = make(tmp_path, rows_of(hours(0, 2)), gaps="error")
    assert (made.read(), [segment.rows for segment in made.receipt.segments]) == ({}, [0])
    made = make(tmp_path, rows_of(hours(0, 0, 1)), missing="mask", key="masked")
    assert (made.receipt.num_faults, made.receipt.num_series) == (1, 0)


@pytest.mark.parametrize(
    "frequency",
    ["30min", "h", "10s", "250ms", "2h", "D", "2D", "B", "W-WED", "MS", "ME", "QS", "YS"],
)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris", "Australia/Lord_Howe", "America/Sao_Paulo", "+05:30"])
def test_a_regular_series_of_any_frequency_passes_and_its_holes_are_found(tmp_path, frequency, zone):
    stamps = pd.date_range("2017-03-01", periods=40, freq=frequency).tz_localize(zone, nonexistent="shift_forward")
    if frequency in ("30min", "h", "10s", "250ms", "2h"):
        stamps = pd.date_range(stamps[0], periods=40, freq=frequency)
    at = stamps.tz_convert("UTC").as_unit("us").asi8
    made = make(tmp_path / "whole", rows_of(at), frequency=frequency, timezone=zone)
    assert (made.index["faults"], made.stamps()) == ([], at.tolist())
    made = make(tmp_path / "holed", rows_of(np.delete(at, [3, 20, 21])), frequency=frequency, timezone=zone, gaps="mask")
    assert (made.index["faults"], made.stamps(), made.repairs) == ([], at.tolist(), {"absent rows masked": 3})


@pytest.mark.parametrize(
    ("stamps", "frequency", "zone"),
    [
        (["2024-01-31", "2024-02-29", "2024-03-31"], "ME", "UTC"),  # months of unequal length
        (["2024-02-28", "2024-02-29", "2024-03-01"], "D", "UTC"),  # a leap day
        (["2024-03-30", "2024-03-31", "2024-04-01"], "D", "Europe/Paris"),  # a day of 23 hours
        (["2024-10-26", "2024-10-27", "2024-10-28"], "D", "Europe/Paris"),  # a day of 25 hours
        (["2024-03-31T01:00", "2024-03-31T03:00", "2024-03-31T04:00"], "h", "Europe/Paris"),  # a skipped hour
        (["2024-01-05", "2024-01-08", "2024-01-09"], "B", "UTC"),  # a weekend
        (["2018-11-03", "2018-11-04T01:00", "2018-11-05"], "D", "America/Sao_Paulo"),  # a midnight that is skipped
        (["2018-11-04T01:00", "2018-11-05", "2018-11-06"], "D", "America/Sao_Paulo"),  # to begin with one
        (["2011-12-29", "2011-12-31", "2012-01-01"], "D", "Pacific/Apia"),  # a day that is skipped
    ],
)
def test_calendar_steps_of_unequal_length_are_no_gaps(tmp_path, stamps, frequency, zone):
    at = micros([pd.Timestamp(stamp, tz=zone) for stamp in stamps])
    made = make(tmp_path, rows_of(at), frequency=frequency, timezone=zone)
    assert (made.index["faults"], made.stamps()) == ([], at.tolist())


@pytest.mark.parametrize(
    ("zone", "day", "count"),
    [
        ("Europe/Paris", "2024-03-31", 46), ("Europe/Paris", "2024-10-27", 50), ("Europe/Paris", "2024-06-01", 48),
        ("Australia/Lord_Howe", "2024-10-06", 47), ("Australia/Lord_Howe", "2024-04-07", 49),
    ],
)  # fmt: skip
def test_a_day_has_as_many_half_hours_as_its_clock_says(tmp_path, zone, day, count):
    first, last = pd.Timestamp(day, tz=zone), pd.Timestamp(day, tz=zone) + pd.DateOffset(days=1)
    at = micros([first, last - pd.Timedelta("30min"), last])
    made = make(tmp_path, rows_of(at), frequency="30min", timezone=zone, gaps="interpolate")
    assert len(made.stamps()) == count + 1


def test_series_of_calendar_steps_keep_their_own_time_of_day_and_phase(tmp_path):
    def days(start, frequency="2D"):
        return pd.date_range(start, periods=5, freq=frequency, tz="UTC").as_unit("us").asi8

    starts = {"a": "2024-01-01", "b": "2024-01-02", "c": "2024-01-01 09:00", "d": "2023-12-31"}
    made = make(tmp_path, *(rows_of(days(start), series=name) for name, start in starts.items()), frequency="2D")
    assert made.index["faults"] == []
    assert {name: made.stamps(name) for name in starts} == {name: days(start).tolist() for name, start in starts.items()}


@pytest.mark.parametrize(
    ("stamps", "frequency", "said"),
    [
        (["2024-01-01T00:00", "2024-01-01T01:00", "2024-01-01T01:20", "2024-01-01T02:00"], "h",
         "2024-01-01T01:20:00+00:00 is not a whole number of h steps after 2024-01-01T00:00:00+00:00, so the"),
        (["2024-01-01", "2024-01-08", "2024-01-15"], "W",
         "begins at 2024-01-01T00:00:00+00:00, where no step of W lies (3 such stamps). Set source.frequency"),
        (["2024-01-05", "2024-01-06", "2024-01-08"], "B",
         "2024-01-06T00:00:00+00:00 is not a whole number of B steps after 2024-01-05T00:00:00+00:00, so the"),
    ],
)  # fmt: skip
def test_a_stamp_off_the_grid_is_refused(tmp_path, stamps, frequency, said):
    made = make(tmp_path, rows_of(micros(stamps)), frequency=frequency)
    assert list(made.faults) == ["frequency"]
    assert made.faults["frequency"].startswith(said)


def test_two_frequencies_in_one_series_are_told_of(tmp_path):
    made = make(tmp_path, rows_of(hours(*range(20), *range(21, 43, 2))))
    assert made.faults["gap"].startswith(
        "has two frequencies: steps of 0 days 01:00:00 and, from 2024-01-01T19:00:00+00:00, 11 of 0 days 02:00:00; "
        "on a grid of h 11 rows are absent."
    )


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 8)
    monkeypatch.setattr(segments, "ROW_GROUP", 4)


def test_short_series_share_a_segment_and_a_long_one_fills_its_own(tmp_path, small_segments):
    lengths = {"a": 3, "b": 4, "c": 20, "d": 5, "e": 4, "f": 4}
    made = make(tmp_path, *(rows_of(hours(*range(length)), series=name) for name, length in lengths.items()))
    assert [(segment.rows, segment.continues) for segment in made.receipt.segments] == [
        (7, False), (8, False), (8, True), (4, True), (5, False), (8, False),
    ]  # fmt: skip
    assert {name: len(stamps) for name, (stamps, _) in made.read().items()} == lengths
    whole = {name: np.concatenate(list(rows)).shape for name, rows in read_series(made.store, made.receipt, made.columns)}
    assert whole == {name: (length, 1) for name, length in lengths.items()}


def test_a_long_series_with_a_fault_leaves_nothing_behind_and_others_alone(tmp_path, small_segments):
    bad = rows_of(hours(*range(30)), [*range(29), float("inf")], series="b")
    made = make(tmp_path, rows_of(hours(0, 1), series="a"), bad, rows_of(hours(*range(10)), series="c"))
    assert [(segment.rows, segment.continues) for segment in made.receipt.segments] == [(2, False), (8, False), (2, True)]
    assert list(made.index["series"]) == list(made.read()) == ["a", "c"]
    assert len(list(made.store.folder("ingest", "shard").glob("*.parquet"))) == 3


def test_rows_appended_to_a_long_series_leave_its_earlier_segments_as_they_were(tmp_path, small_segments):
    rng = np.random.default_rng(1)
    at = np.flatnonzero(rng.random(60) < 0.8)
    values = np.where(rng.random(len(at)) < 0.2, NAN, rng.normal(size=len(at)))
    values[[0, -1]] = 1

    def digests(count, key):
        parts = [rows_of(hours(*at[own]), values[own]) for own in (np.arange(20), np.arange(20, count))]
        return make(tmp_path / key, *parts, gaps="mask", missing="interpolate", follows=True).receipt.segments

    before, after = digests(len(at) - 12, "before"), digests(len(at), "after")
    assert len(after) > len(before) > 3
    assert after[: len(before) - 1] == before[:-1]


def test_tails_are_read_from_the_row_groups_that_hold_them(tmp_path, small_segments, monkeypatch):
    made = make(tmp_path, rows_of(hours(*range(20)), series="a"), rows_of(hours(*range(6)), series="b"))
    read, whole = [], pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_groups", lambda self, groups, **more: read.append(groups) or whole(self, groups, **more)
    )
    needed = {"a": int(hours(14)[0])}
    tails = list(read_tails(made.store, made.receipt, made.columns, needed))
    assert [(name, stamps.tolist(), rows[:, 0].tolist()) for name, stamps, rows in tails] == [
        ("a", hours(*range(14, 20)).tolist(), [14, 15, 16, 17, 18, 19])
    ]
    assert read == [[1], [0]]  # of the second segment its second group; the first and b's have nothing so new
    tails = list(read_tails(made.store, made.receipt, made.columns, {"b": int(hours(5)[0]), "a": int(hours(19)[0])}))
    assert [(name, len(stamps)) for name, stamps, _ in tails] == [("a", 1), ("b", 1)]


def test_the_groups_needed_are_those_whose_newest_stamp_is_new_enough(tmp_path, small_segments):
    made = make(tmp_path, rows_of(hours(*range(8))))
    with pq.ParquetFile(made.store.file(made.receipt, made.receipt.segments[0].name)) as file:
        assert [needed_groups(file, {"y": int(hours(at)[0])}) for at in (0, 3, 4, 7, 8)] == [[0, 1], [0, 1], [1], [1], []]
        assert needed_groups(file, {}) == []
