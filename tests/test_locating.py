"""Faults that are known by series and stamp are found again in their file, whatever its form."""

import gzip
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from canonical_rows import hours

import tasks.ingest.chunks
import tasks.ingest.locating
from tasks.ingest import parts, reading
from tasks.ingest.chunks import take_stock
from tasks.ingest.locating import locate
from tasks.ingest.parts import Part, Run, write_runs
from tasks.ingest.sources import SourceSpec
from tasks.storage import Store

SPEC = {"timestamp": "t", "target": "y", "series_id": "s"}
ROWS = [(hour, name) for hour in range(9) for name in ("b", "a")]  # two series in turn


@pytest.fixture
def source_of(tmp_path):
    """Writes files and returns what finds places in them: `where(series, hour, kind)`."""

    def store(files: dict[str, bytes], **changed):
        folder = tmp_path / "in"
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return Source(SourceSpec(**{**SPEC, "uri": str(folder)} | changed), Store(tmp_path / "store"))

    return store


class Source:
    """A source that has been read."""

    def __init__(self, spec: SourceSpec, store: Store):
        self.spec, self.store = spec, store
        self.chunks = take_stock(spec, store.downloads)
        self.parts = [self.read(number, chunk) for number, chunk in enumerate(self.chunks)]

    def read(self, number, chunk) -> Part:
        folder = self.store.folder("read", str(number))
        folder.mkdir(parents=True)
        runs, _ = write_runs(self.spec, chunk, SimpleNamespace(path=lambda name: folder / name))
        runs = tuple(Run(sha256="", **run) for run in runs)
        rows = sum(run.rows for run in runs)
        return Part(step="read", key=str(number), digest="", rows=rows, runs=runs, num_faults=0, num_repairs=0)

    def places(self, faults: list[tuple]) -> list[str]:
        """Of faults as (series, hour, kind), without the folder."""
        entries = [{"series_id": name, "stamp": instant(hour), "kind": kind} for name, hour, kind in faults]
        found = locate(self.spec, self.chunks, self.parts, entries, self.store)
        return [place.replace(f"{self.spec.uri}/", "") for place in found]

    def where(self, name: str, hour: float, kind: str = "missing y") -> str:
        return self.places([(name, hour, kind)])[0]


def instant(hour: float) -> int:
    return int(hours(0)[0] + hour * 3_600_000_000)


def stamp(hour: float) -> str:
    return pd.Timestamp(instant(hour), unit="us").isoformat(" ")


def hour_of(clock: str, zone: str) -> float:
    """What the clock of a zone shows, as hours after the first of January 2024."""
    return (pd.Timestamp(clock, tz=zone) - pd.Timestamp("2024-01-01", tz="UTC")) / pd.Timedelta("1h")


def csv(rows=ROWS, head="t,s,y", end="\n", quoted=False) -> bytes:
    """Rows of (hour, series), every third with a line break in a column that is not read where `quoted`."""
    head, lines = (f"{head},note", []) if quoted else (head, [])
    for number, (hour, name) in enumerate(rows):
        note = (f',"two{end}lines"' if number % 3 == 0 else ",one") if quoted else ""
        lines.append(f"{stamp(hour)},{name},{hour}{note}{end}")
    return (head + end + "".join(lines)).encode()


def parquet(folder, rows=ROWS, group=4) -> bytes:
    path = folder / "rows.parquet"
    frame = pd.DataFrame({"t": pd.to_datetime([stamp(hour) for hour, _ in rows]), "s": [name for _, name in rows], "y": 1.0})
    frame.to_parquet(path, index=False, row_group_size=group)
    return path.read_bytes()


def one_after_another(rows=ROWS, first=2) -> list[str]:
    return [f"line {first + at}" for at in range(len(rows))]


QUOTED = []  # of rows with a line break in them, the line on which they end
for at in range(len(ROWS)):
    QUOTED.append((QUOTED[-1] if QUOTED else 1) + (2 if at % 3 == 0 else 1))

BLANK = ["line 3", *one_after_another(first=5)]
FORMS = {
    "csv": ("a.csv", lambda folder: csv(), one_after_another(), {}),
    "gzip": ("a.csv.gz", lambda folder: gzip.compress(csv()), one_after_another(), {}),
    "carriage returns": ("a.csv", lambda folder: csv(end="\r\n"), one_after_another(), {}),
    "byte-order mark": ("a.csv", lambda folder: b"\xef\xbb\xbf" + csv(), one_after_another(), {}),
    "utf-16": ("a.csv", lambda folder: csv().decode().encode("utf-16"), one_after_another(), {"encoding": "utf-16"}),
    "blank lines": ("a.csv", lambda folder: b"\n" + csv().replace(b"b,0\n", b"b,0\n\n"), BLANK, {}),
    "quoted line breaks": ("a.csv", lambda folder: csv(quoted=True), [f"line {line}" for line in QUOTED], {}),
    "row by row": ("a.csv", lambda folder: csv().replace(b"b,8\n", b"b,much\n"), one_after_another(), {}),
    "order of a clock": ("a.csv", lambda folder: csv(), one_after_another(), {"repeated_hour": "order"}),
    "parquet": ("a.parquet", parquet, [f"row {1 + at}" for at in range(len(ROWS))], {}),
}  # fmt: skip


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_row_is_found_where_it_stands(source_of, tmp_path, monkeypatch, form, small):
    if small:  # rows of one file lie in many chunks, those of a chunk in many texts and runs
        monkeypatch.setattr(tasks.ingest.chunks, "CHUNK", 100)
        monkeypatch.setattr(reading, "READ", 50)
        monkeypatch.setattr(parts, "FLUSH", 2)
    name, content, places, spec = FORMS[form]
    source = source_of({name: content(tmp_path)}, **spec)
    found = source.places([(series, hour, "missing y") for hour, series in ROWS])
    assert found == [f"{name} {place}" for place in places[: len(ROWS)]]


def test_a_row_of_wide_form_stands_where_its_stamp_does(source_of, monkeypatch):
    monkeypatch.setattr(reading, "MELTED", 4)
    content = "t,n,m\n" + "".join(f"{stamp(hour)},{hour},{hour}\n" for hour in range(6))
    source = source_of({"a.csv": content.encode()}, series_id=None, wide=["m", "n"])
    assert source.places([("m", 3, "missing y"), ("n", 0, "missing y")]) == ["a.csv line 5", "a.csv line 2"]


def test_a_series_named_by_folders_and_several_columns_is_found(source_of):
    source = source_of({"site=b/a.csv": csv([(0, "a"), (1, "a"), (0, "c")])}, series_id=["site", "s"])
    assert source.where("b/c", 0) == "site=b/a.csv line 4"


def test_a_repeated_row_is_named_with_the_one_it_repeats(source_of):
    again = csv([(0, "a"), (1, "a"), (1, "b"), (1, "a"), (1, "a")])
    source = source_of({"a.csv": again, "b.csv": csv([(2, "a"), (1, "b")])})
    assert source.where("a", 1, "duplicates") == "a.csv line 5 repeats line 3"
    file = source.chunks[0].pieces[0].file.name
    assert source.where("b", 1, "duplicates") == f"b.csv line 3 repeats {file} line 4".replace(f"{source.spec.uri}/", "")


@pytest.mark.parametrize(("duplicates", "line"), [("error", 3), ("first", 3), ("mean", 3), ("last", 6)])
def test_of_repeated_rows_the_one_that_is_kept_is_named_for_its_value(source_of, duplicates, line):
    rows = [(0, "a"), (1, "a"), (1, "b"), (1, "a"), (1, "a")]
    assert source_of({"a.csv": csv(rows)}, duplicates=duplicates).where("a", 1, "rule max of y") == f"a.csv line {line}"


def test_a_gap_is_named_by_the_row_after_it_and_so_is_an_absent_row(source_of, monkeypatch):
    monkeypatch.setattr(parts, "FLUSH", 1)
    files = {"a.csv": csv([(0, "a"), (1, "a"), (9, "a"), (4, "b")]), "b.csv": csv([(7, "b"), (5, "a"), (6, "a")])}
    source = source_of(files, order="sort")
    assert source.where("a", 5, "gap") == "b.csv before line 3"
    assert source.where("a", 2, "rule not_null of y") == "b.csv before line 3"
    assert source.where("a", 7, "rule not_null of y") == "a.csv before line 4"
    assert source.where("a", 9.5, "rule not_null of y") == ""


def test_what_is_wrong_with_a_whole_series_is_named_by_where_it_begins(source_of):
    source = source_of({"a.csv": csv()})
    assert source.where("a", 0, "no target") == "a.csv from line 3 on"


@pytest.mark.parametrize(("policy", "clock", "line"), [("shift", "03:30", 3), ("drop", "03:00", 4)])
def test_stamps_of_a_skipped_hour_are_found_where_they_went_to_if_they_were_kept(source_of, policy, clock, line):
    rows = "".join(f"2024-03-31 {shown},a,1\n" for shown in ("01:00", "02:30", "03:00", "04:00"))
    rows = rows.replace("02:30", "02:00") if policy == "drop" else rows  # which is 03:00 too
    source = source_of({"a.csv": f"t,s,y\n{rows}".encode()}, timezone="Europe/Paris", skipped_hour=policy)
    assert source.where("a", hour_of(f"2024-03-31 {clock}", "Europe/Paris")) == f"a.csv line {line}"


def test_stamps_of_a_repeated_hour_are_told_apart_by_their_order(source_of, monkeypatch):
    monkeypatch.setattr(reading, "READ", 20)
    rows = "".join(f"2024-10-27 {clock},a,1\n" for clock in ("01:30", "02:30", "02:30", "03:30"))
    source = source_of({"a.csv": f"t,s,y\n{rows}".encode()}, timezone="Europe/Paris", repeated_hour="order")
    assert [source.where("a", hour_of("2024-10-27 01:30", "Europe/Paris") + at) for at in range(4)] == [
        f"a.csv line {line}" for line in (2, 3, 4, 5)
    ]


def test_a_stamp_that_goes_back_is_found_unless_it_comes_twice(source_of):
    source = source_of({"a.csv": csv([(1, "a"), (3, "a"), (2, "a"), (1, "a")])})
    assert source.where("a", 2, "order") == "a.csv line 4"
    assert source.where("a", 1, "order") == ""


def test_no_place_is_told_of_a_file_that_has_changed_since(source_of):
    source = source_of({"a.csv": csv(), "b.csv": csv([(20, "c")])}, series_id="s")
    before, after = (piece.file for chunk in source.chunks for piece in chunk.pieces)
    with open(after.path, "ab") as file:
        file.write(b"2024-02-01,a,1\n")
    assert source.places([("a", 3, "missing y"), ("c", 20, "missing y")]) == ["a.csv line 9", ""]
    Path(before.path).unlink()
    assert source.where("a", 3) == ""


def test_no_place_is_told_of_a_file_that_changes_as_it_is_looked_through(source_of, monkeypatch):
    source = source_of({"a.csv": csv()})
    (piece,) = source.chunks[0].pieces
    before = tasks.ingest.locating.series_codes

    def cut_short(*arguments):
        Path(piece.file.path).write_bytes(csv(ROWS[1:]))
        return before(*arguments)

    monkeypatch.setattr(tasks.ingest.locating, "series_codes", cut_short)
    assert source.where("a", 3) == ""


def test_only_the_chunks_that_hold_a_fault_are_read_again_and_each_once(source_of, monkeypatch):
    monkeypatch.setattr(tasks.ingest.chunks, "CHUNK", 100)
    source = source_of({"a.csv": csv()})
    assert len(source.chunks) > 3
    read, before = [], tasks.ingest.locating.tables_of
    monkeypatch.setattr(
        tasks.ingest.locating, "tables_of", lambda spec, piece: (read.append(piece.start), before(spec, piece))[1]
    )
    source.places([("a", 1, "missing y"), ("b", 1, "missing y"), ("b", 1, "gap")])
    assert len(read) == 1
