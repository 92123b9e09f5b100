"""From a source to windows: the steps that training, forecasting and exports begin with."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from flows.spec import PipelineSpec
from models.errors import Fault
from models.inputs import keep_channels
from models.series import DATE, Columns, without_part
from models.windows import WindowSettings, WindowSpec
from tasks.find_dates import DatesFound, find_dates
from tasks.find_season import Season, describe_season, find_season
from tasks.ingest.calendar import calendar_of, usual_calendar
from tasks.ingest.chunks import Chunk, take_stock
from tasks.ingest.locating import locate
from tasks.ingest.parts import Part, read
from tasks.ingest.shards import Overview, cut_shards, survey
from tasks.ingest.sources import SourceSpec
from tasks.ingest.statics import Statics, read_statics
from tasks.ingest.task import Series, ingest
from tasks.normalise import Normalised, normalise
from tasks.planning import Unknown
from tasks.select import Selection, select
from tasks.storage import Store
from tasks.windows.task import Windows, materialise_windows, stretches

SHOWN_FAULTS = 10  # named in a message at most; all are counted
LOCATED_FAULTS = 20  # looked up in their files at most: as many as the outcome of a run names


@dataclass
class Ingested:
    """A source as canonical Parquet."""

    overview: Overview
    series: list[Series]
    statics: Statics
    columns: Columns
    faults: list[str] = field(default_factory=list)  # a line for each kind of fault of each series that was set aside
    set_aside: int = 0  # series


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


def ingest_source(
    source: SourceSpec, chunks: list[Chunk], store: Store, columns: Columns | None = None, suffix: str = ""
) -> Ingested:
    """Canonical Parquet of a source, shard by shard.

    Args:
        columns: those of a model that was trained before; None: as the source has them.

    Raises:
        Fault: the source has faults that no setting repairs, and they are not to be set aside.
    """
    parts = read.map([(source.to_read(), chunk) for chunk in chunks], store, label=f"read{suffix}")
    waiting = any(isinstance(part, Unknown) for part in parts)
    found = [] if waiting else faults_of_reading(chunks, parts, store)
    if not waiting:
        check_row_faults(source, parts, found)
    overview = survey_parts(source, parts, found, store, suffix)
    statics = read_statics(source, store.downloads, columns.static if columns else None)
    made = columns or columns_of(source, statics, overview)
    if isinstance(overview, Unknown):
        series = ingest.map(overview, store, label=f"ingest{suffix}")
        return Ingested(overview, series, statics, made)
    shards = cut_shards(chunks, parts, overview, {fault["series_id"] for fault in found}, repairs_of_reading(parts, store))
    calls = [(source.to_arrange(), shard, overview.frequency) for shard in shards]
    series = ingest.map(calls, store, label=f"ingest{suffix}")
    if not any(isinstance(one, Unknown) for one in series):
        found += faults_of_series(series, store)
        find_places(source, chunks, parts, found[:LOCATED_FAULTS], store)
    aside = {fault["series_id"] for fault in found}
    lines = as_lines(found)
    if lines and not any(isinstance(one, Unknown) for one in series):
        check_series_faults(source, lines, len(aside), sum(one.num_series for one in series))
    return Ingested(overview, series, statics, made, lines, len(aside))


def columns_of(source: SourceSpec, statics: Statics, overview: Overview | Unknown) -> Columns:
    """What the channels of a source mean."""
    calendar = source.calendar
    if calendar is None and isinstance(overview, Unknown):
        calendar = ()
    elif calendar is None:
        calendar = usual_calendar(overview.frequency, overview.rows / max(1, overview.num_series), source.covariates)
    return Columns(
        masked=source.masks, past=source.past_covariates, future=source.future_covariates, calendar=calendar,
        holidays=source.holidays, static=statics.channels or source.static_covariates,
    )  # fmt: skip


def survey_parts(source: SourceSpec, parts: list[Part], found: list[dict], store: Store, suffix: str) -> Overview:
    """The overview of what was read; where it can not be had, faults met while reading are the better thing to tell."""
    try:
        return survey(source.frequency, source.timezone, parts, store, label=f"survey{suffix}")
    except Fault:
        if found:
            raise Fault(list_faults(as_lines(found))) from None
        raise


def as_lines(found: list[dict]) -> list[str]:
    """Each fault in words: whose, where, what."""
    lines = []
    for fault in found:
        said = fault["said"]
        value = said.startswith("column ") and not fault["kind"].startswith("static ")  # the column belongs to the place
        first = said.split(" ", 1)[0]
        joint = ", " if value else " " if first in ("has", "repeats", "begins") and not fault["place"] else ": "
        whose = [part for part in (fault["series_id"], fault["place"]) if part]
        lines.append(", ".join(whose) + joint + said)
    return lines


def find_places(source: SourceSpec, chunks: list[Chunk], parts: list[Part], found: list[dict], store: Store) -> None:
    """Fill in the file and line of the faults of which only series and stamp are known."""
    waiting = [fault for fault in found if fault["stamp"] is not None]
    for fault, place in zip(waiting, locate(source.to_read(), chunks, parts, waiting, store), strict=True):
        if place:
            fault["place"] = place
            fault["said"] = fault["said"].removeprefix("repeats ")  # which the place says too


def faults_of_reading(chunks: list[Chunk], parts: list[Part], store: Store) -> list[dict]:
    """The faults of single rows, the first of each kind and series with the file and line it is at."""
    found: dict[tuple, dict] = {}
    for chunk, part in zip(chunks, parts, strict=True):
        if part.num_faults:
            for fault in store.read_json(part, "notes.json")["faults"]:
                key = (fault["series_id"], fault["kind"])
                if key in found:
                    found[key]["count"] += fault["count"]
                else:
                    found[key] = fault | {"file": chunk.pieces[fault["piece"]].file.name}
    for fault in found.values():
        more = f" ({fault['count']} such)" if fault["count"] > 1 else ""
        fault |= {"place": f"{fault['file']} {fault['where']}".rstrip(), "said": f"{fault['said']}{more}."}
    return list(found.values())


def repairs_of_reading(parts: list[Part], store: Store) -> list[list[dict]]:
    """What was done to the rows of each part while reading."""
    return [store.read_json(part, "notes.json")["repairs"] if part.num_repairs else [] for part in parts]


def faults_of_series(series: list[Series], store: Store) -> list[dict]:
    """The faults that showed once the rows of each series stood together, in the order of series and kind."""
    faulty = [one for one in series if one.num_faults]
    found = [fault | {"place": ""} for one in faulty for fault in store.read_json(one, "index.json")["faults"]]
    return sorted(found, key=lambda fault: fault["series_id"])


def check_row_faults(source: SourceSpec, parts: list[Part], found: list[dict]) -> None:
    """Raises a Fault for rows that can be laid at no series' door, whatever is set aside, and where no row can be used."""
    lines = as_lines([fault for fault in found if fault["series_id"] is None])
    if lines:
        raise Fault(list_faults(lines))
    if not any(part.rows for part in parts):
        raise Fault(list_faults(as_lines(found)) if found else "The source has a header and no rows.")


def check_series_faults(source: SourceSpec, lines: list[str], set_aside: int, left: int) -> None:
    """Raises a Fault where series have faults and may not be set aside, or none would be left."""
    if not source.quarantine:
        raise Fault(list_faults(lines, set_aside, set_aside + left))
    if not left:
        whose = "The only series has" if set_aside == 1 else f"All {set_aside} series have"
        raise Fault(f"{whose} faults, so none is left to go on with. {list_faults(lines)}")


def list_faults(lines: list[str], set_aside: int = 0, num_series: int = 0) -> str:
    """The first faults, one a line where there are several, and how many there are in all."""
    if len(lines) == 1:
        return lines[0]
    head = f"{len(lines)} faults" + (f" in {set_aside} of {num_series} series" if num_series > 1 else "")
    rest = [f"and {len(lines) - SHOWN_FAULTS} more"] if len(lines) > SHOWN_FAULTS else []
    these = "this" if set_aside == 1 else "these"
    hint = f"Mend them, or set source.quarantine: true to set {these} series aside and go on."
    return "\n  ".join([head + ":", *lines[:SHOWN_FAULTS], *rest, *([hint] if num_series > set_aside else [])])


def prepare(
    spec: PipelineSpec, source: SourceSpec, chunks: list[Chunk], settings: WindowSettings, store: Store,
    columns: Columns | None = None, suffix: str = "", season: int | None = None,
) -> Prepared:  # fmt: skip
    """From a source to its scales and windows.

    Args:
        season: one to take whatever the spec says, as that which another model of the same run is made for.
    """
    got = ingest_source(source, chunks, store, columns, suffix)
    overview, series = got.overview, got.series
    found = season_for(spec, got, store) if season is None else GivenSeason(season)
    dates = dates_for(spec, got, store) if columns is None else None
    if waits := first_unknown([*series, found, dates] if isinstance(series, list) else [series]):
        return prepare_later(got, waits, store, suffix)
    if dates and not dates.told:
        got = replace(got, columns=without_part(got.columns, DATE))
    check_season(spec, series, store)
    period, selection = period_for(spec, found.steps, overview, series, store), None
    cut = windows_for(spec, settings, period, series, store)
    if columns is None and spec.network.inputs != "all":
        got, selection = seen_inputs(spec, source, got, cut, period, store)
        if isinstance(selection, Unknown):
            return prepare_later(got, selection, store, suffix)
        if selection and settings.lookback is None:
            cut = cut.model_copy(update={"lookback": selection.lookback})
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
