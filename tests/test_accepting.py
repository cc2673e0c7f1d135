"""Connections while descriptors run out: they wait, it is told once, and none is reset."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from process import service
from serving import FAKE, make_settings

from app import accepting
from app.accepting import Acceptor
from app.descriptors import is_short, limit, wanted
from app.doctor import machine
from app.listening import listening
from app.server import make_server
from app.settings import Settings

GET = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@contextmanager
def less_than_the_reserve() -> Iterator[None]:
    """Leave this process less than is kept back: others may give a few back meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(address: Any) -> socket.socket:
    client = socket.create_connection(address, 10)
    client.sendall(GET)
    return client


def read(client: socket.socket) -> bytes:
    with client:
        return b"".join(iter(lambda: client.recv(65_536), b""))


async def test_connections_wait_for_a_descriptor_and_a_metric_and_one_line_tell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "RETRY_S", 0.01)
    server = make_server(make_settings(tmp_path))
    with listening("127.0.0.1", 0) as sockets:
        served = asyncio.create_task(server.serve(sockets))
        while not server.started:
            await asyncio.sleep(0)
        runtime = server.runtime()
        assert runtime is not None
        await runtime.loaded.wait()
        await runtime.stored.wait()
        shortages = partial(
            runtime.metrics.registry.get_sample_value, "mlapi_descriptor_shortages_total"
        )
        clients = [connect(sockets[0].getsockname()) for _ in range(8)]
        with less_than_the_reserve():
            while not shortages():
                await asyncio.sleep(0)
            await asyncio.sleep(3 * accepting.RETRY_S)
            assert server.server_state.total_requests == 0
        answers = [await asyncio.to_thread(read, client) for client in clients]
        server.should_exit = True
        await served
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert [r.message for r in caplog.records].count("out_of_descriptors") == 1
    assert shortages() == 1


class Refusing(socket.socket):
    """A socket of a machine that has no descriptor left for a while."""

    refusals: ClassVar = [errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.refusals:
            raise OSError(self.refusals.pop(), "no more")
        return super().accept()


async def test_what_the_machine_lacks_is_waited_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "RETRY_S", 0.01)
    shortages: list[None] = []
    arrived = asyncio.Event()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            arrived.set()
            transport.close()

    opened = Refusing()
    opened.bind(("127.0.0.1", 0))
    opened.listen()
    opened.settimeout(0)
    acceptor = Acceptor(opened, Protocol, on_shortage=lambda: shortages.append(None))
    with socket.create_connection(opened.getsockname()):
        await asyncio.wait_for(arrived.wait(), 10)
    acceptor.close()
    acceptor.close()
    await acceptor.wait_closed()
    assert acceptor.sockets == ()
    assert shortages == [None]


def test_the_lowest_free_number_tells_how_much_is_left() -> None:
    with less_than_the_reserve():
        assert is_short(0)
    assert not is_short(0)
    assert is_short(-1)


def test_doctor_says_when_the_limit_is_too_low(tmp_path: Path) -> None:
    settings = Settings(_env_file=None)
    with_redis: Any = {"redis_url": "redis://h"}
    assert wanted(settings) < wanted(Settings(_env_file=None, **with_redis))
    found = {each.place: each for each in machine.look(make_settings(tmp_path))}["open files"]
    assert (found.level, found.said) == ("ok", f"{limit()} at once")
    with less_than_the_reserve():
        found = {each.place: each for each in machine.look(make_settings(tmp_path))}["open files"]
    assert found.level == "warn"
    assert str(wanted(settings)) in found.advice


def test_with_64_descriptors_a_hundred_callers_at_once_are_all_answered(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        with service(tmp_path, FAKE) as running:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            running.wait_ready()
            clients = [connect(("127.0.0.1", running.port)) for _ in range(100)]
            answers = [read(client) for client in clients]
            assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
            assert running.log.count('"few_descriptors"') == 1
            assert running.log.count('"out_of_descriptors"') <= 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
