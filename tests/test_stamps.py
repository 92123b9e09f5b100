from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import Fault
from tasks.ingest.clock import Clock
from tasks.ingest.sources import SourceSpec
from tasks.ingest.spellings import stamp_type
from tasks.ingest.stamps import to_instants

ZONES = sorted(available_timezones())
HALF_HOUR = 1_800_000_000  # microseconds
NEW_YEAR = 1_704_067_200  # 2024-01-01, in seconds


def spec_of(**changed):
    return SourceSpec(**{"uri": "sales.csv", "timestamp": "t", "target": "y"} | changed)


def read(*columns, codes=None, names=("y",), state=None, **spec):
    """Instants of one column of stamps or two."""
    columns = [pa.chunked_array([one if isinstance(one, pa.Array) else pa.array(one)]) for one in columns]
    spec = {"timestamp": ("d", "h")} | spec if len(columns) > 1 else spec
    codes = np.zeros(len(columns[0]), np.int32) if codes is None else np.array(codes, np.int32)
    return to_instants(spec_of(**spec), columns, codes, list(names), {} if state is None else state)


def utc(*columns, **spec):
    """The instants of stamps that are all good, as text."""
    found = read(*columns, **spec)
    assert found.bad == []
    return shown(found.micros)


def shown(micros):
    return [str(one).replace(".000000", "") for one in np.asarray(micros).astype("datetime64[us]")]


def bad(*columns, **spec):
    return [(row, said) for row, _, said in sorted(read(*columns, **spec).bad)]


# Spellings


@pytest.mark.parametrize(
    ("stamps", "zone", "found"),
    [
        (["2024-01-01 00:30", "2024-07-01 00:30"], "UTC", ["2024-01-01T00:30:00", "2024-07-01T00:30:00"]),
        (["2024-01-01T00:30", "2024-07-01T00:30"], "Europe/Paris", ["2023-12-31T23:30:00", "2024-06-30T22:30:00"]),
        (["2024-01-01", "2024-07-01"], "+10:00", ["2023-12-31T14:00:00", "2024-06-30T14:00:00"]),
        (["2024-01-01T05", "2024-01-01 05:06"], "UTC", ["2024-01-01T05:00:00", "2024-01-01T05:06:00"]),
        # offsets name instants, whatever the zone
        (["2024-01-01T00:30Z", "2024-01-01T06:00+05:30"], "Asia/Tokyo", ["2024-01-01T00:30:00"] * 2),
        (["2024-01-01T00:30+01", "2024-01-01T00:30-0130"], "Asia/Tokyo", ["2023-12-31T23:30:00", "2024-01-01T02:00:00"]),
        (["2024-07-01 00:30:15.25-04:00"], "Europe/Paris", ["2024-07-01T04:30:15.250000"]),
        # nothing is lost of nanoseconds that are zero, nor of spaces
        (["2024-01-01 00:00:00.123456000"], "UTC", ["2024-01-01T00:00:00.123456"]),
        (["2024-01-01 00:00:00.0000000", "2024-01-01 00:00"], "UTC", ["2024-01-01T00:00:00"] * 2),
        (["2024-01-01T00:00:00.0000000Z"], "UTC", ["2024-01-01T00:00:00"]),
        ([" 2024-01-01", "2024-01-01 "], "UTC", ["2024-01-01T00:00:00"] * 2),
        (["0001-01-01", "9999-12-31T23:59:59.999999"], "UTC", ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"]),
    ],
)  # fmt: skip
def test_iso_stamps_become_instants(stamps, zone, found):
    assert utc(stamps, timezone=zone) == found
    assert utc(pa.array(stamps, pa.large_string()), timezone=zone) == found
    assert utc(pa.array(stamps).dictionary_encode(), timezone=zone) == found


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (pa.array([19_723], pa.int32()).cast(pa.date32()), "2023-12-31T23:00:00"),
        (pa.array([19_723], pa.int32()).cast(pa.date32()).cast(pa.date64()), "2023-12-31T23:00:00"),
        (pa.array([NEW_YEAR], pa.timestamp("s")), "2023-12-31T23:00:00"),
        (pa.array([NEW_YEAR * 10**9], pa.timestamp("ns")), "2023-12-31T23:00:00"),
        (pa.array([NEW_YEAR * 1000], pa.timestamp("ms", "UTC")), "2024-01-01T00:00:00"),
        (pa.array([NEW_YEAR * 1000], pa.timestamp("ms", "+10:00")), "2024-01-01T00:00:00"),
    ],
)
def test_stamps_of_any_time_type_are_read(column, found):
    assert utc(column, timezone="Europe/Paris") == [found]


@pytest.mark.parametrize(
    ("form", "stamps", "found"),
    [
        ("epoch_s", [NEW_YEAR, -1], ["2024-01-01T00:00:00", "1969-12-31T23:59:59"]),
        ("epoch_ms", [NEW_YEAR * 1000 + 5], ["2024-01-01T00:00:00.005000"]),
        ("epoch_us", [NEW_YEAR * 10**6 + 5], ["2024-01-01T00:00:00.000005"]),
        ("epoch_s", pa.array([NEW_YEAR], pa.uint64()), ["2024-01-01T00:00:00"]),
        ("epoch_s", pa.array([NEW_YEAR], pa.uint32()), ["2024-01-01T00:00:00"]),
        ("epoch_s", [float(NEW_YEAR), NEW_YEAR + 0.1], ["2024-01-01T00:00:00", "2024-01-01T00:00:00.100000"]),
        ("epoch_ms", [NEW_YEAR * 1000 + 0.001], ["2024-01-01T00:00:00.000001"]),
        ("epoch_s", [Decimal("1704067200.000001")], ["2024-01-01T00:00:00.000001"]),
        ("epoch_s", [str(NEW_YEAR), f" {NEW_YEAR} ", "+5"], ["2024-01-01T00:00:00"] * 2 + ["1970-01-01T00:00:05"]),
        ("epoch_s", [str(NEW_YEAR), "1.7040672e9"], ["2024-01-01T00:00:00"] * 2),
        ("epoch_s", ["0", f"{NEW_YEAR}.123456"], ["1970-01-01T00:00:00", "2024-01-01T00:00:00.123456"]),
        ("epoch_s", ["4102444800.000001"], ["2100-01-01T00:00:00.000001"]),  # which float64 does not tell
    ],
)  # fmt: skip
def test_epochs_are_read_from_numbers_and_from_text(form, stamps, found):
    assert utc(stamps, timestamp_format=form, timezone="Europe/Paris") == found


def test_the_fraction_of_an_epoch_may_follow_a_comma():
    assert utc([f"{NEW_YEAR},5"], timestamp_format="epoch_s", decimal=",", delimiter=";") == ["2024-01-01T00:00:00.500000"]


@settings(max_examples=100, deadline=None)
@given(micros=st.lists(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999), min_size=1))
def test_any_instant_comes_back_from_an_epoch_as_text_or_decimal(micros):
    exact = [Decimal(one) / 1_000_000 for one in micros]
    for column in ([f"{one:f}" for one in exact], pa.array(exact, pa.decimal128(18, 6))):
        assert read(column, timestamp_format="epoch_s").micros.tolist() == micros


@pytest.mark.parametrize(
    ("form", "stamp", "found"),
    [
        ("%Y%m%d %H:%M", "20120101 1:00", "2012-01-01T01:00:00"),
        ("%d.%m.%Y", "1.2.2024", "2024-02-01T00:00:00"),
        ("%d.%m.%Y", "01.01.0001", "0001-01-01T00:00:00"),
        ("%d.%m.%Y", "31.12.9999", "9999-12-31T00:00:00"),
        ("%m/%d/%Y %I:%M %p", "1/2/2024 1:05 PM", "2024-01-02T13:05:00"),
        ("%Y-%m-%d %H:%M:%S.%f", "2024-01-01 00:00:00.5", "2024-01-01T00:00:00.500000"),
        ("%Y-%m-%dT%H:%M%z", "2024-01-01T00:00+0130", "2023-12-31T22:30:00"),
        ("%Y-%m-%dT%H:%M%z", "2024-01-01T00:00Z", "2024-01-01T00:00:00"),
        ("%Y", "2024", "2024-01-01T00:00:00"),
    ],
)
def test_stamps_of_a_form_are_read(form, stamp, found):
    assert utc([stamp], timestamp_format=form) == [found]


def test_numbers_may_be_stamps_of_a_form():
    assert utc([20240101, 20240131], timestamp_format="%Y%m%d") == ["2024-01-01T00:00:00", "2024-01-31T00:00:00"]


def test_a_form_of_the_local_clock_follows_the_zone_and_one_with_an_offset_does_not():
    assert utc(["1.7.2024"], timestamp_format="%d.%m.%Y", timezone="Europe/Paris") == ["2024-06-30T22:00:00"]
    assert utc(["1.7.2024 +0000"], timestamp_format="%d.%m.%Y %z", timezone="Europe/Paris") == ["2024-07-01T00:00:00"]


DAY = pa.array([19_723], pa.int32()).cast(pa.date32())


@pytest.mark.parametrize(
    ("date", "hour", "spec"),
    [
        (["2024-01-01"], ["01:30"], {}),
        (["2024-01-01"], ["01:30:00.000000000"], {}),
        (["2024-01-01"], ["02:30+01:00"], {}),
        (["1.1.2024"], ["1:30"], {"timestamp_format": "%d.%m.%Y %H:%M"}),
        (["20240101"], ["0130"], {"timestamp_format": "%Y%m%d %H%M"}),
        ([20240101], ["01:30"], {"timestamp_format": "%Y%m%d %H:%M"}),
        (DAY, pa.array([time(1, 30)], pa.time64("us")), {}),
        (DAY, pa.array([time(1, 30)], pa.time64("ns")), {}),
        (DAY, pa.array([time(1, 30)], pa.time32("s")), {}),
        (DAY.cast(pa.timestamp("ns")), pa.array([time(1, 30)], pa.time64("us")), {}),  # as pandas keeps a date
        (DAY, pa.array(["01:30"]).dictionary_encode(), {}),
    ],
)
def test_dates_and_times_of_day_may_stand_in_two_columns(date, hour, spec):
    assert utc(date, hour, **spec) == ["2024-01-01T01:30:00"]


def test_a_column_of_dates_that_holds_times_too_is_refused():
    noon = pa.array([NEW_YEAR + 43_200], pa.timestamp("s"))
    with pytest.raises(Fault, match=r"Column 'd' holds times of day too; name it alone as source\.timestamp"):
        read(noon, ["01:30"])


@pytest.mark.parametrize(
    ("seen", "form", "kind"),
    [
        (["2024-01-01 00:00"], None, "timestamp[us]"),
        (["2024-01-01", "2024-01-01T00:00:00.5"], None, "timestamp[us]"),
        (["2024-01-01T00:00Z"], None, "timestamp[us, tz=UTC]"),
        (["2024-01-01T00:00Z", "2024-01-01"], None, "string"),
        (["2024-01-01T00:00:00.0000000Z"], None, "string"),
        (["1704067200"], "epoch_s", "int64"),
        (["1704067200", "1704067200.5"], "epoch_s", "decimal128(28, 9)"),
        (["1.7e9"], "epoch_s", "decimal128(28, 9)"),
        (["1.1.2024"], "%d.%m.%Y", "string"),
    ],
)
def test_a_csv_is_read_with_the_type_that_its_first_stamps_have(seen, form, kind):
    assert str(stamp_type(spec_of(timestamp_format=form), seen)) == kind


# What is no stamp


@pytest.mark.parametrize(
    ("stamps", "spec", "said"),
    [
        (["2024-01-01", "soon"], {}, "'soon' is no ISO 8601 stamp, as"),
        (["2024-01-01", "01/02/2024"], {}, "'01/02/2024' is no ISO 8601 stamp"),
        (["2024-01-01", "2024-02-30"], {}, "'2024-02-30' is no ISO 8601 stamp"),
        (["2024-01-01T00:00Z", "2024-02-30T00:00Z"], {}, "'2024-02-30T00:00Z' is no ISO 8601 stamp"),
        (["2024-01-01", ""], {}, "there is no stamp"),
        (["2024-01-01", None], {}, "there is no stamp"),
        (["2024-01-01T00:00", "2024-01-01T01:00Z"], {}, "'2024-01-01T01:00Z' mixes stamps with"),
        (["2024-01-01T00:00Z", "2024-01-01T01:00"], {}, "'2024-01-01T01:00' mixes stamps with"),
        (["2024-01-01", "2024-01-01 00:00:00.1234567"], {}, "'2024-01-01 00:00:00.1234567' is finer than a microsecond"),
        (["2024-01-01", "2024-01-01 00:00:00.1234560001"], {}, "is finer than a microsecond"),
        (["1", "abc"], {"timestamp_format": "epoch_s"}, "'abc' is no epoch_s number"),
        (["1", ""], {"timestamp_format": "epoch_s"}, "there is no stamp"),
        (["1", None], {"timestamp_format": "epoch_s"}, "there is no stamp"),
        (["1", "1.0000001"], {"timestamp_format": "epoch_s"}, "the stamp is finer than a microsecond; round it"),
        ([1.0, 1.5], {"timestamp_format": "epoch_us"}, "the stamp is finer than a microsecond; round it"),
        ([1.0, float("nan")], {"timestamp_format": "epoch_s"}, "there is no stamp"),
        ([1.0, float("inf")], {"timestamp_format": "epoch_s"}, "the stamp lies beyond the years 1 to 9999"),
        ([1, NEW_YEAR * 1000], {"timestamp_format": "epoch_s"}, "the stamp lies beyond the years 1 to 9999"),  # milliseconds
        ([1, 2**62], {"timestamp_format": "epoch_s"}, "the stamp lies beyond the years 1 to 9999"),
        (["1", "9" * 18], {"timestamp_format": "epoch_s"}, "the stamp lies beyond the years 1 to 9999"),
        (["1", "9" * 40], {"timestamp_format": "epoch_s"}, "the stamp lies beyond the years 1 to 9999"),
        (["2024-01-01", "0001-01-01"], {"timezone": "+10:00"}, "the stamp lies beyond the years 1 to 9999"),
        (["2024-01-01T00:00Z", "9999-12-31T23:00-05:00"], {}, "the stamp lies beyond the years 1 to 9999"),
        (["1.1.2024", "31.02.2024"], {"timestamp_format": "%d.%m.%Y"}, "'31.02.2024' does not fit '%d.%m.%Y'"),
        (["1.1.2024", "29.02.2023"], {"timestamp_format": "%d.%m.%Y"}, "'29.02.2023' does not fit"),
        (["1.1.2024", "1.1.2024 5:00"], {"timestamp_format": "%d.%m.%Y"}, "'1.1.2024 5:00' does not fit"),
        (["1.1.2024", ""], {"timestamp_format": "%d.%m.%Y"}, "there is no stamp"),
        (["0.5", "0.123456789"], {"timestamp_format": "%S.%f"}, "'0.123456789' is finer than a microsecond, by '%S.%f'"),
    ],
)  # fmt: skip
def test_a_stamp_that_is_none_is_told_by_row_and_the_others_are_read(stamps, spec, said):
    found = read(stamps, **spec)
    assert [row for row, *_ in found.bad] == [1]
    assert found.bad[0][2].startswith(said) or said in found.bad[0][2]
    assert found.micros[0] == read(stamps[:1], **spec).micros[0]


def test_many_stamps_that_are_none_are_all_told():
    stamps = ["2024-01-01"] * 1000
    for row in (0, 10, 11, 999):
        stamps[row] = "2024-02-30"
    assert [row for row, _ in bad(stamps)] == [0, 10, 11, 999]


def test_the_first_stamp_decides_whether_there_are_offsets():
    assert [row for row, _ in bad(["soon", "2024-01-01T00:00Z", "2024-01-01", "2024-01-02"])] == [0, 2, 3]


def test_a_column_finer_than_a_microsecond_is_refused():
    with pytest.raises(Fault, match=r"^Column 't': .*Stamps are kept to the microsecond"):
        read(pa.array([NEW_YEAR * 10**9 + 1], pa.timestamp("ns")))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([1, 2], r"Column 't' holds int64; stamps are needed\. Set source\.timestamp_format, as epoch_s"),
        ([1.5], r"Column 't' holds double; stamps are needed\. Set source\.timestamp_format"),
        ([True], r"Column 't' holds bool; stamps are needed\. Name another column"),
        (pa.array([time(1)], pa.time64("us")), r"holds time64\[us\]; stamps are needed\. Name another column"),
    ],
)
def test_what_holds_no_stamps_is_refused(column, said):
    with pytest.raises(Fault, match=said):
        read(column)


def test_a_form_that_pandas_does_not_know_is_refused():
    with pytest.raises(Fault, match=r"source\.timestamp_format '%q': .*Use one as '%d\.%m\.%Y %H:%M'"):
        read(["1"], timestamp_format="%q")


# The repeated hour

PARIS = [f"2024-10-27 {hour}" for hour in ("01:30", "02:00", "02:30", "02:00", "02:30", "03:00")]
PARIS_UTC = ["2024-10-26T23:30:00", *(f"2024-10-27T0{hour}:00" for hour in ("0:00", "0:30", "1:00", "1:30", "2:00"))]


def test_a_repeated_hour_is_refused_unless_the_source_says_more():
    found = bad(PARIS, timezone="Europe/Paris")
    assert [row for row, _ in found] == [1, 2, 3, 4]
    assert found[0][1] == (
        "2024-10-27T02:00:00 was shown twice by the clock of Europe/Paris; set source.repeated_hour to 'order', 'first' or "
        "'second', or source.timezone to the offset that the stamps were taken in"
    )


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ("order", PARIS_UTC),
        ("first", [*PARIS_UTC[:3], *PARIS_UTC[1:3], PARIS_UTC[5]]),
        ("second", [PARIS_UTC[0], *PARIS_UTC[3:5], *PARIS_UTC[3:]]),
    ],
)
def test_a_repeated_hour_is_settled_as_the_source_says(policy, found):
    assert utc(PARIS, timezone="Europe/Paris", repeated_hour=policy) == found


def test_an_hourly_stamp_that_comes_twice_is_two_instants_in_order():
    stamps = ["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00"]
    found = ["2024-10-26T23:00:00", "2024-10-27T00:00:00", "2024-10-27T01:00:00", "2024-10-27T02:00:00"]
    assert utc(stamps, timezone="Europe/Paris", repeated_hour="order") == found


def test_a_clock_that_goes_back_half_an_hour_repeats_one_stamp():
    stamps = ["2024-04-07 01:00", "2024-04-07 01:30", "2024-04-07 01:30", "2024-04-07 02:00"]
    found = ["2024-04-06T14:00:00", "2024-04-06T14:30:00", "2024-04-06T15:00:00", "2024-04-06T15:30:00"]
    assert utc(stamps, timezone="Australia/Lord_Howe", repeated_hour="order") == found


def test_each_series_has_its_own_order():
    stamps = [stamp for stamp in PARIS for _ in range(3)]
    found = [stamp for stamp in PARIS_UTC for _ in range(3)]
    spec = {"timezone": "Europe/Paris", "repeated_hour": "order", "codes": [2, 0, 1] * 6, "names": ["a", "b", "c"]}
    assert utc(stamps, **spec) == found


@pytest.mark.parametrize("cut", range(1, 6))
def test_the_order_is_kept_across_the_blocks_of_a_stream(cut):
    state, spec = {}, {"timezone": "Europe/Paris", "repeated_hour": "order"}
    blocks = [(PARIS[:cut], ["a", "b"]), (PARIS[cut:], ["b", "a"])]  # each block has codes of its own
    found = []
    for block, names in blocks:
        codes = [names.index(name) for _ in block for name in ("a", "b")]
        found += utc([one for one in block for _ in range(2)], codes=codes, names=names, state=state, **spec)
    assert found == [one for one in PARIS_UTC for _ in range(2)]


def test_one_year_tells_nothing_of_the_next():
    last_year = ["2023-10-29 02:30", "2023-10-29 02:00", "2023-10-29 02:30"]
    state, spec = {}, {"timezone": "Europe/Paris", "repeated_hour": "order"}
    assert utc(last_year + PARIS[1:], **spec)[3:] == PARIS_UTC[1:]
    utc(last_year, state=state, **spec)
    utc(["2024-06-01 00:00"], state=state, **spec)
    assert state == {}
    assert utc(PARIS[1:], state=state, **spec) == PARIS_UTC[1:]


@settings(max_examples=150, deadline=None)
@given(zone=st.sampled_from(ZONES), year=st.integers(1975, 2035), part=st.sampled_from([1, 2, 3, 4]), data=st.data())
def test_the_wall_stamps_of_a_regular_grid_come_back_in_order(zone, year, part, data):
    clock = Clock(ZoneInfo(zone))
    first = (datetime(year, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    wall = clock.to_local(first + np.arange(2 * 24 * 380) * HALF_HOUR)
    jumps = [int(jump) for jump in HALF_HOUR - np.diff(wall) if jump > 0]
    # A step no longer than any jump back; a longer one may show an hour once that came twice, which no order tells.
    step = min([2 * HALF_HOUR, *jumps]) // part
    grid = first + np.arange(0, 380 * 48 * HALF_HOUR, step)
    found = read(clock.to_local(grid).view("datetime64[us]"), timezone=zone, repeated_hour="order")
    assert found.bad == []
    np.testing.assert_array_equal(found.micros, grid)
    cut, state = data.draw(st.integers(0, len(grid))), {}
    stamps = [pa.array(clock.to_local(own).view("datetime64[us]")) for own in (grid[:cut], grid[cut:])]
    parts = [read(own, timezone=zone, repeated_hour="order", state=state).micros for own in stamps]
    np.testing.assert_array_equal(np.concatenate(parts), grid)


# The skipped hour

SPRING = ["2024-03-31 01:30", "2024-03-31 02:00", "2024-03-31 02:30", "2024-03-31 03:00"]


def test_a_skipped_hour_is_refused_unless_the_source_says_more():
    found = bad(SPRING, timezone="Europe/Paris")
    assert [row for row, _ in found] == [1, 2]
    assert found[1][1].startswith(
        "2024-03-31T02:30:00 was never shown by the clock of Europe/Paris; set source.skipped_hour to"
    )


def test_a_skipped_hour_is_shifted_by_as_much_as_the_clock_was():
    found = read(SPRING, timezone="Europe/Paris", skipped_hour="shift")
    # As far as the clock was put forward: each stamp stays apart from the others.
    assert shown(found.micros) == [f"2024-03-31T{hour}" for hour in ("00:30:00", "01:00:00", "01:30:00", "01:00:00")]
    assert (found.shifted.tolist(), found.dropped, found.bad) == ([False, True, True, False], None, [])


def test_a_skipped_hour_is_dropped():
    found = read(SPRING, timezone="Europe/Paris", skipped_hour="drop")
    assert (found.dropped.tolist(), found.shifted, found.bad) == ([False, True, True, False], None, [])


@pytest.mark.parametrize("stamp", ["2024-03-31 02:30", "2024-10-27 02:30"])
def test_an_offset_settles_what_the_clock_skips_or_repeats(stamp):
    assert utc([stamp], timezone="+01:00") == utc([stamp + "+01:00"], timezone="Europe/Paris")
