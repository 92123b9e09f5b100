"""A search over a spec that classifies: what is turned, how a trial is judged, what is stopped, and what is written."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from labelled import waves
from test_classification import NET, ROCKET, make_cases, make_spec
from test_cli import check_refused, convcast

import tasks.fits
from flows.classification import ClassificationSpec
from flows.searching_classes import ClassSearch
from flows.spec import load_spec
from flows.training import training
from flows.tuned import summary, table
from flows.tuning import SearchSpec, Tuned, tuning
from models.classification.choice import choose_members, parts_of
from models.classification.crossing import cross_validated
from models.classification.difference import error_of, standard_errors
from models.classification.fit import fit_classifier
from models.classification.knobs import usual_class_knobs
from models.classification.specs import ReferenceClassifierSpec, ResidualClassifierSpec, RocketSpec, recipe
from models.knobs import value_of
from models.networks import FitSettings
from tasks.storage import Store
from tasks.study import AmongAlike, Tried
from tasks.train_classifier import ClassModel

pytestmark = pytest.mark.usefixtures("one_thread")
SMALLER = ("network.channels=2,4", "network.depth=1", "fit.epochs=1..3", "network.features=168..336")  # quick to try


@pytest.fixture(scope="module")
def searched(server, tmp_path_factory) -> tuple[ClassificationSpec, Tuned]:
    spec = make_spec(tmp_path_factory.mktemp("waves"), make_cases())
    return spec, tuning(spec, SearchSpec(trials=5, over=SMALLER))


def models_of(spec) -> list[ClassModel]:
    """What a store holds of trained classifiers."""
    return [ClassModel.model_validate(one["receipt"]) for one in Store(spec.store).manifests("train_classifier")]


def counting(function, calls):
    def counted(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counted


@pytest.mark.parametrize(
    "network",
    [ResidualClassifierSpec(channels=7, depth=8, dropout=0.9), ReferenceClassifierSpec(pool=3), RocketSpec(features=100)],
)
def test_what_a_spec_has_now_is_within_reach_of_every_knob(network):
    fit = recipe(network, FitSettings(weight_decay=0.3, batch_size=5))
    for knob in usual_class_knobs(network, fit):
        assert knob.takes(value_of(network, fit, knob.name)), knob


def test_a_rocket_is_fitted_in_one_go_so_only_its_features_are_turned(tmp_path):
    search = ClassSearch(make_spec(tmp_path, make_cases(4)), None, [])
    assert search.turnable(RocketSpec()) == ["network.features"]
    assert "fit.learning_rate" in search.turnable(ResidualClassifierSpec())
    assert not {"fit.loss", "fit.init", "fit.devices", "fit.seeds"} & set(search.turnable(ResidualClassifierSpec()))


def test_a_cross_validation_tells_how_good_it_is_after_each_part():
    cases, network, told = waves(unequal=True), RocketSpec(features=84), []
    fit = recipe(network, FitSettings())

    def learn(rest, name):
        return fit_classifier(network, fit, rest, 2, 0).weights

    found, parts = cross_validated(network, cases, 2, 3, learn, told.append), parts_of(cases.labels, 3)
    own = [choose_members([found[parts == part]], cases.labels[parts == part]).losses[0] for part in range(3)]
    assert told == [{"epoch": part + 1, "validation": own[part]} for part in range(3)]
    assert len(set(own)) == 3


def said(right: np.ndarray, labels: np.ndarray, sure: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of two classes, and the class, by where an answer is right."""
    taken = np.where(right, labels, 1 - labels)
    return np.where(np.eye(2, dtype=bool)[taken], sure, 1 - sure), taken


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "balanced_accuracy", "macro_f1"])
def test_the_better_of_two_is_so_by_any_metric_and_by_as_many_standard_errors(metric):
    labels = np.arange(400) % 2
    good, poor = said(np.arange(400) // 2 % 10 != 0, labels), said(np.arange(400) // 2 % 5 != 0, labels)
    assert error_of(*good[:1], labels, good[1], metric) < error_of(*poor[:1], labels, poor[1], metric)
    apart = standard_errors(good, poor, labels, metric, 1.0)
    assert apart == pytest.approx(0.1 / np.sqrt(0.1 * 0.9 / 400), rel=0.15)  # a tenth of the cases tells them apart
    assert standard_errors(poor, good, labels, metric, 1.0) == -apart
    assert standard_errors(good, poor, labels, metric, 4.0) == pytest.approx(apart / 2)  # each step in four windows
    assert standard_errors(good, good, labels, metric, 1.0) is None


def found(metric: str, *errors: float) -> Tuned:
    """A search that found these errors, the first of the spec as it stood."""
    trials = [Tried(trial=at, kind="rocket", settings={"network.features": 84 * at} if at else {}, error=error,
                    standard_errors=2.5 if at else None) for at, error in enumerate(errors)]  # fmt: skip
    best = min(trials, key=lambda one: one.error)
    return Tuned(
        name="waves", run_id="", tasks=[], metric=metric, seed=0, trials=trials, best=best, network=None, fit=None,
        wanted=len(trials), interrupted=False, seconds=1.0,
    )  # fmt: skip


def test_a_table_shows_the_metric_of_the_gate_and_whether_it_went_up_or_down():
    tuned = found("accuracy", 0.1, 0.08, 0.15)
    assert table(tuned, 5) == [
        "trial  accuracy to start  settings",
        "    1  0.92     +0.0200   network.features 84",
        "    0  0.9      -         the spec as it stood",
        "    2  0.85     -0.0500   network.features 168",
    ]
    lines = summary(tuned, "waves.yaml")
    assert lines[1].startswith("Accuracy, the higher the better, of cases that a model had not learned from; the test fold")
    assert lines[2] == (
        "Trial 1 is the best: 0.92 against 0.9, 0.0200 higher than the spec as it stood, 2.5 standard errors of the difference."
    )
    assert summary(found("macro_f1", 0.1), "waves.yaml")[1].startswith("Macro F1, the higher the better, of cases")
    assert table(found("log_loss", 0.4, 0.3), 5)[:2] == [
        "trial  log-loss to start  settings",
        "    1  0.3      -25.0 %   network.features 84",
    ]
    lines = summary(found("log_loss", 0.4, 0.5), "waves.yaml")
    assert lines[1].startswith("Log-loss, the lower the better, of cases")
    assert lines[2] == "Nothing was better than the spec as it stood (0.4)."


def test_the_first_trial_is_the_spec_as_it_stands_its_forms_are_others_and_the_best_is_no_worse(searched):
    _, tuned = searched
    assert [(one.trial, one.kind, one.form) for one in tuned.trials[:3]] == [
        (0, "auto", ""), (0, "residual", NET), (0, "rocket", ROCKET),
    ]  # fmt: skip
    assert [one.trial for one in tuned.trials[3:]] == [1, 2, 3, 4]
    assert {one.kind for one in tuned.trials[3:]} <= {"residual", "rocket"}
    assert tuned.best.error == min(one.error for one in tuned.trials if one.error is not None) <= tuned.trials[0].error
    again = tuning(searched[0], SearchSpec(trials=5, over=SMALLER))
    assert again.trials == tuned.trials
    assert {entry.state for entry in again.tasks if not entry.note.startswith("-")} == {"Cached"}


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_a_trial_is_judged_by_what_the_gate_goes_by(searched, metric):
    spec, _ = searched
    spec = spec.model_copy(update={"gate": spec.gate.model_copy(update={"metric": metric})})
    start = tuning(spec, SearchSpec(trials=1)).trials
    scores = training(spec).scores
    for one, who in zip(start, ("new", NET, ROCKET), strict=True):
        value = scores[who]["validation"][metric]
        assert one.error == pytest.approx(1 - value if metric == "accuracy" else value)


def test_the_test_fold_has_no_part_in_a_search(server, tmp_path):
    frame = make_cases()
    frame["fold"] = np.where(frame["case"] < "c20", "train", "test")
    other = frame.assign(x=frame["x"].where(frame["fold"] == "train", 7.0))
    ended = []
    for name, own in (("one", frame), ("two", other)):
        (tmp_path / name).mkdir()
        spec = make_spec(tmp_path / name, own, source={"split": "fold"}, network={"kind": "rocket", "features": 84})
        ended.append([(one.settings, one.error) for one in tuning(spec, SearchSpec(trials=3)).trials])
    assert ended[0] == ended[1]


def test_a_trial_is_stopped_between_parts_and_leaves_no_model(server, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(AmongAlike, "prune", lambda self, study, trial: True)
    monkeypatch.setattr(tasks.fits, "fit_once", counting(tasks.fits.fit_once, begun))
    spec = make_spec(tmp_path, make_cases(), network={"kind": "residual", "channels": 4, "depth": 1})
    tuned = tuning(spec, SearchSpec(trials=3, over=SMALLER[:3]))
    assert [(one.state, one.error) for one in tuned.trials[1:]] == [("stopped", None)] * 2
    assert [name for _, _, name, _ in begun] == ["seed-0", "part-0", "part-1", "part-2", "part-0", "part-0"]
    assert len(models_of(spec)) == 1
    assert not list((Path(spec.store) / "checkpoints").iterdir())


def test_a_trial_is_held_against_all_others_by_the_same_part_of_the_cases(searched):
    spec, _ = searched
    search, model = ClassSearch(spec, Store(spec.store), []), models_of(spec)[0]
    first, second = search.recipes
    assert list(search.curve(model, *first)) == [3, 6, 10]  # tenths of three parts; a trial may be stopped from the third on
    assert search.alike(*first) == search.alike(*second)


def test_parts_that_end_out_of_order_wait_for_those_before_them(searched):
    search = ClassSearch(searched[0], None, [])
    ended = [{"epoch": part, "validation": loss} for part, loss in ((2, 0.4), (1, 0.2), (3, 0.9))]
    seen = [search.parts(ended[:many], 3) for many in (1, 2, 3)]
    assert seen == [{}, {3: 0.2, 6: pytest.approx(0.3)}, {3: 0.2, 6: pytest.approx(0.3), 10: pytest.approx(0.5)}]


def test_a_fold_that_is_held_out_is_asked_once_and_stops_no_trial(server, tmp_path):
    spec = make_spec(tmp_path, make_cases(), network={"kind": "rocket", "features": 84}, folds={"validation": 0.2})
    tuned = tuning(spec, SearchSpec(trials=2))
    assert [one.state for one in tuned.trials] == ["completed"] * 2
    search = ClassSearch(spec, Store(spec.store), [])
    assert search.curve(models_of(spec)[0], *search.recipes[0]) == {}


def test_a_trial_that_diverges_is_noted_and_the_search_goes_on(server, tmp_path):
    spec = make_spec(tmp_path, make_cases(), network={"kind": "residual", "channels": 2, "depth": 1})
    tuned = tuning(spec, SearchSpec(trials=3, over=("fit.learning_rate=1e36..1e37", *SMALLER[:3])))
    assert [one.state for one in tuned.trials] == ["completed", "diverged", "diverged"]


def test_an_interrupted_search_keeps_what_it_found_and_goes_on(searched, tmp_path, monkeypatch):
    other, seen = make_spec(tmp_path, make_cases()), []

    def interrupt(seed, entry, parts):
        seen.append(entry)
        if len(seen) == 2:  # parts of the first trial
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tasks.fits, "notice", interrupt)
        cut = tuning(other, SearchSpec(trials=5, over=SMALLER))
    assert cut.interrupted
    assert {one.trial for one in cut.trials} == {0}
    whole = tuning(other, SearchSpec(trials=5, over=SMALLER))
    assert not whole.interrupted
    assert whole.trials == searched[1].trials


def test_the_file_is_the_users_own_with_the_best_settings_and_trains_from_the_cache(server, tmp_path, monkeypatch, capsys):
    weak, fit = {"kind": "residual", "channels": 1, "depth": 1}, {"epochs": 1, "learning_rate": 1e-6}
    before = make_spec(tmp_path, make_cases(), network=weak, fit=fit, forecast={"uri": "new.csv"})
    (tmp_path / "waves.yaml").write_text("# Our waves.\n" + (tmp_path / "waves.yaml").read_text())
    (tmp_path / "other").mkdir()
    path = tmp_path / "other" / "best.yaml"
    over = [part for one in ("network.channels=4", "fit.epochs=6", "fit.learning_rate=0.01") for part in ("--over", one)]
    code, out, err = convcast(
        monkeypatch, capsys, "tune", tmp_path / "waves.yaml", "--trials", 3, "--output", path, *over
    )  # fmt: skip
    assert code == 0, err
    assert "Log-loss, the lower the better" in out
    text, tuned = path.read_text(), load_spec(path)
    assert "# Our waves.\nname: waves\n" in text
    assert tuned.recipes != before.recipes
    assert (tuned.network.channels, tuned.fit.epochs) == (4, 6)
    same = {"network": before.network, "fit": before.fit}
    assert tuned.model_copy(update=same) == before  # source, store and what is to be labelled, though it lies elsewhere
    code, out, err = convcast(monkeypatch, capsys, "train", path)
    assert code == 0, err
    assert [line for line in err.splitlines() if line.split()[:2] == ["train_classifier", "Cached"]]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (
            "fit.learing_rate=1..2",
            r"did you mean 'fit.learning_rate'\?.*it can be network.channels, .*network.features, fit.ep",
        ),
        ("fit.loss=mae", r"fit.loss is nothing that a search turns"),
        ("network.kind=rocket", r"network.kind is nothing that a search turns"),
        ("network.depth=3..9", r"network.depth can not be 9: Input should be less than or equal to 8"),
        ("fit.schedule=plateau", r"fit.schedule is 'plateau', and a classifier is not validated as it learns; use"),
    ],
)
def test_what_can_not_be_searched_is_said_in_a_sentence(server, tmp_path, monkeypatch, capsys, over, message):
    spec = make_spec(tmp_path, make_cases(10))
    ran = convcast(monkeypatch, capsys, "tune", tmp_path / "waves.yaml", "--over", over)
    assert not models_of(spec)  # it is said before anything is trained
    check_refused(ran, message, SimpleNamespace(folder=tmp_path))
