import bz2
import csv as stdlib_csv
import gzip
import io
import lzma
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.errors import Fault
from tasks.ingest import reading
from tasks.ingest.chunks import take_stock
from tasks.ingest.reading import read_piece, read_strictly
from tasks.ingest.rowwise import read_row_by_row
from tasks.ingest.sources import SourceSpec

NAN = float("nan")
HEADER = "t,y\n"
ROW = "2024-01-01,1\n"


@pytest.fixture
def csv(tmp_path):
    """Writes a CSV and returns the source that names it."""

    def write(content, name="sales.csv", **spec):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return SourceSpec(**{"uri": str(path), "timestamp": "t", "target": "y"} | spec)

    return write


@pytest.fixture
def parquet(tmp_path):
    """Writes a Parquet file and returns the source that names it."""

    def write(content, name="sales.parquet", **spec):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pd.DataFrame):
            content.to_parquet(path)
        else:
            pq.write_table(content if isinstance(content, pa.Table) else pa.table(content), path, write_page_checksum=True)
        return SourceSpec(**{"uri": str(path), "timestamp": "t", "target": "y"} | spec)

    return write


def read(source, folder="/nonexistent"):
    """All rows of a source: series, stamps, columns; and the faults."""
    names, stamps, values, faults = [], [], [[] for _ in source.value_columns], []
    for chunk in take_stock(source, folder):
        for piece in chunk.pieces:
            for rows in read_piece(source, piece):
                names += [rows.names[code] for code in rows.codes]
                stamps += rows.stamps.tolist()
                faults += rows.faults
                for kept, column in zip(values, rows.values, strict=True):
                    kept += column.tolist()
    return names, stamps, values, faults


def values_of(source, column=0):
    *_, values, faults = read(source)
    assert faults == []
    return values[column]


def faults_of(source):
    """Series, place, what is said, and how often, of each fault."""
    return [(fault.series_id, fault.where, fault.said, fault.count) for fault in read(source)[3]]


def days(count):
    return pa.array(np.arange(count) + 19_723, pa.int32()).cast(pa.date32())


def bits(numbers):
    return [struct.pack("<d", number) for number in numbers]


# Dialects


@pytest.mark.parametrize(
    ("content", "spec"),
    [
        ("t;y\n2024-01-01;1,5\n", {"delimiter": ";", "decimal": ","}),
        ("t\ty\n2024-01-01\t1.5\n", {"delimiter": "\t"}),
        ("t|y\n2024-01-01|1.5\n", {"delimiter": "|"}),
        ('t|y\n2024-01-01|"1,5"\n', {"delimiter": "|", "decimal": ","}),
        ("t,y\n'2024-01-01','1.5'\n", {"quote": "'"}),
        ('"t","y"\n"2024-01-01","1.5"\n', {}),
        ("t,y\r\n2024-01-01,1.5\r\n", {}),
        ("t,y\n2024-01-01,1.5", {}),  # no line break at the end
        ("\n\nt,y\n\n2024-01-01,1.5\n\n", {}),
        ("note,y,x,t\nhi,1.5,20,2024-01-01\n", {}),
        ("t,z,y,z\n2024-01-01,a,1.5,b\n", {}),  # a column twice that is not used
        (b"\xef\xbb\xbft,y\n2024-01-01,1.5\n", {}),
        ("t,y,é\n2024-01-01,1.5,ü\n".encode("latin-1"), {"encoding": "latin-1"}),
        ("t,y,é\n2024-01-01,1.5,ü\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("t,y,é\n2024-01-01,1.5,ü\n".encode("cp1252"), {"encoding": "cp1252"}),
    ],
)
def test_a_csv_of_any_dialect_is_read(csv, content, spec):
    names, stamps, values, faults = read(csv(content, **spec))
    assert (names, stamps, values, faults) == (["y"], [1_704_067_200_000_000], [[1.5]], [])


@pytest.mark.parametrize(("name", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_a_compressed_csv_is_read(csv, name, pack):
    assert values_of(csv(pack(b"t,y\n2024-01-01,1.5\n"), f"sales.csv.{name}")) == [1.5]


def test_thousands_of_columns_of_which_two_are_used(csv):
    header = ["t", *(f"c{number}" for number in range(6000)), "y"]
    row = ["2024-01-01", *("123456.789" for _ in range(6000)), "7"]
    assert values_of(csv("\n".join(",".join(one) for one in (header, *[row] * 40)) + "\n")) == [7.0] * 40


@pytest.mark.parametrize("empty", ["", '""', "NA", "NaN", "nan", "null", "#N/A", "None", " ", " NA "])
def test_an_empty_value_is_read_as_absent(csv, empty):
    assert np.isnan(values_of(csv(f"t,y,x\n2024-01-01,{empty},1\n"))).all()


@pytest.mark.parametrize("marker", ["?", "-", "*", "n.a.", "-999"])
@pytest.mark.parametrize("around", ["", " "])
def test_a_missing_marker_is_read_as_absent(csv, marker, around):
    source = csv(f"t,y\n2024-01-01,{around}{marker}\n2024-01-02,-1\n", missing_markers=(marker,))
    value, other = values_of(source)
    assert np.isnan(value)
    assert other == -1


def test_a_missing_number_is_absent_however_it_is_written(csv):
    source = csv("t,y,x\n2024-01-01,-999.0, -999\n2024-01-02,-9.99e2,TRUE\n", missing_markers=("-999",), past_covariates=("x",))
    _, _, (target, covariate), _ = read(source)
    assert np.isnan(target).all()
    assert np.isnan(covariate[0])
    assert covariate[1] == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("+5", 5),
        (" 7 ", 7),
        ("-1e3", -1000),
        ("1e3", 1000),
        ("1E+3", 1000),
        (".5", 0.5),
        ("5.", 5),
        ('"8"', 8),
        ("inf", np.inf),
    ],
)
@pytest.mark.parametrize("other", ["1", "TRUE"])  # TRUE has the rows read one by one
def test_numbers_are_read_as_people_write_them(csv, text, value, other):
    assert values_of(csv(f"t,y\n2024-01-01,{text}\n2024-01-02,{other}\n")) == [value, 1]


@pytest.mark.parametrize("pair", ["TRUE FALSE", "true false", "True False", "1 0"])
def test_booleans_are_covariates(csv, pair):
    yes, no = pair.split()
    source = csv(f"t,y,x\n2024-01-01,1,{yes}\n2024-01-02,1,{no}\n2024-01-03,1,\n", future_covariates=("x",))
    assert values_of(source, 1)[:2] == [1, 0]
    assert np.isnan(values_of(source, 1)[2])


@pytest.mark.parametrize(("early", "late"), [("1", "TRUE"), ("0", "false"), ("TRUE", "0"), ("true", "0.5"), ("", "TRUE")])
def test_a_column_may_change_its_spelling_after_hundreds_of_rows(csv, early, late):
    rows = [f"2024-01-01,1,{early}"] * 300 + [f"2024-01-01,1,{late}"]
    found = values_of(csv("t,y,x\n" + "\n".join(rows) + "\n", past_covariates=("x",)), 1)
    meaning = {"TRUE": 1, "true": 1, "false": 0, "1": 1, "0": 0, "0.5": 0.5, "": NAN}
    np.testing.assert_array_equal(found, [meaning[early]] * 300 + [meaning[late]])


def test_a_text_longer_than_python_takes_by_itself_is_no_fault(csv):
    assert values_of(csv(f"t,y,note\n2024-01-01,TRUE,{'x' * 200_000}\n2024-01-02,2,a\n")) == [1, 2]


def test_values_of_several_lines_are_read_in_a_large_file(csv):
    rows = "".join(f'2024-01-01,{number},"first, line\nsecond line\nthird"\n' for number in range(50_000))
    assert values_of(csv("t,y,note\n" + rows)) == list(range(50_000))


@pytest.mark.parametrize("mark", ["§", "\n", "\r", "\0"])
@pytest.mark.parametrize("setting", ["delimiter", "quote"])
def test_a_mark_that_no_reader_takes_is_refused(setting, mark):
    with pytest.raises(ValidationError, match=rf"source\.{setting} is .*one ASCII character that ends no line is needed"):
        SourceSpec(uri="a.csv", timestamp="t", target="y", **{setting: mark})


@pytest.mark.parametrize(
    ("spec", "said"), [({"delimiter": '"'}, "source.quote are both"), ({"decimal": ","}, "source.decimal are both")]
)
def test_one_mark_can_not_do_two_things(spec, said):
    with pytest.raises(ValidationError, match=said):
        SourceSpec(uri="a.csv", timestamp="t", target="y", **spec)


# Faults of rows


@pytest.mark.parametrize(
    ("content", "place", "text"),
    [
        ("t,y\n2024-01-01,1\n2024-01-02,abc\n", 3, "abc"),
        ("t,y\n\n2024-01-01,1\n\n\n2024-01-02,abc\n", 6, "abc"),  # blank lines are lines
        ("\n\nt,y\n2024-01-01,abc\n", 4, "abc"),  # before the header too
        ("t,y\r\n2024-01-01,1\r\n2024-01-02,abc\r\n", 3, "abc"),  # as Windows ends them
        (b"\xef\xbb\xbft,y\n2024-01-01,abc\n", 2, "abc"),
        ('t,y,z\n2024-01-01,1,"a\nb\nc"\n2024-01-02,abc,d\n', 5, "abc"),  # a value of three lines
        ('t,y,z\n2024-01-01,1,"a,b"\n2024-01-02,abc,d\n', 3, "abc"),  # a quoted comma
        ('t,y\n2024-01-01,"say ""hi"""\n', 2, 'say "hi"'),
        ("t,y\n2024-01-01,0x1f\n", 2, "0x1f"),
        ("t,y\n2024-01-01,1_000\n", 2, "1_000"),  # a number to Python alone
        ("t,y\n2024-01-01,１２\n", 2, "１２"),  # too
        ("t,y\n2024-01-01,1 000\n", 2, "1 000"),
        ("t,z,y\n2024-01-01,x,1\n2024-01-02,x,abc\n", 3, "abc"),  # z is not used
    ],
)
def test_a_value_that_is_no_number_is_named_by_line_and_column(csv, content, place, text):
    assert faults_of(csv(content)) == [("y", f"line {place}, column 'y'", f"{text!r} is no number", 1)]


def test_a_decimal_comma_is_no_number_unless_the_source_says_so(csv):
    said = "'1,5' is no number; set source.decimal=',' if that is a decimal comma"
    assert faults_of(csv('t,y\n2024-01-01,"1,5"\n')) == [("y", "line 2, column 'y'", said, 1)]


def test_a_decimal_point_under_a_decimal_comma_is_no_number(csv):
    source = csv("t;y\n2024-01-01;1,5\n2024-01-02;1.5\n", delimiter=";", decimal=",")
    assert faults_of(source) == [("y", "line 3, column 'y'", "'1.5' is no number", 1)]


def test_bad_numbers_are_named_once_a_series_and_counted(csv):
    text = "t,s,y\n2024-01-01,a,x\n2024-01-02,a,y\n2024-01-01,b,1\n2024-01-02,b,z\n"
    assert faults_of(csv(text, series_id="s")) == [
        ("a", "line 2, column 'y'", "'x' is no number", 2),
        ("b", "line 5, column 'y'", "'z' is no number", 1),
    ]


def test_no_series_with_a_bad_number_is_forgotten_however_many_there_are(csv):
    rows = "".join(f"2024-01-01,s{number},x\n" for number in range(3000))
    found = faults_of(csv("t,s,y\n" + rows, series_id="s"))
    assert [one[0] for one in found] == [f"s{number}" for number in range(3000)]


def test_many_series_without_stamps_are_named_without_reading_the_file_for_each(csv):
    rows = "".join(f"soon,s{number},1\n" for number in range(5000))
    found = faults_of(csv("t,s,y\n" + rows, series_id="s"))
    assert [one[1] for one in found] == [f"line {number + 2}, column 't'" for number in range(5000)]


def test_the_first_of_many_bad_values_is_named_far_into_a_file(csv):
    rows = [f"2024-01-01,{number}" for number in range(50_000)]
    rows[40_000], rows[40_001] = "2024-01-01,abc", "2024-01-01,def"
    source = csv(HEADER + "\n".join(rows) + "\n")
    assert faults_of(source) == [("y", "line 40002, column 'y'", "'abc' is no number", 2)]


# A short row, and one as it comes from a decimal comma.
@pytest.mark.parametrize(("row", "found"), [("2024-01-02", "1 field"), ("2024-01-02,2,3", "3 fields")])
def test_a_row_of_another_length_is_named_by_line(csv, row, found):
    with pytest.raises(Fault, match=rf"sales\.csv line 3 has {found}; the header has 2\. Mend or remove the row"):
        read(csv(f"{HEADER}{ROW}{row}\n{ROW}"))
    with pytest.raises(Fault, match=rf"line 3 has {found}; the header has 2 \(2 such rows\)"):
        read(csv(f"{HEADER}{ROW}{row}\n{row}\n"))


@pytest.mark.parametrize("text", ['t,y\n2024-01-01,"1\n2024-01-02,2\n', 't,y,n\n2024-01-01,1,"a\n2024-01-02,2,b\n'])
def test_an_open_quote_never_swallows_the_rows_after_it(csv, text):
    with pytest.raises(Fault, match=r"sales\.csv .*quote"):
        read(csv(text))


def test_a_quote_within_a_field_is_a_letter(csv):
    assert values_of(csv('t,y,n\n2024-01-01,1,5" pipe\n2024-01-02,2,b\n')) == [1, 2]


@pytest.mark.parametrize("others", ["", "é", "😀"])
def test_a_name_that_is_not_utf8_is_refused(csv, others):
    content = f"t,y,s\n{ROW.strip()},{others}".encode() + b"caf\xe9\n"
    with pytest.raises(Fault, match=r"sales\.csv line 2 is not UTF-8 text\. Set source\.encoding"):
        read(csv(content, series_id="s"))


# Two ways through a file

CELLS = st.one_of(
    st.sampled_from(
        ["", "NA", "1", "0", "TRUE", "false", "+5", " 7 ", "?", "-999", "1e3", ".5", "x", '"', "a,b", "1,5", "nan"]
    ),
    st.floats().map(repr),
    st.text("01.,;eE+- \"'aé\n", max_size=6),
)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(["a", "b", "NA", ""]), CELLS, CELLS), min_size=1, max_size=8), quoted=st.booleans()
)
def test_both_ways_through_a_file_give_equal_tables_where_both_go(rows, quoted):
    sink = io.StringIO()
    style = stdlib_csv.QUOTE_ALL if quoted else stdlib_csv.QUOTE_MINIMAL
    stdlib_csv.writer(sink, lineterminator="\n", quoting=style).writerows(
        [f"2024-01-{at + 1:02}", *row] for at, row in enumerate(rows)
    )
    content = sink.getvalue().encode()
    source = SourceSpec(
        uri="a.csv", timestamp="t", series_id="s", target="y", past_covariates=("x",), missing_markers=("?", "-999")
    )
    file = reading.SourceFile(name="a.csv", path="a.csv", kind="csv", bytes=1, modified=0, header=("t", "s", "y", "x"))
    strict, (patient, faults) = read_strictly(source, file, content), read_row_by_row(source, file, content, 1)
    if strict is None:
        return
    assert faults == []
    assert strict["s"].to_pylist() == patient["s"].to_pylist()
    for name in ("y", "x"):
        one, other = (np.array(table[name].to_pylist(), float) for table in (strict, patient))
        np.testing.assert_array_equal(one, other)


# Series


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({"series_id": "s"}, ["a/b", "NA", "a/b"]),  # whatever stands for no number is a name
        ({"series_id": ("s", "r")}, ["a%2Fb/1", "NA/1", "a%2Fb/50%25"]),
        ({"series_id": ("r", "s")}, ["1/a%2Fb", "1/NA", "50%25/a%2Fb"]),
        ({}, ["y", "y", "y"]),
    ],
)
@pytest.mark.parametrize("value", ["1", "x"])  # x has the rows read one by one
def test_series_are_named_by_one_column_or_several(csv, spec, names, value):
    source = csv(f"t,s,r,y\n2024-01-01,a/b,1,1\n2024-01-01,NA,1,1\n2024-01-02,a/b,50%,{value}\n", **spec)
    found, _, _, faults = read(source)
    assert found == names
    assert [fault.series_id for fault in faults] == ([names[2]] if value == "x" else [])


def test_columns_that_make_one_name_only_when_joined_are_other_series(csv):
    source = csv("t,s,r,q,y\n2024-01-01,a/b,c,d,1\n2024-01-01,a,b/c,d,1\n2024-01-01,a,b,c/d,1\n", series_id=("s", "r", "q"))
    assert read(source)[0] == ["a%2Fb/c/d", "a/b%2Fc/d", "a/b/c%2Fd"]


@pytest.mark.parametrize("text", ["2024-01-01,1,a\n2024-01-01,1,\n", '2024-01-01,1,a\n2024-01-01,x,""\n'])
def test_a_row_without_a_series_is_named(csv, text):
    source = csv("t,y,s\n" + text, series_id="s")
    with pytest.raises(Fault, match=r"sales\.csv line 3: column 's' is empty\. Name the series or remove the row"):
        read(source)


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (pa.array([7, 7, 10]), ["7", "7", "10"]),
        (pa.array([7, 7, 10], pa.uint8()), ["7", "7", "10"]),
        (pa.array(["7", "7", "10"]), ["7", "7", "10"]),
        (pa.array(["7", "7", "10"], pa.large_string()), ["7", "7", "10"]),
        (pa.array(["7", "7", "10"]).dictionary_encode(), ["7", "7", "10"]),
        (pa.array([7, 7, 10]).dictionary_encode(), ["7", "7", "10"]),
        (days(3), ["2024-01-01", "2024-01-02", "2024-01-03"]),
    ],
)
def test_series_are_named_by_text_whatever_the_type_in_parquet(parquet, ids, names):
    assert read(parquet({"t": days(3), "y": [1, 2, 3], "s": ids}, series_id="s"))[0] == names


@pytest.mark.parametrize("ids", [["a", None], ["a", ""], pa.array(["a", None]).dictionary_encode()])
def test_a_parquet_row_without_a_series_is_named(parquet, ids):
    with pytest.raises(Fault, match=r"sales\.parquet row 2: column 's' is empty"):
        read(parquet({"t": days(2), "y": [1, 2], "s": ids}, series_id="s"))


# Parquet


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (pa.array([1, None, 3], pa.int16()), [1, NAN, 3]),
        (pa.array([1, None, 3], pa.uint64()), [1, NAN, 3]),
        (pa.array([1.5, 2.5, None], pa.float32()), [1.5, 2.5, NAN]),
        (pa.array(np.array([1.5, 2.5, 0.25], np.float16)), [1.5, 2.5, 0.25]),
        (pa.array([True, False, None]), [1, 0, NAN]),
        (pa.array(["1.50", "2.25", None]).cast(pa.decimal128(6, 2)), [1.5, 2.25, NAN]),
        (pa.array([4, 5, None]).dictionary_encode(), [4, 5, NAN]),
        (pa.array([2**60, 1, 2], pa.int64()), [2.0**60, 1, 2]),
        (pa.nulls(3), [NAN] * 3),
        (["1", "2.5", None], [1, 2.5, NAN]),  # numbers as text, as the names of folders are
        (pa.array(["TRUE", "", "3"], pa.large_string()), [1, NAN, 3]),
        (pa.array(["1", "2", "1"]).dictionary_encode(), [1, 2, 1]),
    ],
)
def test_numbers_of_any_type_in_parquet_are_read_as_float64(parquet, values, found):
    np.testing.assert_array_equal(values_of(parquet({"t": days(3), "y": values, "z": ["a", "b", "c"]})), found)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["1", "two", "3"], "string"),
        ([[1], [2], [3]], "list"),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "string"),
        (days(3), "date32"),
    ],
)
def test_a_parquet_column_of_another_type_is_refused(parquet, values, shown):
    with pytest.raises(Fault, match=rf"sales\.parquet, column 'y' holds {shown}.*; numbers are needed"):
        read(parquet({"t": days(3), "y": values}))


@pytest.mark.parametrize("index", [["t"], ["s"], ["s", "t"], ["t", "s"], []])
def test_a_data_frame_stored_with_its_index_is_read_like_any_other(parquet, index):
    frame = pd.DataFrame({"s": ["a"] * 4, "t": pd.date_range("2024-01-01", periods=4), "y": [1.0, 2, 3, 4]})
    names, _, values, _ = read(parquet(frame.set_index(index) if index else frame, series_id="s"))
    assert (names, values) == (["a"] * 4, [[1, 2, 3, 4]])


def test_a_parquet_file_of_many_row_groups_is_read_whole(parquet, tmp_path):
    source = parquet({"t": days(1), "y": [0]})
    pq.write_table(pa.table({"t": days(1000), "y": np.arange(1000.0)}), tmp_path / "sales.parquet", row_group_size=7)
    assert values_of(source) == list(range(1000))


def test_a_parquet_file_with_a_flipped_bit_is_refused_where_it_has_checksums(parquet, tmp_path):
    source = parquet({"t": days(1000), "y": np.random.default_rng(0).normal(size=1000)})
    content = bytearray((tmp_path / "sales.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "sales.parquet").write_bytes(content)
    with pytest.raises(Fault, match=r"is no whole Parquet file \(.*(CRC|checksum)"):
        read(source)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_name_of_each_file_names_its_series(csv, parquet, tmp_path, kind):
    spec = {"file_column": "site", "series_id": ("site",)}
    for site in ("north", "south"):
        if kind == "csv":
            source = csv("t,y\n2024-01-01,1\n2024-01-02,2\n", f"in/{site}.csv", **spec)
        else:
            source = parquet({"t": days(2), "y": [1.0, 2.0]}, f"in/{site}.parquet", **spec)
    names, _, values, _ = read(source.model_copy(update={"uri": str(tmp_path / "in")}))
    assert (names, values) == (["north", "north", "south", "south"], [[1, 2, 1, 2]])


# Wide form


def test_each_column_of_a_wide_file_is_a_series(csv):
    source = csv("t,b,w,a\n2024-01-01,1,10,\n2024-01-02,2,20,4\n", wide=("b", "a"), target="load", past_covariates=("w",))
    names, _, (target, covariate), faults = read(source)
    assert (names, faults) == (["b", "b", "a", "a"], [])
    np.testing.assert_array_equal(target, [1, 2, NAN, 4])  # a begins later
    assert covariate == [10, 20, 10, 20]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_glob_names_columns_but_no_stamp_covariate_or_folder(csv, parquet, tmp_path, kind):
    spec = {"wide": ("*",), "target": "load", "future_covariates": ("w", "year")}
    if kind == "csv":
        source = csv("t,b,w,a\n2024-01-01,1,10,3\n", "in/year=2024/x.csv", **spec)
    else:
        source = parquet({"t": days(1), "b": [1], "w": [10], "a": [3]}, "in/year=2024/x.parquet", **spec)
    names, _, values, _ = read(source.model_copy(update={"uri": str(tmp_path / "in")}))
    assert (names, values) == (["b", "a"], [[1, 3], [10, 10], [2024, 2024]])
    bare = source.model_copy(update={"uri": str(tmp_path / "in"), "future_covariates": ("w",)})
    assert read(bare)[0] == ["b", "a"]


def test_a_bad_number_of_a_wide_file_is_its_columns_and_that_of_a_covariate_nobodys(csv):
    source = csv("t,b,a,w\n2024-01-01,1,x,y\n", wide=("b", "a"), target="load", past_covariates=("w",))
    assert faults_of(source) == [
        ("a", "line 2, column 'a'", "'x' is no number", 1),
        (None, "line 2, column 'w'", "'y' is no number", 1),
    ]


def test_a_row_that_the_clock_skipped_is_counted_for_each_series_of_a_wide_file(csv):
    text = "t,b,a\n2024-03-31 01:00,1,10\n2024-03-31 02:00,2,20\n2024-03-31 03:00,3,30\n"
    source = csv(text, wide=("b", "a"), target="load", timezone="Europe/Paris", skipped_hour="drop")
    (chunk,) = take_stock(source, Path("unused"))
    (rows,) = read_piece(source, chunk.pieces[0])
    assert rows.repairs == {(name, "rows of a skipped hour dropped"): 1 for name in ("b", "a")}


def test_a_wide_file_is_made_long_a_part_at_a_time(csv, monkeypatch):
    monkeypatch.setattr(reading, "MELTED", 4)
    text = "t,b,a,w\n" + "".join(f"2024-01-0{day},{day},{-day},{10 * day}\n" for day in range(1, 6)) + "soon,6,6,6\n"
    names, stamps, (target, covariate), faults = read(csv(text, wide=("b", "a"), target="load", past_covariates=("w",)))
    assert names == ["b", "b", "a", "a", "b", "b", "a", "a", "b", "a"]
    assert target == [1, 2, -1, -2, 3, 4, -3, -4, 5, -5]
    assert covariate == [10, 20, 10, 20, 30, 40, 30, 40, 50, 50]
    assert [stamp // 86_400_000_000 - 19_723 for stamp in stamps] == [0, 1, 0, 1, 2, 3, 2, 3, 4, 4]
    assert [(fault.series_id, fault.where, fault.count) for fault in faults] == [(None, "line 7, column 't'", 1)]


# Folders that name columns


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_folder_names_a_series_or_holds_a_covariate(csv, parquet, tmp_path, kind):
    spec = {"series_id": ("site", "s"), "past_covariates": ("level",), "uri": str(tmp_path / "in")}
    for site, level in (("north", 1), ("south%2F2", 2.5)):
        folder = f"in/site={site}/level={level}"
        if kind == "csv":
            source = csv("t,s,y\n2024-01-01,a,1\n2024-01-01,b,2\n", f"{folder}/x.csv", **spec)
        else:
            source = parquet({"t": [19723, 19723], "s": ["a", "b"], "y": [1, 2]}, f"{folder}/x.parquet", **spec)
    if kind == "parquet":
        source = source.model_copy(update={"timestamp_format": "epoch_s"})
    names, _, values, _ = read(source)
    assert names == ["north/a", "north/b", "south%2F2/a", "south%2F2/b"]
    assert values == [[1, 2, 1, 2], [1, 1, 2.5, 2.5]]


# Nothing valid is refused

INSTANTS = st.lists(st.integers(-62_135_000_000, 253_402_000_000), min_size=1, max_size=6, unique=True)  # seconds
SPELLINGS = {
    "iso": (None, lambda at: at.isoformat(sep=" ")),
    "iso T": (None, lambda at: at.isoformat()),
    "zulu": (None, lambda at: at.isoformat() + "Z"),
    "nanoseconds": (None, lambda at: at.isoformat(sep=" ") + ".000000000"),
    "epoch_s": ("epoch_s", lambda at: str(micros_of(at) // 1_000_000)),
    "epoch_ms": ("epoch_ms", lambda at: str(micros_of(at) // 1000)),
    "epoch_us": ("epoch_us", lambda at: str(micros_of(at))),
    "form": ("%d.%m.%Y %H:%M:%S", lambda at: f"{at.day}.{at.month}.{at.year:04} {at.hour}:{at.minute:02}:{at.second:02}"),
    "offset": ("%Y-%m-%dT%H:%M:%S%z", lambda at: at.isoformat() + "+0000"),
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
ZSTD = {".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True)}


def micros_of(at):
    return int((np.datetime64(at, "us") - np.datetime64(0, "us")).astype(np.int64))


@st.composite
def files(draw):
    delimiter, decimal = draw(st.sampled_from([",.", ";.", ";,", "\t.", "\t,", "|.", "|,", " ."]))
    seconds = draw(INSTANTS)
    return {
        "delimiter": delimiter,
        "decimal": decimal,
        "quote": draw(st.sampled_from("\"'")),
        "quoting": draw(st.sampled_from([stdlib_csv.QUOTE_ALL, stdlib_csv.QUOTE_MINIMAL])),
        "encoding": draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-32"])),
        "suffix": draw(st.sampled_from([*PACKERS, *ZSTD])),
        "spelling": draw(st.sampled_from(list(SPELLINGS))),
        "ends": draw(st.sampled_from(["\n", "\r\n"])),
        "wide": draw(st.booleans()),
        "ids": draw(
            st.lists(
                st.sampled_from(["a", "é ü", "a,b;c|d", "it's", 'say "x"', "NA", "7"]), min_size=2, max_size=2, unique=True
            )
        ),
        "seconds": seconds,
        "values": [draw(st.lists(st.floats(allow_nan=False), min_size=len(seconds), max_size=len(seconds))) for _ in range(2)],
    }


@settings(max_examples=250, deadline=None)
@given(file=files())
def test_any_well_formed_file_comes_back_bit_for_bit(file, tmp_path_factory):
    form, spell = SPELLINGS[file["spelling"]]
    stamps = [np.datetime64(second, "s").item() for second in file["seconds"]]
    numbers = [[repr(value).replace(".", file["decimal"]) for value in column] for column in file["values"]]
    one, other = file["ids"]
    spec = {"timestamp": "t", "target": "y", "timestamp_format": form}
    if file["wide"]:
        rows = [["t", one, other], *([spell(at), *pair] for at, pair in zip(stamps, zip(*numbers, strict=True), strict=True))]
        spec["wide"] = (one, other)
    else:
        rows = [
            ["y", "s", "t"],
            *(
                [text, name, spell(at)]
                for name, own in zip(file["ids"], numbers, strict=True)
                for at, text in zip(stamps, own, strict=True)
            ),
        ]
        spec["series_id"] = "s"
    sink = io.StringIO()
    shape = {"delimiter": file["delimiter"], "quotechar": file["quote"], "quoting": file["quoting"]}
    stdlib_csv.writer(sink, lineterminator=file["ends"], **shape).writerows(rows)
    path = tmp_path_factory.mktemp("any") / f"any.csv{file['suffix']}"
    path.write_bytes((PACKERS | ZSTD)[file["suffix"]](sink.getvalue().encode(file["encoding"])))
    dialect = {name: file[name] for name in ("delimiter", "decimal", "quote", "encoding")}
    names, found, (values,), faults = read(SourceSpec(uri=str(path), **spec, **dialect))
    assert faults == []
    assert names == [name for name in (one, other) for _ in stamps]
    assert found == [second * 1_000_000 for second in file["seconds"]] * 2
    assert bits(values) == bits(file["values"][0] + file["values"][1])


# What a source may say


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"past_covariates": ["y"]}, "y"),
        ({"past_covariates": ["x"], "future_covariates": ["x"]}, "x"),
        ({"future_covariates": ["x", "x"]}, "x"),
        ({"series_id": "y"}, "y"),
        ({"series_id": ("s", "s")}, "s"),
        ({"timestamp": "s", "series_id": "s"}, "s"),
        ({"timestamp": ("t", "t")}, "t"),
    ],
)
def test_a_column_with_two_roles_is_refused(spec, named):
    with pytest.raises(ValidationError, match=rf"source names {named} more than once"):
        SourceSpec(**{"uri": "a.csv", "timestamp": "t", "target": "y"} | spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"future_covariates": ["series_id"]},
        {"past_covariates": ["timestamp"]},
        {"future_covariates": ["target"]},
        {"future_covariates": ["observed"]},
        {"future_covariates": ["hour_sin"], "calendar": ["hour"]},
        {"future_covariates": ["holiday"], "holidays": "AU"},
    ],
)
def test_a_covariate_may_not_have_a_name_of_the_canonical_table(spec):
    with pytest.raises(ValidationError, match=r"The covariate '\w+' has a name that the canonical table keeps for itself"):
        SourceSpec(uri="a.csv", timestamp="t", target="y", **spec)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"wide": ("a",), "series_id": "s"}, "Keep one of the two"),
        ({"wide": ("a",), "static_covariates": ("x",)}, "In wide form static covariates come from a second file"),
        ({"static_uri": "b.csv"}, "the series need names"),
        ({"rules": {"z": {"min": 0}}}, "source.rules names 'z'"),
        ({"timestamp_format": "iso"}, "use epoch_s, epoch_ms, epoch_us, or a form"),
        ({"timestamp_format": "epoch_ns"}, "of epochs there are epoch_s, epoch_ms and epoch_us"),
        ({"timestamp_format": "epoch_s", "timestamp": ("d", "t")}, "epoch_s is a number in one column; source.timestamp names"),
        ({"interpolate_limit": 3}, r"interpolate_limit is 3, but nothing is interpolated\. Set source\.gaps or"),
        ({"interpolate_limit": 3, "gaps": "mask", "missing": "drop"}, "but nothing is interpolated"),
        ({"static_uri": "b.csv", "series_id": "s"}, r"of which no column is used\. Set source\.static_covariates"),
        ({"wide": ("a", "t")}, "source.wide names 't', which is a stamp or covariate too"),
        ({"wide": ("a", "f"), "future_covariates": ("f",)}, "source.wide names 'f', which is a stamp or covariate too"),
        ({"wide": ("a", "a*", "a")}, r"source\.wide names a more than once; once is enough"),
        ({"calendar": ("hour", "hour")}, r"source\.calendar names hour more than once; once is enough"),
        ({"decimal": ",", "delimiter": ";", "quote": ","}, r"source\.quote and source\.decimal are both ','\. Set"),
        ({"rules": {"y": {"min": 5, "max": 3.5}}}, r"min 5 is above max 3\.5, so no value keeps to both\. Change one"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(spec, said):
    with pytest.raises(ValidationError, match=said):
        SourceSpec(**{"uri": "a.csv", "timestamp": "t", "target": "y"} | spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"interpolate_limit": 3, "gaps": "interpolate"},
        {"interpolate_limit": 3, "missing": "interpolate"},
        {"wide": ("t*", "a"), "calendar": ("hour", "weekday")},
        {"rules": {"y": {"min": 3, "max": 3, "not_null": True, "max_gap": 2}}},
        {"timestamp": ("d", "t"), "timestamp_format": "%Y %H"},
    ],
)
def test_settings_that_go_together_are_taken(spec):
    SourceSpec(**{"uri": "a.csv", "timestamp": "t", "target": "y"} | spec)


def test_a_csv_called_parquet_is_refused(csv):
    with pytest.raises(Fault, match=r"a\.parquet is text by its first bytes and not Parquet .* Name it \.csv\.$"):
        read(csv(HEADER + ROW, "a.parquet"))


@pytest.mark.parametrize("name", ["sales.csv", "sales.csv.gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_a_parquet_file_called_csv_is_refused(parquet, name, encoding):
    source = parquet({"t": pa.array([1, 2]), "y": pa.array([1.0, 2.0])})
    path = Path(source.uri)
    path.rename(path.parent / name)
    spec = source.model_copy(update={"uri": str(path.parent / name), "encoding": encoding})
    with pytest.raises(Fault, match=r"is Parquet by its first bytes and no CSV as its name says\. Name it \.parquet\.$"):
        read(spec)


def test_a_csv_whose_header_begins_like_a_parquet_file_is_read(csv):
    assert values_of(csv("PAR1,t,y\n1,2024-01-01,3\n")) == [3]


def test_a_parquet_file_without_rows_is_refused(parquet):
    with pytest.raises(Fault, match=r"sales\.parquet has a header and no rows"):
        read(parquet({"t": pa.array([], pa.date32()), "y": pa.array([], pa.float64())}))
