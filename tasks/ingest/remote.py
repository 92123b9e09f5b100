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
from tasks.ingest.sources import without_secrets
from tasks.policy import may_pass
from tasks.storage import speaking_of

PAUSES = (2.0, 8.0, 30.0)  # seconds before a transfer that failed is tried again
BLOCK = 8 << 20


def fetch(uri: str, downloads: Path) -> list[tuple[str, Path, tuple[tuple[str, str], ...]]]:
    """Name, local path and partitions of every file that a URL, a folder or a glob of them names.

    Raises:
        Fault: there is nothing there, it can not be reached, or a package for its kind of storage is not installed.
    """
    shown = without_secrets(uri)
    try:
        files, root, places = patiently(lambda: list_remote(uri))
        return [(name_of(uri, place), copy(files, place, downloads), partitions_in(place, root)) for place in places]
    except Fault:
        raise
    except ImportError as error:
        raise Fault(f"{shown} needs a package that is not installed: {error}. Install it, as pip install s3fs.") from error
    except PermissionError as error:
        raise Fault(f"{shown} may not be read with these credentials ({said(error)}).") from error
    except FileNotFoundError as error:
        raise Fault(f"{shown} does not exist. Set source.uri to a .csv or .parquet file, a folder or a glob.") from error
    except ValueError as error:
        raise Fault(f"{shown} is no place that can be read: {said(error)}.") from error
    except Exception as error:  # every kind of storage has its own
        if may_pass(error) or type(error).__module__.split(".")[0] in (
            "botocore",
            "aiohttp",
            "s3fs",
            "fsspec",
            "gcsfs",
            "adlfs",
        ):
            raise Fault(
                f"{shown} can not be reached ({said(error)}). Check the address, the credentials and the network."
            ) from error
        raise


def said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200] or type(error).__name__


def patiently(act):
    """What `act` returns, tried again where it may pass."""
    for pause in (*PAUSES, None):
        try:
            return act()
        except Exception as error:
            if pause is None or isinstance(error, PermissionError | FileNotFoundError | Fault) or not may_pass(error):
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


def list_remote(uri: str) -> tuple[fsspec.AbstractFileSystem, str, list[str]]:
    """The file system of a URL, the folder its partitions begin below, and its files in order.

    Raises:
        Fault: no file is there.
    """
    from tasks.ingest.files import KINDS, suffixes

    files, place = fsspec.core.url_to_fs(uri)
    if glob.has_magic(place) and "http" not in files.protocol:
        found = [one for one in files.glob(place) if not files.isdir(one)]
        root = place[: next(at for at, letter in enumerate(place) if letter in "*?[")].rsplit("/", 1)[0]
        if not found:
            raise Fault(f"No file matches {without_secrets(uri)}. Name another source.uri.")
        return files, root, sorted(found)
    if suffixes(Path(place.split("?")[0]).name)[0] in KINDS or not files.isdir(place):
        if not files.exists(place):
            raise Fault(missing(files, uri, place))
        return files, place.rsplit("/", 1)[0], [place]
    inside = [one for one in files.find(place) if suffixes(Path(one).name)[0] in KINDS]
    seen = [one for one in inside if not any(part.startswith((".", "_")) for part in one[len(place) :].split("/"))]
    if not seen:
        raise Fault(f"{without_secrets(uri)} has no .csv or .parquet file in it. Put one there or name another source.uri.")
    return files, place, sorted(seen)


def missing(files: fsspec.AbstractFileSystem, uri: str, place: str) -> str:
    try:
        names = [Path(one).name for one in files.ls(place.rsplit("/", 1)[0], detail=False)]
    except Exception:  # a hint only
        names = []
    near = difflib.get_close_matches(Path(place).name, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{without_secrets(uri)} does not exist.{hint} Set source.uri to a .csv or .parquet file, a folder or a glob."


def name_of(uri: str, place: str) -> str:
    """What messages call a file: its URL without what is secret."""
    scheme = uri.split("://")[0].split("::")[0]
    return without_secrets(place if "://" in place else f"{scheme}://{place.lstrip('/')}")


def partitions_in(place: str, root: str) -> tuple[tuple[str, str], ...]:
    from tasks.ingest.files import partitions_of

    return partitions_of(Path(place[len(root) :].lstrip("/") if place.startswith(root) else place))


def copy(files: fsspec.AbstractFileSystem, place: str, downloads: Path) -> Path:
    """The local copy of one version of a file; fetched only where there is none yet."""
    return patiently(lambda: copy_once(files, place, downloads))


def copy_once(files: fsspec.AbstractFileSystem, place: str, downloads: Path) -> Path:
    facts = files.info(place)
    version = {
        name: str(facts.get(name)) for name in ("size", "ETag", "etag", "LastModified", "last_modified", "mtime", "updated")
    }
    tagged = any(version[name] != "None" for name in version if name != "size")
    key = hashlib.sha256(repr((place, version)).encode()).hexdigest()[:24]
    target = downloads / key / (Path(place.split("?")[0]).name or "download")
    if tagged and target.exists() and (facts.get("size") is None or target.stat().st_size == facts["size"]):
        return target
    with speaking_of(downloads):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}-{uuid4().hex}")
        try:
            with files.open(place, "rb") as source, open(partial, "wb") as sink:
                shutil.copyfileobj(source, sink, BLOCK)
                sink.flush()
                os.fsync(sink.fileno())
            size = facts.get("size")
            if size is not None and partial.stat().st_size != size:
                raise OSError(errno.EIO, f"{place} has {size} bytes and {partial.stat().st_size} came")
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    return target
