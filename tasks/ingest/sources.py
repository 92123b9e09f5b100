"""What a user says about a source: where it lies, what its columns mean, and what to do about its faults."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import Fault, shortlist
from models.series import Columns, clock_channels

RESERVED = ("series_id", "timestamp", "target", "observed")
USUAL_MARKERS = ("", "NA", "N/A", "n/a", "NaN", "NAN", "nan", "-NaN", "-nan", "NULL", "null", "None", "#N/A", "#NA", "<NA>")
Stamp = str | tuple[str, str]


class Rule(BaseModel):
    """What the values of one column must keep to, in its own unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min: float | None = Field(None, description="smallest value allowed")
    max: float | None = Field(None, description="largest value allowed")
    not_null: bool = Field(False, description="no empty value, whatever source.missing allows")
    max_gap: int | None = Field(None, ge=0, description="longest run of absent or empty steps, whatever is repaired")
    max_flat: int | None = Field(None, ge=1, description="longest run of steps with one and the same value")
    max_jump: float | None = Field(None, gt=0, description="largest change from one step to the next")

    @model_validator(mode="after")
    def _some_value_keeps_to_it(self):
        if self.min is not None and self.max is not None and self.min > self.max:
            raise Fault(f"min {self.min:g} is above max {self.max:g}, so no value keeps to both. Change one of them.")
        return self


class SourceSpec(BaseModel):
    """Where the data lies, what its columns mean, and which faults are repaired."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="files, folders or globs of .csv[.gz|.bz2|.xz|.zst] or .parquet; paths or URLs as s3://bucket/key"
    )
    delimiter: str = Field(",", min_length=1, max_length=1, description="between the fields of a CSV")
    decimal: Literal[".", ","] = Field(".", description="the decimal mark of a CSV")
    quote: str = Field('"', min_length=1, max_length=1, description="around fields of a CSV that hold delimiters")
    encoding: str = Field("utf-8", description="of a CSV, as latin-1 or utf-16")
    missing_markers: tuple[str, ...] = Field(
        (), description="what else stands for no value in a CSV, as ? or -; empty and NA do"
    )

    timestamp: Stamp = Field(description="column of stamps, or two: of dates and of times of day")
    timestamp_format: str | None = Field(None, description="null: ISO 8601; epoch_s, epoch_ms, epoch_us, or as %d.%m.%Y %H:%M")
    timezone: str = Field("UTC", description="of naive stamps and of the local clock: IANA name or offset as +10:00")
    repeated_hour: Literal["error", "first", "second", "order"] = Field(
        "error", description="naive stamps that the clock showed twice; order: the second time they come"
    )
    skipped_hour: Literal["error", "shift", "drop"] = Field("error", description="naive stamps that the clock never showed")
    frequency: str | None = Field(None, description="pandas alias, as 30min, h, D or MS; null: inferred")

    series_id: str | tuple[str, ...] | None = Field(None, description="columns that name the series; null: there is one")
    file_column: str | None = Field(
        None, min_length=1, description="a column with the name of each file, without its endings, for series_id to name"
    )
    wide: tuple[str, ...] | None = Field(None, description="columns, or globs, that are a series each; null: long form")
    target: str = Field(description="column to forecast; in wide form, what the series' columns hold")
    future_covariates: tuple[str, ...] = Field((), description="columns known over the horizon too")
    past_covariates: tuple[str, ...] = Field((), description="columns known up to the origin only")
    static_covariates: tuple[str, ...] = Field((), description="columns that never change within a series")
    static_uri: str | None = Field(None, description="a second file, path or URL, a row a series, that has them")
    calendar: tuple[Literal["hour", "weekday", "day_of_year", "date"], ...] | None = Field(
        None,
        description="future covariates from the local clock: sine and cosine of each, of the date what is learned of single "
        "days of the year; null: by frequency and length",
    )
    holidays: str | None = Field(None, description="future covariate: public holidays of a country, as AU or DE-BY")

    order: Literal["error", "sort"] = Field("error", description="stamps that go back in time within a series and file")
    duplicates: Literal["error", "drop", "first", "last", "mean"] = Field("error", description="repeated stamps of a series")
    gaps: Literal["error", "drop", "interpolate", "mask"] = Field("error", description="absent rows")
    missing: Literal["error", "drop", "interpolate", "mask"] = Field("error", description="empty values between others")
    interpolate_limit: int | None = Field(None, ge=1, description="longest hole that is interpolated, in steps; null: any")
    rules: dict[str, Rule] = Field({}, description="by column: what its values must keep to")
    quarantine: bool = Field(False, description="set a series with a fault aside and go on with the others")

    @model_validator(mode="after")
    def _names_make_sense(self):
        check_names(self)
        return self

    def to_read(self) -> "SourceSpec":
        """The part of the spec that decides what is read from given bytes."""
        return self.keeping(READING)

    def to_arrange(self) -> "SourceSpec":
        """The part of the spec that decides what is made of rows that have been read."""
        return self.keeping(tuple(name for name in SourceSpec.model_fields if name not in NOT_ARRANGING))

    def keeping(self, names: tuple[str, ...]) -> "SourceSpec":
        """This spec with every other setting at its default."""
        given = {name: getattr(self, name) for name in names}
        needed = {"uri": "", "timestamp": self.timestamp, "target": self.target}
        return SourceSpec.model_construct(**{**needed, **given})

    def cache_identity(self) -> dict:
        """Where the bytes lie does not shape what is read from them; that some columns lie in a second file does."""
        static_file = {"static_file": self.static_uri is not None}
        return self.model_dump(mode="json", exclude={"uri", "static_uri"}) | static_file

    def seen_by(self, columns: Columns) -> "SourceSpec":
        """This source as a model with these columns reads it."""
        plain = tuple(dict.fromkeys(name.split("=")[0] for name in columns.static))
        covariates = {"past_covariates": columns.past, "future_covariates": columns.future, "calendar": columns.calendar}
        seen = self.model_copy(update=covariates | {"static_covariates": plain, "holidays": columns.holidays})
        kept = {name: rule for name, rule in self.rules.items() if name in (self.target, *seen.covariates)}
        return seen.model_copy(update={"rules": kept})

    @property
    def masks(self) -> bool:
        """Whether some steps may be there without having been observed."""
        return "mask" in (self.gaps, self.missing)

    @property
    def stamp_columns(self) -> tuple[str, ...]:
        return (self.timestamp,) if isinstance(self.timestamp, str) else self.timestamp

    @property
    def id_columns(self) -> tuple[str, ...]:
        return (self.series_id,) if isinstance(self.series_id, str) else self.series_id or ()

    @property
    def covariates(self) -> tuple[str, ...]:
        """Columns of numbers beside the target, as the file names them."""
        in_file = () if self.static_uri else self.static_covariates
        return (*self.past_covariates, *self.future_covariates, *in_file)

    @property
    def value_columns(self) -> tuple[str, ...]:
        """What a row that was read holds, target first."""
        return ("target", *self.covariates)

    def shown(self, column: str) -> str:
        """The user's name for a canonical column."""
        return self.target if column == "target" else column


READING = (
    "delimiter", "decimal", "quote", "encoding", "missing_markers", "timestamp", "timestamp_format", "timezone",
    "repeated_hour", "skipped_hour", "series_id", "wide", "target", "future_covariates", "past_covariates",
    "static_covariates", "static_uri", "order",
)  # fmt: skip
NOT_ARRANGING = (
    "uri", "file_column", "calendar", "holidays", "quarantine", "delimiter", "decimal", "quote", "encoding", "missing_markers",
    "timestamp_format", "repeated_hour", "skipped_hour",
)  # fmt: skip


def check_names(source: SourceSpec) -> None:
    """Raises a Fault where two settings want the same column, or a column has a name that is kept."""
    names = [*source.past_covariates, *source.future_covariates, *source.static_covariates]
    used = [*source.stamp_columns, *source.id_columns, *([] if source.wide else [source.target]), *names]
    twice = sorted({name for name in used if used.count(name) > 1})
    if twice:
        raise Fault(
            f"source names {shortlist(twice)} more than once among timestamp, series_id, target and covariates; once is enough."
        )
    made = [channel for name in source.calendar or () for channel in clock_channels(name)] + ["holiday"] * bool(source.holidays)
    taken = [name for name in names if name in RESERVED or name in made]
    if taken:
        raise Fault(f"The covariate {taken[0]!r} has a name that the canonical table keeps for itself. Rename the column.")
    if source.wide and source.id_columns:
        raise Fault("source.wide makes each column a series and source.series_id names a column of them. Keep one of the two.")
    if source.wide and source.static_covariates and not source.static_uri:
        raise Fault("In wide form static covariates come from a second file. Set source.static_uri or leave them out.")
    if source.static_uri and not source.id_columns and not source.wide:
        raise Fault("source.static_uri has a row for each series, so the series need names. Set source.series_id.")
    check_dialect(source)
    check_used(source)
    unruled = [name for name in source.rules if name not in (source.target, *source.covariates)]
    if unruled:
        raise Fault(f"source.rules names {unruled[0]!r}, which is neither the target nor a covariate that varies in time.")
    form = source.timestamp_format
    if form is not None and not form.startswith("epoch_") and "%" not in form:
        raise Fault(f"source.timestamp_format is {form!r}; use epoch_s, epoch_ms, epoch_us, or a form as '%d.%m.%Y %H:%M'.")
    if form is not None and form.startswith("epoch_") and form not in ("epoch_s", "epoch_ms", "epoch_us"):
        raise Fault(f"source.timestamp_format is {form!r}; of epochs there are epoch_s, epoch_ms and epoch_us.")
    if form is not None and form.startswith("epoch_") and len(source.stamp_columns) > 1:
        raise Fault(f"source.timestamp_format {form} is a number in one column; source.timestamp names two. Name one.")


def check_used(source: SourceSpec) -> None:
    """Raises a Fault for a setting that would do nothing, or that another one takes back."""
    if source.interpolate_limit is not None and "interpolate" not in (source.gaps, source.missing):
        raise Fault(
            f"source.interpolate_limit is {source.interpolate_limit}, but nothing is interpolated. Set source.gaps or "
            "source.missing to 'interpolate', or leave the limit out."
        )
    if source.file_column and source.file_column not in source.id_columns:
        raise Fault(
            f"source.file_column is {source.file_column!r}, and series_id does not name it. Set source.series_id to "
            f"{source.file_column!r}, or leave it out."
        )
    if source.static_uri and not source.static_covariates:
        raise Fault("source.static_uri names a file of which no column is used. Set source.static_covariates or leave it out.")
    series, others = source.wide or (), (*source.stamp_columns, *source.past_covariates, *source.future_covariates)
    if both := [name for name in series if name in others]:
        raise Fault(f"source.wide names {both[0]!r}, which is a stamp or covariate too. Take it out of one of the two.")
    for key, names in (("wide", series), ("calendar", source.calendar or ())):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise Fault(f"source.{key} names {shortlist(twice)} more than once; once is enough.")


def check_dialect(source: SourceSpec) -> None:
    """Raises a Fault where a CSV could not be taken apart."""
    for name, mark in (("delimiter", source.delimiter), ("quote", source.quote)):
        if not mark.isascii() or mark in "\r\n\0":
            raise Fault(f"source.{name} is {mark!r}; one ASCII character that ends no line is needed.")
    if source.delimiter == source.quote:
        raise Fault(f"source.delimiter and source.quote are both {source.quote!r}. Set another quote.")
    if source.delimiter == source.decimal:
        raise Fault(f"source.delimiter and source.decimal are both {source.decimal!r}. Set another delimiter, as ';'.")
    if source.quote == source.decimal:
        raise Fault(f"source.quote and source.decimal are both {source.decimal!r}. Set another quote.")


def is_url(uri: str) -> bool:
    return re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://", uri) is not None or "::" in uri


def without_secrets(uri: str) -> str:
    """A URL that can be shown: without a password, a token or a signature in it."""
    uri = re.sub(r"(?<=://)[^/@]*@", "", uri)
    return re.sub(r"\?.*$", "", uri) if re.search(r"[?&](sig|signature|token|key|x-amz-|x-goog-)", uri, re.IGNORECASE) else uri
