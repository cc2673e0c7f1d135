"""A reverse proxy that publishes a service under a prefix, taken off the paths or not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

PREFIX = "/ml/api"


@asynccontextmanager
async def proxying(port: int, *, strips: bool, header: str | None = None) -> AsyncIterator[str]:
    """Forward what comes under the prefix to a port of this machine; give the address with it.

    Args:
        port: of the service.
        strips: whether paths are forwarded without the prefix.
        header: what `X-Forwarded-Prefix` says; None: there is none.

    """

    serving: set[asyncio.Task[None] | None] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError), closing(writer):
            first, _, rest = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
            method, target, version = first.decode().split()
            if not target.startswith(PREFIX):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                return
            if strips:
                target = target.removeprefix(PREFIX) or "/"
            lines = rest.split(b"\r\n")
            kept = [line for line in lines if not line.lower().startswith(b"connection:")]
            head = [f"{method} {target} {version}".encode(), b"Connection: close"]
            if header is not None:
                head.append(f"X-Forwarded-Prefix: {header}".encode())
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
            with closing(up_writer):
                up_writer.write(b"\r\n".join([*head, *kept]))
                sending = asyncio.create_task(_pump(reader, up_writer))
                await _pump(up_reader, writer)
                sending.cancel()

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{PREFIX}"
    finally:
        server.close()
        left = [task for task in serving if task is not None and not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
