"""Choose, on steps to train on alone, the covariates that tell something of the target."""

from collections.abc import Iterator

import numpy as np

from models.errors import Fault
from models.inputs import Input, Pick, candidates, keep_channels, lookback_for, select_inputs
from models.series import DATE, Columns
from models.windows import FoldSpec, WindowSpec
from tasks.ingest.calendar import Calendar
from tasks.ingest.canonical import read_segment
from tasks.ingest.task import Series
from tasks.normalise import num_training
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Receipt, Store

MOMENTS = 3000  # origins that are looked at, drawn evenly from all steps to train on
FEWEST = 100  # below which there is no telling chance from information
SHARDS = 16  # that are read at most, evenly spread over all


class Selection(Receipt):
    """The channels that are kept, and every input in the order it was taken."""

    columns: Columns
    dropped: tuple[str, ...]
    picks: tuple[Pick, ...]
    lookback: int  # steps that are enough to see these inputs; what is used where the spec says none
    moments: int  # that were looked at


@step(libraries=("numpy", "pandas", "pyarrow", "tzdata"))
def select(
    series: list[Series], columns: Columns, calendar: Calendar, windows: WindowSpec, folds: FoldSpec, season: int, store: Store
) -> Selection:
    """Say which channels carry information about the target that others do not."""
    wanted = candidates(columns, windows.lookback, windows.horizon, season)
    values, target = draw_moments(series, columns, calendar, windows, folds, wanted, store)
    count = len(next(iter(target.values())))
    check_enough(count)
    picks = tuple(pick for ahead, own in wanted.items() for pick in select_inputs(values[ahead], target[ahead], own, ahead))
    carrying = [pick.input.channel for pick in picks if pick.taken and pick.input.channel != "target"]
    kept = keep_channels(columns, carrying + [DATE] * (DATE in columns.calendar))
    dropped = tuple(name for name in columns.names if name not in kept.names)
    say(f"inputs kept: {', '.join(kept.names)}" + (f"; dropped: {', '.join(dropped)}" if dropped else ""))
    with store.draft(this_call()) as draft:
        draft.write_json("picks.json", [pick.model_dump(mode="json") for pick in picks])
        lookback = lookback_for(picks, windows.lookback, windows.horizon, season)
        return draft.commit(Selection, columns=kept, dropped=dropped, picks=picks, lookback=lookback, moments=count)


def check_enough(count: int) -> None:
    """Raises a Fault where too few moments are left to choose by."""
    if count < FEWEST:
        raise Fault(
            f"network.inputs 'auto' has {count} moments to choose by; {FEWEST} are needed. Bring more rows, shorten "
            "windows.lookback, or name the inputs."
        )


def draw_moments(
    series: list[Series], columns: Columns, calendar: Calendar, windows: WindowSpec, folds: FoldSpec,
    wanted: dict[int, list[Input]], store: Store,
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:  # fmt: skip
    """The candidates (N, C) and targets (N,) at random origins, by step ahead, in order of time over all series."""
    used = [one for one in series if one.num_series]
    used = used[:: -(-len(used) // SHARDS)]
    own = columns.model_copy(update={"static": ()})  # the same at every step, so it can not be judged here
    total = sum(count for one in used for count in trainable(one, folds, store).values())
    rng, drawn, moments = np.random.default_rng(0), [], []
    for stamps, rows in training_rows(used, own, calendar, folds, store):
        starts = len(rows) - windows.span + 1
        if starts <= 0:
            continue
        share = min(starts, max(1, round(MOMENTS * len(rows) / total)))
        origins = np.sort(rng.choice(starts, share, replace=False)) + windows.lookback - 1
        if own.masked:
            origins = origins[np.all([rows[origins + ahead, 1] > 0 for ahead in wanted], 0)]
        spread = rows.std(0)
        drawn.append(at_origins((rows - rows.mean(0)) / np.where(spread > 0, spread, 1), origins, own, wanted))
        moments.append(stamps[origins])
    order = np.argsort(np.concatenate(moments or [np.empty(0)]), kind="stable")  # neighbours in time share their weather
    values = {ahead: np.concatenate([part[ahead][0] for part in drawn] or [np.empty((0, 1))])[order] for ahead in wanted}
    target = {ahead: np.concatenate([part[ahead][1] for part in drawn] or [np.empty(0)])[order] for ahead in wanted}
    return values, target


def trainable(series: Series, folds: FoldSpec, store: Store) -> dict[str, int]:
    """How many steps of each series of a shard the folds leave to train on."""
    known = store.read_json(series, "index.json")["series"]
    return {name: num_training(facts["steps"], folds) or 0 for name, facts in known.items()}


def training_rows(
    used: list[Series], columns: Columns, calendar: Calendar, folds: FoldSpec, store: Store
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stamps (R,) and rows (R, C) to train on of each series, segment by segment."""
    for one in used:
        left = trainable(one, folds, store)
        for segment in one.segments:
            for name, stamps, rows in read_segment(store, one, segment, columns):
                count = min(len(rows), left[name])
                left[name] -= count
                if count:
                    yield stamps[:count], calendar.insert(rows[:count], stamps[:count], columns)


def at_origins(
    rows: np.ndarray, origins: np.ndarray, columns: Columns, wanted: dict[int, list[Input]]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The candidates (N, C) and the target (N,) of some origins of one series, by step ahead."""
    at = {name: place for place, name in enumerate(columns.names)}
    return {
        ahead: (np.stack([rows[origins - one.lag, at[one.channel]] for one in inputs], 1), rows[origins + ahead, 0])
        for ahead, inputs in wanted.items()
    }
