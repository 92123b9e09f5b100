import json
import threading
import time
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import HOUR, pieces_of, window_set, write_shard

import tasks.windows.files
from models.batches import Batch, ShuffledStream, TensorBlocks, gather, in_order
from models.errors import Fault
from models.scaling import Scaler, ScalingSpec, SeriesScale
from models.series import Columns
from models.windows import FoldSpec, WindowSettings, WindowSpec, fold_rows, num_apart, usual_lookback, window_starts
from tasks.ingest.calendar import Calendar
from tasks.ingest.statics import Statics
from tasks.storage import Store
from tasks.windows.export import exploded, rounded, step_label
from tasks.windows.files import WindowFile, write_windows
from tasks.windows.folds import WindowSet
from tasks.windows.task import stretches, window_rows

PLAIN = Columns()
FOLDS = ("train", "validation", "test")


def counting(columns, **series):
    """Rows that count up in the target; each further channel is 1000 more."""
    offsets = 1000.0 * np.arange(columns.num_channels)
    return {name: np.asarray(numbers, float)[:, None] + offsets for name, numbers in series.items()}


def unscaled(columns, rows):
    """A scaler that leaves values as they are."""
    zeros, ones = (0.0,) * columns.num_channels, (1.0,) * columns.num_channels
    scales = {name: SeriesScale(mean=zeros, std=ones, naive_mae=1, steps=len(own)) for name, own in rows.items()}
    return Scaler(channels=columns.names, season=1, scaling=ScalingSpec(kind="none"), series=scales)


def raw_set(folder, rows, columns=PLAIN, folds=(3, 3), cut=None, **windows):
    spec, folds = WindowSpec(**windows), FoldSpec(validation=folds[0], test=folds[1])
    return window_set(folder, columns, rows, spec, folds, cut, scaler=unscaled(columns, rows))


def by_hand(rows, windows, folds, fold):
    """Every window (B, L+H, C) of a fold, cut from the rows of one series."""
    part = fold_rows(len(rows), folds, windows, "a")[fold]
    starts = [part.start + start for start in window_starts(len(part), windows)]
    return np.stack([rows[start : start + windows.span] for start in starts])


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
    assert rows == {"train": range(11), "validation": range(8, 15), "test": range(12, 20), "all": range(20)}


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


def test_a_parquet_file_without_windows_is_refused(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(Fault, match=r"x\.parquet is a Parquet file but holds no windows; it lacks the footer"):
        WindowFile(tmp_path / "x.parquet")


def test_windows_of_another_format_are_refused(tmp_path):
    table = pa.table({"x": [1]}).replace_schema_metadata({b"convcast.windows": b'{"format": 99}'})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(Fault, match=r"window format 99; this version reads 2"):
        WindowFile(tmp_path / "x.parquet")


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


def test_masks_and_numbers_of_series_are_split_from_what_the_network_sees():
    columns = Columns(masked=True, past=("p",), future=("f",))
    rows = [[step, step != 2, 10 + step, 20 + step, 7] for step in range(5)]  # target, observed, p, f, number
    batch = Batch.split(torch.tensor([rows], dtype=torch.float32), 3, columns)
    assert batch.past.tolist() == [[[0, 1, 10, 20], [1, 1, 11, 21], [2, 0, 12, 22]]]
    assert batch.future.tolist() == [[[23], [24]]]
    assert batch.target.tolist() == [[3, 4]]
    assert batch.weight.tolist() == [[1, 1]]
    assert batch.series.tolist() == [7]
    assert batch.series.dtype == torch.int64


def test_windows_without_masks_or_numbers_tell_of_none():
    batch = Batch.split(torch.zeros(1, 5, 1), 3, PLAIN)
    assert batch.weight is None
    assert batch.series is None


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("num_rows", [24, 25, 31])
def test_training_targets_end_before_the_first_validation_target_and_those_before_the_first_test_target(
    tmp_path, num_rows, stride
):
    rows = counting(PLAIN, a=range(num_rows))
    cut = raw_set(tmp_path, rows, folds=(5, 6), lookback=4, horizon=3, stride=stride)
    targets = {fold: all_windows(cut.fold(fold), 7)[:, 4:, 0] for fold in FOLDS}
    assert targets["train"].max() == num_rows - 12
    assert targets["validation"].min() >= num_rows - 11
    assert targets["validation"].max() == num_rows - 7
    assert targets["test"].min() >= num_rows - 6
    assert targets["test"].max() == num_rows - 1


def test_a_series_that_just_suffices_gives_each_fold_one_window(tmp_path):
    cut = raw_set(tmp_path, counting(PLAIN, a=range(11)), lookback=2, horizon=3)
    firsts = {fold: all_windows(cut.fold(fold), 5)[:, 0, 0].tolist() for fold in FOLDS}
    assert firsts == {"train": [0], "validation": [3], "test": [6]}


def test_window_i_sees_rows_i_to_i_plus_71_and_is_asked_for_row_i_plus_72(tmp_path):
    """The generator of the origin: `samples[j] = data[i:i+72]`, `targets[j] = data[i+72][target]`."""
    columns = Columns(future=("a", "b", "c", "d", "e"))
    data = np.random.default_rng(0).normal(size=(400, 6))
    cut = raw_set(tmp_path, {"a": data}, columns, folds=(50, 60), lookback=72, horizon=1)
    first = {"train": 0, "validation": 290 - 72, "test": 340 - 72}
    for fold, count in {"train": 290 - 72, "validation": 50, "test": 60}.items():
        batch = Batch.split(all_windows(cut.fold(fold), 73, batch_size=17), 72, columns)
        starts = first[fold] + np.arange(count)
        assert cut.count(fold) == count
        assert batch.past.numpy() == pytest.approx(np.stack([data[i : i + 72] for i in starts]), abs=1e-6)
        assert batch.target.numpy() == pytest.approx(np.stack([data[i + 72 : i + 73, 0] for i in starts]), abs=1e-6)
        assert batch.future.numpy() == pytest.approx(np.stack([data[i + 72 : i + 73, 1:] for i in starts]), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    lookback=st.integers(1, 5), horizon=st.integers(1, 3), stride=st.integers(1, 7), block=st.integers(1, 20),
    spare=st.lists(st.integers(0, 40), min_size=1, max_size=3), more=st.none() | st.integers(0, 30), seed=st.integers(0, 9),
)  # fmt: skip
def test_a_fold_has_the_windows_that_are_cut_by_hand_whatever_the_block_stride_and_file(
    tmp_path_factory, lookback, horizon, stride, block, spare, more, seed
):
    windows, folds = WindowSpec(lookback=lookback, horizon=horizon, stride=stride), FoldSpec(validation=4, test=5)
    rng, columns = np.random.default_rng(seed), Columns(past=("p",), future=("f",))
    lengths = [windows.span + 9 + extra for extra in spare]
    rows = {f"s{at}": rng.normal(at, 1 + at, (length, 3)).cumsum(0) for at, length in enumerate(lengths)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.windows.files, "BLOCK", block)
        patch.setattr(tasks.windows.files, "AT_ONCE", 25)
        cut = window_set(tmp_path_factory.mktemp("w"), columns, rows, windows, folds, more and windows.span + more)
        for fold in FOLDS:
            blocks, wanted = cut.fold(fold), []
            for name, own in rows.items():
                scale = cut.scaler.of(name)
                wanted.append((by_hand(own, windows, folds, fold) - np.array(scale.mean)) / np.array(scale.std))
            found = all_windows(blocks, windows.span, batch_size=4).numpy()
            widest = max((np.ptp(own, 0) / cut.scaler.of(name).std).max() for name, own in rows.items())
            tolerance = 3e-7 * (1 + widest)  # of rows far from those in training the digits are float32's
            assert found.shape == np.concatenate(wanted).shape
            assert found == pytest.approx(np.concatenate(wanted), abs=tolerance)
            assert cut.count(fold) == len(found)
            assert max(blocks.num_windows) <= block
            for at, count in enumerate(blocks.num_windows):
                assert len(blocks.read(at)) == (count - 1) * stride + windows.span


def test_small_values_around_a_high_level_keep_their_precision(tmp_path):
    values = 1e6 + 1e-3 * np.random.default_rng(3).normal(size=(200, 1))
    windows, folds = WindowSpec(lookback=8, horizon=2), FoldSpec(validation=20, test=20)
    cut = window_set(tmp_path, PLAIN, {"a": values}, windows, folds)
    scale = cut.scaler.of("a")
    for fold in FOLDS:
        wanted = (by_hand(values, windows, folds, fold) - scale.mean[0]) / scale.std[0]
        found = all_windows(cut.fold(fold), 10).numpy()
        assert (np.abs(found - wanted) <= 1e-5 * np.maximum(np.abs(wanted), 0.01)).all()
    assert cut.fold("train").raw(0) == pytest.approx(values[:160], rel=0, abs=1e-8)


def test_masks_come_back_exactly(tmp_path):
    columns, seen = Columns(masked=True), np.random.default_rng(0).random(400) < 0.7
    rows = {"a": np.column_stack([np.arange(400.0), seen])}
    windows, folds = WindowSpec(lookback=3, horizon=2), FoldSpec(validation=20, test=20)
    blocks = window_set(tmp_path, columns, rows, windows, folds).fold("train")
    assert blocks.raw(0)[:, 1].tolist() == blocks.read(0)[:, 1].tolist() == seen[:360].tolist()


@pytest.mark.parametrize("cut", [None, 12])
def test_raw_rows_are_in_the_users_units_with_the_stamps_they_came_with(tmp_path, cut):
    columns = Columns(future=("x",))
    rows = np.random.default_rng(0).normal(50, 9, (40, 2))
    opened = window_set(tmp_path, columns, {"a": rows}, WindowSpec(lookback=3, horizon=2), FoldSpec(validation=4, test=5), cut)
    for fold in FOLDS:
        blocks = opened.fold(fold)
        for block in range(len(blocks.cuts)):
            hours = blocks.timestamps(block) // HOUR
            assert hours.tolist() == list(range(hours[0], hours[-1] + 1))
            assert blocks.raw(block) == pytest.approx(rows[hours], rel=1e-6)


def test_no_window_spans_two_series(tmp_path):
    rows = counting(PLAIN, a=range(20), b=range(100, 125), c=range(200, 230))
    cut = raw_set(tmp_path, rows, lookback=3, horizon=2)
    assert [cut.count(fold) for fold in FOLDS] == [(14 - 4) + (19 - 4) + (24 - 4), 3 * 2, 3 * 2]
    for fold in FOLDS:
        blocks = cut.fold(fold)
        assert [blocks.series_id(block) for block in range(3)] == ["a", "b", "c"]
        windows = all_windows(blocks, 5)[:, :, 0].numpy()
        assert np.allclose(np.diff(windows, axis=1), 1, atol=1e-4)
        assert set(np.unique(windows.round() // 100)) == {0, 1, 2}


def test_shuffled_windows_of_several_series_never_span_two(tmp_path):
    cut = raw_set(tmp_path, counting(PLAIN, a=range(20), b=range(100, 125)), lookback=3, horizon=2)
    stream = ShuffledStream(cut.fold("train"), 5, 4, 0, "cpu").batches()
    windows = torch.cat([next(stream) for _ in range(7)])[:, :, 0]
    assert torch.allclose(windows.diff(dim=1), torch.ones(()), atol=1e-4)
    assert sorted(windows[:, 0].round().tolist()) == [*range(10), *range(100, 115)]


def test_series_are_numbered_in_a_last_channel_and_unknown_ones_are_zero(tmp_path):
    cut = raw_set(tmp_path, counting(PLAIN, a=range(20), b=range(20)), lookback=3, horizon=2)
    blocks = cut.fold("test", {"b": 2})
    assert [blocks.read(block)[:, 1].tolist() for block in range(2)] == [[0] * 6, [2] * 6]
    assert torch.equal(blocks.read(1)[:, :1], cut.fold("test").read(1))


def test_reading_a_block_twice_gives_the_same_rows(tmp_path):
    rows = {"a": np.random.default_rng(0).normal(9, 3, (30, 1)), "b": np.random.default_rng(1).normal(9, 3, (30, 1))}
    blocks = window_set(tmp_path, PLAIN, rows, WindowSpec(lookback=3, horizon=2), FoldSpec(validation=3, test=3)).fold("train")
    first = [blocks.read(block).clone() for block in (0, 1)]
    blocks.read(0).fill_(-1)
    assert all(torch.equal(blocks.read(block), first[block]) for block in (1, 0, 0, 1))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 1, 4, 5, 2, 3], [3, 4, 5, 0]])
def test_blocks_read_in_any_order_are_the_same(tmp_path, monkeypatch, order):
    monkeypatch.setattr(tasks.windows.files, "AT_ONCE", 45)  # two neighbours
    rows = counting(PLAIN, **{f"s{at}": np.arange(20 + at) + 100 * at for at in range(6)})
    blocks = raw_set(tmp_path, rows, lookback=3, horizon=2).fold("test")
    for block in order:
        assert blocks.raw(block)[:, 0] == pytest.approx(100 * block + 14 + block + np.arange(6))
        assert (blocks.timestamps(block) // HOUR).tolist() == list(range(14 + block, 20 + block))


def test_small_neighbours_are_read_together(tmp_path, monkeypatch):
    rows = counting(PLAIN, **{f"s{at}": range(20) for at in range(30)})
    blocks = raw_set(tmp_path, rows, lookback=3, horizon=2).fold("train")
    file, reads = blocks.set.files[0].file, []

    class Counted:
        def read_row_groups(self, groups, **kwargs):
            reads.append(groups)
            return file.read_row_groups(groups, **kwargs)

    blocks.set.files[0].file = Counted()
    for block in range(30):
        blocks.read(block)
    assert reads == [list(range(30))]


def test_series_too_short_for_the_folds_are_set_aside_by_name(tmp_path):
    rows = counting(PLAIN, a=range(20), b=range(10), c=range(11))
    cut = raw_set(tmp_path, rows, lookback=3, horizon=2)  # 5 + 3 + 3 are needed
    assert cut.too_short == {"b": 10}
    assert sorted(cut.rows) == sorted(cut.scaler.series) == ["a", "c"]
    for fold in FOLDS:
        assert {cut.fold(fold).series_id(block) for block in range(2)} == {"a", "c"}


def test_a_source_whose_series_are_all_too_short_is_refused_with_what_is_needed(tmp_path):
    rows = counting(PLAIN, a=range(9), b=range(10))
    with pytest.raises(Fault, match=r"^b has 10 steps; lookback 3 \+ horizon 2 .* need 11\. Shorten"):
        raw_set(tmp_path, rows, lookback=3, horizon=2)


@pytest.mark.parametrize("cut", [None, 10, 15, 40, 1000])
def test_the_segments_of_a_long_series_give_its_windows_once_each(tmp_path, cut):
    columns, windows = Columns(future=("f",), calendar=("hour",)), WindowSpec(lookback=4, horizon=3)
    store, data = Store(tmp_path / "store"), np.random.default_rng(0).normal(size=(60, 2))
    series = write_shard(store, columns, {"a": data, "b": data[:30] + 7}, cut=cut)
    calendar, paths = Calendar(frequency="h", timezone="UTC"), []
    for number, stretch in enumerate(stretches(series)):
        paths.append(tmp_path / f"{number}.parquet")
        write_windows(paths[-1], window_rows(stretch, windows, columns, calendar, Statics(), store), columns, windows)
    hours = 2 * np.pi * (np.arange(60) % 24) / 24
    full = np.column_stack([data, np.sin(hours), np.cos(hours)])
    rows = {"a": full, "b": full[:30] + np.array([7, 7, 0, 0])}
    opened, folds = WindowSet(paths, unscaled(columns, rows), FoldSpec(validation=5, test=6)), FoldSpec(validation=5, test=6)
    for fold in FOLDS:
        wanted = np.concatenate([by_hand(own, windows, folds, fold) for own in rows.values()])
        assert all_windows(opened.fold(fold), 7).numpy() == pytest.approx(wanted, abs=2e-6)


def test_a_window_longer_than_a_segment_is_refused(tmp_path):
    store = Store(tmp_path)
    series = write_shard(store, PLAIN, {"a": np.arange(30.0)[:, None]}, cut=10)
    stretch, calendar = stretches(series)[1], Calendar(frequency="h", timezone="UTC")
    with pytest.raises(Fault, match=r"^windows\.lookback and horizon span 12 steps; at most 10 are possible here\."):
        list(window_rows(stretch, WindowSpec(lookback=10, horizon=2), PLAIN, calendar, Statics(), store))


def test_rows_after_the_last_target_belong_to_no_window(tmp_path):
    columns, store = Columns(future=("f",)), Store(tmp_path)
    data = np.column_stack([[1.0, 2, 3, np.nan, np.nan], np.arange(5.0)])
    series = write_shard(store, columns, {"a": data, "b": data + 10})
    calendar = Calendar(frequency="h", timezone="UTC")
    pieces = window_rows(stretches(series)[0], WindowSpec(lookback=1, horizon=1), columns, calendar, Statics(), store)
    found = [(one.series_id, one.rows.tolist(), (one.stamps // HOUR).tolist()) for one in pieces]
    assert found == [("a", [[1, 0], [2, 1], [3, 2]], [0, 1, 2]), ("b", [[11, 10], [12, 11], [13, 12]], [0, 1, 2])]


def test_what_a_segment_is_cached_by_is_itself_and_the_one_it_goes_on_from(tmp_path):
    store = Store(tmp_path)
    series = write_shard(store, PLAIN, {"a": np.arange(30.0)[:, None], "b": np.arange(10.0)[:, None]}, cut=10)
    digests = [segment.sha256 for segment in series.segments]
    assert [stretch.cache_identity() for stretch in stretches(series)] == [
        [None, digests[0], 0],
        [digests[0], digests[1], 10],
        [digests[1], digests[2], 20],
        [None, digests[3], 0],
    ]


def test_the_footer_tells_how_to_read_the_file(tmp_path):
    path, columns = tmp_path / "windows-0.parquet", Columns(masked=True, past=("p",), future=("f",), calendar=("hour",))
    raw_set(tmp_path, counting(columns, a=range(20)), columns, lookback=3, horizon=2, stride=2)
    assert json.loads(pq.read_metadata(path).metadata[b"convcast.windows"]) == {
        "format": 2,
        "lookback": 3,
        "horizon": 2,
        "stride": 2,
        "block": 65_536,
        "columns": {
            "masked": True,
            "past": ["p"],
            "future": ["f"],
            "calendar": ["hour"],
            "holidays": None,
            "static": [],
        },
        "blocks": [
            {
                "series_id": "a",
                "first_row": 0,
                "num_starts": 16,
                "anchors": [9.5, 0.0, 2009.5, 3009.5, 4009.5, 5009.5],
            }
        ],
    }
    file = WindowFile(path)
    assert file.windows == WindowSpec(lookback=3, horizon=2, stride=2)
    assert file.columns == columns


def test_channels_are_plain_float32_without_nulls_dictionary_or_codec(tmp_path):
    path, columns = tmp_path / "windows-0.parquet", Columns(future=("f",))
    raw_set(tmp_path, counting(columns, a=range(20), b=range(20)), columns, lookback=3, horizon=2)
    meta = pq.read_metadata(path)
    assert meta.num_row_groups == 2
    schema = pq.read_schema(path)
    assert [(field.name, field.type, field.nullable) for field in schema] == [
        ("series_id", pa.string(), False),
        ("timestamp", pa.timestamp("us", "UTC"), False),
        ("target", pa.float32(), False),
        ("f", pa.float32(), False),
    ]
    for group in range(2):
        for at in (2, 3):
            column = meta.row_group(group).column(at)
            assert (column.compression, set(column.encodings)) == ("UNCOMPRESSED", {"PLAIN", "RLE"})


def test_neither_scaling_nor_folds_nor_stride_change_the_rows_that_are_written(tmp_path):
    rows = {"a": np.random.default_rng(0).normal(size=(30, 1))}
    (pieces,) = pieces_of(rows, 5)
    blocks = [
        write_windows(tmp_path / f"{stride}.parquet", iter(pieces), PLAIN, WindowSpec(lookback=3, horizon=2, stride=stride))
        for stride in (1, 4)
    ]
    assert blocks[0] == blocks[1]
    one, other = (pq.read_table(tmp_path / f"{stride}.parquet") for stride in (1, 4))
    assert one.equals(other)


def test_a_flipped_bit_in_a_data_page_is_an_error_when_read(tmp_path):
    rows = {name: np.random.default_rng(at).normal(size=(20, 1)) for at, name in enumerate("ab")}
    cut, path = raw_set(tmp_path, rows, lookback=3, horizon=2), tmp_path / "windows-0.parquet"
    whole, folds, scaler = path.read_bytes(), FoldSpec(validation=3, test=3), unscaled(PLAIN, rows)
    for block, values in enumerate(rows.values()):
        page = (values - values.mean(0)).astype(np.float32).tobytes()
        assert whole.count(page) == 1
        first = whole.index(page)
        for at in range(first, first + len(page)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(OSError, match=r"CRC|checksum"):
                WindowSet([path], scaler, folds).fold("train").read(block)
    path.write_bytes(whole)
    assert WindowSet([path], scaler, folds).fold("train").raw(1) == pytest.approx(cut.fold("train").raw(1), abs=0)


def test_a_flipped_bit_in_the_stamps_is_an_error_when_read(tmp_path):
    path = tmp_path / "windows-0.parquet"
    cut = raw_set(tmp_path, counting(PLAIN, a=range(20)), lookback=3, horizon=2)
    whole = path.read_bytes()
    stamps = pq.read_metadata(path).row_group(0).column(1)
    assert stamps.path_in_schema == "timestamp"
    at = stamps.data_page_offset + stamps.total_compressed_size - 1
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(OSError, match=r"CRC|checksum"):
        cut.fold("test").timestamps(0)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 1000])
@pytest.mark.parametrize("limit", [None, 1, 3, 10, 10_000])
def test_windows_in_order_come_in_full_batches_and_a_limit_spreads_them_evenly(batch_size, limit):
    counts = (5, 1, 9, 2, 30)
    batches = [batch[:, 0, 0].tolist() for batch in in_order(make_blocks(*counts), 3, batch_size, limit)]
    wanted = firsts(make_blocks(*counts))[:: max(1, 47 // limit) if limit else 1]
    assert [value for batch in batches for value in batch] == wanted
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size


def test_blocks_without_a_chosen_window_are_not_read():
    reads = []

    class Counting(TensorBlocks):
        def read(self, block):
            reads.append(block)
            return super().read(block)

    blocks = make_blocks(4, 4, 4, 4)
    list(in_order(Counting(blocks.rows, 3), 3, 10, limit=2))  # the first of 8, the first of the next 8
    assert reads == [0, 2]


@pytest.mark.parametrize("shuffle_rows", [1, 12, 40, 10_000])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_stream_that_holds_few_rows_gives_every_window_once_a_pass_from_any_step(shuffle_rows, stride):
    counts = (4, 1, 7, 3, 9, 2)
    make = lambda: ShuffledStream(make_blocks(*counts, stride=stride), 3, 4, 7, "cpu", shuffle_rows)  # noqa: E731
    stream, passes, batches = make().batches(), [], []
    for _ in range(3):
        seen = []
        while len(seen) < sum(counts):
            batches.append(next(stream))
            seen += batches[-1][:, 0, 0].tolist()
        passes.append(seen)
    assert [sorted(seen) for seen in passes] == [firsts(make_blocks(*counts, stride=stride))] * 3
    assert passes[0] != passes[1] != passes[2]
    for first in (0, 1, 5, len(batches) - 1):
        again = make().batches(first)
        assert all(torch.equal(next(again), batch) for batch in batches[first:])


def test_a_stream_holds_no_more_rows_than_it_may_but_for_a_single_block():
    stream = ShuffledStream(make_blocks(4, 1, 7, 3, 9, 2), 3, 4, 0, "cpu", shuffle_rows=12)
    for group in islice(stream._read(0), 20):
        assert len(group.rows) <= 12 or len(group.blocks) == 1


class Watched(TensorBlocks):
    """Blocks that note who reads them, and fail at the one asked for."""

    fails_at = None

    def read(self, block):
        self.readers = [*getattr(self, "readers", []), threading.current_thread()]
        if len(self.readers) == self.fails_at:
            raise Fault("the disk is gone")
        return super().read(block)


def test_the_next_blocks_are_read_while_batches_are_made_of_these_and_none_more_than_are_asked_for():
    blocks = Watched([torch.zeros(12, 1) for _ in range(6)], span=3)  # ten windows each
    batches = ShuffledStream(blocks, 3, 5, 0, "cpu", shuffle_rows=12, num_steps=12).batches()
    next(batches)
    deadline = time.monotonic() + 30
    while len(blocks.readers) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(blocks.readers) == 2
    for _ in range(11):
        next(batches)
    batches.close()
    assert len(blocks.readers) == 6
    assert threading.current_thread() not in blocks.readers
    assert not any(reader.is_alive() for reader in blocks.readers)


def test_a_fault_of_reading_ahead_is_told_where_the_batch_is_asked_for():
    blocks = Watched([torch.zeros(12, 1) for _ in range(6)], span=3)
    blocks.fails_at = 3
    batches = ShuffledStream(blocks, 3, 5, 0, "cpu", shuffle_rows=12).batches()
    for _ in range(4):
        next(batches)
    with pytest.raises(Fault, match="the disk is gone"):
        next(batches)


def test_blocks_that_were_learned_from_before_are_not_read_by_a_run_that_goes_on():
    blocks = Watched([torch.zeros(12, 1) for _ in range(6)], span=3)
    batches = ShuffledStream(blocks, 3, 5, 0, "cpu", shuffle_rows=12, num_steps=12).batches(10)
    assert [len(next(batches)) for _ in range(2)] == [5, 5]
    batches.close()
    assert len(blocks.readers) == 1


@pytest.mark.parametrize(
    ("num_steps", "shares"),
    [
        (6, [1] * 6),  # one batch of each
        (9, [1, 1, 1, 2, 2, 2]),
        (12, [2] * 6),
        (4, [0, 0, 1, 1, 1, 1]),  # fewer batches than blocks, so that some have to be left out
    ],
)
def test_batches_that_are_too_few_for_a_pass_come_from_all_blocks_alike(num_steps, shares):
    blocks = make_blocks(*(10,) * 6)
    first = np.cumsum([0, *map(len, blocks.rows)])
    stream = ShuffledStream(blocks, 3, 4, 7, "cpu", shuffle_rows=12, num_steps=num_steps)
    batches = [batch[:, 0, 0].numpy() for batch, _ in zip(stream.batches(), range(num_steps), strict=False)]
    found = [np.searchsorted(first, batch, side="right") - 1 for batch in batches]
    assert [len(batch) for batch in batches] == [4] * num_steps
    assert all(len(set(block.tolist())) == 1 for block in found)
    assert sorted(np.bincount([block[0] for block in found], minlength=6).tolist()) == shares
    again = ShuffledStream(blocks, 3, 4, 7, "cpu", shuffle_rows=12, num_steps=num_steps).batches(3)
    assert np.array_equal(next(again)[:, 0, 0].numpy(), batches[3])


@pytest.mark.parametrize("counts", [(60,), (20, 20, 20)])
def test_batches_of_a_small_set_are_the_same_however_many_will_be_asked_for(counts):
    def batches(num_steps):
        return ShuffledStream(make_blocks(*counts), 3, 4, 7, "cpu", num_steps=num_steps).batches()

    for few, whole, _ in zip(batches(5), batches(None), range(5), strict=False):
        assert torch.equal(few, whole)


def test_a_run_that_needs_more_than_a_pass_sees_every_window_of_it():
    stream = ShuffledStream(make_blocks(*(10,) * 6), 3, 4, 7, "cpu", shuffle_rows=12, num_steps=15).batches()
    seen = []
    while len(seen) < 60:
        seen += next(stream)[:, 0, 0].tolist()
    assert sorted(seen) == firsts(make_blocks(*(10,) * 6))


def test_windows_shown_a_row_each_are_in_their_own_unit(tmp_path):
    columns = Columns(past=("p",), future=("f",))
    cut = raw_set(tmp_path, counting(columns, a=np.arange(20) * 0.1), columns, lookback=2, horizon=2)
    (table,) = exploded(cut.fold("test"))
    names = ["target[-1]", "target[-0]", "p[-1]", "p[-0]", "f[-1]", "f[-0]", "target[+1]", "target[+2]", "f[+1]", "f[+2]"]
    assert table.schema.names == ["series_id", "origin", *names]
    rows = [[row[name] for name in names] for row in table.to_pylist()]
    assert rows[0] == [1.5, 1.6, 1001.5, 1001.6, 2001.5, 2001.6, 1.7, 1.8, 2001.7, 2001.8]
    assert [row[:2] for row in rows] == [[1.5, 1.6], [1.6, 1.7]]
    assert [row["origin"].hour for row in table.to_pylist()] == [16, 17]
    assert {row["series_id"] for row in table.to_pylist()} == {"a"}


def test_masked_steps_are_marked_in_windows_shown_a_row_each(tmp_path):
    columns = Columns(masked=True)
    rows = np.column_stack([np.arange(20.0), np.arange(20) != 18])
    (table,) = exploded(raw_set(tmp_path, {"a": rows}, columns, lookback=2, horizon=2).fold("test"))
    names = [f"{channel}{step}" for step in ("[-1]", "[-0]") for channel in ("target", "observed")]
    assert set(names) < set(table.schema.names)
    ahead = [[row[f"observed[+{step}]"] for step in (1, 2)] for row in table.to_pylist()]
    assert ahead == [[1, 0], [0, 1]]
    assert [row["target[+2]"] for row in table.to_pylist()] == [18, 19]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.1, 0.2], [0.1, 0.2]),
        ([1e6 + 0.125, 1e6 + 0.25], [1e6 + 0.125, 1e6 + 0.25]),  # float32 would not tell them apart
        ([5.0, 5.0], [5.0, 5.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1e-30, 2e-30], [1e-30, 2e-30]),
        ([1e30, 2e30], [1e30, 2e30]),
    ],
)
def test_shown_values_keep_the_digits_that_were_stored(values, shown):
    values = np.array(values)
    stored = (values - values.mean()).astype(np.float32) + values.mean()
    assert rounded(stored[:, None])[:, 0] == pytest.approx(shown, rel=1e-13, abs=0)


def test_steps_are_labelled_by_their_distance_from_the_origin():
    assert [step_label(at, 3) for at in range(5)] == ["[-2]", "[-1]", "[-0]", "[+1]", "[+2]"]


@pytest.mark.parametrize(
    ("season", "num_steps", "horizon", "lookback"),
    [
        (24, 100_000, 24, 720),  # thirty days of hours
        (48, 100_000, 48, 720),  # fifteen of half-hours
        (288, 100_000, 12, 2880),  # ten of five minutes: no longer than LONGEST
        (1440, 10_000_000, 60, 2880),
        (12, 120, 12, 24),  # two and a half seasons are a quarter of ten years
        (12, 30, 12, 24),  # two at least, however few there are: the folds then say what is lacking
        (86_400, 10_000_000, 60, 240),  # seconds: two days are too far
        (1, 1000, 30, 120),
        (1, 1000, 3, 48),
        (1, 40, 3, 10),
        (1, -5, 3, 1),
    ],
)
def test_a_lookback_that_is_not_given_is_of_whole_seasons_as_far_as_there_are_rows(season, num_steps, horizon, lookback):
    assert usual_lookback(season, num_steps, horizon) == lookback
    assert WindowSettings(horizon=horizon).resolved(season, num_steps) == WindowSpec(lookback=lookback, horizon=horizon)
    given = WindowSettings(lookback=7, horizon=horizon, stride=2).resolved(season, num_steps)
    assert given == WindowSpec(lookback=7, horizon=horizon, stride=2)


@pytest.mark.parametrize(
    ("count", "stride", "horizon", "apart"),
    [(100, 1, 10, 10), (100, 5, 10, 50), (100, 20, 10, 100), (13, 1, 12, 1), (3, 1, 12, 1), (7, 1, 1, 7)],
)
def test_windows_a_horizon_apart_have_no_step_in_common(count, stride, horizon, apart):
    assert num_apart(count, WindowSpec(lookback=1, horizon=horizon, stride=stride)) == apart
