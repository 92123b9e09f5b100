"""Source files that lie elsewhere: copied beside the store once for each version of them, then read as local ones."""

import difflib
import errno
import glob
import hashlib
import os
import shutil
import time
from pathlib import Path
from uuid import uuid4

import fsspec

from models.errors import Fault
from tasks.ingest.listing import KINDS, Found, is_seen, partitions_of, suffixes
from tasks.ingest.sources import without_secrets
from tasks.policy import may_pass
from tasks.storage import speaking_of

PAUSES = (2.0, 8.0, 30.0)  # seconds before a transfer that failed is tried again
BLOCK = 8 << 20
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs"}
PACKAGES |= {"http": "aiohttp requests", "https": "aiohttp requests"}
LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec", "gcsfs", "google", "adlfs", "azure")
# What those libraries raise for a connection that was lost or never made, as far as it is no OSError.
LOST = {"HTTPClientError", "ConnectionError", "IncompleteReadError", "ClientConnectionError", "ClientPayloadError"}
VERSION = ("size", "ETag", "etag", "generation", "md5Hash", "Content-MD5", "Digest", "LastModified", "last_modified")
VERSION += ("Last-Modified", "mtime", "updated", "created")


def fetch(uri: str, downloads: Path, setting: str = "source.uri") -> list[Found]:
    """Name, local path and partitions of every file that a URL, a folder or a glob of them names.

    Args:
        setting: what faults tell the user to change.

    Raises:
        Fault: there is nothing there, it can not be reached, or a package for its kind of storage is not installed.
    """
    shown = without_secrets(uri)
    try:
        files, places = patiently(lambda: list_remote(uri, setting))
        return [(name_of(uri, place), copy(files, place, downloads), partitions_of(Path(place))) for place in places]
    except Fault:
        raise
    except Exception as error:  # every kind of storage has its own
        raise to_fault(uri, shown, cause_of(error), setting) from error


def to_fault(uri: str, shown: str, error: BaseException, setting: str) -> Exception:
    """What is said about an error of a library, or the error itself where it is ours."""
    if isinstance(error, ImportError):
        package = PACKAGES.get(uri.split("://")[0].split("::")[-1].lower(), "the package that fsspec names for it")
        return Fault(f"{shown} needs a package that is not installed ({said(error)}). Install it: pip install {package}.")
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
        return Fault(f"{shown} may not be read with these credentials ({said(error)}).")
    if isinstance(error, FileNotFoundError) or getattr(error, "status", None) in (404, 410):
        return Fault(f"{shown} does not exist. Set {setting} to a .csv or .parquet file, a folder or a glob.")
    if may_pass_elsewhere(error) or type(error).__module__.split(".")[0] in LIBRARIES:
        return Fault(f"{shown} can not be reached ({said(error)}). Check the address, the credentials and the network.")
    if isinstance(error, ValueError):
        return Fault(f"{shown} is no place that can be read: {said(error)}.")
    return error


def said(error: BaseException) -> str:
    first = (str(error).splitlines() or [""])[0]
    return without_secrets(first)[:200] or type(error).__name__


def cause_of(error: BaseException) -> BaseException:
    """The error behind one that says that a file is not there, as fsspec says of any URL that it could not ask about."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def may_pass_elsewhere(error: BaseException) -> bool:
    """Whether another attempt could go well: lost connections and busy servers too."""
    if isinstance(error, PermissionError | FileNotFoundError | Fault):
        return False
    busy = (status := getattr(error, "status", None)) in (408, 425, 429) or (isinstance(status, int) and status >= 500)
    return busy or may_pass(error) or any(kind.__name__ in LOST for kind in type(error).__mro__)


def patiently(act):
    """What `act` returns, tried again where it may pass."""
    for pause in (*PAUSES, None):
        try:
            return act()
        except Exception as error:
            if pause is None or not may_pass_elsewhere(cause_of(error)):
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


def list_remote(uri: str, setting: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    """The file system of a URL, and its files in order.

    Raises:
        Fault: no file is there.
    """
    files, place = fsspec.core.url_to_fs(uri)
    files.invalidate_cache()  # a process that lives long sees what changed since
    web = "http" in files.protocol
    if glob.has_magic(place) and not web:
        found = [one for one, facts in files.glob(place, detail=True).items() if facts["type"] == "file"]
        if not found:
            raise Fault(f"No file matches {without_secrets(uri)}. Name another {setting}.")
        return files, sorted(found)
    named = web and suffixes(Path(place.split("?")[0]).name)[0] in KINDS  # a page of links would pass for a folder
    if named or not files.isdir(place):
        try:
            files.info(place)
        except FileNotFoundError as error:
            if error.__cause__ is not None and web:
                raise
            raise Fault(missing(files, uri, place, setting)) from error
        return files, [place]
    inside = [one for one in files.find(place) if suffixes(Path(one).name)[0] in KINDS]
    seen = [one for one in inside if all(is_seen(part) for part in one[len(place) :].split("/") if part)]
    if not seen:
        raise Fault(f"{without_secrets(uri)} has no .csv or .parquet file in it. Put one there or name another {setting}.")
    return files, sorted(seen)


def missing(files: fsspec.AbstractFileSystem, uri: str, place: str, setting: str) -> str:
    try:
        names = [Path(one).name for one in files.ls(place.rsplit("/", 1)[0], detail=False)]
    except Exception:  # a hint only
        names = []
    near = difflib.get_close_matches(Path(place).name, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{without_secrets(uri)} does not exist.{hint} Set {setting} to a .csv or .parquet file, a folder or a glob."


def name_of(uri: str, place: str) -> str:
    """What messages call a file: its URL without what is secret."""
    scheme = uri.split("://")[0].split("::")[0]
    return without_secrets(place if "://" in place else f"{scheme}://{place.lstrip('/')}")


def copy(files: fsspec.AbstractFileSystem, place: str, downloads: Path) -> Path:
    """The local copy of one version of a file; fetched only where there is none yet."""
    return patiently(lambda: copy_once(files, place, downloads))


def copy_once(files: fsspec.AbstractFileSystem, place: str, downloads: Path) -> Path:
    facts = files.info(place)
    version = {name: str(facts[name]) for name in VERSION if facts.get(name) is not None}
    key = hashlib.sha256(repr((place, version)).encode()).hexdigest()[:24]
    target = downloads / key / (Path(place.split("?")[0]).name or "download")
    size = facts.get("size")
    if len(version) > ("size" in version) and target.exists() and (size is None or target.stat().st_size == size):
        return target
    with files.open(place, "rb") as source, speaking_of(downloads):
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_partial(target.parent)
        partial = target.with_name(f".{target.name}-{uuid4().hex}")
        try:
            with open(partial, "wb") as sink:
                shutil.copyfileobj(source, sink, BLOCK)
                sink.flush()
                os.fsync(sink.fileno())
            if size is not None and partial.stat().st_size != size:
                files.invalidate_cache()
                raise OSError(errno.EIO, f"{without_secrets(place)} has {size} bytes and {partial.stat().st_size} came")
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def clear_partial(folder: Path, seconds: float = 3600) -> None:
    """Remove what transfers left that were killed so long ago."""
    for path in folder.glob(".*"):
        if time.time() - path.stat().st_mtime > seconds:
            path.unlink(missing_ok=True)
