"""Streams to real sockets: readers that take nothing, streams that break in the writing."""

import asyncio
import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from listening import SMALL_BUFFER, listening
from serving import make_app, running
from test_chat import CHAT, metric, open_stream
from test_chat_leaving import StuckGenerator, serve_generator

from app.tasks.chat.dialects import NdjsonDialect

HUGE = "x" * 10_000_000  # more than any buffer on its way
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
END = b"0\r\n\r\n"


async def lazy_reader(port: int) -> socket.socket:
    """Ask for a stream and take nothing of it."""
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    lazy.settimeout(0)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(lazy, ("127.0.0.1", port))
    await loop.sock_sendall(lazy, GET)
    return lazy


async def rest(taken: socket.socket) -> bytes:
    """Read to the end of a connection, whatever that is."""
    response, loop = b"", asyncio.get_running_loop()
    async with asyncio.timeout(10):
        try:
            while piece := await loop.sock_recv(taken, 65_536):
                response += piece
        except ConnectionResetError:
            pass
    taken.close()
    return response


async def read_whole(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET.replace(b"Host", b"Connection: close\r\nHost"))
    async with asyncio.timeout(10):
        response = await reader.read()
    writer.close()
    return response


async def test_a_reader_that_takes_nothing_is_cut_off_and_delays_neither_others_nor_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app, generator = make_app(tmp_path, CHAT), StuckGenerator(HUGE)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        is_lazy = metric(app, "generations_active", model="echo") == 0
        model, text = ("echo", "a") if is_lazy else ("slow", "a b c")
        response = await open_stream(
            app, text, model=model, heartbeat_s=0.02, send_timeout_s=0.1 if is_lazy else 10
        )
        await response(scope, receive, send)

    async with running(app):
        entry = serve_generator(app, generator)
        async with listening(asgi) as (server, port):
            lazy = await lazy_reader(port)
            while not metric(app, "generations_active", model="echo"):
                await asyncio.sleep(0.01)
            assert (await read_whole(port)).endswith(END)
            while not metric(app, "generations_total", model="echo", end="reader_too_slow"):
                await asyncio.sleep(0.01)
            assert server.server_state.connections == set()
            # Nobody reads, nobody waits; the place is the stuck thread's until it ends.
            assert entry.leases == 1
        response = await rest(lazy)
        generator.go.set()
        while entry.leases:
            await asyncio.sleep(0.01)
        assert metric(app, "generations_active", model="echo") == 0
    assert response.startswith(b"HTTP/1.1 200 ")
    assert not response.endswith(END)
    assert len(response) < len(HUGE)
    assert [r for r in caplog.records if r.name == "uvicorn.error" and r.levelname == "ERROR"] == []


class Breaking(NdjsonDialect):
    """Can't write what has been generated."""

    def pieces(self, pieces: Iterable[Any]) -> bytes:
        if "b" in "".join(pieces):
            raise ValueError("what somebody said in confidence")
        return super().pieces(pieces)


@pytest.mark.parametrize("text", ["b", "a b c"])
async def test_a_stream_that_breaks_as_it_is_written_ends_with_a_typed_last_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    app = make_app(tmp_path, CHAT)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        dialect = Breaking(path="/chat/stream", request_id="r")
        response = await open_stream(app, text, model="slow", dialect=dialect)
        await response(scope, receive, send)

    async with running(app):
        async with listening(asgi) as (_, port):
            response = await read_whole(port)
        assert metric(app, "generations_total", model="slow", end="failed") == 1
        assert metric(app, "generations_total", model="slow", end="client_left") == 0
        assert metric(app, "cancelled_total", model="slow", stage="engine") == 0
        assert metric(app, "generations_active", model="slow") == 0
    assert response.endswith(END)
    last = json.loads(response.removesuffix(b"\r\n" + END).splitlines()[-1])
    assert (last["done"], last["error"]["code"]) == (True, "internal_error")
    assert b"confidence" not in response
    assert [r for r in caplog.records if r.name.startswith("uvicorn") and r.exc_info] == []
    (failure,) = [r for r in caplog.records if r.message == "stream_failed"]
    assert "confidence" not in failure.message
