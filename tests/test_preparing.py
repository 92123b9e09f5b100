"""From source to windows, on the real thing: shards, growth, faults set aside, masks, wide and static data, new series."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_frame
from deltalake import DeltaTable

import tasks.ingest.chunks
import tasks.ingest.resuming
import tasks.ingest.segments
from flows.checking import checking
from flows.explaining import explaining
from flows.forecasting import forecasting
from flows.training import training
from models.errors import Fault
from tasks.ingest import calendar
from tasks.ingest.task import Series
from tasks.promote import read_live


def make_sites(names, num_rows=600) -> pd.DataFrame:
    """A frame of many series, one below the other."""
    return pd.concat([make_frame(num_rows, seed=at).assign(site=name) for at, name in enumerate(names)], ignore_index=True)


def made(case, step: str) -> set[str]:
    """The keys of what a step has made."""
    return {manifest["receipt"]["key"] for manifest in case.store.manifests(step)}


def entry(outcome, step: str):
    return next(one for one in outcome.tasks if one.step == step)


def table_of(case) -> pd.DataFrame:
    return DeltaTable(case.store.forecasts).to_pandas()


@pytest.fixture
def sites(case):
    """Twenty series in one file."""
    case.write_spec(source__series_id="site")
    case.write_frame(make_sites([f"s{at:02d}" for at in range(20)]))
    return case


def test_a_source_is_checked_without_training(server, sites):
    found = checking(sites.spec)
    assert (found.rows_read, found.rows, found.steps, found.num_series) == (12_000, 12_000, 12_000, 20)
    assert (found.frequency, found.inferred, found.repairs, found.set_aside) == ("h", False, {}, 0)
    assert (found.first, found.last) == ("2024-01-01T00:00:00+00:00", "2024-01-25T23:00:00+00:00")
    assert len(found.folders) > 2
    assert not (sites.store.root / "train").exists()


def test_a_source_is_checked_against_the_lookback_that_follows_from_it_where_none_is_given(server, case):
    case.write_spec(source__series_id="site", source__future_covariates=[], windows__lookback=None)
    case.write_frame(pd.concat([make_sites(["long"]), make_sites(["tiny"], 100)]))
    assert checking(case.spec).short_series == ("tiny",)


def test_a_frequency_that_was_inferred_says_so(server, case):
    case.write_spec(source__frequency=None)
    found = checking(case.spec)
    assert (found.frequency, found.inferred) == ("h", True)


def refused(spec) -> str:
    """What training refuses, which checking has to refuse in the same words and without a window being cut."""
    with pytest.raises(Fault) as by_checking:
        checking(spec)
    with pytest.raises(Fault) as by_training:
        training(spec)
    assert str(by_checking.value) == str(by_training.value)
    return str(by_checking.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds__test": 500}, r"^load has 600 steps; lookback 72 \+ horizon 24 to train on, validation 72 and test 500"),
        (
            {"folds__test": 1000},
            r"^No series has steps to train on: folds leave none of the 600 steps of load\. Set",
        ),
        (
            {"season": 600},
            r"^season is 600 steps, and no series has more than 600, in which nothing comes again\. Set a shorter",
        ),
        ({"source__holidays": "XX"}, r"^source\.holidays 'XX' is no place that the package holidays knows"),
    ],
)
def test_what_training_would_refuse_is_refused_by_checking_in_the_same_words(server, case, changes, message):
    if "source__holidays" in changes:
        pytest.importorskip("holidays")
    case.write_spec(**changes)
    assert re.search(message, refused(case.spec))
    assert not made(case, "train")


def test_a_constant_target_is_refused_by_checking_unless_it_changes_while_training(server, case):
    frame = make_frame().assign(load=3.0)
    frame.loc[456:, "load"] = 4.0  # from the first step of validation on
    case.write_frame(frame)
    assert refused(case.spec).startswith("load: the target is constant over the training steps")
    assert not made(case, "validate")
    frame.loc[455, "load"] = 4.0
    case.write_frame(frame)
    assert checking(case.spec).too_short == 0


def test_windows_that_reach_back_too_far_are_refused_by_checking(server, case, monkeypatch):
    monkeypatch.setattr(tasks.ingest.segments, "SEGMENT", 80)
    case.write_spec(network__depth=None)
    assert refused(case.spec) == "windows.lookback and horizon span 96 steps; at most 80 are possible here."


def test_a_gate_that_no_inferred_season_has_scores_for_is_refused_by_checking(server, case):
    case.write_spec(gate__steps=13, source__frequency=None)
    with pytest.raises(Fault, match=r"^gate\.steps is 13; with this horizon and season it can be 1, 12, 24$"):
        checking(case.spec)


def test_checking_says_which_series_would_be_left_out_and_which_lack_static_covariates(server, case):
    settings = {"source__series_id": "site", "source__future_covariates": []}
    case.write_spec(**settings)
    case.write_frame(pd.concat([make_sites(["long", "least"], 600)[:840], make_sites(["tiny"], 239)]))
    found = checking(case.spec)
    assert (found.too_short, found.short_series) == (1, ("tiny",))
    assert not made(case, "normalise") | made(case, "materialise_windows")
    (case.folder / "sites.csv").write_text("site,area\nleast,3.5\n")
    case.write_spec(**settings, source__static_uri="sites.csv", source__static_covariates=["area"])
    with pytest.raises(Fault) as fault:
        checking(case.spec)
    lines = [f"source.static_uri has no row for series {name}. Add one, or remove the series." for name in ("long", "tiny")]
    assert str(fault.value) == "\n  ".join(["2 faults:", *lines])


def test_of_a_changed_series_only_its_shard_is_made_again(server, sites):
    training(sites.spec)
    before = {step: made(sites, step) for step in ("ingest", "normalise", "materialise_windows")}
    frame = pd.read_csv(sites.csv)
    frame.loc[(frame["site"] == "s07").to_numpy().nonzero()[0][3], "load"] += 1
    sites.write_frame(frame)
    outcome = training(sites.spec)
    for step, keys in before.items():
        assert len(keys) > 2
        assert len(made(sites, step) - keys) == 1
        assert entry(outcome, step).cached == entry(outcome, step).calls - 1


def test_rows_that_are_appended_leave_the_parts_before_them_cached(server, case, monkeypatch):
    monkeypatch.setattr(tasks.ingest.chunks, "CHUNK", 2048)
    frame = make_frame(648)
    case.write_frame(frame[:600])
    training(case.spec)
    case.write_frame(frame)
    planned = {one.step: one.because for one in explaining(case.spec)}
    assert "parts are cached; for the others: new source bytes" in planned["read"]
    outcome = training(case.spec)
    read = entry(outcome, "read")
    assert read.calls > 5
    assert read.cached >= read.calls - 2
    assert checking(case.spec).rows == 648


def test_a_long_series_that_grew_is_arranged_from_where_it_was(server, case, monkeypatch):
    monkeypatch.setattr(tasks.ingest.chunks, "CHUNK", 2048)
    monkeypatch.setattr(tasks.ingest.segments, "SEGMENT", 64)
    told = []
    monkeypatch.setattr(tasks.ingest.resuming, "say", told.append)
    case.write_spec(windows__lookback=24)  # windows reach back no further than one segment
    frame = make_frame(648)
    case.write_frame(frame[:600])
    checking(case.spec)
    before = made(case, "ingest")
    case.write_frame(frame)
    found = checking(case.spec)
    assert (found.rows, entry(found, "ingest").cached) == (648, 0)
    assert [line.split(" rows ")[1] for line in told] == ["are as they were arranged before"]
    assert int(told[0].split()[3]) > 500
    case.write_spec(store="elsewhere", windows__lookback=24)
    plain = checking(case.spec)
    (grown,) = (folder for folder in found.folders if Path(folder).name not in before)
    for path in Path(plain.folders[0]).glob("[!m]*"):  # the manifest has the time in it
        assert path.read_bytes() == (Path(grown) / path.name).read_bytes(), path.name


def test_a_file_added_to_a_folder_leaves_the_others_cached(server, case, monkeypatch):
    monkeypatch.setattr(tasks.ingest.chunks, "CHUNK", 4096)
    folder = case.folder / "days"
    folder.mkdir()
    case.write_spec(source__uri="days")
    frame = make_frame(648)
    for at in range(0, 600, 24):
        frame[at : at + 24].to_csv(folder / f"{at:03d}.csv", index=False)
    assert checking(case.spec).rows == 600
    frame[600:].to_csv(folder / "600.csv", index=False)
    found = checking(case.spec)
    assert found.rows == 648
    assert entry(found, "read").cached >= entry(found, "read").calls - 2


def test_every_fault_of_a_source_is_found_in_one_pass_with_file_line_series_and_stamp(server, sites):
    lines = sites.csv.read_text().splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[1], "much")  # s00
    lines.insert(700, lines[700])  # s01 repeats a stamp
    del lines[1300]  # s02 lacks one
    sites.csv.write_text("\n".join(lines) + "\n")
    with pytest.raises(Fault) as fault:
        training(sites.spec)
    said = str(fault.value)
    assert said.startswith("3 faults in 3 of 20 series:")
    assert "s00, " in said
    assert "load.csv line 6, column 'load': 'much' is no number" in said
    assert "load.csv line 702 repeats line 701: 2024-01-05T03:00:00+00:00. Remove" in said
    assert "load.csv before line 1301: has a gap: no row at 2024-01-05T02:00:00+00:00 (at a step of h). Add" in said
    assert "source.quarantine: true" in said


def spoiled_frame() -> pd.DataFrame:
    """A frame whose 21st value is too high, whose 32nd row repeats the 31st, and which lacks a row before its 52nd."""
    frame = make_frame()
    frame.loc[20, "load"] = 99
    return pd.concat([frame[:31], frame[30:50], frame[51:]])


@pytest.mark.parametrize(
    ("name", "spec", "lines"),
    [
        ("load.csv", {}, ("line 22", "line 33 repeats line 32", "line 53")),
        ("load.csv.gz", {}, ("line 22", "line 33 repeats line 32", "line 53")),
        ("quoted.csv", {}, ("line 43", "line 65 repeats line 63", "line 105")),
        ("wide.csv", {"source__wide": ["load"]}, ("line 22", "line 33 repeats line 32", "line 53")),
        ("load.parquet", {}, ("row 21", "row 32 repeats row 31", "row 52")),
    ],
)
def test_faults_of_rows_that_stand_together_are_told_with_file_and_line(server, case, name, spec, lines):
    case.write_spec(source__uri=name, source__rules={"load": {"max": 50}}, **spec)
    frame, path = spoiled_frame(), case.folder / name
    if name == "quoted.csv":
        frame["note"] = "two\nlines"
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    high, repeated, after = (f"load, {path} {line}" for line in lines)
    told = [
        f"{repeated}: 2024-01-02T06:00:00+00:00. Remove",
        f"{after.replace(f'{path} ', f'{path} before ')}: has a gap: no row at 2024-01-03T02:00:00+00:00 (at a step of h). Add",
        f"{high}, column 'load': 99 at 2024-01-01T20:00:00+00:00 is above rules.load.max 50. Mend",
    ]
    flows = (checking, training) if name == "load.csv" else (checking,)
    for flow in flows:
        with pytest.raises(Fault) as fault:
            flow(case.spec)
        said = str(fault.value).splitlines()
        assert said[0] == "3 faults:"
        assert [line.strip()[: len(start)] for line, start in zip(said[1:], told, strict=True)] == told


def test_series_that_are_set_aside_are_told_of_with_file_and_line_as_long_as_the_file_is_the_same(server, sites):
    sites.write_spec(source__series_id="site", source__quarantine=True, source__rules={"load": {"max": 50}})
    frame = make_sites([f"s{at:02d}" for at in range(20)])
    frame.loc[610, "load"] = 99
    sites.write_frame(frame)
    found = checking(sites.spec)
    assert found.faults == (
        f"s01, {sites.csv} line 612, column 'load': 99 at 2024-01-01T10:00:00+00:00 is above rules.load.max 50. Mend the "
        "values or the rule.",
    )
    sites.write_frame(frame[5:])  # what was read of it before is of no use for where a row stands now
    assert [line.split(",")[1].split()[-1] for line in checking(sites.spec).faults] == ["607"]


def test_a_series_with_a_fault_is_set_aside_and_the_others_go_on(server, sites):
    lines = sites.csv.read_text().splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[1], "much")
    del lines[1300]
    sites.csv.write_text("\n".join(lines) + "\n")
    sites.write_spec(source__series_id="site", source__quarantine=True, source__future_covariates=[])
    outcome = training(sites.spec)
    assert (outcome.num_series, outcome.set_aside) == (18, 2)
    assert [line.split(",")[0].split(" ")[0] for line in outcome.faults] == ["s00", "s02"]
    page = (sites.store.root / "reports" / "small.html").read_text()
    assert "line 6, column &#39;load&#39;: &#39;much&#39; is no number" in page
    written = forecasting(sites.spec)
    assert (written.num_series, written.set_aside) == (18, 2)
    assert set(table_of(sites)["series_id"]) == {f"s{at:02d}" for at in range(20)} - {"s00", "s02"}


def test_a_source_of_faulty_series_only_is_an_error_even_in_quarantine(server, case):
    case.write_spec(source__quarantine=True)
    frame = make_frame()
    frame.loc[100, "load"] = np.nan
    case.write_frame(frame)
    with pytest.raises(
        Fault, match=r"The only series has faults, so none is left to go on with\. load, .*load.csv line 102, column 'load': no"
    ):
        training(case.spec)


def test_series_of_other_lengths_train_together_and_one_too_short_is_left_out_by_name(server, case):
    case.write_spec(source__series_id="site", source__future_covariates=[])
    frame = pd.concat([make_sites(["long"]), make_sites(["less"], 400), make_sites(["tiny"], 100)])
    case.write_frame(frame)
    outcome = training(case.spec)
    assert (outcome.num_series, outcome.too_short, outcome.short_series) == (2, 1, ("tiny",))
    assert "tiny" in (case.store.root / "reports" / "small.html").read_text()
    written = forecasting(case.spec)  # long enough to look back, if not to train on
    assert set(table_of(case)["series_id"]) == {"long", "less", "tiny"}
    assert written.num_series == 3


def test_a_series_that_came_after_training_is_forecast_and_marked(server, case):
    case.write_spec(source__series_id="site", source__future_covariates=[], network__embedding=2)
    case.write_frame(make_sites(["a", "b"]))
    training(case.spec)
    case.write_frame(make_sites(["a", "b", "c"]))
    written = forecasting(case.spec)
    assert (written.num_series, written.new_series) == (3, 1)
    marked = table_of(case).groupby("series_id")["new_series"].unique()
    assert {name: flags.tolist() for name, flags in marked.items()} == {"a": [False], "b": [False], "c": [True]}


def test_masked_steps_change_no_score_whatever_stands_in_for_them(server, case):
    case.write_spec(source__gaps="mask", source__missing="mask")
    frame = make_frame()
    holes = [100, 101, 102, 480, 481, 540]  # training, validation, test
    frame.loc[holes, "load"] = np.nan
    case.write_frame(frame.drop(index=[200, 201]))
    outcome = training(case.spec)
    receipt = next(Series.model_validate(one["receipt"]) for one in case.store.manifests("ingest"))
    assert receipt.repairs == {"absent rows masked": 2, "steps masked": 6}
    assert outcome.scores["new"]["test"]["24"]["mae"] < outcome.scores["naive"]["test"]["24"]["mae"] * 2
    assert read_live(case.store, "small").model.facts.columns.masked


def test_wide_form_with_static_covariates_and_holidays_from_elsewhere(server, case):
    pytest.importorskip("holidays")
    frames = {name: make_frame(seed=at)["load"] for at, name in enumerate(["north", "south", "west"])}
    wide = pd.DataFrame({"when": make_frame()["when"], **frames})
    wide.loc[:40, "west"] = np.nan  # begins later
    case.write_frame(wide)
    (case.folder / "sites.csv").write_text("series_id,area,kind\nnorth,3.5,house\nsouth,8,shop\nwest,1,house\n")
    changes = {"source__wide": ["north", "[sw]*"], "source__future_covariates": [], "source__holidays": "FR"}
    case.write_spec(**changes, source__static_uri="sites.csv", source__static_covariates=["area", "kind"])
    outcome = training(case.spec)
    assert outcome.num_series == 3
    columns = read_live(case.store, "small").model.facts.columns
    assert columns.names == ("target", "holiday", "area", "kind=house", "kind=shop")
    assert forecasting(case.spec).num_series == 3


def test_another_release_of_the_holidays_cuts_windows_anew_and_does_nothing_else(server, case, monkeypatch):
    pytest.importorskip("holidays")
    case.write_spec(source__holidays="FR")
    training(case.spec)
    real = calendar.metadata.version
    monkeypatch.setattr(calendar.metadata, "version", lambda name: "9.9" if name == "holidays" else real(name))
    states = {one.step: one for one in explaining(case.spec)}
    assert "calendar.holidays" in states["materialise_windows"].because
    assert [name for name, one in states.items() if one.cached] == ["read", "survey", "ingest", "find_season", "normalise"]


def test_several_columns_name_a_series_in_parquet_folders(server, case):
    frame = make_sites(["a", "b"])
    for year, part in frame.assign(region="n").groupby(frame.index // 600):
        folder = case.folder / "data" / f"batch={year}"
        folder.mkdir(parents=True)
        part.to_parquet(folder / "part.parquet")
    case.write_spec(source__uri="data", source__series_id=["region", "site"])
    found = checking(case.spec)
    assert (found.num_series, found.rows) == (2, 1200)
    names = {name for folder in found.folders for name in series_in(case, folder)}
    assert names == {"n/a", "n/b"}


def series_in(case, folder: str) -> list[str]:
    import json
    from pathlib import Path

    return list(json.loads((Path(folder) / "index.json").read_text())["series"])


RUN = """
import os, signal, sys
import tasks.storage as s
real, wanted, count = os.rename, sys.argv[2], 0
def dying(a, b):
    if f"/{wanted}/" in str(b):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(a, b)
s.os.rename = dying
from flows.spec import load_spec
from flows.training import training
training(load_spec(sys.argv[1]))
"""


@pytest.mark.kills
@pytest.mark.parametrize("step", ["read", "ingest", "materialise_windows"])
def test_a_kill_as_an_artifact_takes_its_place_leaves_the_next_run_right(server, case, trained_folder, step):
    environment = {**os.environ, "PREFECT_API_URL": server}
    killed = subprocess.run([sys.executable, "-c", RUN, str(case.yaml), step], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not made(case, step)
    outcome = training(case.spec)
    assert outcome.promoted
    from tasks.storage import Store

    assert outcome.model == read_live(Store(trained_folder / "store"), "small").model.digest


def test_what_was_repaired_while_reading_is_told_even_where_the_same_rows_come_out(server, case):
    case.write_spec(source__timezone="Europe/Paris", source__skipped_hour="drop", source__future_covariates=[])
    stamps = pd.date_range("2024-03-30", periods=600, freq="h", tz="Europe/Paris").tz_localize(None)
    frame = make_frame().assign(when=stamps.strftime("%Y-%m-%d %H:%M"))
    case.write_frame(frame)
    assert checking(case.spec).repairs == {}
    spring = pd.DataFrame({"when": ["2024-03-31 02:00"], "load": [1.0], "temperature": [1.0]})
    case.write_frame(pd.concat([frame[:26], spring, frame[26:]]))
    found = checking(case.spec)
    assert (found.rows, found.repairs) == (600, {"rows of a skipped hour dropped": 1})


@pytest.mark.parametrize(
    ("stamp", "message"),
    [
        (
            "31.12.2013 00:00",
            r"load.csv line 2, column 'when': '31\.12\.2013 00:00' is no ISO 8601 stamp.*set source.timestamp_format",
        ),
        ("yesterday", r"'yesterday' is no ISO 8601 stamp.* \(600 such\)"),
    ],
)
def test_a_source_without_a_stamp_that_can_be_read_says_what_is_wrong_with_them(server, case, stamp, message):
    case.write_frame(make_frame().assign(when=stamp))
    for frequency in ("h", None):
        case.write_spec(source__frequency=frequency)
        with pytest.raises(Fault, match=message):
            checking(case.spec)


def test_a_series_of_which_no_row_can_be_read_is_set_aside_like_any_other(server, case):
    case.write_spec(source__series_id="site", source__quarantine=True)
    frame = make_sites(["a", "b"])
    frame.loc[frame["site"] == "b", "when"] = "x"
    case.write_frame(frame)
    found = checking(case.spec)
    assert (found.num_series, found.set_aside, len(found.faults)) == (1, 1, 1)
