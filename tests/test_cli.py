"""The command line: what a user's mistake gets, and what a script reads."""

import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import make_document, make_frame

import tasks.ingest.files
import tasks.storage
from flows.cli import main


def convcast(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    monkeypatch.setattr(sys, "argv", ["convcast", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_imports_neither_prefect_nor_torch():
    code = "import sys; sys.argv = ['convcast', '--help']\nfrom flows.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'prefect', 'torch', 'pandas', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: convcast" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("given", "then"),
    [({}, ["PASSIVE", "2000"]), ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None]), ({"GOMP_SPINCOUNT": "7"}, [None, "7"])],
)
def test_threads_wait_politely_unless_the_environment_says_how(given, then):
    names = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
    code = "import os, sys; sys.argv = ['convcast', '--help']\nfrom flows.cli import main\n"
    code += f"try: main()\nexcept SystemExit: pass\nprint([os.environ.get(name) for name in {names}])"
    left = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=left | given)
    assert done.stdout.splitlines()[-1] == str(then)


def without(frame, row):
    return frame.drop(index=row)


def with_value(frame, row, column, value):
    frame = frame.astype({column: object})
    frame.loc[row, column] = value
    return frame


def half_as_often(frame):
    return pd.concat([frame[:300], frame[300::2]])


FRAME_FAULTS = [
    # a value that is no number: file, line, column, text
    (lambda f: with_value(f, 40, "load", "12,5o"), r"load.csv line 42, column 'load': '12,5o' is no number"),
    # repeated, unordered, absent stamps and two frequencies: series, stamp, how many, the setting that accepts it
    (
        lambda f: pd.concat([f[:10], f[9:]]),
        r"load, .*load.csv line 12 repeats line 11: 2024-01-01T09:00:00\+00:00\. .*source.duplicates=",
    ),
    (
        lambda f: pd.concat([f[5:10], f[:5], f[10:]]),
        r"load, .*load.csv line 7: 2024-01-01T00:00:00 UTC comes after .*source.order='sort'",
    ),
    (
        lambda f: without(f, [7, 8]),
        r"load, .*load.csv before line 9: has a gap: no row at 2024-01-01T07:00:00\+00:00 \(2 .*source.gaps='mask'",
    ),
    (half_as_often, r"load, .*load.csv before line 303: has two frequencies: .*source.gaps"),
    (
        lambda f: with_value(f, 3, "when", "2024-01-01 03:17"),
        r"load, .*load.csv line 5: 2024-01-01T03:17:00\+00:00 is not a whole number .*source.frequency",
    ),
    (lambda f: with_value(f, 3, "when", "yesterday"), r"'yesterday' is no ISO 8601 stamp"),
    # NaN in target or covariates: series, column, first stamp, count
    (
        lambda f: with_value(f, [30, 31], "load", np.nan),
        r"load, .*load.csv line 32, column 'load': no value at 2024-01-02T06:00:00\+00:00 \(2 in all\)",
    ),
    (lambda f: with_value(f, 30, "temperature", np.nan), r"line 32, column 'temperature': no value at .*00:00\. Fill them"),
    # too few rows: what there is, what is needed
    (lambda f: f[:200], r"load has 200 steps; lookback 72 \+ horizon 24 .* need 240"),
    # constant, infinite, beyond float32: series, column
    (lambda f: f.assign(load=5.0), r"load: the target is constant over the training steps"),
    (
        lambda f: with_value(f, 9, "load", "inf"),
        r"load, .*line 11, column 'load': inf at 2024-01-01T09:00:00\+00:00 is infinite",
    ),
    (lambda f: with_value(f, 9, "temperature", "1e39"), r"line 11, column 'temperature': 1e\+39 at .* beyond float32"),
    # a column missing, with the ones there are and the closest; twice
    (
        lambda f: f.rename(columns={"load": "Load"}),
        r"has no column 'load'; it has when, Load, temperature. Did you mean 'Load'",
    ),
    (lambda f: f.assign(again=f["load"]).rename(columns={"again": "load"}), r"has 2 columns named 'load'"),
    (lambda f: f[:0], r"load.csv has a header and no rows"),
]


@pytest.mark.parametrize(("spoil", "message"), FRAME_FAULTS)
def test_bad_data_gets_one_sentence_and_leaves_nothing_half_written(server, case, monkeypatch, capsys, spoil, message):
    case.write_frame(spoil(make_frame()))
    check_refused(convcast(monkeypatch, capsys, "train", case.yaml), message, case)


def check_refused(ran: tuple[int, str, str], message: str, case) -> None:
    """Exit code 2, the sentence, no traceback, nothing retried, and nothing that looks like an artifact."""
    code, out, err = ran
    assert code == 2, err
    assert re.search(message, err), err
    assert "Traceback" not in err + out
    assert "Retry" not in err
    assert not list(case.folder.rglob("live/*.json"))
    for manifest_less in (case.folder / "store").glob("*/*/"):
        assert manifest_less.parent.name in ("checkpoints",) or (manifest_less / "manifest.json").exists()


FILE_FAULTS = [
    (lambda c: c.csv.unlink(), r"load.csv does not exist"),
    (lambda c: c.csv.write_text(""), r"load.csv is empty \(0 bytes\)"),
    (lambda c: (c.csv.unlink(), c.csv.mkdir()), r"load.csv is a folder without any"),
    (lambda c: c.csv.write_bytes(b"when,load,temperature\n\xff\xfe\x00\n"), r"load.csv (is not UTF-8|line 2|near line)"),
    (
        lambda c: c.csv.write_text(c.csv.read_text() + "2024-02-01 00:00,3\n"),
        r"load.csv line 602 has 2 fields; the header has 3",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), FILE_FAULTS)
def test_a_bad_file_is_named_with_what_was_found(server, case, monkeypatch, capsys, spoil, message):
    spoil(case)
    check_refused(convcast(monkeypatch, capsys, "train", case.yaml), message, case)


def test_an_unreadable_file_is_named(server, case, monkeypatch, capsys):
    def denied(path, *mode):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    case.csv.chmod(0)
    if os.geteuid() == 0:  # the superuser may read everything, so for it the refusal is made up
        monkeypatch.setattr(tasks.ingest.files, "open", denied, raising=False)
    check_refused(convcast(monkeypatch, capsys, "train", case.yaml), "can not be read by this user", case)


def test_a_truncated_parquet_file_and_a_text_target_are_named(server, case, monkeypatch, capsys):
    case.write_spec(source__uri="load.parquet")
    path = case.folder / "load.parquet"
    frame = make_frame().assign(load="much")
    pq.write_table(pa.Table.from_pandas(frame), path)
    check_refused(convcast(monkeypatch, capsys, "train", case.yaml), r"column 'load' holds .*string; numbers are needed", case)
    pq.write_table(pa.Table.from_pandas(make_frame()), path)
    path.write_bytes(path.read_bytes()[:-40])
    check_refused(convcast(monkeypatch, capsys, "train", case.yaml), r"load.parquet is no whole Parquet file", case)


SPEC_FAULTS = [
    ({"fit__learing_rate": 1}, r"fit.learing_rate is no key .*did you mean 'learning_rate'.*allowed here: epochs"),
    ({"colour": "blue"}, r"colour is no key of this spec; allowed here: name, task, store, source"),
    ({"fit__epochs": 3}, r"give either fit.epochs or fit.max_steps"),
    (
        {"network__kind": "transformer"},
        r"network.kind is 'transformer'; it can be auto, reference, residual, periodic, pyramid, regression, linear",
    ),
    ({"windows__lookback": 0}, r"windows.lookback: Input should be greater than or equal to 1 \(0 given\)"),
    ({"source__timezone": "Mars/Olympus"}, r"source.timezone 'Mars/Olympus' is no zone"),
    ({"source__frequency": "fortnightly"}, r"source.frequency 'fortnightly' is no pandas alias"),
    ({"fit__seeds": [-1]}, r"fit.seeds.0: Input should be greater than or equal to 0"),
    ({"fit__learning_rate": float("inf")}, r"fit.learning_rate: Input should be a finite number"),
    ({"name": "n" * 300}, r"name: String should have at most 100 characters"),
    ({"store": "s3://bucket/prefix"}, r"store is 's3://bucket/prefix'; this version writes to local folders only"),
    ({"source__uri": "~nobody-of-this-name/x.csv"}, r"source.uri is '~nobody-of-this-name/x.csv', which is no path"),
    ({"network__depth": 40}, r"network.depth: Input should be less than or equal to 20"),
    ({"gate__steps": 7}, r"gate.steps is 7; with this horizon and season it can be 1, 12, 24"),
]


@pytest.mark.parametrize(("changes", "message"), SPEC_FAULTS)
def test_a_bad_spec_is_refused_before_any_task_starts(case, monkeypatch, capsys, changes, message):
    case.write_spec(**changes)
    check_refused(convcast(monkeypatch, capsys, "train", case.yaml), message, case)
    assert not (case.folder / "store").exists()


def test_a_network_that_does_not_fit_is_refused_before_any_task_starts(server, case, monkeypatch, capsys):
    case.write_spec(network__depth=1)
    message = r"Network sees 3 steps \(depth 1, kernel 3\) but has 48 rows to read .* Use depth=5"
    for command in ("train", "explain", "up"):
        check_refused(convcast(monkeypatch, capsys, command, case.yaml), message, case)
    assert not (case.folder / "store").exists()


def test_a_spec_that_is_absent_or_no_yaml_is_named(case, monkeypatch, capsys):
    check_refused(convcast(monkeypatch, capsys, "train", case.folder / "none.yaml"), "none.yaml does not exist", case)
    case.yaml.write_text("name: [unclosed")
    check_refused(convcast(monkeypatch, capsys, "train", case.yaml), "spec.yaml is no YAML", case)
    case.yaml.write_text("forecast: {origin: 2014-13-45}")
    check_refused(convcast(monkeypatch, capsys, "train", case.yaml), "spec.yaml is no YAML: month must be", case)


def test_a_horizon_beyond_all_memory_is_refused_by_the_folds_that_are_shorter(server, case, monkeypatch, capsys):
    case.write_spec(windows__horizon=10**9, network__depth=None)
    check_refused(
        convcast(monkeypatch, capsys, "train", case.yaml),
        r"folds.validation is 72 and windows.horizon 1,000,000,000 steps",
        case,
    )


def test_a_store_that_can_not_be_written_is_named(server, case, monkeypatch, capsys):
    (case.folder / "store").write_text("a file where the folder should be")
    code, _, err = convcast(monkeypatch, capsys, "train", case.yaml)
    assert code == 2
    assert f"Can not write {case.folder / 'store'}" in err
    assert "Traceback" not in err


def test_a_forecast_table_that_can_not_be_written_is_named(server, trained, monkeypatch, capsys):
    (trained.folder / "store" / "forecasts").write_text("a file where the table should be")
    code, _, err = convcast(monkeypatch, capsys, "forecast", trained.yaml, "--origin", "2024-01-20T00:00+00:00")
    assert code == 2, err
    assert f"Can not write {trained.folder / 'store' / 'forecasts'}" in err
    assert "Traceback" not in err


def test_a_full_disk_is_named_and_leaves_nothing_torn(server, case, monkeypatch, capsys):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tasks.storage.Draft, "write_bytes", lambda self, name, content: full(name, content))
    check_refused(convcast(monkeypatch, capsys, "train", case.yaml), r"Can not write .*read.*: the disk is full", case)


def test_a_loss_that_is_no_number_ends_in_a_sentence(server, case, monkeypatch, capsys):
    case.write_spec(fit__learning_rate=1e30, fit__clip_norm=1e30, fit__average=0.0, fit__schedule="constant")
    check_refused(convcast(monkeypatch, capsys, "train", case.yaml), r"at epoch \d+, step \d+", case)


def test_json_is_one_object_on_stdout(server, trained, monkeypatch, capsys):
    code, out, err = convcast(monkeypatch, capsys, "train", trained.yaml, "--json")
    assert code == 0, err
    trained_object = json.loads(out)
    assert trained_object["tasks"]["train"] == "Cached"
    assert set(trained_object["scores"]) == {"new", "live", "naive"}
    assert set(trained_object["scores"]["new"]["test"]["24"]) == {"mae", "rmse", "mase", "crps", "wql"}
    code, out, err = convcast(monkeypatch, capsys, "forecast", trained.yaml, "--json", "--origin", "2024-01-20T00:00+00:00")
    assert code == 0, err
    forecast_object = json.loads(out)
    assert forecast_object["rows_written"] == 24
    assert forecast_object["known"] == 24
    shared = {
        "run_id",
        "tasks",
        "model_digest",
        "promoted",
        "reason",
        "scores",
        "report",
        "forecast_table",
        "rows_written",
        "seconds",
    }
    assert shared <= set(trained_object)
    assert shared <= set(forecast_object)


def some_short_series(case, names) -> None:
    """A source of one long series, with a row ahead and a repeated one, and short ones."""
    long = make_frame().assign(site="long", load=lambda frame: frame["load"].where(frame.index < 599))
    short = [make_frame(100, seed=at).assign(site=name) for at, name in enumerate(names)]
    case.write_frame(pd.concat([long[:300], long[299:], *short]))
    case.write_spec(source__series_id="site", source__duplicates="first")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["tiny"], "1 series is too short for the folds and is left out{}: tiny"),
        (
            [f"s{at}" for at in range(7)],
            "7 series are too short for the folds and are left out{}: s0, s1, s2, s3, s4 and 2 more",
        ),
    ],
)
def test_series_too_short_rows_ahead_and_repairs_are_told_by_name_and_number(server, case, monkeypatch, capsys, names, said):
    some_short_series(case, names)
    code, out, err = convcast(monkeypatch, capsys, "check", case.yaml)
    assert code == 0, err
    assert out.splitlines()[3:7] == [
        "season: 24 steps (a day), found in the data",
        "1 repeated stamp",
        "1 row after the last target of its series, taken for a step that is yet to come",
        said.format(" of training"),
    ]
    code, out, err = convcast(monkeypatch, capsys, "train", case.yaml)
    assert code == 0, err
    assert said.format("") in out.splitlines()


def test_a_bad_origin_is_refused(server, trained, monkeypatch, capsys):
    for origin, message in {"soon": "no ISO 8601 stamp", "2024-01-20": "no offset", "2031-01-01T00:00Z": "has no 2031"}.items():
        code, _, err = convcast(monkeypatch, capsys, "forecast", trained.yaml, "--origin", origin)
        assert code == 2
        assert message in err


def test_the_command_works_from_any_folder(server, trained, monkeypatch, capsys, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    code, out, err = convcast(monkeypatch, capsys, "train", trained.yaml)
    assert code == 0, err
    assert "new model" in out
    assert "seasonal naive" in out
    assert str(trained.folder / "store" / "reports" / "small.html") in out
    for name in ("ingest", "train", "report"):
        assert [line for line in err.splitlines() if line.split()[:2] == [name, "Cached"]]


def test_report_shows_the_last_run_and_explain_what_the_next_would_do(server, trained, monkeypatch, capsys):
    code, out, _ = convcast(monkeypatch, capsys, "report", trained.yaml)
    assert code == 0
    assert "promoted: MAE over 24 steps" in out
    document = make_document(trained.folder, fit__learning_rate=0.002)
    trained.yaml.write_text(yaml.safe_dump(document))
    code, out, _ = convcast(monkeypatch, capsys, "explain", trained.yaml)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["ingest"].endswith("cached")
    assert lines["train"].endswith("will run, because fit.learning_rate 0.004 -> 0.002")


def test_windows_are_exported_in_the_users_own_units(server, trained, monkeypatch, capsys):
    path = trained.folder / "out" / "windows.parquet"
    code, _, err = convcast(monkeypatch, capsys, "windows", "export", trained.yaml, "--out", path, "--fold", "test")
    assert code == 0, err
    table = pd.read_parquet(path)
    frame = make_frame()
    assert len(table) == 72 - 24 + 1
    first = table.iloc[0]
    assert first["origin"] == pd.Timestamp("2024-01-22 23:00", tz="UTC")  # the last row before the test fold
    assert first["target[-0]"] == pytest.approx(frame["load"][527], abs=1e-4)
    assert first["target[+1]"] == pytest.approx(frame["load"][528], abs=1e-4)
    assert first["temperature[-71]"] == pytest.approx(frame["temperature"][456], abs=1e-3)
    assert first["temperature[+24]"] == pytest.approx(frame["temperature"][551], abs=1e-3)


def test_a_server_that_does_not_answer_is_named(case, monkeypatch, capsys):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    check_refused(
        convcast(monkeypatch, capsys, "train", case.yaml), r"No Prefect server answers at http://127.0.0.1:9/api/health", case
    )


def test_what_steps_say_is_shown_though_prefect_is_imported_after_the_run_began():
    code = "import logging\nfrom flows.console import run_log_on_stderr\n"
    code += (
        "with run_log_on_stderr():\n    from prefect import flow\n    logging.getLogger('prefect.task_runs').info('epoch 1')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "  epoch 1" in done.stderr.splitlines()


def test_figures_of_any_size_stand_apart_in_the_table_of_scores():
    from flows.console import score_table

    own = {"1": {"mae": 3.256e10, "rmse": 1.231e11, "mase": 0.9212}, "24": {"mae": 3.258e-10, "rmse": None, "mase": None}}
    lines = score_table({"new": {"test": own}, "live": None, "naive": {"test": own}}, "test")
    assert lines[2].split() == ["new", "model", "3.256e+10", "1.231e+11", "0.9212", "3.258e-10", "-", "-"]
    assert lines[0].index("24 steps") == lines[1].index("MAE", 25) == lines[2].index("3.258e-10")
