import hashlib
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import Fault
from tasks.ingest.sources import SourceSpec, fingerprint, read_source
from tasks.ingest.task import canonical

HEADER = "t,y\n"
ROW = "2024-01-01,1\n"


@pytest.fixture
def csv(tmp_path):
    """Writes a CSV and returns the source that names it."""

    def write(content, **spec):
        path = tmp_path / "sales.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return SourceSpec(**{"uri": str(path), "timestamp": "t", "target": "y"} | spec)

    return write


@pytest.fixture
def parquet(tmp_path):
    """Writes a Parquet file and returns the source that names it."""

    def write(content, **spec):
        path = tmp_path / "sales.parquet"
        if isinstance(content, pd.DataFrame):
            content.to_parquet(path)
        else:
            pq.write_table(content if isinstance(content, pa.Table) else pa.table(content), path, write_page_checksum=True)
        return SourceSpec(**{"uri": str(path), "timestamp": "t", "target": "y"} | spec)

    return write


def days(count):
    return pa.array(np.arange(count) + 19_723, pa.int32()).cast(pa.date32())


def test_the_fingerprint_is_size_and_sha256_wherever_the_bytes_lie(csv, tmp_path):
    source = csv(HEADER + ROW)
    file = fingerprint(source)
    assert (file.bytes, file.digest) == (17, hashlib.sha256(b"t,y\n2024-01-01,1\n").hexdigest())
    (tmp_path / "sales.csv").rename(tmp_path / "moved.csv")
    moved = source.model_copy(update={"uri": str(tmp_path / "moved.csv")})
    assert fingerprint(moved).cache_identity() == file.cache_identity()
    assert moved.cache_identity() == source.cache_identity()


def test_a_missing_file_is_named_with_the_closest_beside_it(csv):
    source = csv(HEADER + ROW)
    wrong = source.model_copy(update={"uri": source.uri.replace("sales", "sale")})
    with pytest.raises(Fault, match=r"sale\.csv does not exist\. Did you mean sales\.csv\? Set source\.uri to"):
        fingerprint(wrong)


def test_a_missing_folder_is_no_traceback(tmp_path):
    source = SourceSpec(uri=str(tmp_path / "no" / "x.csv"), timestamp="t", target="y")
    with pytest.raises(Fault, match=r"x\.csv does not exist\. Set source\.uri to"):
        fingerprint(source)


def test_an_empty_file_is_refused(csv):
    with pytest.raises(Fault, match=r"sales\.csv is empty \(0 bytes\); it needs a header and rows"):
        fingerprint(csv(""))


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "a.csv").touch()
    with pytest.raises(Fault, match=r" is a folder with 1 entries; source\.uri takes one file"):
        fingerprint(SourceSpec(uri=str(tmp_path), timestamp="t", target="y"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(csv, tmp_path):
    source = csv(HEADER + ROW)
    (tmp_path / "sales.csv").chmod(0)
    with pytest.raises(Fault, match=r"sales\.csv can not be read by this user\. Change its permissions"):
        fingerprint(source)


@pytest.mark.parametrize(("name", "shown"), [("sales.xlsx", ".xlsx"), ("sales", "nothing"), ("sales.csv.gz", ".gz")])
def test_a_file_of_another_kind_is_refused(tmp_path, name, shown):
    (tmp_path / name).write_text(HEADER + ROW)
    with pytest.raises(Fault, match=rf"ends in {shown}; source\.uri takes a \.csv or \.parquet file"):
        read_source(SourceSpec(uri=str(tmp_path / name), timestamp="t", target="y"))


def test_only_the_used_columns_are_read_in_file_order(csv):
    table = read_source(csv("note,y,x,t\nhi,2,20,2024-01-02\nho,1,10,2024-01-01\n", future_covariates=["x"]))
    assert table.to_pydict() == {"t": ["2024-01-02", "2024-01-01"], "y": [2, 1], "x": [20, 10]}


@pytest.mark.parametrize("empty", ["", '""', "NA", "NaN", "nan", "null", "#N/A"])
def test_an_empty_value_is_read_as_absent(csv, empty):
    (value,) = read_source(csv(f"t,y,x\n2024-01-01,{empty},1\n"))["y"].to_pylist()
    assert value is None or value != value


@pytest.mark.parametrize(("text", "value"), [("+5", 5), (" 7 ", 7), ("-1e3", -1000), (".5", 0.5), ('"8"', 8)])
def test_numbers_are_read_as_people_write_them(csv, text, value):
    assert read_source(csv(f"t,y\n2024-01-01,{text}\n"))["y"].to_pylist() == [value]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("t,y\n2024-01-01,1\n2024-01-02,abc\n", "line 3, column 'y': 'abc' is no number"),
        ("t,y\n\n2024-01-01,1\n\n\n2024-01-02,abc\n", "line 6, column 'y': 'abc'"),  # blank lines are lines
        ("t,y\r\n2024-01-01,1\r\n2024-01-02,abc\r\n", "line 3, column 'y': 'abc'"),  # as Windows ends them
        ('t,y,z\n2024-01-01,1,"a\nb\nc"\n2024-01-02,abc,d\n', "line 5, column 'y': 'abc'"),  # a value of three lines
        ('t,y,z\n2024-01-01,1,"a,b"\n2024-01-02,abc,d\n', "line 3, column 'y': 'abc'"),  # a quoted comma
        ('t,y\n2024-01-01,"say ""hi"""\n', "line 2, column 'y': 'say \"hi\"'"),
        ("t,y\n2024-01-01,0x1f\n", "'0x1f'"),
        ("t,y\n2024-01-01,1_000\n", "'1_000'"),  # a number to Python alone
        ("t,y\n2024-01-01,１２\n", "'１２'"),  # too
        ("t,y\n2024-01-01,1 000\n", "'1 000'"),
        ('t,y\n2024-01-01,"1,5"\n', "'1,5'"),  # a decimal comma
        ("t,y\n2024-01-01,true\n", "'true'"),
        ("t,y\n2024-01-01, \n", "' '"),
        ("t,z,y\n2024-01-01,x,1\n2024-01-02,x,abc\n", "line 3, column 'y': 'abc'"),  # z is not used
    ],
)
def test_a_value_that_is_no_number_is_named_by_line_and_column(csv, content, place):
    with pytest.raises(Fault, match=rf"sales\.csv .*{place}.*Mend or empty the value"):
        read_source(csv(content))


def test_the_first_of_many_bad_values_is_named_far_into_a_file(csv):
    rows = [f"2024-01-01,{number}" for number in range(200_000)]
    rows[150_000] = "2024-01-01,abc"
    rows[150_001] = "2024-01-01,def"
    with pytest.raises(Fault, match=r"sales\.csv line 150002, column 'y': 'abc' is no number"):
        read_source(csv(HEADER + "\n".join(rows) + "\n"))


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("2024-01-02", 1),  # short
        ("2024-01-02,2,3", 3),  # long, as from a decimal comma
    ],
)
def test_a_row_of_another_length_is_named_by_line(csv, row, found):
    with pytest.raises(Fault, match=rf"sales\.csv line 3 has {found} fields; the header has 2\. Mend or remove the row"):
        read_source(csv(f"{HEADER}{ROW}{row}\n{ROW}"))


def test_an_open_quote_is_no_traceback(csv):
    with pytest.raises(Fault, match=r"sales\.csv "):
        read_source(csv('t,y\n2024-01-01,"1\n2024-01-02,2\n'))


def test_values_of_several_lines_are_read_in_a_large_file(csv):
    rows = "".join(f'2024-01-01,{number},"first, line\nsecond line\nthird"\n' for number in range(50_000))
    table = read_source(csv("t,y,note\n" + rows))
    assert table["y"].to_pylist() == list(range(50_000))


def test_a_byte_order_mark_is_no_part_of_the_first_column(csv):
    assert read_source(csv(b"\xef\xbb\xbf" + (HEADER + ROW).encode())).to_pydict() == {"t": ["2024-01-01"], "y": [1]}


def test_the_line_of_a_bad_value_is_right_after_a_byte_order_mark(csv):
    with pytest.raises(Fault, match=r"line 2, column 'y': 'abc'"):
        read_source(csv(b"\xef\xbb\xbft,y\n2024-01-01,abc\n"))


@pytest.mark.parametrize(
    "content",
    [
        "t,y,é\n2024-01-01,1,2\n".encode("latin-1"),
        "t,y\n2024-01-01,1\n".encode("utf-16"),
    ],
)
def test_a_file_that_is_not_utf8_is_refused(csv, content):
    with pytest.raises(Fault, match=r"sales\.csv is not UTF-8 text \(byte \d+\)\. Save it as UTF-8 CSV"):
        read_source(csv(content))


def test_a_name_that_is_not_utf8_far_into_a_file_is_refused(csv):
    rows = b"2024-01-01,1,caf\xc3\xa9\n" * 5000 + b"2024-01-01,1,caf\xe9\n"
    with pytest.raises(Fault, match=r"(?i)sales\.csv .*utf-?8"):
        read_source(csv(b"t,y,s\n" + rows, series_id="s"))


@pytest.mark.parametrize("content", ["t,y\n", "t,y", "t,y\r\n", "t,y\n\n\n"])
def test_a_header_without_rows_is_refused(csv, content):
    with pytest.raises(Fault, match=r"sales\.csv has a header and no rows"):
        read_source(csv(content))


def test_blank_lines_before_the_header_do_not_count(csv):
    assert read_source(csv("\n\n" + HEADER + ROW)).to_pydict() == {"t": ["2024-01-01"], "y": [1]}


def test_the_line_of_a_bad_value_counts_blank_lines_before_the_header(csv):
    with pytest.raises(Fault, match=r"line 4, column 'y': 'abc'"):
        read_source(csv("\n\nt,y\n2024-01-01,abc\n"))


@pytest.mark.parametrize(
    ("header", "spec", "message"),
    [
        ("t,demand", {"target": "Demand"}, r"no column 'Demand'; it has t, demand\. Did you mean 'demand'\?"),  # case
        ("t,demand", {"target": "demnad"}, r"no column 'demnad'; it has t, demand\. Did you mean 'demand'\?"),
        ("t,demand", {"target": "xyz"}, r"no column 'xyz'; it has t, demand\.$"),  # nothing near
        ("stamp,y", {}, r"no column 't'; it has stamp, y\."),
        ("t,y", {"series_id": "store"}, r"no column 'store'"),
        ("t,y", {"past_covariates": ["p"]}, r"no column 'p'"),
        ("t,y", {"future_covariates": ["f"]}, r"no column 'f'"),
        ("t,y, x", {"future_covariates": ["x"]}, r"no column 'x'; it has t, y,  x\. Did you mean ' x'\?"),  # a space
        (",".join("abcdefghijklmnop"), {}, r"it has a, b, c, d, e, f, g, h, i, j, k, l and 4 more"),
        ("t,y,y", {}, r"has 2 columns named 'y'; one is needed\. Rename or remove the others"),
        ("t,t,y,t", {}, r"has 3 columns named 't'"),
    ],
)
def test_a_column_that_is_absent_or_there_twice_is_named(csv, header, spec, message):
    with pytest.raises(Fault, match=message):
        read_source(csv(f"{header}\n", **spec))


def test_a_column_that_is_there_twice_and_not_used_does_not_matter(csv):
    assert read_source(csv("t,z,y,z\n2024-01-01,a,1,b\n")).to_pydict() == {"t": ["2024-01-01"], "y": [1]}


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (pa.array([1, None, 3], pa.int16()), [1, None, 3]),
        (pa.array([1.5, 2.5, None], pa.float32()), [1.5, 2.5, None]),
        (pa.array([True, False, None]), [1, 0, None]),
        (pa.array(["1.50", "2.25", None]).cast(pa.decimal128(6, 2)), [1.5, 2.25, None]),
        (pa.array([4, 5, 4]).dictionary_encode(), [4, 5, 4]),
        (pa.array([2**60, 1, 2], pa.int64()), [2.0**60, 1, 2]),
    ],
)
def test_numbers_of_any_type_in_parquet_are_read_as_float64(parquet, values, read):
    table = read_source(parquet({"t": days(3), "y": values, "z": ["a", "b", "c"]}))
    assert table.column_names == ["t", "y"]
    assert (table["y"].type, table["y"].to_pylist()) == (pa.float64(), read)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["1", "2", "3"], "string"),
        ([[1], [2], [3]], "list"),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "string"),
        (days(3), "date32"),
        (pa.nulls(3), "null"),
    ],
)
def test_a_parquet_column_of_another_type_is_refused(parquet, values, shown):
    with pytest.raises(Fault, match=rf"sales\.parquet, column 'y' holds {shown}.*; numbers are needed"):
        read_source(parquet({"t": days(3), "y": values}))


def test_a_parquet_column_that_is_absent_or_there_twice_is_named(parquet):
    with pytest.raises(Fault, match=r"sales\.parquet has no column 'Y'; it has t, y\. Did you mean 'y'\?"):
        read_source(parquet({"t": days(1), "y": [1]}, target="Y"))
    twice = pa.Table.from_arrays([days(1), pa.array([1]), pa.array([2])], names=["t", "y", "y"])
    with pytest.raises(Fault, match=r"sales\.parquet has 2 columns named 'y'"):
        read_source(parquet(twice))


def test_a_parquet_file_without_rows_is_refused(parquet):
    with pytest.raises(Fault, match=r"sales\.parquet has a header and no rows"):
        read_source(parquet({"t": pa.array([], pa.date32()), "y": pa.array([], pa.float64())}))


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_parquet_file_is_refused(parquet, tmp_path, keep):
    source = parquet({"t": days(1000), "y": np.arange(1000.0)})
    content = (tmp_path / "sales.parquet").read_bytes()
    (tmp_path / "sales.parquet").write_bytes(content[: int(keep * len(content))])
    with pytest.raises(Fault, match=r"sales\.parquet is no whole Parquet file \(.+\)\. Write or fetch it again"):
        read_source(source)


def test_a_parquet_file_with_a_flipped_bit_is_refused_where_it_has_checksums(parquet, tmp_path):
    source = parquet({"t": days(1000), "y": np.random.default_rng(0).normal(size=1000)})
    content = bytearray((tmp_path / "sales.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "sales.parquet").write_bytes(content)
    with pytest.raises(Fault, match=r"is no whole Parquet file \(.*(CRC|checksum)"):
        read_source(source)


def test_a_csv_called_parquet_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_text(HEADER + ROW)
    with pytest.raises(Fault, match=r"a\.parquet is no whole Parquet file"):
        read_source(SourceSpec(uri=str(tmp_path / "a.parquet"), timestamp="t", target="y"))


@pytest.mark.parametrize("index", [["t"], ["s"], ["s", "t"], ["t", "s"], []])
def test_a_data_frame_stored_with_its_index_is_read_like_any_other(parquet, index):
    frame = pd.DataFrame({"s": ["a"] * 4, "t": pd.date_range("2024-01-01", periods=4), "y": [1.0, 2, 3, 4]})
    source = parquet(frame.set_index(index) if index else frame, series_id="s", frequency="D")
    table, _ = canonical(source, read_source(source))
    assert table["target"].to_pylist() == [1, 2, 3, 4]
    assert table["series_id"].to_pylist() == ["a"] * 4


@pytest.mark.parametrize("ids", [[7, 7, 10], ["7", "7", "10"], pa.array(["7", "7", "10"]).dictionary_encode()])
def test_series_are_named_by_text_whatever_the_type_in_parquet(parquet, ids):
    source = parquet({"t": days(3), "y": [1, 2, 3], "s": ids}, series_id="s", frequency="D")
    table, facts = canonical(source, read_source(source))
    assert sorted(set(table["series_id"].to_pylist())) == ["10", "7"]
    assert facts["num_series"] == 2


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"past_covariates": ["y"]}, "y"),
        ({"past_covariates": ["x"], "future_covariates": ["x"]}, "x"),
        ({"future_covariates": ["x", "x"]}, "x"),
        ({"future_covariates": ["hour_sin"], "calendar": ["hour"]}, "hour_sin"),
        ({"series_id": "y"}, "y"),
        ({"timestamp": "s", "series_id": "s"}, "s"),
    ],
)
def test_a_column_with_two_roles_is_refused(parquet, csv, spec, named):
    columns = {"t": ["2024-01-01"] * 3, "y": [1, 2, 3], "x": [1, 2, 3], "hour_sin": [1, 2, 3], "s": ["2024-01-01"] * 3}
    text = pd.DataFrame(columns).to_csv(index=False)
    for source in (parquet(columns, frequency="D", **spec), csv(text, frequency="D", **spec)):
        with pytest.raises(Fault, match=rf"source names {named} more than once"):
            canonical(source, read_source(source))


@pytest.mark.parametrize("name", ["series_id", "timestamp", "target"])
def test_a_covariate_may_not_have_a_name_of_the_canonical_table(csv, name):
    source = csv(f"t,y,{name}\n2024-01-01,1,2\n", future_covariates=[name], frequency="D")
    with pytest.raises(Fault, match=rf"The covariate '{name}' has a name that the canonical table keeps for itself"):
        canonical(source, read_source(source))


def test_a_row_without_a_series_is_named(csv):
    source = csv("t,y,s\n2024-01-01,1,a\n2024-01-01,1,\n", series_id="s", frequency="D")
    with pytest.raises(Fault, match=r"sales\.csv data row 2: column 's' is empty\. Name the series or remove the row"):
        canonical(source, read_source(source))
