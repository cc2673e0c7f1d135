"""Clients of the show of restarts: kept-alive connections that ask at a rate, and read streams."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

TIMEOUT_S = 90.0  # other work may slow a machine down; nobody here leaves because of it
HEAD_END = b"\r\n\r\n"
WORDS = (10, 40, 120, 300)  # of a chat's question, which the fake engine gives back word by word


class CutError(Exception):
    """The connection ended in the middle of an answer."""


@dataclass
class Tally:
    """What became of the requests; ids are those of answers that must be rows of the log."""

    outcomes: Counter[str] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)
    slowest_s: float = 0.0


class Client:
    """One connection, which is kept as long as the other side keeps it.

    Args:
        port: of loopback.
        tally: where answers count.

    """

    def __init__(self, port: int, tally: Tally) -> None:
        self._port = port
        self._tally = tally
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.connects = 0

    async def ask(self, path: str, body: dict[str, str], *, request_id: str) -> bytes:
        """Send a request once, and return the whole answer.

        Raises:
            CutError, OSError, TimeoutError: there is none, or half of one.

        """
        sent = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: show\r\nContent-Type: application/json\r\n"
        head += f"X-Request-ID: {request_id}\r\nContent-Length: {len(sent)}\r\n\r\n"
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await self._connected()
                writer.write(head.encode() + sent)
                answer = await _read(reader)
        except asyncio.IncompleteReadError as cut:
            self.close()
            raise CutError(f"{len(cut.partial)} bytes") from cut
        except (OSError, TimeoutError):
            self.close()
            raise
        if b"connection: close" in answer.partition(HEAD_END)[0].lower():
            self.close()
        return answer

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection is None:
            self._connection = await asyncio.open_connection("127.0.0.1", self._port)
            self.connects += 1
        return self._connection

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    async def predict(self, text: str, number: int) -> None:
        """Ask /predict and write down what came."""
        await self._note("predict", number, lambda name: self._predict(text, name))

    async def stream(self, number: int) -> None:
        """Ask /chat/stream and write down how the stream ended."""
        await self._note("stream", number, lambda name: self._stream(number, name))

    async def _predict(self, text: str, name: str) -> str:
        answer = await self.ask("/predict", {"text": text}, request_id=name)
        return _status(answer)

    async def _stream(self, number: int, name: str) -> str:
        query = "word " * WORDS[number % len(WORDS)]
        answer = await self.ask("/chat/stream", {"query": query}, request_id=name)
        if _status(answer) != "200":
            return _status(answer)
        last = json.loads(answer.partition(HEAD_END)[2].splitlines()[-1])
        if not last.get("done"):
            return "no typed end"
        return f"ended by {last['error']['code']}" if "error" in last else "200"

    async def _note(self, kind: str, number: int, ask: Callable[[str], Awaitable[str]]) -> None:
        name, began_s = f"{kind}-{number}", time.monotonic()
        try:
            outcome = await ask(name)
        except (CutError, OSError, TimeoutError, ValueError) as failure:
            outcome = f"{type(failure).__name__}: {failure}"
        if outcome == "200" or outcome.startswith("ended by"):
            self._tally.ids.add(name)
        self._tally.outcomes[f"{kind} {outcome}"] += 1
        if kind == "predict":
            self._tally.slowest_s = max(self._tally.slowest_s, time.monotonic() - began_s)


def _status(answer: bytes) -> str:
    return answer[9:12].decode("latin-1")


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Read one answer; asyncio.IncompleteReadError when the other side hangs up before its end."""
    head = await reader.readuntil(HEAD_END)
    lower = head.lower()
    if b"content-length: " in lower:
        length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0])
        return head + await reader.readexactly(length)
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return head + body


async def load(
    port: int,
    texts: Sequence[str],
    *,
    rate: float,
    streams: int,
    connections: int,
    is_over: Callable[[], bool],
) -> tuple[Tally, int]:
    """Ask until it is over; return what came, and how many connections that took.

    Args:
        port: of the proxy.
        texts: for /predict, in turn.
        rate: requests of /predict a second, over all connections.
        streams: that are read side by side.
        connections: for /predict.
        is_over: asked before each request.

    """
    tally, numbers = Tally(), itertools.count()
    clients = [Client(port, tally) for _ in range(connections + streams)]
    chance = random.Random(0)  # noqa: S311 -- a load, not a secret

    async def predict(client: Client) -> None:
        due_s = time.monotonic()
        while not is_over():
            due_s += chance.expovariate(rate / connections)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            number = next(numbers)
            await client.predict(texts[number % len(texts)], number)

    async def stream(client: Client) -> None:
        while not is_over():
            await client.stream(next(numbers))

    await asyncio.gather(
        *(predict(client) for client in clients[:connections]),
        *(stream(client) for client in clients[connections:]),
    )
    for client in clients:
        client.close()
    return tally, sum(client.connects for client in clients)
