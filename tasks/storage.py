"""The store: artifacts, receipts and small JSON documents.

An artifact is a folder `<store>/<step>/<key>/`. It is written under another name, `manifest.json` last, and then takes
its place in one move. The manifest names every file with its size and SHA-256, what the artifact was made from, and
the receipt its task returned. What a killed run leaves under the other name is cleared away by a later one.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from models.errors import Fault

MANIFEST = "manifest.json"
MANY_BYTES = 1 << 22  # that take longer to hash than a thread takes to begin


class Receipt(BaseModel):
    """What a task hands to the next one: where its artifact lies and the digest of what is in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    key: str  # what it was made from; with `step`, its place in the store
    digest: str  # SHA-256 over its files and the facts that the receipt states about them

    def cache_identity(self) -> str:
        """Only the content counts: the same bytes made elsewhere, or by other code, are the same input."""
        return self.digest


R = TypeVar("R", bound=Receipt)


class Call(BaseModel):
    """One call of a step: its cache key and what the key was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    key: str
    made_from: dict[str, Any]


class Draft:
    """An artifact being written; real only after `commit`."""

    def __init__(self, store: "Store", call: Call):
        self.store, self.call = store, call
        self.folder = store.root / call.step / f".{call.key}-{uuid4().hex}"
        self.described: dict[str, dict[str, Any]] = {}

    def path(self, name: str) -> Path:
        return self.folder / name

    def write_table(self, name: str, table: pa.Table) -> None:
        pq.write_table(table, self.path(name), compression="zstd", write_page_checksum=True)

    def write_bytes(self, name: str, content: bytes) -> None:
        self.path(name).write_bytes(content)

    def write_json(self, name: str, document: BaseModel | dict | list) -> None:
        self.write_bytes(name, to_json(document))

    def take_over(self, files: dict[str, tuple[Path, str]]) -> bool:
        """Have files of an earlier artifact as this one's too, each if it still has its SHA-256; None of them if one has not.

        Args:
            files: the name here -> the path there and its SHA-256.
        """
        try:
            for name, (path, _) in files.items():
                link_or_copy(path, self.path(name))
            found = self.files()
            if all(found[name]["sha256"] == sha256 for name, (_, sha256) in files.items()):
                return True
        except (FileNotFoundError, IsADirectoryError):  # somebody cleared the store
            pass
        for name in files:
            self.remove(name)
        return False

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)
        self.described.pop(name, None)

    def files(self) -> dict[str, dict[str, Any]]:
        """Size and SHA-256 of every file written so far, each looked at once."""
        paths = [path for path in sorted(self.folder.iterdir()) if path.name not in self.described]
        self.described |= dict(zip((path.name for path in paths), describe_all(paths), strict=True))
        return self.described

    def commit(self, kind: type[R], **facts) -> R:
        """Write the manifest, last of all files and flushed to disk, move the folder to its place, and return the receipt.

        Where another run has put the same artifact there meanwhile, that one stays: somebody may be reading it.
        """
        files = self.files()
        receipt = kind(step=self.call.step, key=self.call.key, digest="", **facts)
        stated = receipt.model_dump(mode="json", exclude={"key", "digest"})
        digest = hashlib.sha256(json.dumps([files, stated], sort_keys=True).encode()).hexdigest()
        receipt = receipt.model_copy(update={"digest": digest})
        manifest = {
            "format": 1,
            "files": files,
            "made_from": self.call.made_from,
            "receipt": receipt.model_dump(mode="json"),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_atomically(self.folder / MANIFEST, to_json(manifest))
        step, key = self.call.step, self.call.key
        if self.store.whole(step, key):
            return kind.model_validate(self.store.manifest(step, key)["receipt"])
        place = self.store.folder(step, key)
        shutil.rmtree(place, ignore_errors=True)  # damaged
        os.rename(self.folder, place)
        return receipt


class Store:
    """One folder that holds everything a pipeline made."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    @property
    def results(self) -> Path:
        """Where Prefect keeps what tasks returned."""
        return self.root / "results"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def downloads(self) -> Path:
        """Copies of source files that lie elsewhere."""
        return self.root / "downloads"

    @property
    def forecasts(self) -> str:
        """The Delta Lake table of all forecasts."""
        return str(self.root / "forecasts")

    def folder(self, step: str, key: str) -> Path:
        return self.root / step / key

    def file(self, receipt: Receipt, name: str) -> Path:
        return self.folder(receipt.step, receipt.key) / name

    def read_json(self, receipt: Receipt, name: str) -> Any:
        return json.loads(self.file(receipt, name).read_bytes())

    @contextmanager
    def draft(self, call: Call) -> Iterator[Draft]:
        """A folder to write an artifact into; gone again unless the body commits.

        Raises:
            Fault: the store can not be written, or is full.
        """
        draft = Draft(self, call)
        try:
            with speaking_of(self.folder(call.step, call.key)):
                clear_remains(draft.folder.parent, f".{call.key}-*")
                draft.folder.mkdir(parents=True)
                yield draft
        finally:
            shutil.rmtree(draft.folder, ignore_errors=True)

    def manifest(self, step: str, key: str) -> dict | None:
        """The manifest of an artifact, or None if there is none that can be read."""
        try:
            found = json.loads((self.folder(step, key) / MANIFEST).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and {"files", "made_from", "receipt", "created_at"} <= found.keys() else None

    def manifests(self, step: str) -> list[dict]:
        """The manifests of every artifact that a step has made here, oldest first."""
        folder = self.root / step
        keys = sorted(path.name for path in folder.glob("[!.]*"))
        found = [manifest for key in keys if (manifest := self.manifest(step, key))]
        return sorted(found, key=lambda manifest: manifest["created_at"])

    def whole(self, step: str, key: str) -> bool:
        """Whether an artifact is there with every byte it was committed with."""
        manifest = self.manifest(step, key)
        if manifest is None:
            return False
        folder = self.folder(step, key)
        try:
            return describe_all([folder / name for name in manifest["files"]]) == list(manifest["files"].values())
        except (OSError, KeyError, AttributeError):
            return False

    def document(self, *parts: str) -> dict | None:
        """A small JSON document kept beside the artifacts, such as the live pointer; None if there is none."""
        path = self.root.joinpath(*parts)
        if not path.exists():
            return None
        try:
            return json.loads(path.read_bytes())
        except ValueError as fault:
            raise Fault(f"{path} is not JSON ({fault}). Restore it, or delete it to start without it.") from fault

    def put_document(self, document: dict, *parts: str) -> Path:
        """Replace a small JSON document; a reader sees the old one or the new one, never a part."""
        return self.put_file(to_json(document), *parts)

    def put_file(self, content: bytes, *parts: str) -> Path:
        """Replace a small file; a reader sees the old one or the new one, never a part. One that holds this is left alone."""
        path = self.root.joinpath(*parts)
        with speaking_of(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != content:
                write_atomically(path, content)
        return path

    def check_writable(self) -> None:
        """Raises a Fault where nothing can be written, before any task starts."""
        probe = self.root / f".probe-{uuid4().hex}"
        with speaking_of(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()


def clear_remains(folder: Path, pattern: str, seconds: float = 3600) -> None:
    """Remove drafts that nobody has touched for so long: their writers were killed."""
    for path in folder.glob(pattern):
        if time.time() - path.stat().st_mtime > seconds:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def speaking_of(path: Path) -> Iterator[None]:
    """Turn the faults of a disk that no retry will mend into one sentence that names the path."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "The disk is full",
            errno.EDQUOT: "The disk quota is used up",
            errno.EACCES: "This user may not write there",
            errno.EPERM: "This user may not write there",
            errno.EROFS: "The file system is read-only",
            errno.ENOTDIR: "A file stands where a folder is needed",
            errno.EEXIST: "A file stands where a folder is needed",
        }
        if error.errno not in reasons:
            raise
        raise Fault(
            f"Can not write {path}: {reasons[error.errno].lower()}. Nothing half-written was kept. "
            "Make room or set another store."
        ) from error


def to_json(document: BaseModel | dict | list) -> bytes:
    if isinstance(document, BaseModel):
        document = document.model_dump(mode="json")
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def describe(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with open(path, "rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def describe_all(paths: list[Path]) -> list[dict[str, Any]]:
    """Size and SHA-256 of files, two at a time where they are large."""
    if sum(path.stat().st_size for path in paths) < MANY_BYTES:
        return [describe(path) for path in paths]
    with ThreadPoolExecutor(2) as pool:  # hashing lets go of the interpreter
        return list(pool.map(describe, paths))


def link_or_copy(path: Path, place: Path) -> None:
    """One file under two names, where the file system can; a copy where it can not."""
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file through a temporary one beside it, flushed to disk before it takes the name."""
    temporary = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
