"""From a source to windows: the steps that training and exports begin with."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from flows.ingesting import Ingested, ingest_source
from flows.spec import PipelineSpec
from models.errors import Fault
from models.inputs import keep_channels
from models.series import DATE, Columns, without_part
from models.windows import WindowSettings, WindowSpec
from tasks.find_dates import DatesFound, find_dates
from tasks.find_season import Season, describe_season, find_season
from tasks.ingest.calendar import calendar_of
from tasks.ingest.chunks import Chunk, take_stock
from tasks.ingest.shards import Overview
from tasks.ingest.sources import SourceSpec
from tasks.ingest.statics import Statics
from tasks.ingest.task import Series
from tasks.normalise import Normalised, normalise
from tasks.planning import Unknown
from tasks.select import Selection, select
from tasks.storage import Store
from tasks.windows.task import Windows, materialise_windows, stretches


@dataclass
class Prepared:
    """Everything that training and validation read."""

    ingested: Ingested
    normalised: list[Normalised]
    windows: list[Windows]
    cut: WindowSpec | None = None  # None: not known before more of the source is read
    selection: Selection | None = None  # of the inputs, where the spec leaves them to be chosen
    season: int | None = None  # None: not known before more of the source is read
    season_said: str = ""
    period: int | Unknown = 1  # steps that networks lay the past out by


class GivenSeason(NamedTuple):
    """The season that a spec gives."""

    steps: int
    how: str = "given"


class Likeness(NamedTuple):
    """What of a model whose weights a training begins with stays as it is, wherever the spec leaves it to the data."""

    columns: Columns
    season: int
    lookback: int

    def season_instead(self, found: Season) -> GivenSeason | Season:
        """The model's season, and what the data say by now where that is another."""
        if found.steps == self.season:
            return found
        return GivenSeason(self.season, f"as the live model has it; the data say {found.steps:,} by now")

    def inputs_instead(self, got: Ingested) -> Ingested:
        """The source with the channels that the model sees, where it still has them all."""
        return replace(got, columns=self.columns) if set(self.columns.names) <= set(got.columns.names) else got


def prepare(
    spec: PipelineSpec, source: SourceSpec, chunks: list[Chunk], settings: WindowSettings, store: Store,
    columns: Columns | None = None, suffix: str = "", season: int | None = None, like: Likeness | None = None,
) -> Prepared:  # fmt: skip
    """From a source to its scales and windows.

    Args:
        season: one to take whatever the spec says, as that which another model of the same run is made for.
        like: what stays as it is in a model that training begins with.
    """
    got = ingest_source(source, chunks, store, columns, suffix)
    overview, series = got.overview, got.series
    found = season_for(spec, got, store) if season is None else GivenSeason(season)
    dates = dates_for(spec, got, store) if columns is None else None
    if waits := first_unknown([*series, found, dates] if isinstance(series, list) else [series]):
        return prepare_later(got, waits, store, suffix)
    if like and not spec.season:
        found = like.season_instead(found)
    if dates and not (dates.told if like is None else DATE in like.columns.calendar):
        got = replace(got, columns=without_part(got.columns, DATE))
    check_season(spec, series, store)
    period, selection = period_for(spec, found.steps, overview, series, store), None
    cut = windows_for(spec, settings, period, series, store)
    if columns is None and spec.network.inputs != "all":
        seen, selection = seen_inputs(spec, source, got, cut, period, store)
        if isinstance(selection, Unknown):
            return prepare_later(got, selection, store, suffix)
        if selection and like and selection.columns != like.columns:
            seen, selection = like.inputs_instead(got), None
        elif selection and settings.lookback is None:
            cut = cut.model_copy(update={"lookback": selection.lookback})
        got = seen
    if like and settings.lookback is None:
        cut = cut.model_copy(update={"lookback": like.lookback})
    calendar = calendar_of(overview.frequency, source.timezone, got.columns)
    used = [(one, statics_of(got.statics, one, store)) for one in series if one.num_series]
    calls = [(one, got.columns, statics, spec.scaling, spec.folds, found.steps) for one, statics in used]
    normalised = normalise.map(calls, store, label=f"normalise{suffix}")
    calls = [(stretch, cut, got.columns, calendar, statics) for one, statics in used for stretch in stretches(one)]
    windows = materialise_windows.map(calls, store, label=f"materialise_windows{suffix}")
    said = describe_season(found.steps, overview.frequency, found.how)
    return Prepared(got, normalised, windows, cut, selection, found.steps, said, period)


def prepare_later(got: Ingested, waits: Unknown, store: Store, suffix: str) -> Prepared:
    """A plan of the steps that wait for one that will run."""
    normalised = normalise.map(waits, store, label=f"normalise{suffix}")
    windows = materialise_windows.map(waits, store, label=f"materialise_windows{suffix}")
    return Prepared(got, normalised, windows, period=waits)


def seen_inputs(
    spec: PipelineSpec, source: SourceSpec, got: Ingested, cut: WindowSpec, season: int, store: Store
) -> tuple[Ingested, Selection | Unknown | None]:
    """The source with those channels alone that `network.inputs` names, or that are found to tell something of the target."""
    if spec.network.inputs != "auto":
        return replace(got, columns=keep_channels(got.columns, spec.network.inputs)), None
    calendar = calendar_of(got.overview.frequency, source.timezone, got.columns)
    selection = select(got.series, got.columns, calendar, cut, spec.folds, season, store)
    return (got if isinstance(selection, Unknown) else replace(got, columns=selection.columns)), selection


def first_unknown(receipts: list) -> Unknown | None:
    """The first of some receipts whose step has yet to run."""
    return next((one for one in receipts if isinstance(one, Unknown)), None)


def season_for(spec: PipelineSpec, got: Ingested, store: Store) -> GivenSeason | Season | Unknown:
    """The season that the spec gives, or that of the series."""
    if spec.season:
        return GivenSeason(spec.season)
    return find_season(got.series, got.columns.masked, spec.folds, got.overview.frequency, store)


def check_season(spec: PipelineSpec, series: list[Series], store: Store) -> None:
    """Raises a Fault where a season is given that no series is longer than."""
    if not spec.season:
        return
    most = max(steps_of_each(series, store))
    if spec.season >= most:
        raise Fault(
            f"season is {spec.season:,} steps, and no series has more than {most:,}, in which nothing comes again. "
            "Set a shorter season, or leave it out to have it found."
        )


def dates_for(spec: PipelineSpec, got: Ingested, store: Store) -> DatesFound | Unknown | None:
    """Whether single days of the year are worth learning of, where the spec leaves it open and there are years enough."""
    if spec.source.calendar is not None or DATE not in got.columns.calendar:
        return None
    return find_dates(got.series, got.columns.masked, spec.folds, spec.source.timezone, store)


def period_for(spec: PipelineSpec, season: int, overview: Overview, series: list[Series], store: Store) -> int:
    """The season, or where none was found the calendar's, if two of it fit: networks forecast better with it than with none."""
    if spec.season or season > 1:
        return season
    return overview.season if 2 * overview.season <= training_steps(spec, series, store) else 1


def windows_for(spec: PipelineSpec, settings: WindowSettings, period: int, series: list[Series], store: Store) -> WindowSpec:
    """The windows of a source that has been read, with the lookback that follows from it where none is given."""
    return settings.resolved(period, training_steps(spec, series, store))


def training_steps(spec: PipelineSpec, series: list[Series], store: Store) -> int:
    """The steps that nine in ten series have to train on."""
    return usual_steps(series, store) - spec.folds.validation - spec.folds.test


def usual_steps(series: list[Series], store: Store) -> int:
    """A number of steps that nine in ten series have."""
    return int(np.quantile(steps_of_each(series, store), 0.1))


def steps_of_each(series: list[Series], store: Store) -> list[int]:
    """How many steps each series has."""
    facts = (store.read_json(one, "index.json")["series"] for one in series if one.num_series)
    return [own["steps"] for each in facts for own in each.values()]


def statics_of(statics: Statics, series: Series, store: Store) -> Statics:
    """The static covariates of one shard, so that another shard's do not touch it."""
    return statics.only(store.read_json(series, "index.json")["series"]) if statics.channels else statics


def stock_of(spec: PipelineSpec, store: Store) -> list[Chunk]:
    """The chunks of the source, once, so that all that follows is made from the same bytes."""
    return take_stock(spec.source, store.downloads)
