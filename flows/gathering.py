"""From a source of labelled data to cases: the step that training, labelling and checks begin with."""

from flows.classification import ClassificationSpec
from models.errors import Fault, shortlist
from tasks.gather.files import list_case_files
from tasks.gather.task import Labelled, gather
from tasks.planning import Unknown
from tasks.storage import Store


def gathered(spec: ClassificationSpec, store: Store) -> Labelled:
    """The source as cases."""
    return gather(list_case_files(spec.source, store.downloads), spec.source.to_read(), spec.windows, True, store)


def check_labels(spec: ClassificationSpec, labelled: Labelled) -> None:
    """Raises a Fault where cases have no label and may not be left out; what a stream has not labelled yet always may."""
    if isinstance(labelled, Unknown) or labelled.stream or spec.source.unlabelled == "skip" or not labelled.num_unlabelled:
        return
    raise Fault(
        f"{labelled.num_unlabelled:,} of {labelled.num_cases:,} cases have no {spec.source.label or 'label'}: "
        f"{shortlist(labelled.unlabelled)}. Give them one, or set source.unlabelled: skip to train without them; "
        "convcast forecast labels them."
    )
