"""A training that begins with the weights of the live model."""

import numpy as np
import pytest
import torch
from conftest import make_frame

from flows.explaining import explaining
from flows.training import training
from models.bundle import Bundle, Description, Member
from models.errors import Fault
from models.networks import build_network
from models.scaling import Scale, Scaler, ScalingSpec
from models.series import Columns, SeriesFacts
from models.specs import LinearSpec, PeriodicSpec, ResidualSpec
from models.start import check_form, check_shape, starting_weights
from models.windows import WindowSpec
from tasks.promote import read_live
from tasks.train import read_bundle

COLUMNS, WINDOWS = Columns(future=("known",)), WindowSpec(lookback=12, horizon=4)
FACTS = SeriesFacts(target="load", columns=COLUMNS, frequency="h", season=4, timezone="UTC")
KNOWING = ResidualSpec(channels=4, embedding=2)


def scaler_for(names: str) -> Scaler:
    scale = Scale(mean=(0.0, 0.0), std=(1.0, 1.0), naive_mae=1.0, steps=100)
    return Scaler(channels=COLUMNS.names, season=4, scaling=ScalingSpec(), series={name: scale for name in names})


def bundle_of(*networks, names="ac", seeds=(0, 3)) -> Bundle:
    about = Description(
        format=0, members=tuple(Member(network=network, seeds=seeds) for network in networks), windows=WINDOWS, series=FACTS,
        scaler=scaler_for(names), trained_on="", calibration=None, versions={},
    )  # fmt: skip
    torch.manual_seed(0)
    weights = [[build_network(one, COLUMNS, WINDOWS, 4, len(names)).state_dict() for _ in seeds] for one in networks]
    return Bundle(about, weights)


def test_each_form_and_seed_starts_from_its_own():
    bundle = bundle_of(LinearSpec(), PeriodicSpec(), PeriodicSpec(branch="none"))
    assert starting_weights(bundle, PeriodicSpec(), 3, scaler_for("ac")).keys() == bundle.weights[1][1].keys()
    weights = starting_weights(bundle, PeriodicSpec(dropout=0.5, noise=0.0), 3, scaler_for("ac"))  # they shape nothing
    assert all(weights[name] is value for name, value in bundle.weights[1][1].items())
    assert starting_weights(bundle, PeriodicSpec(), 1, scaler_for("ac")) is None
    assert starting_weights(bundle, PeriodicSpec(channels=4), 3, scaler_for("ac")) is None


def test_what_was_learned_of_each_series_stays_with_its_name():
    bundle = bundle_of(KNOWING, names="ac")
    before = bundle.weights[0][0]["series.weight"]
    after = starting_weights(bundle, KNOWING, 0, scaler_for("bac"))["series.weight"]
    assert torch.equal(after, before[[0, 1, 0, 2]])  # of unknown ones, a, b that nobody knew, c
    assert len(before) == 3


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            LinearSpec(),
            r"of a model do not fit: it is made of residual-channels4-embedding2, this spec has network.kind 'linear'\.",
        ),
        (ResidualSpec(channels=8, embedding=2), r"do not fit: it has network.channels 4, this spec 8\. Set fit\.init: fresh"),
    ],
)
def test_a_live_model_of_another_form_is_named_with_what_differs(network, message):
    with pytest.raises(Fault, match=message):
        check_form(bundle_of(KNOWING), network, "a model")
    check_form(bundle_of(KNOWING), KNOWING.model_copy(update={"dropout": 0.0}), "a model")


@pytest.mark.parametrize(
    ("windows", "facts", "message"),
    [
        (WindowSpec(lookback=16, horizon=4), {}, r"it has windows\.lookback 12, this training 16\. Make them alike, or: Set"),
        (WINDOWS, {"season": 7}, r"it has season 4, this training 7\."),
        (WINDOWS, {"columns": Columns(past=("known",))}, r"it has covariates known ahead known, this training none\."),
        (WINDOWS, {"columns": Columns()}, r"it has channels target, known, this training target; "),
    ],
)
def test_a_live_model_for_other_windows_or_channels_is_named_with_what_differs(windows, facts, message):
    with pytest.raises(Fault, match=message):
        check_shape(bundle_of(KNOWING), windows, FACTS.model_copy(update=facts), "a model")
    check_shape(bundle_of(KNOWING), WINDOWS, FACTS, "a model")


def states(outcome) -> dict[str, str]:
    return {entry.step: entry.state for entry in outcome.tasks}


def first_loss(case, digest: str) -> float:
    made = next(one for one in case.store.manifests("train") if one["receipt"]["digest"] == digest)
    path = case.store.folder("train", made["receipt"]["key"]) / "history.json"
    import json

    return json.loads(path.read_text())["curves"][0]["epochs"][0]["train"]
