"""A real server, a real worker: a scheduled run fires within its minute, an on-demand run completes, both publish once."""

import json
import subprocess
import sys
import time
import uuid
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from conftest import make_frame
from deltalake import DeltaTable
from prefect.client.schemas.objects import Worker

from flows import deploying
from flows import server as server_
from flows.deploying import ROOT, deployment_file
from flows.server import port_before, read_note
from flows.spec import check_spec, resolved


def convcast(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "flows.cli", *arguments], capture_output=True, text=True, timeout=300)


def test_the_deployment_file_carries_the_demo_spec_itself():
    document = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())
    demo = yaml.safe_load((ROOT / "deployments" / "demo.yaml").read_text())
    expected = check_spec(resolved(demo, ROOT / "deployments"), "demo.yaml")
    for one in document["deployments"]:
        assert check_spec(resolved(one["parameters"]["spec"], ROOT), "prefect.yaml") == expected


def test_another_spec_takes_the_place_of_the_demo_and_keeps_the_schedules(case):
    document = deployment_file(case.yaml)
    schedules = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())["deployments"]
    for one, before in zip(document["deployments"], schedules, strict=True):
        assert one["name"] == "small"
        assert one["parameters"]["spec"]["store"] == str(case.folder / "store")
        assert [each["cron"] for each in one["schedules"]] == [each["cron"] for each in before["schedules"]]
        assert {each["timezone"] for each in one["schedules"]} == {"UTC"}


@pytest.mark.parametrize(
    ("note", "stopped", "started"),
    [
        ({"url": "http://here/api"}, [], []),
        ({"url": "http://elsewhere/api"}, ["worker"], ["http://here/api"]),
        ({}, ["worker"], ["http://here/api"]),
        (None, ["worker"], ["http://here/api"]),
    ],
    ids=["of this server", "of another server", "of an older convcast", "none"],
)
def test_a_worker_that_asks_another_server_for_runs_makes_room_for_one_that_asks_this(monkeypatch, note, stopped, started):
    ended, begun = [], []
    monkeypatch.setattr(deploying, "read_note", lambda role: note)
    monkeypatch.setattr(deploying, "running", lambda known: True)
    monkeypatch.setattr(deploying, "stop", ended.append)
    monkeypatch.setattr(deploying, "start", lambda role, command, facts, environment: begun.append(facts["url"]))
    deploying.start_worker("http://here/api")
    assert (ended, begun) == (stopped, started)


@pytest.mark.parametrize(
    ("url", "alive", "workers", "served"),
    [
        ("http://here/api", True, [], True),
        ("http://here/api", False, [("convcast", "ONLINE")], False),  # ours was killed, and the server has not noticed yet
        ("http://here/api", False, [("other", "ONLINE")], True),
        ("http://elsewhere/api", True, [("convcast", "ONLINE")], True),  # of another machine
        ("http://elsewhere/api", True, [("convcast", "OFFLINE")], False),
        (None, False, [("convcast", "ONLINE")], True),
        (None, False, [], False),
    ],
)
def test_a_run_is_served_by_a_worker_here_or_by_one_that_the_server_has_heard_of(monkeypatch, url, alive, workers, served):
    found = [Worker(name=name, work_pool_id=uuid.uuid4(), status=status) for name, status in workers]
    client = SimpleNamespace(read_workers_for_work_pool=lambda pool: found)
    monkeypatch.setattr(deploying, "read_note", lambda role: {"url": url} if url else None)
    monkeypatch.setattr(deploying, "running", lambda known: alive)
    assert deploying.is_served(client, "http://here/api") is served


def test_a_server_that_was_killed_is_looked_for_where_it_was():
    assert port_before({"url": "http://127.0.0.1:48873/api"}) == [48873]
    assert port_before(None) == []


@pytest.mark.parametrize(("free", "port"), [({48873, 4200}, 48873), ({4200}, 4200), (set(), 5000)])
def test_a_new_server_takes_the_port_of_the_one_before_it_where_that_is_free(monkeypatch, tmp_path, free, port):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setattr(server_, "read_note", lambda role: {"url": "http://127.0.0.1:48873/api"})
    monkeypatch.setattr(server_, "running", lambda note: False)
    monkeypatch.setattr(server_, "port_is_free", lambda one: one in free)
    monkeypatch.setattr(server_, "free_port", lambda: 5000)
    monkeypatch.setattr(server_, "start", lambda *_: {"pid": 1})
    monkeypatch.setattr(server_, "wait_healthy", lambda *_: True)
    assert server_.local_server(lambda line: None) == f"http://127.0.0.1:{port}/api"


@pytest.mark.server
def test_scheduled_and_on_demand_runs_complete_and_publish_once(server, trained):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.schedules import CronSchedule

    frame = pd.concat([make_frame(), make_frame(624)[600:].assign(load=np.nan)])
    trained.write_frame(frame)
    begun = convcast("up", str(trained.yaml))
    assert begun.returncode == 0, begun.stderr
    assert "forecasting/small" in begun.stdout
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("forecasting/small")
        training = client.read_deployment_by_name("training/small")
        assert [schedule.schedule.timezone for schedule in training.schedules] == ["UTC"]
        # The scheduler looks at new schedules every minute and places runs that are due; so does a worker.
        client.create_deployment_schedules(deployment.id, [(CronSchedule(cron="* * * * *", timezone="UTC"), True)])

        trained.write_spec(forecast__origin="2024-01-20T00:00:00+00:00")
        on_demand = convcast("run", "forecasting", str(trained.yaml), "--watch", "--json")
        assert on_demand.returncode == 0, on_demand.stderr
        assert json.loads(on_demand.stdout)["state"] == "Completed"

        scheduled = wait_for_scheduled(client, deployment.id)
    late = (scheduled.start_time - scheduled.expected_start_time).total_seconds()
    assert late < 60
    table = DeltaTable(trained.store.forecasts).to_pandas()
    assert len(table) == 2 * 24
    assert not table.duplicated(["series_id", "origin", "step", "model"]).any()
    assert sorted(set(table["origin"])) == [pd.Timestamp("2024-01-20", tz="UTC"), pd.Timestamp("2024-01-25 23:00", tz="UTC")]

    retrained = wait_while_another_runs(server, trained)
    assert "is live already" in retrained.stdout  # what came of it, as train says it
    assert "seasonal naive" in retrained.stdout
    assert retrained.returncode == 0, retrained.stderr
    alone, served = run_without_a_worker(trained)
    assert alone.returncode == 2
    assert "No worker takes up runs of the pool 'convcast'" in alone.stderr
    assert served.returncode == 0, served.stderr
    refused = break_and_run(trained)
    assert refused.returncode == 2
    assert "no value at" in refused.stdout


def wait_for_scheduled(client, deployment_id, seconds: float = 200):
    """The first run that the schedule, and not a person, has brought to its end."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
    from prefect.client.schemas.sorting import FlowRunSort

    only = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        runs = client.read_flow_runs(flow_run_filter=only, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=5)
        # One that falls due while another still runs is cancelled, as the deployments ask for; the next one comes in a minute.
        done = [run for run in runs if run.auto_scheduled and run.state.is_final() and not run.state.is_cancelled()]
        if done:
            assert done[0].state.is_completed(), done[0].state
            return done[0]
        time.sleep(1)
    raise AssertionError("no scheduled run ended")


def wait_while_another_runs(server, trained) -> subprocess.CompletedProcess:
    """A training run asked for while another is under way: refused unless watched, and then run when the other has ended."""
    from prefect.client.orchestration import get_client
    from prefect.states import Completed, Pending, Running

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("training/small")
        other = client.create_flow_run_from_deployment(deployment.id, name="long-one")
        client.set_flow_run_state(other.id, Pending())
        client.set_flow_run_state(other.id, Running())
        hurried = convcast("run", "training", str(trained.yaml))
        assert hurried.returncode == 2
        assert "runs once at a time, and long-one is under way" in hurried.stderr
        command = [sys.executable, "-m", "flows.cli", "run", "training", str(trained.yaml), "--watch"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as patient:
            assert "waiting for long-one" in patient.stdout.readline()
            client.set_flow_run_state(other.id, Completed())
            out, err = patient.communicate(timeout=300)
    return subprocess.CompletedProcess(command, patient.returncode, out, err)


def run_without_a_worker(trained) -> tuple[subprocess.CompletedProcess, ...]:
    """What a training run says once the worker was killed, and once it has been brought up again."""
    kill_noted("worker")
    alone = convcast("run", "training", str(trained.yaml), "--watch")
    assert convcast("up", str(trained.yaml)).returncode == 0
    return alone, convcast("run", "training", str(trained.yaml), "--watch")


def kill_noted(role: str) -> None:
    process = psutil.Process(read_note(role)["pid"])
    process.kill()
    psutil.wait_procs([process], timeout=20)


def break_and_run(trained) -> subprocess.CompletedProcess:
    frame = make_frame()
    frame.loc[10, "load"] = np.nan
    trained.write_frame(frame)
    return convcast("run", "training", str(trained.yaml), "--watch")
