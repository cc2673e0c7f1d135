"""Connections that don't get as far as a request."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn
from serving import FAKE, make_settings

from app.server.protocol import BoundedHttpProtocol
from app.server.request_head import MAX_HEADER_BYTES
from app.server.serve import make_server
from app.server.unread import Unread

pytestmark = pytest.mark.core

LAST_GET = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def listening(tmp_path: Path, models: str = FAKE, **settings: Any) -> AsyncIterator[int]:
    server = make_server(make_settings(tmp_path, models, port=0, **settings))
    served = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    runtime = server.runtime()
    assert runtime is not None
    await runtime.loaded.wait()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await served


@asynccontextmanager
async def serving_app(app: Any) -> AsyncIterator[uvicorn.Server]:
    config = uvicorn.Config(app, port=0, http=BoundedHttpProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    served = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    try:
        yield server
    finally:
        server.should_exit = True
        await served


def port_of(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


LARGE = 20_000_000  # more than the kernel's buffers take


async def large_answer(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"%d" % LARGE)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * LARGE})


async def exchange(port: int, *parts: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_headers_without_end_are_431(tmp_path: Path) -> None:
    endless = b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEADER_BYTES * 2
    async with listening(tmp_path) as port:
        assert (await exchange(port, endless)).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nX: y\r\n"])
async def test_headers_that_stop_coming_are_408(
    tmp_path: Path, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "header_timeout_s", 0.05)
    async with listening(tmp_path) as port:
        assert (await exchange(port, sent)).startswith(b"HTTP/1.1 408 ")


async def test_the_clock_stops_between_requests_and_runs_again_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "header_timeout_s", 0.05)
    async with listening(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(b'{"status":"ok"}'))
        with pytest.raises(TimeoutError):  # an idle connection is kept
            await asyncio.wait_for(reader.read(1), 0.15)
        writer.write(GET + b"GET /")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        assert b" 408 " in await asyncio.wait_for(reader.read(), 10)
        writer.close()


async def test_an_empty_line_on_a_kept_connection_doesn_t_keep_it_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "header_timeout_s", 0.05)
    async with listening(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\r\n")
        assert b" 408 " in await asyncio.wait_for(reader.read(), 10)
        writer.close()


UNWANTED = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"


async def test_whoever_sends_a_body_that_nobody_wants_can_read_why(tmp_path: Path) -> None:
    async with listening(tmp_path) as port:
        for _ in range(8):  # a connection closed on unread data is reset, mostly
            parts = (UNWANTED + b"Connection: close\r\n\r\n", *[b"x" * 10_000] * 100)
            assert (await exchange(port, *parts)).startswith(b"HTTP/1.1 404 ")


async def test_a_connection_is_kept_after_a_body_that_nobody_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "header_timeout_s", 0.05)
    async with listening(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UNWANTED + b"\r\n")
        await asyncio.sleep(0.1)  # the body comes late
        writer.write(b"x" * 1_000_000)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 404 " in head
            assert b"connection: close" not in head
            await reader.readuntil(b"}")
        with pytest.raises(TimeoutError):  # and isn't told anything more
            await asyncio.wait_for(reader.read(1), 0.15)
        writer.write(LAST_GET)
        assert b"HTTP/1.1 200 " in await asyncio.wait_for(reader.read(), 10)
        writer.close()


async def test_a_body_that_nobody_wants_is_not_waited_for_without_end(tmp_path: Path) -> None:
    async with listening(tmp_path, request_timeout_ms=50) as port:
        answer = await exchange(port, UNWANTED + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"connection: close" in answer


async def test_trailers_without_end_are_refused(tmp_path: Path) -> None:
    start = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    lines = [b"X-Trailer: " + b"a" * 1000 + b"\r\n"] * 200
    async with listening(tmp_path) as port:
        with contextlib.suppress(ConnectionError):  # the answer can be lost with the rest
            answer = await exchange(port, start, *lines)
            assert b" 431 " in answer or answer == b""
        assert b" 200 " in await exchange(port, LAST_GET)


async def test_half_a_request_after_another_doesn_t_take_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "header_timeout_s", 0.05)
    body = b'{"text":"x"}'
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    slow = FAKE.replace("fail_on", "delay_ms = 300, fail_on")
    async with listening(tmp_path, slow) as port:
        answer = await exchange(port, whole + b"GET /health HT")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b" 408 " in answer


async def test_many_requests_on_one_connection_are_not_taken_for_one_large_one(
    tmp_path: Path,
) -> None:
    count = 2 * MAX_HEADER_BYTES // len(GET)
    async with listening(tmp_path) as port:
        answer = await exchange(port, *[GET] * 50, LAST_GET)
        assert answer.count(b" 200 ") == 51
    assert count > 50


async def test_each_request_can_abort_its_own_connection_and_no_other() -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] == "/abort":
            scope["state"]["connection"].abort()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving_app(app) as server:
        port = port_of(server)
        mine, other, third = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, writer in (mine, other, third):
            writer.write(GET)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        mine[1].write(b"GET /abort HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.wait_for(mine[0].read(), 10) == b""
        for reader, writer in (other, third):
            writer.write(GET)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        fresh = await asyncio.open_connection("127.0.0.1", port)  # with its first request
        fresh[1].write(b"GET /abort HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.wait_for(fresh[0].read(), 10) == b""
        for _, writer in (mine, other, third, fresh):
            writer.close()


async def test_a_body_that_goes_wrong_after_its_answer_has_begun_ends_the_connection() -> None:
    has_begun = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        has_begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serving_app(app) as server:
        port = port_of(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await has_begun.wait()
        writer.write(b"zz\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.count(b"HTTP/1.1") == 1
        writer.close()


async def test_a_query_behind_a_bare_host_reaches_the_application() -> None:
    targets: list[tuple[str, bytes]] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        targets.append((scope["path"], scope["query_string"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with serving_app(app) as server:
        port = port_of(server)
        for target in (b"http://x?a=1&b", b"http://x", b"http://x?", b"http://x/y?c"):
            await exchange(port, LAST_GET.replace(b"/health", target))
    assert targets == [("/", b"a=1&b"), ("/", b""), ("/", b""), ("/y", b"c")]


@pytest.mark.parametrize("request_", [GET, LAST_GET], ids=["kept", "last"])
async def test_a_reader_that_takes_nothing_of_a_whole_answer_loses_its_connection(
    request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "unread_s", 0.05)
    async with serving_app(large_answer) as server:
        port = port_of(server)
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(request_)
            async with asyncio.timeout(10):
                while not server.server_state.total_requests or server.server_state.connections:
                    await asyncio.sleep(0.001)


async def test_a_slow_reader_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "unread_s", 1.0)
    async with serving_app(large_answer) as server:
        port = port_of(server)
        answer = await exchange(port, GET, LAST_GET)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert answer.count(b"x") == 2 * LARGE


class Transport(asyncio.Transport):
    """One whose buffer is as full as a test says."""

    size = 0
    is_aborted = False

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.is_aborted = True


class Loop:
    """Calls when a test says that it is time."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []

    def call_later(self, _after_s: float, call: Callable[..., None], *given: Any) -> Any:
        due = partial(call, *given)
        self._calls.append(due)
        return SimpleNamespace(cancel=partial(self._cancel, due))

    def _cancel(self, due: Callable[[], None]) -> None:
        if due in self._calls:
            self._calls.remove(due)

    def pass_time(self) -> bool:
        """Call what is due, and tell whether anything was."""
        due, self._calls = self._calls, []
        for call in due:
            call()
        return bool(due)


def test_a_reader_that_takes_some_is_looked_at_again() -> None:
    transport, loop = Transport(), Loop()
    unread = Unread(cast("asyncio.AbstractEventLoop", loop), transport, after_s=60)
    unread.start()
    assert not loop.pass_time(), "nothing is left"
    transport.size = 3
    unread.start()
    for left in (2, 1, 0):
        transport.size = left
        assert loop.pass_time()
    assert not loop.pass_time(), "all is taken"
    assert not transport.is_aborted
    transport.size = 3
    unread.start()
    unread.stop()
    assert not loop.pass_time(), "another answer has begun"
    unread.start()
    assert loop.pass_time()
    assert transport.is_aborted
