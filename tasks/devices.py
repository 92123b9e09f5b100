"""Start the processes that train together on this machine as torchrun would, and end them all if one fails."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.distributed import TCPStore

from tasks import rank
from tasks.children import Child, failure, follow, started
from tasks.rank import Job

HOST = "127.0.0.1"


def train_together(job: Job) -> None:
    """Run a job in `fit.devices` processes; their checkpoints hold what they learned.

    Raises:
        Fault: what one of them raised.
        Stopped: whoever watches this training wants no more of it.
        ProcessLost: one of them was killed, or stopped answering.
        torch.OutOfMemoryError: a device has too little memory for its part.
        RuntimeError: one of them failed in another way.
    """
    count = job.fit.devices
    with TemporaryDirectory(prefix="convcast-") as folder:
        path = Path(folder, "job.json")
        path.write_text(job.model_dump_json(), encoding="utf-8")
        with ranks(path, count) as children:
            follow(children)
            failed = [one for one in children if one.process.poll() != 0]
            if failed:
                raise failure(failed, f"{count} that train together (fit.devices)")


@contextmanager
def ranks(job: Path, count: int) -> Iterator[list[Child]]:
    """So many processes that know of one another."""
    listening = socket.create_server((HOST, 0))  # bound here, so that nobody else can take the port
    port = listening.getsockname()[1]
    meeting = TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    try:
        with started(rank.__name__, job, [environment(number, count, port) for number in range(count)]) as children:
            yield children
    finally:
        del meeting


def environment(number: int, count: int, port: int) -> dict[str, str]:
    """What torchrun would set, and no network but loopback."""
    named = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    interface = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback} if loopback else {}
    return {
        **{name: str(value) for name, value in named.items()},
        **interface,
        "MASTER_ADDR": HOST,
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the one that listens is this process, not the first of theirs
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
