"""The lock behind "computed once": a file whose holder keeps it fresh, so that a killed one hangs nobody."""

import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import anyio
from prefect.locking.protocol import LockManager

LEASE_SECONDS = 20.0
POLL_SECONDS = 0.2


class LeasedLocks(LockManager):
    """Locks as files in one folder, each held by touching it.

    A file that has not been touched for `lease_seconds` belongs to nobody: its holder was killed or lost its disk.
    Should a holder only have been asleep, two runs may compute the same artifact; both write the same bytes.
    """

    def __init__(self, folder: Path, lease_seconds: float = LEASE_SECONDS):
        self.folder, self.lease_seconds = Path(folder), lease_seconds
        self._held: dict[str, tuple[str, threading.Event]] = {}

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock, waiting up to `acquire_timeout` seconds (for ever if None) while another holds it."""
        if self.is_lock_holder(key, holder):
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        deadline = None if acquire_timeout is None else time.monotonic() + acquire_timeout
        while not self._take(key, holder):
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        released = threading.Event()
        self._held[key] = (holder, released)
        threading.Thread(target=self._keep_fresh, args=(self._path(key), holder, released), daemon=True).start()
        return True

    def _take(self, key: str, holder: str) -> bool:
        path = self._path(key)
        try:
            with open(path, "x") as file:
                file.write(holder)
            return True
        except FileExistsError:
            if self._expired(path):
                self._clear(path)
            return False

    def _clear(self, path: Path) -> None:
        """Remove a stale lock; one at a time, so that nobody removes the fresh one that took its place."""
        with open(self.folder / "clearing", "w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if self._expired(path):
                path.unlink(missing_ok=True)

    def _expired(self, path: Path) -> bool:
        try:
            return time.time() - path.stat().st_mtime > self.lease_seconds
        except FileNotFoundError:
            return False

    def _keep_fresh(self, path: Path, holder: str, released: threading.Event) -> None:
        while not released.wait(self.lease_seconds / 4):
            try:
                if path.read_text() != holder:  # taken over while this one slept
                    return
                os.utime(path)
            except FileNotFoundError:
                return

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back.

        Raises:
            ValueError: it is not this holder's.
        """
        held = self._held.get(key)
        if held is None or held[0] != holder:
            raise ValueError(f"{holder} does not hold the lock {key}")
        held[1].set()
        del self._held[key]
        path = self._path(key)
        with suppress(FileNotFoundError):
            if path.read_text() == holder:  # not taken over while this one slept
                path.unlink()

    def is_locked(self, key: str) -> bool:
        path = self._path(key)
        return path.exists() and not self._expired(path)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        held = self._held.get(key)
        return held is not None and held[0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Whether the lock came free within `timeout` seconds (None: however long it takes)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.is_locked(key):
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        return await anyio.to_thread.run_sync(self.acquire_lock, key, holder, acquire_timeout, hold_timeout)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        return await anyio.to_thread.run_sync(self.wait_for_lock, key, timeout)
