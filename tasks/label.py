"""Label cases with the live classifier, and publish the rows to the table of labels. Never cached: it changes the world."""

from datetime import datetime

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from models.classification.folds import CaseFolds, fold_cases
from models.errors import Fault, shortlist
from tasks.forecast.table import create, upsert, writing
from tasks.gather.opening import read_cases
from tasks.gather.task import Labelled, Table, read_index
from tasks.lease import LeasedLocks
from tasks.policy import step
from tasks.progress import say
from tasks.storage import Store
from tasks.train_classifier import ClassModel, read_classifier

SCHEMA = pa.schema(
    [
        ("series_id", pa.string()),  # the case, or the series of a stream
        ("origin", pa.timestamp("us", "UTC")),  # the last stamp of a window; null for a case
        ("model", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float64()),  # of that label
        ("probabilities", pa.map_(pa.string(), pa.float64())),  # of every class
        ("model_digest", pa.string()),
        ("run_id", pa.string()),
        ("created_at", pa.timestamp("us", "UTC")),
    ]
)
SAME = "old.series_id = new.series_id AND old.model = new.model AND old.origin IS NOT DISTINCT FROM new.origin"


class LabelledRows(BaseModel):
    """What was written, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    version: int  # of the Delta table, after the write
    rows: int
    counts: dict[str, int]  # rows of each label
    known: int  # rows whose label the source already has
    accuracy: float | None  # over those, each by the model that has not learned from the cases of the test fold


@step(cached=False)
def label(
    name: str,
    model: ClassModel,
    scored: ClassModel,
    labelled: Labelled,
    folds: CaseFolds,
    origin: datetime | None,
    everything: bool,
    run_id: str,
    now: datetime,
    store: Store,
) -> LabelledRows:
    """Label what waits for a label, and upsert the rows into the table of labels.

    A case whose label is known may be one that `model` has learned from; it is labelled by `scored`, so that its row shows how
    good the labels are.

    Args:
        scored: the model as it was when the test cases were held out; `model` itself, where it did not go on to these.
        everything: all cases, whether they have a label or not, as of files that were named to be labelled.
    """
    table = read_index(store, labelled)
    check_channels(labelled, model)
    which = waiting(labelled, table, folds, origin, everything)
    cases = read_cases(store, labelled, table, model.classes, model.channels).pick(which)
    truth = np.array(table.labels, object)[which]
    known = np.not_equal(truth, None)
    found, taken = np.empty((len(which), len(model.classes))), np.empty(len(which), int)
    digests = np.where(known, scored.digest, model.digest).tolist()
    for one, own in ((model, ~known), (scored, known)):
        if own.any():
            bundle, own = read_classifier(store, one), np.flatnonzero(own)
            found[own] = bundle.probabilities(cases.pick(own))
            taken[own] = bundle.decide(found[own])
    said = np.array(model.classes, object)[taken]
    rows = rows_of(table, which, taken, found, model.classes)
    rows |= {"model": [f"{name}@{digest[:12]}" for digest in digests], "model_digest": digests}
    rows |= {"run_id": [run_id] * len(which), "created_at": [now] * len(which)}
    locks, holder = LeasedLocks(store.locks), f"{run_id}-label"
    locks.acquire_lock("labels", holder)  # Delta Lake would refuse the later of two writers; so it waits instead
    try:
        version = publish(str(store.root / "labels"), pa.table({key: rows[key] for key in SCHEMA.names}, schema=SCHEMA))
    finally:
        locks.release_lock("labels", holder)
    names, counts = np.unique(said.astype(str), return_counts=True)
    return LabelledRows(
        table=str(store.root / "labels"), version=version, rows=len(which),
        counts=dict(zip(names.tolist(), counts.tolist(), strict=True)), known=int(known.sum()),
        accuracy=float((said == truth)[known].mean()) if known.any() else None,
    )  # fmt: skip


def check_channels(labelled: Labelled, model: ClassModel) -> None:
    """Raises a Fault where a channel that the model was trained on is absent."""
    absent = [name for name in model.channels if name not in labelled.channels]
    if absent:
        raise Fault(
            f"The live model sees the channels {shortlist(model.channels, 8)}; what is to be labelled lacks "
            f"{shortlist(absent)}. Give it these columns, or train again."
        )


def waiting(labelled: Labelled, table: Table, folds: CaseFolds, origin: datetime | None, everything: bool) -> np.ndarray:
    """The numbers of the cases that wait for a label, of a stream the windows after the last label of each series.

    Where none waits: of a stream the newest window of each series, up to `origin`; of cases those of the test fold, which
    show how good the labels are.

    Raises:
        Fault: no window of a stream ends at or before `origin`.
    """
    unknown = np.array([one is None for one in table.labels])
    if not labelled.stream:
        if everything or unknown.any():
            return np.arange(len(unknown)) if everything else np.flatnonzero(unknown)
        say("every case has its label; those of the test fold are labelled, to be held against theirs")
        return np.flatnonzero(fold_cases(table.ids, table.labels, table.splits, folds) == "test")
    chosen: list[int] = []
    until = np.inf if origin is None else origin.timestamp() * 1e6
    names, whose = np.unique(np.array(table.ids), return_inverse=True)
    ended = np.flatnonzero(table.origins <= until)
    of_series = dict(zip(names.tolist(), np.split(ended, np.searchsorted(whose[ended], np.arange(1, len(names)))), strict=True))
    for part in table.series:
        own = of_series.get(part.name, ended[:0])
        if not len(own):
            continue
        last = own[~unknown[own]].max(initial=-1)
        new = own[own > last]
        chosen += (new if len(new) and origin is None else own[-1:]).tolist()
    if not chosen:
        first = np.datetime64(int(table.origins.min()), "us").astype("datetime64[s]")
        raise Fault(
            f"No window ends at or before {origin.isoformat()}; the first whole one ends at {first} UTC. Name a later origin."
        )
    return np.array(chosen)


def rows_of(table: Table, which: np.ndarray, taken: np.ndarray, found: np.ndarray, classes: tuple[str, ...]) -> dict:
    """The columns of the table that say what was labelled, and how."""
    origins = [None] * len(which) if table.origins is None else table.origins[which].tolist()
    return {
        "series_id": [table.ids[at] for at in which],
        "origin": pa.array(origins, pa.int64()).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
        "label": [classes[at] for at in taken],
        "probability": found[np.arange(len(taken)), taken].tolist(),
        "probabilities": [list(zip(classes, row, strict=True)) for row in found.tolist()],
    }


def publish(uri: str, rows: pa.Table) -> int:
    """Upsert rows in one atomic commit; returns the table's new version. A reader sees all rows of a run or none."""
    with writing(uri):
        create(uri, SCHEMA)
        return upsert(uri, rows, SAME)
