"""A search over a spec: what is tried, what is stopped, what goes on where it was, and what is written."""

import optuna
import pytest
import yaml
from conftest import Case, make_document, make_frame
from prefect import flow
from test_cli import check_refused, convcast

import tasks.seeds
import tasks.study
import tasks.train
from flows.spec import load_spec
from flows.tuned import place_for, write_tuned
from flows.tuning import SearchSpec, Tuned, tuning
from models.errors import Fault
from models.knobs import Knob, parse_over, turned, usual_knobs
from models.networks import FitSettings, recipe
from models.specs import FitSpec, LinearSpec, PeriodicSpec, ResidualSpec
from tasks.journal import Journal, journal
from tasks.study import AmongAlike, parts_of
from tasks.watching import Stopped, watched_by

LINEAR = {
    "network": {"kind": "linear"},
    "fit": {"learning_rate": 1e-4, "max_steps": 40, "steps_per_epoch": 4, "batch_size": 16, "device": "cpu"},
}
FASTER = ("--over", "fit.learning_rate=0.002..0.004", "--over", "network.noise=0")  # so that something better is found


@pytest.fixture
def small(case) -> Case:
    """A pipeline whose trials take a fraction of a second."""
    case.write_spec(**LINEAR)
    return case


@pytest.fixture
def searched(server, small) -> tuple[Case, Tuned]:
    return small, tuning(small.spec, SearchSpec(trials=4))


def trained(case: Case) -> int:
    """How many models a store holds."""
    return len(case.store.manifests("train"))


def test_the_first_trial_is_the_spec_as_it_stands_and_the_best_is_no_worse_on_validation(searched):
    _, tuned = searched
    assert [one.trial for one in tuned.trials] == [0, 1, 2, 3]
    assert tuned.trials[0].settings == {}
    assert tuned.trials[0].error is not None
    assert tuned.best.error == min(one.error for one in tuned.trials if one.error is not None) <= tuned.trials[0].error
    assert all(one.settings for one in tuned.trials[1:])


def test_errors_are_those_that_forms_are_chosen_by(server, case):
    case.write_spec(**LINEAR | {"network": {"kind": "auto", "forms": [{"kind": "linear"}, {"kind": "linear", "noise": 0.1}]}})
    tuned = tuning(case.spec, SearchSpec(trials=1))
    (chosen,) = case.store.manifests("choose")
    alone = {one.form: one.error for one in tuned.trials if one.form}
    assert alone == {one["name"]: one["error"] for one in chosen["receipt"]["forms"]}
    assert tuned.trials[0].kind == "auto"
    assert trained(case) == 2  # each form by itself is a trial at no cost


def test_the_same_seed_tries_the_same_and_another_seed_something_else(searched, tmp_path_factory):
    case, tuned = searched
    other = Case(tmp_path_factory.mktemp("other"))
    other.write_spec(**LINEAR)
    assert tuning(other.spec, SearchSpec(trials=4)).trials == tuned.trials
    assert tuning(case.spec, SearchSpec(trials=2, seed=1)).trials[1].settings != tuned.trials[1].settings


def test_a_search_run_again_trains_nothing_and_more_trials_go_on_from_it(searched):
    case, tuned = searched
    before = trained(case)
    again = tuning(case.spec, SearchSpec(trials=4))
    assert again.trials == tuned.trials
    assert {entry.state for entry in again.tasks} == {"Cached"}
    assert trained(case) == before
    more = tuning(case.spec, SearchSpec(trials=5)).trials
    assert more[:-1] == tuned.trials
    assert more[-1].trial == 4


def test_an_interrupted_search_goes_on_and_ends_as_one_that_was_not(searched, tmp_path_factory, monkeypatch):
    other = Case(tmp_path_factory.mktemp("other"))
    other.write_spec(**LINEAR)
    seen = []

    def interrupt(seed, entry, epochs):
        seen.append(entry)
        if len(seen) == 15:  # ten epochs of the start, five of the first trial
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tasks.seeds, "notice", interrupt)
        cut = tuning(other.spec, SearchSpec(trials=4))
    assert cut.interrupted
    assert [one.trial for one in cut.trials] == [0]
    assert list((other.folder / "store" / "checkpoints").iterdir())
    whole = tuning(other.spec, SearchSpec(trials=4))
    assert not whole.interrupted
    assert whole.trials == searched[1].trials


def test_an_interrupt_before_the_first_trial_ends_the_run(server, small, monkeypatch):
    monkeypatch.setattr(tasks.seeds, "notice", lambda *seen: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tuning(small.spec, SearchSpec(trials=4))


def test_two_searches_for_the_same_wait_for_each_other(searched):
    case, _ = searched
    with (
        tasks.study.open_study(case.store, "small", {"seed": 0}, 0),
        pytest.raises(Fault, match="Another convcast tune of 'small'"),
        tasks.study.open_study(case.store, "small", {"seed": 0}, 0),
    ):
        pass


def test_a_stopped_trial_leaves_no_model_and_is_neither_failed_nor_retried(server, small, monkeypatch):
    begun = []
    monkeypatch.setattr(AmongAlike, "prune", lambda self, study, trial: True)
    monkeypatch.setattr(tasks.train, "fit_seeds", counting(tasks.train.fit_seeds, begun))
    tuned = tuning(small.spec, SearchSpec(trials=3))
    assert [(one.state, one.error) for one in tuned.trials[1:]] == [("stopped", None)] * 2
    assert tuned.best.trial == 0
    assert len(begun) == 3  # the start and two trials, each once
    assert trained(small) == 1
    assert not list((small.folder / "store" / "checkpoints").iterdir())
    assert len(list((small.folder / "store" / "results").glob("train-*"))) == 1
    assert [entry.state for entry in tuned.tasks if entry.step.startswith("trial")] == ["Stopped"] * 2


def counting(function, calls):
    def counted(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counted


def test_prefect_holds_a_stopped_training_for_cancelled(server, searched):
    case, _ = searched
    spec = case.spec

    @flow
    def stopping():
        from flows.preparing import prepare, stock_of

        made = prepare(spec, spec.source, stock_of(spec, case.store), spec.windows, case.store)
        network, fit = spec.recipes[0]
        fit = fit.model_copy(update={"learning_rate": 0.5})
        bound = tasks.train.train.signature.bind(
            made.windows, made.normalised, spec.folds, spec.source.target, made.period, network, fit, case.store
        )
        with watched_by(stop):
            return tasks.train.train.run(bound.arguments, "train")[0].is_cancelled()

    def stop(seed, entry, epochs):
        raise Stopped("enough")

    token = journal.set(Journal())
    assert stopping()
    journal.reset(token)


def test_a_trial_that_diverges_is_noted_and_the_search_goes_on(server, small):
    tuned = tuning(small.spec, SearchSpec(trials=3, over=("fit.learning_rate=1e36..1e37",)))
    assert [one.state for one in tuned.trials] == ["completed", "diverged", "diverged"]
    assert [entry.state for entry in tuned.tasks if entry.step.startswith("trial")] == ["Diverged"] * 2


def test_the_test_fold_has_no_part_in_a_search(searched, tmp_path_factory):
    other = Case(tmp_path_factory.mktemp("other"))
    other.write_spec(**LINEAR)
    frame = make_frame()
    frame.loc[528:, "load"] += 100
    other.write_frame(frame)
    found = tuning(other.spec, SearchSpec(trials=4)).trials
    assert [one.settings for one in found] == [one.settings for one in searched[1].trials]
    assert [one.error for one in found] == pytest.approx([one.error for one in searched[1].trials], rel=1e-5)


@pytest.mark.parametrize(
    ("losses", "alike", "stopped"),
    [
        ({3: 0.31}, "a", True),  # worse than the median of four, 0.3
        ({3: 0.29}, "a", False),
        ({2: 0.9}, "a", False),  # too early to tell
        ({1: 0.1, 3: 0.9}, "a", False),  # it has been better, and the best epoch is kept
        ({3: 0.9}, "b", False),  # nothing like it was tried
        ({10: 0.9}, "a", False),  # it is done
    ],
)
def test_a_trial_is_stopped_where_it_does_worse_than_half_of_those_like_it(losses, alike, stopped):
    study = optuna.create_study(pruner=AmongAlike())
    for loss in (0.1, 0.3, 0.3, 0.5):
        about = {"alike": "a"}
        study.add_trial(optuna.create_trial(value=loss, intermediate_values={3: loss, 9: loss}, user_attrs=about))
    trial = study.ask()
    trial.set_user_attr("alike", alike)
    for part, loss in losses.items():
        trial.report(loss, part)
    assert trial.should_prune() == stopped


def test_losses_are_compared_by_the_tenths_of_a_training():
    history = [{"epoch": epoch, "validation": 1 / epoch} for epoch in (1, 2, 3, 4)]
    assert parts_of(history, 4) == {2: 1, 5: 1 / 2, 7: 1 / 3, 10: 1 / 4}
    assert list(parts_of([{"epoch": epoch, "validation": 0.0} for epoch in range(1, 21)], 20)) == list(range(11))


@pytest.mark.parametrize("network", [LinearSpec(noise=3), PeriodicSpec(), ResidualSpec(lookback=50, dropout=0.9)])
def test_what_a_spec_has_now_is_within_reach_of_every_knob(network):
    fit = recipe(network, FitSettings(weight_decay=0.3))
    for knob in usual_knobs(network, fit, season=24, lookback=200, num_series=2):
        section, _, key = knob.name.partition(".")
        assert knob.takes(getattr(network if section == "network" else fit, key)), knob


def test_lookbacks_are_whole_seasons_that_the_windows_hold():
    knobs = {knob.name: knob for knob in usual_knobs(LinearSpec(), recipe(LinearSpec(), FitSettings()), 24, 200, 1)}
    assert knobs["network.lookback"].choices == (None, 48, 96, 192)


@pytest.mark.parametrize(
    ("text", "knob"),
    [
        ("fit.learning_rate=1e-4..1e-1", Knob(name="fit.learning_rate", low=1e-4, high=1e-1, log=True)),
        ("network.dropout = 0..0.5", Knob(name="network.dropout", low=0, high=0.5)),
        ("network.channels=8..64", Knob(name="network.channels", low=8, high=64, whole=True)),
        ("network.channels=16,32", Knob(name="network.channels", choices=(16, 32))),
        ("network.lookback=null,48", Knob(name="network.lookback", choices=(None, 48))),
        ("fit.loss=mae", Knob(name="fit.loss", choices=("mae",))),
        ("fit.weight_decay=0,1e-4", Knob(name="fit.weight_decay", choices=(0, 1e-4))),
    ],
)
def test_what_is_searched_can_be_said_on_the_command_line(text, knob):
    assert parse_over(text) == knob


def test_epochs_take_the_place_of_steps():
    _, said = turned(LinearSpec(), FitSettings(max_steps=40), {"fit.epochs": 3})
    assert (said.epochs, said.max_steps) == (3, None)
    assert recipe(LinearSpec(), said) == FitSpec(
        **recipe(LinearSpec(), FitSettings()).model_dump() | {"epochs": 3, "max_steps": None}
    )


def test_the_file_is_the_users_own_with_the_best_settings_and_trains_from_the_cache(searched, monkeypatch, capsys):
    case, _ = searched
    case.yaml.write_text("# Our load.\n" + case.yaml.read_text().replace("name: small", "name: small  # of the town"))
    code, out, err = convcast(monkeypatch, capsys, "tune", case.yaml, "--trials", 3, *FASTER)
    assert code == 0, err
    path = case.folder / "spec.tuned.yaml"
    assert "train " + str(path) in out.splitlines()[-1]
    text = path.read_text()
    assert "# Our load.\nname: small  # of the town\n" in text
    assert "#     0  " in text
    tuned, before = load_spec(path), case.spec
    assert tuned.model_copy(update={"network": before.network, "fit": before.fit}) == before
    assert tuned.recipes != before.recipes
    code, out, err = convcast(monkeypatch, capsys, "train", path)
    assert code == 0, err
    assert [line for line in err.splitlines() if line.split()[:2] == ["train", "Cached"]]


def test_a_file_elsewhere_finds_the_source_and_one_from_a_table_has_one_table(searched, tmp_path_factory):
    case, tuned = searched
    path = tmp_path_factory.mktemp("elsewhere") / "best.yaml"
    write_tuned(tuned, case.yaml, path)
    assert load_spec(path).source == case.spec.source
    assert load_spec(path).store == case.spec.store
    again = path.with_name("again.yaml")
    write_tuned(tuned, path, again)
    assert again.read_text().count("# Written by") == 1


def test_a_network_that_a_word_names_is_written_with_its_settings(searched, tmp_path):
    case, tuned = searched
    document = yaml.safe_load(case.yaml.read_text()) | {"network": "linear"}
    (tmp_path / "named.yaml").write_text(yaml.safe_dump(document))
    write_tuned(tuned, tmp_path / "named.yaml", tmp_path / "best.yaml")
    assert load_spec(tmp_path / "best.yaml").network.kind == "linear"


def test_of_several_forms_the_best_kind_is_written_as_the_only_one(server, case):
    case.write_spec(**LINEAR | {"network": {"kind": "auto", "forms": [{"kind": "linear"}, {"kind": "periodic"}]}})
    tuned = tuning(case.spec, SearchSpec(trials=3))
    drawn = tuned.trials[-1]
    network, said = turned({"linear": LinearSpec(), "periodic": PeriodicSpec()}[drawn.kind], case.spec.fit, drawn.settings)
    best = tuned.model_copy(
        update={
            "best": drawn,
            "network": network.model_dump(exclude_defaults=True) | {"kind": drawn.kind},
            "fit": said.model_dump(mode="json", exclude_none=True),
        }
    )
    write_tuned(best, case.yaml, case.folder / "best.yaml")
    assert load_spec(case.folder / "best.yaml").recipes == [(network, recipe(network, said))]


def test_a_file_that_somebody_changed_is_left_as_it_is(server, searched, monkeypatch, capsys):
    case, tuned = searched
    path = place_for(case.yaml, None)
    write_tuned(tuned, case.yaml, path)
    assert place_for(case.yaml, None) == path
    path.write_text(path.read_text() + "# mine\n")
    check_refused(convcast(monkeypatch, capsys, "tune", case.yaml), r"spec.tuned.yaml is there .*--output", case)
    assert path.read_text().endswith("# mine\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", 0], "--trials is 0; it takes 1 or more"),
        (["--trials", -3], "--trials is -3; it takes 1 or more"),
        (["--seed", -1], "--seed is -1; it takes 0 or more"),
        (["--over", "fit.learning_rate"], "names no values; write it as"),
        (["--over", "fit.learning_rate=1..x"], "is no range of two numbers"),
        (["--over", "fit.learning_rate=2..1"], "goes from 2 to 1"),
        (["--over", "fit.learing_rate=1..2"], r"did you mean 'fit.learning_rate'\?.*it can be network.lookback"),
        (["--over", "network.kind=linear"], "network.kind is nothing that a search turns"),
        (["--over", "network.noise=-1..1"], r"network.noise can not be -1: Input should be greater"),
        (["--over", "fit.loss=mae", "--over", "fit.loss=mse"], "--over names fit.loss twice"),
    ],
)
def test_what_can_not_be_searched_is_said_in_a_sentence(server, small, monkeypatch, capsys, options, message):
    check_refused(convcast(monkeypatch, capsys, "tune", small.yaml, *options), message, small)


def test_a_series_that_is_too_short_is_named(server, small, monkeypatch, capsys):
    small.write_frame(make_frame(200))
    check_refused(convcast(monkeypatch, capsys, "tune", small.yaml), "load has 200 steps; lookback 72", small)


def test_a_quantile_is_not_searched_for_by_the_error_of_the_middle(server, small, monkeypatch, capsys):
    small.write_spec(**LINEAR | {"fit": LINEAR["fit"] | {"loss": "quantile", "level": 0.9}})
    check_refused(convcast(monkeypatch, capsys, "tune", small.yaml), "fit.loss is 'quantile'; a search goes by MAE", small)


def test_json_has_every_trial_and_the_sections_to_train_with(searched, monkeypatch, capsys):
    case, _ = searched
    code, out, err = convcast(monkeypatch, capsys, "tune", case.yaml, "--trials", 3, "--json", *FASTER)
    assert code == 0, err
    found = yaml.safe_load(out)
    assert [one["trial"] for one in found["trials"]] == [0, 1, 2]
    assert found["best"]["error"] == min(one["error"] for one in found["trials"] if one["error"] is not None)
    assert found["network"]["kind"] == "linear"
    assert make_document(case.folder)["name"] == found["name"]
