"""How a request hears that its client has left: its handler is cancelled."""

import asyncio

from starlette.types import Message, Receive, Scope

from app.core.connection import Connection


class Disconnect:
    """Watches a client whose body was read, and cancels the handler when it leaves.

    Our server calls when the connection ends. Others are asked for the next message, which can
    only be the disconnect, in a task: that costs several times as much.

    Args:
        scope: of the request.
        receive: of the server.

    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        handler = asyncio.current_task()
        assert handler is not None  # noqa: S101  # a coroutine runs in a task
        self.handler = handler
        self.has_left = False
        self._heard: asyncio.Event | None = None  # of a handler that waits for it itself
        self._watcher: asyncio.Task[None] | None = None
        self._connection: Connection | None = scope["state"].get("connection")
        if self._connection is not None:
            self._connection.watch(self._leave)
        else:
            self._watcher = asyncio.create_task(self._watch(receive))

    async def wait(self) -> Message:
        """Return the disconnect, once the client has left."""
        if not self.has_left:
            self._heard = self._heard or asyncio.Event()
            await self._heard.wait()
        return {"type": "http.disconnect"}

    def stop(self) -> None:
        """Watch no longer: the answer is sent."""
        if self._connection is not None:
            self._connection.unwatch(self._leave)
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self.has_left = True
        if self._heard is not None:
            self._heard.set()
        self.handler.cancel()
