"""A classifier as two files: it comes back byte by byte, and whatever does not fit together is refused."""

import json

import numpy as np
import pytest
import torch
from make_golden_classifier import GOLDEN, asked
from make_golden_classifier import KINDS as GOLDEN_KINDS

from models.classification.bundle import (
    FORMAT,
    ClassDescription,
    Classifier,
    ClassMember,
    dump_classifier,
    load_classifier,
)
from models.classification.cases import Cases
from models.classification.choice import Blend
from models.classification.fit import fit_classifier
from models.classification.scaling import shape_of
from models.classification.specs import ReferenceClassifierSpec, ResidualClassifierSpec, RocketSpec, recipe
from models.errors import Fault
from models.networks import FitSettings

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = (ReferenceClassifierSpec(filters=4, hidden=8), ResidualClassifierSpec(channels=4, depth=1), RocketSpec(features=168))
BLEND = {"weights": [1.0], "temperatures": [1.0], "temperature": 1.0, "doubt": 0.1}


def cases(num_cases=12, seed=0) -> Cases:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 12, num_cases)
    labels = np.arange(num_cases) % 2
    rows = rng.normal(np.repeat(labels, lengths)[:, None], 1, (lengths.sum(), 2)).astype(np.float32)
    return Cases(rows, np.cumsum(lengths) - lengths, lengths, labels)


@pytest.fixture(scope="module")
def model() -> Classifier:
    """All kinds, two seeds each."""
    given, fit = cases(), FitSettings(epochs=1, seeds=(0, 7))
    weights = [[fit_classifier(kind, recipe(kind, fit), given, 2, seed).weights for seed in (0, 7)] for kind in KINDS]
    about = ClassDescription(
        format=1, members=tuple(ClassMember(network=kind, seeds=(0, 7)) for kind in KINDS), shape=shape_of(given, 2),
        classes=("no", "yes"), shares=(0.25, 0.75), channels=("x", "y"), windows=None, trained_on="0" * 64, versions={},
        blend=Blend(weights=(0.2, 0.3, 0.5), temperatures=(1.0, 2.0, 0.5), temperature=1.2, doubt=0.1),
    )  # fmt: skip
    return Classifier(about, weights)


def files(model: Classifier) -> tuple[bytes, bytes]:
    made = dump_classifier(model)
    return made["weights.safetensors"], made["bundle.json"]


def test_a_classifier_comes_back_byte_by_byte_and_says_the_same(model):
    again = load_classifier(*files(model))
    assert dump_classifier(again) == dump_classifier(model)
    assert np.array_equal(again.probabilities(cases(seed=1)), model.probabilities(cases(seed=1)))


def test_probabilities_add_up_to_one_and_keep_their_doubt(model):
    found = model.probabilities(cases(seed=1))
    assert found.sum(1) == pytest.approx(np.ones(12))
    assert found.min() >= 0.1 / 2


def test_a_rare_class_may_be_decided_for_by_how_much_it_exceeds_its_share(model):
    balanced = Classifier(model.description.model_copy(update={"decision": "balanced"}), model.weights)
    probabilities = np.array([[0.4, 0.6], [0.2, 0.8]])
    assert model.decide(probabilities).tolist() == [1, 1]
    assert balanced.decide(probabilities).tolist() == [0, 1]  # of 0.4 / 0.25 and 0.6 / 0.75, and 0.2 / 0.25 and 0.8 / 0.75


def test_nothing_in_it_is_pickled(model):
    assert all(b"pickle" not in content and b"PK\x03\x04" not in content[:64] for content in files(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"The bundle has format 2; this version reads 1\. Train again\."),
        ({"classes": ["no"]}, r"classes are 1; the rest of the bundle makes them 2"),
        ({"channels": ["x"]}, r"channels are 1; the rest of the bundle makes them 2"),
        ({"shares": [1.0]}, r"shares are 1; the rest of the bundle makes them 2"),
        ({"members": []}, r"members: "),
        ({"unknown": 1}, r"unknown: Extra inputs"),
        ({"classes": ["no", "no"]}, r"classes has one of them twice"),
        ({"shares": [-0.5, 1.5]}, r"shares\.0: Input should be greater than or equal to 0"),
        ({"blend": {**BLEND, "temperature": -1}}, r"blend\.temperature: Input should be greater than 0"),
        ({"blend": {**BLEND, "temperatures": [0.0]}}, r"blend\.temperatures\.0: Input should be greater than 0"),
        ({"blend": {**BLEND, "temperatures": [1.0, 1.0]}}, r"blend: temperatures are 2 of 1 members"),
        ({"blend": {**BLEND, "weights": [0.5]}}, r"blend: weights add up to 0\.5; they are shares of one"),
        ({"blend": {**BLEND, "doubt": -1}}, r"blend\.doubt: Input should be greater than or equal to 0"),
        ({"task": "forecasting"}, r"task: Input should be 'classification'"),
    ],
)
def test_a_description_whose_parts_do_not_go_together_is_refused(model, change, message):
    weights, description = files(model)
    with pytest.raises(Fault, match=message):
        load_classifier(weights, json.dumps(json.loads(description) | change).encode())


def test_weights_of_another_form_are_refused(model):
    weights, description = files(model)
    document = json.loads(description)
    document["members"][1]["network"]["channels"] = 8
    with pytest.raises(Fault, match=r"The weights do not fit the network that bundle.json describes: 1\.0\."):
        load_classifier(weights, json.dumps(document).encode())


def test_weights_that_are_no_numbers_are_refused(model):
    broken = [[dict(one) for one in seeds] for seeds in model.weights]
    broken[0][0]["head.bias"] = torch.full_like(broken[0][0]["head.bias"], torch.nan)
    with pytest.raises(Fault, match=r"The weights 0.0.head.bias hold what is no finite number"):
        load_classifier(*files(Classifier(model.description, broken)))


@pytest.mark.parametrize("cut", [0, 7, 100])
def test_weights_that_are_cut_short_are_refused(model, cut):
    weights, description = files(model)
    with pytest.raises(Fault, match=r"This is no bundle of a classifier"):
        load_classifier(weights[:cut], description)


def test_a_shape_that_would_take_all_memory_is_refused_before_it_is_built(model):
    weights, description = files(model)
    document = json.loads(description)
    document["members"][2]["network"]["features"] = 10**12
    with pytest.raises(Fault):
        load_classifier(weights, json.dumps(document).encode())


@pytest.mark.parametrize("folder", sorted(GOLDEN.glob("classifier-*/*")), ids=lambda folder: folder.name)
def test_a_golden_classifier_says_what_it_did_when_its_format_was_new(folder):
    case = json.loads((folder / "case.json").read_text())
    found = load_classifier((folder / "weights.safetensors").read_bytes(), (folder / "bundle.json").read_bytes())
    assert found.probabilities(asked(case)) == pytest.approx(np.array(case["probabilities"]), abs=1e-5)


def test_every_format_that_is_read_has_golden_classifiers_of_every_kind():
    assert {folder.name for folder in GOLDEN.glob("classifier-*")} == {
        f"classifier-{number}" for number in range(1, FORMAT + 1)
    }
    assert {folder.name for folder in (GOLDEN / f"classifier-{FORMAT}").iterdir()} >= set(GOLDEN_KINDS)
