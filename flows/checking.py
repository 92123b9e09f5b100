"""Look at a source without training on it: what it holds, what is repaired, and every fault."""

from collections.abc import Callable
from functools import partial

import numpy as np
from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.checking_cases import CheckedCases, check_cases
from flows.ingesting import Ingested, ingest_source, list_faults
from flows.preparing import check_season, period_for, season_for, stock_of, windows_for
from flows.running import few_at_once, run_of
from flows.spec import AnySpec, PipelineSpec, check_gate
from models.errors import Fault
from models.windows import fold_series
from tasks.find_season import describe_season
from tasks.ingest.calendar import calendar_of
from tasks.ingest.grid import Grid
from tasks.ingest.task import Series
from tasks.journal import StepState
from tasks.normalise import check_trainable
from tasks.storage import Store
from tasks.windows.task import check_reach, stretches


class Checked(BaseModel):
    """What a source holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    tasks: list[StepState]
    rows_read: int
    rows: int  # of canonical Parquet
    steps: int  # of these, up to the last target of each series
    num_series: int
    set_aside: int
    too_short: int  # series that training would leave out
    short_series: tuple[str, ...]  # theirs are the first few names
    season: str  # in words
    frequency: str
    inferred: bool
    first: str
    last: str
    repairs: dict[str, int]
    faults: tuple[str, ...]  # of the series set aside, the first few
    folders: tuple[str, ...]  # of canonical Parquet, one a shard
    seconds: float


@flow(name="checking", persist_result=False, validate_parameters=True, task_runner=few_at_once())
def checking(spec: AnySpec) -> Checked | CheckedCases:
    """Read and arrange a source, say what was found, and refuse what training would refuse of it."""
    store = Store(spec.store)
    with run_of(store) as run:
        if spec.task == "classification":
            return check_cases(spec, store, run)
        got = ingest_source(spec.source, stock_of(spec, store), store)
        overview, kept = got.overview, [one for one in got.series if one.num_series]
        repairs: dict[str, int] = {}
        for one in got.series:
            for what, count in one.repairs.items():
                repairs[what] = repairs.get(what, 0) + count
        season = season_for(spec, got, store)
        short = sorted(check_for_training(spec, got, kept, season.steps, store))
        grid = Grid(overview.frequency, spec.source.timezone)
        return Checked(
            name=spec.name, tasks=run.tasks, rows_read=overview.rows, rows=sum(one.rows for one in kept),
            steps=sum(one.steps for one in kept), num_series=overview.num_series, set_aside=got.set_aside,
            too_short=len(short), short_series=tuple(short[:5]),
            season=describe_season(season.steps, overview.frequency, season.how), frequency=overview.frequency,
            inferred=overview.inferred, first=grid.say(min(one.first for one in kept)),
            last=grid.say(max(one.last for one in kept)), repairs=repairs, faults=tuple(got.faults[:20]),
            folders=tuple(str(store.folder(one.step, one.key)) for one in kept), seconds=run.seconds,
        )  # fmt: skip


def check_for_training(spec: PipelineSpec, got: Ingested, series: list[Series], season: int, store: Store) -> dict[str, int]:
    """The series that training would leave out as too short, with their steps; nothing is written to find out.

    Raises:
        Fault: all that the steps of a training run would refuse of this source, though none of it is wrong by itself. A
            network that does not fit takes torch to tell, and `train` tells of it before it reads anything.
    """
    steps = {name: facts["steps"] for one in series for name, facts in store.read_json(one, "index.json")["series"].items()}
    windows = windows_for(spec, spec.windows, period_for(spec, season, got.overview, series, store), series, store)
    ends = np.array([min(one.first for one in series), max(one.last for one in series)])
    checks: list[Callable] = [
        *(partial(got.statics.of, name) for name in steps),
        lambda: (check_trainable(series, got.columns, spec.folds, store), fold_series(steps, spec.folds, windows)),
        *(partial(check_reach, stretch, windows.span - 1) for one in series for stretch in stretches(one)),
        lambda: calendar_of(got.overview.frequency, spec.source.timezone, got.columns).channels(ends, got.columns),
        lambda: check_season(spec, series, store),
        lambda: check_gate(spec.gate, spec.windows, spec.season or got.overview.season),
    ]
    if found := list(dict.fromkeys(said for check in checks if (said := fault_of(check)))):
        raise Fault(list_faults(found))
    return fold_series(steps, spec.folds, windows)[1]


def fault_of(check: Callable) -> str | None:
    """What a check says, None where it has nothing to say."""
    try:
        check()
    except Fault as fault:
        return str(fault)
    return None
