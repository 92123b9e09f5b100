import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.errors import Fault
from tasks.ingest import chunks, files
from tasks.ingest.chunks import cut_csv, cut_rows, take_stock
from tasks.ingest.files import check_unchanged, describe_file
from tasks.ingest.quotes import ends_open, ends_open_exactly
from tasks.ingest.sources import SourceSpec
from tasks.ingest.streams import open_text

HEADER = "t,y\n"
ROW = "2024-01-01,1\n"


def make_source(uri, **spec):
    return SourceSpec(**{"uri": uri if isinstance(uri, tuple) else str(uri), "timestamp": "t", "target": "y"} | spec)


def write(path, content=HEADER + ROW):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def stock(uri, **spec):
    return take_stock(make_source(uri, **spec), Path("unused"))


def names(chunks):
    return [Path(piece.file.path).name for chunk in chunks for piece in chunk.pieces]


def digests(uri, **spec):
    return [chunk.digest for chunk in stock(uri, **spec)]


def text_of(path, encoding="utf-8"):
    with open_text(describe_file(make_source(path, encoding=encoding), str(path), path, ()), encoding) as stream:
        return stream.read()


def to_zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": to_zstd}


# Which files


def test_one_file_is_one_piece_below_its_header(tmp_path):
    (chunk,) = stock(write(tmp_path / "a.csv"))
    (piece,) = chunk.pieces
    assert (piece.start, piece.end, piece.line, piece.whole) == (4, 17, 2, False)
    assert (piece.file.name, piece.file.header, chunk.bytes) == (str(tmp_path / "a.csv"), ("t", "y"), 13)


def test_a_list_keeps_its_order_and_names_each_file_once(tmp_path):
    b, a = write(tmp_path / "b.csv"), write(tmp_path / "a.csv")
    assert names(stock((str(b), str(a), str(b), str(tmp_path / "*.csv")))) == ["b.csv", "a.csv"]


def test_two_ways_to_write_one_path_are_one_file(tmp_path, monkeypatch):
    write(tmp_path / "a.csv")
    (tmp_path / "link.csv").symlink_to("a.csv")
    monkeypatch.chdir(tmp_path)
    assert names(stock(("a.csv", "./a.csv", str(tmp_path / "a.csv"), "link.csv"))) == ["a.csv"]


def test_a_glob_takes_files_in_the_order_of_names(tmp_path):
    for name in ("b.csv", "a.csv", "c.tsv", ".hidden.csv", "deep/d.csv"):
        write(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    assert names(stock(tmp_path / "*.csv")) == ["a.csv", "b.csv"]
    assert names(stock(tmp_path / "**" / "*.csv")) == ["a.csv", "b.csv", "d.csv"]


def test_a_path_with_the_letters_of_a_glob_is_that_file(tmp_path):
    assert names(stock(write(tmp_path / "sales[1].csv"))) == ["sales[1].csv"]


def test_a_folder_takes_every_file_below_it_but_hidden_ones(tmp_path):
    seen = ["a.csv", "deep/b.tsv", "deep/er/c.txt", "d.csv.gz"]
    hidden = [".a.csv", "_SUCCESS.csv", ".git/b.csv", "_temporary/c.csv", "deep/.x/d.csv", "notes.md", "sales.xlsx"]
    for name in [*seen, *hidden]:
        write(tmp_path / name, gzip.compress((HEADER + ROW).encode()) if name.endswith("gz") else HEADER + ROW)
    assert names(stock(tmp_path)) == ["a.csv", "d.csv.gz", "b.tsv", "c.txt"]


def test_a_folder_below_a_hidden_one_is_seen_when_it_is_named(tmp_path):
    write(tmp_path / ".data" / "_raw" / "a.csv")
    assert names(stock(tmp_path / ".data" / "_raw")) == ["a.csv"]


def test_folders_are_followed_through_links_and_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere" / "b.csv")
    write(tmp_path / "data" / "a.csv")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "circle").symlink_to(tmp_path / "data")
    assert names(stock(tmp_path / "data")) == ["a.csv", "b.csv"]


def test_hive_folders_become_columns(tmp_path):
    for folder in ("year=2014/site=north", "year=2014/site=s%C3%BCd%2F2", "year=2015/site=__HIVE_DEFAULT_PARTITION__"):
        write(tmp_path / folder / "part.csv")
    for uri in (tmp_path, tmp_path / "*" / "*" / "*.csv", tuple(str(one) for one in sorted(tmp_path.rglob("*.csv")))):
        (chunk,) = stock(uri, series_id="site", past_covariates=["year"])
        assert [dict(piece.file.partitions) for piece in chunk.pieces] == [
            {"year": "2014", "site": "north"},
            {"year": "2014", "site": "süd/2"},
            {"year": "2015", "site": ""},
        ]


def test_hive_folders_that_no_setting_names_do_not_count(tmp_path):
    plain, hive = write(tmp_path / "a.csv"), write(tmp_path / "run=7" / "a.csv")
    assert stock(hive)[0].pieces[0].file.partitions == ()
    assert digests(plain) == digests(hive)


def test_a_column_of_the_file_counts_before_one_of_its_folder(tmp_path):
    path = write(tmp_path / "site=north" / "a.csv", "t,y,site\n2024-01-01,1,south\n")
    assert stock(path, series_id="site")[0].pieces[0].file.header == ("t", "y", "site")


def test_the_name_of_each_file_can_be_a_column(tmp_path):
    for name in ("a/north.csv", "b/süd 2.v3.csv.gz", "c/site=9/west.TXT"):
        content = b"t,y\n2024-01-01,1\n"
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    (chunk,) = stock(tmp_path, file_column="house", series_id="house")
    assert [dict(piece.file.partitions)["house"] for piece in chunk.pieces] == ["north", "süd 2.v3", "west"]
    assert digests(tmp_path, file_column="house", series_id="house") != digests(tmp_path / "a" / "north.csv")


def test_a_column_with_the_name_of_each_file_is_the_only_one_of_its_name_and_names_series(tmp_path):
    path = write(tmp_path / "a.csv", "t,y,house\n2024-01-01,1,south\n")
    with pytest.raises(Fault, match=r"file_column is 'house', and .*a\.csv has a column of that name\. Give it another"):
        stock(path, file_column="house", series_id="house")
    with pytest.raises(ValidationError, match=r"file_column is 'file', and series_id does not name it\. Set source\.series_id"):
        stock(path, file_column="file", series_id="house")


def test_hive_folders_are_no_series_of_a_wide_file(tmp_path):
    write(tmp_path / "y=1" / "a.csv", "t,note\n2024-01-01,1\n")
    with pytest.raises(Fault, match=r"a\.csv has no column that source\.wide y\* names; it has t, note"):
        stock(tmp_path, wide=("y*",), target="load")


# Which are refused


def test_a_missing_file_is_named_with_the_closest_beside_it(tmp_path):
    write(tmp_path / "sales.csv")
    with pytest.raises(Fault, match=r"sale\.csv does not exist\. Did you mean sales\.csv\? Set source\.uri to"):
        stock(tmp_path / "sale.csv")


@pytest.mark.parametrize("uri", ["no/x.csv", "x" * 300 + ".csv"])
def test_a_path_that_leads_nowhere_is_no_traceback(tmp_path, uri):
    with pytest.raises(Fault, match=r"x\.csv (does not exist\. Set source\.uri to|can not be looked at)"):
        stock(tmp_path / uri)


def test_a_glob_and_a_folder_without_files_are_refused(tmp_path):
    with pytest.raises(Fault, match=r"No file matches .*\*\.csv\. Name another source\.uri"):
        stock(tmp_path / "*.csv")
    write(tmp_path / "notes.md")
    with pytest.raises(Fault, match=r" is a folder without any \.csv or \.parquet file\. Put one there"):
        stock(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(Fault, match=r"sales\.csv is empty \(0 bytes\); it needs a header and rows"):
        stock(write(tmp_path / "sales.csv", ""))


@pytest.mark.parametrize(("name", "shown"), [("a.xlsx", ".xlsx"), ("a", "nothing"), ("a.gz", ".gz"), ("a.json.gz", ".gz")])
def test_a_file_of_another_kind_is_refused(tmp_path, name, shown):
    with pytest.raises(
        Fault, match=rf"ends in {shown}; source\.uri takes \.csv \(also \.gz, \.bz2, \.xz, \.zst\) and \.parquet"
    ):
        stock(write(tmp_path / name))


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(Fault, match=r"a\.csv is no regular file"):
        stock(tmp_path / "a.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_this_user_may_not_read_is_refused(tmp_path):
    write(tmp_path / "sales.csv").chmod(0)
    with pytest.raises(Fault, match=r"sales\.csv can not be read by this user\. Change its permissions"):
        stock(tmp_path / "sales.csv")
    write(tmp_path / "data" / "deep" / "a.csv")
    (tmp_path / "data" / "deep").chmod(0)
    with pytest.raises(Fault, match=r"deep can not be looked at"):
        stock(tmp_path / "data")
    (tmp_path / "data" / "deep").chmod(0o700)


def test_a_file_that_changed_during_a_run_is_refused(tmp_path):
    path = write(tmp_path / "a.csv")
    file = stock(path)[0].pieces[0].file
    check_unchanged(file)
    os.utime(path, ns=(file.modified + 1, file.modified + 1))
    with pytest.raises(Fault, match=r"a\.csv changed while it was being read\. Run again once it is written"):
        check_unchanged(file)
    write(path, HEADER + ROW + ROW)
    os.utime(path, ns=(file.modified, file.modified))
    with pytest.raises(Fault, match=r"a\.csv changed while it was being read"):
        check_unchanged(file)
    path.unlink()
    with pytest.raises(Fault, match=r"a\.csv was removed while it was being read"):
        check_unchanged(file)


def test_a_file_that_changes_while_stock_is_taken_is_refused(tmp_path, monkeypatch):
    path, cut = write(tmp_path / "a.csv"), chunks.cut_pieces

    def cut_and_append(source, file):
        yield from cut(source, file)
        write(path, HEADER + ROW + ROW)

    monkeypatch.setattr(chunks, "cut_pieces", cut_and_append)
    with pytest.raises(Fault, match=r"a\.csv changed while it was being read"):
        stock(path)


# Headers


@pytest.mark.parametrize(
    ("content", "header", "line"),
    [
        ("t,y\n1,2\n", ("t", "y"), 2),
        ("t,y\r\n1,2\r\n", ("t", "y"), 2),
        ("\n\r\n  \nt,y\n1,2\n", ("t", "y"), 5),  # blank lines before it
        ('t,"y"\n1,2\n', ("t", "y"), 2),
        ('t,y,"a\nb"\n1,2,3\n', ("t", "y", "a\nb"), 3),  # a line break within a name
        ('t,y,"say ""hi"""\n1,2,3\n', ("t", "y", 'say "hi"'), 2),
        ('t,y,rain 5"\n1,2,3\n', ("t", "y", 'rain 5"'), 2),  # an inch within a name
        ("t,y,z,z\n1,2,3,4\n", ("t", "y", "z", "z"), 2),  # z is not used
        ("\ufefft,y\n1,2\n", ("t", "y"), 2),
        ('\ufeff"t",y\n1,2\n', ("t", "y"), 2),
    ],
)
def test_a_header_is_what_its_writer_meant(tmp_path, content, header, line):
    path = write(tmp_path / "a.csv", content)
    (piece,) = stock(path)[0].pieces
    assert (piece.file.header, piece.line) == (header, line)
    assert path.read_bytes()[piece.start : piece.end] == content.encode().splitlines(keepends=True)[-1]


@pytest.mark.parametrize("content", ["t,y\n", "t,y", "t,y\r\n", "\n\nt,y\n"])
def test_a_header_without_rows_is_refused(tmp_path, content):
    with pytest.raises(Fault, match=r"sales\.csv has a header and no rows\.$"):
        stock(write(tmp_path / "sales.csv", content))


def test_a_file_without_rows_among_others_is_passed_over(tmp_path):
    write(tmp_path / "a.csv", HEADER)
    pq.write_table(pa.table({"t": pa.array([], pa.string()), "y": pa.array([], pa.int64())}), tmp_path / "b.parquet")
    with pytest.raises(Fault, match=r"a\.csv has a header and no rows, and so do the other 1 files"):
        stock(tmp_path)
    write(tmp_path / "c.csv")
    assert names(stock(tmp_path)) == ["c.csv"]


@pytest.mark.parametrize("content", ["\n", "\n \n\r\n", "\ufeff\n"])
def test_blank_lines_alone_are_refused(tmp_path, content):
    with pytest.raises(Fault, match=r"a\.csv has no header; it holds blank lines only"):
        stock(write(tmp_path / "a.csv", content))


def test_lines_that_end_with_a_carriage_return_alone_are_refused(tmp_path):
    with pytest.raises(Fault, match=r"a\.csv has a header that can not be taken apart \(its lines end with a carriage return"):
        stock(write(tmp_path / "a.csv", "t,y\r2024-01-01,1\r"))


def test_a_header_that_never_ends_is_not_read_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST", 1 << 20)
    with pytest.raises(Fault, match=r"a\.csv has a row of more than 1 MB; quotes may not be closed"):
        stock(write(tmp_path / "a.csv", 't,"y\n' + "2024-01-01,1\n" * 200_000))


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
        ("t;y", {}, r"has one column, 't;y'; it seems to be separated by ';'\. Set source\.delimiter=';'"),
    ],
)
def test_a_column_that_is_absent_or_there_twice_is_named(tmp_path, header, spec, message):
    with pytest.raises(Fault, match=message):
        stock(write(tmp_path / "a.csv", f"{header}\n"), **spec)


def test_a_file_of_3000_columns_may_be_read_for_three(tmp_path):
    columns = [f"c{number}" for number in range(2997)]
    path = write(tmp_path / "a.csv", ",".join(["t", "y", "x", *columns]) + "\n" + "1," * 2999 + "1\n")
    (piece,) = stock(path, past_covariates=["x"])[0].pieces
    assert len(piece.file.header) == 3000
    with pytest.raises(Fault, match=r"no column 'z'; it has t, y, x, c0, .* and 2988 more"):
        stock(path, past_covariates=["z"])


# Encodings and compression


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "cp1252", "utf-8-sig", "shift_jis"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_text_of_any_encoding_is_read_as_utf8(tmp_path, encoding, ending):
    text = "t,y,ÿ\n2024-01-01,1,é\n".replace("\n", ending)
    text = text if encoding != "shift_jis" else text.replace("ÿ", "日").replace("é", "本")
    path = write(tmp_path / "a.csv", text.encode(encoding))
    (piece,) = stock(path, encoding=encoding)[0].pieces
    assert piece.file.header == ("t", "y", text.split(ending)[0].split(",")[2])
    assert text_of(path, encoding) == text.encode()
    if not piece.whole:
        assert path.read_bytes()[piece.start : piece.end].decode(encoding) == text.split(ending)[1] + ending


@pytest.mark.parametrize("content", ["t,y,é\n2024-01-01,1,2\n".encode("latin-1"), "t,y\n2024-01-01,1\n".encode("utf-16")])
def test_a_header_that_is_not_utf8_is_refused(tmp_path, content):
    with pytest.raises(Fault, match=r"sales\.csv is not UTF-8 text \(byte \d+\)\. Set source\.encoding, as latin-1 or utf-16"):
        stock(write(tmp_path / "sales.csv", content))


def test_the_byte_that_is_of_another_encoding_is_named_far_into_a_file(tmp_path):
    path = write(tmp_path / "a.csv", HEADER.encode("utf-16") + (ROW * 100_000).encode("utf-16-le") + b"\x00\xd8\n\x00")
    with pytest.raises(Fault, match=r"a\.csv is not UTF-16 text \(byte 2600010\)"):
        text_of(path, "utf-16")


def test_an_encoding_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(Fault, match=r"source\.encoding 'utf-9' is none that Python knows"):
        stock(write(tmp_path / "a.csv"), encoding="utf-9")


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_compressed_file_is_read_whole(tmp_path, suffix):
    text = b"\xef\xbb\xbf" + (HEADER + ROW * 50_000).encode()
    path = write(tmp_path / f"a.csv.{suffix}", PACKERS[suffix](text))
    (piece,) = stock(path)[0].pieces
    assert (piece.whole, piece.start, piece.end, piece.file.header) == (True, 0, path.stat().st_size, ("t", "y"))
    assert text_of(path) == text[3:]


@pytest.mark.parametrize("suffix", PACKERS)
def test_streams_in_a_row_are_one_file(tmp_path, suffix):
    pack = PACKERS[suffix]
    assert text_of(write(tmp_path / f"a.csv.{suffix}", pack(HEADER.encode()) + pack(ROW.encode()))) == (HEADER + ROW).encode()


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("keep", [1, 5, 0.1, 0.5, 0.9, -1, -4])
def test_a_truncated_compressed_file_is_refused(tmp_path, suffix, keep):
    rows = "".join(f"2024-01-01,{number**3 % 9973}\n" for number in range(50_000))
    content = PACKERS[suffix]((HEADER + rows).encode())
    content = content[: int(keep * len(content)) if isinstance(keep, float) else keep]
    with pytest.raises(Fault, match=rf"a\.csv\.{suffix} is no whole (gzip|bz2|xz|zstd) file \(.+\)\. Write or fetch it again"):
        text_of(write(tmp_path / f"a.csv.{suffix}", content))


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_second_stream_that_is_damaged_is_refused(tmp_path, suffix):
    first, second = (PACKERS[suffix](text.encode()) for text in (HEADER, ROW))
    with pytest.raises(Fault, match=r"is no whole \w+ file"):
        text_of(write(tmp_path / f"a.csv.{suffix}", first + b"??" + second[2:]))


@pytest.mark.parametrize("suffix", [*PACKERS, "parquet"])
def test_a_plain_file_with_the_name_of_another_kind_is_refused(tmp_path, suffix):
    with pytest.raises(Fault, match=r"a.* is (no whole \w+ file|text by its first bytes and not Parquet)"):
        stock(write(tmp_path / f"a.csv.{suffix}"))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(PACKERS)), st.data())
def test_a_flipped_bit_in_a_compressed_file_is_a_fault_or_changes_nothing_unseen(tmp_path_factory, suffix, data):
    text = (HEADER + "".join(f"2024-01-01,{number}\n" for number in range(200))).encode()
    content = bytearray(PACKERS[suffix](text))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = write(tmp_path_factory.mktemp("flip") / f"a.csv.{suffix}", bytes(content))
    try:
        read = text_of(path)
    except Fault:
        return
    assert suffix == "zst" or read == text  # Arrow writes zstd without checksums


# Pieces


def pieces_of(path, **spec):
    source = make_source(path, **spec)
    return list(cut_csv(source, describe_file(source, str(path), path, ())))


def test_pieces_are_cut_at_the_ends_of_rows_and_know_their_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 10)
    path = write(tmp_path / "a.csv", 'u,t,y\n1,"a\nb",2\n3,c,4\n5,"d\n\ne",6\n7,8,9\n')
    pieces = [(line, content) for _, line, content in pieces_of(path)]
    assert pieces == [(2, b'1,"a\nb",2\n'), (4, b'3,c,4\n5,"d\n\ne",6\n'), (8, b"7,8,9\n")]


def test_a_quote_within_a_field_opens_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 8)
    path = write(tmp_path / "a.csv", 't,y,n\n1,2,5" pipe\n1,2,"a\nb"\n1,2,"c\nd"\n')
    assert [content for _, _, content in pieces_of(path)] == [b'1,2,5" pipe\n', b'1,2,"a\nb"\n', b'1,2,"c\nd"\n']


@pytest.mark.parametrize("chunk", [8, 1 << 20])
def test_a_file_that_ends_between_quotes_is_refused(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(chunks, "CHUNK", chunk)
    with pytest.raises(Fault, match=r"a\.csv ends between quotes\. Fetch it again if it is cut short"):
        stock(write(tmp_path / "a.csv", 't,y,n\n1,2,"a\n1,2,b\n'))


def test_quotes_that_are_never_closed_do_not_take_the_file_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 1000)
    for module in (chunks, files):
        monkeypatch.setattr(module, "LONGEST", 1 << 20)
    with pytest.raises(Fault, match=r"a\.csv has a row of more than 1 MB"):
        stock(write(tmp_path / "a.csv", 't,y,n\n1,2,"a\n' + "1,2,b\n" * 400_000))
    with pytest.raises(Fault, match=r"a\.csv has a row of more than 1 MB"):
        stock(write(tmp_path / "a.csv", "t,y,n\n1,2," + "x" * (3 << 20)))


cells = st.one_of(
    st.sampled_from(["", "1", '"a\nb"', '"a""b"', '""', '"\r\n"', '5" pipe', 'a""b', '"a"b', '"a" "b', '"",""', "é", '"\n\n"']),
    st.text('ab,"\n', max_size=6).map(lambda text: '"' + text.replace('"', '""') + '"'),
    st.text('ab "', max_size=5).filter(lambda text: not text.startswith('"')),
)
tables = st.lists(st.lists(cells, min_size=1, max_size=3), max_size=12)


@settings(max_examples=150, deadline=None)
@given(tables, st.integers(1, 60), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.sampled_from(["", "\ufeff"]))
def test_pieces_put_together_are_the_file_and_each_begins_a_row(tmp_path_factory, rows, chunk, ending, ends, mark):
    lines = [",".join(row) + ending for row in rows]
    body = "".join(lines).removesuffix("" if ends else ending)
    path = tmp_path_factory.mktemp("cut") / "a.csv"
    write(path, f"{mark}t,y{ending}{body}")
    before = len(f"{mark}t,y{ending}".encode())
    starts = {before}
    for line in lines:
        starts.add(max(starts) + len(line.encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", chunk)
        pieces = pieces_of(path)
    assert b"".join(content for _, _, content in pieces) == body.encode()
    assert {start for start, _, _ in pieces} <= starts
    whole = path.read_bytes()
    assert all(line == 1 + whole[:start].count(b"\n") for start, line, _ in pieces)
    assert all(len(content) >= chunk for _, _, content in pieces[:-1])


def opens_by_hand(text, opened):
    """Whether text ends between quotes, letter by letter as csv.reader goes."""
    state = "quoted" if opened else "start"
    for letter in text:
        if state in ("quoted", "closing"):
            if letter == '"':
                state = "closing" if state == "quoted" else "quoted"
            elif state == "closing":
                state = "start" if letter in ",\n" else "plain"
        elif letter in ",\n":
            state = "start"
        else:
            state = "quoted" if letter == '"' and state == "start" else "plain"
    return state == "quoted"


@settings(max_examples=500, deadline=None)
@given(st.text('a,"\n', max_size=25), st.booleans())
def test_whether_a_text_ends_between_quotes_is_what_reading_it_by_letters_says(text, opened):
    expected = opens_by_hand(text, opened)
    assert ends_open(text.encode(), b'"', b",", opened) == expected
    assert ends_open_exactly(text.encode(), b'"', b",", opened) == expected


def test_rows_of_a_stream_are_whole_without_a_file(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 3)
    assert list(cut_rows(io.BytesIO(b'1,2\n"a\nb"\n3'), b'"', b",")) == [b"1,2\n", b'"a\nb"\n', b"3"]


# Digests


def test_appended_rows_keep_all_digests_but_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 100)
    path = write(tmp_path / "a.csv", HEADER + ROW * 50)
    before = digests(path)
    write(path, HEADER + ROW * 70)
    after = digests(path)
    assert (len(before), len(after)) == (7, 9)
    assert after[:6] == before[:6]
    assert after[6] != before[6]


def test_a_changed_row_changes_one_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 100)
    rows = [f"2024-01-01,{number:02}\n" for number in range(50)]
    path = write(tmp_path / "a.csv", HEADER + "".join(rows))
    before = digests(path)
    write(path, HEADER + "".join(rows).replace(",25", ",99"))
    assert [one == other for one, other in zip(before, digests(path), strict=True)].count(False) == 1


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_content_that_moved_has_the_same_digest(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"t": ["2024-01-01"], "y": [1]}), path)
    else:
        write(path, gzip.compress((HEADER + ROW).encode()) if suffix.endswith("gz") else HEADER + ROW)
    before = digests(path)
    (tmp_path / "deep").mkdir()
    moved = path.rename(tmp_path / "deep" / f"b.{suffix}")
    os.utime(moved, (1, 1))
    assert digests(moved) == digests(tmp_path / "deep") == before


@pytest.mark.parametrize("other", ["t,y,z\n", "y,t\n", "\nt,y\n"])
def test_another_header_is_another_digest(tmp_path, other):
    assert digests(write(tmp_path / "a.csv", HEADER + ROW), target="y") != digests(write(tmp_path / "b.csv", other + ROW))


def test_the_value_of_a_folder_is_part_of_the_digest(tmp_path):
    north, south = (write(tmp_path / f"site={name}" / "a.csv") for name in ("north", "south"))
    assert digests(north, series_id="site") != digests(south, series_id="site")


def test_small_files_share_a_chunk_and_a_long_one_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 100)
    for name in "abcdefgh":
        write(tmp_path / f"{name}.csv", HEADER + ROW * 2)  # 30 bytes
    write(tmp_path / "dd.csv", HEADER + ROW * 20)
    found = stock(tmp_path)
    assert [[Path(piece.file.path).stem for piece in chunk.pieces] for chunk in found] == [
        ["a", "b", "c"], ["d"], ["dd"], ["dd"], ["dd"], ["e", "f", "g"], ["h"],
    ]  # fmt: skip
    write(tmp_path / "i.csv", HEADER + ROW)
    assert [chunk.digest for chunk in stock(tmp_path)][:6] == [chunk.digest for chunk in found][:6]


def test_thousands_of_tiny_files_are_quick(tmp_path):
    for number in range(2000):
        (tmp_path / f"{number:05}.csv").write_bytes(b"t,y\n2024-01-01,1\n")
    began = time.perf_counter()
    (chunk,) = stock(tmp_path)
    assert len(chunk.pieces) == 2000
    assert time.perf_counter() - began < 10


def test_rows_that_hang_on_what_came_before_are_read_in_one_go(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 20)
    path = write(tmp_path / "a.csv", HEADER + ROW * 50)
    (piece,) = stock(path, repeated_hour="order", timezone="Europe/Berlin")[0].pieces
    assert piece.whole


# Parquet


def table_of(begin, end):
    return pa.table({"t": [f"2024-01-01 {number:08}" for number in range(begin, end)], "y": list(range(begin, end))})


def write_groups(path, edges, **options):
    with pq.ParquetWriter(path, table_of(0, 1).schema, **options) as writer:
        for begin, end in itertools.pairwise(edges):
            writer.write_table(table_of(begin, end))
    return path


def test_row_groups_are_chunks_and_keep_their_digests_when_more_follow(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 1000)
    path = write_groups(tmp_path / "a.parquet", [0, 1000, 2000, 3000])
    found = stock(path)
    assert [(chunk.pieces[0].start, chunk.pieces[0].end) for chunk in found] == [(0, 1), (1, 2), (2, 3)]
    before = [chunk.digest for chunk in found]
    assert len(set(before)) == 3
    write_groups(path, [0, 1000, 2000, 3000, 4000])
    assert digests(path)[:3] == before
    write_groups(path, [0, 1001, 2000, 3000])
    assert [one == other for one, other in zip(before, digests(path), strict=True)] == [False, False, True]


def test_small_row_groups_share_a_chunk(tmp_path):
    (chunk,) = stock(write_groups(tmp_path / "a.parquet", range(20)))
    assert (chunk.pieces[0].start, chunk.pieces[0].end) == (0, 19)


def test_parquet_is_not_cut_where_stamps_count_by_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 1)
    path = write_groups(tmp_path / "a.parquet", [0, 1000, 2000])
    assert len(stock(path)) == 2
    (whole,) = stock(path, repeated_hour="order")
    assert [(piece.start, piece.end) for piece in whole.pieces] == [(0, 2)]


def test_parquet_files_may_differ_in_what_is_not_used(tmp_path):
    pq.write_table(pa.table({"t": ["2024-01-01"], "y": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"z": [2], "y": [1.5], "t": ["2024-01-02"]}), tmp_path / "b.parquet")
    assert names(stock(tmp_path)) == ["a.parquet", "b.parquet"]
    pq.write_table(pa.table({"t": ["2024-01-01"], "Y": [1]}), tmp_path / "c.parquet")
    with pytest.raises(Fault, match=r"c\.parquet has no column 'y'; it has t, Y\. Did you mean 'Y'\?"):
        stock(tmp_path)


def test_parquet_columns_that_are_not_used_do_not_shape_the_digest(tmp_path):
    for name, z in (("a", [1]), ("b", [2])):
        pq.write_table(pa.table({"t": ["2024-01-01"], "y": [1], "z": z}), tmp_path / f"{name}.parquet")
    assert digests(tmp_path / "a.parquet") == digests(tmp_path / "b.parquet")
    assert digests(tmp_path / "a.parquet", target="z") != digests(tmp_path / "b.parquet", target="z")


def test_a_type_is_part_of_the_digest(tmp_path):
    for name, kind in (("a", pa.timestamp("s")), ("b", pa.timestamp("s", "Europe/Berlin"))):
        pq.write_table(pa.table({"t": pa.array([0], kind), "y": [1]}), tmp_path / f"{name}.parquet")
    assert digests(tmp_path / "a.parquet") != digests(tmp_path / "b.parquet")


def test_a_parquet_column_that_is_there_twice_is_named(tmp_path):
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["t", "y", "y"])
    pq.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(Fault, match=r"a\.parquet has 2 columns named 'y'"):
        stock(tmp_path)


def test_a_parquet_file_without_rows_is_refused(tmp_path):
    pq.write_table(table_of(0, 0), tmp_path / "sales.parquet")
    with pytest.raises(Fault, match=r"sales\.parquet has a header and no rows"):
        stock(tmp_path / "sales.parquet")


@pytest.mark.parametrize("keep", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_parquet_file_is_refused(tmp_path, keep):
    content = write_groups(tmp_path / "a.parquet", [0, 1000]).read_bytes()
    with pytest.raises(Fault, match=r"sales\.parquet is no whole Parquet file \(.+\)\. Write or fetch it again"):
        stock(write(tmp_path / "sales.parquet", content[: int(keep * len(content))]))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_to_a_parquet_file_ends_in_a_fault_or_another_digest(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip")
    path = write_groups(folder / "a.parquet", [0, 3, 6])
    sound, content = digests(path), bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[-1 - data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    write(path, bytes(content))
    with contextlib.suppress(Fault):
        assert len(digests(path)) == len(sound)
