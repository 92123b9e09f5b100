import hashlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest import parts, reading
from tasks.ingest.chunks import Chunk, take_stock
from tasks.ingest.parts import bucket_of, check_order, to_runs, write_runs
from tasks.ingest.reading import Rows
from tasks.ingest.sources import SourceSpec

SOURCE = SourceSpec(uri="a.csv", timestamp="t", target="y", series_id="s", past_covariates=("x",))
HOUR = 3_600_000_000  # microseconds


def make_rows(ids, stamps, values=None):
    """Rows in file order; the covariate is ten times the target."""
    names = sorted(set(ids))[::-1]  # in an order of no meaning
    target = np.arange(len(ids), dtype=float) if values is None else np.array(values, float)
    codes = np.array([names.index(name) for name in ids], np.int32)
    return Rows(codes, names, np.array(stamps, np.int64), [target, 10 * target], [], {})


def listed(runs):
    """Bucket, then each row as series, microseconds, target and covariate."""
    return [
        (bucket, list(zip(*(column.to_pylist() for column in plain(table).columns), strict=True))) for bucket, table in runs
    ]


def plain(table):
    return table.set_column(1, "timestamp", table["timestamp"].cast(pa.int64()))


def rows_of(waiting):
    return [row for _, rows in listed(to_runs(SOURCE, waiting)) for row in rows]


def write(folder, chunk, source=SOURCE):
    """The runs of a chunk with their tables, and its notes."""
    folder.mkdir()
    runs, notes = write_runs(source, chunk, SimpleNamespace(path=lambda name: folder / name))
    return [(run, pa.ipc.open_file(folder / run["name"]).read_all()) for run in runs], notes


@pytest.fixture
def csv(tmp_path):
    """Writes CSVs of rows `stamp,series,y,x` and returns their source and its chunks."""

    def store(*contents, **spec):
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for number, content in enumerate(contents):
            (folder / f"{number}.csv").write_text("t,s,y,x\n" + content)
        source = SOURCE.model_copy(update={"uri": str(folder)} | spec)
        return source, take_stock(source, tmp_path)

    return store


def two_series():
    """Two series of different buckets, in the order of those."""
    first, second = sorted(("a", "b"), key=bucket_of)
    assert bucket_of(first) < bucket_of(second)
    return first, second


def test_runs_are_sorted_by_series_and_time_and_ties_stay_in_file_order():
    one, two = two_series()
    waiting = [make_rows([two, one, two, one], [3, 2, 1, 2]), make_rows([one, two, one], [2, 1, 0], [7, 8, 9])]
    assert listed(to_runs(SOURCE, waiting)) == [
        (bucket_of(one), [(one, 0, 9, 90), (one, 2, 1, 10), (one, 2, 3, 30), (one, 2, 7, 70)]),
        (bucket_of(two), [(two, 1, 2, 20), (two, 1, 8, 80), (two, 3, 0, 0)]),
    ]


def test_series_of_one_bucket_share_a_run_sorted_by_name():
    names = [f"s{number}" for number in range(1000)]
    shared = sorted(name for name in names if bucket_of(name) == bucket_of("s0"))[:3]
    ((bucket, rows),) = listed(to_runs(SOURCE, [make_rows(shared[::-1] * 2, [1, 1, 1, 0, 0, 0])]))
    assert bucket == bucket_of("s0")
    assert [(name, stamp) for name, stamp, *_ in rows] == [(name, stamp) for name in shared for stamp in (0, 1)]


def test_no_rows_make_no_runs():
    assert to_runs(SOURCE, []) == []
    assert to_runs(SOURCE, [make_rows([], [])]) == []


def test_names_without_rows_appear_in_no_run():
    rows = make_rows(["a", "b"], [0, 1])
    kept = Rows(rows.codes[:1], [*rows.names, "c"], rows.stamps[:1], [column[:1] for column in rows.values], [], {})
    ((_, table),) = to_runs(SOURCE, [kept])
    assert table["series_id"].chunk(0).dictionary.to_pylist() == ["a"]


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "a/b", "é"]), st.integers(-3, 3)), min_size=1, max_size=40),
    cut=st.integers(0, 40),
)
def test_runs_hold_what_a_stable_sort_of_the_rows_holds(rows, cut):
    target = [float(number) for number in range(len(rows))]
    halves = [slice(None, cut), slice(cut, None)]
    waiting = [make_rows([name for name, _ in rows[own]], [at for _, at in rows[own]], target[own]) for own in halves]
    expected = sorted(
        ((name, at, number, 10 * number) for (name, at), number in zip(rows, target, strict=True)),
        key=lambda row: (bucket_of(row[0]), row[0], row[1]),
    )
    assert rows_of(waiting) == expected


def test_more_series_than_sixteen_bits_count_are_sorted_too():
    names = [f"s{number}" for number in range(70_000)]
    rows = rows_of(
        [Rows(np.tile(np.arange(70_000, dtype=np.int32), 2), names, np.repeat([0, 1], 70_000), [np.zeros(140_000)] * 2, [], {})]
    )
    assert [(name, at) for name, at, *_ in rows] == sorted(
        ((name, at) for name in names for at in (0, 1)), key=lambda row: (bucket_of(row[0]), row)
    )


@pytest.mark.parametrize(("name", "bucket"), [("y", 21), ("store_12", 12), ("é", 62), ("a/b", 28)])
def test_the_bucket_of_a_series_is_the_same_for_ever(name, bucket):
    assert bucket_of(name) == bucket


def test_a_bucket_is_written_the_same_whatever_the_other_series_hold(csv, tmp_path):
    one, two = two_series()

    def digests(name, value):
        content = "".join(f"2024-01-0{day},{who},{day if who == one else value},0\n" for day in (1, 2) for who in (two, one))
        written, _ = write(tmp_path / name, csv(content)[1][0])
        return {run["bucket"]: hashlib.sha256((tmp_path / name / run["name"]).read_bytes()).hexdigest() for run, _ in written}

    before, after = digests("before", 5), digests("after", 6)
    assert before[bucket_of(one)] == after[bucket_of(one)]
    assert before[bucket_of(two)] != after[bucket_of(two)]


def test_a_run_says_what_it_holds(csv, tmp_path):
    source, (chunk,) = csv("2024-01-01,a,1,10\n2024-01-03,a,,30\n")
    ((run, table),), notes = write(tmp_path / "out", chunk, source)
    day = 24 * HOUR
    first = 19_723 * day
    assert run == {"name": "00000.arrow", "bucket": bucket_of("a"), "rows": 2, "first": first, "last": first + 2 * day}
    assert table.column_names == ["series_id", "timestamp", "target", "x"]
    assert str(table["timestamp"].type) == "timestamp[us, tz=UTC]"
    np.testing.assert_array_equal(table["target"].to_numpy(), [1, np.nan])
    assert notes == {"faults": [], "repairs": []}


@pytest.mark.parametrize(("flush", "run"), [(1, 1 << 19), (1 << 21, 2), (7, 3)])
def test_a_stream_is_written_in_parts_without_a_row_lost_or_moved(csv, tmp_path, monkeypatch, flush, run):
    content = "".join(f"2024-01-01 {hour:02}:00,{name},{hour},{ord(name)}\n" for hour in range(20) for name in "cab")
    source, (chunk,) = csv(content)
    whole, _ = write(tmp_path / "whole", chunk, source)
    monkeypatch.setattr(reading, "READ", 100)
    monkeypatch.setattr(parts, "FLUSH", flush)
    monkeypatch.setattr(parts, "RUN", run)
    piece = chunk.pieces[0].model_copy(update={"whole": True, "start": 0, "end": chunk.pieces[0].file.bytes})
    written, _ = write(tmp_path / "parts", Chunk(pieces=(piece,), digest="x"), source)
    assert len(written) > len(whole)
    assert all(one["rows"] <= run for one, _ in written)
    for bucket in {one["bucket"] for one, _ in whole}:
        own, other = (
            [row for one, table in runs if one["bucket"] == bucket for row in listed([(bucket, table)])[0][1]]
            for runs in (whole, written)
        )
        assert sorted(own) == sorted(other)
        assert [row[:2] for row in other if row[0] == own[0][0]] == [row[:2] for row in own if row[0] == own[0][0]]


# Order within a file


def test_stamps_that_go_back_are_named_by_series_with_both_stamps_and_counted(csv, tmp_path):
    stamps = [("02", "a"), ("05", "b"), ("01", "a"), ("06", "b"), ("01", "a"), ("04", "a"), ("03", "a")]
    content = "".join(f"2024-01-{day},{name},1,1\n" for day, name in stamps)
    source, (chunk,) = csv(content)
    _, notes = write(tmp_path / "out", chunk, source)
    said = "2024-01-01T00:00:00 UTC comes after 2024-01-02T00:00:00 UTC; sort the file or set source.order='sort'"
    assert notes["faults"] == [
        {"piece": 0, "kind": "order", "series_id": "a", "where": "", "said": said, "count": 2, "stamp": 1704067200000000}
    ]


def test_stamps_that_go_back_are_sorted_where_the_source_allows_it_and_counted(csv, tmp_path):
    content = "2024-01-03,a,3,1\n2024-01-01,a,1,1\n2024-01-02,a,2,1\n2024-01-01,b,0,1\n2024-01-01,a,4,1\n"
    source, (chunk,) = csv(content, order="sort")
    written, notes = write(tmp_path / "out", chunk, source)
    assert notes == {"faults": [], "repairs": [{"series_id": "a", "what": "stamps out of order", "count": 2}]}
    assert [row[2] for _, table in written for row in listed([(0, table)])[0][1] if row[0] == "a"] == [1, 4, 2, 3]


def test_equal_stamps_are_in_order():
    assert check_order(SOURCE, make_rows(["a", "a", "b", "a"], [1, 1, 0, 1]), {}, {}) == []


def test_the_order_of_a_file_goes_on_from_block_to_block():
    last = {}
    assert check_order(SOURCE, make_rows(["a", "b"], [5, 1]), last, {}) == []
    assert last == {"a": 5, "b": 1}
    (fault,) = check_order(SOURCE, make_rows(["b", "a", "c"], [2, 4, 0]), last, {})
    assert (fault.series_id, fault.count) == ("a", 1)
    assert last == {"a": 4, "b": 2, "c": 0}


def test_each_file_begins_anew(csv, tmp_path):
    source, (chunk,) = csv("2024-01-02,a,1,1\n", "2024-01-01,a,1,1\n")
    assert len(chunk.pieces) == 2
    assert write(tmp_path / "out", chunk, source)[1]["faults"] == []


def test_the_order_of_a_file_goes_on_from_one_piece_of_it_to_the_next(tmp_path, monkeypatch):
    days = pa.array([19_725, 19_726, 19_723, 19_724], pa.int32()).cast(pa.date32())
    table = pa.table({"t": days, "s": ["a"] * 4, "y": [1.0] * 4, "x": [1.0] * 4})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    source = SOURCE.model_copy(update={"uri": str(tmp_path / "a.parquet")})
    (chunk,) = take_stock(source, tmp_path)
    (piece,) = chunk.pieces
    halves = tuple(piece.model_copy(update={"start": at, "end": at + 1}) for at in (0, 1))
    _, notes = write(tmp_path / "out", Chunk(pieces=halves, digest="x"), source)
    assert [(fault["piece"], fault["kind"]) for fault in notes["faults"]] == [(1, "order")]


def test_faults_of_rows_are_noted_with_their_piece(csv, tmp_path):
    source, (chunk,) = csv("2024-01-01,a,1,1\n", "2024-01-01,a,x,1\n2024-01-02,a,2,1\n")
    written, notes = write(tmp_path / "out", chunk, source)
    assert notes["faults"] == [
        {
            "piece": 1,
            "kind": "no number",
            "series_id": "a",
            "where": "line 2, column 'y'",
            "said": "'x' is no number",
            "count": 1,
            "stamp": None,
        }
    ]
    assert sum(run["rows"] for run, _ in written) == 3


def test_shifted_and_dropped_stamps_are_counted_by_series(csv, tmp_path):
    content = "".join(f"2024-03-31 {hour},{name},1,1\n" for hour in ("01:00", "02:00", "02:30", "03:30") for name in "ab")
    for policy, what, rows in (
        ("shift", "stamps of a skipped hour shifted", 8),
        ("drop", "rows of a skipped hour dropped", 4),
    ):
        source, (chunk,) = csv(content, timezone="Europe/Paris", skipped_hour=policy)
        written, notes = write(tmp_path / policy, chunk, source)
        assert notes == {"faults": [], "repairs": [{"series_id": name, "what": what, "count": 2} for name in "ab"]}
        assert sum(run["rows"] for run, _ in written) == rows
