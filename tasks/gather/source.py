"""What a user says about labelled data: where it lies, what its columns mean, and which faults are repaired."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import Fault, shortlist
from tasks.ingest.sources import Stamp, check_dialect

SHAPE = ("case", "step", "timestamp", "series_id", "channels", "split", "label")


class LabelledSource(BaseModel):
    """Cases, series of their own with a label each; or one stream or several, with a label at every step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str | tuple[str, ...] = Field(
        description="files, folders or globs of .csv, .tsv, .parquet in long form, .ts, or .txt and .tsv with a case a row"
    )
    delimiter: str = Field(",", min_length=1, max_length=1, description="between the fields of a CSV")
    decimal: Literal[".", ","] = Field(".", description="the decimal mark of a CSV")
    quote: str = Field('"', min_length=1, max_length=1, description="around fields of a CSV that hold delimiters")
    encoding: str = Field("utf-8", description="of a text file, as latin-1 or utf-16")
    missing_markers: tuple[str, ...] = Field((), description="what else stands for no value, as ? or -; empty and NA do")

    label: str | None = Field(None, description="column of classes; files with a case a row have it in their first field")
    case: str | tuple[str, ...] | None = Field(None, description="columns that name the case of a row")
    step: str | None = Field(None, description="column that orders the rows of a case; null: as they come")
    timestamp: Stamp | None = Field(None, description="of a stream: column of stamps, or two: of dates and of times of day")
    timestamp_format: str | None = Field(None, description="null: ISO 8601; epoch_s, epoch_ms, epoch_us, or as %d.%m.%Y %H:%M")
    timezone: str = Field("UTC", description="of naive stamps: IANA name or offset as +10:00")
    repeated_hour: Literal["error", "first", "second", "order"] = Field(
        "error", description="naive stamps that the clock showed twice; order: the second time they come"
    )
    skipped_hour: Literal["error", "shift", "drop"] = Field("error", description="naive stamps that the clock never showed")
    series_id: str | tuple[str, ...] | None = Field(None, description="of streams: columns that name the series")
    duplicates: Literal["error", "first", "last"] = Field("error", description="repeated stamps of a stream")
    channels: tuple[str, ...] | None = Field(None, description="columns, or globs, that are seen; null: every other number")
    split: str | None = Field(None, description="column that says train, validation or test; null: file names, or drawn")
    missing: Literal["error", "mask"] = Field("error", description="empty values; mask: the net is told that they are missing")
    unlabelled: Literal["error", "skip"] = Field(
        "error", description="cases without a label, when training; skip: leave them out"
    )

    @property
    def stamp_columns(self) -> tuple[str, ...]:
        return (self.timestamp,) if isinstance(self.timestamp, str) else self.timestamp or ()

    @property
    def id_columns(self) -> tuple[str, ...]:
        named = self.series_id if self.timestamp else self.case
        return (named,) if isinstance(named, str) else named or ()

    @property
    def is_stream(self) -> bool:
        return self.timestamp is not None

    def to_read(self) -> dict:
        """The part that decides what is made of given bytes."""
        return self.model_dump(mode="json", exclude={"uri", "unlabelled"})

    @model_validator(mode="after")
    def _names_make_sense(self):
        check_dialect(self)
        if self.timestamp and self.case:
            raise Fault(
                "source has a timestamp, which a stream has, and a case. For cases in long form name source.case and "
                "source.step; for a stream leave source.case out."
            )
        for key in ("step", "split"):
            if self.timestamp and getattr(self, key):
                raise Fault(f"source.{key} is of cases; a stream is ordered and split by source.timestamp. Leave it out.")
        if self.series_id and not self.timestamp:
            raise Fault("source.series_id names the streams, and there is no source.timestamp. Set it, or name source.case.")
        if (self.timestamp or self.case) and not self.label:
            raise Fault("source.label is missing: name the column that holds the classes.")
        single = [name for name in (self.label, self.step, self.split) if name]
        used = [*single, *self.stamp_columns, *self.id_columns, *(self.channels or ())]
        if twice := sorted({name for name in used if used.count(name) > 1}):
            raise Fault(f"source names {shortlist(twice)} more than once; once is enough.")
        return self
