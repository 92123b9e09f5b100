"""Single days of the year: their numbers, what nets learn of them, and nets that must not take them for quantities."""

import numpy as np
import pandas as pd
import pytest
import torch

from models.batches import TensorBlocks
from models.dates import Dates, without_dates
from models.fit import fit
from models.inputs import candidates, keep_channels
from models.networks import FitSettings, build_network, recipe
from models.scaling import ScalingSpec, fit_scale
from models.series import NUM_DAYS, NUM_WEEKDAYS, Columns
from models.specs import LinearSpec, PeriodicSpec, PyramidSpec, ReferenceSpec, RegressionSpec, ResidualSpec
from models.spread import SpreadNet
from models.windows import WindowSpec
from tasks.ingest.calendar import numbers_of_days, usual_calendar

WINDOWS = WindowSpec(lookback=28, horizon=7)
# target, seen; known: warm, weekday_sin, weekday_cos, date_day, date_weekday, size
COLUMNS = Columns(past=("seen",), future=("warm",), calendar=("weekday", "date"), static=("size",))
LEARN_OF_DAYS = [PyramidSpec(), ResidualSpec(), RegressionSpec()]
LEARN_NOTHING = [LinearSpec(), PeriodicSpec(), PeriodicSpec(branch="none")]


def numbers(*days: str) -> list[tuple[float, float]]:
    return list(zip(*(part.tolist() for part in numbers_of_days(pd.DatetimeIndex(days))), strict=True))


def rows_of(first: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Past (1, 28, 8) and future (1, 7, 6) of random rows whose numbers are those of real days."""
    days = pd.date_range(first, periods=count, freq="D")
    rows = torch.randn(1, count, COLUMNS.num_channels, generator=torch.Generator().manual_seed(0))
    rows[0, :, 5:7] = torch.tensor(np.stack(numbers_of_days(days), 1), dtype=torch.float32)
    return rows[:, :28], rows[:, 28:, COLUMNS.first_known :]


def other_days(channels: torch.Tensor, at: int) -> torch.Tensor:
    changed = channels.clone()
    changed[:, :, at : at + 2] += 3
    return changed


def moved(spec) -> torch.nn.Module:
    """A net whose every weight has moved."""
    torch.manual_seed(0)
    network = build_network(spec, COLUMNS, WINDOWS, 7)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    return network.eval()


def test_a_day_has_the_number_of_its_date_and_that_of_its_weekday_in_the_month():
    christmas = 11 * 31 + 24
    assert [day for day, _ in numbers("2023-12-25", "2024-12-25", "2024-12-26")] == [christmas, christmas, christmas + 1]
    fourth_thursday_of_november = 10 * 35 + 3 * 7 + 3
    assert [week for _, week in numbers("2023-11-23", "2024-11-28")] == [fourth_thursday_of_november] * 2


def test_every_day_of_forty_years_has_its_place_and_every_hour_of_a_day_the_same():
    day, weekday = numbers_of_days(pd.date_range("2000-01-01", "2040-01-01", freq="D"))
    assert 0 == day.min() < day.max() == NUM_DAYS - 1
    assert len(np.unique(day)) == 366
    assert 0 == weekday.min() < weekday.max() < NUM_WEEKDAYS
    assert len(set(numbers(*[f"2024-03-01T{hour:02d}:30" for hour in range(24)]))) == 1


@pytest.mark.parametrize(
    ("frequency", "years", "dated"),
    [
        ("D", 4.1, True),
        ("D", 3.9, False),
        ("h", 4.1, True),
        ("h", 3.9, False),
        ("B", 4.1, True),
        ("B", 3.9, False),
        ("W", 9, False),
    ],
)
def test_where_nothing_is_said_four_years_of_days_tell_of_dates(frequency, years, dated):
    a_year = {"D": 365.25, "h": 8766, "B": 260.9, "W": 52.2}[frequency]
    assert ("date" in usual_calendar(frequency, years * a_year, ())) == dated
    assert "date" not in usual_calendar(frequency, 50 * a_year, ["date_day"])


def test_numbers_of_days_are_not_scaled():
    rows = np.random.default_rng(0).normal(size=(100, COLUMNS.num_channels - COLUMNS.made))
    scale = fit_scale([rows], COLUMNS, 7, 100, 100, ScalingSpec())
    assert COLUMNS.names[5:7] == ("date_day", "date_weekday")
    assert scale.mean[5:7] == (0.0, 0.0)
    assert scale.std[5:7] == (1.0, 1.0)


def test_a_day_becomes_what_was_learned_of_its_date_plus_what_was_learned_of_its_weekday_in_the_month():
    dates = Dates(COLUMNS)
    with torch.no_grad():
        dates.day.weight[5] = torch.tensor([1.0, 2.0])
        dates.weekday.weight[9] = torch.tensor([10.0, 20.0])
    known = torch.tensor([[7.0, 0.1, 0.2, 5, 9, 8], [7.0, 0.1, 0.2, 6, 9, 8], [7.0, 0.1, 0.2, 6, 8, 8]])
    told = [[7, 0.1, 0.2, 11, 22, 8], [7, 0.1, 0.2, 10, 20, 8], [7, 0.1, 0.2, 0, 0, 8]]
    assert torch.allclose(dates(known), torch.tensor(told))
    assert torch.equal(without_dates(known, COLUMNS.date_at), known[:, [0, 1, 2, 5]])


def test_without_dates_in_the_calendar_there_is_nothing_to_learn_and_nothing_is_changed():
    dates, known = Dates(Columns(future=("warm",), calendar=("weekday",))), torch.randn(2, 3, 3)
    assert not dates.state_dict()
    assert dates(known) is known
    assert without_dates(known, None) is known


@pytest.mark.parametrize("spec", LEARN_OF_DAYS, ids=lambda spec: spec.kind)
def test_untrained_every_day_is_alike_and_once_trained_it_is_not(spec):
    past, future = rows_of("2024-03-01", 35)
    fresh = build_network(spec, COLUMNS, WINDOWS, 7).eval()
    assert torch.equal(fresh(past, future), fresh(past, other_days(future, 3)))
    network = moved(spec)
    assert not torch.allclose(network(past, future), network(past, other_days(future, 3)), atol=1e-4)


@pytest.mark.parametrize("spec", LEARN_OF_DAYS, ids=lambda spec: spec.kind)
def test_days_are_looked_up_by_number_and_not_taken_for_quantities(spec):
    past, future = rows_of("2024-03-01", 35)
    network = moved(spec)
    with torch.no_grad():
        for table in (network.dates.day, network.dates.weekday):
            table.weight.copy_(table.weight[:1].expand_as(table.weight))  # all days alike
    assert torch.equal(network(past, future), network(other_days(past, 5), other_days(future, 3)))


@pytest.mark.parametrize("spec", LEARN_NOTHING, ids=str)
def test_nets_that_see_nothing_after_the_origin_see_no_numbers_of_days(spec):
    past, future = rows_of("2024-03-01", 35)
    network = moved(spec)
    assert torch.equal(network(past, future), network(other_days(past, 5), other_days(future, 3)))


def test_the_reference_net_sees_no_numbers_of_days():
    columns = Columns(future=("warm",), calendar=("date",), static=("size",))
    torch.manual_seed(0)
    network = build_network(ReferenceSpec(), columns, WINDOWS, 7).eval()
    past, future = torch.randn(2, 28, 5), torch.randn(2, 7, 4)
    assert torch.equal(network(past, future), network(other_days(past, 2), other_days(future, 1)))
    assert network(past, future).shape == (2, 7)


def test_how_sure_a_forecast_is_does_not_hang_on_numbers_of_days():
    past, future = rows_of("2024-03-01", 35)
    network, forecast = SpreadNet.fresh((0.1, 0.5, 0.9), COLUMNS, WINDOWS, 7), torch.randn(1, 7)
    torch.nn.init.normal_(network.head.weight)
    quantiles = network(past[:, :, 0], future, forecast)
    assert torch.equal(quantiles, network(past[:, :, 0], other_days(future, 3), forecast))
    assert not torch.equal(quantiles, network(past[:, :, 0], future + torch.tensor([1.0, 0, 0, 0, 0, 0]), forecast))


def test_numbers_of_days_are_no_candidates_and_can_be_named():
    channels = {one.channel for one in candidates(COLUMNS, 28, 7, 7)[1]}
    assert channels == {"target", "seen", "warm", "weekday_sin", "weekday_cos"}
    theirs = Columns(future=("date_day",))  # a covariate of the user's own
    assert "date_day" in {one.channel for one in candidates(theirs, 28, 7, 7)[1]}
    assert keep_channels(COLUMNS, ["date"]).calendar == keep_channels(COLUMNS, ["date_weekday"]).calendar == ("date",)


@pytest.mark.parametrize("spec", LEARN_OF_DAYS[:2], ids=lambda spec: spec.kind)
def test_a_dip_that_comes_every_christmas_is_forecast_for_the_next_one(spec):
    days, windows = pd.date_range("2010-01-01", "2020-12-31", freq="D"), WindowSpec(lookback=28, horizon=7)
    columns, week = Columns(calendar=("date",)), np.sin(2 * np.pi * np.arange(len(days)) / 7)
    holidays = 1.5 * np.isin(days.strftime("%m-%d"), ["12-25", "01-01", "07-14", "05-01"])
    noise = np.random.default_rng(0).normal(0, 0.1, len(days))
    rows = torch.tensor(np.stack([week - holidays + noise, *numbers_of_days(days)], 1), dtype=torch.float32)
    settings = recipe(spec, FitSettings(max_steps=900, steps_per_epoch=100))

    def build():
        return build_network(spec, columns, windows, 7)

    blocks = [TensorBlocks([part], windows.span) for part in (rows[:-731], rows[-731:-366])]
    fitted = fit(build, *blocks, columns, windows, settings, 0)
    network = build()
    network.load_state_dict(fitted.weights)
    origin = len(days) - 10  # forecasts 22 to 28 December 2020
    with torch.no_grad():
        forecast = network.eval()(rows[None, origin - 28 : origin], rows[None, origin : origin + 7, 1:])[0].numpy()
    dip = forecast - week[origin : origin + 7]
    assert days[origin + 3] == pd.Timestamp("2020-12-25")
    assert dip[3] < -0.9
    assert np.abs(np.delete(dip, 3)).max() < 0.4
