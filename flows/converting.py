"""A stored model as an ONNX file, for other programs."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flows.classification import ClassificationSpec
from flows.showing import named_model
from flows.spec import PipelineSpec
from models.bundle import Description
from models.classification.bundle import ClassDescription
from models.classification.graph import classifier_to_onnx
from models.errors import Fault
from models.graph import to_onnx
from tasks.storage import Store, speaking_of
from tasks.train import Model, read_bundle
from tasks.train_classifier import ClassModel, read_classifier


class Converted(BaseModel):
    """What was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str  # of the model
    task: str
    path: str
    size: int  # bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def converting(spec: PipelineSpec | ClassificationSpec, digest: str | None, path: Path) -> Converted:
    """Write the live model of a pipeline, or one of its store by the first letters of its digest, as ONNX.

    Raises:
        Fault: there is none, it does not do what the spec asks for, its files are damaged, or what writes ONNX is not
            installed.
    """
    model, store = named_model(spec, digest), Store(spec.store)
    check_same_task(spec, model)
    if isinstance(model, ClassModel):
        classifier = read_classifier(store, model)
        content, (inputs, outputs) = classifier_to_onnx(classifier), class_shapes_of(classifier.description)
    else:
        bundle = read_bundle(store, model)
        content, (inputs, outputs) = to_onnx(bundle), shapes_of(bundle.description)
    write_whole(content, path)
    return Converted(
        digest=model.digest, task=spec.task, path=str(path), size=len(content), inputs=inputs, outputs=outputs
    )  # fmt: skip


def check_same_task(spec: PipelineSpec | ClassificationSpec, model: Model | ClassModel) -> None:
    """Raises a Fault where a model forecasts and the spec classifies, or the reverse."""
    does = "classification" if isinstance(model, ClassModel) else "forecasting"
    if does != spec.task:
        raise Fault(
            f"Model {model.digest[:8]} is of task: {does}, and the spec {spec.name!r} has task: {spec.task}. "
            "Name a model of this task, or the spec that it was trained with."
        )


def write_whole(content: bytes, path: Path) -> None:
    """The file takes its name only once it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    with speaking_of(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def shapes_of(about: Description) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What goes in and what comes out, with shapes."""
    columns, cut = about.series.columns, about.windows
    past = f"past (batch, {cut.lookback}, {columns.num_channels})"
    future = f"future (batch, {cut.horizon}, {len(columns.known)})"
    outputs = (f"forecast (batch, {cut.horizon})",)
    if about.calibration:
        outputs += (f"quantiles (batch, {cut.horizon}, {len(about.calibration.levels)})",)
    return (past, future, "series (batch)"), outputs


def class_shapes_of(about: ClassDescription) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What goes in and what comes out of a classifier, with shapes."""
    values = f"values (batch, {about.shape.num_channels}, steps)"
    return (values, "lengths (batch)"), (f"probabilities (batch, {about.shape.num_classes})", "label (batch)")
