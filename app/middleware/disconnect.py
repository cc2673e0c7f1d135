"""Ends a handler whose client has left, so that no work is done for nobody."""

import asyncio
from functools import partial

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.body_limit import has_body
from app.middleware.exceptions import answer_nobody


class DisconnectMiddleware:
    """Races a handler against the client's disconnect; cancels the handler when it loses.

    Stands below the body limit, which gives the whole body at once: what `receive` gives after it
    can only be the disconnect. Requests without a body are passed on: they ask for no inference. A
    client that sends its next request before it has its answer isn't seen to leave: uvicorn stops
    reading such a connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and has_body(Headers(scope=scope)):
            await _Race(receive, send).run(self._app, scope)
        else:
            await self._app(scope, receive, send)


class _Race:
    """One request's handler, and the watch for its client, from when the body has been read."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None
        self._is_answered = False
        self._has_left = asyncio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Run the handler in this task, to its end or to the client's."""
        handler = asyncio.current_task()
        assert handler is not None  # noqa: S101  # a coroutine runs in a task
        try:
            await app(scope, partial(self._read, handler), self._note)
        except asyncio.CancelledError:
            if not self._has_left.is_set():
                raise  # the server is shutting down
            handler.uncancel()
            await answer_nobody(self._send)
        finally:
            if self._watcher is not None:
                self._watcher.cancel()

    async def _watch(self, handler: asyncio.Task[None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # Servers say so too once the answer is out; what runs after it isn't to be ended.
        if not self._is_answered:
            self._has_left.set()
            handler.cancel()

    async def _read(self, handler: asyncio.Task[None]) -> Message:
        """Give the handler the body, and later the news that the client has left."""
        if self._watcher is None:
            message = await self._receive()
            self._watcher = asyncio.create_task(self._watch(handler))
            return message
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    async def _note(self, message: Message) -> None:
        """Send; note the end of the answer."""
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_answered = True
        await self._send(message)
