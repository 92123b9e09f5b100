"""A Prefect server of the tests' own, a small pipeline, and the data it runs on."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

# Before anything imports Prefect: a home of our own, and no server but the one that the tests start.
HOME = Path(tempfile.mkdtemp(prefix="convcast-tests-"))
os.environ["PREFECT_HOME"] = str(HOME)
os.environ.pop("PREFECT_API_URL", None)
os.environ.pop("PREFECT_PROFILE", None)
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # they share the cores; said before torch is there
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))


def pytest_sessionfinish() -> None:
    clean_up()  # a process of many is not given the time for what it does at its exit


def clean_up() -> None:
    from flows.server import stop

    stop("worker")
    stop("server")
    shutil.rmtree(HOME, ignore_errors=True)


atexit.register(clean_up)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The API of a real local server, started once for all tests."""
    from flows.console import use_server

    url = use_server(lambda line: None)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # At the end of a run Prefect waits up to a second for the thread of its heartbeats; the tests make hundreds of runs.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield url


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks as small as those of tests are fastest on one thread, and far so where the cores are shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_frame(num_rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Hourly rows: a daily wave that a known temperature bends, and a little noise."""
    rng = np.random.default_rng(seed)
    at = np.arange(num_rows)
    temperature = 15 + 5 * np.sin(2 * np.pi * at / 240) + rng.normal(0, 1, num_rows)
    load = 10 + 3 * np.sin(2 * np.pi * at / 24) + 0.2 * temperature + rng.normal(0, 0.2, num_rows)
    stamps = pd.date_range("2024-01-01", periods=num_rows, freq="h").strftime("%Y-%m-%d %H:%M")
    return pd.DataFrame({"when": stamps, "load": load.round(4), "temperature": temperature.round(3)})


def make_document(folder: Path, **changes) -> dict:
    """A spec small enough to train in a second; `section__key=value` changes one setting."""
    document = {
        "name": "small",
        "store": "store",
        "source": {
            "uri": "load.csv",
            "timestamp": "when",
            "timezone": "UTC",
            "frequency": "h",
            "target": "load",
            "future_covariates": ["temperature"],
            "calendar": [],
        },
        "folds": {"validation": 72, "test": 72},
        "windows": {"lookback": 72, "horizon": 24},
        "network": {"kind": "residual", "channels": 8, "depth": 6},
        "fit": {"max_steps": 40, "steps_per_epoch": 10, "batch_size": 16, "device": "cpu"},
    }
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            document.setdefault(section, {})[key] = value
        else:
            document[section] = value
    return document


class Case:
    """A folder with a CSV and a spec, as a user would have."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.csv, self.yaml = folder / "load.csv", folder / "spec.yaml"
        self.write_frame(make_frame())
        self.write_spec()

    def write_frame(self, frame: pd.DataFrame) -> None:
        frame.to_csv(self.csv, index=False)

    def write_spec(self, **changes) -> None:
        self.yaml.write_text(yaml.safe_dump(make_document(self.folder, **changes), sort_keys=False))

    @property
    def spec(self):
        from flows.spec import load_spec

        return load_spec(self.yaml)

    @property
    def store(self):
        from tasks.storage import Store

        return Store(self.folder / "store")


@pytest.fixture
def case(tmp_path) -> Case:
    return Case(tmp_path)


@pytest.fixture(scope="session")
def trained_folder(server, tmp_path_factory) -> Path:
    """A pipeline that has been trained once; copy it, do not change it."""
    from flows.training import training

    folder = tmp_path_factory.mktemp("trained")
    training(Case(folder).spec)
    return folder


@pytest.fixture
def trained(trained_folder, tmp_path) -> Case:
    """A fresh copy of the trained pipeline."""
    shutil.copytree(trained_folder, tmp_path, dirs_exist_ok=True)
    case = object.__new__(Case)
    case.folder, case.csv, case.yaml = tmp_path, tmp_path / "load.csv", tmp_path / "spec.yaml"
    return case
