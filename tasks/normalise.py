"""Fit the scale of every series on its own training steps. Windows are scaled by it as they are read."""

from collections.abc import Collection, Iterable, Iterator

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.errors import Fault, shortlist
from models.scaling import Moments, Scaler, ScalingSpec, SeriesScale, fit_scale, merge_scales
from models.series import Columns
from models.windows import FoldSpec
from tasks.ingest.canonical import read_series
from tasks.ingest.statics import Statics
from tasks.ingest.task import Series
from tasks.policy import step, this_call
from tasks.storage import Receipt, Store


class Normalised(Receipt):
    """`scales.json`: the scale of every series of a shard, and how many steps each has."""

    shard: int
    season: int
    scaling: ScalingSpec
    num_series: int


class Scales(BaseModel):
    """`scales.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    series: dict[str, SeriesScale]
    too_short: dict[str, int]  # steps of the series that leave none to train on


@step(libraries=("numpy", "pyarrow"))
def normalise(
    series: Series, columns: Columns, statics: Statics, scaling: ScalingSpec, folds: FoldSpec, season: int, store: Store
) -> Normalised:
    """Fit the scale of every series of one shard."""
    scales = scale_series(series, columns, statics, scaling, folds, season, store)
    with store.draft(this_call()) as draft:
        draft.write_json("scales.json", scales)
        facts = {"shard": series.shard, "season": season, "scaling": scaling, "num_series": len(scales.series)}
        return draft.commit(Normalised, **facts)


def scale_series(
    series, columns: Columns, statics: Statics, scaling: ScalingSpec, folds: FoldSpec, season: int, store
) -> Scales:
    """The scale of each series that has steps to train on."""
    index = store.read_json(series, "index.json")["series"]
    steps = {name: facts["steps"] for name, facts in index.items()}
    scales, too_short = {}, {}
    for name, pieces in read_series(store, series, columns):
        training = num_training(steps[name], folds)
        if training is None:
            too_short[name] = steps[name]
            continue
        rows = (statics.append(name, rows) for rows in first_rows(pieces, training))
        scale = fit_scale(rows, columns, season, training, steps[name], scaling)
        scales[name] = scale.model_copy(update={"first": index[name]["first"]})
    return Scales(series=scales, too_short=too_short)


def num_training(steps: int, folds: FoldSpec) -> int | None:
    """How many of a series' steps the folds leave to train on; None where they are too few to scale it by."""
    left = steps - folds.validation - folds.test
    return left if left >= 2 else None


def first_rows(pieces: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The first `count` rows of those that come in pieces."""
    for rows in pieces:
        if count <= 0:
            return
        yield rows[:count]
        count -= len(rows)


def read_scaler(normalised: list[Normalised], columns: Columns, store: Store) -> tuple[Scaler, dict[str, int]]:
    """The scaler of all shards, and the steps of the series that have none to train on.

    Raises:
        Fault: no series is left, or none of them ever changes.
    """
    parts = [Scales.model_validate(store.read_json(one, "scales.json")) for one in normalised]
    too_short = {name: steps for part in parts for name, steps in part.too_short.items()}
    scaler = merge_scales([part.series for part in parts], columns, normalised[0].season, normalised[0].scaling)
    check_some_to_train_on(scaler.series, too_short)
    if all(scale.constant for scale in scaler.series.values()):
        raise constant_target(scaler.series)
    return scaler, too_short


def check_trainable(series: list[Series], columns: Columns, folds: FoldSpec, store: Store) -> None:
    """Raises what `read_scaler` would once these shards were normalised; reads no further than to the first change."""
    facts = [store.read_json(one, "index.json")["series"] for one in series]
    steps = {name: own["steps"] for part in facts for name, own in part.items()}
    trained = {name: count for name, own in steps.items() if (count := num_training(own, folds)) is not None}
    check_some_to_train_on(trained, {name: own for name, own in steps.items() if name not in trained})
    for one in series:
        for name, pieces in read_series(store, one, columns):
            moments = Moments(1)
            for rows in first_rows(pieces, trained.get(name, 0)):
                moments.add(rows[:, :1], rows[:, 1] > 0 if columns.masked else None)
                if moments.changes[0]:
                    return
    raise constant_target(trained)


def check_some_to_train_on(trained: Collection[str], too_short: dict[str, int]) -> None:
    """Raises a Fault where the folds leave no series anything to train on."""
    if not trained:
        longest = max(too_short, key=too_short.get)
        of = f", the longest of {len(too_short):,} series" if len(too_short) > 1 else ""
        raise Fault(
            f"No series has steps to train on: folds leave none of the {too_short[longest]} steps of {longest}{of}. "
            "Set smaller folds or bring more rows."
        )


def constant_target(names: Iterable[str]) -> Fault:
    return Fault(
        f"{shortlist(names)}: the target is constant over the training steps, so there is nothing to learn. "
        "Choose another source.target."
    )
