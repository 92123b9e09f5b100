"""What the channels of a series mean, and what every artifact and model made from one source shares. Plain values."""

from pydantic import BaseModel, ConfigDict

DATE = "date"  # of a calendar: single days of the year, which are told by their numbers
NUM_DAYS, NUM_WEEKDAYS = 12 * 31, 12 * 5 * 7  # days of every month; first to fifth Monday to Sunday of every month


class Columns(BaseModel):
    """What the channels of a row mean, in their order: target, whether it was observed, past covariates, known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    masked: bool = False  # a channel `observed` follows the target: 1 where it is a true value, 0 where it was filled in
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    calendar: tuple[str, ...] = ()  # future covariates too, two channels each, as `clock_channels` names them
    holidays: str | None = None  # whose public holidays are a future covariate
    static: tuple[str, ...] = ()  # the same at every step of a series

    @property
    def known(self) -> tuple[str, ...]:
        """Every channel known over the horizon."""
        calendar = (channel for name in self.calendar for channel in clock_channels(name))
        return (*self.future, *calendar, *(("holiday",) if self.holidays else ()), *self.static)

    @property
    def made(self) -> int:
        """How many channels the calendar makes, without any file."""
        return 2 * len(self.calendar) + bool(self.holidays)

    @property
    def date_at(self) -> int | None:
        """Where, among what is known, the two numbers of a day stand; None where the calendar does not tell them."""
        return len(self.future) + 2 * self.calendar.index(DATE) if DATE in self.calendar else None

    @property
    def numbers(self) -> tuple[str, ...]:
        """The channels that are numbers of days, and no quantities."""
        return clock_channels(DATE) if DATE in self.calendar else ()

    @property
    def num_measured(self) -> int:
        """How many channels known over the horizon are quantities."""
        return len(self.known) - len(self.numbers)

    @property
    def past_only(self) -> tuple[str, ...]:
        """Every channel known up to the origin only, beside the target."""
        return (*(("observed",) if self.masked else ()), *self.past)

    @property
    def first_known(self) -> int:
        """Where the channels known over the horizon begin."""
        return 1 + len(self.past_only)

    @property
    def names(self) -> tuple[str, ...]:
        return ("target", *self.past_only, *self.known)

    @property
    def num_channels(self) -> int:
        return len(self.names)


def clock_channels(name: str) -> tuple[str, str]:
    """The two channels of one part of a calendar: sine and cosine, or the numbers of a day."""
    return (f"{name}_day", f"{name}_weekday") if name == DATE else (f"{name}_sin", f"{name}_cos")


def without_part(columns: Columns, name: str) -> Columns:
    """These columns without one part of the calendar."""
    return columns.model_copy(update={"calendar": tuple(one for one in columns.calendar if one != name)})


class SeriesFacts(BaseModel):
    """What every artifact and model made from one source shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str  # the user's name for it
    columns: Columns
    frequency: str  # pandas alias
    season: int  # steps after which the series repeats; 1: it does not
    timezone: str  # of the local clock
