"""Classification as a user has it: one YAML, the same flows, a model that goes live, labels in a table exactly once."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable

from flows.checking import checking
from flows.classifying import check_classes_of
from flows.explaining import explaining
from flows.exporting import check_parquet
from flows.forecasting import forecasting
from flows.showing import showing
from flows.spec import load_spec
from flows.training import training
from models.errors import Fault
from tasks.gather.opening import open_folds
from tasks.gather.task import Labelled
from tasks.held_out import identities, read_held_out
from tasks.promote import read_live
from tasks.storage import Store

TSC = Path(__file__).resolve().parents[2] / "shared" / "data" / "tsc"
NET, ROCKET = "residual-channels4-depth1", "rocket-features168"


def make_cases(num_cases=30, seed=0) -> pd.DataFrame:
    """Slow and fast waves of unequal length, each a case."""
    rng, parts = np.random.default_rng(seed), []
    for number in range(num_cases):
        steps, fast = rng.integers(12, 20), number % 2
        wave = np.sin(np.arange(steps) * (0.4 + 0.9 * fast) + rng.uniform(0, 6)) + rng.normal(0, 0.1, steps)
        part = pd.DataFrame({"case": f"c{number:02d}", "step": range(steps), "x": wave.round(4)})
        parts.append(part.assign(label="fast" if fast else "slow"))
    return pd.concat(parts, ignore_index=True)


def make_spec(folder: Path, frame: pd.DataFrame, name="waves", **sections):
    frame.to_csv(folder / f"{name}.csv", index=False)
    document = {
        "name": name,
        "store": "store",
        "task": "classification",
        "source": {"uri": f"{name}.csv", "case": "case", "step": "step", "label": "label"},
        "network": {"forms": [{"kind": "residual", "channels": 4, "depth": 1}, {"kind": "rocket", "features": 168}]},
        "fit": {"epochs": 3},
    }
    for key, values in sections.items():
        merged = isinstance(values, dict) and key != "network"
        document[key] = document.get(key, {}) | values if merged else values
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return load_spec(folder / f"{name}.yaml")


def with_odd_label(frame: pd.DataFrame) -> pd.DataFrame:
    """The cases in folds that a column names, a test case with a label that no other has."""
    label = frame["label"].mask(frame["case"] == "c25", "odd")
    return frame.assign(fold=np.where(frame["case"] < "c20", "train", "test"), label=label)


def labels_of(spec) -> pd.DataFrame:
    return DeltaTable(str(Path(spec.store) / "labels")).to_pandas().sort_values("series_id", ignore_index=True)


@pytest.fixture(scope="module")
def trained(server, tmp_path_factory):
    """A spec whose classifier has gone live, and what the run said."""
    folder = tmp_path_factory.mktemp("waves")
    spec = make_spec(folder, make_cases())
    return spec, training(spec)


def test_a_classifier_is_trained_chosen_and_goes_live(trained):
    spec, outcome = trained
    assert outcome.promoted, outcome.reason
    assert outcome.reason.startswith(f"Model {outcome.model[:8]} promoted: log loss on cross-validation ")
    each = {f"{step}_{form}" for step in ("train", "validate") for form in (NET, ROCKET)}
    steps = {"gather", "choose_classifier", "validate_classifier", "validate_majority", "promote", "report_classes"}
    assert {entry.step for entry in outcome.tasks} == steps | each | {"refit_classifier"}
    assert outcome.num_cases == {"train": 24, "validation": 0, "test": 6}
    assert set(outcome.scores) == {"new", "live", "majority", NET, ROCKET}
    assert outcome.scores["new"]["test"]["accuracy"] >= 5 / 6
    assert outcome.scores["majority"]["test"]["accuracy"] == 0.5
    assert read_live(Store(spec.store), spec.name).model.digest == outcome.model


def test_the_report_shows_by_which_shares_the_forms_are_blended(trained):
    spec, outcome = trained
    forms = read_live(Store(spec.store), spec.name).model.forms
    assert [form.name for form in forms] == [NET, ROCKET, "together"]
    assert forms[0].share + forms[1].share == pytest.approx(forms[2].share) == 1
    page = Path(outcome.report).read_text(encoding="utf-8")
    for form in forms:
        assert f"<td>{form.name}</td><td>{100 * form.share:.0f} %</td>" in page


def test_a_rerun_takes_everything_from_the_cache_and_says_so(trained):
    spec, first = trained
    again = training(spec)
    assert {entry.step: entry.state for entry in again.tasks if entry.state != "Cached"} == {"promote": "Completed"}
    assert again.model == first.model
    assert not again.promoted
    assert "is live already" in again.reason
    planned = {one.step: one.cached for one in explaining(spec)}
    assert [step for step, cached in planned.items() if not cached] == ["promote"]


def test_a_changed_setting_reruns_the_steps_that_see_it(trained):
    spec, _ = trained
    changed = spec.model_copy(update={"fit": spec.fit.model_copy(update={"learning_rate": 0.002})})
    planned = {one.step: one.because for one in explaining(changed)}
    assert planned["gather"] == ""
    assert planned[f"train_{NET}"] == "fit.learning_rate 0.003 -> 0.002"


def test_a_better_live_model_stays(trained):
    spec, _ = trained
    worse = spec.model_copy(
        update={"fit": spec.fit.model_copy(update={"max_steps": 1, "epochs": None}), "network": spec.network.forms[0]}
    )
    outcome = training(worse)
    assert not outcome.promoted
    assert outcome.reason.endswith("The previous model stays live.")
    assert set(outcome.scores) == {"new", "live", "majority", "rocket"}  # the rival is there whatever the spec names
    assert outcome.scores["live"]["validation"]["log_loss"] < outcome.scores["new"]["validation"]["log_loss"]


def test_the_test_fold_is_labelled_where_no_case_waits_and_exactly_once(trained):
    spec, _ = trained
    first, second = forecasting(spec), forecasting(spec)
    assert (first.rows_written, second.table_version) == (6, first.table_version + 1)
    rows = labels_of(spec)
    assert len(rows) == 6
    assert first.known == 6
    assert first.accuracy >= 5 / 6
    probabilities = dict(rows["probabilities"][0])
    assert sorted(probabilities) == ["fast", "slow"]
    assert sum(probabilities.values()) == pytest.approx(1)
    assert probabilities[rows["label"][0]] == rows["probability"][0] == max(probabilities.values())


def test_cases_of_other_files_are_labelled_whether_they_have_labels_or_not(trained, tmp_path):
    spec, outcome = trained
    new = make_cases(8, seed=5).assign(case=lambda frame: "new-" + frame["case"])
    new.drop(columns="label").to_parquet(tmp_path / "new.parquet", index=False)
    asked = spec.model_copy(update={"forecast": spec.forecast.model_copy(update={"uri": str(tmp_path / "new.parquet")})})
    written = forecasting(asked)
    assert (written.rows_written, written.known, written.accuracy) == (8, 0, None)
    rows = labels_of(spec)
    own = rows[rows["series_id"].str.startswith("new-")]
    truth = new.groupby("case")["label"].first()
    assert (own["label"].to_numpy() == truth[own["series_id"]].to_numpy()).mean() >= 7 / 8
    assert set(own["model"]) == {f"waves@{outcome.refitted[:12]}"}


def test_what_is_to_be_labelled_needs_the_channels_of_the_model(trained, tmp_path):
    spec, _ = trained
    make_cases(4).rename(columns={"x": "y"}).to_csv(tmp_path / "other.csv", index=False)
    asked = spec.model_copy(update={"forecast": spec.forecast.model_copy(update={"uri": str(tmp_path / "other.csv")})})
    with pytest.raises(Fault, match=r"other.csv has no column 'x'; it has case, step, y, label\."):
        forecasting(asked)


def test_a_classifier_is_shown_for_what_it_is(trained):
    spec, outcome = trained
    shown = showing(spec, None)
    assert (shown.digest, shown.live, shown.classes, shown.channels) == (outcome.refitted, True, ("fast", "slow"), ("x",))
    assert (shown.num_cases, shown.scored) == (30, outcome.model)
    before = showing(spec, outcome.model)
    assert (before.live, before.num_cases, before.scored) == (False, 24, "")
    assert sum(shown.weights) == pytest.approx(1)


def test_cases_without_a_label_stop_training_unless_they_are_left_out_and_are_then_labelled(server, tmp_path):
    frame = make_cases()
    frame.loc[frame["case"].isin(["c03", "c04"]), "label"] = None
    spec = make_spec(tmp_path, frame, network={"kind": "rocket", "features": 168})
    for flow in (training, checking):
        with pytest.raises(
            Fault, match=r"2 of 30 cases have no label: c03, c04\. Give them one, or set source.unlabelled: skip"
        ):
            flow(spec)
    spec = spec.model_copy(update={"source": spec.source.model_copy(update={"unlabelled": "skip"})})
    assert training(spec).left_out == 2
    assert forecasting(spec).rows_written == 2
    assert dict(labels_of(spec)[["series_id", "label"]].to_numpy()) == {"c03": "fast", "c04": "slow"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda frame: frame.assign(label="slow"), r"All 24 cases to train on have the label 'slow'; two classes are needed"),
        (with_odd_label, r"The test fold has labels that no cases to train on have: 'odd' \(1\)"),
    ],
)  # fmt: skip
def test_labels_that_can_not_be_learned_are_refused_by_check_and_train_alike(server, tmp_path, changed, message):
    frame = changed(make_cases())
    spec = make_spec(tmp_path, frame, source={"split": "fold"} if "fold" in frame else {})
    for flow in (checking, training):
        with pytest.raises(Fault, match=message):
            flow(spec)
    assert not list(Path(spec.store).glob("live/*"))


def test_a_stream_is_cut_into_windows_that_no_two_folds_share_and_its_newest_are_labelled(server, tmp_path):
    rng, steps = np.random.default_rng(0), np.arange(1200)
    fast = (steps // 100) % 2
    frame = pd.DataFrame(
        {"when": pd.date_range("2024-01-01", periods=1200, freq="10min"), "state": np.where(fast, "on", "off")}
    )
    frame["x"] = np.sin(np.cumsum(0.2 + 0.6 * fast)) + rng.normal(0, 0.1, 1200)
    frame.loc[1180:, "state"] = None
    stream = {"uri": "stream.csv", "timestamp": "when", "label": "state", "case": None, "step": None}
    windows, network = {"lookback": 24, "stride": 8, "label": "majority"}, {"kind": "rocket", "features": 168}
    spec = make_spec(tmp_path, frame, "stream", source=stream, windows=windows, network=network)
    outcome = training(spec)
    assert outcome.what == "windows"
    assert not outcome.cross_validated
    assert outcome.promoted, outcome.reason
    assert outcome.scores["new"]["test"]["balanced_accuracy"] > 0.8
    written = forecasting(spec)
    assert written.rows_written == 1  # of the windows after the last label, those with too few labelled steps
    rows = labels_of(spec)
    assert rows["origin"][0] == pd.Timestamp("2024-01-09 07:50", tz="UTC")
    assert rows["model_digest"][0] == outcome.refitted
    for origin in ("2024-01-05T00:03Z", "2024-01-09T07:10Z"):  # the label of the second is not known
        forecasting(spec.model_copy(update={"forecast": spec.forecast.model_copy(update={"origin": pd.Timestamp(origin)})}))
    rows = labels_of(spec)
    assert len(rows) == 3
    assert pd.Timestamp("2024-01-05 00:00", tz="UTC") in set(rows["origin"])  # whatever the stride
    earlier = rows[rows["origin"] < "2024-01-09 07:50"]
    assert set(earlier["model_digest"]) == {outcome.model}  # what is live may have learned from what came after


def test_a_spec_that_forecasts_and_one_that_classifies_share_no_line_of_models(trained):
    spec, _ = trained
    source = {"uri": "waves.csv", "timestamp": "step", "timestamp_format": "epoch_s", "target": "x", "series_id": "case"}
    folder = Path(spec.store).parent
    document = {"name": "waves", "store": "store", "source": source, "folds": {"validation": 2, "test": 2}}
    (folder / "other.yaml").write_text(yaml.safe_dump(document | {"windows": {"horizon": 2}}))
    for flow in (training, forecasting):
        with pytest.raises(
            Fault, match=r"The live model of 'waves' classifies; this spec forecasts\. Give the spec another name"
        ):
            flow(load_spec(folder / "other.yaml"))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"network": {"kind": "lstm"}}, r"network.kind is 'lstm'; it can be auto, reference, residual, rocket"),
        ({"fit": {"loss": "mae"}}, r"fit.loss is 'mae'; a classifier learns by cross-entropy"),
        ({"fit": {"devices": 2}}, r"fit.devices is 2; a classifier is trained by one process"),
        ({"fit": {"schedule": "plateau"}}, r"fit.schedule is 'plateau', and a classifier is not validated as it learns"),
        ({"windows": {"lookback": 5}}, r"windows are of a stream, and source.timestamp is not given"),
        ({"windows": {"lookbak": 5}}, r"windows.lookbak is no key of this spec \(did you mean 'lookback'\?\)"),
        ({"source": {"lable": "x"}}, r"source.lable is no key of this spec \(did you mean 'label'\?\)"),
        ({"task": "clustering"}, r"task is 'clustering'; it can be forecasting, classification"),
        ({"forecast": {"origin": "2024-01-01T00:00+00:00"}}, r"forecast.origin is of a stream"),
    ],
)
def test_a_wrong_spec_is_refused_in_a_sentence(tmp_path, section, message):
    with pytest.raises(Fault, match=message):
        make_spec(tmp_path, make_cases(4), **section)


@pytest.mark.skipif(not TSC.exists(), reason="the real sets lie beside the project and are not here")
def test_real_cases_of_several_channels_and_unequal_lengths_are_told_apart(server, tmp_path):
    document = {
        "name": "vowels",
        "store": str(tmp_path),
        "task": "classification",
        "network": {"kind": "rocket", "features": 840},
    }
    document["source"] = {
        "uri": str(TSC / "JapaneseVowels.parquet"),
        "case": "case",
        "step": "step",
        "label": "label",
        "split": "split",
    }
    (tmp_path / "vowels.yaml").write_text(yaml.safe_dump(document))
    outcome = training(load_spec(tmp_path / "vowels.yaml"))
    assert outcome.num_cases == {"train": 270, "validation": 0, "test": 370}
    assert outcome.scores["new"]["test"]["accuracy"] > 0.9


def test_a_live_classifier_goes_on_where_channels_have_changed_places_and_new_ones_are_refused_at_once(server, tmp_path):
    rocket = {"kind": "rocket", "features": 168}
    frame = make_cases(20)
    frame.insert(3, "y", np.random.default_rng(1).normal(size=len(frame)))
    first = training(make_spec(tmp_path, frame, network=rocket))
    again = training(make_spec(tmp_path, frame[["y", "x", "step", "label", "case"]], network=rocket))
    scores = [one.scores["new" if one is first else "live"]["validation"]["log_loss"] for one in (first, again)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
    spec = make_spec(tmp_path, frame.assign(z=1.0), network=rocket)
    with pytest.raises(Fault, match=r"channels x, y; .*\. Set source\.channels to \[x, y\] to go on with them, or give"):
        training(spec)
    assert len(Store(spec.store).manifests("train_classifier")) == 2


def test_classes_of_which_the_live_model_knows_none_are_refused():
    live = SimpleNamespace(classes=("1", "2"))
    check_classes_of(live, SimpleNamespace(classes={"2": 4, "3": 5}))
    with pytest.raises(Fault, match=r"model knows 1, 2; this source has 01, 02, none of them\. Give the spec another name"):
        check_classes_of(live, SimpleNamespace(classes={"01": 4, "02": 5}))


@pytest.mark.parametrize(("name", "taken"), [("w.parquet", True), ("w.PQ", True), ("w.csv", False), ("w", False)])
def test_windows_are_exported_under_a_name_that_says_parquet(name, taken):
    with nullcontext() if taken else pytest.raises(Fault, match=r"does not end in \.parquet\. Give --out such a name"):
        check_parquet(Path(name))


def test_a_live_classifier_is_held_to_what_it_said_of_cases_before_it_learned_from_them(server, tmp_path):
    rocket = {"kind": "rocket", "features": 168}
    first = training(make_spec(tmp_path, make_cases(20), network=rocket))
    spec = make_spec(tmp_path, make_cases(30), network=rocket)
    store, live = Store(spec.store), read_live(Store(spec.store), "waves").model
    second = training(spec)
    assert first.promoted
    assert second.num_cases["train"] > first.num_cases["train"]
    held = read_held_out(store, live)
    runs = [one for one in store.manifests("validate_classifier") if one["made_from"]["inputs"]["model"] == live.digest]
    [scored] = [one["receipt"] for one in runs if one["receipt"]["num_cases"]["validation"] == second.num_cases["train"]]
    table = pq.read_table(store.folder("validate_classifier", scored["key"]) / "predictions.parquet").to_pandas()
    by_name = table[table["fold"] == "validation"].set_index("id")
    data = open_folds(store, Labelled.model_validate(store.manifests("gather")[-1]["receipt"]), spec.folds)
    names = dict(zip(identities(data, data.of("train")), (data.table.ids[at] for at in data.of("train")), strict=True))
    known = [at for at, case in enumerate(held.cases) if case in names]
    assert len(known) > 10
    for at in known:
        assert by_name.loc[names[held.cases[at]], "probability"] == pytest.approx(held.probabilities[at].max())
