from datetime import timedelta, timezone
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from models.errors import Fault
from tasks.ingest.timeline import (
    following,
    grid_between,
    infer_frequency,
    parse_offset,
    parse_timezone,
    season_of,
)


def shown(stamps):
    return [stamp.isoformat() for stamp in stamps]


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
    assert infer_frequency(stamps) == alias
    assert infer_frequency(stamps[::-1]) == alias


@pytest.mark.parametrize("frequency", ["30min", "D", "W-MON", "MS", "B"])
def test_a_frequency_is_inferred_through_gaps_and_repeats(frequency):
    stamps = pd.date_range("2024-01-01", periods=60, freq=frequency, tz="UTC")
    holed = stamps.delete([5, 30, 31, 50]).insert(20, stamps[20])
    assert infer_frequency(holed) == frequency


@pytest.mark.parametrize("frequency", ["h", "D"])
def test_a_frequency_is_inferred_across_daylight_saving(frequency):
    stamps = pd.date_range("2024-03-20", periods=20 if frequency == "D" else 480, freq=frequency, tz="Europe/Paris")
    assert infer_frequency(stamps) == frequency


def test_weekly_stamps_with_many_holes_are_still_a_calendar_step():
    stamps = pd.date_range("2024-01-01", periods=60, freq="7D", tz="Europe/Paris")
    holed = stamps[[at for at in range(60) if at % 5 != 3]]
    offset = parse_offset(infer_frequency(holed))
    assert len(grid_between(stamps[0], stamps[-1], offset)) == 60
    assert holed.isin(grid_between(stamps[0], stamps[-1], offset)).all()


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


def test_too_few_stamps_tell_no_frequency():
    stamps = pd.DatetimeIndex(["2024-01-01T00:00Z", "2024-01-01T01:00Z", "2024-01-01T01:00Z"])
    with pytest.raises(Fault, match=r"^The source has 2 different stamps in its first series; set source\.frequency"):
        infer_frequency(stamps)


def test_a_step_finer_than_a_microsecond_is_refused():
    with pytest.raises(Fault, match=r"^source\.frequency '500ns' is finer than a microsecond"):
        parse_offset("500ns")
    assert parse_offset("1us").nanos == 1000


def test_a_grid_that_begins_where_midnight_is_skipped_goes_on_at_midnight():
    first, last = pd.Timestamp("2018-11-04 01:00", tz="America/Sao_Paulo"), pd.Timestamp("2018-11-06", tz="America/Sao_Paulo")
    assert shown(grid_between(first, last, parse_offset("D"))) == [
        "2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00", "2018-11-06T00:00:00-02:00",
    ]  # fmt: skip
    assert shown(following(first, 1, parse_offset("D"))) == ["2018-11-05T00:00:00-02:00"]


def test_a_day_that_the_clock_leaves_out_is_no_step():
    last = pd.Timestamp("2011-12-29", tz="Pacific/Apia")
    assert shown(following(last, 2, parse_offset("D"))) == ["2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"]
    assert shown(following(pd.Timestamp("2011-12-31", tz="Pacific/Apia"), 1, parse_offset("D"))) == [
        "2012-01-01T00:00:00+14:00"
    ]


@pytest.mark.parametrize("hour", [2, 3])
def test_an_hour_that_is_skipped_by_day_is_left_to_its_own_clock(hour):
    days = [pd.Timestamp(f"2024-03-{day} 0{hour}:00", tz="Europe/Paris") for day in (29, 30)]
    ahead = following(days[0], 3, parse_offset("D"))
    assert shown(ahead)[0] == days[1].isoformat()
    assert shown(ahead)[1:] == ["2024-03-31T03:00:00+02:00", f"2024-04-01T0{hour}:00:00+02:00"]
