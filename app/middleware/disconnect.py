"""Ends a handler whose client has left, so that no work is done for nobody."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.body_limit import has_body


class DisconnectMiddleware:
    """Races a handler against the client's disconnect; cancels the handler when it loses.

    Stands below the body limit, which has read the whole body: what `receive` gives after it can
    only be the disconnect. Requests without a body are passed on: they ask for no inference.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        body: Message | None = await receive()
        left = asyncio.Event()
        handler = asyncio.current_task()
        assert handler is not None  # noqa: S101  # a coroutine runs in a task

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()
            handler.cancel()

        async def replay() -> Message:
            nonlocal body
            if body is not None:
                message, body = body, None
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        watcher = asyncio.create_task(watch())
        try:
            await self._app(scope, replay, send)
        except asyncio.CancelledError:
            if not left.is_set():
                raise  # the server is shutting down
            handler.uncancel()
        finally:
            watcher.cancel()
