import http.server
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from functools import partial
from pathlib import Path

import fsspec
import pytest

from models.errors import Fault
from tasks.ingest import remote
from tasks.ingest.chunks import take_stock
from tasks.ingest.remote import fetch
from tasks.ingest.sources import SourceSpec
from tasks.ingest.statics import read_statics

CONTENT = b"t,y\n2024-01-01,1\n"
SECRET = "wholly-secret-key"


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Short pauses; returns those that were made."""
    made = []
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(remote.time, "sleep", made.append)
    return made


@pytest.fixture
def memory():
    """The file system of memory://, empty."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


@pytest.fixture
def downloads(tmp_path):
    return tmp_path / "downloads"


def named(found):
    return [name for name, _, _ in found]


def contents(found):
    return [path.read_bytes() for _, path, _ in found]


def copies(downloads):
    return sorted(path.stat().st_mtime_ns for path in downloads.glob("*/*"))


# Any kind of storage


def test_an_object_becomes_a_file_here(memory, downloads):
    memory.pipe("/bucket/sales.csv", CONTENT)
    ((name, path, partitions),) = fetch("memory://bucket/sales.csv", downloads)
    assert (name, path.name, path.read_bytes(), partitions) == ("memory://bucket/sales.csv", "sales.csv", CONTENT, ())
    assert [one.name for one in path.parent.iterdir()] == ["sales.csv"]


def test_a_folder_and_a_glob_of_objects_are_taken_in_order_without_hidden_ones(memory, downloads):
    for name in ("b.csv", "a.csv", "_SUCCESS", ".x.csv", "_tmp/c.csv", "deep/d.parquet", "notes.md"):
        memory.pipe(f"/bucket/data/{name}", CONTENT)
    start = "memory://bucket/data"
    assert named(fetch(start, downloads)) == [f"{start}/a.csv", f"{start}/b.csv", f"{start}/deep/d.parquet"]
    assert named(fetch(f"{start}/*.csv", downloads)) == [f"{start}/.x.csv", f"{start}/a.csv", f"{start}/b.csv"]


def test_prefixes_of_hive_become_columns(memory, downloads):
    for site in ("north", "south"):
        memory.pipe(f"/bucket/year=2014/site={site}/part.csv", CONTENT)
    for uri in ("memory://bucket", "memory://bucket/*/*/*.csv"):
        assert [dict(partitions)["site"] for _, _, partitions in fetch(uri, downloads)] == ["north", "south"]
    (chunk,) = take_stock(SourceSpec(uri="memory://bucket", timestamp="t", target="y", series_id="site"), downloads)
    assert [piece.file.partitions for piece in chunk.pieces] == [(("site", "north"),), (("site", "south"),)]


def test_an_object_has_the_digest_of_the_same_file_here(memory, downloads, tmp_path):
    memory.pipe("/bucket/sales.csv", CONTENT)
    (tmp_path / "here.csv").write_bytes(CONTENT)
    there, here = (
        take_stock(SourceSpec(uri=uri, timestamp="t", target="y"), downloads)[0].digest
        for uri in ("memory://bucket/sales.csv", str(tmp_path / "here.csv"))
    )
    assert there == here


def test_a_missing_object_is_named_with_the_closest_beside_it(memory, downloads):
    memory.pipe("/bucket/sales.csv", CONTENT)
    with pytest.raises(Fault, match=r"memory://bucket/sale\.csv does not exist\. Did you mean sales\.csv\? Set source\.uri"):
        fetch("memory://bucket/sale.csv", downloads)
    with pytest.raises(Fault, match=r"No file matches memory://bucket/\*\.parquet"):
        fetch("memory://bucket/*.parquet", downloads)
    memory.pipe("/notes/a.md", CONTENT)
    with pytest.raises(Fault, match=r"memory://notes has no \.csv or \.parquet file in it"):
        fetch("memory://notes", downloads)


def test_an_unchanged_object_is_not_fetched_again_and_a_changed_one_is(memory, downloads):
    memory.pipe("/bucket/sales.csv", CONTENT)
    fetch("memory://bucket/sales.csv", downloads)
    before = copies(downloads)
    assert contents(fetch("memory://bucket/sales.csv", downloads)) == [CONTENT]
    assert copies(downloads) == before
    memory.pipe("/bucket/sales.csv", CONTENT.replace(b"1\n", b"2\n"))  # of the same size
    assert contents(fetch("memory://bucket/sales.csv", downloads)) == [CONTENT.replace(b"1\n", b"2\n")]


def test_a_copy_that_lost_bytes_is_fetched_again(memory, downloads):
    memory.pipe("/bucket/sales.csv", CONTENT)
    ((_, path, _),) = fetch("memory://bucket/sales.csv", downloads)
    path.write_bytes(CONTENT[:5])
    assert contents(fetch("memory://bucket/sales.csv", downloads)) == [CONTENT]


def test_an_interrupted_transfer_is_tried_again(memory, downloads, monkeypatch, pauses):
    memory.pipe("/bucket/sales.csv", CONTENT)
    whole, calls = memory.open, []

    def cut_short(path, mode, **options):
        calls.append(path)
        stream = whole(path, mode, **options)
        if len(calls) == 1:
            raise ConnectionResetError(104, "Connection reset by peer")
        if len(calls) == 2:
            stream.seek(5)  # fewer bytes come than were announced
        return stream

    monkeypatch.setattr(type(memory), "open", lambda self, path, mode="rb", **options: cut_short(path, mode, **options))
    assert contents(fetch("memory://bucket/sales.csv", downloads)) == [CONTENT]
    assert (len(calls), pauses) == (3, [0.01, 0.02])
    assert len(list(downloads.rglob("*.csv*"))) == 1


def test_a_transfer_that_never_succeeds_is_a_fault_and_leaves_nothing(memory, downloads, monkeypatch, pauses):
    memory.pipe("/bucket/sales.csv", CONTENT)

    def refuse(self, path, mode="rb", **options):
        raise TimeoutError(110, "Connection timed out")

    monkeypatch.setattr(type(memory), "open", refuse)
    with pytest.raises(Fault, match=r"memory://bucket/sales\.csv can not be reached \(.*timed out\)\. Check the address"):
        fetch("memory://bucket/sales.csv", downloads)
    assert pauses == [0.01, 0.02]
    assert not list(downloads.rglob("*"))


def test_what_a_killed_transfer_left_is_cleared_away(memory, downloads):
    memory.pipe("/bucket/sales.csv", CONTENT)
    ((_, path, _),) = fetch("memory://bucket/sales.csv", downloads)
    left, fresh = path.with_name(".sales.csv-1"), path.with_name(".sales.csv-2")
    for one in (left, fresh):
        one.touch()
    os.utime(left, (1, 1))
    path.unlink()
    fetch("memory://bucket/sales.csv", downloads)
    assert (left.exists(), fresh.exists()) == (False, True)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError("Access Denied"), r"x\.csv may not be read with these credentials \(Access Denied\)"),
        (FileNotFoundError("x"), r"x\.csv does not exist\. Set source\.uri"),
        (ValueError(f"bad https://me:{SECRET}@host/x.csv"), r"is no place that can be read: bad https://host/x\.csv\.$"),
    ],
)
def test_errors_of_storage_are_told_at_once_and_without_secrets(memory, downloads, monkeypatch, pauses, error, message):
    def refuse(self, *args, **options):
        raise error

    monkeypatch.setattr(type(memory), "info", refuse)
    with pytest.raises(Fault, match=message) as caught:
        fetch(f"memory://me:{SECRET}@bucket/x.csv", downloads)
    assert SECRET not in str(caught.value)
    assert pauses == []


def test_two_addresses_that_differ_in_what_is_secret_are_two_files(memory, downloads, monkeypatch):
    for key in ("one", "two"):
        memory.pipe(f"/bucket/sales.csv?key={key}", CONTENT + key.encode())
    uris = tuple(f"memory://bucket/sales.csv?key={key}" for key in ("one", "two"))
    monkeypatch.setattr(remote.glob, "has_magic", lambda path: False)
    (chunk,) = take_stock(SourceSpec(uri=uris, timestamp="t", target="y"), downloads)
    assert [piece.file.name for piece in chunk.pieces] == ["memory://bucket/sales.csv"] * 2
    assert [Path(piece.file.path).read_bytes()[-3:] for piece in chunk.pieces] == [b"one", b"two"]


def test_an_address_of_no_kind_that_is_known_is_named(downloads):
    with pytest.raises(Fault, match=r"xyz://a/b\.csv is no place that can be read: .*xyz"):
        fetch("xyz://a/b.csv", downloads)


@pytest.mark.parametrize(("uri", "package"), [("s3://a/b.csv", "s3fs"), ("gs://a/b.csv", "gcsfs"), ("abfs://a/b.csv", "adlfs")])
def test_a_package_that_is_not_installed_is_named(downloads, monkeypatch, uri, package):
    monkeypatch.setitem(sys.modules, package, None)  # not importable
    for known in [name for name in fsspec.registry if name in ("s3", "gs", "abfs")]:
        monkeypatch.delitem(fsspec.registry.target, known)
    with pytest.raises(
        Fault, match=rf"{uri} needs a package that is not installed \(.*\)\. Install it: pip install {package}\.$"
    ):
        fetch(uri, downloads)


# A second file with static covariates

STORES = b"store,size\na,2.5\nb,4\n"


def source_with(static_uri):
    usual = {"uri": "sales.csv", "timestamp": "t", "target": "y", "series_id": "store", "static_covariates": ["size"]}
    return SourceSpec(static_uri=static_uri, **usual)


@pytest.mark.parametrize("place", ["stores/stores.csv", "stores", "stores/*.csv"])
def test_static_covariates_may_lie_elsewhere(memory, downloads, place):
    memory.pipe("/bucket/stores/stores.csv", STORES)
    assert read_statics(source_with(f"memory://bucket/{place}"), downloads).values == {"a": (2.5,), "b": (4,)}
    memory.pipe("/bucket/stores/stores.csv", STORES.replace(b"2.5", b"3.5"))  # of the same size
    assert read_statics(source_with(f"memory://bucket/{place}"), downloads).values == {"a": (3.5,), "b": (4,)}


def test_several_files_of_static_covariates_are_refused(memory, downloads):
    for name in ("a.csv", "b.csv"):
        memory.pipe(f"/bucket/stores/{name}", STORES)
    with pytest.raises(Fault, match=r"^source\.static_uri memory://bucket/stores leads to 2 files; one is needed\. Name one"):
        read_statics(source_with("memory://bucket/stores"), downloads)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "bucket/shops.csv",
            r"^memory://bucket/shops\.csv does not exist\.( Did you mean stores\.csv\?)? Set source\.static_uri to",
        ),
        ("bucket/*.parquet", r"^No file matches memory://bucket/\*\.parquet\. Name another source\.static_uri\.$"),
        ("notes", r"^memory://notes has no .* Put one there or name another source\.static_uri\.$"),
    ],
)
def test_static_covariates_that_are_not_there_name_their_own_setting(memory, downloads, place, message):
    memory.pipe("/bucket/stores.csv", STORES)
    memory.pipe("/notes/a.md", STORES)
    with pytest.raises(Fault, match=message):
        read_statics(source_with(f"memory://{place}"), downloads)


def test_a_fault_in_static_covariates_names_the_address_without_its_password(memory, downloads):
    memory.pipe(f"/me:{SECRET}@bucket/stores.csv", STORES.replace(b"4", b""))
    with pytest.raises(Fault, match=r"^memory://bucket/stores\.csv, column 'size': series b has no value") as caught:
        read_statics(source_with(f"memory://me:{SECRET}@bucket/stores.csv"), downloads)
    assert SECRET not in str(caught.value)


# S3


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def s3_url():
    """A small S3 in a process of its own."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", url.rsplit(":")[-1]]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as server:
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=1).close()
                    break
                except OSError:
                    threading.Event().wait(0.1)
            yield url
        finally:
            server.terminate()


@pytest.fixture
def s3(s3_url, monkeypatch):
    """The file system of an empty bucket, and the environment that leads to it."""
    import s3fs

    for name, value in {"ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": SECRET, "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    urllib.request.urlopen(urllib.request.Request(f"{s3_url}/moto-api/reset", method="POST")).close()
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    files.mkdir("bucket")
    yield files
    s3fs.S3FileSystem.clear_instance_cache()


def test_objects_of_s3_are_found_by_key_prefix_and_glob(s3, downloads):
    for key in ("data/a.csv", "data/b.csv", "data/_SUCCESS", "data/.x.csv", "hive/site=north/p.csv", "hive/site=south/p.csv"):
        s3.pipe(f"bucket/{key}", CONTENT)
    assert contents(fetch("s3://bucket/data/a.csv", downloads)) == [CONTENT]
    assert named(fetch("s3://bucket/data", downloads)) == ["s3://bucket/data/a.csv", "s3://bucket/data/b.csv"]
    assert named(fetch("s3://bucket/data/", downloads)) == ["s3://bucket/data/a.csv", "s3://bucket/data/b.csv"]
    assert named(fetch("s3://bucket/data/b*.csv", downloads)) == ["s3://bucket/data/b.csv"]
    found = fetch("s3://bucket/hive", downloads)
    assert [partitions for _, _, partitions in found] == [(("site", "north"),), (("site", "south"),)]


def test_static_covariates_may_lie_on_s3(s3, downloads):
    s3.pipe("bucket/stores.csv", STORES)
    assert read_statics(source_with("s3://bucket/stores.csv"), downloads).values == {"a": (2.5,), "b": (4,)}


def test_a_missing_object_of_s3_is_named_with_the_closest_beside_it(s3, downloads, pauses):
    s3.pipe("bucket/sales.csv", CONTENT)
    with pytest.raises(Fault, match=r"s3://bucket/sale\.csv does not exist\. Did you mean sales\.csv\?"):
        fetch("s3://bucket/sale.csv", downloads)
    with pytest.raises(Fault, match=r"s3://nobucket/sale\.csv does not exist\."):
        fetch("s3://nobucket/sale.csv", downloads)
    assert pauses == []


def test_a_changed_object_of_s3_is_fetched_again_and_an_unchanged_one_is_not(s3, downloads):
    s3.pipe("bucket/sales.csv", CONTENT)
    assert contents(fetch("s3://bucket", downloads)) == [CONTENT]
    before = copies(downloads)
    assert contents(fetch("s3://bucket", downloads)) == [CONTENT]
    assert copies(downloads) == before
    s3.pipe("bucket/sales.csv", CONTENT + b"2024-01-02,2\n")
    s3.pipe("bucket/added.csv", CONTENT)
    assert contents(fetch("s3://bucket", downloads)) == [CONTENT, CONTENT + b"2024-01-02,2\n"]


def test_an_s3_that_can_not_be_reached_is_told_without_credentials(s3, downloads, monkeypatch, pauses):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(Fault, match=r"s3://bucket/sales\.csv can not be reached \(.+\)\. Check the address") as caught:
        fetch("s3://bucket/sales.csv", downloads)
    assert SECRET not in str(caught.value)
    assert pauses == [0.01, 0.02]


# HTTP


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; counts what is asked for, and fails as often as it is told."""

    requests: list
    failures: list

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.requests.append(self.path)
        if self.failures:
            failure = self.failures.pop()
            if failure == "cut":
                self.send_response(200)
                self.send_header("Content-Length", str(len(CONTENT)))
                self.end_headers()
                self.wfile.write(CONTENT[:5])
                self.close_connection = True
                return
            self.send_error(failure)
            return
        super().do_GET()


@pytest.fixture
def web(tmp_path):
    """Address, folder, requests and coming failures of a web server."""
    pytest.importorskip("aiohttp")
    folder = tmp_path / "web"
    folder.mkdir()
    kind = type("Handler", (Handler,), {"requests": [], "failures": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder, kind.requests, kind.failures
        server.shutdown()
        thread.join()


def test_a_csv_is_fetched_from_the_web_once_for_each_version(web, downloads):
    url, folder, requests, _ = web
    (folder / "sales.csv").write_bytes(CONTENT)
    os.utime(folder / "sales.csv", (1_000_000_000, 1_000_000_000))
    assert contents(fetch(f"{url}/sales.csv", downloads)) == [CONTENT]
    asked = requests.count("/sales.csv")
    assert contents(fetch(f"{url}/sales.csv", downloads)) == [CONTENT]
    assert requests.count("/sales.csv") == asked
    (folder / "sales.csv").write_bytes(CONTENT.replace(b"1\n", b"2\n"))
    assert contents(fetch(f"{url}/sales.csv", downloads)) == [CONTENT.replace(b"1\n", b"2\n")]


def test_static_covariates_may_lie_on_the_web(web, downloads):
    url, folder, requests, _ = web
    (folder / "stores.csv").write_bytes(STORES)
    for _ in range(2):
        assert read_statics(source_with(f"{url}/stores.csv"), downloads).values == {"a": (2.5,), "b": (4,)}
    assert requests.count("/stores.csv") == 1
    with pytest.raises(Fault, match=r"shops\.csv does not exist\. Set source\.static_uri to a \.csv or \.parquet file"):
        read_statics(source_with(f"{url}/shops.csv"), downloads)


def test_an_address_that_is_not_there_is_told_at_once(web, downloads, pauses):
    url, _, _, _ = web
    with pytest.raises(Fault, match=rf"{url}/sales\.csv does not exist\. Set source\.uri"):
        fetch(f"{url}/sales.csv", downloads)
    assert pauses == []


@pytest.mark.parametrize("failure", [503, 429, "cut"])
def test_a_busy_server_and_a_cut_transfer_are_tried_again(web, downloads, pauses, failure):
    url, folder, _, failures = web
    (folder / "sales.csv").write_bytes(CONTENT)
    failures.append(failure)
    if failure != "cut":
        Handler.do_HEAD, before = (lambda self: self.send_error(failure) if failures else before(self)), Handler.do_HEAD
    try:
        assert contents(fetch(f"{url}/sales.csv", downloads)) == [CONTENT]
    finally:
        if failure != "cut":
            del Handler.do_HEAD
    assert pauses == [0.01]


@pytest.mark.parametrize(
    ("status", "message"), [(403, "may not be read with these credentials"), (500, "can not be reached"), (410, "not exist")]
)
def test_what_a_server_refuses_is_told_without_secrets(web, downloads, status, message):
    url, _, _, failures = web
    failures += [status] * 9
    with pytest.raises(Fault, match=message) as caught:
        fetch(f"{url.replace('//', f'//me:{SECRET}@')}/sales.csv?token={SECRET}", downloads)
    assert SECRET not in str(caught.value)


def test_a_port_where_nobody_listens_is_a_fault_after_some_attempts(downloads, pauses):
    pytest.importorskip("aiohttp")
    with pytest.raises(Fault, match=r"sales\.csv can not be reached \(.*127\.0\.0\.1.*\)\. Check the address"):
        fetch(f"http://127.0.0.1:{free_port()}/sales.csv", downloads)
    assert pauses == [0.01, 0.02]
