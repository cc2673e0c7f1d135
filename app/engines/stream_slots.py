"""How many answers in pieces one model makes at once, and the threads that make them."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from app.core.logs import is_private
from app.errors import OverloadedError

R = TypeVar("R")
# A stream takes seconds; when a place is free can't be known.
RETRY_S = 1


class StreamSlots:
    """Places for streams; use it on the event loop.

    Args:
        name: of the model.
        count: how many run at once; there are as many threads.

    """

    def __init__(self, name: str, *, count: int) -> None:
        self._free = count
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=f"{name}-stream")
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a place.

        Raises:
            OverloadedError: there is none.

        """
        if not self._free:
            raise OverloadedError(
                "As many streams of this model run as may.", retry_after_s=RETRY_S
            )
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    def run(self, step: Callable[[], R]) -> "asyncio.Future[R]":
        """Run a step in a thread."""

        def privately() -> R:
            is_private.set(True)  # the variable's name says it
            return step()

        return asyncio.get_running_loop().run_in_executor(self._threads, privately)

    def keep(self, closing: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start what ends a stream, and hold it until it has."""
        task = asyncio.get_running_loop().create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    def close(self) -> None:
        """Take no more steps."""
        self._threads.shutdown(wait=False, cancel_futures=True)
