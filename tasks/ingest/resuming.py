"""Going on with a long series, once rows were appended to it, from where an earlier sweep of it had got to.

After each slab that leaves nothing pending, a sweep marks how it stands, under a digest of everything that brought it
there: settings, code, and which rows of which runs lay in its slabs so far. A later sweep that begins with the same
slabs goes on from the last such mark, and takes over the segments that were full by then. Marks are notes beside the
artifacts, never an input: with or without them the same bytes are made. They are believed only while notes and
segments have the bytes they were written with.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.errors import Fault
from tasks.ingest.grid import Grid, Placed
from tasks.ingest.loading import Slabs, let_go
from tasks.ingest.panel import Ledger, Panel, Story
from tasks.ingest.segments import SegmentWriter
from tasks.ingest.sources import SourceSpec
from tasks.progress import say
from tasks.storage import Draft, Store, to_json

FOLDER = "sweeps"


class Mark(BaseModel):
    """How a sweep stands when every row before an instant has been dealt with, and all but the last are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edge: int  # that instant
    digest: str  # of all that decides what is made of the rows before it
    stamp: int  # of the last of these rows
    ordinal: int
    values: tuple[float, ...]
    origin: int  # what the story has come to
    begun: bool
    constants: dict[str, float]
    flat: dict[str, tuple[int, int]]
    repairs: dict[str, int]  # what was done -> how often
    facts: dict[str, int]  # of the rows written


class Notes(BaseModel):
    """The marks of one series, and the segments that an artifact has of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str  # of the artifact
    segments: tuple[tuple[str, str], ...]  # name and SHA-256
    marks: tuple[Mark, ...]


@dataclass
class Standing:
    """What a sweep begins or goes on with."""

    story: Story
    edge: int | None = None  # rows before it have been dealt with
    waiting: Placed | None = None  # the last of them


class Sweeps:
    """The sweeps of a shard's long series: what earlier ones left, and what these leave."""

    def __init__(self, source: SourceSpec, grid: Grid, store: Store, draft: Draft, writer: SegmentWriter):
        self.store, self.draft, self.writer = store, draft, writer
        made_from = draft.call.made_from
        self.settings = [source.cache_identity(), grid.frequency, made_from.get("code"), made_from.get("libraries")]
        self.trails: list[Trail] = []

    def follow(self, slabs: Slabs, story: Story, ledger: Ledger) -> "Trail":
        self.trails.append(Trail(self, slabs, story, ledger))
        return self.trails[-1]

    def keep(self) -> None:
        """Leave notes of what the draft holds; should it never be committed, they lead to nothing and count for nothing."""
        for trail in self.trails:
            if trail.marks and trail.name in self.writer.facts:
                files, (first, *rest) = self.draft.files(), self.writer.segments[trail.first_segment :]
                own = [first["name"], *(one["name"] for one in takewhile(lambda one: one["continues"], rest))]
                segments = [(name, files[name]["sha256"]) for name in own]
                notes = to_document(Notes(key=self.draft.call.key, segments=segments, marks=trail.marks))
                self.store.put_document(notes, FOLDER, trail.file)


class Trail:
    """The marks of one long series."""

    def __init__(self, sweeps: Sweeps, slabs: Slabs, story: Story, ledger: Ledger):
        self.sweeps, self.name, self.last_kept = sweeps, slabs.name, story.last_kept
        self.repairs = dict(ledger.repairs)  # before the sweep
        self.digests = digests_of([*sweeps.settings, slabs.name, story.after_gap], slabs)
        self.file = f"{next(iter(self.digests.values()))}.json"
        self.marks: list[Mark] = []
        self.first_segment = 0

    def start(self, story: Story, ledger: Ledger) -> Standing:
        """What to begin with: the last mark of an earlier sweep that this one would come to as well, or the first row."""
        notes = None if self.name in ledger.faulty else self.read_notes()
        marks = [mark for mark in notes.marks if self.passes(mark)] if notes else []
        if not marks or not self.take_over(notes, marks[-1]):
            return Standing(story)
        self.marks, mark = marks, marks[-1]
        for what, count in mark.repairs.items():
            ledger.repairs[self.name, what] = ledger.repairs.get((self.name, what), 0) + count
        say(f"{self.name}: the first {mark.facts['rows']:,} rows are as they were arranged before")
        told = {"origin": mark.origin, "begun": mark.begun, "constants": dict(mark.constants), "flat": dict(mark.flat)}
        return Standing(replace(story, **told), mark.edge, last_row(self.name, mark))

    def read_notes(self) -> Notes | None:
        """What an earlier sweep left; None where that is nothing, or not what it wrote."""
        try:
            return from_document(self.sweeps.store.document(FOLDER, self.file))
        except Fault:  # no JSON; notes save time, and are written anew
            return None

    def passes(self, mark: Mark) -> bool:
        return self.settled(mark.edge) and self.digests.get(mark.edge) == mark.digest

    def settled(self, edge: int) -> bool:
        """Whether the rows before an instant are treated as they would be if more were appended: a kept target follows."""
        return self.last_kept is not None and edge <= self.last_kept

    def take_over(self, notes: Notes, mark: Mark) -> bool:
        folder = self.sweeps.store.folder(self.sweeps.draft.call.step, notes.key)
        earlier = [(folder / name, sha256) for name, sha256 in notes.segments]
        taken = self.sweeps.writer.take_over(self.name, earlier, mark.facts)
        self.first_segment = self.sweeps.writer.begun
        return taken

    def note(self, edge: int, story: Story, waiting: Placed, ledger: Ledger) -> None:
        """Mark how a sweep stands at an edge, if nothing is pending there; what it made of the rows has been written."""
        writer = self.sweeps.writer
        pending = len(waiting.ordinals) > 1 or not self.settled(edge)
        if pending or self.name in ledger.faulty or self.name not in writer.facts:
            return
        counts = {
            what: count - self.repairs.get((name, what), 0)
            for (name, what), count in ledger.repairs.items()
            if name == self.name
        }
        self.first_segment = writer.begun
        self.marks.append(
            Mark(
                edge=edge, digest=self.digests[edge], stamp=int(waiting.panel.stamps[0]), ordinal=int(waiting.ordinals[0]),
                values=tuple(waiting.panel.values[0].tolist()), origin=story.origin, begun=story.begun,
                constants=story.constants, flat=story.flat, repairs={what: count for what, count in counts.items() if count},
                facts=writer.facts[self.name],
            )
        )  # fmt: skip


def digests_of(settings: list, slabs: Slabs) -> dict[int, str]:
    """For the end of each slab a digest of all that decides what is made of the rows before it."""
    found, digest = {}, hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for low, high in pairwise(slabs.edges):
        runs = [piece for piece, _, _ in slabs.parts(low, high)]
        digest.update(json.dumps([low, high, *(run.sha256 for run in runs)]).encode())
        let_go(runs, None)
        found[high] = digest.hexdigest()
    return found


def last_row(name: str, mark: Mark) -> Placed:
    """The row that waits at a mark."""
    panel = Panel([name], np.zeros(1, np.int32), np.array([mark.stamp]), np.array([mark.values]), ahead=np.zeros(1, bool))
    return Placed(panel, np.array([mark.ordinal]), {})


def to_document(notes: Notes) -> dict:
    """Notes under their own SHA-256."""
    return {"sha256": hashlib.sha256(to_json(notes)).hexdigest(), "notes": notes.model_dump(mode="json")}


def from_document(document: dict | None) -> Notes | None:
    """The notes in a document; None where there is none, or it is not as it was written."""
    if not isinstance(document, dict) or document.keys() != {"sha256", "notes"}:
        return None
    whole = hashlib.sha256(to_json(document["notes"])).hexdigest() == document["sha256"]
    return Notes.model_validate(document["notes"]) if whole else None
