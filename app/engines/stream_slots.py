"""How many answers in pieces one model makes at once, and the threads that make them."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

from app.core.logs import is_private
from app.errors import NotReadyError, OverloadedError

R = TypeVar("R")
UNLOADED = "The model is being unloaded."
# A stream takes seconds; when a place is free can't be known.
RETRY_S = 1


class StreamSlots:
    """Places for streams; use it on the event loop, but for `close`.

    Args:
        name: of the model.
        count: how many run at once; there are as many threads.

    """

    def __init__(self, name: str, *, count: int) -> None:
        self._count = self._free = count
        self._is_closed = False
        self._lock = Lock()
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
            with self._lock:
                self._free += 1
                self._end_if_idle()

    def run(self, step: Callable[[], R]) -> "asyncio.Future[R]":
        """Run a step in a thread.

        Raises:
            NotReadyError: the model is closed.

        """
        if self._is_closed:
            raise NotReadyError(UNLOADED, retry_after_s=RETRY_S)
        return self.end(step)

    def end(self, step: Callable[[], R]) -> "asyncio.Future[R]":
        """Run the last step of a stream, also of a model that is closed."""

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
        """Have streams end with their next step; the threads end with the last of them."""
        with self._lock:
            self._is_closed = True
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._is_closed and self._free == self._count:
            self._threads.shutdown(wait=False, cancel_futures=True)
