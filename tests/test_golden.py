"""Bundles of every format that was ever released are read, and forecast what they did when it was new."""

import json

import numpy as np
import pytest
from make_golden import GOLDEN, KINDS, told

from models import bundle as bundles
from models.bundle import FORMAT, UPGRADES, load_bundle, upgraded
from models.errors import Fault

FOLDERS = sorted(GOLDEN.glob("format-*/*"))


def files_of(folder):
    return (folder / "weights.safetensors").read_bytes(), (folder / "bundle.json").read_bytes()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(GOLDEN).as_posix())
def test_a_golden_bundle_forecasts_what_it_did_when_its_format_was_new(folder):
    case = json.loads((folder / "case.json").read_text())
    found = told(load_bundle(*files_of(folder)), case["windows"], case["series"])
    assert found.keys() == case.keys() - {"windows", "series"}
    for name, values in found.items():
        assert np.array(values) == pytest.approx(np.array(case[name]), abs=1e-5), name


def test_every_format_that_is_read_has_golden_bundles_and_every_golden_bundle_is_read():
    formats = {int(folder.name.removeprefix("format-")) for folder in GOLDEN.glob("format-*")}
    assert formats == {*UPGRADES, FORMAT} == set(range(4, FORMAT + 1))
    assert {folder.name for folder in (GOLDEN / f"format-{FORMAT}").iterdir()} >= set(KINDS)


def test_a_document_is_brought_up_one_format_at_a_time(monkeypatch):
    monkeypatch.setattr(bundles, "FORMAT", 6)
    monkeypatch.setattr(
        bundles, "UPGRADES", {4: lambda own: own | {"five": own["format"]}, 5: lambda own: own | {"six": own["format"]}}
    )
    assert upgraded({"format": 4}) == {"format": 6, "five": 4, "six": 5}
    assert upgraded({"format": 6}) == {"format": 6}
    for refused in (3, 7, 6.0, True, "5", None):
        with pytest.raises(Fault, match=rf"^The bundle has format {refused}; this version reads 4, 5, 6\. Train again\.$"):
            upgraded({"format": refused})
