"""Real data, with the faults it has: each spec under tests/cases trains, and forecasts, on its own file."""

from pathlib import Path

import pytest
import yaml
from deltalake import DeltaTable

from flows.forecasting import forecasting
from flows.spec import check_spec
from flows.training import training

CASES = Path(__file__).parent / "cases"
DATA = Path(__file__).parents[2] / "shared" / "data"


def spec_of(name: str, folder: Path):
    """The spec of a case, its file and store filled in."""
    document = yaml.safe_load((CASES / f"{name}.yaml").read_text())
    source = DATA / document["source"]["uri"]
    if not source.exists():
        pytest.skip(f"{source.name} is not in ../shared/data; it is no part of the project")
    if "holidays" in document["source"]:
        pytest.importorskip("holidays")
    document["source"]["uri"], document["store"] = str(source), str(folder / "store")
    return check_spec(document, name)


@pytest.mark.parametrize(
    ("name", "num_series", "steps", "repairs"),
    [
        (
            "la_haute_borne",
            4,
            420_480,
            {"absent rows masked": 48, "repeated stamps": 48, "steps masked": 2569},
        ),
        ("ETTh1", 1, 17_420, {}),
        ("ETTm1", 6, 6 * 69_680, {}),
        ("elecdemand", 1, 17_520, {}),
    ],
)
def test_a_real_file_trains_and_forecasts_with_its_repairs_counted(server, tmp_path, name, num_series, steps, repairs):
    from tasks.ingest.task import Series
    from tasks.storage import Store

    spec = spec_of(name, tmp_path)
    outcome = training(spec)
    assert outcome.scores["new"]["test"]["1"]["mae"] > 0
    series = [Series.model_validate(one["receipt"]) for one in Store(spec.store).manifests("ingest")]
    assert sum(one.num_series for one in series) == num_series
    assert sum(one.steps for one in series) == steps
    found: dict[str, int] = {}
    for one in series:
        for what, count in one.repairs.items():
            found[what] = found.get(what, 0) + count
    assert {what: found.get(what) for what in repairs} == repairs
    if not repairs:
        assert not found
    if outcome.promoted and name != "elecdemand":  # whose covariates end with its targets
        written = forecasting(spec)
        assert written.num_series == num_series
        assert len(DeltaTable(written.forecast_table).to_pandas()) == num_series * spec.windows.horizon
