import builtins
import errno
import hashlib
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

import tasks.lease
import tasks.storage
from models.errors import Fault
from tasks.lease import LeasedLocks
from tasks.storage import Call, Receipt, Store, describe, describe_all, speaking_of, write_atomically

CALL = Call(step="ingest", key="k1", made_from={"inputs": {"x": 1}})


class Counted(Receipt):
    rows: int


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def make(store, call=CALL):
    with store.draft(call) as draft:
        draft.write_bytes("a.bin", b"abc")
        draft.write_json("b.json", {"x": [1, 2]})
        draft.write_table("c.parquet", pa.table({"y": [1.0, 2.0]}))
        return draft.commit(Counted, rows=2)


def everything_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_committed_draft_is_whole_and_says_what_it_was_made_from(store):
    receipt = make(store)
    assert store.whole("ingest", "k1")
    assert store.read_json(receipt, "b.json") == {"x": [1, 2]}
    assert store.file(receipt, "a.bin").read_bytes() == b"abc"
    manifest = store.manifest("ingest", "k1")
    assert manifest["made_from"] == CALL.made_from
    assert Counted.model_validate(manifest["receipt"]) == receipt
    assert sorted(manifest["files"]) == ["a.bin", "b.json", "c.parquet"]
    assert manifest["files"]["a.bin"] == {"bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    assert everything_in(store.folder("ingest", "k1")) == ["a.bin", "b.json", "c.parquet", "manifest.json"]


def digest_of(store, key="k1", made_from=None, files=(("a.bin", b"abc"),), rows=2):
    with store.draft(Call(step="ingest", key=key, made_from=made_from or {})) as draft:
        for name, content in files:
            draft.write_bytes(name, content)
        return draft.commit(Counted, rows=rows).cache_identity()


def test_of_two_drafts_of_one_artifact_the_first_stays_and_both_get_its_receipt(store):
    with store.draft(CALL) as slow:  # its holder slept while another took the lock over
        slow.write_bytes("a.bin", b"late")
        first = make(store)
        second = slow.commit(Counted, rows=9)
    assert second == first
    assert store.whole("ingest", "k1")
    assert store.file(first, "a.bin").read_bytes() == b"abc"
    assert [path.name for path in (store.root / "ingest").iterdir()] == ["k1"]


def test_what_a_killed_run_left_is_cleared_away_once_it_is_old(store):
    left = [store.root / "ingest" / f".k1-{age}" for age in ("old", "new")]
    for path in left:
        path.mkdir(parents=True)
        (path / "half.bin").write_bytes(b"half")
    os.utime(left[0], (0, 0))
    make(store)
    assert [path.exists() for path in left] == [False, True]
    assert len(store.manifests("ingest")) == 1


def test_a_digest_counts_names_bytes_and_facts_and_not_what_they_were_made_from(store):
    digest = digest_of(store)
    assert digest_of(store, key="k2", made_from={"x": 1}) == digest
    others = {
        digest_of(store, key="k3", files=[("a.bin", b"abd")]),
        digest_of(store, key="k4", files=[("b.bin", b"abc")]),
        digest_of(store, key="k5", files=[("a.bin", b"abc"), ("b.bin", b"")]),
        digest_of(store, key="k6", rows=3),
    }
    assert len(others | {digest}) == 5


def test_a_draft_that_is_not_committed_leaves_nothing(store):
    with store.draft(CALL) as draft:
        draft.write_bytes("a.bin", b"abc")
    assert not store.folder("ingest", "k1").exists()
    assert not store.whole("ingest", "k1")


def test_a_draft_that_fails_leaves_nothing_and_lets_the_error_through(store):
    def fail():
        with store.draft(CALL) as draft:
            draft.write_bytes("a.bin", b"abc")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not store.folder("ingest", "k1").exists()


def test_a_draft_clears_away_what_a_killed_run_left(store):
    folder = store.folder("ingest", "k1")
    folder.mkdir(parents=True)
    (folder / "torn.bin").write_bytes(b"half")
    receipt = make(store)
    assert everything_in(folder) == ["a.bin", "b.json", "c.parquet", "manifest.json"]
    assert receipt.digest == make(store).digest


def test_the_manifest_is_written_last(store, monkeypatch):
    there = []

    def spy(path, content):
        there.append((path.name, everything_in(path.parent)))
        write_atomically(path, content)

    monkeypatch.setattr(tasks.storage, "write_atomically", spy)
    make(store)
    assert there == [("manifest.json", ["a.bin", "b.json", "c.parquet"])]


def test_an_artifact_without_its_manifest_does_not_exist(store):
    make(store)
    (store.folder("ingest", "k1") / "manifest.json").unlink()
    assert not store.whole("ingest", "k1")
    assert store.manifest("ingest", "k1") is None
    assert store.manifests("ingest") == []


def test_manifests_are_those_of_every_artifact_of_a_step(store):
    for key in ("k2", "k1"):
        make(store, Call(step="ingest", key=key, made_from={"key": key}))
    make(store, Call(step="train", key="k3", made_from={}))
    assert sorted(manifest["made_from"]["key"] for manifest in store.manifests("ingest")) == ["k1", "k2"]
    assert store.manifests("nothing") == []


@pytest.mark.parametrize("name", ["a.bin", "b.json", "c.parquet", "manifest.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-2]),  # cut short
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),  # grown
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),  # one bit
        lambda path: (path.unlink(), path.mkdir()),  # a folder in its place
    ],
    ids=["deleted", "cut", "emptied", "grown", "flipped", "folder"],
)
def test_damage_to_any_file_is_noticed(store, name, damage):
    make(store)
    assert store.whole("ingest", "k1")
    path = store.folder("ingest", "k1") / name
    damage(path)
    assert not store.whole("ingest", "k1")


def test_a_manifest_with_any_one_bit_flipped_never_raises(store):
    with store.draft(CALL) as draft:
        draft.write_bytes("a.bin", b"abc")
        draft.commit(Receipt)
    path = store.folder("ingest", "k1") / "manifest.json"
    content = path.read_bytes()
    facts = content.index(b"sha256") + 10
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert store.whole("ingest", "k1") in (True, False)
        if facts <= at < facts + 64:
            assert not store.whole("ingest", "k1")


@pytest.mark.parametrize("content", [b"[]", b"null", b"3", b'"x"', b"{}", b'{"files": []}', b'{"files": {"a.bin": 3}}'])
def test_a_manifest_that_is_json_and_no_manifest_is_not_whole(store, content):
    make(store)
    (store.folder("ingest", "k1") / "manifest.json").write_bytes(content)
    assert not store.whole("ingest", "k1")
    assert store.manifests("ingest") == []


def test_a_file_in_place_of_the_store_is_named(tmp_path):
    (tmp_path / "store").write_text("I was here first")
    store = Store(tmp_path / "store")
    with pytest.raises(Fault, match=r"^Can not write .*store.*: a file stands where a folder is needed\. .*set another store"):
        make(store)
    with pytest.raises(Fault, match=r"^Can not write .*store: a file stands where a folder is needed"):
        store.check_writable()
    with pytest.raises(Fault, match=r"^Can not write .*live.*x\.json: a file stands where a folder is needed"):
        store.put_document({}, "live", "x.json")
    assert (tmp_path / "store").read_text() == "I was here first"


def test_a_file_in_place_of_an_artifact_is_named(store):
    store.folder("ingest", "k1").parent.mkdir(parents=True)
    store.folder("ingest", "k1").write_text("")
    with pytest.raises(Fault, match=r"^Can not write .*k1: a file stands where a folder is needed"):
        make(store)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_is_not_writable_is_named(tmp_path):
    (tmp_path / "store").mkdir(mode=0o500)
    with pytest.raises(Fault, match=r"^Can not write .*store.*: this user may not write there"):
        Store(tmp_path / "store").check_writable()
    with pytest.raises(Fault, match=r"^Can not write .*store.*: this user may not write there"):
        make(Store(tmp_path / "store"))


def test_checking_for_a_writable_store_leaves_only_the_folder(store):
    store.check_writable()
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
    ],
)
@pytest.mark.parametrize("write", ["write_bytes", "write_table", "commit"])
def test_a_disk_that_takes_no_more_is_named_and_nothing_is_kept(store, monkeypatch, number, said, write):
    def full(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    places = {
        "write_bytes": (Path, "write_bytes"),
        "write_table": (tasks.storage.pq, "write_table"),
        "commit": (tasks.storage.os, "fsync"),
    }
    monkeypatch.setattr(*places[write], full)
    with pytest.raises(Fault, match=rf"^Can not write .*ingest.k1: {said}\. Nothing half-written was kept\. Make room"):
        make(store)
    monkeypatch.undo()
    assert everything_in(store.root) == []


def test_a_full_disk_leaves_the_old_document_as_it_was(store, monkeypatch):
    store.put_document({"model": 1}, "live", "demo.json")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tasks.storage.os, "fsync", full)
    with pytest.raises(Fault, match=r"^Can not write .*demo\.json: the disk is full"):
        store.put_document({"model": 2}, "live", "demo.json")
    assert store.document("live", "demo.json") == {"model": 1}
    assert everything_in(store.root) == ["live/demo.json"]


def test_other_faults_of_a_disk_are_let_through_to_be_retried():
    with pytest.raises(OSError, match="Input/output error") as caught, speaking_of(Path("x")):
        raise OSError(errno.EIO, "Input/output error")
    assert not isinstance(caught.value, Fault)


def test_documents_are_replaced_whole(store):
    assert store.document("live", "demo.json") is None
    store.put_document({"b": 1, "a": [2]}, "live", "demo.json")
    store.put_document({"b": 2}, "live", "demo.json")
    assert store.document("live", "demo.json") == {"b": 2}
    assert everything_in(store.root) == ["live/demo.json"]


def test_a_reader_sees_the_old_document_or_the_new_one(store):
    documents = [{"value": letter * 50_000} for letter in "ab"]
    store.put_document(documents[0], "live", "demo.json")
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            seen.append(store.document("live", "demo.json") in documents)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(40):
        store.put_document(documents[turn % 2], "live", "demo.json")
    done.set()
    reader.join()
    assert seen
    assert all(seen)


def test_a_document_that_is_no_json_is_named(store):
    path = store.put_file(b"{", "live", "demo.json")
    with pytest.raises(Fault, match=r"demo\.json is not JSON \(.*\)\. Restore it, or delete it"):
        store.document("live", "demo.json")
    assert path.read_bytes() == b"{"


def test_a_file_is_described_by_its_size_and_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"convcast")
    assert describe(tmp_path / "x") == {"bytes": 8, "sha256": hashlib.sha256(b"convcast").hexdigest()}


@pytest.mark.parametrize("many_bytes", [1, 1 << 30], ids=["in two threads", "in one"])
def test_files_are_described_in_their_order(tmp_path, monkeypatch, many_bytes):
    monkeypatch.setattr(tasks.storage, "MANY_BYTES", many_bytes)
    paths = [tmp_path / name for name in "cab"]
    for path in paths:
        path.write_bytes(path.name.encode() * 3)
    assert describe_all(paths) == [describe(path) for path in paths]


def test_a_file_that_already_holds_what_is_put_there_is_left_alone(store):
    path = store.put_file(b"page", "reports", "demo.html")
    before = path.stat().st_ino
    assert store.put_file(b"page", "reports", "demo.html").stat().st_ino == before
    store.put_file(b"egap", "reports", "demo.html")
    assert path.read_bytes() == b"egap"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(tasks.lease, "POLL_SECONDS", 0.01)


def age(locks, key, seconds=1000):
    """Make a lock look as if nobody had touched it for a while."""
    then = time.time() - seconds
    os.utime(locks.folder / f"{key}.lock", (then, then))


def test_two_holders_exclude_each_other(tmp_path, quick):
    first, second = LeasedLocks(tmp_path), LeasedLocks(tmp_path)
    assert first.acquire_lock("k", "me")
    assert first.is_lock_holder("k", "me")
    assert second.is_locked("k")
    assert not second.acquire_lock("k", "you", acquire_timeout=0.05)
    assert not second.is_lock_holder("k", "you")
    first.release_lock("k", "me")
    assert not second.is_locked("k")
    assert second.acquire_lock("k", "you", acquire_timeout=0.05)
    second.release_lock("k", "you")
    assert list(tmp_path.iterdir()) == []


def test_two_holders_of_one_manager_exclude_each_other(tmp_path, quick):
    locks = LeasedLocks(tmp_path)
    assert locks.acquire_lock("k", "me")
    assert locks.acquire_lock("k", "me")  # again: it is held already
    assert not locks.acquire_lock("k", "you", acquire_timeout=0.05)
    locks.release_lock("k", "me")


def test_locks_of_different_keys_do_not_meet(tmp_path):
    locks = LeasedLocks(tmp_path)
    assert locks.acquire_lock("k", "me")
    assert locks.acquire_lock("l", "you", acquire_timeout=0)
    locks.release_lock("k", "me")
    assert locks.is_locked("l")
    locks.release_lock("l", "you")


def test_of_many_threads_one_holds_the_lock_at_a_time(tmp_path, quick):
    inside, most, turns = [], [], []

    def work(name):
        locks = LeasedLocks(tmp_path)
        for _ in range(3):
            assert locks.acquire_lock("k", name, acquire_timeout=30)
            inside.append(name)
            most.append(len(inside))
            time.sleep(0.001)
            inside.remove(name)
            turns.append(name)
            locks.release_lock("k", name)

    threads = [threading.Thread(target=work, args=(f"holder {number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(turns) == 18


def test_a_lock_whose_holder_was_killed_is_taken_over(tmp_path, quick):
    (tmp_path / "k.lock").write_text("killed")
    age(LeasedLocks(tmp_path), "k")
    locks = LeasedLocks(tmp_path)
    assert not locks.is_locked("k")
    assert locks.acquire_lock("k", "me", acquire_timeout=1)
    assert (tmp_path / "k.lock").read_text() == "me"
    assert locks.is_locked("k")
    locks.release_lock("k", "me")
    assert list(tmp_path.glob("*.lock")) == []


def test_a_lock_that_is_kept_fresh_outlives_its_lease(tmp_path, quick):
    holder, other = LeasedLocks(tmp_path, lease_seconds=0.4), LeasedLocks(tmp_path, lease_seconds=0.4)
    holder.acquire_lock("k", "me")
    assert not other.acquire_lock("k", "you", acquire_timeout=1.2)
    assert other.is_locked("k")
    holder.release_lock("k", "me")


def test_a_released_lock_is_not_kept_fresh_for_the_next_holder(tmp_path, quick):
    first = LeasedLocks(tmp_path, lease_seconds=0.2)
    first.acquire_lock("k", "me")
    first.release_lock("k", "me")
    (tmp_path / "k.lock").write_text("killed")
    time.sleep(0.4)
    assert not first.is_locked("k")


@pytest.mark.parametrize(
    ("held_by", "released_by"),
    [("me", "you"), (None, "me")],  # another's, nobody's
)
def test_only_the_holder_releases_a_lock(tmp_path, held_by, released_by):
    locks = LeasedLocks(tmp_path)
    if held_by:
        locks.acquire_lock("k", held_by)
    with pytest.raises(ValueError, match=rf"^{released_by} does not hold the lock k$"):
        locks.release_lock("k", released_by)
    assert locks.is_locked("k") == bool(held_by)
    if held_by:
        locks.release_lock("k", held_by)
        with pytest.raises(ValueError, match="does not hold"):
            locks.release_lock("k", held_by)


def test_a_holder_who_slept_does_not_release_the_lock_of_its_successor(tmp_path, quick):
    slept, successor = LeasedLocks(tmp_path, lease_seconds=60), LeasedLocks(tmp_path, lease_seconds=60)
    slept.acquire_lock("k", "me")
    age(slept, "k")
    assert successor.acquire_lock("k", "you", acquire_timeout=1)
    slept.release_lock("k", "me")
    assert successor.is_locked("k")
    assert (tmp_path / "k.lock").read_text() == "you"
    successor.release_lock("k", "you")
    assert not successor.is_locked("k")


def test_a_holder_who_slept_does_not_keep_the_lock_of_its_successor_fresh(tmp_path, quick):
    slept = LeasedLocks(tmp_path, lease_seconds=0.4)
    slept.acquire_lock("k", "me")
    (tmp_path / "k.lock").write_text("you")  # who was killed
    age(slept, "k")
    time.sleep(0.3)
    assert not slept.is_locked("k")


def test_a_lock_that_was_cleared_away_does_not_trouble_its_holder(tmp_path):
    locks = LeasedLocks(tmp_path / "locks", lease_seconds=0.1)
    locks.acquire_lock("k", "me")
    shutil.rmtree(tmp_path / "locks")
    time.sleep(0.1)
    locks.release_lock("k", "me")
    assert not locks.is_locked("k")


def test_waiting_for_a_lock_ends_with_its_release_or_in_time(tmp_path, quick):
    locks = LeasedLocks(tmp_path)
    assert locks.wait_for_lock("k", timeout=0)
    locks.acquire_lock("k", "me")
    assert not locks.wait_for_lock("k", timeout=0.05)
    later = threading.Timer(0.1, locks.release_lock, ("k", "me"))
    later.start()
    assert locks.wait_for_lock("k", timeout=10)
    later.join()


def test_a_lock_can_not_be_taken_where_the_folder_can_not_be_made(tmp_path):
    (tmp_path / "locks").write_text("")
    with pytest.raises(OSError, match=r"exists|Not a directory"):
        LeasedLocks(tmp_path / "locks").acquire_lock("k", "me")


def test_a_lock_is_taken_by_creating_its_file(tmp_path, monkeypatch):
    modes, real = [], builtins.open

    def spy(path, mode="r", *args, **kwargs):
        if str(path).endswith("k.lock"):
            modes.append(mode)
        return real(path, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", spy)
    locks = LeasedLocks(tmp_path)
    locks.acquire_lock("k", "me")
    monkeypatch.undo()
    locks.release_lock("k", "me")
    assert modes == ["x"]


def test_json_documents_of_the_same_content_have_the_same_bytes():
    assert tasks.storage.to_json({"b": 1, "a": 2}) == tasks.storage.to_json({"a": 2, "b": 1}) == b'{\n "a": 2,\n "b": 1\n}\n'
    assert json.loads(tasks.storage.to_json(CALL)) == {"step": "ingest", "key": "k1", "made_from": {"inputs": {"x": 1}}}
