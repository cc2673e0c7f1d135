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
from typing import Any

import pytest
from process import service
from serving import FAKE, AllSettings, make_settings

from app.doctor import machine
from app.server.accepting import RETRY_S, Acceptor
from app.server.descriptors import is_short, limit, needed_descriptors
from app.server.listening import listening
from app.server.serve import make_server

AT_ONCE = 100
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
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
            await asyncio.sleep(3 * RETRY_S)
            assert server.server_state.total_requests == 0
        answers = [await asyncio.to_thread(read, client) for client in clients]
        server.should_exit = True
        await served
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert [r.message for r in caplog.records].count("out_of_descriptors") == 1
    assert shortages() == 1


class Scripted(socket.socket):
    """A socket whose accept fails as it is told, until nothing more is said."""

    def __init__(self, *failures: int | None) -> None:
        super().__init__()
        self.failures = list(failures)  # None: it doesn't fail
        self.tries = 0
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.settimeout(0)

    def accept(self) -> tuple[socket.socket, Any]:
        self.tries += 1
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise OSError(failure, "no more")
        return super().accept()


class Accepted:
    """Accepts from a socket, and notes connections and shortages."""

    def __init__(self, listening: socket.socket) -> None:
        self.shortages = self.connections = 0
        self.arrived = asyncio.Event()
        self.acceptor = Acceptor(
            listening, self.make_protocol, on_shortage=self.note, retry_s=0.01, at_once=AT_ONCE
        )

    def note(self) -> None:
        self.shortages += 1

    def make_protocol(self) -> asyncio.Protocol:
        self.connections += 1
        self.arrived.set()
        return Leaving()

    async def close(self) -> None:
        self.acceptor.close()
        self.acceptor.close()
        await self.acceptor.wait_closed()
        assert self.acceptor.sockets == ()


class Leaving(asyncio.Protocol):
    """Ends each connection."""

    def connection_made(self, transport: Any) -> None:
        transport.close()


async def accept_one(scripted: Scripted) -> Accepted:
    """Accept from a socket until one connection has arrived."""
    accepted = Accepted(scripted)
    with socket.create_connection(scripted.getsockname()):
        await asyncio.wait_for(accepted.arrived.wait(), 10)
    await accepted.close()
    return accepted


@pytest.mark.parametrize("lack", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_what_the_process_or_the_machine_lacks_is_waited_for(lack: int) -> None:
    accepted = await accept_one(Scripted(lack, lack))
    assert accepted.shortages == 1


@pytest.mark.parametrize("failure", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN])
async def test_one_connection_s_failure_is_no_shortage(failure: int) -> None:
    scripted = Scripted(failure, failure)
    accepted = await accept_one(scripted)
    assert accepted.shortages == 0
    assert scripted.tries <= 4, "the next one was accepted at once"


async def test_a_second_shortage_is_counted_after_a_spell_in_which_the_queue_never_was_empty() -> (
    None
):
    scripted = Scripted(errno.EMFILE, *[None] * AT_ONCE, errno.EMFILE)
    accepted = Accepted(scripted)
    clients = [socket.create_connection(scripted.getsockname()) for _ in range(AT_ONCE + 1)]
    async with asyncio.timeout(10):
        while accepted.connections <= AT_ONCE:
            await asyncio.sleep(0)
    await accepted.close()
    for client in clients:
        client.close()
    assert accepted.shortages == 2


async def test_a_connection_without_a_protocol_is_closed_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> asyncio.Protocol:
        raise RuntimeError

    scripted = Scripted()
    acceptor = Acceptor(scripted, fail, on_shortage=lambda: None)
    reader, writer = await asyncio.open_connection(*scripted.getsockname())
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    acceptor.close()
    assert [r.message for r in caplog.records] == ["connection_failed"]


async def test_what_was_accepted_is_waited_for_when_it_closes() -> None:
    scripted = Scripted()
    accepted = Accepted(scripted)
    with socket.create_connection(scripted.getsockname()):
        async with asyncio.timeout(10):
            while not scripted.tries:
                await asyncio.sleep(0)
        await accepted.close()
        assert accepted.connections == 1


def test_callers_wait_in_a_queue_that_is_longer_than_pythons() -> None:
    with listening("127.0.0.1", 0) as sockets:
        address = sockets[0].getsockname()
        # One that the queue had no place for would try again, after a second.
        clients = [socket.create_connection(address, 0.9) for _ in range(300)]
        for client in clients:
            client.close()


def test_the_lowest_free_number_tells_how_much_is_left() -> None:
    with less_than_the_reserve():
        assert is_short(0)
    assert not is_short(0)
    assert is_short(-1)


def test_doctor_says_when_the_limit_is_too_low(tmp_path: Path) -> None:
    settings = AllSettings(_env_file=None)
    with_redis: Any = {"redis_url": "redis://h"}
    assert needed_descriptors(settings) < needed_descriptors(
        AllSettings(_env_file=None, **with_redis)
    )
    found = {each.place: each for each in machine.look(make_settings(tmp_path))}["open files"]
    assert (found.level, found.said) == ("ok", f"{limit()} at once")
    with less_than_the_reserve():
        found = {each.place: each for each in machine.look(make_settings(tmp_path))}["open files"]
    assert found.level == "warn"
    assert str(needed_descriptors(settings)) in found.advice


def test_with_64_descriptors_300_callers_at_once_are_all_answered(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        with service(tmp_path, FAKE) as running:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            running.wait_ready()
            clients = [connect(("127.0.0.1", running.port)) for _ in range(300)]
            answers = [read(client) for client in clients]
            assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
            assert running.log.count('"few_descriptors"') == 1
            assert running.log.count('"out_of_descriptors"') <= 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
