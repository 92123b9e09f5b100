import copy
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from flows.spec import Once, PipelineSpec, check_networks, check_spec, load_spec, resolved
from models.errors import Fault
from models.networks import RECIPES, AutoSpec, form_name
from models.specs import LinearSpec, ReferenceSpec, ResidualSpec

SPEC = {
    "name": "shop",
    "store": "store",
    "source": {"uri": "data/sales.csv", "timestamp": "t", "target": "sales", "frequency": "h"},
    "folds": {"validation": 100, "test": 100},
    "windows": {"lookback": 72, "horizon": 24},
    "fit": {"max_steps": 10},
}
RESIDUAL, REFERENCE = {"kind": "residual"}, {"kind": "reference"}


def document(**changed):
    """The spec with some values changed: `fit__epochs=3` for fit.epochs, None to leave a key out."""
    whole = copy.deepcopy(SPEC)
    for name, value in changed.items():
        *sections, key = name.split("__")
        place = whole
        for section in sections:
            place = place.setdefault(section, {})
        if value is None:
            place.pop(key)
        else:
            place[key] = value
    return whole


def check(**changed):
    return check_spec(document(**changed), "shop.yaml")


def test_a_spec_is_filled_in_with_defaults():
    spec = check()
    assert spec.network == AutoSpec()
    assert (spec.scaling.kind, spec.gate.metric, spec.gate.fold) == ("standard", "mae", "validation")
    assert (spec.season, spec.forecast.origin, spec.source.timezone) == (None, None, "UTC")


@pytest.mark.parametrize("kind", ["reference", "residual"])
def test_what_fit_leaves_out_comes_from_the_recipe_of_the_network(kind):
    [(network, fit)] = check(network={"kind": kind}, fit=None).recipes
    assert network.kind == kind
    assert {name: getattr(fit, name) for name in RECIPES[kind]} == RECIPES[kind]


def test_without_a_network_several_forms_are_tried_each_with_its_own_recipe():
    recipes = check(fit={"seeds": [3]}).recipes
    assert [form_name(network) for network, _ in recipes] == [
        "linear", "periodic-none", "periodic", "pyramid", "regression", "residual", "residual-embedding4",
    ]  # fmt: skip
    assert [fit.learning_rate for _, fit in recipes] == [RECIPES[network.kind]["learning_rate"] for network, _ in recipes]
    assert [fit.seeds for _, fit in recipes] == [(3,)] * 7


def test_the_forms_to_choose_from_can_be_named():
    forms = [RESIDUAL | {"channels": 8}, {"kind": "linear", "lookback": 24}]
    spec = check(network={"kind": "auto", "forms": forms})
    assert [network for network, _ in spec.recipes] == [ResidualSpec(channels=8), LinearSpec(lookback=24)]
    assert check(network={"forms": forms}) == spec
    assert PipelineSpec.model_validate(spec.model_dump(mode="json")) == spec  # as Prefect passes it on


def test_networks_may_be_called_by_their_kind_alone():
    named = check(network={"kind": "auto", "forms": ["linear", {"kind": "residual", "channels": 8}]}).network
    assert named == check(network={"forms": [{"kind": "linear"}, {"kind": "residual", "channels": 8}]}).network
    assert check(network="linear").network == check(network={"kind": "linear"}).network
    with pytest.raises(Fault, match=r"network\.kind is 'linar'; it can be"):
        check(network="linar")
    with pytest.raises(Fault, match=r"network\.forms\.0\.kind is 'linar'; it can be"):
        check(network={"forms": ["linar", "residual"]})


def test_a_key_that_stands_twice_is_named(tmp_path):
    path = tmp_path / "shop.yaml"
    for text, message in (
        ("name: a\nstore: s\nname: b\n", "name stands twice, in lines 1 and 3"),
        ("name: a\nsource:\n  target: x\n  uri: y\n  target: z\n", "target stands twice, in lines 3 and 5"),
        ("name: a\nfolds: {test: 3, test: 4}\n", "test stands twice, in lines 2 and 2"),
    ):
        path.write_text(text)
        with pytest.raises(Fault, match=rf"shop\.yaml is no YAML: {message}; take one of them out"):
            load_spec(path)


@pytest.mark.parametrize(
    "text",
    [
        "base: &base {a: 1}\nouter:\n  mid: &mid {<<: *base, a: 2}\ntop: {<<: *mid}\n",
        "rules: {load: &load {<<: &r {min: 0, max: 3}, max: 5}}\nfit: {<<: *load}\n",
        "a: &a {x: 1}\nb: &b {y: 2}\nc:\n  <<: *a\n  <<: *b\n",
        "c: {1: a, '1': b}\n",
    ],
)
def test_sections_may_be_merged_from_others(text):
    assert Once(text).get_single_data() == yaml.safe_load(text)


def test_a_spec_passed_on_as_json_keeps_what_was_left_to_the_recipes():
    spec = check(network={"kind": "auto"}, fit={"batch_size": 7})
    assert PipelineSpec.model_validate(spec.model_dump(mode="json")).recipes == spec.recipes


def test_what_fit_gives_goes_before_the_recipe():
    [(_, fit)] = check(network=REFERENCE, fit={"batch_size": 7, "keep": "best"}).recipes
    assert (fit.batch_size, fit.keep, fit.epochs, fit.optimizer) == (7, "best", 50, "rmsprop")


@pytest.mark.parametrize(
    ("kind", "given", "epochs", "max_steps"),
    [
        ("reference", {"max_steps": 9}, None, 9),  # the recipe counts epochs
        ("residual", {"epochs": 9}, 9, None),  # the recipe counts steps
        ("residual", {"epochs": 9, "max_steps": None}, 9, None),
    ],
)
def test_a_given_length_takes_the_place_of_the_recipes(kind, given, epochs, max_steps):
    [(_, fit)] = check(network={"kind": kind}, fit=given).recipes
    assert (fit.epochs, fit.max_steps) == (epochs, max_steps)


def test_a_recipe_is_not_changed_by_the_specs_it_fills_in():
    before = copy.deepcopy(RECIPES)
    check(network=REFERENCE, fit={"max_steps": 1})
    assert before == RECIPES


def test_paths_are_relative_to_the_folder_of_the_spec(tmp_path, monkeypatch):
    (tmp_path / "specs").mkdir()
    path = tmp_path / "specs" / "shop.yaml"
    path.write_text(yaml.safe_dump(document(store="../kept", source__uri="sales.csv")))
    spec = load_spec(path)
    assert (spec.store, spec.source.uri) == (str(tmp_path / "kept"), str(tmp_path / "specs" / "sales.csv"))
    monkeypatch.chdir(tmp_path / "specs")
    assert load_spec("shop.yaml") == load_spec(Path("../specs/shop.yaml")) == spec


def test_absolute_paths_and_the_home_folder_stay_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    absolute = resolved(document(store=str(tmp_path / "kept"), source__uri="~/sales.csv"), tmp_path / "specs")
    assert absolute["store"] == str(tmp_path / "kept")
    assert absolute["source"]["uri"] == str(tmp_path / "home" / "sales.csv")


def test_making_paths_absolute_leaves_the_document_as_it_was(tmp_path):
    given = document()
    resolved(given, tmp_path)
    assert given == SPEC


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"wndows": {}}, r"wndows is no key of this spec \(did you mean 'windows'\?\); allowed here: name, task, store,"),
        ({"fit__epoch": 3}, r"fit\.epoch is no key of this spec \(did you mean 'epochs'\?\); allowed here: epochs, max_steps,"),
        ({"source__zone": "UTC"}, r"source\.zone is no key of this spec.*; allowed here: uri, delimiter, decimal, quote,"),
        ({"windows__look_back": 3}, r"windows\.look_back is no key .*'lookback'.*allowed here: lookback, horizon, stride$"),
        ({"source__rules": {"load": {"mn": 3}}}, r"source\.rules\.load\.mn is no key .*\(did you mean 'min'\?\)"),
        ({"folds__train": 3}, r"folds\.train is no key of this spec; allowed here: validation, test$"),
        # what a network takes depends on its kind
        ({"network": RESIDUAL | {"filters": 3}}, r"network\.filters is no key .*allowed here: kind, channels, depth, kernel,"),
        ({"network": REFERENCE | {"depth": 3}}, r"network\.depth is no key .*allowed here: kind, filters, kernel, pool,"),
        ({"network": {"chanels": 3}}, r"network\.chanels is no key .*allowed here: kind, forms, inputs$"),
        ({"network": RESIDUAL | {"chanels": 3}}, r"network\.chanels is no key .*\(did you mean 'channels'\?\)"),
        ({"network": {"forms": [RESIDUAL, {"kind": "linear", "los": 1}]}}, r"network\.forms\.1\.los is .*: kind, lookback,"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_the_closest_and_those_allowed(changed, message):
    with pytest.raises(Fault, match=rf"^shop\.yaml: {message}"):
        check(**changed)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("name", "name is missing"),
        ("store", "store is missing"),
        ("source", "source is missing"),
        ("source__target", r"source\.target is missing"),
        ("source__timestamp", r"source\.timestamp is missing"),
        ("folds__test", r"folds\.test is missing"),
        ("windows__horizon", r"windows\.horizon is missing"),
    ],
)
def test_a_missing_key_is_named(key, message):
    with pytest.raises(Fault, match=rf"^shop\.yaml: {message}$"):
        check(**{key: None})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"windows__lookback": "long"}, r"windows\.lookback: .*integer.* \('long' given\)$"),
        ({"windows__lookback": 0}, r"windows\.lookback: .*greater than or equal to 1 \(0 given\)$"),
        ({"windows__lookback": 7.5}, r"windows\.lookback: .*integer.* \(7\.5 given\)$"),
        ({"windows": 3}, r"windows: .* \(3 given\)$"),
        ({"fit__learning_rate": -1}, r"fit\.learning_rate: .*greater than 0 \(-1 given\)$"),
        ({"fit__loss": "rmse"}, r"fit\.loss: .*'mse', 'mae', 'huber' or 'quantile' \('rmse' given\)$"),
        ({"source__calendar": ["hours"]}, r"source\.calendar\.0: .*'day_of_year' or 'date' \('hours' given\)$"),
        ({"source__future_covariates": "price"}, r"source\.future_covariates: .*tuple \('price' given\)$"),
        ({"source__duplicates": "keep"}, r"source\.duplicates: .*'first', 'last' or 'mean' \('keep' given\)$"),
        ({"name": "my/shop"}, r"name: .*pattern.* \('my/shop' given\)$"),
        ({"name": "../shop"}, r"name: .*pattern.* \('\.\./shop' given\)$"),
        ({"name": ""}, r"name: .*pattern.* \('' given\)$"),
        ({"season": 0}, r"season: .*greater than or equal to 1 \(0 given\)$"),
        ({"network": REFERENCE | {"dropout": 1}}, r"network\.dropout: .*less than 1 \(1 given\)$"),
        (
            {"network": {"kind": "resnet"}},
            r"network\.kind is 'resnet'; it can be auto, reference, residual, periodic, pyramid, regression, linear$",
        ),
        ({"network": {"kind": ["residual"]}}, r"network\.kind is .*; it can be auto, .*, linear$"),
        ({"network": {"kind": {"residual": 1}}}, r"network\.kind is .*; it can be auto, .*, linear$"),
        ({"network": 3}, r"network: .* \(3 given\)"),
        ({"fit": [1]}, r"fit: .* \(\[1\] given\)$"),
        ({"source__timezone": 600}, r"source\.timezone is 600 to YAML; put an offset such as '\+10:00' in quotes$"),
        ({"source__uri": 5}, r"source\.uri is 5; a path or URL is needed, or a list of some; put 5 in quotes if that is its n"),
        ({"source__uri": ["a.csv", None]}, r"source\.uri is \['a\.csv', None\]; a path or URL is needed, or a list of some$"),
        ({"source__uri": []}, r"source\.uri is \[\]; a path or URL is needed, or a list of some$"),
        ({"source__timestamp": ["a"]}, r"source\.timestamp is \['a'\]; the name of a column is needed, or a list of two: of d"),
        ({"source__timestamp": ["a", "b", "c"]}, r"source\.timestamp is \['a', 'b', 'c'\]; .* dates and of times of day$"),
        ({"source__timestamp": 0}, r"source\.timestamp is 0; .* of times of day; put 0 in quotes if that is its name$"),
        ({"source__series_id": {"a": 1}}, r"source\.series_id is \{'a': 1\}; the name of a column is needed, or a list of"),
        ({"gate__metric": "r2"}, r"gate\.metric: .*'mae', 'rmse' or 'mase' \('r2' given\)$"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_named_with_what_was_given(changed, message):
    with pytest.raises(Fault, match=rf"^shop\.yaml: {message}"):
        check(**changed)


def test_every_fault_is_named_at_once_and_many_are_counted():
    with pytest.raises(Fault, match=r"^shop\.yaml: name is missing; store is missing$"):
        check(name=None, store=None)
    wrong = {f"fit__x{number}": 1 for number in range(8)}
    with pytest.raises(Fault, match=r"; and 3 more$") as caught:
        check(**wrong)
    assert str(caught.value).count("is no key of this spec") == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fit": {"epochs": 3, "max_steps": 3}}, r"give either fit\.epochs or fit\.max_steps, and not both$"),
        ({"fit": {"seeds": [1, 1], "epochs": 3}}, r"fit\.seeds \[1, 1\] repeats a seed"),
        # gate, windows and season
        ({"gate__steps": 13}, r"gate\.steps is 13; with this horizon and season it can be 1, 12, 24$"),
        ({"gate__steps": 24, "windows__horizon": 6}, r"gate\.steps is 24; .* it can be 1, 6$"),
        ({"gate__steps": 12, "season": 10}, r"gate\.steps is 12; .* it can be 1, 5, 10, 24$"),
        # zones, frequencies and origins
        ({"source__timezone": "Mars/Base"}, r"source\.timezone 'Mars/Base' is no zone"),
        ({"source__frequency": "fortnight"}, r"source\.frequency 'fortnight' is no pandas alias"),
        ({"forecast__origin": "2024-01-01T00:00"}, r"forecast\.origin 2024-01-01T00:00:00 has no offset; write it as"),
        ({"folds__validation": 23}, r"folds\.validation is 23 and windows\.horizon 24 steps; .* Set folds\.validation to 24"),
        ({"folds__test": 1}, r"folds\.test is 1 and windows\.horizon 24 steps; a fold holds one horizon at least"),
    ],
)  # fmt: skip
def test_sections_that_do_not_fit_together_are_refused(changed, message):
    with pytest.raises(Fault, match=rf"^shop\.yaml: .*{message}"):
        check(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        # network and covariates
        ({"network": REFERENCE, "source__past_covariates": ["wind"]}, r"network\.kind 'reference' .*_covariates has wind\."),
        # network and windows
        ({"network": REFERENCE, "windows__lookback": 6}, r"windows\.lookback 6 is too short .* it takes 7 steps\."),
        ({"network": RESIDUAL | {"depth": 2}}, r"Network sees 7 steps \(depth 2, kernel 3\) but has 48 rows .* depth=5\."),
        ({"network": RESIDUAL | {"depth": 2}, "season": 1}, r"has 96 rows to read \(72 before the origin, 24 after\)"),
        ({"network": RESIDUAL | {"kernel": 4}}, r"network\.kernel is 4; .* Use 5\."),
    ],
)
def test_a_network_that_does_not_fit_is_refused_by_what_trains(changed, message):
    with pytest.raises(Fault, match=message):
        check_networks(check(**changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"network": REFERENCE, "source__future_covariates": ["wind"]},
        {"network": RESIDUAL, "source__past_covariates": ["wind"]},
        {"network": REFERENCE, "windows__lookback": 7},
        {"network": RESIDUAL | {"depth": 5}},
        {"gate__steps": 12},
        {"gate__steps": 13, "source__frequency": None},  # which steps are scored is known once the data is read
        {"source__timezone": "+10:00"},
    ],
)
def test_sections_that_fit_together_are_taken(changed):
    check_networks(check(**changed))


def test_an_origin_is_an_instant(tmp_path):
    assert check(forecast__origin="2024-01-01T10:00+10:00").forecast.origin == datetime(2024, 1, 1, tzinfo=UTC)
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump(document()) + "forecast:\n  origin: 2024-01-01T10:00:00+10:00\n")  # a date to YAML
    assert load_spec(path).forecast.origin == datetime(2024, 1, 1, tzinfo=UTC)


def test_a_spec_is_the_same_after_a_journey_through_json():
    spec = check(network=REFERENCE, source__calendar=["hour"], forecast__origin="2024-01-01T10:00+10:00")
    assert PipelineSpec.model_validate_json(spec.model_dump_json()) == spec
    assert PipelineSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_a_spec_can_be_made_of_its_parts():
    spec = check()
    parts = {name: getattr(spec, name) for name in PipelineSpec.model_fields}
    assert PipelineSpec(**parts | {"network": ReferenceSpec()}).network == ReferenceSpec()


def test_a_spec_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        check().name = "other"


def test_a_missing_spec_is_named(tmp_path):
    with pytest.raises(Fault, match=r"shop\.yaml does not exist\. Name a spec"):
        load_spec(tmp_path / "shop.yaml")


def test_a_folder_is_no_spec(tmp_path):
    with pytest.raises(Fault, match=r" can not be read: "):
        load_spec(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [", r"shop\.yaml is no YAML: .*line 1"),
        (b"a: b: c", r"shop\.yaml is no YAML: .*line 1"),
        (b"\tname: x", r"shop\.yaml is no YAML: "),
        (b"name: \xff", r"shop\.yaml can not be read: "),
        (b"", r"shop\.yaml holds NoneType, not a mapping with name, store, source, folds and windows"),
        (b"- name", r"shop\.yaml holds list, not a mapping"),
        (b"shop", r"shop\.yaml holds str, not a mapping"),
        (b"1: 2", r"shop\.yaml: "),
        (b"store: 3\nsource: 4\nname: x", r"shop\.yaml: store: .*string \(3 given\); source: .* \(4 given\)"),
        (b"x: !!python/object/apply:os.getcwd []", r"shop\.yaml is no YAML: .*python"),  # nothing is run
    ],
)
def test_what_is_no_yaml_mapping_is_refused(tmp_path, content, message):
    (tmp_path / "shop.yaml").write_bytes(content)
    with pytest.raises(Fault, match=message) as caught:
        load_spec(tmp_path / "shop.yaml")
    assert "\n" not in str(caught.value)


def test_a_spec_loads_from_a_file_as_it_does_from_a_mapping(tmp_path):
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(document()))
    assert load_spec(tmp_path / "shop.yaml") == check_spec(resolved(document(), tmp_path), "x")
