"""How series are grouped into shards, and the frequency that is found in what was read."""

import pandas as pd
import pytest
from canonical_rows import hours, rows_of, spec_of, write_part

from models.errors import Fault
from tasks.ingest.chunks import Chunk, Piece
from tasks.ingest.files import SourceFile
from tasks.ingest.parts import bucket_of
from tasks.ingest.shards import Overview, count_shards, cut_shards, most_common_frequency
from tasks.storage import Store


@pytest.mark.parametrize(
    ("rows", "num_series", "shards"),
    [
        (100, 1, 1), (50_000_000, 1, 1),  # one series is one shard, however long
        (600, 7, 1), (600, 8, 2), (600, 16, 4), (600, 64, 16), (600, 10_000, 16),  # by series
        (2 << 20, 4, 1), (3 << 20, 4, 4), (20 << 20, 10_000, 32), (100 << 20, 10_000, 64), (1 << 40, 10_000, 64),  # by rows
    ],
)  # fmt: skip
def test_shards_are_a_power_of_two_that_grows_with_series_and_rows(rows, num_series, shards):
    assert count_shards(rows, num_series) == shards


def test_a_series_stays_in_its_bucket():
    assert [bucket_of(name) for name in ("y", "store_1", "Zürich", "")] == [21, 62, 62, 0]


def chunk_of(*files: str) -> Chunk:
    pieces = [
        Piece(file=SourceFile(name=name, path=f"/{name}", kind="csv", bytes=1, modified=0), start=0, end=1) for name in files
    ]
    return Chunk(pieces=tuple(pieces), digest="".join(files))


def shards_of(folder, chunks, parts, num_shards, faulty=()):
    store, source = Store(folder), spec_of()
    read = [write_part(store, source, f"part-{at}", rows) for at, rows in enumerate(parts)]
    names = {name for rows in parts for name in rows.series}
    overview = Overview(
        step="survey", key="k", digest="d", frequency="h", inferred=False, season=24, rows=sum(part.rows for part in read),
        num_series=len(names), num_shards=num_shards,
    )  # fmt: skip
    return cut_shards(chunks, read, overview, set(faulty), [[] for _ in read])


def test_every_series_is_in_the_shard_of_its_bucket_and_no_other(tmp_path):
    names = [f"s{at}" for at in range(40)]
    rows = rows_of(hours(*[0] * 40), series=names)
    shards = shards_of(tmp_path, [chunk_of("a")], [rows], 4, faulty=["s3", "s7"])
    assert [shard.number for shard in shards] == [0, 1, 2, 3]
    assert sum(shard.rows for shard in shards) == 40
    for shard in shards:
        assert {run.bucket % 4 for one in shard.slices for run in one.runs} == {shard.number}
        assert shard.set_aside == tuple(name for name in ("s3", "s7") if bucket_of(name) % 4 == shard.number)


def test_a_slice_follows_only_the_one_before_it_in_the_same_file(tmp_path):
    chunks = [chunk_of("a"), chunk_of("a"), chunk_of("b"), chunk_of("c", "d"), chunk_of("c", "d"), chunk_of("d"), chunk_of("d")]
    parts = [rows_of(hours(at)) for at in range(7)]
    (shard,) = shards_of(tmp_path, chunks, parts, 1)
    assert [one.follows for one in shard.slices] == [False, True, False, False, False, False, True]


def test_a_shard_is_known_by_what_was_read_of_it_and_not_by_where_that_lies(tmp_path):
    rows = [rows_of(hours(0, 1)), rows_of(hours(2, 3))]
    (first,) = shards_of(tmp_path / "a", [chunk_of("a"), chunk_of("a")], rows, 1)
    (same,) = shards_of(tmp_path / "b", [chunk_of("b"), chunk_of("b")], rows, 1)
    (apart,) = shards_of(tmp_path / "c", [chunk_of("b"), chunk_of("c")], rows, 1)
    (aside,) = shards_of(tmp_path / "d", [chunk_of("a"), chunk_of("a")], rows, 1, faulty=["y"])
    assert first.cache_identity() == same.cache_identity()
    assert apart.cache_identity() != first.cache_identity() != aside.cache_identity()


def frequency_of(folder, *parts, zone="UTC"):
    store, source = Store(folder), spec_of(timezone=zone)
    return most_common_frequency(zone, [write_part(store, source, f"part-{at}", rows) for at, rows in enumerate(parts)], store)


def test_the_frequency_is_found_in_files_of_one_stamp_each(tmp_path):
    assert frequency_of(tmp_path, *(rows_of(hours(at)) for at in (3, 0, 1, 2, 4))) == "h"


def test_the_frequency_is_found_among_interleaved_series_and_holes(tmp_path):
    at = [number for number in range(60) for _ in range(3) if number not in (4, 9, 10, 33)]
    names = ["a", "b", "c"] * (len(at) // 3)
    assert frequency_of(tmp_path, rows_of(hours(*at), series=names)) == "h"


def test_the_frequency_is_that_of_most_series(tmp_path):
    odd = rows_of(hours(*range(0, 40, 2)), series="s0")
    usual = [rows_of(hours(*range(20)), series=f"s{at}") for at in range(1, 6)]
    lone = rows_of(hours(0), series="s6")  # too short to tell
    assert frequency_of(tmp_path, odd, *usual, lone) == "h"


@pytest.mark.parametrize("zone", ["Europe/Paris", "America/Sao_Paulo"])
def test_days_are_counted_on_the_local_clock(tmp_path, zone):
    days = pd.date_range("2018-10-01", periods=60, freq="D").tz_localize(zone, nonexistent="shift_forward")
    assert frequency_of(tmp_path, rows_of(days.tz_convert("UTC").as_unit("us").asi8), zone=zone) == "D"


def test_too_few_stamps_tell_no_frequency(tmp_path):
    with pytest.raises(Fault, match=r"has 2 different stamps in its first series; set source\.frequency"):
        frequency_of(tmp_path, rows_of(hours(0, 1, 1)))


def test_no_rows_at_all_tell_no_frequency(tmp_path):
    with pytest.raises(Fault, match=r"^The source has a header and no rows\.$"):
        most_common_frequency("UTC", [], Store(tmp_path))
