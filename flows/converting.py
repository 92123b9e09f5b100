"""A stored model as an ONNX file, for other programs."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flows.showing import named_model
from flows.spec import PipelineSpec
from models.bundle import Description
from models.graph import to_onnx
from tasks.storage import Store, speaking_of
from tasks.train import read_bundle


class Converted(BaseModel):
    """What was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str  # of the model
    path: str
    size: int  # bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def converting(spec: PipelineSpec, digest: str | None, path: Path) -> Converted:
    """Write the live model of a pipeline, or one of its store by the first letters of its digest, as ONNX.

    Raises:
        Fault: there is none, its files are damaged, or what writes ONNX is not installed.
    """
    model = named_model(spec, digest)
    bundle = read_bundle(Store(spec.store), model)
    content = to_onnx(bundle)
    write_whole(content, path)
    inputs, outputs = shapes_of(bundle.description)
    return Converted(digest=model.digest, path=str(path), size=len(content), inputs=inputs, outputs=outputs)


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
