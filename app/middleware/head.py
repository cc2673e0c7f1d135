"""Answers HEAD as GET, without the body."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _EnoughError(Exception):
    """The headers are sent, so a stream can stop."""


class HeadMiddleware:
    """Lets routes see GET, and ends the answer after its headers.

    It is inside of what logs and counts requests, which see HEAD. If those answer themselves, there
    is a body for HEAD too; servers leave it out.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body", False):
                raise _EnoughError

        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, send_headers)
        except _EnoughError:
            pass
        finally:
            scope.update({**inner, "method": "HEAD"})  # the route, for the log
