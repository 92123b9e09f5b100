"""A series too long for memory goes slab by slab, and comes out as it would in one piece."""

import shutil

import numpy as np
import pytest
from canonical_rows import NAN, hours, make, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest import segments

WHOLE = 1 << 20
RULES = [
    {},
    {"y": {"max_flat": 2}, "p": {"max_gap": 1}},
    {"y": {"max_jump": 2, "max_gap": 2, "max_flat": 3}, "f": {"min": 1, "max": 4, "not_null": True}},
]


@pytest.fixture(autouse=True)
def segments_as_they_were(monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", WHOLE)
    monkeypatch.setattr(segments, "ROW_GROUP", 4)


@st.composite
def cases(draw):
    """Parts of one or several series with holes, repeats and empty values, and a spec."""
    names = draw(st.sampled_from([["y"], ["a", "b"], ["a", "b", "c"]]))
    step = draw(st.sampled_from([1, 1, 1, 2]))
    seed = draw(st.integers(0, 1 << 30))
    rng = np.random.default_rng(seed)
    empty, absent, again = draw(st.sampled_from([(0.1, 0.1, 0.1), (0.5, 0, 0), (0.05, 0.3, 0), (0, 0, 0), (0.3, 0.1, 0.02)]))
    off = draw(st.sampled_from([0, 0, 0, 0.05]))
    wild = draw(st.sampled_from([0, 0, 0, 0.03]))
    parts = [[] for _ in range(draw(st.integers(1, 3)))]
    for name in names:
        length = int(rng.integers(1, 60))
        at = np.arange(0, length * step, step)
        at = np.repeat(at[rng.random(len(at)) >= absent], 1)
        at = np.sort(np.concatenate([at, at[rng.random(len(at)) < again]]))
        rows = rng.integers(0, 6, (len(at), 3)).astype(float)
        rows[rng.random(rows.shape) < empty] = NAN
        rows[rng.random(rows.shape) < wild] = np.inf
        tail = int(rng.integers(0, 4)) * int(rng.random() < 0.4)
        rows[len(rows) - tail :, 0] = NAN
        minutes = 60 * at + np.where(rng.random(len(at)) < off, 7, 0)
        number = rng.integers(0, len(parts), len(at)) if rng.random() < 0.5 else np.sort(rng.integers(0, len(parts), len(at)))
        for part in range(len(parts)):
            parts[part] += [
                (name, minute, *row) for minute, row in zip(minutes[number == part], rows[number == part], strict=True)
            ]
    parts = [part for part in parts if part] or [[(names[0], 0, 1.0, 1.0, 1.0)]]
    policies = {
        "duplicates": draw(st.sampled_from(["error", "drop", "first", "last", "mean"])),
        "gaps": draw(st.sampled_from(["error", "drop", "interpolate", "mask"])),
        "missing": draw(st.sampled_from(["error", "drop", "interpolate", "mask"])),
        "rules": draw(st.sampled_from(RULES)),
        "order": "sort",
        "wide": draw(st.sampled_from([None, None, ["a"]])),
    }
    if "interpolate" in (policies["gaps"], policies["missing"]):
        policies["interpolate_limit"] = draw(st.sampled_from([None, 2]))
    return parts, policies, draw(st.sampled_from([1, 3, 8, 20])), draw(st.sampled_from(["h", "h", "D"]))


def tables_of(parts, frequency):
    """The rows of each part as what was read of it."""
    base, scale = hours(0)[0], 60_000_000 * (24 if frequency == "D" else 1)
    tables = []
    for part in parts:
        name, minute, *values = zip(*part, strict=True)
        stamps = base + np.array(minute, np.int64) * scale
        tables.append(rows_of(stamps, values[0], series=name, p=values[1], f=values[2]))
    return tables


def outcome(folder, parts, policies, frequency):
    more = {"past_covariates": ["p"], "future_covariates": ["f"], **policies}
    made = make(folder, *tables_of(parts, frequency), frequency=frequency, follows=True, **more)
    index = made.index
    for fault in index["faults"]:
        if fault["kind"] == "gap":
            del fault["said"]  # whether a series has two frequencies is looked at in one slab
    rows = {
        name: ([str(stamp) for stamp in stamps], [[repr(cell) for cell in row] for row in values.tolist()])
        for name, (stamps, values) in made.read().items()
    }
    return index, rows, made.repairs


@settings(deadline=None, max_examples=100)
@given(cases())
def test_slab_by_slab_makes_what_one_piece_makes(tmp_path_factory, case):
    parts, policies, size, frequency = case
    folder = tmp_path_factory.mktemp("sweep")
    try:
        segments.SEGMENT = WHOLE
        index, rows, repairs = outcome(folder / "whole", parts, policies, frequency)
        segments.SEGMENT = size
        assert outcome(folder / "slabs", parts, policies, frequency) == (index, rows, repairs)
    finally:
        segments.SEGMENT = WHOLE
        shutil.rmtree(folder)


def test_runs_gaps_and_jumps_across_slabs_are_seen_whole_and_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 4)
    values = [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 9, 9, 1, NAN, NAN, NAN, NAN, NAN, NAN, 3]
    rules = {"y": {"max_flat": 3, "max_gap": 5, "max_jump": 5}}
    made = make(tmp_path, rows_of(hours(*range(20)), values), missing="mask", rules=rules)
    assert [(fault["kind"], fault["stamp"], fault["count"]) for fault in made.index["faults"]] == [
        ("rule max_flat of y", hours(2)[0], 1),
        ("rule max_gap of y", hours(13)[0], 1),
        ("rule max_jump of y", hours(10)[0], 2),
    ]
    assert made.faults["rule max_flat of y"].startswith("column 'y': 2 for 8 steps from 2024-01-01T02:00:00+00:00;")


def test_what_is_repaired_where_slabs_meet_is_counted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 2)
    at = [0, 0, 1, 1, 2, 2, 4, 4, 5, 5, 7, 7]
    made = make(tmp_path, rows_of(hours(*at), list(range(12))), duplicates="last", gaps="interpolate")
    assert made.column() == [1, 3, 5, 6, 7, 9, 10, 11]
    assert made.repairs == {"repeated stamps": 6, "rows inserted for gaps": 2}


def test_a_hole_of_many_slabs_is_filled_from_both_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 4)
    made = make(tmp_path, rows_of(hours(*range(5), 36, 37), [0, 0, 0, 0, 0, 32, 0]), gaps="interpolate")
    assert made.column() == [0, 0, 0, 0, *range(33), 0]
    assert [segment.rows for segment in made.receipt.segments] == [4] * 9 + [2]


def test_a_long_series_with_a_stamp_of_a_far_year_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 4)
    far = hours(0)[0] + 9_000_000 * 3_600_000_000
    made = make(tmp_path, rows_of([*hours(*range(20)), far]), gaps="mask")
    assert made.faults["gap"].startswith("has 21 rows for 9000001 steps of h: 8999980 are absent before 3050-")
    assert (made.read(), made.index["faults"][0]["stamp"]) == ({}, far)
