import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import tasks.windows
from models.errors import Fault
from models.scaling import Scaler, SeriesScale
from models.windows import (
    Batch,
    Columns,
    FoldSpec,
    ShuffledStream,
    TensorBlocks,
    WindowSpec,
    fold_rows,
    gather,
    in_order,
    window_starts,
)
from tasks.windows import WindowFile, cut_blocks, exploded, step_label, write_windows

PLAIN = Columns()


def make_table(columns, **series):
    """A normalised table: each series counts up in its target, and each further channel is 1000 more."""
    parts = []
    for series_id, numbers in series.items():
        numbers = np.asarray(numbers, np.float32)
        stamps = pa.array(np.arange(len(numbers)) * 3_600_000_000).cast(pa.timestamp("us", "UTC"))
        channels = [pa.array(numbers + 1000 * channel if channel else numbers) for channel in range(columns.num_channels)]
        ids = pa.repeat(pa.scalar(series_id), len(numbers))
        parts.append(pa.table([ids, stamps, *channels], names=["series_id", "timestamp", *columns.names]))
    return pa.concat_tables(parts)


def write(path, table, columns=PLAIN, folds=(3, 3), **windows):
    spec = WindowSpec(**windows)
    return write_windows(path, table, columns, spec, FoldSpec(validation=folds[0], test=folds[1]))


def all_windows(blocks, span, batch_size=1000):
    return torch.cat(list(in_order(blocks, span, batch_size)))


@pytest.mark.parametrize(
    ("num_rows", "stride", "starts"),
    [
        (6, 1, [0, 1]),  # every step an origin
        (5, 1, [0]),  # exactly one span
        (4, 1, []),  # one row too few
        (10, 2, [1, 3, 5]),  # the oldest row is left out, never the newest
        (10, 3, [2, 5]),
        (10, 99, [5]),  # a stride beyond the series: the newest window alone
    ],
)
def test_windows_are_aligned_to_the_newest_row(num_rows, stride, starts):
    windows = WindowSpec(lookback=3, horizon=2, stride=stride)
    assert list(window_starts(num_rows, windows)) == starts


def test_folds_share_no_scored_row_and_look_back_before_their_own():
    rows = fold_rows(20, FoldSpec(validation=4, test=5), WindowSpec(lookback=3, horizon=2), "a")
    assert rows == {"train": range(11), "validation": range(8, 15), "test": range(12, 20)}


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("num_rows", [24, 25, 31])
def test_training_targets_end_before_the_first_validation_target_and_those_before_the_first_test_target(num_rows, stride):
    windows, folds = WindowSpec(lookback=4, horizon=3, stride=stride), FoldSpec(validation=5, test=6)
    targets = {"train": set(), "validation": set(), "test": set()}
    for block in cut_blocks(num_rows, windows, folds, "a"):
        for window in range(block.num_windows):
            first = block.rows.start + window * stride + windows.lookback
            targets[block.fold] |= set(range(first, first + windows.horizon))
    assert max(targets["train"]) == num_rows - 12
    assert min(targets["validation"]) >= num_rows - 11
    assert max(targets["validation"]) == num_rows - 7
    assert min(targets["test"]) >= num_rows - 6
    assert max(targets["test"]) == num_rows - 1


@pytest.mark.parametrize(
    ("num_rows", "validation", "test", "needed"),
    [
        (9, 3, 3, 11),  # too few rows to train on
        (20, 1, 3, 11),  # validation shorter than a horizon
        (20, 3, 1, 11),  # test shorter than a horizon
        (10, 3, 3, 11),  # one row too few
    ],
)
def test_a_series_too_short_for_its_folds_is_refused_by_name(num_rows, validation, test, needed):
    windows = WindowSpec(lookback=2, horizon=3)
    with pytest.raises(Fault, match=rf"^store_12 has {num_rows} steps; lookback 2 \+ horizon 3 .* need {needed}\. Shorten"):
        fold_rows(num_rows, FoldSpec(validation=validation, test=test), windows, "store_12")


def test_a_series_that_just_suffices_gives_each_fold_one_window():
    blocks = cut_blocks(11, WindowSpec(lookback=2, horizon=3), FoldSpec(validation=3, test=3), "a")
    assert [(block.fold, block.rows, block.num_windows) for block in blocks] == [
        ("train", range(5), 1),
        ("validation", range(3, 8), 1),
        ("test", range(6, 11), 1),
    ]


def test_blocks_overlap_by_a_window_less_one_stride():
    blocks = cut_blocks(16, WindowSpec(lookback=2, horizon=1, stride=2), FoldSpec(validation=1, test=1), "a", block=3)
    train = [(block.rows, block.num_windows) for block in blocks if block.fold == "train"]
    assert train == [(range(1, 8), 3), (range(7, 14), 3)]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_block_has_exactly_the_rows_of_its_windows(block, stride):
    windows = WindowSpec(lookback=5, horizon=2, stride=stride)
    blocks = cut_blocks(40, windows, FoldSpec(validation=6, test=7), "a", block)
    starts = {"train": [], "validation": [], "test": []}
    for one in blocks:
        assert len(one.rows) == (one.num_windows - 1) * stride + windows.span
        assert one.num_windows <= block
        starts[one.fold] += [one.rows.start + at * stride for at in range(one.num_windows)]
    folds = fold_rows(40, FoldSpec(validation=6, test=7), windows, "a")
    for fold, rows in folds.items():
        assert starts[fold] == [rows.start + start for start in window_starts(len(rows), windows)]


def test_gather_copies_whole_windows_from_any_start():
    rows = torch.tensor([[0.0, 10], [1, 11], [2, 12], [3, 13]])
    assert gather(rows, torch.tensor([2, 0]), 2).tolist() == [[[2, 12], [3, 13]], [[0, 10], [1, 11]]]


def test_gather_reads_a_part_of_a_larger_tensor_from_its_own_first_row():
    rows = torch.arange(10.0)[:, None][4:]
    assert gather(rows, torch.tensor([0, 3]), 2)[:, :, 0].tolist() == [[4, 5], [7, 8]]


def test_gather_gives_a_copy():
    rows = torch.zeros(3, 1)
    gather(rows, torch.tensor([0]), 2).fill_(1)
    assert rows.sum() == 0


def test_a_batch_shows_past_covariates_up_to_the_origin_and_future_ones_beyond():
    columns = Columns(past=("p",), future=("f", "g"))
    window = torch.arange(5)[:, None] + torch.tensor([0, 10, 20, 30])  # rows of target, p, f, g
    batch = Batch.split(window[None], 3, columns)
    assert batch.past.tolist() == [[[0, 10, 20, 30], [1, 11, 21, 31], [2, 12, 22, 32]]]
    assert batch.future.tolist() == [[[23, 33], [24, 34]]]
    assert batch.target.tolist() == [[3, 4]]


def test_channels_are_the_target_then_past_then_future_then_the_calendar():
    columns = Columns(past=("p",), future=("f",), calendar=("hour", "weekday"))
    assert columns.names == ("target", "p", "f", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos")
    assert columns.known == columns.names[2:]
    assert columns.num_channels == 7


def test_window_i_sees_rows_i_to_i_plus_71_and_is_asked_for_row_i_plus_72(tmp_path):
    """The generator of the origin: `samples[j] = data[i:i+72]`, `targets[j] = data[i+72][target]`."""
    columns = Columns(future=("a", "b", "c", "d", "e"))
    data = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    stamps = pa.array(np.arange(400) * 3_600_000_000).cast(pa.timestamp("us", "UTC"))
    ids = pa.repeat(pa.scalar("a"), 400)
    table = pa.table([ids, stamps, *data.T.copy()], names=["series_id", "timestamp", *columns.names])
    counts = write(tmp_path / "w.parquet", table, columns, folds=(50, 60), lookback=72, horizon=1)
    assert counts == {"train": 290 - 72, "validation": 50, "test": 60}
    first = {"train": 0, "validation": 290 - 72, "test": 340 - 72}
    for fold, count in counts.items():
        windows = all_windows(WindowFile(tmp_path / "w.parquet").fold(fold), 73, batch_size=17)
        batch = Batch.split(windows, 72, columns)
        starts = first[fold] + np.arange(count)
        assert np.array_equal(batch.past.numpy(), np.stack([data[i : i + 72] for i in starts]))
        assert np.array_equal(batch.target.numpy(), np.stack([data[i + 72 : i + 73, 0] for i in starts]))
        assert np.array_equal(batch.future.numpy(), np.stack([data[i + 72 : i + 73, 1:] for i in starts]))


@pytest.mark.parametrize("block", [1, 2, 5, 65_536])
@pytest.mark.parametrize("stride", [1, 3])
def test_windows_come_back_bit_by_bit_whatever_the_block(tmp_path, monkeypatch, block, stride):
    monkeypatch.setattr(tasks.windows.cut_blocks, "__defaults__", (block,))
    columns, data = Columns(future=("f",)), np.random.default_rng(1).normal(size=30).astype(np.float32)
    data[3], data[7] = -0.0, np.float32(1e-45)  # a sign and a denormal that arithmetic would lose
    path = tmp_path / "w.parquet"
    counts = write(path, make_table(columns, a=data), columns, folds=(5, 6), lookback=4, horizon=2, stride=stride)
    file, rows = WindowFile(path), np.stack([data, data + np.float32(1000)], 1)
    for fold, part in fold_rows(30, FoldSpec(validation=5, test=6), WindowSpec(lookback=4, horizon=2), "a").items():
        blocks = file.fold(fold)
        starts = [part.start + start for start in window_starts(len(part), WindowSpec(lookback=4, horizon=2, stride=stride))]
        wanted = np.stack([rows[start : start + 6] for start in starts])
        assert all_windows(blocks, 6, batch_size=4).numpy().tobytes() == wanted.tobytes()
        assert counts[fold] == len(starts) == sum(blocks.num_windows)
        assert len(blocks.num_windows) == -(-len(starts) // block)


def test_no_window_spans_two_series(tmp_path):
    table = make_table(PLAIN, a=range(20), b=range(100, 125), c=range(200, 230))
    path = tmp_path / "w.parquet"
    counts = write(path, table, lookback=3, horizon=2)
    assert counts == {"train": (14 - 4) + (19 - 4) + (24 - 4), "validation": 3 * 2, "test": 3 * 2}
    file = WindowFile(path)
    for fold in counts:
        blocks = file.fold(fold)
        assert [blocks.series_id(block) for block in range(3)] == ["a", "b", "c"]
        windows = all_windows(blocks, 5)[:, :, 0].numpy()
        assert (np.diff(windows, axis=1) == 1).all()
        assert set(np.unique(windows // 100)) == {0, 1, 2}


def test_shuffled_windows_of_several_series_never_span_two(tmp_path):
    path = tmp_path / "w.parquet"
    write(path, make_table(PLAIN, a=range(20), b=range(100, 125)), lookback=3, horizon=2)
    blocks = WindowFile(path).fold("train")
    stream = ShuffledStream(blocks, 5, 4, 0, "cpu").batches()
    windows = torch.cat([next(stream) for _ in range(7)])[:, :, 0]
    assert (windows.diff(dim=1) == 1).all()
    assert sorted(windows[:, 0].tolist()) == [*range(10), *range(100, 115)]


def test_rows_keep_the_stamps_they_came_with(tmp_path):
    path = tmp_path / "w.parquet"
    write(path, make_table(PLAIN, a=range(20)), lookback=3, horizon=2)
    blocks = WindowFile(path).fold("test")
    hours = blocks.timestamps(0).astype("datetime64[h]").astype(int)
    assert hours.tolist() == blocks.read(0)[:, 0].tolist() == list(range(14, 20))


def test_the_footer_tells_how_to_read_the_file(tmp_path):
    path, columns = tmp_path / "w.parquet", Columns(past=("p",), future=("f",), calendar=("hour",))
    write(path, make_table(columns, a=range(20)), columns, lookback=3, horizon=2, stride=2)
    assert json.loads(pq.read_metadata(path).metadata[b"convcast.windows"]) == {
        "format": 1,
        "lookback": 3,
        "horizon": 2,
        "stride": 2,
        "block": 65_536,
        "columns": {"past": ["p"], "future": ["f"], "calendar": ["hour"]},
        "blocks": [
            {"fold": "train", "series_id": "a", "num_windows": 5},
            {"fold": "validation", "series_id": "a", "num_windows": 1},
            {"fold": "test", "series_id": "a", "num_windows": 1},
        ],
    }
    file = WindowFile(path)
    assert file.windows == WindowSpec(lookback=3, horizon=2, stride=2)
    assert file.columns == columns
    assert file.fold("train").stride == 2


def test_channels_are_plain_float32_without_nulls_dictionary_or_codec(tmp_path):
    path, columns = tmp_path / "w.parquet", Columns(future=("f",))
    write(path, make_table(columns, a=range(20)), columns, lookback=3, horizon=2)
    meta = pq.read_metadata(path)
    assert meta.num_row_groups == 3
    schema = pq.read_schema(path)
    assert [(field.name, field.type, field.nullable) for field in schema] == [
        ("series_id", pa.string(), False),
        ("timestamp", pa.timestamp("us", "UTC"), False),
        ("target", pa.float32(), False),
        ("f", pa.float32(), False),
    ]
    for group in range(3):
        for at in (2, 3):
            column = meta.row_group(group).column(at)
            assert (column.compression, set(column.encodings)) == ("UNCOMPRESSED", {"PLAIN", "RLE"})


def test_a_flipped_bit_in_a_data_page_is_an_error_when_read(tmp_path):
    path, data = tmp_path / "w.parquet", np.random.default_rng(2).normal(size=20).astype(np.float32)
    write(path, make_table(PLAIN, a=data), lookback=3, horizon=2)
    whole = path.read_bytes()
    for block, (fold, rows) in enumerate({"train": range(14), "validation": range(11, 17), "test": range(14, 20)}.items()):
        page = data[rows.start : rows.stop].tobytes()
        assert whole.count(page) == 1
        first = whole.index(page)
        for at in range(first, first + len(page)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(OSError, match=r"CRC|checksum"):
                WindowFile(path).fold(fold).read(0)
        assert pq.read_metadata(path).row_group(block).num_rows == len(rows)
    path.write_bytes(whole)
    assert WindowFile(path).fold("train").read(0)[:, 0].numpy().tobytes() == data[:14].tobytes()


def test_a_flipped_bit_in_the_stamps_is_an_error_when_read(tmp_path):
    path = tmp_path / "w.parquet"
    write(path, make_table(PLAIN, a=range(20)), lookback=3, horizon=2)
    whole = path.read_bytes()
    stamps = pq.read_metadata(path).row_group(2).column(1)
    assert stamps.path_in_schema == "timestamp"
    at = stamps.data_page_offset + stamps.total_compressed_size - 1
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(OSError, match=r"CRC|checksum"):
        WindowFile(path).fold("test").timestamps(0)


def test_a_parquet_file_without_windows_is_refused(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(Fault, match=r"x\.parquet is a Parquet file but holds no windows; it lacks the footer"):
        WindowFile(tmp_path / "x.parquet")


def test_windows_of_another_format_are_refused(tmp_path):
    table = pa.table({"x": [1]}).replace_schema_metadata({b"convcast.windows": b'{"format": 99}'})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(Fault, match=r"window format 99; this version reads 1"):
        WindowFile(tmp_path / "x.parquet")


def test_a_series_too_short_for_its_folds_is_named_when_windows_are_written(tmp_path):
    with pytest.raises(Fault, match=r"^b has 9 steps"):
        write(tmp_path / "w.parquet", make_table(PLAIN, a=range(20), b=range(9)), lookback=3, horizon=2)


def test_every_series_is_told_of_once(tmp_path):
    told = []
    table = make_table(PLAIN, a=range(20), b=range(20))
    spec, folds = WindowSpec(lookback=3, horizon=2), FoldSpec(validation=3, test=3)
    write_windows(tmp_path / "w.parquet", table, PLAIN, spec, folds, lambda: told.append(1))
    assert told == [1, 1]


def test_tensor_blocks_drop_the_rows_that_no_window_reaches():
    blocks = TensorBlocks([torch.arange(10.0)[:, None], torch.arange(5.0)[:, None]], span=4, stride=3)
    assert blocks.num_windows == [3, 1]
    assert [len(blocks.read(block)) for block in range(2)] == [10, 4]
    assert all_windows(blocks, 4)[:, 0, 0].tolist() == [0, 3, 6, 0]


def make_blocks(*counts, span=3, stride=1):
    """Blocks of these numbers of windows; the first value of every window in all of them is different."""
    lengths = [(count - 1) * stride + span for count in counts]
    firsts = np.cumsum([0, *lengths])
    rows = [torch.arange(first, first + n, dtype=torch.float32)[:, None] for first, n in zip(firsts, lengths, strict=False)]
    return TensorBlocks(rows, span, stride)


def firsts(blocks, span=3):
    return sorted(all_windows(blocks, span)[:, 0, 0].tolist())


BLOCK_SETS = [
    (5,),  # one block
    (4, 1, 7),  # unequal blocks
    tuple(range(1, 12)),  # more blocks than are shuffled together
    (3,) * 16,  # exactly two groups
]


@pytest.mark.parametrize("counts", BLOCK_SETS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_pass_gives_every_window_once(counts, stride):
    blocks = make_blocks(*counts, stride=stride)
    stream, total = ShuffledStream(blocks, 3, 4, 0, "cpu").batches(), sum(counts)
    for _ in range(3):
        seen = []
        while len(seen) < total:
            seen += next(stream)[:, 0, 0].tolist()
        assert sorted(seen) == firsts(blocks)


@pytest.mark.parametrize("counts", BLOCK_SETS)
def test_a_stream_gone_on_from_any_step_gives_the_same_batches(counts):
    whole = ShuffledStream(make_blocks(*counts), 3, 4, 7, "cpu").batches()
    batches = [next(whole) for _ in range(40)]
    for first in (0, 1, 2, 5, 13, 39):
        again = ShuffledStream(make_blocks(*counts), 3, 4, 7, "cpu").batches(first)
        for batch in batches[first:]:
            assert torch.equal(next(again), batch)


@pytest.mark.parametrize("counts", [(50,), (9,) * 12])
def test_passes_and_seeds_differ_in_order(counts):
    def passes(seed):
        stream = ShuffledStream(make_blocks(*counts), 3, 1, seed, "cpu").batches()
        return [[next(stream)[0, 0, 0].item() for _ in range(sum(counts))] for _ in range(2)]

    (first, second), (other, _) = passes(0), passes(1)
    assert passes(0) == [first, second]
    assert first != second
    assert first != other
    assert first != sorted(first)


def test_few_blocks_are_read_once_for_all_passes():
    class Counting(TensorBlocks):
        reads = 0

        def read(self, block):
            self.reads += 1
            return super().read(block)

    blocks = Counting([torch.zeros(5, 1), torch.zeros(6, 1)], span=3)
    stream = ShuffledStream(blocks, 3, 2, 0, "cpu").batches()
    for _ in range(20):
        next(stream)
    assert blocks.reads == 2


def test_windows_shown_a_row_each_are_in_their_own_unit(tmp_path):
    path, columns = tmp_path / "w.parquet", Columns(past=("p",), future=("f",))
    write(path, make_table(columns, a=range(20)), columns, lookback=2, horizon=2)
    scale = SeriesScale(mean=(1, 0, 500), std=(2, 1, 1), naive_mae=1)
    scaler = Scaler(channels=columns.names, season=1, series={"a": scale})
    (table,) = exploded(WindowFile(path), "test", scaler)
    names = ["target[-1]", "target[-0]", "p[-1]", "p[-0]", "f[-1]", "f[-0]", "target[+1]", "target[+2]", "f[+1]", "f[+2]"]
    assert table.schema.names == ["series_id", "origin", *names]
    rows = [[row[name] for name in names] for row in table.to_pylist()]
    assert rows[0] == [31, 33, 1015, 1016, 2515, 2516, 35, 37, 2517, 2518]
    assert [row[:2] for row in rows] == [[31, 33], [33, 35]]
    assert [row["origin"].hour for row in table.to_pylist()] == [16, 17]


def test_steps_are_labelled_by_their_distance_from_the_origin():
    assert [step_label(at, 3) for at in range(5)] == ["[-2]", "[-1]", "[-0]", "[+1]", "[+2]"]
