"""Threads for database calls, with bounds on running calls, waiting calls and their time."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Engine, event

from app.db.call import Call
from app.errors import DatabaseUnavailableError

T = TypeVar("T")


class CallThreads:
    """The threads of a database.

    Args:
        count: calls at once.
        max_waiting: calls that may wait for a thread; more fail at once.

    """

    def __init__(self, count: int, *, max_waiting: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="sql")
        self._slots = threading.Semaphore(count + max_waiting)
        self._of_thread = threading.local()
        self._running: set[Call] = set()
        self._is_closed = False

    def current(self) -> Call | None:
        """Return the call that runs in this thread."""
        return getattr(self._of_thread, "call", None)

    def watch(self, engine: Engine) -> None:
        """Tell each call which connection it uses, so that it can be aborted."""

        def attach(connection: Any, *_: Any) -> None:  # noqa: ANN401 -- the driver's
            if call := self.current():
                call.attach(connection)

        def attach_new(connection: Any, *_: Any) -> None:  # noqa: ANN401 -- as above
            if call := self.current():
                call.is_connection_new = True
                call.attach(connection)

        def detach(*_: Any) -> None:  # noqa: ANN401 -- as SQLAlchemy hands them over
            if call := self.current():
                call.detach()

        event.listen(engine, "connect", attach_new, insert=True)
        event.listen(engine, "checkout", attach)
        event.listen(engine, "checkin", detach)

    async def run(self, work: Callable[[Call], T], *, timeout_s: float) -> T:
        """Run work in a thread.

        When the caller is cancelled, work that hasn't begun is dropped.

        Raises:
            DatabaseUnavailableError: with the reason "closed", "full" or "timeout".

        """
        if self._is_closed:
            raise DatabaseUnavailableError("closed")
        if not self._slots.acquire(blocking=False):
            raise DatabaseUnavailableError("full")
        call = Call()
        pending = self._threads.submit(self._execute, call, work)
        pending.add_done_callback(lambda _: self._slots.release())
        result = asyncio.wrap_future(pending)
        try:
            done, _ = await asyncio.wait({result}, timeout=timeout_s)
            if not done:
                call.abort()
                raise DatabaseUnavailableError("timeout")
            if result.cancelled():  # by close(), not by the caller
                raise DatabaseUnavailableError("closed")
            return result.result()
        finally:
            result.cancel()

    async def close(self, *, timeout_s: float) -> None:
        """Wait this long for calls to end, then abort the others."""
        self._is_closed = True
        ended = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._join, args=(ended,), name="sql-close", daemon=True).start()
        await asyncio.wait({ended}, timeout=timeout_s)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for call in tuple(self._running):
            call.abort()

    def _execute(self, call: Call, work: Callable[[Call], T]) -> T:
        self._of_thread.call = call
        self._running.add(call)
        try:
            return work(call)
        finally:
            call.detach()
            self._running.discard(call)
            self._of_thread.call = None

    def _join(self, ended: "asyncio.Future[None]") -> None:
        self._threads.shutdown(wait=True)
        with suppress(RuntimeError):  # the loop has closed meanwhile
            ended.get_loop().call_soon_threadsafe(ended.cancel)
