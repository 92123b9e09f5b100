import numpy as np
import pandas as pd
import pytest
from canonical_rows import micros

from models.errors import Fault
from models.series import Columns
from tasks.ingest import calendar as calendars
from tasks.ingest.calendar import Calendar, calendar_of, holiday_flags, usual_calendar, waves
from tasks.policy import identity


def calendar(zone="UTC"):
    return Calendar(frequency="h", timezone=zone)


def test_the_calendar_is_read_off_the_local_clock():
    stamps = micros(["2024-01-01T23:00Z", "2024-07-01T04:00Z"])  # 00:00 on Tuesday, 06:00 on Monday
    made = calendar("Europe/Paris").channels(stamps, Columns(calendar=("hour", "weekday")))
    turn = 2 * np.pi / 7
    assert made == pytest.approx(np.array([[0, 1, np.sin(turn), np.cos(turn)], [1, 0, 0, 1]]), abs=1e-12)


def test_the_hour_of_the_calendar_has_minutes_and_the_year_begins_at_zero():
    columns = waves(pd.DatetimeIndex(["2024-01-01T00:00", "2024-01-02T04:30"]), ("hour", "day_of_year"))
    assert list(columns) == ["hour_sin", "hour_cos", "day_of_year_sin", "day_of_year_cos"]
    assert columns["hour_sin"] == pytest.approx([0, np.sin(2 * np.pi * 4.5 / 24)])
    assert columns["day_of_year_sin"] == pytest.approx([0, np.sin(2 * np.pi / 365.25)])
    assert columns["day_of_year_cos"] == pytest.approx([1, np.cos(2 * np.pi / 365.25)])


def test_an_hour_that_comes_twice_has_one_place_in_the_day():
    stamps = micros(["2024-10-27T00:30Z", "2024-10-27T01:30Z"])  # both 02:30 in Paris
    made = calendar("Europe/Paris").channels(stamps, Columns(calendar=("hour",)))
    assert made[0].tolist() == made[1].tolist() == pytest.approx([np.sin(2 * np.pi * 2.5 / 24), np.cos(2 * np.pi * 2.5 / 24)])


def test_made_channels_stand_before_the_static_ones_of_the_file():
    columns = Columns(masked=True, past=("p",), future=("f",), calendar=("hour",), static=("s",))
    stored = np.array([[1.0, 1, 2, 3, 9]])  # target, observed, p, f, s
    rows = calendar().insert(stored, micros(["2024-01-01T06:00Z"]), columns)
    assert columns.names == ("target", "observed", "p", "f", "hour_sin", "hour_cos", "s")
    assert rows == pytest.approx(np.array([[1, 1, 2, 3, 1, 0, 9]]), abs=1e-12)


def test_rows_without_made_channels_are_left_alone():
    rows = np.array([[1.0, 2]])
    assert calendar().insert(rows, micros(["2024-01-01"]), Columns(past=("p",))) is rows
    assert calendar().channels(np.empty(0, np.int64), Columns()).shape == (0, 0)


@pytest.mark.parametrize(
    ("frequency", "names"),
    [
        ("15min", ("hour", "weekday")),
        ("h", ("hour", "weekday")),
        ("12h", ("hour", "weekday")),
        ("D", ("weekday",)),
        ("24h", ("weekday",)),
        ("B", ("weekday",)),
        ("2D", ()),
        ("W", ()),
        ("MS", ()),
        ("QE", ()),
    ],
)
def test_where_nothing_is_said_the_frequency_tells_which_waves_help(frequency, names):
    assert usual_calendar(frequency, 1000, ()) == names


def test_a_covariate_of_the_users_own_takes_the_place_of_a_wave_of_its_name():
    assert usual_calendar("h", 1000, ["load", "hour_sin"]) == ("weekday",)


def test_no_stamps_make_no_rows():
    assert calendar().channels(np.empty(0, np.int64), Columns(calendar=("hour",))).shape == (0, 2)


def test_holidays_are_those_of_the_local_day():
    pytest.importorskip("holidays")
    columns = Columns(holidays="AU")
    stamps = micros(["2023-12-31T12:30Z", "2023-12-31T13:30Z", "2024-01-02T12:00Z"])  # New Year begins at 13:00 UTC
    assert calendar("Australia/Sydney").channels(stamps, columns).tolist() == [[0], [1], [0]]


def test_a_place_without_known_holidays_is_named():
    pytest.importorskip("holidays")
    with pytest.raises(Fault, match=r"^source\.holidays 'XX' is no place that the package holidays knows; use one as AU"):
        holiday_flags(pd.DatetimeIndex(["2024-01-01"]), "XX")


def test_a_release_of_the_holidays_is_part_of_a_calendar_that_has_some_and_of_no_other(monkeypatch):
    keys = {}
    for release in ("0.60", "0.61"):
        monkeypatch.setattr(calendars.metadata, "version", {"holidays": release}.__getitem__)
        keys[release] = [
            identity(calendar_of("h", "UTC", columns)) for columns in (Columns(holidays="AU"), Columns(calendar=("hour",)))
        ]
    assert keys["0.60"][0] != keys["0.61"][0]
    assert keys["0.60"][1] == keys["0.61"][1]


def test_holidays_without_their_package_say_what_to_install(monkeypatch):
    def absent(name):
        raise calendars.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(calendars.metadata, "version", absent)
    assert calendar_of("h", "UTC", Columns()) == calendar()
    with pytest.raises(Fault, match=r"^source\.holidays needs the package holidays\. Install it: pip install holidays\.$"):
        calendar_of("h", "UTC", Columns(holidays="AU"))
