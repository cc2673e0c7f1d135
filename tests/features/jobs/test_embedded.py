"""The Valkey and the worker that the service runs itself."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from servers import is_alive
from serving import make_settings

import app.core.parent
from app.core.child import Child
from app.features.jobs.embedded import SOCKET_PATH_FILE, Embedded, find_valkey
from app.features.jobs.metrics import JobMetrics
from app.settings import as_environment

TIMEOUT_S = 20.0
CHILD = "import subprocess, sys, time; time.sleep(60)"


@asynccontextmanager
async def embedded(tmp_path: Path, **settings: Any) -> AsyncIterator[Embedded]:
    """Run a Valkey whose worker never starts: the models it waits for are never loaded."""
    valkey = find_valkey()
    assert valkey is not None
    never = asyncio.Event()
    pair = Embedded(
        make_settings(tmp_path, jobs="on", **settings),
        valkey=valkey,
        metrics=JobMetrics(),
        after=never.wait,
    )
    async with pair.running():
        yield pair


async def answers(url: str) -> redis.Redis:
    """Return a client once the server answers."""
    client = redis.Redis.from_url(url)
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            try:
                await asyncio.to_thread(client.ping)
            except redis.ConnectionError:
                await asyncio.sleep(0.02)
            else:
                return client


def note(folder: Path, socket: str) -> None:
    """Say what a service says of its socket."""
    (folder / "data" / SOCKET_PATH_FILE).write_text(socket)


def exists(path: str) -> bool:
    return Path(path).exists()


def command_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


async def gone(pid: int) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while is_alive(pid):
            await asyncio.sleep(0.01)


async def test_the_socket_is_private_and_its_folder_goes_at_the_end(tmp_path: Path) -> None:
    async with embedded(tmp_path) as pair:
        client = await answers(pair.url)
        pid = int(client.info()["process_id"])  # type: ignore[index]  # the client is synchronous
        socket = Path(pair.url.removeprefix("unix://"))
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert client.config_get("port") == {"port": "0"}
    assert not socket.parent.exists()
    assert not is_alive(pid)


async def test_the_socket_folder_of_a_killed_service_goes_with_the_next_start(
    tmp_path: Path,
) -> None:
    async with embedded(tmp_path) as pair:
        await answers(pair.url)
        left = tempfile.mkdtemp(prefix="ml-api-")
        note(tmp_path, f"{left}/valkey.sock")
    async with embedded(tmp_path) as pair:
        await answers(pair.url)
        async with asyncio.timeout(TIMEOUT_S):
            while exists(left):
                await asyncio.sleep(0.01)


async def test_what_the_broker_holds_outlives_the_service(tmp_path: Path) -> None:
    async with embedded(tmp_path) as pair:
        (await answers(pair.url)).set("kept", "1")
    async with embedded(tmp_path) as pair:
        assert (await answers(pair.url)).get("kept") == b"1"


async def test_a_killed_valkey_comes_back_however_often(tmp_path: Path) -> None:
    async with embedded(tmp_path) as pair:
        for _ in range(5):
            client = await answers(pair.url)
            pid = int(client.info()["process_id"])  # type: ignore[index]  # as above
            os.kill(pid, signal.SIGKILL)
            await gone(pid)
        await answers(pair.url)
        assert pair.problem() is None


async def test_a_second_service_leaves_the_first_ones_folder_alone(tmp_path: Path) -> None:
    async with embedded(tmp_path) as first:
        await answers(first.url)
        async with embedded(tmp_path) as second:
            async with asyncio.timeout(TIMEOUT_S):
                while second.problem() is None:
                    await asyncio.sleep(0.01)
            assert not exists(second.url.removeprefix("unix://"))
        await answers(first.url)


def test_a_folder_that_cant_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")

    async def run() -> str | None:
        async with embedded(tmp_path) as pair:
            async with asyncio.timeout(TIMEOUT_S):
                while pair.problem() is None:
                    await asyncio.sleep(0.01)
            return pair.problem()

    assert asyncio.run(run()) in {"NotADirectoryError", "FileExistsError"}


def test_the_worker_gets_the_settings_in_force(tmp_path: Path) -> None:
    settings = make_settings(
        tmp_path, admin_key="a secret of sixteen", log_inputs=True, database_pool_size=3
    )
    variables = as_environment(settings)
    assert variables["ADMIN_KEY"] == "a secret of sixteen"
    assert variables["LOG_INPUTS"] == "true"
    assert variables["DATABASE_POOL_SIZE"] == "3"
    assert Path(variables["DATA_DIR"]).is_absolute()
    assert "HOST" not in variables or "HOST" in os.environ


on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells children of a parent's death"
)


@on_linux
async def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    launcher = [sys.executable, "-I", "-S", str(app.core.parent.__file__)]
    parent = f"""
import os, subprocess, sys
child = subprocess.Popen([*{launcher!r}, str(os.getpid()), sys.executable, "-c", {CHILD!r}])
open({str(pid_file)!r}, "w").write(str(child.pid))
child.wait()
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", parent)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not (pid_file.is_file() and pid_file.read_text()):
                await asyncio.sleep(0.01)
        child = int(pid_file.read_text())
        assert is_alive(child)
        # The launcher asks to die with its parent before it becomes the command.
        async with asyncio.timeout(TIMEOUT_S):
            while CHILD.encode() not in command_of(child)[:3]:
                await asyncio.sleep(0.01)
    finally:
        process.kill()
        await process.wait()
    await gone(child)


DEAF = """
import pathlib, signal, sys, time
heard = pathlib.Path(sys.argv[1])
def note(*_):
    heard.write_text(heard.read_text() + "told ")
signal.signal(signal.SIGTERM, note)
heard.write_text("ready ")
while True:
    time.sleep(60)
"""


async def test_a_child_that_doesnt_end_gets_two_signals_and_is_then_killed(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    child = Child(
        name="deaf",
        command=[sys.executable, "-c", DEAF, str(heard)],
        environment=os.environ,
        stop_s=1.0,
    )
    process = await child.start()
    async with asyncio.timeout(TIMEOUT_S):
        while not (heard.is_file() and heard.read_text()):
            await asyncio.sleep(0.01)
    await child.stop()
    assert heard.read_text() == "ready told told "
    assert process.returncode == -signal.SIGKILL


@on_linux
def test_a_child_whose_parent_is_dead_already_ends_at_once() -> None:
    command = [
        sys.executable,
        "-I",
        "-S",
        str(app.core.parent.__file__),
        "1",
        sys.executable,
        "-c",
        CHILD,
    ]
    assert subprocess.run(command, timeout=TIMEOUT_S, check=False).returncode == 1
