"""A receiver of webhooks on loopback; its answers are set, its connections counted."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

import httpcore2

from app.features.jobs.webhooks.addresses import Address, AllowedHosts
from app.features.jobs.webhooks.client import CheckedNetwork, Resolver, WebhookClient

Behave = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A request as the receiver read it."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(kw_only=True)
class Receiver:
    """`answers` are statuses or behaviours, for one request each; after them it says 204."""

    port: int = 0
    connections: int = 0
    answers: list[int | Behave] = field(default_factory=list)
    got: asyncio.Queue[Delivery] = field(default_factory=asyncio.Queue)
    _serving: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._serving[asyncio.create_task(self._serve(reader, writer))] = writer

    async def close(self) -> None:
        for task, writer in self._serving.items():
            task.cancel()
            writer.close()  # the task may not have begun
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError), closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            lowered = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(lowered.get("content-length", 0)))
            answer = self.answers.pop(0) if self.answers else 204
            self.got.put_nowait(Delivery(path=head[0].split()[1], headers=headers, body=body))
            if isinstance(answer, int):
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % answer)
            else:
                await answer(writer)


@asynccontextmanager
async def receiving(
    *answers: int | Behave, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver(answers=list(answers))
    server = await asyncio.start_server(receiver.accept, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await receiver.close()


class Dial(httpcore2.AsyncNetworkBackend):
    """Connects on loopback, whatever the address, and records the addresses."""

    def __init__(self, port: int | None = None) -> None:
        self.dialled: list[str] = []
        self._port = port
        self._real = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore2's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self.dialled.append(host)
        if self._port is None:
            raise httpcore2.ConnectError("the internet is far away")
        return await self._real.connect_tcp("127.0.0.1", self._port, timeout)


def resolver(**names: Sequence[str]) -> Resolver:
    """Give a host its addresses; dots of a name are written as underscores."""

    async def resolve(host: str, port: int) -> Sequence[Address]:
        addresses = names.get(host.replace(".", "_"))
        if addresses is None:
            raise OSError("no such name")
        return [ip_address(address) for address in addresses]

    return resolve


def client(
    resolve: Resolver | None = None,
    *,
    allow: str = "",
    dial: httpcore2.AsyncNetworkBackend | None = None,
    trusted: ssl.SSLContext | None = None,
    timeout_s: float = 5,
) -> WebhookClient:
    """Make a client; one that may go to 127.0.0.1 unless the test names other hosts."""
    network = CheckedNetwork(
        resolve or resolver(**{"127_0_0_1": ["127.0.0.1"]}),
        allowed=AllowedHosts.parse(allow or ("" if resolve else "127.0.0.1")),
        dial=dial or httpcore2.AnyIOBackend(),
    )
    return WebhookClient(network, trusted=trusted, timeout_s=timeout_s)
