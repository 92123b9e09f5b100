"""A classifier as an ONNX graph says what its bundle says."""

import json
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from make_golden_classifier import KINDS, small_cases, small_classifier
from test_graph import session_of

from models.classification.bundle import Classifier, dump_classifier
from models.classification.cases import Cases
from models.classification.graph import classifier_to_onnx, facts_of
from models.classification.networks import build_classifier

pytestmark = pytest.mark.usefixtures("one_thread")


def told(session: onnxruntime.InferenceSession, cases: Cases, past_the_end: float = np.nan) -> tuple[np.ndarray, np.ndarray]:
    """What a graph says of cases side by side, whatever stands past the end of each."""
    batch = cases.batch(np.arange(len(cases)))
    values = batch.values.numpy().copy()
    for own, length in zip(values, cases.lengths, strict=True):
        own[:, length:] = past_the_end
    return tuple(session.run(None, {"values": values, "lengths": batch.lengths.numpy()}))


def odd_cases(num_cases: int, steps: int, seed: int) -> Cases:
    """Cases of 1 to so many steps, the first as long as any, some values missing, one case without any, one steep."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, steps + 1, num_cases)
    lengths[0] = steps
    rows = draw.normal(0.5, 1.5, (lengths.sum(), 2)).astype(np.float32)
    rows[draw.random(rows.shape) < 0.2] = np.nan
    starts = np.cumsum(lengths) - lengths
    rows[starts[-1] :, 0] = np.nan
    rows[: lengths[0], 1] *= 100
    return Cases(rows, starts, lengths, np.zeros(num_cases, np.int64))


@cache
def made(kind: str) -> tuple[Classifier, bytes]:
    """A small classifier and its graph, which takes seconds to draw."""
    model = rescaled() if kind == "rescaled" else small_classifier(kind)
    return model, classifier_to_onnx(model)


@pytest.mark.parametrize("kind", [*KINDS, "rescaled"])
def test_a_graph_says_what_its_bundle_does_of_cases_of_any_number_and_length(kind):
    model, content = made(kind)
    session = session_of(content)
    for num_cases, steps in [(1, 1), (1, 2), (2, 20), (7, 31), (40, 150), (3, 1300)]:
        cases = odd_cases(num_cases, steps, seed=num_cases)
        expected = model.probabilities(cases)
        for past_the_end in (np.nan, 7.0):
            probabilities, label = told(session, cases, past_the_end)
            assert probabilities.dtype == np.float32
            assert probabilities == pytest.approx(expected, abs=1e-5), (num_cases, steps)
            assert label.tolist() == model.decide(expected).tolist()


def rescaled() -> Classifier:
    """A blend whose nets also see each case by its own scale, whose rocket sees it by that alone, with weights drawn anew."""
    about = small_classifier("blend").description
    shape = about.shape.model_copy(update={"rescaled": True, "masked": True, "rough": not about.shape.rough})
    members = tuple(one.model_copy(update={"seeds": (0,)}) for one in about.members)
    torch.manual_seed(0)
    weights = [[dict(build_classifier(one.network, shape).state_dict())] for one in members]
    weights[1][0]["own"] = torch.ones(())
    for name in [name for name in weights[1][0] if name.startswith("thresholds")]:
        weights[1][0][name] = torch.randn_like(weights[1][0][name])
    return Classifier(about.model_copy(update={"shape": shape, "members": members}), weights)


def test_a_graph_decides_as_its_bundle_does_where_rare_classes_count_as_much():
    model = small_classifier("reference")
    about = model.description.model_copy(update={"decision": "balanced", "shares": (0.98, 0.02)})
    rare = Classifier(about, model.weights)
    cases = odd_cases(30, 20, seed=5)
    probabilities, label = told(session_of(classifier_to_onnx(rare)), cases)
    assert label.tolist() == rare.decide(rare.probabilities(cases)).tolist()
    assert label.tolist() != probabilities.argmax(1).tolist()


def test_making_a_graph_leaves_the_classifier_as_it_was_and_gives_the_same_bytes():
    model, cases = small_classifier("residual"), small_cases("residual")
    before, files = model.probabilities(cases), dump_classifier(model)
    first = classifier_to_onnx(model)
    assert np.array_equal(model.probabilities(cases), before)
    assert dump_classifier(model) == files
    assert first == made("residual")[1]


def test_a_graph_of_a_classifier_says_what_a_program_needs_to_know_of_it():
    model, content = made("rocket")
    (entry,) = onnx.load_from_string(content).metadata_props
    assert entry.key == "convcast"
    facts = json.loads(entry.value)
    assert facts == json.loads(json.dumps(facts_of(model)))
    assert [facts[name] for name in ("task", "classes", "channels", "decision")] == [
        "classification", ["no", "yes"], ["x", "y"], "probable",
    ]  # fmt: skip
    assert facts["windows"] == {"lookback": 9, "stride": 1, "label": "origin"}
    assert facts_of(small_classifier("reference"))["windows"] is None
