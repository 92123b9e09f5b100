"""Bundles that are damaged, or made to harm, are refused in one sentence, in little time and memory."""

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from make_golden import small_bundle
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.bundle import dump_bundle, load_bundle
from models.errors import Fault

ROOT = Path(__file__).resolve().parent.parent
SPARE = 1 << 30  # bytes that reading may take on top of what is there once torch is imported


def files(kind="linear"):
    dumped = dump_bundle(small_bundle(kind))
    return dumped["weights.safetensors"], json.loads(dumped["bundle.json"])


def safetensors_of(header, content=b""):
    header = json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + content


def tensor(shape, until=0):
    return {"0.0.map.bias": {"dtype": "F32", "shape": shape, "data_offsets": [0, until]}}


def put(document, path, value):
    """The document with one value changed, `path` as `scaler.series.a.mean`."""
    *above, last = path.split(".")
    inner = document
    for part in above:
        inner = inner[int(part)] if part.isdecimal() else inner[part]
    inner[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("scaler.series", {}, r"scaler\.series is empty; it needs the scale of each series"),
        ("scaler.series.b.mean", [0, 0, 0], r"scaler\.series b: mean has 3 entries for 4 channels"),
        ("scaler.series.b.std", [1, 1, 0, 1], r"scaler\.series b: std holds what nothing can be scaled by"),
        ("scaler.series.a.mean", [float("nan"), 0, 0, 0], r"scaler\.series a: mean holds what nothing can be scaled by"),
        ("scaler.series.a.mean", None, r"scaler\.series\.a\.mean: Input should be a valid tuple"),
        ("scaler.series.b.floor", float("nan"), r"scaler\.series b: floor is nan; it is 0, or there is none"),
        ("scaler.series.b.floor", 1e300, r"scaler\.series b: floor is 1e\+300; it is 0, or there is none"),
        ("scaler.channels", ["target"], r"scaler\.channels are target; series\.columns makes them target, x, hour_sin"),
        ("series.columns.future", ["x", "z"], r"scaler\.channels are .*; series\.columns makes them target, x, z, hour_sin"),
        ("series.frequency", None, r"series\.frequency: Input should be a valid string"),
        ("series.season", 0, r"season is 0; 1 is the least"),
        ("members", [], "members: one of them has no seed, or there is none at all"),
        ("windows.horizon", 10**9, r"windows: lookback \+ horizon is 1000000012 steps"),
        ("windows.lookback", 10**30, r"windows: lookback \+ horizon is 10{29}3 steps"),
    ],
)
def test_a_description_whose_parts_do_not_go_together_is_refused_by_name(path, value, said):
    weights, document = files()
    with pytest.raises(Fault, match=rf"^This is no model bundle: {said}.*Train again\.$"):
        load_bundle(weights, json.dumps(put(document, path, value)).encode())


@pytest.mark.parametrize("levels", [[0.1, 0.5, 1.0], [0.5, 0.1, 0.9], [float("nan"), 0.5, 0.9]])
def test_levels_that_are_no_quantiles_are_refused(levels):
    weights, document = files("linear-quantiles")
    with pytest.raises(Fault, match=r"^This is no model bundle: calibration\.levels.*Train again\.$"):
        load_bundle(weights, json.dumps(put(document, "calibration.levels", levels)).encode())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"0.1.map.bias": torch.full((3,), float("nan"))}, "weights 0.1.map.bias hold what is no finite number"),
        ({"0.1.map.bias": torch.full((3,), float("inf"))}, "weights 0.1.map.bias hold what is no finite number"),
        ({"0.1.map.bias": torch.zeros(3, dtype=torch.float64)}, r"0.1.map.bias is \(3,\) float64, needed: \(3,\) float32"),
        ({"0.1.map.bias": torch.zeros(2)}, r"0.1.map.bias is \(2,\) float32, needed: \(3,\) float32"),
        ({"0.0.more": torch.zeros(1)}, r"0.0.more is \(1,\) float32, needed: not among its weights"),
        ({"0.1.map.bias": None}, r"0.1.map.bias is absent, needed: \(3,\) float32"),
        ({"spread.head.bias": torch.zeros(1)}, "quantiles in one of its two files only"),
    ],
)
def test_weights_that_are_not_exactly_those_of_the_network_are_refused_by_name(change, said):
    weights, document = files()
    flat = {name: value for name, value in (load_tensors(weights) | change).items() if value is not None}
    with pytest.raises(Fault, match=rf"{said}\. Train again\.$"):
        load_bundle(save_tensors(flat), json.dumps(document).encode())


HOSTILE = {
    "a header of 10 GB": (struct.pack("<Q", 10 << 30) + b"{}", None),
    "a header without end": (b"\xff" * 8 + b"{}", None),
    "a header that is nested deeply": (struct.pack("<Q", 100_000) + b"[" * 100_000, None),
    "a shape that nothing holds": (safetensors_of(tensor([1 << 40, 1 << 40], 4), b"0000"), None),
    "a shape beyond the file": (safetensors_of(tensor([1 << 34], 1 << 36), b"0000"), None),
    "an endless shape without content": (safetensors_of(tensor([0, 1 << 62])), None),
    "an unknown kind of number": (
        safetensors_of({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, b"0000"),
        None,
    ),
    "zeros packed a thousandfold": (gzip.compress(bytes(1 << 24)), None),
    "JSON that is nested deeply": (None, b"[" * 1_000_000),
    "a part that is nested deeply": (None, b'{"format":4,"members":' + b"[" * 100_000),
    "a number without end": (None, b'{"format":' + b"1" * 100_000 + b"}"),
    "a format that is a long text": (None, json.dumps({"format": "x" * 100_000}).encode()),
    "a network of a billion channels": (None, {"kind": "residual", "channels": 10**9}),
    "a network of 10**15 channels": (None, {"kind": "residual", "channels": 10**15}),
    "a network of 10**30 channels": (None, {"kind": "periodic", "channels": 10**30}),
    "a kernel of a billion": (None, {"kind": "residual", "kernel": 10**9 + 1}),
    "a billion hidden units": (None, {"kind": "reference", "filters": 10**6, "hidden": 10**9}),
}


def as_files(weights, description):
    """Both files: the sound ones, but for what is given; a network takes the place of the one described."""
    sound, document = files()
    if isinstance(description, dict):
        description = json.dumps(put(document, "members.0.network", description)).encode()
    return weights or sound, description or json.dumps(document).encode()


# One program reads them all, since each would spend its time importing torch; a limit of memory holds for the whole of it.
PROGRAM = """
import json, resource, sys, time
from models.bundle import load_bundle
from models.errors import Fault

held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[1]),) * 2)
for at in range(2, len(sys.argv), 2):
    weights, description = (open(name, "rb").read() for name in sys.argv[at : at + 2])
    began = time.process_time()
    try:
        load_bundle(weights, description)
        said = "loaded"
    except Fault as fault:
        said = str(fault)
    print(json.dumps([said, time.process_time() - began]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory that a program may take is limited as Linux does it")
def test_hostile_files_are_refused_in_one_sentence_in_little_time_and_memory(tmp_path):
    names = []
    for number, parts in enumerate(HOSTILE.values()):
        for kind, content in zip("wd", as_files(*parts), strict=True):
            names.append(tmp_path / f"{number}{kind}")
            names[-1].write_bytes(content)
    command = [sys.executable, "-c", PROGRAM, str(SPARE), *map(str, names)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    for name, (said, seconds) in zip(HOSTILE, told, strict=True):
        assert said.endswith(" Train again."), (name, said)
        assert "\n" not in said, name
        assert len(said) < 400, (name, said)
        assert "alloc" not in said, (name, said)  # memory was asked for
        assert seconds < 5, name
