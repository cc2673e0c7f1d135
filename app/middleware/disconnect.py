"""Cancels the handler of a request whose client has left."""

import asyncio
from functools import partial

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.body_limit import has_body
from app.middleware.exceptions import answer_client_left


class DisconnectMiddleware:
    """Cancels a handler when the client disconnects before the answer.

    It must be inside the body limit, which returns the whole body at once: the next message can
    only be the disconnect. Requests without a body are passed on, as they run no inference. If a
    client sends its next request before it has its answer, its disconnect isn't noticed: uvicorn
    stops reading such a connection.
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
    """One request's handler, and once its body is read a task that waits for the disconnect."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None
        self._is_answered = False
        self._has_left = asyncio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Run the handler in this task, until it ends or the client leaves."""
        handler = asyncio.current_task()
        assert handler is not None  # noqa: S101  # a coroutine runs in a task
        try:
            await app(scope, partial(self._read, handler), self._send_noted)
        except asyncio.CancelledError:
            if not self._has_left.is_set():
                raise  # the server is shutting down
            handler.uncancel()
            await answer_client_left(self._send)
        finally:
            if self._watcher is not None:
                self._watcher.cancel()

    async def _watch(self, handler: asyncio.Task[None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # Servers also send it after the answer; background tasks, which run then, must go on.
        if not self._is_answered:
            self._has_left.set()
            handler.cancel()

    async def _read(self, handler: asyncio.Task[None]) -> Message:
        """Return the body first, and then wait for the disconnect."""
        if self._watcher is None:
            message = await self._receive()
            self._watcher = asyncio.create_task(self._watch(handler))
            return message
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    async def _send_noted(self, message: Message) -> None:
        """Send a message, and note the end of the answer."""
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_answered = True
        await self._send(message)
