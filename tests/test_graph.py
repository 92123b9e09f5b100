"""A model as an ONNX graph says what its bundle says."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from make_golden import KINDS, WINDOWS, small_bundle, told

from models import graph
from models.errors import Fault
from models.graph import facts_of, to_onnx


def session_of(content):
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_forecasts_what_its_bundle_does_for_any_number_of_windows(kind):
    bundle = small_bundle(kind)
    columns = bundle.description.series.columns
    session = session_of(to_onnx(bundle))
    names = [one.name for one in session.get_outputs()]
    assert [one.name for one in session.get_inputs()] == ["past", "future", "series"]
    for size in (1, 2, 7, 300):
        windows = torch.randn(size, WINDOWS.span, columns.num_channels, generator=torch.Generator().manual_seed(size))
        windows[::2, :, 0] = windows[::2, :, 0].clamp(min=0) - 1  # which keep to a floor of 0, where there is one
        series = torch.arange(size) % 3
        fed = {
            "past": windows[:, : WINDOWS.lookback].numpy(),
            "future": windows[:, WINDOWS.lookback :, columns.first_known :].numpy(),
            "series": series.numpy(),
        }
        found, expected = dict(zip(names, session.run(None, fed), strict=True)), told(bundle, windows.tolist(), series.tolist())
        assert found.keys() == expected.keys()
        for name, values in found.items():
            assert values == pytest.approx(np.array(expected[name]), abs=1e-5), name


def test_making_a_graph_leaves_the_bundle_as_it_was_and_gives_the_same_bytes():
    bundle = small_bundle("periodic")
    windows = torch.randn(2, WINDOWS.span, bundle.description.series.columns.num_channels).tolist()
    before, first = told(bundle, windows, [1, 2]), to_onnx(bundle)
    assert told(bundle, windows, [1, 2]) == before
    assert to_onnx(bundle) == first


def test_a_graph_says_what_a_program_needs_to_know_of_it():
    (entry,) = onnx.load_from_string(to_onnx(small_bundle("linear"))).metadata_props
    assert entry.key == "convcast"
    assert json.loads(entry.value) == json.loads(json.dumps(facts_of(small_bundle("linear"))))
    facts = json.loads(json.dumps(facts_of(small_bundle("blend-quantiles"))))
    assert facts["past"] == ["target", "x", "hour_sin", "hour_cos"]
    assert facts["future"] == ["x", "hour_sin", "hour_cos"]
    assert facts["levels"] == [0.1, 0.5, 0.9]
    assert facts["series"]["b"] == {"number": 2, "mean": [1.0] * 4, "std": [1.0] * 4}
    assert [facts[name] for name in ("target", "frequency", "timezone", "season", "lookback", "horizon")] == [
        "y", "h", "UTC", 4, 12, 3,
    ]  # fmt: skip


def test_without_the_packages_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(graph, "find_spec", lambda name: None if name == "onnxscript" else sys)
    with pytest.raises(Fault, match=r"^Writing ONNX takes onnxscript, which is not installed\. pip install 'convcast\[onnx\]'"):
        to_onnx(small_bundle("linear"))
