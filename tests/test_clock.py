from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.clock import BLOCK, Clock

ZONES = sorted(available_timezones())
EPOCH = datetime(1970, 1, 1)
HALF_HOUR, DAY = 1_800_000_000, 86_400_000_000  # microseconds
OFFSETS = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29))
YEARS = st.integers(1840, 2110) | st.integers(2, 9997)


def us(*texts):
    return np.array(texts, "datetime64[us]").astype(np.int64)


def shown(times):
    """Times as text, to the second."""
    return [str(time) for time in times.astype("datetime64[us]").astype("datetime64[s]")]


def as_us(naive):
    return (naive - EPOCH) // timedelta(microseconds=1)


def as_datetime(time):
    return EPOCH + timedelta(microseconds=int(time))


def clock_of(name):
    return Clock(ZoneInfo(name))


def read(name, *wall):
    """(first, second, skipped) of each wall reading."""
    first, second, skipped = clock_of(name).to_utc(us(*wall))
    return list(zip(shown(first), shown(second), skipped.tolist(), strict=True))


def local_by_datetime(zone, utc):
    return [as_us(as_datetime(time).replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)) for time in utc]


def utc_by_datetime(zone, wall, fold):
    told = (as_datetime(time).replace(tzinfo=zone, fold=fold) for time in wall)
    return [as_us(stamp.astimezone(UTC).replace(tzinfo=None)) for stamp in told]


@cache
def days_of_change(name, year):
    """The days of a year, as microseconds, on which the offset is another at the end than at the start."""
    zone, start = ZoneInfo(name), datetime(year, 1, 1, tzinfo=UTC)
    days = [start + timedelta(days=day) for day in range(367)]
    offsets = [day.astimezone(zone).utcoffset() for day in days]
    changed = (day for day, now, then in zip(days, offsets, offsets[1:], strict=False) if now != then)
    return [as_us(day.replace(tzinfo=None)) for day in changed]


def around_changes(name, year, step=HALF_HOUR):
    """A time every `step` near each change of a year, and one every three days elsewhere."""
    close = [np.arange(day - DAY, day + 2 * DAY, step) for day in days_of_change(name, year)]
    first = as_us(datetime(year, 1, 1))
    return np.concatenate([np.arange(first, first + 365 * DAY, 3 * DAY), *close])


def check_against_datetime(zone, times):
    """What must hold of any times, read as instants and as wall time."""
    clock = Clock(zone)
    local = clock.to_local(times)
    assert local.tolist() == local_by_datetime(zone, times)
    back = clock.to_utc(local)
    assert ((back.first == times) | (back.second == times)).all()
    assert not back.skipped.any()

    first, second, skipped = clock.to_utc(times)
    early = np.array(utc_by_datetime(zone, times, fold=0))
    assert skipped.tolist() == (np.array(local_by_datetime(zone, early)) != times).tolist()
    assert first[~skipped].tolist() == early[~skipped].tolist()
    assert second[~skipped].tolist() == np.array(utc_by_datetime(zone, times, fold=1))[~skipped].tolist()
    landings = first[skipped]
    assert second[skipped].tolist() == landings.tolist()
    assert (np.array(local_by_datetime(zone, landings)) > times[skipped]).all()
    assert (np.array(local_by_datetime(zone, landings - 1)) < times[skipped]).all()


@pytest.mark.parametrize("name", ZONES)
@settings(max_examples=3, deadline=None)
@given(year=YEARS)
def test_every_zone_agrees_with_datetime_around_its_changes(name, year):
    check_against_datetime(ZoneInfo(name), around_changes(name, year))


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(ZONES), time=MOMENTS)
def test_any_moment_agrees_with_datetime(name, time):
    check_against_datetime(ZoneInfo(name), np.array([as_us(time)]))


@settings(max_examples=50, deadline=None)
@given(name=st.sampled_from(["America/Nuuk", "Europe/Dublin", "Pacific/Apia"]), times=st.lists(MOMENTS, min_size=2))
def test_moments_millennia_apart_agree_with_datetime(name, times):
    check_against_datetime(ZoneInfo(name), np.array([as_us(time) for time in times]))


@settings(max_examples=100, deadline=None)
@given(offset=OFFSETS, times=st.lists(MOMENTS))
def test_any_fixed_offset_agrees_with_datetime(offset, times):
    check_against_datetime(timezone(offset), np.array([as_us(time) for time in times], np.int64))


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(ZONES), year=st.integers(1900, 2100), data=st.data())
def test_the_order_and_company_of_times_change_nothing(name, year, data):
    times = np.unique(around_changes(name, year))
    order = np.array(data.draw(st.permutations(range(len(times)))))
    together = clock_of(name).to_utc(times)
    mixed = clock_of(name).to_utc(times[order])
    alone = [clock_of(name).to_utc(times[row : row + 1]) for row in range(0, len(times), 40)]
    for column in range(3):
        assert mixed[column].tolist() == together[column][order].tolist()
        assert [one[column][0] for one in alone] == together[column][::40].tolist()


@pytest.mark.parametrize(
    ("day", "half_hours"),
    [
        ("2024-03-31", 46),  # the clock skips 02:00..03:00
        ("2024-06-01", 48),
        ("2024-10-27", 50),  # the clock repeats 02:00..03:00
    ],
)
def test_a_day_in_paris_has_46_48_or_50_half_hours(day, half_hours):
    start = us(day)
    bounds = clock_of("Europe/Paris").to_utc(np.append(start, start + DAY)).first
    utc = np.arange(*bounds, HALF_HOUR)
    assert len(utc) == half_hours
    wall = clock_of("Europe/Paris").to_local(utc)
    assert {text[:10] for text in shown(wall)} == {day}
    assert len(set(wall.tolist())) == min(half_hours, 48)


def test_paris_reads_two_to_three_twice_in_october():
    assert read("Europe/Paris", "2024-10-27T01:59:59", "2024-10-27T02:00", "2024-10-27T02:59:59", "2024-10-27T03:00") == [
        ("2024-10-26T23:59:59", "2024-10-26T23:59:59", False),
        ("2024-10-27T00:00:00", "2024-10-27T01:00:00", False),
        ("2024-10-27T00:59:59", "2024-10-27T01:59:59", False),
        ("2024-10-27T02:00:00", "2024-10-27T02:00:00", False),
    ]


def test_paris_never_shows_two_to_three_in_march_and_such_readings_move_to_three():
    assert read("Europe/Paris", "2024-03-31T01:59:59", "2024-03-31T02:00", "2024-03-31T02:59:59", "2024-03-31T03:00") == [
        ("2024-03-31T00:59:59", "2024-03-31T00:59:59", False),
        ("2024-03-31T01:00:00", "2024-03-31T01:00:00", True),
        ("2024-03-31T01:00:00", "2024-03-31T01:00:00", True),
        ("2024-03-31T01:00:00", "2024-03-31T01:00:00", False),
    ]


def test_repeated_marks_the_readings_with_two_instants_and_no_skipped_one():
    wall = us("2024-03-31T02:30", "2024-10-27T01:30", "2024-10-27T02:30", "2024-10-27T03:30")
    assert clock_of("Europe/Paris").to_utc(wall).repeated.tolist() == [False, False, True, False]


REPEATED = [  # zone, reading, its two instants
    ("Australia/Lord_Howe", "2024-04-07T01:45", "2024-04-06T14:45:00", "2024-04-06T15:15:00"),  # by 30 minutes
    ("Pacific/Kwajalein", "1969-09-30T12:00", "1969-09-30T01:00:00", "1969-10-01T00:00:00"),  # 23 hours, over the date line
    ("Europe/Moscow", "2014-10-26T01:30", "2014-10-25T21:30:00", "2014-10-25T22:30:00"),  # standard time moved back
    ("Asia/Pyongyang", "2015-08-14T23:45", "2015-08-14T14:45:00", "2015-08-14T15:15:00"),  # +09:00 to +08:30
    ("Africa/Casablanca", "2024-03-10T02:30", "2024-03-10T01:30:00", "2024-03-10T02:30:00"),  # Ramadan begins
    ("Europe/Dublin", "2024-10-27T01:30", "2024-10-27T00:30:00", "2024-10-27T01:30:00"),  # winter is the exception
    ("America/Nuuk", "2024-10-26T23:30", "2024-10-27T00:30:00", "2024-10-27T01:30:00"),  # the evening before
    ("Antarctica/Troll", "2024-10-27T01:30", "2024-10-26T23:30:00", "2024-10-27T01:30:00"),  # by two hours
    ("Asia/Kolkata", "1945-10-14T23:30", "1945-10-14T17:00:00", "1945-10-14T18:00:00"),  # war time ends
    ("Europe/Paris", "2090-10-29T02:30", "2090-10-29T00:30:00", "2090-10-29T01:30:00"),  # after the listed changes
]


@pytest.mark.parametrize(("name", "wall", "first", "second"), REPEATED)
def test_a_clock_set_back_shows_readings_twice(name, wall, first, second):
    assert read(name, wall) == [(first, second, False)]
    assert shown(clock_of(name).to_local(us(first, second))) == [f"{wall}:00"] * 2


SKIPPED = [  # zone, reading that was never shown, the instant of the jump, what the clock showed then
    ("Australia/Lord_Howe", "2024-10-06T02:15", "2024-10-05T15:30:00", "2024-10-06T02:30:00"),  # by 30 minutes
    ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00:00", "2011-12-31T00:00:00"),  # a whole day
    ("Pacific/Kwajalein", "1993-08-21T12:00", "1993-08-21T12:00:00", "1993-08-22T00:00:00"),  # a whole day
    ("Europe/Moscow", "2011-03-27T02:30", "2011-03-26T23:00:00", "2011-03-27T03:00:00"),  # summer time for good
    ("Asia/Pyongyang", "2018-05-04T23:45", "2018-05-04T15:00:00", "2018-05-05T00:00:00"),  # +08:30 to +09:00
    ("Asia/Kathmandu", "1986-01-01T00:10", "1985-12-31T18:30:00", "1986-01-01T00:15:00"),  # +05:30 to +05:45
    ("Africa/Casablanca", "2024-04-14T02:30", "2024-04-14T02:00:00", "2024-04-14T03:00:00"),  # Ramadan ends
    ("Europe/Dublin", "2024-03-31T01:30", "2024-03-31T01:00:00", "2024-03-31T02:00:00"),
    ("America/Nuuk", "2024-03-30T23:30", "2024-03-31T01:00:00", "2024-03-31T00:00:00"),  # the evening before
    ("Antarctica/Troll", "2024-03-31T02:30", "2024-03-31T01:00:00", "2024-03-31T03:00:00"),  # by two hours
    ("Europe/Paris", "2090-03-26T02:30", "2090-03-26T01:00:00", "2090-03-26T03:00:00"),  # after the listed changes
]


@pytest.mark.parametrize(("name", "wall", "jump", "then"), SKIPPED)
def test_a_clock_set_forward_skips_readings(name, wall, jump, then):
    assert read(name, wall) == [(jump, jump, True)]
    assert read(name, then) == [(jump, jump, False)]
    assert shown(clock_of(name).to_local(us(jump))) == [then]


def test_apia_went_from_the_29th_to_the_31st():
    assert read("Pacific/Apia", "2011-12-29T23:59:59", "2011-12-30T00:00", "2011-12-30T23:59:59", "2011-12-31T00:00") == [
        ("2011-12-30T09:59:59", "2011-12-30T09:59:59", False),
        ("2011-12-30T10:00:00", "2011-12-30T10:00:00", True),
        ("2011-12-30T10:00:00", "2011-12-30T10:00:00", True),
        ("2011-12-30T10:00:00", "2011-12-30T10:00:00", False),
    ]


def test_local_mean_time_keeps_its_seconds():
    assert shown(clock_of("Europe/Paris").to_local(us("1880-01-01T12:00"))) == ["1880-01-01T12:09:21"]
    assert read("Europe/Paris", "1880-01-01T12:09:21") == [("1880-01-01T12:00:00", "1880-01-01T12:00:00", False)]


def test_changes_that_undo_each_other_within_days_are_found():
    # Recife tried summer time for a week in October 2000; Freetown, in the full tz database, for four days of 1939.
    check_against_datetime(ZoneInfo("America/Recife"), np.arange(*us("2000-10-01", "2000-10-21"), HALF_HOUR))
    check_against_datetime(ZoneInfo("Africa/Freetown"), np.arange(*us("1939-08-25", "1939-09-10"), HALF_HOUR))


def test_microseconds_are_kept():
    assert read("Europe/Paris", "2024-01-01T00:00:00.000001")[0][0] == "2023-12-31T23:00:00"
    assert clock_of("Europe/Paris").to_utc(us("2024-01-01T00:00:00.000001")).first % 1_000_000 == 1
    before, at = us("2024-03-31T00:59:59.999999", "2024-03-31T01:00:00.000000")
    assert (clock_of("Europe/Paris").to_local(np.array([before, at])) - [before, at]).tolist() == [DAY // 24, DAY // 12]


@pytest.mark.parametrize(
    ("zone", "wall", "utc"),
    [
        (UTC, "2024-01-01T00:00:00", "2024-01-01T00:00:00"),
        (ZoneInfo("Etc/GMT+5"), "2024-01-01T00:00:00", "2024-01-01T05:00:00"),  # the sign is POSIX's
        (timezone(timedelta(hours=10)), "2024-01-01T00:00:00", "2023-12-31T14:00:00"),
        (timezone(timedelta(hours=-3, minutes=-30)), "2024-01-01T00:00:00", "2024-01-01T03:30:00"),
    ],
)
def test_a_fixed_offset_skips_and_repeats_nothing(zone, wall, utc):
    first, second, skipped = Clock(zone).to_utc(us(wall))
    assert (shown(first), shown(second), skipped.tolist()) == ([utc], [utc], [False])
    assert shown(Clock(zone).to_local(first)) == [wall]


@pytest.mark.parametrize("zone", [ZoneInfo("Europe/Paris"), timezone(timedelta(hours=1))])
def test_no_times_give_no_times(zone):
    none = np.empty(0, np.int64)
    assert Clock(zone).to_local(none).dtype == np.int64
    first, second, skipped = Clock(zone).to_utc(none)
    assert (first.dtype, second.dtype, skipped.dtype) == (np.int64, np.int64, np.bool_)
    assert len(first) == len(second) == len(skipped) == 0


def test_beyond_the_years_of_datetime_the_first_and_last_offsets_apply():
    times = us("-250000-06-01", "0001-01-01", "9999-12-31T23:59:59", "12024-07-01", "250000-07-01")
    lmt, winter = 561_000_000, 3_600_000_000
    assert (clock_of("Europe/Paris").to_local(times) - times).tolist() == [lmt, lmt, winter, winter, winter]
    first, second, skipped = clock_of("Europe/Paris").to_utc(times)
    assert (times - first).tolist() == [lmt, lmt, winter, winter, winter]
    assert not skipped.any()
    assert second.tolist() == first.tolist()
    assert shown(clock_of("Europe/Paris").to_local(times[-1:])) == ["250000-07-01T01:00:00"]  # alone too


def test_shapes_are_kept():
    times = us("2024-10-27T02:30", "2024-03-31T02:30", "2024-01-01", "2024-07-01").reshape(2, 2)
    assert clock_of("Europe/Paris").to_local(times).shape == (2, 2)
    first, second, skipped = clock_of("Europe/Paris").to_utc(times)
    assert first.shape == second.shape == (2, 2)
    assert skipped.tolist() == [[False, True], [False, False]]
    assert clock_of("Europe/Paris").to_utc(times.T).skipped.tolist() == [[False, False], [True, False]]
    assert shown(clock_of("Europe/Paris").to_local(times[1, 1])[None]) == ["2024-07-01T02:00:00"]


def test_what_is_given_is_never_changed():
    for zone in (ZoneInfo("Europe/Paris"), UTC):
        times = us("2024-10-27T02:30", "2024-03-31T02:30", "2024-01-01")
        kept = times.copy()
        times.flags.writeable = False
        results = [Clock(zone).to_local(times), *Clock(zone).to_utc(times)]
        assert times.tolist() == kept.tolist()
        assert not any(np.shares_memory(times, result) for result in results)


@pytest.mark.parametrize("times", [np.array([0.5]), us("2024-01-01").astype("datetime64[us]"), np.array([1], np.int32)])
def test_times_of_another_type_are_a_programmers_mistake(times):
    with pytest.raises(AssertionError, match="microseconds as int64 are needed"):
        clock_of("Europe/Paris").to_utc(times)


def test_a_year_of_many_blocks_is_read_as_its_rows_are():
    wall = us("2024-01-01")[0] + np.arange(0, 366 * DAY, 60_000_000)
    assert len(wall) > 8 * BLOCK
    for order in (slice(None), np.random.default_rng(0).permutation(len(wall))):  # one offset a block, and two
        first, second, skipped = clock_of("Europe/Paris").to_utc(wall[order])
        summer = (wall >= us("2024-03-31T03:00")) & (wall < us("2024-10-27T03:00"))
        gap = (wall >= us("2024-03-31T02:00")) & (wall < us("2024-03-31T03:00"))
        again = (wall >= us("2024-10-27T02:00")) & (wall < us("2024-10-27T03:00"))
        hour = 2 * HALF_HOUR
        expected = np.where(gap, us("2024-03-31T01:00"), wall - hour - summer * hour)
        assert np.array_equal(first, expected[order])
        assert np.array_equal(second, (expected + again * hour)[order])
        assert np.array_equal(skipped, gap[order])
        assert np.array_equal(clock_of("Europe/Paris").to_local(first[~skipped]), wall[order][~skipped])
