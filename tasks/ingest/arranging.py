"""The rows of a shard made regular, checked panels: many series at once, or one long series slab by slab.

Both go the same way: `tidy` looks at each row by itself and tells of it once; `regular` looks at what goes from row
to row. A slab ends with a row that no hole reaches across, and the next one begins with that very row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tasks.ingest import segments
from tasks.ingest.grid import LARGEST_GRID, SMALL_GRID, Grid, Placed, fill_steps, place, refuse_sparse, too_sparse
from tasks.ingest.holes import fill_holes
from tasks.ingest.loading import RunRows, Slabs, check_order_between_files, gather, load_runs
from tasks.ingest.panel import (
    Ledger,
    Panel,
    Story,
    ahead_of,
    check_static,
    check_targets,
    check_values,
    drop_incomplete,
    drop_leading_blanks,
    settle_duplicates,
)
from tasks.ingest.resuming import Sweeps
from tasks.ingest.rules import check_bounds, check_runs
from tasks.ingest.shards import Shard
from tasks.ingest.sources import SourceSpec
from tasks.storage import Store


@dataclass
class Arranged:
    """Rows that are ready to be written."""

    panel: Panel
    long: bool = False  # a part of one series that fills segments of its own
    refused: bool = False  # that series has a fault: what came before of it does not count


def arranged(source: SourceSpec, shard: Shard, grid: Grid, ledger: Ledger, store: Store, sweeps: Sweeps) -> Iterator[Arranged]:
    """Regular, checked panels in the order of series and time; series with faults are left out."""
    pieces = load_runs(shard, store)
    names = sorted({name for piece in pieces for name in piece.names} - set(shard.set_aside))
    check_order_between_files(source, pieces, ledger, set(names))
    sizes = sizes_of(pieces, grid)
    for group in pack(names, sizes):
        if sizes[group[0]] > segments.SEGMENT:
            yield from sweep(source, Slabs(pieces, group[0], grid.usual), grid, ledger, sweeps)
        else:
            yield Arranged(arrange(source, gather(pieces, group), grid, ledger))


def sizes_of(pieces: list[RunRows], grid: Grid) -> dict[str, int]:
    """About how many rows each series has or will have once it is regular, unless it is too sparse to become it."""
    rows: dict[str, int] = {}
    ends: dict[str, tuple[int, int]] = {}
    for piece in pieces:
        for name, (begin, end) in piece.ranges.items():
            low, high = int(piece.stamps[begin]), int(piece.stamps[end - 1])
            before = ends.get(name)
            ends[name] = (low, high) if before is None else (min(low, before[0]), max(high, before[1]))
            rows[name] = rows.get(name, 0) + end - begin
    steps = {name: int((high - low) / grid.usual) + 1 for name, (low, high) in ends.items()}
    return {name: own if sparse(steps[name], own) else max(own, steps[name]) for name, own in rows.items()}


def sparse(steps: int, rows: int) -> bool:
    return steps > SMALL_GRID and steps > LARGEST_GRID * rows


def pack(names: list[str], sizes: dict[str, int]) -> Iterator[list[str]]:
    """Neighbouring series that have `SEGMENT` rows together at most; a longer one goes by itself."""
    group: list[str] = []
    total = 0
    for name in names:
        if group and total + sizes[name] > segments.SEGMENT:
            yield group
            group, total = [], 0
        group.append(name)
        total += sizes[name]
    if group:
        yield group


def arrange(source: SourceSpec, panel: Panel, grid: Grid, ledger: Ledger) -> Panel:
    """One panel through every step, without the series that turn out to have faults."""
    done = regular(source, too_sparse(tidy(source, panel, grid, ledger), grid, ledger), grid, ledger)
    check_rest(panel, set(done.codes[~np.isnan(done.values[:, 0])].tolist()), ledger)
    faulty = ledger.faulty
    if set(panel.names) & faulty:
        return done.keep(~np.isin(done.codes, [at for at, name in enumerate(panel.names) if name in faulty]))
    return done


def tidy(source: SourceSpec, panel: Panel, grid: Grid, ledger: Ledger, story: Story | None = None) -> Placed:
    """The rows that are kept and lie on the grid; whatever is wrong with one by itself is noted."""
    panel = settle_duplicates(panel, source, ledger)
    if source.wide:
        panel = drop_leading_blanks(panel, story)
    if story is None or (story.last_target is None and story.origin is None):
        check_targets(panel, source, ledger)
    panel = drop_incomplete(panel, source, ledger, story)
    panel.ahead = ahead_of(panel) if story is None else ahead_of(panel, story.last_kept, known=True)
    if story and story.origin is None and len(panel.codes):
        story.origin = int(panel.stamps[0])
    check_static(panel, source, ledger, story)
    check_values(panel, source, ledger)
    check_bounds(panel, source, ledger)
    return place(panel, grid, ledger, story and story.origin)


def regular(
    source: SourceSpec, placed: Placed, grid: Grid, ledger: Ledger, story: Story | None = None, last: bool = True
) -> Panel:
    """A row for every step and a value in every cell, as far as the source allows."""
    panel = fill_steps(placed, grid, source, ledger)
    check_runs(panel, source, ledger, story, last)
    return fill_holes(panel, source, ledger)


def check_rest(panel: Panel, kept: set[int], ledger: Ledger) -> None:
    """Faults of series of which no target is left, though each step by itself was allowed."""
    faulty = ledger.faulty
    gone = [int(row) for row in panel.starts if int(code := panel.codes[row]) not in kept and panel.names[code] not in faulty]
    ledger.fault(
        panel, np.array(gone, np.int64), "nothing left",
        lambda row, count: "has no target left once rows are dropped that lack a value or lie before the last gap. Leave out "
        "the covariate that is empty, or set source.missing or source.gaps to something other than 'drop'.",
    )  # fmt: skip


def sweep(source: SourceSpec, slabs: Slabs, grid: Grid, ledger: Ledger, sweeps: Sweeps) -> Iterator[Arranged]:
    """A series too long for memory, slab by slab in the order of time, from where an earlier sweep of it had got to."""
    story, sound = look_ahead(source, slabs, grid, ledger)
    trail = sweeps.follow(slabs, story, ledger)
    start = trail.start(story, ledger)
    story, waiting = start.story, start.waiting  # begins with the last row dealt with, to be a neighbour to what follows
    begun = kept = waiting is not None
    for slab, edge in slabs.onwards(start.edge):
        last = edge == slabs.edges[-1]
        placed = tidy(source, slab, grid, ledger, story)
        if not sound:
            continue
        if story.after_gap is not None:
            early = placed.panel.stamps < story.after_gap
            ledger.repaired(placed.panel, early, "rows before the last gap dropped")
            placed = placed.keep(~early)
        waiting = placed if waiting is None else together(waiting, placed)
        until = len(waiting.ordinals) if last else reach(waiting.panel, int(begun))
        if until <= int(begun) and not last:
            continue
        done = regular(source, waiting.keep(slice(0, until)), grid, ledger, story, last)
        kept |= bool((~np.isnan(done.values[:, 0])).any())
        waiting, begun = waiting.keep(slice(until - 1, None)), True
        if slabs.name not in ledger.faulty:
            yield Arranged(done if last else done.keep(slice(0, -1)), long=True)
        trail.note(edge, story, waiting, ledger)
    if not kept:
        check_rest(slabs.first_row(), set(), ledger)
    if slabs.name in ledger.faulty:
        yield Arranged(slabs.first_row().keep(slice(0, 0)), long=True, refused=True)


def together(first: Placed, second: Placed) -> Placed:
    ordinals = np.concatenate([first.ordinals, second.ordinals])
    return Placed(first.panel.then(second.panel), ordinals, first.grids | second.grids)


def reach(panel: Panel, begun: int) -> int:
    """Up to where rows can be dealt with before more are known: past the last one that no hole reaches across."""
    absent = np.isnan(panel.values)
    closed = ~absent.any(1) | (panel.ahead & ~absent[:, 1:].any(1))
    closed[:begun] = False
    rows = np.flatnonzero(closed)
    return int(rows[-1]) + 1 if len(rows) else 0


def look_ahead(source: SourceSpec, slabs: Slabs, grid: Grid, ledger: Ledger) -> tuple[Story, bool]:
    """What must be known of a long series before its first row, and whether its grid is of a sound size."""
    story, unsaid = Story(), Ledger(ledger.say)
    for slab in slabs.backwards():
        panel = settle_duplicates(slab, source, unsaid)
        there = ~np.isnan(panel.values)
        targets, kept = panel.stamps[there[:, 0]], panel.stamps[there.all(1) if source.missing == "drop" else there[:, 0]]
        if story.last_target is None and len(targets):
            story.last_target = int(targets[-1])
        if story.last_kept is None and len(kept):
            story.last_kept = int(kept[-1])
        if story.last_kept is not None:
            break
    if source.gaps != "drop" and not slabs.stretched:
        return story, True
    return look_through(source, slabs, grid, ledger, story)


def look_through(source: SourceSpec, slabs: Slabs, grid: Grid, ledger: Ledger, story: Story) -> tuple[Story, bool]:
    """As `look_ahead`, from every row: where the last gap ends, and whether there are too many steps for so few rows."""
    trial, unsaid = replace(story, constants={}, flat={}), Ledger(ledger.say)
    before: Placed | None = None
    rows, steps, widest, where, gap = 0, 0, 0, None, None
    for slab, _ in slabs.onwards():
        placed = tidy(source, slab, grid, unsaid, trial)
        if not len(placed.ordinals):
            continue
        rows += len(placed.ordinals)
        placed = placed if before is None else together(before, placed)
        steps += int(placed.ordinals[-1] - placed.ordinals[0]) + (before is None)
        jumps, absent = placed.jumps()
        if len(jumps):
            gap = int(placed.panel.stamps[jumps[-1]])
            if absent.max() > widest:
                widest, where = int(absent.max()), placed.panel.keep(jumps[[absent.argmax()]])
        before = placed.keep(slice(-1, None))
    story = replace(story, after_gap=gap if source.gaps == "drop" else None)
    if where is not None and sparse(steps, rows):
        refuse_sparse(where, 0, rows, steps, widest, grid, ledger)
        return story, False
    return story, True
