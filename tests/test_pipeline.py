"""The flows on the real thing: caching, healing, retries, kills, promotion and publication."""

import base64
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_frame
from deltalake import DeltaTable

import tasks.policy
import tasks.train
from flows.explaining import explaining
from flows.forecasting import forecasting
from flows.training import training
from models.errors import Fault
from models.training import Checkpoint
from tasks.checkpoints import load_checkpoint, save_checkpoint
from tasks.policy import Unkeyable, step
from tasks.promote import read_live
from tasks.storage import Store

INGESTED = ("read", "survey", "ingest")
SCALED = ("find_season", "normalise")
FROM_CALIBRATE = ("calibrate", "validate", "report")
FROM_TRAIN = ("train", *FROM_CALIBRATE)
LEARNED = (*FROM_TRAIN, "validate_naive")
ALL = (*INGESTED, *SCALED, "materialise_windows", *LEARNED, "refit")
BY_VERDICT = {"promote", "refit"}  # what they do depends on how the scores come out


def states(outcome) -> dict[str, str]:
    return {entry.step: entry.state for entry in outcome.tasks}


def ran(outcome) -> set[str]:
    return {entry.step for entry in outcome.tasks if entry.state == "Completed"} - BY_VERDICT


def test_a_first_run_does_every_step_and_makes_the_model_live(server, case):
    outcome = training(case.spec)
    assert states(outcome) == dict.fromkeys((*ALL, "promote"), "Completed")
    assert outcome.promoted
    assert outcome.scores["live"] is None
    assert read_live(case.store, "small").model.digest == outcome.model
    for who in ("new", "naive"):
        assert set(outcome.scores[who]) == {"validation", "test"}
        assert set(outcome.scores[who]["test"]) == {"1", "12", "24"}
        assert set(outcome.scores[who]["test"]["24"]) == {"mae", "rmse", "mase", "crps", "wql"}
    page = (case.folder / "store" / "reports" / "small.html").read_text()
    assert outcome.reason.replace("'", "&#39;") in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_second_run_finds_everything_cached_and_stays_with_its_model(server, trained):
    outcome = training(trained.spec)
    assert states(outcome) == dict.fromkeys(ALL, "Cached") | {"promote": "Completed"}
    assert not outcome.promoted
    assert "is live already" in outcome.reason
    assert outcome.scores["live"] == outcome.scores["new"]


def test_a_store_copied_elsewhere_is_still_cached(server, trained):
    assert str(trained.folder) not in json.dumps(trained.store.manifests("train"))
    assert ran(training(trained.spec)) == set()


@pytest.mark.parametrize(
    ("change", "rerun"),
    [
        ({"source__order": "sort"}, {"read", "ingest", "report"}),  # the same table comes out; the page prints the spec
        ({"source__missing": "interpolate"}, {"ingest", "report"}),  # nothing to fill
        ({"source__quarantine": True}, {"report"}),  # nothing to set aside
        ({"source__calendar": ["hour"]}, ("normalise", "materialise_windows", *LEARNED)),  # another channel
        ({"scaling": {"kind": "none"}}, ("normalise", *LEARNED)),  # windows hold the user's units
        ({"season": 12}, ("normalise", *LEARNED)),
        ({"folds__test": 48}, (*SCALED, *LEARNED)),
        ({"windows__lookback": 96}, ("materialise_windows", *LEARNED)),
        ({"network__channels": 9}, FROM_TRAIN),
        ({"fit__learning_rate": 0.002}, FROM_TRAIN),
        ({"fit__seeds": [1]}, FROM_TRAIN),
        ({"quantiles__rolling": False}, FROM_CALIBRATE),
        ({"quantiles__levels": [0.2, 0.8]}, FROM_CALIBRATE),
        ({"gate__metric": "rmse"}, {"report"}),
        ({"forecast__origin": "2024-01-20T00:00:00+00:00"}, set()),  # of no concern to training
    ],
)
def test_a_changed_setting_reruns_exactly_the_steps_it_reaches(server, trained, change, rerun):
    trained.write_spec(**change)
    planned = {one.step for one in explaining(trained.spec) if not one.cached} - BY_VERDICT
    outcome = training(trained.spec)
    own = {name for name in ran(outcome) if not name.endswith("_live")}
    assert own == set(rerun)
    # The plan can not know that a step that will run returns what it did before.
    assert {name for name in planned if not name.endswith("_live")} >= set(rerun)


def test_a_training_says_where_it_has_misgivings_of_its_precision(server, case, monkeypatch):
    said = []
    monkeypatch.setattr(tasks.train, "misgiving", lambda precision, device: f"{precision} is slow here")
    monkeypatch.setattr(tasks.train, "say", said.append)
    training(case.spec)
    assert "float32 is slow here" in said


def test_without_levels_a_model_has_no_quantiles_and_nothing_is_calibrated(server, case):
    case.write_spec(quantiles__levels=[], forecast__origin="2024-01-20T00:00:00+00:00")
    outcome = training(case.spec)
    assert "calibrate" not in states(outcome)
    assert outcome.intervals == {}
    assert outcome.scores["new"]["test"]["24"]["crps"] is None
    assert "How sure it is" not in (case.folder / "store" / "reports" / "small.html").read_text()
    forecasting(case.spec)
    assert not [name for name in DeltaTable(case.store.forecasts).to_pandas() if name.startswith("q")]


def test_a_forecast_has_a_column_for_each_level(server, trained):
    outcome = training(trained.spec)
    assert set(outcome.intervals) == {"95", "80", "60", "40", "20"}
    trained.write_spec(forecast__origin="2024-01-20T00:00:00+00:00")
    forecasting(trained.spec)
    table = DeltaTable(trained.store.forecasts).to_pandas()
    levels = ["q2_5", *(f"q{tens}0" for tens in range(1, 10)), "q97_5"]
    assert {name for name in table if name.startswith("q")} == set(levels)
    assert (table[levels].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert "How sure it is" in (trained.folder / "store" / "reports" / "small.html").read_text()


def test_changed_source_bytes_rerun_everything(server, trained):
    frame = pd.read_csv(trained.csv)
    frame.loc[5, "load"] += 1
    trained.write_frame(frame)
    assert {name for name in ran(training(trained.spec)) if not name.endswith("_live")} == set(ALL) - BY_VERDICT


def test_changed_code_reruns_the_steps_that_reach_it(server, trained, monkeypatch):
    def edited(file, original=tasks.policy.source_reached):
        return {name: "edited" if name == "models/fit.py" else digest for name, digest in original(file).items()}

    monkeypatch.setattr(tasks.policy, "source_reached", edited)
    planned = {one.step: one.because for one in explaining(trained.spec)}
    assert planned["materialise_windows"] == ""
    assert planned["train"] == "code of models/fit.py"
    assert ran(training(trained.spec)) == {"train", "calibrate", "validate", "validate_naive", "report"}


def test_another_library_version_reruns_the_steps_it_shapes(server, trained, monkeypatch):
    real = tasks.policy.version
    monkeypatch.setattr(tasks.policy, "version", lambda name: "0.0" if name == "safetensors" else real(name))
    assert {one.step: one.because for one in explaining(trained.spec)}["train"].startswith("safetensors ")
    assert ran(training(trained.spec)) == {"train", "calibrate"}


def test_explain_names_the_setting_that_changed_and_what_follows_from_it(server, trained):
    trained.write_spec(fit__learning_rate=0.002)
    planned = {one.step: one for one in explaining(trained.spec)}
    assert planned["train"].because == "fit.learning_rate 0.004 -> 0.002"
    assert planned["calibrate"].because == "train will run"
    assert planned["validate"].because == "calibrate will run"
    assert planned["materialise_windows"].cached
    frame = pd.read_csv(trained.csv)
    frame.loc[0, "load"] += 1
    trained.write_frame(frame)
    planned = {one.step: one.because for one in explaining(trained.spec)}
    assert planned["read"] == "new source bytes"
    assert planned["ingest"] == "survey will run; what that leaves as it was stays cached"


def artifacts(store: Store) -> list:
    steps = (*INGESTED, *SCALED, "materialise_windows", "train", "calibrate", "validate", "report")
    return sorted(path for one in steps for path in (store.root / one).rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", ["delete", "corrupt"])
def test_every_artifact_that_is_damaged_is_made_again_and_nothing_else(server, trained, damage):
    before = training(trained.spec)
    for path in artifacts(trained.store):
        content = path.read_bytes()
        if damage == "delete":
            path.unlink()
        else:
            path.write_bytes(content[:-3] + bytes([content[-3] ^ 255]) + content[-2:])
        outcome = training(trained.spec)
        rebuilt = {name.removesuffix("_naive") for name in ran(outcome)}
        assert rebuilt == {path.parent.parent.name}, path
        assert outcome.model == before.model
        assert outcome.scores == before.scores


def test_a_stored_result_that_is_garbage_is_a_miss(server, trained):
    for path in (trained.folder / "store" / "results").glob("normalise-*"):
        path.write_text("{ no json")
    assert ran(training(trained.spec)) == {"normalise"}


def test_a_record_that_names_pickle_is_never_loaded(server, trained, monkeypatch):
    record = next((trained.folder / "store" / "results").glob("normalise-*"))
    document = json.loads(record.read_text())
    document["metadata"]["serializer"] = {"type": "pickle", "picklelib": "cloudpickle", "picklelib_version": None}
    mark = trained.folder / "executed"
    document["result"] = base64.b64encode(f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()).decode()
    record.write_text(json.dumps(document))
    assert next(one.step for one in explaining(trained.spec) if not one.cached) == "normalise"
    assert ran(training(trained.spec)) == {"normalise"}
    assert not mark.exists()


def test_an_artifact_that_is_whole_is_taken_over_where_a_kill_lost_the_note_of_it(server, trained, monkeypatch):
    for path in (trained.folder / "store" / "results").glob("train-*"):
        path.unlink()
    monkeypatch.setattr("tasks.train.fit_seeds", lambda *arguments: pytest.fail("it trained again"))
    assert ran(training(trained.spec)) == {"train"}
    assert ran(training(trained.spec)) == set()


def test_a_store_that_keeps_no_results_is_named(server, case):
    (case.folder / "store").mkdir()
    (case.folder / "store" / "results").write_text("a file where the folder should be")
    with pytest.raises(Fault, match=r"store/results did not keep what read returned"):
        training(case.spec)


@pytest.mark.kills
def test_a_kill_in_the_middle_of_a_checkpoint_harms_no_later_run(server, case):
    die = "import os, signal; import tasks.storage as s; real = os.replace\n"
    die += "def dying(a, b):\n    'seed-0' in str(b) and os.path.exists(b) and os.kill(os.getpid(), signal.SIGKILL)\n"
    die += "    return real(a, b)\ns.os.replace = dying\n"
    killed = start_training(case, server, die + RUN)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((case.folder / "store" / "checkpoints").rglob("*seed-0*"))) == 2
    training(case.spec)
    assert not list((case.folder / "store" / "checkpoints").iterdir())


RUN = """
import sys
from flows.spec import load_spec
from flows.training import training
print(training(load_spec(sys.argv[1])).model_dump_json())
"""


def start_training(case, server, code=RUN) -> subprocess.Popen:
    environment = {**os.environ, "PREFECT_API_URL": server}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(case.yaml)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.kills
def test_a_training_killed_between_epochs_goes_on_and_ends_in_the_same_weights(server, case, trained_folder):
    uninterrupted = read_live(Store(trained_folder / "store"), "small").model.digest
    # The second checkpoint is the last thing that the process does.
    die = "import os, signal; import tasks.checkpoints as t; save = t.save_checkpoint\n"
    die += "def dying(path, checkpoint):\n    save(path, checkpoint)\n"
    die += "    checkpoint.epoch == 2 and os.kill(os.getpid(), signal.SIGKILL)\nt.save_checkpoint = dying\n"
    killed = start_training(case, server, die + RUN)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert list((case.folder / "store" / "checkpoints").rglob("*.safetensors"))
    assert not list((case.folder / "store" / "train").rglob("manifest.json"))
    begun = time.monotonic()
    outcome = training(case.spec)
    assert outcome.model == uninterrupted
    assert time.monotonic() - begun < 300  # the dead holder's lease ran out; nobody waits for it for ever
    history = json.loads(next((case.folder / "store" / "train").rglob("history.json")).read_text())
    assert [entry["epoch"] for entry in history["curves"][0]["epochs"]] == [1, 2, 3, 4]
    assert not (case.folder / "store" / "checkpoints").exists() or not list((case.folder / "store" / "checkpoints").iterdir())


def test_two_runs_at_once_compute_each_artifact_once(server, case):
    first, second = start_training(case, server), start_training(case, server)
    outcomes = []
    for process in (first, second):
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        outcomes.append(json.loads(out))
    done = [entry["state"] for outcome in outcomes for entry in outcome["tasks"] if entry["step"] == "train"]
    assert sorted(done) == ["Cached", "Completed"]
    assert sorted(outcome["promoted"] for outcome in outcomes) == [False, True]
    for name in ("ingest", "normalise", "materialise_windows", "train"):
        assert len(list((case.folder / "store" / name).iterdir())) == 1
    assert not list((case.folder / "store" / "locks").glob("*.lock"))


def test_what_may_pass_is_retried_and_bad_data_is_not(server, case, monkeypatch):
    import tasks.ingest.parts as module

    calls = []

    def flaky(source, piece, original=module.read_piece):
        calls.append(source)
        if len(calls) == 1:
            raise ConnectionError("the store was away")
        return original(source, piece)

    monkeypatch.setattr(module, "read_piece", flaky)
    quick = module.read.task.with_options(retry_delay_seconds=0.01)
    monkeypatch.setattr(module.read, "task", quick)
    training(case.spec)
    assert len(calls) == 2

    calls.clear()

    def bad(source, piece):
        calls.append(source)
        raise Fault("bad data")

    monkeypatch.setattr(module, "read_piece", bad)
    case.csv.write_text(case.csv.read_text() + "\n")
    with pytest.raises(Fault, match="bad data"):
        training(case.spec)
    assert len(calls) == 1


def test_a_step_that_can_not_be_keyed_stops_instead_of_running_uncached(tmp_path):
    @step()
    def odd(thing: object, store: Store) -> None:
        raise AssertionError("it ran")

    with pytest.raises(Unkeyable, match="was given a object"):
        odd(object(), Store(tmp_path))


def test_a_worse_model_is_not_promoted_and_the_live_one_stays(server, trained):
    before = read_live(trained.store, "small")
    trained.write_spec(fit__max_steps=1)
    outcome = training(trained.spec)
    assert not outcome.promoted
    assert "not promoted" in outcome.reason
    assert "The previous model stays live." in outcome.reason
    assert read_live(trained.store, "small") == before
    assert outcome.scores["live"]["validation"]["24"]["mae"] < outcome.scores["new"]["validation"]["24"]["mae"]


def test_a_live_model_with_other_covariates_and_lookback_is_held_against_the_same_origins(server, trained):
    before = training(trained.spec)
    trained.write_spec(source__calendar=["hour"], windows__lookback=96)
    outcome = training(trained.spec)
    assert states(outcome)["validate_live"] in ("Completed", "Cached")
    assert outcome.scores["live"] is not None
    assert outcome.model != before.model
    for metric, value in before.scores["new"]["test"]["24"].items():
        rival = read_json_scores(trained.store, before.model)["test"]["24"][metric]
        assert rival == pytest.approx(value, rel=1e-6)


def read_json_scores(store: Store, model: str) -> dict:
    return next(m["receipt"]["scores"] for m in store.manifests("validate") if m["receipt"]["model"] == model)


def test_a_new_series_does_not_keep_the_live_model_from_being_compared(server, case):
    case.write_spec(source__series_id="site")
    sites = {name: make_frame(seed=seed).assign(site=name) for seed, name in enumerate("abc")}
    case.write_frame(pd.concat([sites["a"], sites["b"]]))
    training(case.spec)
    case.write_frame(pd.concat(sites.values()))
    assert training(case.spec).scores["live"]["validation"]["24"]["mae"] > 0


def test_another_timezone_under_the_same_name_is_refused(server, trained):
    trained.write_spec(source__timezone="+01:00")
    with pytest.raises(Fault, match=r"has source.timezone UTC; this spec has \+01:00"):
        training(trained.spec)
    with pytest.raises(Fault, match=r"made for source.timezone UTC; load comes with \+01:00"):
        forecasting(trained.spec)


def test_a_forecast_of_more_steps_than_the_live_model_makes_is_refused(server, trained):
    trained.write_spec(windows__horizon=5)
    with pytest.raises(
        Fault, match=r"'small' has windows\.horizon 24; this spec has 5\. Put 24 back, or give the spec another name"
    ):
        forecasting(trained.spec)


def test_a_forecast_of_another_target_is_refused(server, trained):
    trained.write_spec(source__target="temperature", source__future_covariates=[])
    frame = make_frame().assign(temperature=lambda frame: frame["load"])
    trained.write_frame(frame)
    live = read_live(trained.store, "small")
    assert live.model.facts.columns.future == ("temperature",)
    with pytest.raises(Fault, match=r"live model was made for source.target load; temperature comes with temperature"):
        forecasting(trained.spec)
    with pytest.raises(Fault, match=r"live model of 'small' has source.target load; this spec has temperature"):
        training(trained.spec)


def test_a_checkpoint_with_a_flipped_bit_is_not_believed(tmp_path):
    path = tmp_path / "seed-0.safetensors"
    save_checkpoint(path, Checkpoint(2, {"network.w": torch.ones(4)}, [{"epoch": 1}, {"epoch": 2}], 1))
    assert load_checkpoint(path).epoch == 2
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert load_checkpoint(path) is None


def test_a_live_pointer_to_other_weights_than_the_store_holds_is_refused(server, trained):
    live = read_live(trained.store, "small")
    other = live.model.model_copy(update={"digest": "0" * 64})
    trained.store.put_document(live.model_copy(update={"model": other}).model_dump(mode="json"), "live", "small.json")
    with pytest.raises(Fault, match="Model 00000000 is not whole any more"):
        forecasting(trained.spec)


def test_a_source_that_grows_while_a_run_trains_is_not_compared_across_its_two_states(server, trained, monkeypatch):
    import flows.training

    def train_while_rows_arrive(*arguments, original=flows.training.train, **options):
        model = original(*arguments, **options)
        trained.write_frame(make_frame(648))
        return model

    live = read_live(trained.store, "small").model.digest
    monkeypatch.setattr(flows.training, "train", train_while_rows_arrive)
    trained.write_spec(windows__lookback=96, source__calendar=["hour"])
    frame = make_frame()
    frame.loc[0, "load"] += 1  # so that nothing made for the live model is in the store already
    trained.write_frame(frame)
    training(trained.spec)
    newest = [m["receipt"] for m in trained.store.manifests("validate") if m["receipt"]["model"] == live][-1]
    assert newest["num_origins"] == {"validation": 49, "test": 49}
    assert len(list((trained.store.root / "read").iterdir())) == 2  # the rows that arrived were never read


def test_another_horizon_under_the_same_name_is_refused_before_anything_runs(server, trained):
    trained.write_spec(windows__horizon=12)
    with pytest.raises(Fault, match=r"live model of 'small' has windows.horizon 24; this spec has 12"):
        training(trained.spec)


def test_a_failed_run_leaves_the_live_model_and_no_half_artifact(server, trained):
    before = (trained.folder / "store" / "live" / "small.json").read_bytes()
    frame = make_frame()
    frame.loc[100, "load"] = np.nan
    trained.write_frame(frame)
    with pytest.raises(Fault, match="no value at"):
        training(trained.spec)
    assert (trained.folder / "store" / "live" / "small.json").read_bytes() == before
    for name in ("ingest", "normalise", "materialise_windows", "train"):
        for folder in (trained.folder / "store" / name).iterdir():
            assert (folder / "manifest.json").exists()


def table_of(case) -> pd.DataFrame:
    return DeltaTable(case.store.forecasts).to_pandas()


def test_a_forecast_follows_the_last_target_and_twice_leaves_one_copy(server, trained):
    outcome = training(trained.spec)
    frame = make_frame(624)
    frame.loc[600:, "load"] = np.nan  # a live file: covariates go on, the target is empty
    frame.loc[:599] = make_frame()
    trained.write_frame(frame)
    first = forecasting(trained.spec)
    again = forecasting(trained.spec)
    table = table_of(trained).sort_values("step")
    assert (first.rows_written, again.rows_written, len(table)) == (24, 24, 24)
    assert table["step"].tolist() == list(range(1, 25))
    assert set(table["origin"]) == {pd.Timestamp("2024-01-25 23:00", tz="UTC")}
    assert table["timestamp"].tolist() == list(pd.date_range("2024-01-26", periods=24, freq="h", tz="UTC"))
    assert set(table["model_digest"]) == {outcome.refitted}
    assert set(table["model"]) == {f"small@{outcome.refitted[:12]}"}
    assert set(table["run_id"]) == {again.run_id}
    assert np.abs(table["forecast"] - make_frame(624)["load"][600:].to_numpy()).mean() < 1.5


def test_a_forecast_sees_nothing_after_its_origin_but_known_covariates(server, trained):
    origin = pd.Timestamp("2024-01-20 05:00", tz="UTC").to_pydatetime()
    spec = trained.spec.model_copy(update={"forecast": trained.spec.forecast.model_copy(update={"origin": origin})})
    forecasting(spec)
    before = table_of(trained).sort_values("step")["forecast"].to_numpy()
    frame = make_frame()
    after = frame["when"] > "2024-01-20 05:00"
    frame.loc[after, "load"] = 999.0
    frame.loc[frame["when"] > "2024-01-21 05:00", "temperature"] = -50.0
    trained.write_frame(frame)
    forecasting(spec)
    assert (table_of(trained).sort_values("step")["forecast"].to_numpy() == before).all()
    frame.loc[after, "temperature"] += 10
    trained.write_frame(frame)
    forecasting(spec)
    assert (table_of(trained).sort_values("step")["forecast"].to_numpy() != before).any()


def test_covariates_missing_over_the_horizon_are_each_named_and_nothing_is_written(server, trained):
    with pytest.raises(Fault, match=r"missing over the horizon of 24 steps: load temperature from 2024-01-26T00:00:00\+00:00"):
        forecasting(trained.spec)
    assert not (trained.folder / "store" / "forecasts").exists()


def test_a_live_model_that_was_damaged_is_named_and_can_be_trained_again(server, trained):
    origin = pd.Timestamp("2024-01-20 05:00", tz="UTC").to_pydatetime()
    spec = trained.spec.model_copy(update={"forecast": trained.spec.forecast.model_copy(update={"origin": origin})})
    weights = next((trained.folder / "store" / "calibrate").rglob("weights.safetensors"))
    weights.unlink()
    with pytest.raises(Fault, match=r"is not whole any more: a file of .*calibrate"):
        forecasting(spec)
    training(spec)
    assert forecasting(spec).rows_written == 24
    (trained.folder / "store" / "live" / "small.json").write_text("{}garbage")
    with pytest.raises(Fault, match=r"small.json is not JSON"):
        forecasting(spec)
    (trained.folder / "store" / "live" / "small.json").write_text('{"model": 3}')
    with pytest.raises(Fault, match=r"small.json is no live pointer"):
        forecasting(spec)


def test_a_forecast_without_a_live_model_says_so(server, case):
    with pytest.raises(Fault, match="No model of 'small' is live"):
        forecasting(case.spec)


def test_several_series_are_scaled_cut_trained_and_forecast_on_their_own(server, case):
    one, two = make_frame(seed=1), make_frame(seed=2)
    two["load"] = two["load"] * 100
    frame = pd.concat([one.assign(site="a"), two.assign(site="b")])
    case.write_frame(frame.sort_values("when", kind="stable"))
    case.write_spec(source__series_id="site", source__future_covariates=[], source__past_covariates=["temperature"])
    outcome = training(case.spec)
    assert outcome.scores["new"]["test"]["24"]["mase"] < 2
    written = forecasting(case.spec)
    table = table_of(case)
    assert (written.rows_written, written.num_series) == (48, 2)
    means = table.groupby("series_id")["forecast"].mean()
    assert 80 < means["b"] / means["a"] < 120


def test_a_loss_that_turns_nan_names_epoch_and_step_and_keeps_the_checkpoint(server, case, monkeypatch):
    from models.training import Training

    def learn(self, batch, original=Training.learn):
        loss = original(self, batch)
        return loss * float("nan") if self.step == 25 else loss

    monkeypatch.setattr(Training, "learn", learn)
    with pytest.raises(Fault, match=r"Loss became nan at epoch 3, step 25; the checkpoint of epoch 2 is kept\. Lower fit\."):
        training(case.spec)
    assert read_live(case.store, "small") is None
    (kept,) = (case.folder / "store" / "checkpoints").rglob("seed-0.safetensors")
    assert load_checkpoint(kept).epoch == 2


def test_a_step_size_beyond_all_bounds_says_that_no_epoch_was_finished(server, case):
    case.write_spec(fit__learning_rate=1e30, fit__clip_norm=1e30, fit__average=0.0, fit__schedule="constant")
    with pytest.raises(Fault, match=r"became (nan|inf) at epoch 1, step \d+; no epoch was finished"):
        training(case.spec)


def test_scores_and_a_link_to_the_report_stand_beside_the_run(server, case):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    case.write_spec(name="linked")
    outcome = training(case.spec)
    own = FlowRunFilter(id=FlowRunFilterId(any_=[outcome.run_id]))
    with get_client(sync_client=True) as client:
        found = {one.key: one for one in client.read_artifacts(flow_run_filter=own)}
    assert outcome.report in found["linked-report"].data
    rows = json.loads(found["linked-scores"].data)
    assert {(row["model"], row["fold"], row["steps"]) for row in rows} >= {("new", "test", 24), ("naive", "validation", 1)}
