"""Scheduled and on-demand runs: server, process pool, deployments and worker, brought up as one."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from zoneinfo import available_timezones

import yaml

from flows.console import use_server
from flows.server import PRIVACY, log_path, only_one, read_note, running, start, stop
from models.errors import Fault

ROOT = Path(__file__).resolve().parent.parent
POOL = WORKER = "convcast"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
ACTIVE = ["PENDING", "RUNNING", "CANCELLING"]


def bring_up(spec_path: Path | None, tell: Callable[[str], None]) -> None:
    """Start whatever is not running yet, and deploy both flows for a spec.

    Raises:
        Fault: the spec or the deployment file is wrong, or Prefect refuses it.
    """
    document = deployment_file(spec_path)
    url = use_server(tell)
    tell("Deploying both flows through Prefect, which takes from seconds to a minute or two")
    with only_one("convcast-up"):
        if prefect("work-pool", "inspect", POOL, check=False).returncode:
            prefect("work-pool", "create", POOL, "--type", "process")
        deploy(document)
        start_worker(url)
    tell(f"Prefect UI    {url.removesuffix('/api')}")
    for one in document["deployments"]:
        when = "; ".join(f"{schedule['cron']} {schedule.get('timezone', 'UTC')}" for schedule in one.get("schedules", []))
        tell(f"scheduled     {flow_of(one)}/{one['name']}: {when or 'on demand only'}")
    tell(f"worker        logs to {log_path('worker')}")
    tell("on demand     convcast run training|forecasting SPEC --watch")
    tell("stop          convcast down")


def deployment_file(spec_path: Path | None) -> dict:
    """deployments/prefect.yaml, with the spec, the name and the timezone of another pipeline put in where one is given."""
    from flows.spec import check_networks, load_spec

    path = ROOT / "deployments" / "prefect.yaml"
    if not path.exists():
        raise Fault(f"{path} does not exist; run convcast up from an editable install of the project (pip install -e .).")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec = load_spec(spec_path or ROOT / "deployments" / "demo.yaml")
    check_networks(spec)
    for one in document["deployments"]:
        one["name"] = spec.name
        one["parameters"] = {"spec": spec.model_dump(mode="json")}
        if spec.source.timezone in available_timezones():  # cron knows zones by name, not fixed offsets
            for schedule in one["schedules"]:
                schedule["timezone"] = spec.source.timezone
    return document


def flow_of(deployment: dict) -> str:
    return deployment["entrypoint"].rpartition(":")[2]


def deploy(document: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        prefect("deploy", "--all", "--prefect-file", str(file))


def prefect(*arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    """Run Prefect's own command line from the project's root."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=ROOT,
        env={**os.environ, **PRIVACY},
        capture_output=True,
        text=True,
    )
    if check and done.returncode:
        raise Fault(f"prefect {' '.join(arguments[:2])} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return done


def start_worker(url: str) -> None:
    """Start the worker where none asks this server for runs; one that asks another, which may be gone, is stopped."""
    if worker_runs(url):
        return
    stop("worker")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER]
    start("worker", command, {"pool": POOL, "url": url}, PRIVACY)


def worker_runs(url: str) -> bool:
    """Whether the worker that convcast started still runs, and asks this server for runs."""
    known = read_note("worker")
    return known is not None and known.get("url") == url and running(known)


def is_served(client, url: str) -> bool:
    """Whether anybody takes up runs of the pool: convcast's worker here, or another that the server has heard of lately."""
    if worker_runs(url):
        return True
    known = read_note("worker")
    was_here = known is not None and known.get("url") == url  # and is gone, which the server learns only after a while
    others = [one for one in client.read_workers_for_work_pool(POOL) if not (was_here and one.name == WORKER)]
    return any(one.status.value == "ONLINE" for one in others)


def run_now(flow: str, spec_path: Path, watch: bool, tell: Callable[[str], None]) -> dict:
    """Have the worker run a deployed flow with this spec; returns run id, state and message.

    A deployment runs once at a time, and Prefect cancels a run that comes while another is under way. That is right for
    a schedule, which comes round again; a person who watches waits for the turn instead.

    Raises:
        Fault: the pipeline is not deployed; no worker is there to run it while somebody watches; or another run is under
            way and nobody is there to wait for it.
    """
    from flows.spec import load_spec

    spec = load_spec(spec_path)
    url = use_server(tell)
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(f"{flow}/{spec.name}")
        except ObjectNotFound as error:
            raise Fault(f"{flow}/{spec.name} is not deployed at {url}. Run convcast up {spec_path} first.") from error
        if not is_served(client, url):
            nobody = f"No worker takes up runs of the pool {POOL!r} at {url}. convcast up {spec_path} starts one"
            if watch:
                raise Fault(f"{nobody}; run it first.")
            tell(f"{nobody}; the run waits until then.")
        parameters = {"spec": spec.model_dump(mode="json")}
        while True:
            other = under_way(client, deployment.id)
            if other and not watch:
                raise Fault(
                    f"{flow}/{spec.name} runs once at a time, and {other} is under way. "
                    "Wait for it to end, or give --watch to wait for it and run then."
                )
            if other:
                tell(f"waiting for {other}, which is under way")
                while under_way(client, deployment.id):
                    time.sleep(1)
            run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
            tell(f"{run.name}: {url.removesuffix('/api')}/runs/flow-run/{run.id}")
            state = watch_run(client, run.id, tell) if watch else run.state
            if not overtaken(state):
                return {"run_id": str(run.id), "state": state.name, "message": state.message}
            tell("  another run began first; asking again")


def under_way(client, deployment_id) -> str | None:
    """What holds a deployment's only place: the name of a run where Prefect still knows it; None where the place is free.

    The place counts and not the runs' states: a run whose worker was killed stays "Running" in Prefect's books, but its
    place is given back when it is no longer renewed.
    """
    from prefect.client.schemas import filters

    limit = client.read_deployment(deployment_id).global_concurrency_limit
    if limit is None or limit.active_slots < limit.limit:
        return None
    begun = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment_id]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=ACTIVE)),
    )
    runs = client.read_flow_runs(flow_run_filter=begun, limit=1)
    return runs[0].name if runs else "another run"


def overtaken(state) -> bool:
    """Whether a run was cancelled only because another of its deployment had begun a moment before."""
    return state.type.value == "CANCELLED" and "concurrency limit reached" in (state.message or "")


def watch_run(client, run_id, tell: Callable[[str], None]):
    """The final state of a run, each state on the way told."""
    last = None
    while True:
        state = client.read_flow_run(run_id).state
        if state.name != last:
            tell(f"  {time.strftime('%H:%M:%S')} {state.name}{': ' + state.message if state.message else ''}")
            last = state.name
        if state.type.value in FINAL:
            return state
        time.sleep(0.5)
