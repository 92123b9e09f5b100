"""A long series that grew goes on from where it was, and comes out as it would from nothing, to the last byte."""

import errno
import json
import os
import shutil

import canonical_rows
import numpy as np
import pytest
from canonical_rows import NAN, Made, hours, make, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sweep import cases, segments_as_they_were, tables_of  # noqa: F401, a fixture for this file too

from tasks.ingest import arranging, resuming, segments
from tasks.ingest.segments import SegmentWriter
from tasks.storage import Call, Draft


def bytes_of(made: Made) -> dict[str, bytes]:
    """Every file of an artifact, and its receipt in place of the manifest, which has the time in it."""
    folder = made.store.folder("ingest", made.receipt.key)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    return files | {
        "receipt": made.receipt.model_dump_json(),
        "digests": json.dumps(made.store.manifest("ingest", made.receipt.key)["files"]),
    }


def notes_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / resuming.FOLDER).glob("*")}


def run(folder, parts, policies, frequency="h", key="shard") -> Made:
    """Parts of rows as `cases` draws them, ingested; in long form with a covariate that never changes."""
    tables, more = tables_of(parts, frequency), {"past_covariates": ["p"], "future_covariates": ["f"]}
    if not policies["wide"]:
        more["static_covariates"] = ["z"]
        for table in tables:
            table.values["z"] = [7.5] * len(table.stamps)
    return make(folder, *tables, frequency=frequency, follows=True, key=key, **more, **policies)


def grown(rng, parts):
    """The parts after something happened to the source."""
    parts = [list(part) for part in parts]
    names = sorted({row[0] for part in parts for row in part})
    stamps = [row[1] for part in parts for row in part]
    ends = {name: max(row[1] for part in parts for row in part if row[0] == name) for name in names}
    step = 60

    def more(name, first, count, wild=0.0):
        rows = rng.integers(0, 6, (count, 3)).astype(float)
        rows[rng.random(rows.shape) < 0.05] = NAN
        rows[rng.random(rows.shape) < wild] = np.inf
        at = first + step * np.flatnonzero(rng.random(count) < 0.95)
        return [(name, int(minute), *row) for minute, row in zip(at, rows, strict=False)]

    kind = str(rng.choice(["append", "append", "append", "regrow", "regrow", "late", "change", "prepend", "shrink", "wild"]))
    name = str(rng.choice(names))
    if kind in ("append", "wild"):
        first = ends[name] + step * int(rng.choice([1, 1, 3]))
        parts.append(more(name, first, int(rng.integers(1, 30)), 0.2 * (kind == "wild")))
    elif kind == "regrow":
        parts[-1] += more(name, ends[name] + step, int(rng.integers(1, 30)))
    elif kind == "late":
        parts.append(more(name, int(rng.choice(stamps)), int(rng.integers(1, 5))))
    elif kind == "prepend":
        parts.insert(0, more(name, min(stamps) - 20 * step, 15))
    elif kind == "shrink":
        parts[-1] = parts[-1][: max(1, len(parts[-1]) // 2)]
    else:
        part = parts[int(rng.integers(len(parts)))]
        at = int(rng.integers(len(part)))
        part[at] = (*part[at][:2], float(rng.integers(6)), *part[at][3:])
    return [part for part in parts if part]


@settings(deadline=None, max_examples=40)
@given(cases(), st.integers(0, 1 << 30), st.booleans())
def test_whatever_happens_to_a_source_it_comes_out_as_from_nothing(tmp_path_factory, case, seed, mild):
    parts, policies, size, frequency = case
    if mild:  # so that most of the series have no faults
        policies |= {"rules": {"y": {"max_flat": 4, "max_jump": 5}, "p": {"max_gap": 6}}, "interpolate_limit": None}
        for setting, instead in (("gaps", "mask"), ("missing", "mask"), ("duplicates", "last")):
            policies[setting] = instead if policies[setting] == "error" else policies[setting]
        parts = [[tuple(3.0 if cell == np.inf else cell for cell in row) for row in part] for part in parts]
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("resuming")
    segments.SEGMENT = size
    try:
        for turn in range(3):
            made = run(folder / "store", parts, policies, frequency, f"turn {turn}")
            plain = run(folder / f"plain {turn}", parts, policies, frequency, f"turn {turn}")
            assert bytes_of(made) == bytes_of(plain)
            left = notes_of(folder / f"plain {turn}")
            assert {name: note for name, note in notes_of(folder / "store").items() if name in left} == left
            parts = grown(rng, parts)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def slabs_seen(monkeypatch) -> list[int]:
    """The hour at which each slab begins that is arranged."""
    monkeypatch.setattr(segments, "SEGMENT", 8)
    seen, tidy = [], arranging.tidy

    def watched(source, panel, grid, ledger, story=None):
        seen.append((int(panel.stamps[0]) - int(hours(0)[0])) // 3_600_000_000)
        return tidy(source, panel, grid, ledger, story)

    monkeypatch.setattr(arranging, "tidy", watched)
    return seen


def series(first, until, **changed):
    """Hourly rows of a saw, as one part."""
    return rows_of(hours(*range(first, until)), [changed.get(f"at_{at}", at % 5) for at in range(first, until)])


def test_of_a_series_that_grew_only_the_slabs_that_are_new_are_arranged(tmp_path, slabs_seen):
    make(tmp_path / "store", series(0, 30), key="before")
    assert slabs_seen == [0, 8, 16, 24]
    slabs_seen.clear()
    after = make(tmp_path / "store", series(0, 30), series(30, 50), key="after")
    assert slabs_seen == [24, 32, 40, 48]
    assert after.column() == [at % 5 for at in range(50)]
    assert bytes_of(after) == bytes_of(make(tmp_path / "plain", series(0, 30), series(30, 50), key="after"))
    assert notes_of(tmp_path / "store") == notes_of(tmp_path / "plain")


def test_a_part_that_was_read_again_because_it_grew_is_arranged_from_its_first_row(tmp_path, slabs_seen):
    make(tmp_path, series(0, 20), series(20, 37), key="before")
    slabs_seen.clear()
    make(tmp_path, series(0, 20), series(20, 60), key="after")
    assert slabs_seen[0] == 16


def test_what_was_repaired_is_counted_once_whenever_that_was(tmp_path, slabs_seen):
    def part(first, until):
        return rows_of(np.repeat(hours(*range(first, until)), 2))

    more = {"duplicates": "last", "repairs": [{"series_id": "y", "what": "stamps out of order", "count": 3}]}
    assert make(tmp_path, part(0, 30), **more, key="before").repairs == {"repeated stamps": 30, "stamps out of order": 3}
    slabs_seen.clear()
    made = make(tmp_path, part(0, 30), part(30, 40), **more, key="after")
    assert (slabs_seen[0], made.repairs) == (28, {"repeated stamps": 40, "stamps out of order": 6})


def test_rows_absent_where_a_sweep_goes_on_are_seen(tmp_path, slabs_seen):
    holed = rows_of(hours(*range(32), 34, 35))
    make(tmp_path, holed, gaps="mask", key="before")
    slabs_seen.clear()
    made = make(tmp_path, holed, series(36, 50), gaps="mask", key="after")
    assert (slabs_seen[0], made.repairs, made.stamps()) == (34, {"absent rows masked": 2}, hours(*range(50)).tolist())


def test_empty_rows_of_wide_form_are_leading_ones_only_before_the_first_value(tmp_path, slabs_seen):
    holed, more = series(0, 35, at_32=NAN, at_33=NAN), {"wide": ["y"], "missing": "mask", "gaps": "mask"}
    make(tmp_path, holed, **more, key="before")
    slabs_seen.clear()
    made = make(tmp_path, holed, series(35, 50), **more, key="after")
    assert (slabs_seen[0], made.repairs) == (32, {"steps masked": 2})


@pytest.mark.parametrize(
    ("parts", "first"),
    [
        ([series(0, 30, at_9=7), series(30, 40)], 0),  # a value in the part
        ([series(-9, 0), series(0, 30), series(30, 40)], -9),  # rows before
        ([series(0, 30), series(12, 14), series(30, 40)], 8),  # rows among them, from another part
        ([series(30, 40), series(0, 30)], 24),  # another order of parts, where they do not touch
        ([series(0, 30)], 24),  # nothing new
    ],
)
def test_what_changed_is_where_a_sweep_goes_on(tmp_path, slabs_seen, parts, first):
    more = {"order": "sort", "duplicates": "last"}
    make(tmp_path / "store", series(0, 30), key="before", **more)
    slabs_seen.clear()
    made = make(tmp_path / "store", *parts, key="after", **more)
    assert slabs_seen[0] == first
    assert bytes_of(made) == bytes_of(make(tmp_path / "plain", *parts, key="after", **more))


def test_other_settings_or_other_code_begin_at_the_first_row(tmp_path, slabs_seen, monkeypatch):
    def first(**changed):
        slabs_seen.clear()
        make(tmp_path, series(0, 30), key=f"{len(os.listdir(tmp_path / 'ingest')) if changed else 0}", **changed)
        return slabs_seen[0]

    make(tmp_path, series(0, 30), key="before")
    assert [first(), first(gaps="mask"), first(rules={"y": {"max": 9}}), first(gaps="mask")] == [24, 0, 0, 24]
    monkeypatch.setattr(canonical_rows, "Call", lambda **call: Call(**call | {"made_from": {"code": {"a.py": "1"}}}))
    assert [first(), first()] == [0, 24]


def test_rows_that_may_yet_be_treated_otherwise_are_not_trusted(tmp_path, slabs_seen):
    """Without a later target, rows lie ahead and keep their holes; with one, they are filled."""
    tail = [*range(8), *[NAN] * 20]
    make(tmp_path / "store", rows_of(hours(*range(28)), tail), missing="mask", key="before")
    slabs_seen.clear()
    parts = [rows_of(hours(*range(28)), tail), series(28, 40)]
    made = make(tmp_path / "store", *parts, missing="mask", key="after")
    assert (slabs_seen[0], made.repairs) == (0, {"steps masked": 20})
    assert bytes_of(made) == bytes_of(make(tmp_path / "plain", *parts, missing="mask", key="after"))


def test_a_hole_that_is_still_open_at_the_end_of_a_slab_is_gone_through_again(tmp_path, slabs_seen):
    holed, more = rows_of(hours(*range(18)), [*range(12), *[NAN] * 6]), {"missing": "interpolate"}
    make(tmp_path / "store", holed, series(18, 30), **more, key="before")
    slabs_seen.clear()
    made = make(tmp_path / "store", holed, series(18, 30, at_18=18), **more, key="after")
    assert (slabs_seen[0], made.column()[11:19]) == (8, [11, 12, 13, 14, 15, 16, 17, 18])
    assert bytes_of(made) == bytes_of(make(tmp_path / "plain", holed, series(18, 30, at_18=18), **more, key="after"))


def test_rows_that_lie_ahead_now_are_not_taken_for_what_they_were_when_targets_followed(tmp_path, slabs_seen):
    holed, more = rows_of(hours(*range(24)), [*range(20), *[NAN] * 4]), {"missing": "drop", "gaps": "mask"}
    make(tmp_path / "store", holed, series(24, 40), **more, key="before")
    parts = [holed, rows_of(hours(*range(24, 40)), [NAN] * 16)]
    made = make(tmp_path / "store", *parts, **more, key="after")
    assert (len(made.stamps()), made.repairs) == (40, {})
    assert bytes_of(made) == bytes_of(make(tmp_path / "plain", *parts, **more, key="after"))


def test_of_a_series_whose_gaps_drop_what_lies_before_them_only_what_follows_the_same_gap_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 8)
    parts, begins = [series(0, 30)], []
    for later in (series(30, 40), series(45, 70), series(70, 80)):
        make(tmp_path / "store", *parts, gaps="drop", key=f"before {len(parts)}")
        parts.append(later)
        told = []
        with monkeypatch.context() as patch:
            patch.setattr(resuming, "say", told.append)
            made = make(tmp_path / "store", *parts, gaps="drop", key="after")
        assert bytes_of(made) == bytes_of(make(tmp_path / f"plain {len(parts)}", *parts, gaps="drop", key="after"))
        begins.append((made.stamps()[0], len(told)))
        shutil.rmtree(tmp_path / "store" / "ingest" / "after")
    assert begins == [(hours(0)[0], 1), (hours(45)[0], 0), (hours(45)[0], 1)]


def test_a_flat_run_that_goes_on_in_appended_rows_is_told_from_its_beginning(tmp_path, slabs_seen):
    flat = {f"at_{at}": 3 for at in range(10, 36)}
    rules = {"y": {"max_flat": 20}}
    assert make(tmp_path, series(0, 30, **flat), rules=rules, key="before").index["faults"] == []
    slabs_seen.clear()
    made = make(tmp_path, series(0, 30, **flat), series(30, 50, **flat), rules=rules, key="after")
    assert slabs_seen[0] == 24
    assert made.faults["rule max_flat of y"].startswith("column 'y': 3 for 26 steps from 2024-01-01T10:00:00+00:00;")


def test_a_static_covariate_is_held_against_its_value_in_rows_that_were_arranged_before(tmp_path, slabs_seen):
    before = rows_of(hours(*range(33)), area=[*[7] * 32, NAN])
    later = rows_of(hours(*range(33, 50)), area=[8] * 17)
    make(tmp_path, before, static_covariates=["area"], missing="mask", key="before")
    slabs_seen.clear()
    made = make(tmp_path, before, later, static_covariates=["area"], missing="mask", key="after")
    assert slabs_seen[0] == 32
    assert made.faults["static area"].startswith("column 'area' is 7 at first and 8 at 2024-01-02T09:00:00+00:00")


def test_a_fault_in_appended_rows_leaves_nothing_of_the_series_and_the_earlier_artifact_whole(tmp_path, slabs_seen):
    before = make(tmp_path, series(0, 30), key="before")
    made = make(tmp_path, series(0, 30), series(30, 40, at_35=float("inf")), key="after")
    assert slabs_seen[4] == 24
    assert (made.read(), [segment.rows for segment in made.receipt.segments]) == ({}, [0])
    assert before.store.whole("ingest", "before")
    assert before.column() == [at % 5 for at in range(30)]


def test_a_series_that_has_a_fault_before_it_is_swept_begins_at_its_first_row(tmp_path, slabs_seen):
    holed, far = series(0, 30, at_12=NAN), rows_of(hours(0) + 9_000_000 * 3_600_000_000)  # too sparse with that
    make(tmp_path / "store", holed, missing="mask", gaps="mask", key="before")
    made = make(tmp_path / "store", holed, far, missing="mask", gaps="mask", key="after")
    assert (list(made.faults), made.repairs) == (["gap"], {})
    assert bytes_of(made) == bytes_of(make(tmp_path / "plain", holed, far, missing="mask", gaps="mask", key="after"))


def flip(path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])


@pytest.mark.parametrize("number", [0, 1, 2])  # of the last, only its first rows are taken
@pytest.mark.parametrize(
    "damage", [flip, os.unlink, lambda path: (path.unlink(), path.mkdir())], ids=["flip", "gone", "folder"]
)
def test_a_segment_that_is_not_as_it_was_written_is_not_taken_over(tmp_path, slabs_seen, number, damage):
    earlier = make(tmp_path / "store", series(0, 30), key="before")
    damage(earlier.store.file(earlier.receipt, f"segment-{number:05d}.parquet"))
    slabs_seen.clear()
    made = make(tmp_path / "store", series(0, 30), series(30, 40), key="after")
    assert slabs_seen[0] == 0
    assert bytes_of(made) == bytes_of(make(tmp_path / "plain", series(0, 30), series(30, 40), key="after"))
    assert made.store.whole("ingest", "after")


def test_notes_with_any_one_bit_flipped_are_not_believed(tmp_path, slabs_seen):
    make(tmp_path, series(0, 18), key="before")
    (path,) = (tmp_path / resuming.FOLDER).iterdir()
    content = path.read_bytes()
    assert resuming.from_document(json.loads(content))
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            assert resuming.from_document(json.loads(path.read_bytes())) is None
        except ValueError:
            continue
    slabs_seen.clear()
    path.write_bytes(content[:-30])
    made = make(tmp_path, series(0, 30), key="after")
    assert (slabs_seen[0], made.column()) == (0, [at % 5 for at in range(30)])


@pytest.mark.parametrize(("place", "method"), [(SegmentWriter, "write"), (SegmentWriter, "close"), (Draft, "commit")])
def test_a_run_that_was_killed_leaves_nothing_that_is_half_trusted(tmp_path, slabs_seen, monkeypatch, place, method):
    make(tmp_path / "store", series(0, 30), key="before")

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, method, killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "store", series(0, 30), series(30, 40), key="after")
    made = make(tmp_path / "store", series(0, 30), series(30, 40), series(40, 50), key="later")
    plain = make(tmp_path / "plain", series(0, 30), series(30, 40), series(40, 50), key="later")
    assert bytes_of(made) == bytes_of(plain)
    assert sorted(os.listdir(tmp_path / "store" / "ingest")) == ["before", "later"]


def test_segments_are_shared_by_both_artifacts_where_the_file_system_can(tmp_path, slabs_seen, monkeypatch):
    def shared(made):
        return [made.store.file(made.receipt, one.name).stat().st_nlink for one in made.receipt.segments]

    make(tmp_path, series(0, 30), key="before")
    assert shared(make(tmp_path, series(0, 30), series(30, 40), key="after")) == [2, 2, 1, 1, 1]

    def no_links(*args):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    made = make(tmp_path, series(0, 30), series(30, 40), series(40, 50), key="later")
    assert (shared(made), made.column()) == ([1] * 7, [at % 5 for at in range(50)])


def test_a_long_series_goes_on_though_others_of_its_shard_changed(tmp_path, slabs_seen):
    def shard(first, long, **more):
        return [
            rows_of(hours(*range(first)), series="a"),
            rows_of(hours(*range(long)), series="b"),
            rows_of(hours(0, 1), series="c"),
        ]

    make(tmp_path / "store", *shard(3, 30), key="before")
    slabs_seen.clear()
    parts = [*shard(20, 30), rows_of(hours(*range(30, 40)), series="b")]
    made = make(tmp_path / "store", *parts, key="after")
    assert slabs_seen == [0, 8, 16, 24, 32, 0]
    assert [(one.rows, one.continues) for one in made.receipt.segments] == [
        (8, False), (8, True), (4, True), (8, False), (8, True), (8, True), (8, True), (8, True), (2, False),
    ]  # fmt: skip
    assert bytes_of(made) == bytes_of(make(tmp_path / "plain", *parts, key="after"))
    parts[2] = rows_of(hours(*range(5)), series="c")
    for _ in range(2):  # the second time with what the first left, which had nothing to add to the marks
        slabs_seen.clear()
        made = make(tmp_path / "store", *parts, key="again")
        assert slabs_seen == [16, 32, 0]
        assert bytes_of(made) == bytes_of(make(tmp_path / "others", *parts, key="again"))
        shutil.rmtree(tmp_path / "others")
