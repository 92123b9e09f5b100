"""What the channels of a series mean, and what every artifact and model made from one source shares. Plain values."""

from pydantic import BaseModel, ConfigDict


class Columns(BaseModel):
    """What the channels of a row mean, in their order: target, whether it was observed, past covariates, known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    masked: bool = False  # a channel `observed` follows the target: 1 where it is a true value, 0 where it was filled in
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    calendar: tuple[str, ...] = ()  # future covariates too, each a sine and a cosine of the local clock
    holidays: str | None = None  # whose public holidays are a future covariate
    static: tuple[str, ...] = ()  # the same at every step of a series

    @property
    def known(self) -> tuple[str, ...]:
        """Every channel known over the horizon."""
        calendar = (f"{name}_{wave}" for name in self.calendar for wave in ("sin", "cos"))
        return (*self.future, *calendar, *(("holiday",) if self.holidays else ()), *self.static)

    @property
    def made(self) -> int:
        """How many channels the calendar makes, without any file."""
        return 2 * len(self.calendar) + bool(self.holidays)

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


class SeriesFacts(BaseModel):
    """What every artifact and model made from one source shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str  # the user's name for it
    columns: Columns
    frequency: str  # pandas alias
    season: int  # steps after which the series repeats; 1: it does not
    timezone: str  # of the local clock
