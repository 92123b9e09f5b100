"""Where the files of a source are: paths, lists, folders and globs become single files, each once."""

import difflib
import glob
import os
from pathlib import Path
from urllib.parse import unquote

from models.errors import Fault
from tasks.ingest.sources import SourceSpec, is_url
from tasks.ingest.streams import CODECS

KINDS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet"}
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
Found = tuple[str, Path, tuple[tuple[str, str], ...]]  # name as the user knows it, path, partitions


def find_files(source: SourceSpec, downloads: Path) -> list[Found]:
    """Name, path and partitions of each file, sorted by name within each uri, each once.

    Raises:
        Fault: a uri names no file that can be read.
    """
    uris = (source.uri,) if isinstance(source.uri, str) else source.uri
    found: dict[tuple, Found] = {}
    for uri in uris:
        if is_url(uri):
            from tasks.ingest.remote import fetch

            listed = fetch(uri, downloads)
        else:
            listed = list_local(uri)
        for name, path, partitions in listed:
            found.setdefault((os.path.realpath(path), partitions), (name, path, partitions))
    return list(found.values())


def list_local(uri: str) -> list[Found]:
    path = Path(uri)
    try:
        if path.is_dir():
            return [(str(one), one, partitions_of(one)) for one in list_folder(path)]
        if path.exists():
            return [(uri, path, partitions_of(path))]
        if glob.has_magic(uri):
            matches = sorted(one for one in glob.glob(uri, recursive=True) if Path(one).is_file())
            if not matches:
                raise Fault(f"No file matches {uri}. Name another source.uri.")
            return [(one, Path(one), partitions_of(Path(one))) for one in matches]
        near = difflib.get_close_matches(path.name, names_beside(path), n=1)
    except OSError as error:
        raise Fault(f"{error.filename or uri} can not be looked at ({error.strerror}). Mend it or set source.uri.") from error
    hint = f" Did you mean {near[0]}?" if near else ""
    raise Fault(f"{uri} does not exist.{hint} Set source.uri to a .csv or .parquet file, a folder or a glob.")


def list_folder(folder: Path) -> list[Path]:
    """The files of a folder and those below it, in order; names that begin with a dot or an underscore are passed over.

    Raises:
        Fault: there is none of a kind that can be read.
        OSError: a folder can not be looked into.
    """

    def refuse(error: OSError) -> None:
        raise error

    found: list[Path] = []
    visited: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        visited.add(os.path.realpath(place))
        inside = [one for one in folders if is_seen(one)]
        folders[:] = [one for one in inside if os.path.realpath(os.path.join(place, one)) not in visited]
        found += [Path(place, name) for name in names if is_seen(name) and suffixes(name)[0] in KINDS]
    files = sorted(path for path in found if path.is_file())
    if not files:
        raise Fault(f"{folder} is a folder without any .csv or .parquet file. Put one there or name another source.uri.")
    return files


def is_seen(name: str) -> bool:
    return not name.startswith((".", "_"))


def partitions_of(path: Path) -> tuple[tuple[str, str], ...]:
    """The columns that a path's folders name, Hive's way: `year=2014/site=north/part.parquet`."""
    pairs = dict(part.split("=", 1) for part in path.parts[:-1] if "=" in part)
    return tuple((name, "" if value == NO_VALUE else unquote(value)) for name, value in pairs.items())


def names_beside(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []


def stem(name: str) -> str:
    """What a file is called, without its folders and what says its kind: `north` of `shops/north.csv.gz`."""
    whole = name.rsplit("/", 1)[-1]
    last, codec = suffixes(whole)
    first = os.path.splitext(whole)[0] if codec else whole
    return os.path.splitext(first)[0] if last else first


def suffixes(name: str) -> tuple[str, str | None]:
    """The kind of a file by its suffix, and its codec: `.csv`, `gzip` of `sales.csv.gz`."""
    stem, last = os.path.splitext(name.lower())
    if last in CODECS:
        return os.path.splitext(stem)[1], CODECS[last]
    return last, None
