"""One connection that sends far more requests than it waits for answers."""

import asyncio
from typing import Any

import pytest
import uvicorn
from listening import connect_small
from test_protocol import port_of, serving_app

from app.server.protocol import BoundedHttpProtocol
from app.server.read_ahead import MOST_WAITING, PIECE_BYTES

pytestmark = pytest.mark.core

COUNT = 20_000
READ_BYTES = 1_048_576  # more than a transport reads at once
GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
LONG = b"GET /" + b"x" * 2_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n" + b"GET / HTTP/1"


class Echo:
    """Answers with the path, and notes how many requests of its connection wait."""

    def __init__(self) -> None:
        self.server: uvicorn.Server | None = None
        self.most_waiting = self.most_bytes = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        assert self.server is not None
        for connection in self.server.server_state.connections:
            assert isinstance(connection, BoundedHttpProtocol)
            self.most_waiting = max(self.most_waiting, len(connection.pipeline))
            self.most_bytes = max(self.most_bytes, len(connection._ahead._received))
        body = scope["path"].encode() + b"\n"
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
async def test_all_that_was_sent_is_answered_in_order_and_little_is_kept_meanwhile(
    request_: bytes,
) -> None:
    echo = Echo()
    async with serving_app(echo) as server:
        echo.server = server
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(b"".join(request_ % number for number in range(COUNT)))
        async with asyncio.timeout(60):
            for number in range(COUNT):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                assert await reader.readline() == b"/%d\n" % number
        writer.close()
    assert MOST_WAITING <= echo.most_waiting < MOST_WAITING + PIECE_BYTES / len(GET % 0)
    assert 0 < echo.most_bytes <= READ_BYTES


async def test_large_bodies_among_them_are_read_whole() -> None:
    echo = Echo()
    large = b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000
    chunks = (b"%x\r\n" % 5_000 + b"y" * 5_000 + b"\r\n") * 200 + b"0\r\n\r\n"
    chunked = b"POST /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    async with serving_app(echo) as server:
        echo.server = server
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write((GET % 0 * 20 + large + GET % 0 * 20 + chunked) * 2)
        async with asyncio.timeout(20):
            for path in ([b"/0\n"] * 20 + [b"/1\n"] + [b"/0\n"] * 20 + [b"/2\n"]) * 2:
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readline() == path
        writer.close()


async def test_what_isn_t_http_is_refused_after_the_answers_before_it() -> None:
    echo = Echo()
    async with serving_app(echo) as server:
        echo.server = server
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(GET % 0 * 500 + b"not HTTP\r\n\r\n" + GET % 0 * 500)
        async with asyncio.timeout(10):
            answers = await reader.read()
        assert answers.count(b"HTTP/1.1 200 ") == 500
        assert answers.count(b"HTTP/1.1 400 ") == 1
        assert b"HTTP/1.1 200 " not in answers.partition(b"HTTP/1.1 400 ")[2]
        writer.close()


def send_and_read_nothing(port: int) -> None:
    with connect_small(port) as client:
        while True:
            client.sendall(LONG * 100)


async def test_a_client_that_never_reads_loses_its_connection_and_its_request_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "unread_s", 0.1)
    echo = Echo()
    async with serving_app(echo) as server:
        echo.server = server
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionError):
                await asyncio.to_thread(send_and_read_nothing, port_of(server))
            while server.server_state.tasks or server.server_state.connections:
                await asyncio.sleep(0)
    assert echo.most_waiting < MOST_WAITING + PIECE_BYTES / len(LONG)
    assert echo.most_bytes <= READ_BYTES


async def test_a_client_that_reads_slowly_keeps_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "unread_s", 0.5)

    async def large(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"200000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 200_000})

    async with serving_app(large) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(GET % 0 * 100)
        async with asyncio.timeout(20):
            for _ in range(100):
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(200_000)
        writer.close()
