"""From a source to canonical Parquet, with every fault and repair told."""

from dataclasses import dataclass, field

from models.errors import Fault
from models.series import Columns
from tasks.ingest.calendar import usual_calendar
from tasks.ingest.chunks import Chunk
from tasks.ingest.locating import locate
from tasks.ingest.parts import Part, read
from tasks.ingest.shards import Overview, cut_shards, survey
from tasks.ingest.sources import SourceSpec
from tasks.ingest.statics import Statics, read_statics
from tasks.ingest.task import Series, ingest
from tasks.planning import Unknown
from tasks.storage import Store

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
