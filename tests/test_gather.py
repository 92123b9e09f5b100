"""Labelled data in every form that they come in, and what is said of those that are at fault."""

import datetime
import gzip
import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from models.classification.windows import LabelWindows
from models.errors import Fault
from tasks.gather import task
from tasks.gather.arrays import Gathered
from tasks.gather.assembling import assemble
from tasks.gather.files import list_case_files
from tasks.gather.source import LabelledSource
from tasks.gather.streams import cut_streams, with_instants
from tasks.gather.task import read_file
from tasks.progress import listener

LONG = {"case": "case", "step": "step", "label": "label"}


def gathered(uri, needs_labels=True, **source) -> Gathered:
    given = LabelledSource(uri=str(uri) if isinstance(uri, Path) else uri, **source)
    return assemble(given, [read_file(given, file, needs_labels) for file in list_case_files(given, Path("downloads"))])


def streamed(path: Path, lookback=3, stride=1, label="origin", **source) -> Gathered:
    given = LabelledSource(uri=str(path), timestamp="when", label="state", **source)
    files = list_case_files(given, Path("downloads"))
    parts = [read_file(given, file) for file in files]
    windows = LabelWindows(lookback=lookback, stride=stride, label=label)
    timed = [with_instants(given, file, part) for file, part in zip(files, parts, strict=True)]
    return cut_streams(given, [part for part, _ in timed], [micros for _, micros in timed], windows)


def long_form(**changes) -> pd.DataFrame:
    """Two cases of three and two steps, two channels."""
    frame = pd.DataFrame(
        {
            "case": ["a", "a", "a", "b", "b"],
            "step": [0, 1, 2, 0, 1],
            "x": [1.0, 2, 3, 4, 5],
            "y": [0.5] * 5,
            "label": list("rrrss"),
        }
    )
    return frame.assign(**changes)


def written(tmp_path, frame: pd.DataFrame, name="cases.csv", **options) -> Path:
    path = tmp_path / name
    if name.endswith(".parquet"):
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, **options)
    return path


@pytest.mark.parametrize("name", ["cases.csv", "cases.csv.gz", "cases.parquet"])
def test_cases_in_long_form_are_runs_of_their_own_rows(tmp_path, name):
    found = gathered(written(tmp_path, long_form(), name), **LONG)
    assert found.ids == ["a", "b"]
    assert found.channels == ("x", "y")
    assert found.labels == ["r", "s"]
    assert (found.starts.tolist(), found.lengths.tolist()) == ([0, 3], [3, 2])
    assert found.rows[:, 0].tolist() == [1, 2, 3, 4, 5]


def test_rows_in_any_order_are_put_in_the_order_of_their_steps(tmp_path):
    mixed = long_form().iloc[[4, 2, 0, 3, 1]]
    found = gathered(written(tmp_path, mixed), **LONG)
    assert found.ids == ["b", "a"]  # as they first appear
    assert found.rows[:, 0].tolist() == [4, 5, 1, 2, 3]


def test_steps_may_be_stamps(tmp_path):
    stamps = ["2024-01-02", "2024-01-01", "2024-01-10", "2024-01-01", "2024-01-02"]
    found = gathered(written(tmp_path, long_form(step=stamps)), **LONG)
    assert found.rows[:, 0].tolist() == [2, 1, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "steps", "source"),
    [
        ("cases.csv", ["10,0", "9,5", "100", "0,5", "0"], {"delimiter": ";", "decimal": ","}),
        ("cases.csv", ["t10", "t9", "t100", "t1", "t0"], {}),
        ("cases.csv", ["1700000000000000010", "1700000000000000009", "1700000000000000100", "1", "0"], {}),
        ("cases.csv", ["10:00", "09:30", "11:00", "01:00", "00:00"], {}),
        ("cases.csv", ["0 days 10:00:00", "0 days 09:00:00", "1 days 00:00:00", "0 days 01:00:00", "0 days 00:00:01"], {}),
        ("cases.csv", ["2024/01/10", "2024/01/09", "2024/02/01", "2024/01/02", "2024/01/01"], {}),
        ("cases.csv", ["20240101T10", "20240101T09", "20240102T00", "20240101T01", "20240101T00"], {}),
        ("cases.csv", ["2024-01-01 02:30+01:00", "2024-01-01T02:00+01:00", "2024-01-01 02:30Z", "2024-02", "2024-01-31"], {}),
        ("cases.csv", ["2024-W10", "2024-W09", "2025-W01", "2024-W02", "2024-W01"], {}),
        ("cases.csv", ["2024Q2", "2024Q1", "2025Q1", "2024Q4", "2024Q3"], {}),
        ("cases.csv", ["a1_frame_10", "a1_frame_9", "a1_frame_100", "b2_frame_1", "b2_frame_0"], {}),
        ("cases.csv", ["1.5s", "0.5s", "10s", "0.2s", "0.1s"], {}),
        ("cases.parquet", pd.to_timedelta([10, 9, 100, 1, 0], unit="s"), {}),
        ("cases.parquet", [Decimal(one) for one in ("10", "9", "100", "1", "0")], {}),
        ("cases.parquet", pd.Categorical(["10", "9", "100", "1", "0"]), {}),
        ("cases.parquet", [datetime.time(10), datetime.time(9, 30), datetime.time(11), datetime.time(1), datetime.time(0)], {}),
    ],
    ids=[
        "german",
        "words with numbers",
        "nanoseconds",
        "times",
        "durations in text",
        "slashes",
        "compact",
        "offsets",
        "weeks",
        "quarters",
        "words of a case",
        "units",
        "durations",
        "decimals",
        "categories",
        "times of Parquet",
    ],
)
def test_steps_are_put_in_order_however_they_are_written(tmp_path, name, steps, source):
    path = written(tmp_path, long_form(step=steps), name, **({"sep": ";", "decimal": ","} if source else {}))
    assert gathered(path, **LONG, **source).rows[:, 0].tolist() == [2, 1, 3, 5, 4]


@pytest.mark.parametrize(
    "steps",
    [
        ["20.01.2024", "21.01.2024", "01.02.2024", "1.1.2024", "2.1.2024"],
        ["01.01.2024", "01.02.2024", "01.01.2025", "01.01.2024", "01.02.2024"],
        ["2024-01-01 11:00 AM", "2024-01-01 01:00 PM", "2024-01-01 02:00 PM", "2024-01-01 11:00 AM", "2024-01-01 01:00 PM"],
        ["jan1", "feb1", "mar1", "jan1", "feb1"],
        list("cabde"),
    ],
)
def test_steps_without_an_order_are_refused_rather_than_sorted_as_text(tmp_path, steps):
    with pytest.raises(Fault, match=rf"cases.csv row 1, column 'step': '{steps[0]}' and the like have no order"):
        gathered(written(tmp_path, long_form(step=steps)), **LONG)
    with pytest.raises(Fault, match=r"column 'step' holds bool, which orders nothing"):
        gathered(written(tmp_path, long_form(step=[True, False] * 2 + [True]), "cases.parquet"), **LONG)


def test_german_numbers_and_latin_letters_are_read(tmp_path):
    frame = long_form(x=["1,5", "2", "3", "4", "5"], label=["Höhe"] * 3 + ["Tiefe"] * 2)
    path = tmp_path / "fälle.csv"
    frame.to_csv(path, index=False, sep=";", encoding="latin-1")
    found = gathered(path, delimiter=";", decimal=",", encoding="latin-1", channels=["x"], **LONG)
    assert found.labels == ["Höhe", "Tiefe"]
    assert found.rows[0, 0] == 1.5


def test_columns_of_words_are_no_channels_and_numbers_in_text_are(tmp_path):
    frame = long_form(place=["north"] * 5, z=["1", "", "3", "4", "5"])
    found = gathered(written(tmp_path, frame), missing="mask", **LONG)
    assert found.channels == ("x", "y", "z")
    assert found.notes["missing values"] == 1


@pytest.mark.parametrize(("offset", "told"), [(0, False), (1e6, False), (1e8, True)])
def test_a_column_that_single_precision_flattens_is_told_of(tmp_path, offset, told):
    said = []
    token = listener.set(said.append)
    try:
        gathered(written(tmp_path, long_form(x=offset + np.arange(5.0), y=[1.0] * 5)), **LONG)
    finally:
        listener.reset(token)
    expected = "cases.csv: column 'x' varies by 1.4 around 1e+08, of which single precision loses up to 4. Take a constant"
    assert [expected in line for line in said] == [True] * told


@pytest.mark.parametrize("index", ["__index_level_0__", "Unnamed: 0", " "])
def test_row_numbers_that_were_written_along_are_no_channel_unless_they_are_named(tmp_path, index):
    path = written(tmp_path, long_form(**{index: range(5)}))
    assert gathered(path, **LONG).channels == ("x", "y")
    assert set(gathered(path, channels=["x", index], **LONG).channels) == {"x", index}


def test_labels_that_are_whole_numbers_have_no_point(tmp_path):
    frame = long_form(label=[1.0, 1, 1, 2, 2])
    assert gathered(written(tmp_path, frame, "cases.parquet"), **LONG).labels == ["1", "2"]


def test_a_class_may_be_called_none(tmp_path):
    assert gathered(written(tmp_path, long_form(label=["None"] * 3 + ["run"] * 2)), **LONG).labels == ["None", "run"]


def test_what_is_to_be_labelled_may_lack_the_column_of_labels(tmp_path):
    path = written(tmp_path, long_form().drop(columns="label"))
    assert gathered(path, needs_labels=False, **LONG).labels == [None, None]
    with pytest.raises(Fault, match=r"cases.csv has no column 'label'; it has case, step, x, y\."):
        gathered(path, **LONG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": [0, 1, 1, 0, 1]}, r"Case a has step 1 twice, at .*cases.csv row 2 and .*cases.csv row 3 \(1 such row\)"),
        ({"label": list("rrsss")}, r"Case a has the label 'r' and, at .*row 3, 's' \(1 such case\)"),
        ({"label": ["r", None, "r", "s", "s"]}, r"Case a has the label 'r' and, at .*row 2, no value"),
        (
            {"x": [1, None, 3, 4, 5]},
            r"Case a has no value of 'x' at its row 2 \(1 value missing in 1 case\)\. Fill them, or set",
        ),
        ({"x": [1, "one", 3, 4, 5]}, r"cases.csv row 2, column 'x': 'one' is no number\."),
        ({"x": [1, "inf", 3, 4, 5]}, r"cases.csv row 2, column 'x': inf is no finite number"),
        ({"x": [1, "1e300", 3, 4, 5]}, r"cases.csv row 2, column 'x': 1e\+300 is no finite number of single precision"),
        ({"case": ["a", "a", None, "b", "b"]}, r"cases.csv row 3, column 'case': it is empty \(1 such\)"),
        ({"step": [0, 1, None, 0, 1]}, r"cases.csv row 3, column 'step': it is empty"),
    ],
)
def test_a_fault_of_cases_is_named_with_its_place(tmp_path, changes, message):
    with pytest.raises(Fault, match=message):
        gathered(written(tmp_path, long_form(**changes)), **LONG)


def test_a_case_that_comes_back_without_steps_is_named(tmp_path):
    frame = long_form().iloc[[0, 3, 1]].drop(columns="step")
    with pytest.raises(
        Fault, match=r"Case a comes back at .*row 3 after other cases \(1 such\)\. Give every case a name of its own"
    ):
        gathered(written(tmp_path, frame), case="case", label="label")


def test_a_case_without_any_value_is_refused_even_where_some_may_be_missing(tmp_path):
    frame = long_form(x=[1, 2, 3, None, None], y=[1, 2, 3, None, None])
    with pytest.raises(Fault, match=r"1 case without any value: b\."):
        gathered(written(tmp_path, frame), missing="mask", **LONG)


def test_a_column_says_the_fold_of_each_case_in_the_usual_words(tmp_path):
    frame = long_form(part=["TRAIN"] * 3 + ["Test"] * 2)
    assert gathered(written(tmp_path, frame), split="part", **LONG).splits == ["train", "test"]
    with pytest.raises(Fault, match=r"row 4, column 'part': 'holdout' is no fold; it can be train, validation or test\."):
        gathered(written(tmp_path, frame.replace("Test", "holdout")), split="part", **LONG)


def test_files_named_for_folds_may_number_their_cases_alike(tmp_path):
    for name in ("set_TRAIN.csv", "set_TEST.csv"):
        written(tmp_path, long_form(), name)
    found = gathered(str(tmp_path / "set_*.csv"), **LONG)
    assert found.ids == ["set_TEST:a", "set_TEST:b", "set_TRAIN:a", "set_TRAIN:b"]
    assert found.splits == ["test", "test", "train", "train"]


@pytest.mark.parametrize("name", ["cases.csv", "cases.parquet"])
def test_a_file_that_changed_since_the_run_began_is_refused(tmp_path, monkeypatch, name):
    path = written(tmp_path, long_form(), name)
    source = LabelledSource(uri=str(path), case="case", step="step", label="label")
    files = list_case_files(source, tmp_path)
    read_file(source, files[0])
    whole = task.read_table

    def read_while_it_is_written(*given):
        found = whole(*given)
        os.utime(path, ns=(0, 0))
        return found

    monkeypatch.setattr(task, "read_table", read_while_it_is_written)
    with pytest.raises(Fault, match=r"cases\.(csv|parquet) changed while it was being read\. Run again once it is written"):
        read_file(source, files[0])
    monkeypatch.setattr(task, "read_table", None)  # nor is it read at all
    with pytest.raises(Fault, match=r"changed while it was being read"):
        read_file(source, files[0])


def test_files_may_have_their_channels_in_another_order(tmp_path):
    written(tmp_path, long_form(), "a.csv")
    written(tmp_path, long_form(case=list("cccdd"))[["label", "y", "x", "step", "case"]], "b.csv")
    found = gathered(tmp_path, **LONG)
    assert found.channels == ("x", "y")
    assert found.rows[:5].tolist() == found.rows[5:].tolist() == long_form()[["x", "y"]].to_numpy().tolist()


def test_files_whose_steps_share_no_order_are_named(tmp_path):
    written(tmp_path, long_form(), "a.csv")
    written(tmp_path, long_form(case=list("cccdd"), step=pd.date_range("2024-01-01", periods=5)), "b.parquet")
    with pytest.raises(Fault, match=r"b\.parquet has stamps in column 'step', .*a\.csv has numbers; they share no order"):
        gathered(tmp_path, **LONG)


def test_files_with_other_channels_are_named(tmp_path):
    one, other = written(tmp_path, long_form(), "one.csv"), written(tmp_path, long_form().drop(columns="y"), "two.csv")
    with pytest.raises(Fault, match=r"two.csv has the channels x, .*one.csv has x, y; all files need the same ones"):
        gathered((str(one), str(other)), **LONG)


def test_the_archives_text_files_have_a_case_a_row_and_may_end_early(tmp_path):
    path = tmp_path / "Set_TRAIN.tsv"
    path.write_text("1.0000000e+00\t0.5\t1\t2\n2\t3\tNaN\t5\n-1\t7\tNaN\tNaN\n")
    found = gathered(path, missing="mask")
    assert found.labels == ["1", "2", "-1"]
    assert found.lengths.tolist() == [3, 3, 1]
    assert found.splits == ["train"] * 3
    assert np.array_equal(found.rows[:, 0], [0.5, 1, 2, 3, np.nan, 5, 7], equal_nan=True)


def test_the_oldest_text_files_are_parted_by_blanks(tmp_path):
    path = tmp_path / "Set_TEST.txt"
    path.write_text("  1.0000000e+00  0.5   1.5\n  2.0000000e+00 -3.5   2.5\n")
    found = gathered(path)
    assert found.labels == ["1", "2"]
    assert found.rows[:, 0].tolist() == [0.5, 1.5, -3.5, 2.5]


def test_labels_in_front_of_a_case_are_what_is_written_but_for_the_point_of_old_files(tmp_path):
    path, labels = tmp_path / "odd.tsv", ["01", "1", "1e3", "12345678901234567891", "1.0000000e+00", "-1.0000000e+00", "2.5"]
    path.write_text("".join(f"{label}\t0.5\t1.5\n" for label in labels))
    assert gathered(path).labels == ["01", "1", "1e3", "12345678901234567891", "1", "-1", "2.5"]


def test_a_quote_that_is_not_closed_is_named(tmp_path):
    path = tmp_path / "open.csv"
    path.write_text('a,0.5,1.5\n"b,2,3\n')
    with pytest.raises(Fault, match=r"open\.csv line 2 can not be taken apart \(.*\)\. Close the quotes, or set source\.quote"):
        gathered(path)


def test_labels_in_quotes_may_hold_what_stands_between_fields(tmp_path):
    path = tmp_path / "quoted.csv"
    path.write_text('"a, b",0.5,1.5\nc,0.5,1.5\n"c",2,3\n')
    assert gathered(path).labels == ["a, b", "c", "c"]


@pytest.mark.parametrize("header", ["0,1,2,3,4", "label,0,1,2,3"])
def test_a_header_that_counts_is_no_case(tmp_path, header):
    path = tmp_path / "wide.csv"
    path.write_text(f"{header}\na,0.5,1,2,3\nb,3,2,1,0\n")
    with pytest.raises(Fault, match=r"wide.csv begins with a line that counts: .* It is a header, .* take it out\."):
        gathered(path)
    path.write_text("0,1,2,3,4\n0,0.5,1,2,3\n1,3,2,1,0\n")
    with pytest.raises(Fault, match="begins with a line that counts: 0, 1, 2, 3 and so on"):
        gathered(path)
    path.write_text("a,0,1,2,3\na,0.5,1,2,3\nb,3,2,1,0\n")
    assert gathered(path).labels == ["a", "a", "b"]
    path.write_text("?,0,1,2,3\n")  # a single case that waits for its label
    assert gathered(path).labels == [None]


@pytest.mark.parametrize(("name", "begins"), [("umlauts.tsv", ""), ("umlauts.ts", "@classLabel true ä ö\n@data\n")])
def test_letters_of_another_encoding_are_not_taken_for_one_another(tmp_path, name, begins):
    path, cases = tmp_path / name, [("ä", "1"), ("ö", "2")]
    lines = [f"{value}:{label}" if begins else f"{label}\t{value}\t{value}" for label, value in cases]
    path.write_bytes((begins + "\n".join(lines) + "\n").encode("latin-1"))
    with pytest.raises(Fault, match=rf"{name} line \d holds the byte 0x\w\w, which is no UTF-8\. Set source\.encoding"):
        gathered(path)
    assert gathered(path, encoding="latin-1").labels == ["ä", "ö"]


def test_a_table_in_another_encoding_says_which_setting_helps(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_bytes(long_form(label=["ä"] * 3 + ["ö"] * 2).to_csv(index=False).encode("latin-1"))
    with pytest.raises(Fault, match=r"Mend it or set source\.encoding, as to latin-1\."):
        gathered(path, **LONG)


def test_ts_files_have_channels_of_unequal_cases(tmp_path):
    path = tmp_path / "Set_TRAIN.ts"
    path.write_text("# words\n@problemName Set\n@classLabel true up down\n@data\n1,2,3:4,5,6:up\n7,?:8,9:down\n")
    found = gathered(path, missing="mask")
    assert found.channels == ("dim_0", "dim_1")
    assert found.labels == ["up", "down"]
    assert np.array_equal(found.rows, [[1, 4], [2, 5], [3, 6], [7, 8], [np.nan, 9]], equal_nan=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "1,2:3,4:up\n1,2:up\n",
            r"Set.ts line 4 has 1 channels, the cases before it have 2\. Every case needs the same ones\.",
        ),
        ("1,2:3:up\n", r"Set.ts line 3 has channels of \[1, 2\] steps; all channels of a case need as many"),
        ("1,1e300:up\n", r"Set.ts line 3, value 2: '1e300' is no finite number of single precision"),
        ("1,zwei:up\n", r"Set.ts line 3, value 2: 'zwei' is no number\."),
        ("1,2:sideways\n", r"Set.ts line 3 ends in 'sideways', which @classLabel does not list"),
        ("", r"Set.ts has no line after @data"),
        ("(2024-01-01,1),(2024-01-02,2):up\n", r"Set.ts line 3 has values with stamps; values alone are read"),
    ],
)
def test_a_fault_of_a_ts_file_is_named_with_its_line(tmp_path, lines, message):
    path = tmp_path / "Set.ts"
    path.write_text("@classLabel true up down\n@data\n" + lines)
    with pytest.raises(Fault, match=message):
        gathered(path)


def test_a_file_that_is_not_what_the_spec_says_is_named(tmp_path):
    header, rows = written(tmp_path, long_form()), tmp_path / "rows.tsv"
    with pytest.raises(Fault, match=r"cases.csv has a header, so it has a row a step\. Name source.case and source.label"):
        gathered(header)
    rows.write_text("1\t2\t3\n")
    with pytest.raises(Fault, match=r"rows.tsv begins with numbers where a header is needed"):
        gathered(rows, **LONG)
    (tmp_path / "none.csv").write_bytes(b"")
    with pytest.raises(Fault, match=r"none.csv is empty \(0 bytes\); it needs cases\."):
        gathered(tmp_path / "none.csv", **LONG)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(header.read_bytes())[:40])
    with pytest.raises(Fault, match=r"cut.csv.gz is no whole gzip file"):
        gathered(tmp_path / "cut.csv.gz", **LONG)


def stream(**changes) -> pd.DataFrame:
    stamps = pd.date_range("2024-01-01", periods=6, freq="h").strftime("%Y-%m-%d %H:%M")
    return pd.DataFrame({"when": stamps, "x": np.arange(6.0), "state": list("aabbba")}).assign(**changes)


def test_windows_of_a_stream_have_the_label_of_their_origin(tmp_path):
    found = streamed(written(tmp_path, stream()))
    assert found.starts.tolist() == [0, 1, 2, 3]
    assert found.labels == ["b", "b", "b", "a"]
    assert found.origins[0] == pd.Timestamp("2024-01-01 02:00").value // 1000


def test_windows_of_a_stream_may_have_the_label_of_most_steps_the_later_where_as_many(tmp_path):
    assert streamed(written(tmp_path, stream()), label="majority").labels == ["a", "b", "b", "b"]
    assert streamed(written(tmp_path, stream()), lookback=4, label="majority").labels == ["b", "b", "b"]


def test_the_newest_window_is_always_there_whatever_the_stride(tmp_path):
    assert streamed(written(tmp_path, stream()), stride=2).starts.tolist() == [1, 3]


def test_no_window_spans_an_absent_row(tmp_path):
    found = streamed(written(tmp_path, stream().drop(index=2)), lookback=2)
    assert found.starts.tolist() == [0, 2, 3]
    assert found.notes["absent rows between others"] == 1


def test_no_window_spans_an_absent_row_that_another_off_the_grid_makes_up_for(tmp_path):
    frame = stream().drop(index=2)
    frame.loc[9] = ["2024-01-01 03:20", 99.0, "b"]
    found = streamed(written(tmp_path, frame.sort_values("when")), lookback=2)
    assert found.starts.tolist() == [0, 4]


def clock(stamps, **changes) -> pd.DataFrame:
    """A stream at these stamps of a clock, its channel counting."""
    frame = pd.DataFrame({"when": stamps, "x": np.arange(len(stamps), dtype=float)})
    return frame.assign(state=np.where(np.arange(len(stamps)) % 2, "a", "b"), **changes)


@pytest.mark.parametrize(
    ("stamps", "zone"),
    [
        (pd.date_range("2024-03-24", periods=14).strftime("%Y-%m-%d"), "Europe/Paris"),
        (pd.date_range("2023-01-01", periods=24, freq="MS").strftime("%Y-%m-%d"), "UTC"),
        (pd.date_range("2024-01-01", periods=30, freq="B").strftime("%Y-%m-%d"), "UTC"),
        (pd.date_range("2024-03-20", periods=8, freq="W").strftime("%Y-%m-%d"), "America/New_York"),
    ],
    ids=["days on which clocks change", "months", "business days", "weeks"],
)
def test_steps_of_a_stream_are_those_of_the_calendar(tmp_path, stamps, zone):
    found = streamed(written(tmp_path, clock(stamps)), timezone=zone)
    assert len(found.starts) == len(stamps) - 2
    assert found.notes["absent rows between others"] == 0
    holed = streamed(written(tmp_path, clock(stamps).drop(index=5)), timezone=zone)
    assert holed.notes["absent rows between others"] == 1
    assert len(holed.starts) == len(stamps) - 5


def test_a_row_between_two_days_takes_the_place_of_neither(tmp_path):
    stamps = [f"2024-01-0{day} 00:00" for day in range(1, 10)]
    stamps[4] = "2024-01-04 12:00"
    found = streamed(written(tmp_path, clock(stamps)), lookback=2)
    assert found.starts.tolist() == [0, 1, 2, 5, 6, 7]


def test_rows_of_an_hour_that_the_clock_skipped_are_dropped_and_counted(tmp_path):
    stamps = [f"2024-03-31 {at}" for at in ("00:30", "01:00", "01:30", "02:00", "02:30", "03:00", "03:30", "04:00")]
    path = written(tmp_path, clock(stamps))
    found = streamed(path, timezone="Europe/Paris", skipped_hour="drop")
    assert found.rows[:, 0].tolist() == [0, 1, 2, 5, 6, 7]
    assert found.notes["rows of a skipped hour dropped"] == 2
    assert found.notes["absent rows between others"] == 0
    moved = streamed(written(tmp_path, clock(stamps).drop(index=[5, 6])), timezone="Europe/Paris", skipped_hour="shift")
    assert moved.rows[:, 0].tolist() == [0, 1, 2, 3, 4, 7]
    assert moved.notes["stamps of a skipped hour shifted"] == 2


def test_names_of_several_columns_are_not_taken_for_one_another(tmp_path):
    both = pd.concat([stream(a="x/y", b="z"), stream(a="x", b="y/z")])
    found = streamed(written(tmp_path, both), series_id=["a", "b"])
    assert sorted(set(found.ids)) == ["x%2Fy/z", "x/y%2Fz"]


def test_numbers_are_those_of_a_forecasts_source(tmp_path):
    frame = long_form(x=["-999", "-999.0", "-9.99e2", "1", "2"])
    found = gathered(written(tmp_path, frame), missing_markers=["-999"], missing="mask", **LONG)
    assert np.isnan(found.rows[:3, 0]).all()
    path = written(tmp_path, long_form(x=["1.234", "2", "3", "4", "5"]), sep=";")
    with pytest.raises(Fault, match=r"row 1, column 'x': '1\.234' is no number"):
        gathered(path, delimiter=";", decimal=",", channels=["x"], **LONG)
    (tmp_path / "rows.tsv").write_text("a\t1_000\t2\n")
    with pytest.raises(Fault, match=r"line 1, value 1: '1_000' is no number"):
        gathered(tmp_path / "rows.tsv")


def test_series_of_another_step_are_named_as_left_out(tmp_path):
    quick = stream(name="quick", when=pd.date_range("2024-01-01", periods=6, freq="min").strftime("%Y-%m-%d %H:%M"))
    both = pd.concat([stream(name="a"), stream(name="b"), quick, stream(name="short")[:1]])
    found = streamed(written(tmp_path, both), series_id="name")
    assert set(found.ids) == {"a", "b"}
    assert found.notes["series without a whole window"] == 2
    assert found.left_out == "2 series left out, without 3 rows in a row at steps of 01:00:00: quick, short"


@pytest.mark.parametrize("name", ["stream.csv", "stream.parquet"])
def test_a_stream_that_is_to_be_labelled_may_lack_its_labels(tmp_path, name):
    given = LabelledSource(uri=str(written(tmp_path, stream().drop(columns="state"), name)), timestamp="when", label="state")
    [file] = list_case_files(given, Path("downloads"))
    part = read_file(given, file, needs_labels=False)
    part, micros = with_instants(given, file, part)
    found = cut_streams(given, [part], [micros], LabelWindows(lookback=3))
    assert found.labels == [None] * 4


def test_no_window_spans_two_series(tmp_path):
    both = pd.concat([stream(name="n"), stream(name="m")])
    found = streamed(written(tmp_path, both), lookback=4, series_id="name")
    assert found.ids == ["m"] * 3 + ["n"] * 3
    assert found.starts.tolist() == [0, 1, 2, 6, 7, 8]


def test_a_stamp_that_is_repeated_is_named_or_settled(tmp_path):
    path = written(tmp_path, pd.concat([stream(), stream().iloc[[2]].assign(x=9.0)]))
    with pytest.raises(Fault, match=r"series has 2024-01-01T02:00:00 UTC twice \(1 such row\)\. Mend the file, or set"):
        streamed(path)
    assert streamed(path, duplicates="first").rows[2, 0] == 2
    assert streamed(path, duplicates="last").rows[2, 0] == 9


def test_windows_at_steps_without_a_label_have_none(tmp_path):
    path = written(tmp_path, stream(state=["a", "a", "b", "b", None, None]))
    assert streamed(path).labels == ["b", "b", None, None]
    assert streamed(path, lookback=4, label="majority").labels == ["b", "b", "b"]


def test_a_stream_without_a_whole_window_is_refused(tmp_path):
    with pytest.raises(Fault, match=r"No series has 9 rows without an absent one between them, the longest has 6 rows in all"):
        streamed(written(tmp_path, stream()), lookback=9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"case": "c", "timestamp": "t", "label": "l"}, r"source has a timestamp, which a stream has, and a case"),
        ({"case": "c"}, r"source.label is missing: name the column that holds the classes"),
        ({"series_id": "s", "label": "l"}, r"source.series_id names the streams, and there is no source.timestamp"),
        ({"case": "c", "step": "c", "label": "l"}, r"source names c more than once; once is enough"),
        ({"timestamp": "t", "label": "l", "split": "s"}, r"source.split is of cases; a stream is ordered and split by"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        LabelledSource(uri="x.csv", **settings)
