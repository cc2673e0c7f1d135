"""A small HTTP server on loopback whose answers a test chooses: right, refused, slow, none."""

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

# The number of a request (polls and others are counted apart) → delay in s, answer; None hangs up.
Reply = Callable[[int], tuple[float, bytes | None]]
NEVER = math.inf


def answer(status: int, *headers: str, body: bytes = b"ok") -> bytes:
    lines = [f"HTTP/1.1 {status} Some", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


OK = answer(200)
LAST = answer(200, "Connection: close")
REFUSAL = answer(503, "Retry-After: 1")
BARE_REFUSAL = answer(503)
FAILURE = answer(500)


class StormServer:
    """What the server counts, and where it listens."""

    def __init__(self, reply: Reply, health: Reply) -> None:
        self.replies = {b"POST": reply, b"GET ": health}
        self.counts = {b"POST": 0, b"GET ": 0}
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self.transports: set[asyncio.Transport] = set()
        self.most_open = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/predict"

    async def run(self, ready: threading.Event, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Peer(self), "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        if opening := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(opening)  # connections that were accepted a moment ago
        for transport in tuple(self.transports):
            transport.abort()
        await asyncio.sleep(0)  # what was aborted is closed here


class _Peer(asyncio.Protocol):
    def __init__(self, server: StormServer) -> None:
        self._server = server
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections += 1
        self._server.transports.add(transport)
        self._server.most_open = max(self._server.most_open, len(self._server.transports))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        _, _, rest = head.lower().partition(b"content-length:")
        if not end or len(body) < int(rest.split(b"\r\n")[0] or 0):
            return
        self._received = b""
        method = head[:4]
        number = self._server.counts[method]
        self._server.counts[method] += 1
        self._server.heads.append(head)
        self._server.bodies.append(body)
        delay_s, content = self._server.replies[method](number)
        if delay_s != NEVER:
            asyncio.get_running_loop().call_later(delay_s, self._answer, content)

    def _answer(self, content: bytes | None) -> None:
        if content is None:
            self._transport.abort()
            return
        # In two writes, as a server may: the client has to put them together.
        self._transport.write(content[:20])
        self._transport.write(content[20:])
        if content is LAST:
            self._transport.close()


def always(content: bytes | None, delay_s: float = 0.0) -> Reply:
    return lambda _: (delay_s, content)


def in_turn(*contents: bytes | None) -> Reply:
    return lambda number: (0.0, contents[number % len(contents)])


@contextmanager
def in_a_thread(
    run: Callable[[threading.Event, asyncio.Event], Coroutine[Any, Any, None]],
) -> Iterator[None]:
    """Run a server in a thread of its own: it says when it is ready, and is told when to stop."""
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    def serve() -> None:
        loop.run_until_complete(run(ready, stop))
        loop.run_until_complete(asyncio.sleep(0))  # what was cancelled ends here
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(5)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)


@contextmanager
def storm_server(reply: Reply, health: Reply | None = None) -> Iterator[StormServer]:
    """Run a server in a thread of its own."""
    made = StormServer(reply, health or always(OK))
    with in_a_thread(made.run):
        yield made
