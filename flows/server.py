"""A Prefect server to talk to: the one that is configured, or a local one, started once and reused.

The server and the worker that convcast starts are noted under Prefect's own home folder, so that every later
command finds them and `convcast down` stops them, and nothing else. Imports no Prefect: it has to be quick.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from models.errors import Fault

HOST = "127.0.0.1"
USUAL_PORT = 4200
START_SECONDS = 90
PRIVACY = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def prefect_home() -> Path:
    return Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()


def configured_url() -> str | None:
    """The API that Prefect is told to use, by the environment or by its active profile."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    profiles = prefect_home() / "profiles.toml"
    if not profiles.exists():
        return None
    document = tomllib.loads(profiles.read_text(encoding="utf-8"))
    active = os.environ.get("PREFECT_PROFILE") or document.get("active")
    return document.get("profiles", {}).get(active, {}).get("PREFECT_API_URL")


def ensure_server(tell: Callable[[str], None]) -> str:
    """The URL of a Prefect API that answers; a local one is started in the background where none is configured.

    Leaves it in PREFECT_API_URL, for Prefect to read.

    Raises:
        Fault: the configured server does not answer, or the local one does not start.
    """
    url = configured_url()
    if url is None:
        url = local_server(tell)
    elif not wait_healthy(url, 10):
        raise Fault(
            f"No Prefect server answers at {url}/health. Start it, or take PREFECT_API_URL out of the environment and of "
            "Prefect's profile to use a local one."
        )
    os.environ["PREFECT_API_URL"] = url
    return url


def healthy(url: str, timeout: float = 5.0) -> bool:
    """Whether a Prefect API answers there. Goes straight to it, whatever proxy the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=timeout) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)  # it is there and asks who we are
    except (urllib.error.URLError, OSError, ValueError):
        return False


def local_server(tell: Callable[[str], None]) -> str:
    """The URL of convcast's own server on loopback, started if it does not run yet."""
    with only_one("convcast-server"):
        known = read_note("server")
        if known and running(known) and wait_healthy(known["url"], START_SECONDS):
            return known["url"]
        port = next(filter(port_is_free, [*port_before(known), USUAL_PORT]), None) or free_port()
        url = f"http://{HOST}:{port}/api"
        tell(f"Starting a local Prefect server at http://{HOST}:{port} (stop it with: convcast down)")
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
        note = start("server", command, {"url": url}, PRIVACY)
        if not wait_healthy(url, START_SECONDS, note["pid"]):
            raise Fault(f"The local Prefect server did not start; {log_path('server')} says why.")
        return url


def port_before(note: dict | None) -> list[int]:
    """The port that the noted server had, where whoever it served looks for the next one."""
    port = urllib.parse.urlsplit(note["url"]).port if note else None
    return [port] if port else []


def wait_healthy(url: str, seconds: float, pid: int | None = None) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if healthy(url):
            return True
        if pid is not None and not alive(pid):
            return False
        time.sleep(0.2)
    return False


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def log_path(role: str) -> Path:
    return prefect_home() / f"convcast-{role}.log"


def note_path(role: str) -> Path:
    return prefect_home() / f"convcast-{role}.json"


def start(role: str, command: list[str], facts: dict, environment: dict[str, str]) -> dict:
    """Start a process that outlives this one, and note it so that it can be found and stopped."""
    prefect_home().mkdir(parents=True, exist_ok=True)
    with open(log_path(role), "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    process.returncode = 0  # it is meant to outlive this process, and Popen need not warn that it does
    note = {"pid": process.pid, "created": psutil.Process(process.pid).create_time(), **facts}
    note_path(role).write_text(json.dumps(note), encoding="utf-8")
    return note


def read_note(role: str) -> dict | None:
    try:
        return json.loads(note_path(role).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def running(note: dict) -> bool:
    """Whether the noted process still runs, and is the one that was noted."""
    try:
        process = psutil.Process(note["pid"])
        return abs(process.create_time() - note["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stop(role: str, seconds: float = 20.0) -> bool:
    """Stop the noted process and its children; whether there was one to stop."""
    note = read_note(role)
    note_path(role).unlink(missing_ok=True)
    if note is None or not running(note):
        return False
    process = psutil.Process(note["pid"])
    family = [process, *process.children(recursive=True)]
    process.terminate()
    _, left = psutil.wait_procs([process], timeout=seconds)
    for member in [one for one in family if one in left or one.is_running()]:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    return True


@contextmanager
def only_one(what: str) -> Iterator[None]:
    """Let one process at a time through; the lock goes with the process that holds it."""
    prefect_home().mkdir(parents=True, exist_ok=True)
    with open(prefect_home() / f"{what}.lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
