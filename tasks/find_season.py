"""Find out after how many steps the series repeat themselves, from a sample of their training steps."""

from itertools import accumulate

import numpy as np

from models.seasons import can_tell, main_season
from models.series import Columns
from models.windows import FoldSpec
from tasks.ingest.canonical import read_tails
from tasks.ingest.task import Series
from tasks.ingest.timeline import calendar_seasons, season_of
from tasks.normalise import num_training
from tasks.policy import step, this_call
from tasks.progress import say
from tasks.storage import Receipt, Store

SAMPLED_SERIES = 64
SAMPLED_STEPS = 1 << 17  # of all sampled series together
STEPS_A_SERIES = 1 << 14  # the newest of those to train on


class Season(Receipt):
    """`season.json`: the steps after which the series repeat themselves, 1 where they do not, and how that is known."""

    steps: int
    how: str


@step(libraries=("numpy", "pandas", "pyarrow"))
def find_season(series: list[Series], masked: bool, folds: FoldSpec, frequency: str, store: Store) -> Season:
    """Look for the season in some of the series; these are of the first shards, which hold any series by chance."""
    targets = sample_targets(series, masked, folds, store)
    steps, how = decide(targets, frequency)
    say(f"season: {describe_season(steps, frequency, how)}")
    with store.draft(this_call()) as draft:
        draft.write_json("season.json", {"steps": steps, "how": how, "series": len(targets)})
        return draft.commit(Season, steps=steps, how=how)


def decide(targets: list[np.ndarray], frequency: str) -> tuple[int, str]:
    """The season, and how it is known: too few steps say nothing, and the calendar has the word if two of its seasons fit."""
    usual, longest = season_of(frequency), max(map(len, targets), default=0)
    if usual > 1 and not can_tell(longest, usual) and 2 * usual <= longest:
        return usual, "by the calendar, as there are too few steps to tell"
    return main_season(targets, tuple(calendar_seasons(frequency))), "found in the data"


def describe_season(steps: int, frequency: str, how: str) -> str:
    """A season in words: 48 steps (a day), found in the data."""
    if steps == 1:
        return f"none, {how}"
    name = calendar_seasons(frequency).get(steps)
    return f"{steps:,} steps{f' ({name})' if name else ''}, {how}"


def sampled_shards(series: list[Series]) -> list[Series]:
    """The first shards that hold as many series as are looked at."""
    full = [one for one in series if one.num_series]
    before = [0, *accumulate(one.num_series for one in full)]
    return [one for one, count in zip(full, before, strict=False) if count < SAMPLED_SERIES]


def sample_targets(series: list[Series], masked: bool, folds: FoldSpec, store: Store) -> list[np.ndarray]:
    """The newest training steps (R,) of some series, NaN where not observed."""
    shards = sampled_shards(series)
    known = [store.read_json(one, "index.json")["series"] for one in shards]
    training = {name: num_training(facts["steps"], folds) or 0 for each in known for name, facts in each.items()}
    kept = {name: min(count, STEPS_A_SERIES) for name, count in training.items() if count}
    room = accumulate(kept[name] for name in sorted(kept)[:SAMPLED_SERIES])
    chosen = {name for name, sum_so_far in zip(sorted(kept), room, strict=False) if sum_so_far - kept[name] < SAMPLED_STEPS}
    targets = []
    for one, facts in zip(shards, known, strict=True):
        needed = {name: first_stamp(facts[name], kept[name], training[name]) for name in facts if name in chosen}
        for name, _, rows in read_tails(store, one, Columns(masked=masked), needed):
            held = rows[: max(0, len(rows) - (facts[name]["rows"] - training[name]))][-kept[name] :]
            targets.append(np.where(held[:, 1] > 0, held[:, 0], np.nan) if masked else held[:, 0])
    return targets


def first_stamp(facts: dict[str, int], kept: int, training: int) -> int:
    """An instant before the last `kept` training steps of a series; they are regular, but for the calendar's own lengths."""
    if kept == training:
        return facts["first"]
    each = (facts["last"] - facts["first"]) / (facts["steps"] - 1)
    return int(facts["first"] + each * (training - 1.1 * kept))
