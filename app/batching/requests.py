"""What is kept of a request until all its items have their rows, and how it gets its answer."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from app.batching.admission import Work
from app.batching.queue import Ticket
from app.core.call_scope import CallScope
from app.engines.items import Prepared

if TYPE_CHECKING:
    from app.core.spans import Trace

Row = Any  # what the engine gives for an item, or the exception in its place


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The rows of a request's items, in their order; an exception where one failed alone."""

    rows: list[Row]
    is_truncated: list[bool]
    tokens: int  # of all items, as far as the engine saw them
    encoded: list[Prepared | Exception]  # the items as the engine took them


class Waiter(Protocol):
    """Whoever waits for the outcome of a request, on an event loop; an `asyncio.Future` is one."""

    def done(self) -> bool:
        """Say whether nobody waits any more."""
        ...

    def set_result(self, outcome: Outcome, /) -> None:
        """Take the outcome; called on the event loop, once."""
        ...

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop."""
        ...


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """Items that are answered together; guarded by the queue's lock once they are queued."""

    items: Sequence[Any]
    prompt: str
    future: Waiter
    estimate: Work  # before its tokens are counted
    predicted_s: float
    admitted_s: float
    is_alone: bool  # nothing was before it
    until_s: float = math.inf  # its deadline, as `time.monotonic` counts
    tickets: list[Ticket["QueuedItem"]] = field(default_factory=list)
    rows: list[Row | None] = field(default_factory=list)
    is_truncated: list[bool] = field(default_factory=list)
    encoded: Sequence[Prepared | Exception] = ()
    tokens: int = 0
    unfinished: int = 0
    is_left: bool = False
    trace: "Trace | None" = None  # None: tracing is off
    has_run: bool = False  # a batch has taken some of it


@dataclass(slots=True, eq=False)
class QueuedItem:
    """One item of a request, as a ticket carries it."""

    request: QueuedRequest
    index: int
    prepared: Prepared
    queued_s: float


def scope_of(requests: Sequence[QueuedRequest]) -> CallScope:
    """Return for whom a batch runs: as long as one of these requests waits.

    What calls models runs where its requests wait, so that each waiter is a future; if one isn't,
    nobody is known to have left.
    """
    waiters = [request.future for request in requests]
    futures = [waiter for waiter in waiters if isinstance(waiter, asyncio.Future)]
    return CallScope(
        until_s=max(request.until_s for request in requests),
        waiting=futures if len(futures) == len(waiters) else (),
    )


def resolve(requests: Sequence[QueuedRequest]) -> None:
    """Give each request its rows, unless it was cancelled meanwhile; called on its event loop."""
    for request in requests:
        if not request.future.done():
            rows = [row for row in request.rows if row is not None]
            request.future.set_result(
                Outcome(
                    rows=rows,
                    is_truncated=request.is_truncated,
                    tokens=request.tokens,
                    encoded=list(request.encoded),
                )
            )
