"""Serves an app of the test's process on a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from app.server.protocol import BoundedHttpProtocol

SMALL_BUFFER = 4096  # so that a reader who takes nothing soon stops the writer


def bound_socket() -> socket.socket:
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    return bound


def connect_small(port: int) -> socket.socket:
    """Connect with small buffers: some kernels take tens of megabytes that nobody reads."""
    client = socket.socket()
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        client.setsockopt(socket.SOL_SOCKET, buffer, SMALL_BUFFER)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    return client


@asynccontextmanager
async def listening(asgi: Any) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Serve an ASGI app on a socket, with the service's own protocol."""
    config = uvicorn.Config(asgi, http=BoundedHttpProtocol, lifespan="off", log_config=None)
    server, bound = uvicorn.Server(config), bound_socket()
    served = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started:
        await asyncio.sleep(0)
    try:
        yield server, bound.getsockname()[1]
    finally:
        server.should_exit = True
        async with asyncio.timeout(3):  # nothing else bounds this shutdown
            await served
