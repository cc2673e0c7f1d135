"""For whom a call of a model runs: what it calls in turn ends when they no longer wait."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CallScope:
    """Who waits for a call, and how long.

    Args:
        until_s: as `time.monotonic` counts: when its answer is of no use to any of them.
        waiting: done when one of them waits no longer, because its client left or its deadline
            passed; use them on their event loop only. None of them: nobody can leave.

    """

    until_s: float
    waiting: Sequence[asyncio.Future[Any]] = ()

    @property
    def remaining_s(self) -> float:
        """Seconds that are left; 0 when the time is up."""
        return max(0.0, self.until_s - monotonic())

    @property
    def is_left(self) -> bool:
        """Whether none of those who could leave waits any more; any thread may ask."""
        return bool(self.waiting) and all(one.done() for one in self.waiting)


_scope: ContextVar[CallScope | None] = ContextVar("call_scope", default=None)


def current_scope() -> CallScope | None:
    """Return for whom this thread runs a model; None where it runs none that calls others."""
    return _scope.get()


@contextmanager
def in_scope(scope: CallScope) -> Iterator[None]:
    """Say for whom this thread runs a model meanwhile."""
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)
