"""Look at labelled data without training on it: how many cases of which class, in which fold, and every fault."""

from pydantic import BaseModel, ConfigDict

from flows.classification import ClassificationSpec
from flows.gathering import check_labels, gathered
from flows.running import Run
from models.errors import counted
from tasks.gather.folding import absent_classes, fold
from tasks.gather.task import read_index
from tasks.journal import StepState
from tasks.storage import Store


class CheckedCases(BaseModel):
    """What a source of labelled data holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str = "classification"
    tasks: list[StepState]
    described: str  # in a line
    what: str  # cases, or windows
    classes: dict[str, int]
    num_cases: dict[str, int]  # by fold
    has_splits: bool
    num_unlabelled: int
    notes: dict[str, int]
    absent: list[str]  # lines on classes that a fold has none of, and on series without a window
    folder: str
    seconds: float


def check_cases(spec: ClassificationSpec, store: Store, run: Run) -> CheckedCases:
    """Gather the cases, say what was found, and refuse what training would refuse of it."""
    labelled = gathered(spec, store)
    check_labels(spec, labelled)
    table = read_index(store, labelled)
    folds, classes = fold(store, labelled, spec.folds, table)
    what = "windows" if labelled.stream else "cases"
    absent = [*absent_classes(table.labels, folds, classes), *([labelled.left_out] if labelled.left_out else [])]
    same = labelled.shortest == labelled.longest
    steps = counted(labelled.longest, "steps") if same else f"{labelled.shortest:,} to {labelled.longest:,} steps"
    return CheckedCases(
        name=spec.name, tasks=run.tasks, what=what, classes=labelled.classes,
        described=f"{counted(labelled.num_cases, what)} of {steps} and {counted(len(labelled.channels), 'channels')}, "
        f"{len(classes)} classes",
        num_cases={one: int((folds == one).sum()) for one in ("train", "validation", "test")}, has_splits=labelled.has_splits,
        num_unlabelled=labelled.num_unlabelled, notes=labelled.notes, absent=absent,
        folder=str(store.folder(labelled.step, labelled.key)), seconds=run.seconds,
    )  # fmt: skip
