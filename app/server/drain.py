"""The phases of a shutdown: until when the process accepts, answers and closes."""

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server.gate import Place

# What is left of every phase after a second signal.
HURRY_S = 1.0
# For requests that are cut: to send their last line, and for the client to take it.
LAST_LINE_S = 2.0
# To close the rest: rows are written, jobs put back, models unloaded.
CLOSE_S = 10.0
# After all of them the process ends, in whatever state it is.
OVERDUE_S = 1.0
CLOSE = (b"connection", b"close")


@dataclass(slots=True, kw_only=True)
class Drain:
    """The phases of a shutdown. It has no clock: callers pass the time, in monotonic seconds.

    Args:
        delay_s: for which requests are still accepted.
        budget_s: that requests in flight have then.

    """

    delay_s: float
    budget_s: float
    begun_s: float | None = None
    hurried_s: float | None = None
    closed_s: float | None = None  # when nothing was accepted any more

    def begin(self, now_s: float, *, was_ready: bool = True) -> None:
        """Take a signal: the first begins, the second shortens, more change nothing.

        Args:
            now_s: the time.
            was_ready: whether clients may have been told to send requests; if not, there is no
                delay.

        """
        if self.begun_s is None:
            self.begun_s = now_s
            self.delay_s = self.delay_s if was_ready else 0.0
        elif self.hurried_s is None:
            self.hurried_s = now_s

    @property
    def signals(self) -> int:
        """How many signals have had an effect, at most 2."""
        return (self.begun_s is not None) + (self.hurried_s is not None)

    def is_accepting(self, now_s: float) -> bool:
        """Return whether new connections are accepted."""
        if self.begun_s is None:
            return True
        return self.hurried_s is None and now_s < self.begun_s + self.delay_s

    def is_answering(self, now_s: float) -> bool:
        """Return whether requests in flight may go on."""
        if self.closed_s is None:
            return True
        return now_s < self._hurried(self.closed_s + self.budget_s)

    def may_close(self, now_s: float, *, since_s: float) -> bool:
        """Return whether there is time to close the rest after the requests, begun at `since_s`."""
        return now_s < max(since_s + HURRY_S, self._hurried(since_s + CLOSE_S))

    @property
    def longest_s(self) -> float:
        """The seconds after the latest signal at which the process is overdue."""
        if self.hurried_s is not None:
            return HURRY_S + LAST_LINE_S + HURRY_S + OVERDUE_S
        return self.delay_s + self.budget_s + LAST_LINE_S + CLOSE_S + OVERDUE_S

    def _hurried(self, until_s: float) -> float:
        return until_s if self.hurried_s is None else min(until_s, self.hurried_s + HURRY_S)


class LastAnswers:
    """Adds `Connection: close` to each answer during a shutdown, and notes each answer's status.

    A proxy or client then opens its next connection to a process that stays: a kept connection
    that is closed later may be closed while a request is on its way.

    Args:
        app: what answers.
        drain: asked at each answer.

    """

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        place: Place | None = scope.get("state", {}).get("place")

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                if place is not None:
                    place.status = message["status"]
                if self._drain.begun_s is not None:
                    message["headers"] = [*message.get("headers", []), CLOSE]
            await send(message)

        try:
            await self._app(scope, receive, send_last)
        except asyncio.CancelledError:
            if scope["type"] != "http" or self._drain.closed_s is None:
                raise
            # Its time was over, and its client has been told: uvicorn would log a crash.
