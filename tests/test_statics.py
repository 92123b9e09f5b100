import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import Fault
from tasks.ingest import statics as reading
from tasks.ingest.sources import SourceSpec
from tasks.ingest.statics import MOST_WORDS, Statics


def read_statics(source, channels=None):
    """From a file that lies here."""
    return reading.read_statics(source, Path("no downloads"), channels)


@pytest.fixture
def stores(tmp_path):
    """Writes a second file and returns the source that names it."""

    def write(content, name="stores.csv", **spec):
        path = tmp_path / name
        if isinstance(content, dict | pa.Table):
            pq.write_table(content if isinstance(content, pa.Table) else pa.table(content), path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        usual = {"uri": "sales.csv", "timestamp": "t", "target": "y", "series_id": "store", "static_uri": str(path)}
        return SourceSpec(**usual | {"static_covariates": ["size", "kind"]} | spec)

    return write


def test_numbers_are_kept_and_words_become_a_channel_each(stores):
    statics = read_statics(stores("store,note,kind,size\nb,x,town,2.5\na,y,city,1e3\nc,z,town,-3\n"))
    assert statics.channels == ("size", "kind=city", "kind=town")
    assert statics.values == {"b": (2.5, 0, 1), "a": (1000, 1, 0), "c": (-3, 0, 1)}


def test_parquet_says_the_same_as_csv(stores):
    ids = pa.array(["b", "a"]).dictionary_encode()
    columns = {"size": pa.array([2.5, 1000]), "store": ids, "kind": pa.array(["town", "city"]).dictionary_encode()}
    assert read_statics(stores(columns, "stores.parquet")) == read_statics(stores("store,size,kind\nb,2.5,town\na,1e3,city\n"))


def test_without_a_second_file_there_are_no_channels():
    assert read_statics(SourceSpec(uri="a.csv", timestamp="t", target="y")) == Statics()
    rows = np.ones((2, 3))
    assert Statics().append("a", rows) is rows


def test_values_stand_after_the_other_channels_in_every_row():
    statics = Statics(channels=("size",), values={"a": (7.0,)})
    assert statics.append("a", np.array([[1.0, 2.0], [3.0, 4.0]])).tolist() == [[1, 2, 7], [3, 4, 7]]


def test_a_series_without_a_row_is_named(stores):
    statics = read_statics(stores("store,size,kind\na,1,x\n"))
    with pytest.raises(Fault, match=r"source\.static_uri has no row for series b\. Add one, or remove the series"):
        statics.append("b", np.ones((2, 1)))


def test_some_series_have_a_digest_of_their_own(stores):
    first = read_statics(stores("store,size,kind\na,1,x\nb,2,y\n"))
    second = read_statics(stores("store,size,kind\nb,3,y\na,1,x\n"))
    assert first.only(["a"]).cache_identity() == second.only(["a", "nobody"]).cache_identity()
    assert first.cache_identity() != second.cache_identity()
    assert first.only(["b"]).values == {"b": (2, 0, 1)}


@pytest.mark.parametrize("text", ["store,size,kind\na,1,x\nb,2,y\na,3,z\n", "store,size,kind\na,1,x\na,1,x\n"])
def test_two_rows_for_a_series_are_refused(stores, text):
    with pytest.raises(Fault, match=r"stores\.csv has 2 rows for series a; one is needed\. Remove the others"):
        read_statics(stores(text))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("store,size", r"has no column 'kind'; it has store, size\.$"),
        ("shop,size,kind", r"has no column 'store'; it has shop, size, kind\.$"),
        ("store,size,kind,size", r"has 2 columns named 'size'; one is needed; it has store, size, kind, size\.$"),
    ],
)
def test_a_column_that_is_absent_or_there_twice_is_named(stores, header, message):
    with pytest.raises(Fault, match=r"stores\.csv " + message):
        read_statics(stores(f"{header}\n" + ",".join("1" for _ in header.split(",")) + "\n"))


def test_a_column_that_is_absent_in_parquet_is_named(stores):
    with pytest.raises(Fault, match=r"stores\.parquet has no column 'kind'; it has store, size\.$"):
        read_statics(stores({"store": ["a"], "size": [1]}, "stores.parquet"))


@pytest.mark.parametrize("empty", ["", "NA", "NaN", "?", " "])
@pytest.mark.parametrize("column", ["size", "kind"])
def test_an_empty_value_is_named(stores, empty, column):
    cells = {"size": "1", "kind": "x"} | {column: empty}
    with pytest.raises(
        Fault, match=rf"stores\.csv, column '{column}': series b has no value\. Fill it or leave the column out"
    ):
        read_statics(stores(f"store,size,kind\na,2,y\nb,{cells['size']},{cells['kind']}\n", missing_markers=["?"]))


@pytest.mark.parametrize("value", [None, float("nan")])
def test_an_empty_value_in_parquet_is_named(stores, value):
    with pytest.raises(Fault, match=r"column 'size': series b has no value"):
        read_statics(stores({"store": ["a", "b"], "size": [1.0, value], "kind": ["x", "y"]}, "stores.parquet"))


def test_an_infinite_value_is_refused(stores):
    with pytest.raises(Fault, match=r"column 'size': a value is infinite"):
        read_statics(stores("store,size,kind\na,inf,x\n"))


def test_several_columns_name_a_series_as_they_do_in_the_source(stores):
    source = stores("city,shop,size\nBonn,1,5\nBonn,2/3,6\n", series_id=["city", "shop"], static_covariates=["size"])
    assert read_statics(source).values == {"Bonn/1": (5,), "Bonn/2%2F3": (6,)}


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (pa.array([7, 10]), ["7", "10"]),
        (pa.array([7, None], pa.int64()), ["7", ""]),  # stays a whole number beside an empty one
        (pa.array([19_723, 19_724], pa.date32()), ["2024-01-01", "2024-01-02"]),
    ],
)
def test_ids_of_any_type_are_written_as_in_the_source(stores, ids, names):
    source = stores({"store": ids, "size": [1, 2]}, "stores.parquet", static_covariates=["size"])
    assert list(read_statics(source).values) == names


def test_ids_of_a_csv_are_text_as_it_stands(stores):
    assert list(read_statics(stores("store,size,kind\n007,1,x\nNA,2,y\n7.0,3,z\n")).values) == ["007", "NA", "7.0"]


def test_series_of_a_wide_source_are_named_by_series_id(stores):
    source = stores("series_id,size\nnorth,1\n", series_id=None, wide=["north"], static_covariates=["size"])
    assert read_statics(source).values == {"north": (1,)}


def test_the_dialect_is_that_of_the_source(stores):
    text = "\ufeffstore;size;kind\n'a;b';1,5;groß\n".encode()
    source = stores(text, delimiter=";", decimal=",", quote="'")
    assert read_statics(source).values == {"a;b": (1.5, 1)}
    latin = "store,size,kind\na,1,groß\n".encode("latin-1")
    assert read_statics(stores(latin, encoding="latin-1")).channels == ("size", "kind=groß")
    assert read_statics(stores(gzip.compress(b"store,size,kind\na,1,x\n"), "stores.csv.gz")).values == {"a": (1, 1)}


def test_numbers_of_parquet_have_no_decimal_comma(stores):
    columns = {"store": ["a"], "size": [1.5], "kind": ["x"]}
    assert read_statics(stores(columns, "stores.parquet", decimal=",", delimiter=";")).values == {"a": (1.5, 1)}


@pytest.mark.parametrize("words", [("TRUE", "FALSE"), ("1", "0"), ("true", "False")])
def test_yes_and_no_are_one_channel(stores, words):
    source = stores("store,size\na,{}\nb,{}\n".format(*words), static_covariates=["size"])
    assert read_statics(source).values == {"a": (1,), "b": (0,)}


def test_too_many_words_are_refused(stores):
    rows = "".join(f"{number},1,word{number}\n" for number in range(MOST_WORDS + 1))
    with pytest.raises(Fault, match=r"column 'kind' has 51 different words; 50 are the most that get a channel each"):
        read_statics(stores(f"store,size,kind\n{rows}"))


# With the channels of a model that was trained before

KNOWN = ("size", "kind=city", "kind=town")


def test_a_word_the_model_has_not_seen_is_none_of_those_it_has(stores):
    statics = read_statics(stores("store,size,kind\na,1,town\nb,2,hamlet\n"), KNOWN)
    assert (statics.channels, statics.values) == (KNOWN, {"a": (1, 0, 1), "b": (2, 0, 0)})


def test_the_channels_of_a_model_stay_when_words_are_no_longer_there(stores):
    assert read_statics(stores("store,size,kind\na,1,town\n"), KNOWN).values == {"a": (1, 0, 1)}


def test_words_that_are_numbers_stay_words(stores):
    known = ("size", "kind=3", "kind=x")
    assert read_statics(stores("store,size,kind\na,1,3\n"), known).values == {"a": (1, 1, 0)}


def test_a_number_that_became_a_word_is_refused(stores):
    with pytest.raises(Fault, match=r"column 'size': series b has '12a'; its model learnt numbers\. Mend the value"):
        read_statics(stores("store,size,kind\na,1,town\nb,12a,town\n"), KNOWN)


def test_a_model_without_statics_takes_none(stores):
    source = stores("store,size\na,1\n").model_copy(update={"static_covariates": ()})
    assert read_statics(source, ()) == Statics()


# Files that are not as they have to be


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"a\.csv is empty; it needs a header"),
        ("a.csv", "\n\n", r"a\.csv is empty; it needs a header"),
        ("a.csv", "store,size,kind\na,1\n", r"a\.csv line 2 has 2 fields; the header has 3\. Mend or remove the row"),
        ("a.csv", "store,size,kind\na,1,\xe9\n".encode("latin-1"), r"a\.csv is no CSV or Parquet file that can be read"),
        ("a.csv.gz", gzip.compress(b"store,size,kind\na,1,x\n", mtime=0)[:-4], r"a\.csv\.gz is no whole gzip file"),
        ("a.csv.zst", "store,size,kind\n", r"a\.csv\.zst is no whole zstd file"),
        ("a.parquet", "store,size,kind\n", r"a\.parquet is no CSV or Parquet file that can be read"),
    ],
)
def test_a_file_that_can_not_be_read_is_no_traceback(stores, name, content, message):
    with pytest.raises(Fault, match=message):
        read_statics(stores(content, name))


def test_a_file_that_is_not_there_is_named(stores, tmp_path):
    source = stores("").model_copy(update={"static_uri": str(tmp_path / "no.csv")})
    with pytest.raises(Fault, match=r"no\.csv does not exist\. Set source\.static_uri to"):
        read_statics(source)


def test_a_file_without_rows_has_no_series(stores):
    statics = read_statics(stores("store,size,kind\n"), KNOWN)
    assert (statics.channels, statics.values) == (KNOWN, {})
