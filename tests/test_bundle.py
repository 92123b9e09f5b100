import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.bundle import FORMAT, Bundle, Description, Member, dump_bundle, load_bundle
from models.errors import Fault
from models.networks import build_network
from models.scaling import Scaler, ScalingSpec, SeriesScale
from models.series import Columns, SeriesFacts
from models.specs import LinearSpec, PeriodicSpec, PyramidSpec, ReferenceSpec, RegressionSpec, ResidualSpec
from models.windows import WindowSpec
from tasks.choose import merged

COLUMNS = Columns(future=("x",), calendar=("hour",))
WINDOWS = WindowSpec(lookback=12, horizon=3)
NETWORKS = {
    "reference": ReferenceSpec(filters=4, hidden=8),
    "residual": ResidualSpec(channels=4),
    "embedding": ResidualSpec(channels=4, embedding=3),
    "periodic": PeriodicSpec(channels=4),
    "pyramid": PyramidSpec(detail=2, width=4),
    "regression": RegressionSpec(width=4),
    "linear": LinearSpec(),
}
KINDS = sorted(NETWORKS)


def make_bundle(kind="residual", seeds=(0, 7), names=("a",)):
    scale = SeriesScale(mean=(0.1, 1 / 3, 0, 0), std=(1.1, 2.2, 1, 1), naive_mae=0.7, steps=50)
    about = Description(
        format=FORMAT, members=(Member(network=NETWORKS[kind], seeds=seeds),), windows=WINDOWS, trained_on="0" * 64,
        calibration=None, versions={"torch": "2"},
        series=SeriesFacts(target="y", columns=COLUMNS, frequency="h", season=4, timezone="UTC"),
        scaler=Scaler(channels=COLUMNS.names, season=4, scaling=ScalingSpec(), series=dict.fromkeys(names, scale)),
    )  # fmt: skip
    weights = []
    for seed in seeds:
        torch.manual_seed(seed)
        network = build_network(NETWORKS[kind], COLUMNS, WINDOWS, 4, len(names))
        weights.append({name: value + 0.1 * torch.randn_like(value) for name, value in network.state_dict().items()})
    return Bundle(about, [weights])


def files(**kwargs):
    dumped = dump_bundle(make_bundle(**kwargs))
    return dumped["weights.safetensors"], dumped["bundle.json"]


def changed(description, **values):
    return json.dumps(json.loads(description) | values).encode()


def windows_for(size=5):
    torch.manual_seed(3)
    return torch.randn(size, WINDOWS.span, COLUMNS.num_channels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_comes_back_byte_by_byte_and_forecasts_the_same(kind):
    bundle = make_bundle(kind)
    dumped = dump_bundle(bundle)
    again = load_bundle(dumped["weights.safetensors"], dumped["bundle.json"])
    assert dump_bundle(again) == dumped
    assert again.description == bundle.description
    windows = windows_for()
    assert np.array_equal(again.forecast_windows(windows), bundle.forecast_windows(windows))
    assert dump_bundle(again) == dumped  # forecasting changes nothing


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_forecasts_the_mean_of_its_seeds(kind):
    both = make_bundle(kind, seeds=(0, 7))
    single = [make_bundle(kind, seeds=(seed,)).forecast_windows(windows_for()) for seed in (0, 7)]
    assert both.forecast_windows(windows_for()) == pytest.approx((single[0] + single[1]) / 2, abs=1e-6)
    assert not np.allclose(single[0], single[1])
    assert both.forecast_windows(windows_for()).shape == (5, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forecast_does_not_look_at_the_targets_of_the_horizon(kind):
    bundle, windows = make_bundle(kind), windows_for()
    before = bundle.forecast_windows(windows)
    windows[:, WINDOWS.lookback :, 0] = float("nan")
    assert np.array_equal(bundle.forecast_windows(windows), before)


def test_a_forecast_does_not_look_at_past_covariates_of_the_horizon():
    columns = Columns(past=("p",), future=("x",))
    network = build_network(NETWORKS["residual"], columns, WINDOWS, 4)
    about = make_bundle().description
    facts = about.series.model_copy(update={"columns": columns})
    member = Member(network=NETWORKS["residual"], seeds=(0,))
    bundle = Bundle(about.model_copy(update={"series": facts, "members": (member,)}), [[network.state_dict()]])
    windows = torch.randn(2, WINDOWS.span, 3)
    before = bundle.forecast_windows(windows)
    windows[:, WINDOWS.lookback :, 1] = float("nan")
    assert np.array_equal(bundle.forecast_windows(windows), before)


@pytest.mark.parametrize("kind", KINDS)
def test_forecasts_do_not_depend_on_what_else_is_in_the_batch(kind):
    bundle, windows = make_bundle(kind), windows_for()
    together = bundle.forecast_windows(windows)
    alone = np.concatenate([bundle.forecast_windows(windows[at : at + 1]) for at in range(5)])
    assert alone == pytest.approx(together, abs=1e-5)


def test_nothing_in_a_bundle_is_pickled():
    weights, description = files()
    for content in (weights, description):
        with pytest.raises((pickle.UnpicklingError, KeyError, ValueError, EOFError, IndexError, AttributeError)):
            pickle.loads(content)
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert {tuple(name.split(".")[:2]) for name in header} == {("0", "0"), ("0", "1")}
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    assert set(json.loads(description)) == set(Description.model_fields)


@pytest.mark.parametrize("name", sorted(Description.model_fields.keys() - {"format"}))
def test_a_description_that_lacks_a_part_is_refused(name):
    weights, description = files()
    document = json.loads(description)
    del document[name]
    with pytest.raises(Fault, match=r"^This is no model bundle: .* Train again\.$"):
        load_bundle(weights, json.dumps(document).encode())


@pytest.mark.parametrize("version", [0, 1, 2, 3, None, "4"])
def test_a_bundle_of_another_format_is_refused(version):
    weights, description = files()
    with pytest.raises(Fault, match=rf"^The bundle has format {version}; this version reads 4\. Train again\.$"):
        load_bundle(weights, changed(description, format=version))


@pytest.mark.parametrize(
    "description",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",  # not UTF-8
        b"[]",
        b"null",
        pickle.dumps({"format": 3}),
    ],
)
def test_a_description_that_is_no_json_mapping_is_refused(description):
    with pytest.raises(Fault, match=r"^This is no model bundle: .* Train again\.$"):
        load_bundle(files()[0], description)


def test_an_unknown_part_is_refused():
    weights, description = files()
    with pytest.raises(Fault, match="This is no model bundle"):
        load_bundle(weights, changed(description, extra=1))


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_weights_that_are_cut_short_are_refused(cut):
    weights, description = files()
    with pytest.raises(Fault, match=r"^This is no model bundle: .* Train again\.$"):
        load_bundle(weights[:cut], description)


def test_pickled_weights_are_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with pytest.raises(Fault, match="This is no model bundle"):
        load_bundle(pickle.dumps(Bomb()), files()[1])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        "0.2.head.weight",  # one seed more than are listed
        "1.0.head.weight",  # one member more
        "-1.0.head.weight",
        "0.x.head.weight",
        "0.0",  # no parameter
        "head",  # no seed at all
        "0.².head",  # a digit, and no number
    ],
)
def test_weights_of_a_seed_that_is_not_listed_are_refused(name):
    weights, description = files()
    with pytest.raises(Fault, match=rf"holds weights '{name}' of a member or seed that bundle\.json does not list"):
        load_bundle(save_tensors(load_tensors(weights) | {name: torch.zeros(1)}), description)


def without(flat, name):
    return {key: value for key, value in flat.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        lambda flat: without(flat, "0.1.head.weight"),  # one absent
        lambda flat: {name: value for name, value in flat.items() if name.startswith("0.0.")},  # a whole seed absent
        lambda flat: flat | {"0.0.head.weight": torch.zeros(2, 2)},  # of another shape
        lambda flat: flat | {"0.0.more": torch.zeros(1)},  # one too many
    ],
)
def test_weights_that_do_not_fit_the_network_are_refused(change):
    weights, description = files()
    with pytest.raises(Fault, match=r"weights do not fit the network that bundle\.json describes"):
        load_bundle(save_tensors(change(load_tensors(weights))), description).forecast_windows(windows_for())


def test_weights_of_another_network_are_refused():
    with pytest.raises(Fault, match=r"weights do not fit the network that bundle\.json describes"):
        load_bundle(files(kind="reference")[0], files(kind="residual")[1]).forecast_windows(windows_for())


def test_a_network_with_an_embedding_tells_series_apart_and_all_unknown_ones_are_number_zero():
    bundle = make_bundle("embedding", seeds=(0,), names=("b", "a"))
    assert bundle.numbers == {"a": 1, "b": 2}
    windows = windows_for(1).expand(4, -1, -1)
    known = bundle.forecast_windows(windows, torch.tensor([0, 1, 2, 1]))
    assert not np.allclose(known[0], known[1])
    assert not np.allclose(known[1], known[2])
    assert known[3] == pytest.approx(known[1], abs=1e-6)
    assert bundle.forecast_windows(windows)[0] == pytest.approx(known[0], abs=1e-6)
    dumped = dump_bundle(bundle)
    again = load_bundle(dumped["weights.safetensors"], dumped["bundle.json"])
    assert np.array_equal(again.forecast_windows(windows, torch.tensor([0, 1, 2, 1])), known)


def test_weights_of_an_embedding_for_other_series_are_refused():
    weights = dump_bundle(make_bundle("embedding", names=("a", "b")))["weights.safetensors"]
    description = dump_bundle(make_bundle("embedding", names=("a",)))["bundle.json"]
    with pytest.raises(Fault, match=r"weights do not fit the network that bundle\.json describes"):
        load_bundle(weights, description).forecast_windows(windows_for())


def test_a_bundle_of_several_members_forecasts_the_mean_of_their_means():
    linear, residual = make_bundle("linear", seeds=(0, 7)), make_bundle("residual", seeds=(0, 7, 8))
    both = merged([linear, residual])
    windows = windows_for()
    expected = (linear.forecast_windows(windows) + residual.forecast_windows(windows)) / 2
    assert both.forecast_windows(windows) == pytest.approx(expected, abs=1e-6)
    dumped = dump_bundle(both)
    again = load_bundle(dumped["weights.safetensors"], dumped["bundle.json"])
    assert again.description == both.description
    assert [[member.network.kind, member.seeds] for member in again.description.members] == [
        ["linear", (0, 7)],
        ["residual", (0, 7, 8)],
    ]
    assert np.array_equal(again.forecast_windows(windows), both.forecast_windows(windows))


def test_many_windows_are_forecast_as_each_alone():
    bundle = make_bundle("embedding", seeds=(0,), names=("a", "b"))
    windows, series = windows_for(2100), torch.arange(2100) % 3
    chosen = [0, 255, 256, 2099]
    alone = np.concatenate([bundle.forecast_windows(windows[at : at + 1], series[at : at + 1]) for at in chosen])
    assert bundle.forecast_windows(windows, series)[chosen] == pytest.approx(alone, abs=1e-5)
