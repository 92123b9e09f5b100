"""A real server, a real worker: a scheduled run fires within its minute, an on-demand run completes, both publish once."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import make_frame
from deltalake import DeltaTable

from flows.deploying import ROOT, deployment_file
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
    assert retrained.returncode == 0, retrained.stderr
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


def break_and_run(trained) -> subprocess.CompletedProcess:
    frame = make_frame()
    frame.loc[10, "load"] = np.nan
    trained.write_frame(frame)
    return convcast("run", "training", str(trained.yaml), "--watch")
