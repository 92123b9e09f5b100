"""Look at a source without training on it: what it holds, what is repaired, and every fault."""

from collections.abc import Iterator

from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.preparing import ingest_source, stock_of, windows_for
from flows.running import few_at_once, run_of
from flows.spec import PipelineSpec
from models.windows import steps_needed
from tasks.ingest.grid import Grid
from tasks.ingest.task import Series
from tasks.journal import StepState
from tasks.storage import Store


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
    frequency: str
    inferred: bool
    first: str
    last: str
    repairs: dict[str, int]
    faults: tuple[str, ...]  # of the series set aside, the first few
    folders: tuple[str, ...]  # of canonical Parquet, one a shard
    seconds: float


@flow(name="checking", persist_result=False, validate_parameters=True, task_runner=few_at_once())
def checking(spec: PipelineSpec) -> Checked:
    """Read and arrange a source, and say what was found."""
    store = Store(spec.store)
    with run_of(store) as run:
        got = ingest_source(spec.source, stock_of(spec, store), store)
        overview, kept = got.overview, [one for one in got.series if one.num_series]
        repairs: dict[str, int] = {}
        for one in got.series:
            for what, count in one.repairs.items():
                repairs[what] = repairs.get(what, 0) + count
        needed = steps_needed(spec.folds, windows_for(spec, spec.windows, overview, kept, store))
        short = sorted(name for name, steps in steps_by_series(kept, store) if steps < needed)
        grid = Grid(overview.frequency, spec.source.timezone)
        return Checked(
            name=spec.name, tasks=run.tasks, rows_read=overview.rows, rows=sum(one.rows for one in kept),
            steps=sum(one.steps for one in kept), num_series=overview.num_series, set_aside=got.set_aside,
            too_short=len(short), short_series=tuple(short[:5]), frequency=overview.frequency,
            inferred=overview.inferred, first=grid.say(min(one.first for one in kept)),
            last=grid.say(max(one.last for one in kept)), repairs=repairs, faults=tuple(got.faults[:20]),
            folders=tuple(str(store.folder(one.step, one.key)) for one in kept), seconds=run.seconds,
        )  # fmt: skip


def steps_by_series(kept: list[Series], store: Store) -> Iterator[tuple[str, int]]:
    """Each series with how many steps it has up to its last target."""
    for one in kept:
        for name, facts in store.read_json(one, "index.json")["series"].items():
            yield name, facts["steps"]
