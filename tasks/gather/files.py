"""The files of labelled data: what each is, and the digest of its bytes."""

import csv
import hashlib
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from models.errors import Fault
from tasks.gather.source import LabelledSource
from tasks.ingest.listing import find_files, suffixes
from tasks.ingest.sources import USUAL_MARKERS
from tasks.ingest.streams import open_text

KINDS = {".csv": "text", ".tsv": "text", ".txt": "text", ".ts": "ts", ".parquet": "parquet", ".pq": "parquet"}
FOLDS = {"train": "train", "test": "test", "val": "validation", "valid": "validation", "validation": "validation"}


class CaseFile(BaseModel):
    """One file, as it was when the run began."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str  # as the user knows it
    path: str  # where its bytes lie on this machine
    kind: str  # long: a row a step; rows: a case a row; ts; parquet
    codec: str | None
    delimiter: str
    split: str | None  # that its name says, as in GunPoint_TRAIN.ts
    sha256: str
    bytes: int
    modified: int  # nanoseconds

    def cache_identity(self) -> dict:
        """The path only tells where the bytes lie, size and time whether they still do.

        The name is part of what faults and cases are called by.
        """
        return self.model_dump(mode="json", exclude={"path", "name", "bytes", "modified"}) | {"stem": self.stem}

    @property
    def stem(self) -> str:
        return Path(self.name).name.split(".")[0]


def list_case_files(source: LabelledSource, downloads: Path) -> list[CaseFile]:
    """Every file of a source, in the order of names.

    Raises:
        Fault: there is none, or one is empty, unreadable or of another kind.
    """
    return [describe_case_file(source, name, path) for name, path, _ in find_files(source, downloads)]


def describe_case_file(source: LabelledSource, name: str, path: Path) -> CaseFile:
    suffix, codec = suffixes(path.name)
    if suffix not in KINDS:
        shown = os.path.splitext(path.name)[1] or "nothing"
        raise Fault(f"{name} ends in {shown}; source.uri takes .csv, .tsv, .txt (also .gz, .bz2, .xz, .zst), .ts and .parquet.")
    try:
        with open(path, "rb") as raw:
            facts, digest = os.fstat(raw.fileno()), hashlib.file_digest(raw, "sha256").hexdigest()
    except OSError as error:
        raise Fault(f"{name} can not be read ({error.strerror}). Mend it or set source.uri.") from error
    if not facts.st_size:
        raise Fault(f"{name} is empty (0 bytes); it needs cases.")
    file = CaseFile(
        name=name, path=str(path), kind=KINDS[suffix], codec=codec, delimiter=source.delimiter, split=fold_of_name(name),
        sha256=digest, bytes=facts.st_size, modified=facts.st_mtime_ns,
    )  # fmt: skip
    return settle_text(source, file, suffix) if file.kind == "text" else file


def fold_of_name(name: str) -> str | None:
    """The fold that the name of a file says, as GunPoint_TRAIN.ts does."""
    stem = Path(name).name.split(".")[0].lower()
    return next((fold for mark, fold in FOLDS.items() if stem.endswith(f"_{mark}")), None)


def settle_text(source: LabelledSource, file: CaseFile, suffix: str) -> CaseFile:
    """Whether a text file has a header and a row a step, or a case a row, and what stands between its fields."""
    with open_text(file, source.encoding) as stream:
        first = text_of(stream.readline(1 << 26), f"{file.name} line 1").strip("\r\n")
    usual = [source.delimiter, *([] if source.delimiter != "," else ["\t"])] if suffix != ".tsv" else ["\t", source.delimiter]
    marks = [mark for mark in usual if mark in first] or [usual[0]]
    if suffix == ".txt" and not any(mark in first for mark in usual) and len(first.split()) > 1:
        marks = [" "]  # the oldest files of the archive
    fields = fields_of(first, marks[0], source.quote, f"{file.name} line 1")
    headless = len(fields) > 1 and all(is_number(field, source) for field in fields[1:])
    if headless and (source.case or source.timestamp or source.label):
        raise Fault(
            f"{file.name} begins with numbers where a header is needed, as a file with a case a row does. Give it a header, "
            "or leave source.label, case, step and timestamp out."
        )
    if not headless and not (source.case or source.timestamp):
        raise Fault(
            f"{file.name} has a header, so it has a row a step. Name source.case and source.label, or for a stream "
            f"source.timestamp and source.label; it has {', '.join(fields[:12])}."
        )
    return file.model_copy(update={"kind": "rows" if headless else "long", "delimiter": marks[0]})


def text_of(raw: bytes, where: str) -> str:
    """A line as text.

    Raises:
        Fault: it is no UTF-8, which any encoding that the spec names has been turned into.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Fault(
            f"{where} holds the byte {raw[error.start]:#04x}, which is no UTF-8. Set source.encoding, as to latin-1."
        ) from error


def fields_of(line: str, delimiter: str, quote: str, where: str) -> list[str]:
    """The fields of a line, without the quotes around some; a blank for a delimiter stands for any number of them.

    Raises:
        Fault: a quote is not closed.
    """
    if delimiter == " ":
        return line.split()
    if quote not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter, quotechar=quote, strict=True), [""])
    except csv.Error as error:
        raise Fault(f"{where} can not be taken apart ({error}). Close the quotes, or set source.quote.") from error


def is_number(field: str, source: LabelledSource) -> bool:
    text = field.strip()
    if text in USUAL_MARKERS or text in source.missing_markers or text == "?":
        return True
    try:
        float(text.replace(source.decimal, "."))
    except ValueError:
        return False
    return True
