"""`convcast init`: what it makes of files in many dialects, and that what it writes runs."""

import codecs
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from test_cli import convcast

from flows.checking import checking
from flows.initialising import dumped, initialising, lines_of, name_of
from flows.spec import load_spec
from models.errors import Fault
from tasks.sniffing.dialect import numbers_in
from tasks.sniffing.settings import Setting

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
ROWS = 480


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def wave(rows: int = ROWS, season: int = 24, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (10 + 3 * np.sin(2 * np.pi * np.arange(rows) / season) + rng.normal(0, 0.2, rows)).round(3)


def hours(rows: int = ROWS, form: str = "%Y-%m-%d %H:%M") -> pd.Index:
    return pd.date_range("2023-01-01", periods=rows, freq="h").strftime(form)


def days(rows: int = ROWS, form: str = "%Y-%m-%d") -> pd.Index:
    return pd.date_range("2023-01-01", periods=rows).strftime(form)


def init(frame: pd.DataFrame | str | bytes, name: str = "data.csv", **how) -> dict:
    """The document that is written for a file, checked to be a spec."""
    put(frame, name, **how)
    made = initialising([name], None, True)
    load_spec(made.spec)
    return yaml.safe_load(Path(made.spec).read_text(encoding="utf-8"))


def put(frame, name: str, **how) -> None:
    if isinstance(frame, pd.DataFrame):
        frame.to_csv(name, index=False, **how)
    else:
        Path(name).write_bytes(frame if isinstance(frame, bytes) else frame.encode())


def said(document: dict, *keys: str) -> dict:
    return {key: document["source"].get(key) for key in keys}


DIALECTS = [
    # semicolons and decimal commas, days first, not UTF-8
    (
        {"Zeit": hours(form="%d.%m.%Y %H:%M"), "Verbrauch": wave(), "Außentemperatur": 2 * wave()},
        {"sep": ";", "decimal": ",", "encoding": "latin-1"},
        {"delimiter": ";", "decimal": ",", "encoding": "cp1252", "timestamp": "Zeit", "timestamp_format": "%d.%m.%Y %H:%M",
         "frequency": "h", "target": "Verbrauch", "past_covariates": ["Außentemperatur"]},
    ),
    # tabs, two bytes a character
    ({"when": hours(), "load": wave()}, {"sep": "\t", "encoding": "utf-16"}, {"delimiter": "\t", "encoding": "utf-16"}),
    # a byte-order mark is no part of a name
    ({"when": hours(), "load": wave()}, {"encoding": "utf-8-sig"}, {"encoding": None, "timestamp": "when", "target": "load"}),
    # epochs are instants: seconds, milliseconds
    ({"time": 1_700_000_000 + 3600 * np.arange(ROWS), "value": wave()}, {}, {"timestamp_format": "epoch_s", "frequency": "h"}),
    ({"ts": 10**12 + 60_000 * np.arange(ROWS), "cpu": wave()}, {}, {"timestamp_format": "epoch_ms", "frequency": "min"}),
    # dates without marks, months, years beside months
    ({"date": days(form="%Y%m%d"), "rain": wave()}, {}, {"timestamp_format": "%Y%m%d", "frequency": "D"}),
    (
        {"Month": pd.date_range("1950-01-01", periods=144, freq="MS").strftime("%Y-%m"), "Passengers": wave(144, 12)}, {},
        {"timestamp_format": "%Y-%m", "frequency": "MS"},
    ),
    (
        {"year": np.arange(144) // 12 + 1990, "month": np.arange(144) % 12 + 1, "jobs": wave(144, 12)}, {},
        {"timestamp": ["year", "month"], "timestamp_format": "%Y %m", "frequency": "MS"},
    ),
    # dates and times of day apart, as spreadsheets write them; hours as numbers; times with points
    (
        {"Date": hours(form="%m/%d/%Y"), "Time": hours(form="%I:%M %p"), "Load": wave()}, {},
        {"timestamp": ["Date", "Time"], "timestamp_format": "%m/%d/%Y %I:%M %p", "frequency": "h", "series_id": None},
    ),
    (
        {"Date": hours(form="%Y-%m-%d"), "Hour": np.arange(ROWS) % 24, "Load": wave()}, {},
        {"timestamp": ["Date", "Hour"], "timestamp_format": "%Y-%m-%d %H", "series_id": None},
    ),
    (
        {"Date": hours(form="%d/%m/%Y"), "Time": hours(form="%H.%M.%S"), "NO2": wave()}, {"sep": ";", "decimal": ","},
        {"timestamp": ["Date", "Time"], "timestamp_format": "%d/%m/%Y %H.%M.%S"},
    ),
    # an index without a name
    ({"": hours(), "load": wave()}, {}, {"timestamp": "", "target": "load"}),
    # one word for no value, and a number that stands for none
    ({"t": hours(), "x": ["?" if at == 9 else one for at, one in enumerate(wave())]}, {}, {"missing_markers": ["?"]}),
    ({"t": hours(), "x": np.where(np.arange(ROWS) % 90 == 7, -999, wave())}, {}, {"missing_markers": ["-999"]}),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "how", "expected"), DIALECTS)
def test_dialects_and_spellings_are_told(columns, how, expected):
    assert said(init(pd.DataFrame(columns), **how), *expected) == expected


def panel(**changes) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"date": days(200), "store": store, "item": item, "sales": wave(200, 7, 9 * store + item)})
        for store in (1, 2) for item in (10, 20, 30)
    ]  # fmt: skip
    return pd.concat(parts).assign(**changes)


def test_numbers_that_name_series_are_found_where_stamps_come_again():
    assert said(init(panel()), "series_id", "target", "past_covariates") == {
        "series_id": ["store", "item"],
        "target": "sales",
        "past_covariates": None,
    }


def test_a_column_that_tells_series_apart_alone_is_enough():
    frame = panel()
    frame["name"] = frame["store"].astype(str) + "-" + frame["item"].astype(str)
    assert init(frame)["source"]["series_id"] == "name"


def test_covariates_are_static_past_or_known_ahead_as_they_go_on():
    frame = panel(promo=np.arange(1200) % 7, comment="so")
    frame["size"] = 100.0 * frame["store"]
    frame.loc[frame["date"] > "2023-07-10", "sales"] = np.nan
    frame["seen"] = frame["sales"] + 1
    source = init(frame)["source"]
    assert said({"source": source}, "future_covariates", "past_covariates", "static_covariates") == {
        "future_covariates": ["promo"],
        "past_covariates": ["seen"],
        "static_covariates": ["size"],
    }
    assert "missing" not in source


def test_like_named_columns_are_a_series_each():
    frame = pd.DataFrame({"date": hours(), **{f"MT_{number:03d}": wave() + number for number in range(40)}})
    assert said(init(frame), "wide", "target") == {"wide": ["MT_*"], "target": "value"}


def test_like_named_columns_beside_a_target_are_covariates():
    frame = pd.DataFrame({"date": hours(), "demand": wave(), **{f"s{number}": wave() + number for number in range(6)}})
    assert said(init(frame), "wide", "target") == {"wide": None, "target": "demand"}


def test_without_a_telling_name_the_last_number_that_varies_is_the_target_and_angles_are_left_out():
    columns = {"when": hours(), "a": wave(), "b": wave(seed=1), "flag": np.arange(ROWS) % 2, "dir": np.linspace(0, 360, ROWS)}
    put(pd.DataFrame(columns), "data.csv")
    made = initialising(["data.csv"], None, False)
    assert made.facts["target"] == "'b', the last column of numbers that varies, for none has a name that tells"
    assert made.facts["covariates"] == "past: a, flag"
    assert made.facts["left out"] == "dir (seems an angle; give it as sine and cosine)"
    assert "other numbers: a, flag, dir" in Path("data.yaml").read_text()


FAULTS = [
    # short holes are drawn through, long ones and those at an end are hidden
    (lambda f: f.drop(index=[50, 51, 99]), {"gaps": "interpolate"}, "3 rows are absent, the longest hole 2 steps"),
    (lambda f: f.drop(index=range(50, 70)), {"gaps": "mask"}, "20 rows are absent, the longest hole 20 steps"),
    (lambda f: f.assign(load=f["load"].where(f.index != 7)), {"missing": "interpolate"}, "1 value of load is empty"),
    (lambda f: f.assign(load=f["load"].where(f.index > 2)), {"missing": "mask"}, "3 values of load are empty"),
    # what will be there is no hole
    (lambda f: f.assign(load=f["load"].where(f.index < 450)), {"missing": None}, None),
    # a few repeated stamps do no harm
    (lambda f: pd.concat([f, f[-1:]]), {"duplicates": "first"}, "1 row with a stamp that its series had before, 1 of them"),
    # newest first
    (lambda f: f[::-1], {"order": "sort"}, "479 rows come before an older one"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "expected", "words"), FAULTS)
def test_faults_are_repaired_where_that_does_no_harm(damage, expected, words, server):
    from flows.checking import checking

    document = init(damage(pd.DataFrame({"when": hours(), "load": wave()})))
    assert said(document, *expected) == expected
    text = " ".join(Path("data.yaml").read_text().replace("\n  #", "").split())
    assert words is None or words in text
    assert checking(load_spec("data.yaml")).num_series == 1


def test_repeated_stamps_that_contradict_each_other_are_left_to_the_user():
    frame = pd.DataFrame({"when": hours(), "load": wave()})
    put(pd.concat([frame, frame.assign(load=1.0)]), "data.csv")
    made = initialising(["data.csv"], None, False)
    assert "duplicates" not in yaml.safe_load(Path("data.yaml").read_text())["source"]
    assert "  # duplicates: mean" in Path("data.yaml").read_text()
    assert any("training refuses them" in doubt for doubt in made.doubts)


def test_a_clock_with_summer_time_is_pointed_out():
    clock = pd.date_range("2022-06-01", periods=24 * 300, freq="h", tz="UTC").tz_convert("Europe/Berlin")
    put(pd.DataFrame({"when": clock.strftime("%Y-%m-%d %H:%M"), "load": wave(24 * 300)}), "data.csv")
    (doubt,) = initialising(["data.csv"], None, False).doubts
    assert "name their clock, as Europe/Paris" in doubt


def test_stamps_off_any_grid_are_pointed_out():
    stamps = 1_700_000_000 + 60 * np.arange(ROWS) + np.random.default_rng(0).integers(0, 20, ROWS)
    put(pd.DataFrame({"time": stamps, "load": wave()}), "data.csv")
    assert any("training refuses them: resample" in doubt for doubt in initialising(["data.csv"], None, False).doubts)


def test_rows_that_can_not_be_read_are_pointed_out():
    text = pd.DataFrame({"when": hours(), "load": wave()}).to_csv(index=False)
    put(text.replace("2023-01-02 03:00", "yesterday") + "2023-03-01,1,2\n", "data.csv")
    assert initialising(["data.csv"], None, False).doubts == (
        "1 row without a stamp that can be read; mend them or take them out",
        "1 row with more or fewer fields than the header; training refuses them",
    )


def test_few_steps_get_a_short_horizon_and_a_lookback_that_fits(server):
    from flows.checking import checking

    document = init(pd.DataFrame({"date": days(30), "y": wave(30, 7)}))
    assert document["folds"] == {"validation": 3, "test": 3}
    assert document["windows"]["horizon"] == 2
    assert checking(load_spec("data.yaml")).too_short == 0


def test_a_lookback_is_said_where_two_seasons_are_more_than_there_is():
    put(pd.DataFrame({"ts": 1_700_000_000 + 60 * np.arange(3000), "cpu": wave(3000)}), "data.csv")
    spec = load_spec(initialising(["data.csv"], None, False).spec)
    assert spec.windows.lookback + spec.windows.horizon + spec.folds.validation + spec.folds.test <= 3000


def test_a_season_is_the_horizon_and_a_tenth_of_the_steps_each_fold():
    document = init(pd.DataFrame({"when": hours(1000), "load": wave(1000)}))
    assert (document["folds"], document["windows"]) == ({"validation": 96, "test": 96}, {"horizon": 24})


def test_parquet_is_told_by_its_types():
    stamps = pd.date_range("2023-01-01", periods=ROWS, freq="15min", tz="UTC")
    pq.write_table(pa.table({"at": stamps, "unit": ["a"] * ROWS, "power": wave()}), "data.parquet")
    load_spec(initialising(["data.parquet"], None, False).spec)
    document = yaml.safe_load(Path("data.yaml").read_text())
    assert said(document, "uri", "timestamp", "frequency", "target", "series_id") == {
        "uri": "data.parquet", "timestamp": "at", "frequency": "15min", "target": "power", "series_id": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "frequency"), [("Europe/Paris", "h"), ("America/New_York", "D"), ("Asia/Kathmandu", "MS"), ("+05:30", "h")]
)
def test_the_zone_that_parquet_names_is_the_clock(server, zone, frequency):
    from flows.checking import checking

    stamps = pd.date_range("2003-01-01", periods=ROWS, freq=frequency, tz=zone)  # over many switches of the clock
    pq.write_table(
        pa.table({"at": pa.array(stamps.tz_convert("UTC"), pa.timestamp("us", zone)), "load": wave()}), "data.parquet"
    )
    made = initialising(["data.parquet"], None, False)
    document = yaml.safe_load(Path("data.yaml").read_text())
    assert said(document, "timezone", "frequency", "gaps") == {"timezone": zone, "frequency": frequency, "gaps": None}
    found = checking(load_spec(made.spec))
    assert (found.steps, found.repairs, found.first) == (ROWS, {}, stamps[0].isoformat())


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC", "+00:00", "nowhere"])
def test_parquet_in_utc_leaves_the_clock_to_a_person(zone):
    stamps = pd.date_range("2023-01-01", periods=ROWS, freq="h", tz="UTC")
    pq.write_table(pa.table({"at": pa.array(stamps).cast(pa.timestamp("us", zone)), "load": wave()}), "data.parquet")
    initialising(["data.parquet"], None, False)
    assert "timezone: UTC" in Path("data.yaml").read_text()
    assert "change it if that is another" in Path("data.yaml").read_text()


def test_the_names_of_folders_can_name_series():
    for site in "ab":
        Path(f"many/site={site}").mkdir(parents=True)
        put(pd.DataFrame({"day": days(form="%d/%m/%Y"), "visits": wave()}), f"many/site={site}/part.csv")
    initialising(["many"], None, False)
    document = yaml.safe_load(Path("many.yaml").read_text())
    assert said(document, "uri", "series_id", "timestamp_format") == {
        "uri": "many", "series_id": "site", "timestamp_format": "%d/%m/%Y",
    }  # fmt: skip


def test_the_name_of_each_file_can_name_a_series(server):
    Path("houses").mkdir()
    for seed, house in enumerate("abc"):
        put(pd.DataFrame({"when": hours(), "kwh": wave(seed=seed)}), f"houses/{house}.csv")
    initialising(["houses"], None, False)
    document = yaml.safe_load(Path("houses.yaml").read_text())
    assert said(document, "file_column", "series_id", "duplicates") == {
        "file_column": "file", "series_id": "file", "duplicates": None,
    }  # fmt: skip
    assert checking(load_spec("houses.yaml")).num_series == 3


def test_files_that_follow_each_other_are_one_series():
    Path("months").mkdir()
    frame = pd.DataFrame({"when": hours(), "kwh": wave()})
    for part in range(3):
        put(frame.iloc[part * ROWS // 3 : (part + 1) * ROWS // 3], f"months/{part}.csv")
    initialising(["months"], None, False)
    document = yaml.safe_load(Path("months.yaml").read_text())
    assert said(document, "file_column", "series_id") == {"file_column": None, "series_id": None}


def test_of_a_large_file_both_ends_are_looked_at(monkeypatch):
    monkeypatch.setattr("tasks.sniffing.sample.HEAD", 4000)
    monkeypatch.setattr("tasks.sniffing.sample.TAIL", 2000)
    frame = pd.DataFrame({"when": hours(5000), "load": wave(5000)}).drop(index=range(2000, 2500))
    put(frame, "data.csv")
    put(frame, "packed.csv.gz")
    for name in ("data.csv", "packed.csv.gz"):
        made = initialising([name], None, False)
        assert "of them looked at" in made.facts["data"]
        assert made.facts["faults"] == "none in what was looked at"
        folds = yaml.safe_load(Path(made.spec).read_text())["folds"]
        assert folds == {"validation": 480, "test": 480}  # of 5,000 steps from the first to the last


def cases(**changes) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"case": f"c{at}", "step": range(20 + at % 3), "dim_0": 1.0, "dim_1": 1.0, "label": "ab"[at % 2]})
        for at in range(12)
    ]  # fmt: skip
    frame = pd.concat(parts)
    return frame.assign(dim_0=rng.normal(size=len(frame)), dim_1=rng.normal(size=len(frame)), **changes)


def test_a_label_that_is_one_a_case_makes_a_classification_of_cases(server):
    from flows.checking import checking

    document = init(cases())
    assert (document["task"], document["folds"]) == ("classification", {"test": 0.2})
    assert said(document, "label", "case", "step", "channels", "split", "missing") == {
        "label": "label", "case": "case", "step": "step", "channels": ["dim_*"], "split": None, "missing": None,
    }  # fmt: skip
    assert checking(load_spec("data.yaml")).classes == {"a": 6, "b": 6}


@pytest.mark.parametrize("index", ["Unnamed: 0", "__index_level_0__"])
def test_row_numbers_that_were_written_along_are_no_channel(index):
    frame = cases()
    frame[index] = np.random.default_rng(1).permutation(len(frame))  # of a table whose rows were sorted afterwards
    assert said(init(frame), "case", "step", "channels") == {"case": "case", "step": "step", "channels": ["dim_*"]}


def test_numbers_as_labels_and_a_column_of_folds_are_taken_and_empty_values_masked():
    frame = cases(split="train")
    frame["class"] = (frame.pop("label") == "b").astype(int)
    frame.loc[frame["case"].isin(["c0", "c1"]), "split"] = "test"
    frame.iloc[5, 2] = np.nan
    document = init(frame)
    assert said(document, "label", "split", "missing") == {"label": "class", "split": "split", "missing": "mask"}
    assert "folds" not in document


def test_a_label_that_changes_along_stamps_makes_a_classification_of_a_stream(server):
    from flows.checking import checking

    state = np.where(np.sin(np.arange(ROWS) / 30) > 0, "walk", "run")
    document = init(pd.DataFrame({"when": hours(), "x": wave(), "activity": state}))
    assert document["task"] == "classification"
    assert said(document, "label", "timestamp", "channels") == {"label": "activity", "timestamp": "when", "channels": ["x"]}
    assert document["windows"] == {"lookback": 24, "stride": 1, "label": "origin"}
    assert set(checking(load_spec("data.yaml")).classes) == {"walk", "run"}


def test_many_classes_of_two_cases_each_are_told():
    frame = cases().drop(columns="label")
    frame["label"] = frame["case"].str[1:].astype(int) // 2 + 100
    wide = pd.concat([frame.assign(case=frame["case"] + str(k), label=frame["label"] + 10 * k) for k in range(9)])
    document = init(wide)
    assert said(document, "label", "case") == {"label": "label", "case": "case"}


def test_cases_are_found_by_what_their_columns_hold_where_names_tell_nothing():
    frame = cases().rename(columns={"case": "leaf", "label": "species"})
    assert said(init(frame), "case", "step", "label") == {"case": "leaf", "step": "step", "label": "species"}
    frame["leaf"] = frame["leaf"].str[1:].astype(int)
    assert said(init(frame), "case", "step", "label") == {"case": "leaf", "step": "step", "label": "species"}
    with pytest.raises(Fault, match=r"or, for labelled cases, columns called case, step and label"):
        init(frame.drop(columns="species"))


@pytest.mark.parametrize(("labels", "shown"), [(["01", "02"], "01, 02"), (["false", "true"], "false, true")])
def test_classes_are_shown_as_they_are_written(labels, shown):
    frame = cases().assign(label=lambda one: one["label"].map(dict(zip("ab", labels, strict=True))))
    init(frame)
    assert f"2 classes: {shown}" in Path("data.yaml").read_text()


def test_files_that_are_named_for_folds_may_number_their_cases_alike():
    for fold, steps in (("TRAIN", 20), ("TEST", 25)):
        cases().groupby("case").head(steps).to_csv(f"leaves_{fold}.csv", index=False)
    made = initialising(["leaves_TRAIN.csv", "leaves_TEST.csv"], Path("data.yaml"), force=False)
    assert made.facts["folds"] == "as the names of the files say"
    assert made.facts["cases"].startswith(f"{2 * cases()['case'].nunique()} of 20 to 22 steps")
    assert "folds" not in yaml.safe_load(Path("data.yaml").read_text())


@pytest.mark.parametrize("name", ["state", "is_fault"])
def test_a_flag_beside_what_is_forecast_is_pointed_out_as_a_label(name):
    frame = pd.DataFrame({"when": hours(), "y": wave(), name: (np.arange(ROWS) // 50 % 2)})
    frame.to_csv("data.csv", index=False)
    made = initialising(["data.csv"], Path("data.yaml"), force=False)
    assert f"{name!r} holds 2 classes; to tell them apart instead, write task: classification with label: {name}" in made.doubts


def test_an_infinite_value_hides_no_column():
    frame = pd.DataFrame({"when": hours(), "load": wave(), "b": 2 * wave()})
    frame.loc[10, "load"] = np.inf
    frame.to_csv("data.csv", index=False)
    made = initialising(["data.csv"], Path("data.yaml"), force=False)
    assert yaml.safe_load(Path("data.yaml").read_text())["source"]["target"] == "load"
    assert "'load' holds 1 infinite value; training refuses them and names the line" in made.doubts


@pytest.mark.parametrize(
    ("write", "shown"),
    [
        ("{:,.2f}".format, "thousands marks, as 1,5"),
        (lambda load: f"{load:,.1f}".replace(",", " "), "thousands marks, as 1 5"),
        (lambda load: f"{load:.0f} kWh", "a unit, as 15"),
        (lambda load: f"{load:.1f}%", "a unit, as 15"),
    ],
    ids=["points and commas", "blanks", "a unit", "percent"],
)
def test_numbers_that_can_not_be_read_are_pointed_out_where_another_column_is_forecast(write, shown):
    load = 1500 + 1400 * wave() / wave().max()
    load[0] = 1503.4
    frame = pd.DataFrame(
        {
            "when": hours(),
            "load": [write(one) for one in load],
            "b": wave(),
            "why": ["rain" if at % 2 else "sun" for at in range(ROWS)],
        }
    )
    frame.to_csv("data.csv", index=False, sep=";")
    made = initialising(["data.csv"], Path("data.yaml"), force=False)
    (doubt,) = [line for line in made.doubts if "looks like numbers" in line]
    assert doubt.startswith(f"'load' looks like numbers with {shown}")
    frame[["when", "load"]].to_csv("alone.csv", index=False, sep=";")
    with pytest.raises(Fault, match=r"nothing to forecast\. It has when, load\. 'load' looks like numbers with "):
        initialising(["alone.csv"], None, False)


@pytest.mark.parametrize(
    ("at", "series", "shown"),
    [
        ({}, ["a"], None),
        ({10: 500.0}, ["a"], "'load' holds a value that lies very far from all others, as 500:"),
        ({10: 500.0}, ["a", "b"], "'load' holds a value that lies very far"),
        ({10: -65535.0, 11: 65535.0}, ["a"], None),  # of so few rows two are no exception
        ({10: np.inf}, ["a"], None),  # said elsewhere
        ({10: 60.0}, ["a"], None),
    ],
)
def test_a_value_that_is_hardly_real_is_pointed_out(at, series, shown):
    load = wave()
    for place, value in at.items():
        load[place] = value
    loads = [load, 1e6 * wave()]  # which is far from the other's, and as usual among its own
    frame = pd.concat(
        [pd.DataFrame({"when": hours(), "id": name, "load": own}) for name, own in zip(series, loads, strict=False)]
    )
    frame.to_csv("data.csv", index=False)
    doubts = [line for line in initialising(["data.csv"], Path("data.yaml"), force=False).doubts if "very far" in line]
    assert len(doubts) == (shown is not None)
    assert all(line.startswith(shown) for line in doubts)


@pytest.mark.parametrize(
    "words", [["1a", "2b"], ["s1", "s2"], ["1st", "2nd"], ["north", "1 kW"], ["1,5", "2,5"], ["2024-01-01"], ["12 kW"]]
)
def test_words_that_are_no_numbers_are_left_alone(words):
    assert numbers_in(words) is None


def test_a_label_without_numbers_beside_it_is_no_classification():
    with pytest.raises(Fault, match="no column of numbers that varies"):
        init(pd.DataFrame({"when": hours(), "class": np.where(np.arange(ROWS) % 9 > 4, "a", "b")}))


def test_flags_in_words_are_covariates_and_no_channels():
    flags = np.where(np.arange(ROWS) % 5 == 0, "true", "false")
    columns = {"when": hours(), "x": wave(), "open": flags}
    assert init(pd.DataFrame(columns))["source"]["past_covariates"] == ["open"]
    columns["label"] = np.where(np.arange(ROWS) % 90 > 45, "a", "b")
    assert init(pd.DataFrame(columns))["source"]["channels"] == ["x"]


def test_numbers_beyond_single_precision_are_left_out():
    document = init(pd.DataFrame({"when": hours(), "load": wave(), "huge": wave() * 1e300}))
    assert said(document, "target", "past_covariates") == {"target": "load", "past_covariates": None}


def test_names_with_characters_that_can_not_be_printed_do_no_harm():
    document = init(pd.DataFrame({"when": hours(), "load": wave(), "x\x9d": wave(seed=1)}))
    assert document["source"]["past_covariates"] == ["x\x9d"]


def test_a_label_that_changes_within_series_makes_a_classification_of_streams():
    state = np.where(np.sin(np.arange(ROWS) / 30) > 0, "walk", "run")
    parts = [pd.DataFrame({"when": hours(), "machine": name, "x": wave(), "label": state}) for name in "abc"]
    expected = {"case": None, "timestamp": "when", "series_id": "machine"}
    assert said(init(pd.concat(parts)), *expected) == expected


def test_numbers_named_target_along_stamps_are_forecast():
    document = init(pd.DataFrame({"when": hours(), "target": np.arange(ROWS) % 5, "x": wave()}))
    assert "task" not in document
    assert document["source"]["target"] == "target"


def test_files_with_a_case_a_row_bring_their_test_cases_along():
    rows = "".join(f"{at % 2}\t" + "\t".join(map(str, wave(9, 4, at))) + "\n" for at in range(8))
    put(rows, "Toy_TRAIN.tsv")
    put(rows, "Toy_TEST.tsv")
    made = initialising(["Toy_TRAIN.tsv"], None, False)
    assert load_spec("Toy.yaml").task == "classification"
    assert yaml.safe_load(Path("Toy.yaml").read_text())["source"] == {"uri": ["Toy_TRAIN.tsv", "Toy_TEST.tsv"]}
    assert made.facts["cases"] == "16 of 9 steps, 1 channel, a case a row"


def test_a_ts_file_says_its_classes():
    body = "".join("1,2,3:4,5,6:" + "ab"[at % 2] + "\n" for at in range(6))
    put("@problemName x\n@classLabel true a b\n@data\n" + body, "vowels.ts")
    made = initialising(["vowels.ts"], None, False)
    assert (made.task, made.facts["label"]) == ("classification", "2 classes: a, b")
    load_spec("vowels.yaml")


REFUSED = [
    ("", "data.csv is empty \\(0 bytes\\); it needs a header and rows"),
    ("when,load\n", "data.csv has a header and no rows"),
    ("\n\n", "holds blank lines only"),
    ("2023-01-01,3.5\n2023-01-02,3.6\n", "has no header: its first line is 2023-01-01, 3.5"),
    ("# by x\n# of y\nwhen,load\n2023-01-01,1\n2023-01-02,2\n", "Take out the 2 lines above it"),
    ("name,size\nx,1\ny,2\n", "has no column of stamps: none holds ISO 8601.* It has name, size"),
    ("when,color\n2023-01-01,red\n2023-01-02,blue\n", "no column of numbers that varies.* It has when, color"),
    ("when,load\n2023-01-01,3\n2023-01-02,4\n2023-01-03,6\n", "A typical series has 3 steps of D; at least 12 are needed"),
    ("when,load\r2023-01-01,3\r2023-01-02,4\r", "carriage return alone"),
    (b"\x00\x01\x02PAR\xff\xfe\n\x00\x9f", "data.csv"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_can_not_be_told_is_refused_in_one_sentence(text, words):
    put(text, "data.csv")
    with pytest.raises(Fault, match=words):
        initialising(["data.csv"], None, False)
    assert not Path("data.yaml").exists()


def test_the_command_says_what_it_guessed_and_what_to_do_next(monkeypatch, capsys):
    put(pd.DataFrame({"when": hours(), "load": wave()}), "load data.csv")
    code, out, _ = convcast(monkeypatch, capsys, "init", "load data.csv")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if line)
    assert (code, lines["task"], lines["written"]) == (0, "forecasting", "load_data.yaml")
    assert lines["stamps"] == "'when', every h, taken for UTC"
    assert lines["next"].endswith("train load_data.yaml")
    code, out, _ = convcast(monkeypatch, capsys, "init", "load data.csv", "--force", "--json")
    assert (code, json.loads(out)["spec"]) == (0, "load_data.yaml")


def test_a_file_that_is_there_is_replaced_only_by_force(monkeypatch, capsys):
    put(pd.DataFrame({"when": hours(), "load": wave()}), "data.csv")
    Path("data.yaml").write_text("mine")
    code, _, err = convcast(monkeypatch, capsys, "init", "data.csv")
    assert (code, Path("data.yaml").read_text()) == (2, "mine")
    assert "data.yaml is there already and is left as it is. Give --force" in err
    assert convcast(monkeypatch, capsys, "init", "data.csv", "--force")[0] == 0
    assert yaml.safe_load(Path("data.yaml").read_text())["name"] == "data"
    code, _, err = convcast(monkeypatch, capsys, "init", "data.csv", "--output", "data.csv", "--force")
    assert (code, "a spec ends in .yaml" in err) == (2, True)


def test_paths_hold_from_the_folder_of_the_spec():
    Path("specs").mkdir()
    put(pd.DataFrame({"when": hours(), "load": wave()}), "data.csv")
    initialising(["data.csv"], Path("specs/mine.yaml"), False)
    assert yaml.safe_load(Path("specs/mine.yaml").read_text())["source"]["uri"] == str(Path("..", "data.csv"))
    assert load_spec("specs/mine.yaml").source.uri == str(Path("data.csv").resolve())


@pytest.mark.parametrize("value", [",", "\t", "", "y", "+01:00", ["a b", "#c"], "null", "Außen: x", "2014", 7])
def test_every_value_survives_being_written(value):
    (line,) = lines_of([Setting("key", value, "because # of: this")], "  ")
    assert yaml.safe_load(line) == {"key": value}
    assert "\n" not in dumped(value)


def test_long_reasons_stand_above_their_line():
    text = "\n".join(lines_of([Setting("key", "x", "word " * 40)], "  "))
    assert yaml.safe_load(text) == {"key": "x"}
    assert max(map(len, text.splitlines())) <= 120


def test_models_are_named_after_their_data():
    named = {
        ("a/load data.csv.gz",): "load_data",
        ("x_TRAIN.ts",): "x",
        ("m/2020.csv", "m/2021.csv"): "m",
        ("ä.csv",): "series",
    }
    assert {uris: name_of(list(uris)) for uris in named} == named


FORECASTS = {
    "elecdemand.csv": {"timestamp": "timestamp", "target": "Demand", "frequency": "30min", "series_id": None},
    "ETTh1.csv": {"timestamp": "date", "target": "OT", "frequency": "h", "series_id": None},
    "ETTm1.csv.gz": {"timestamp": "date", "target": "OT", "frequency": "15min", "series_id": None},
    "la_haute_borne.csv.gz": {
        "timestamp": "Date_time", "target": "P_avg", "series_id": "Wind_turbine_name", "gaps": "interpolate",
        "duplicates": "first", "missing": "mask", "past_covariates": ["Ba_avg", "Ws_avg", "Ot_avg"],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FORECASTS)
def test_real_series_are_read_as_the_spec_says(name, server):
    from flows.checking import checking

    if not (SHARED / name).exists():
        pytest.skip("../shared/data is not there")
    made = initialising([str(SHARED / name)], None, False)
    assert said(yaml.safe_load(Path(made.spec).read_text()), *FORECASTS[name]) == FORECASTS[name]
    assert checking(load_spec(made.spec)).set_aside == 0


@pytest.mark.parametrize("name", ["ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels", "OSULeaf"])
def test_real_cases_are_read_as_the_spec_says(name, server):
    from flows.checking import checking

    if not (SHARED / "tsc" / f"{name}.parquet").exists():
        pytest.skip("../shared/data is not there")
    made = initialising([str(SHARED / "tsc" / f"{name}.parquet")], None, False)
    source = load_spec(made.spec).source
    assert (source.case, source.step, source.label, source.split) == ("case", "step", "label", "split")
    assert source.channels in (("dim_0",), ("dim_*",))
    assert checking(load_spec(made.spec)).has_splits


def test_looking_at_data_takes_neither_torch_nor_prefect():
    import subprocess
    import sys

    root = Path(__file__).resolve().parent.parent
    code = "import sys, flows.initialising; print([m for m in ('torch', 'prefect') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_a_mark_at_the_beginning_is_no_part_of_a_packed_text():
    frame = pd.DataFrame({"when": hours(), "load": wave()})
    import gzip

    put(gzip.compress(codecs.BOM_UTF8 + frame.to_csv(index=False).encode()), "data.csv.gz")
    initialising(["data.csv.gz"], None, False)
    assert yaml.safe_load(Path("data.yaml").read_text())["source"]["timestamp"] == "when"
