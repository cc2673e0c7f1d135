"""An event loop in a thread of its own, for calls that other threads wait for and can give up.

A thread that reads from a socket can't be stopped; a task can.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from contextlib import suppress
from threading import Lock, Thread
from typing import Any, TypeVar

LOOK_S = 0.05  # between two looks whether somebody still waits
CLOSE_TIMEOUT_S = 5.0
T = TypeVar("T")


class LeftError(Exception):
    """The call was stopped: nobody waits for it any more."""


class LoopThread:
    """The loop, which begins with the first call.

    Args:
        name: of its thread.

    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, call: Coroutine[Any, Any, T], *, is_left: Callable[[], bool]) -> T:
        """Return what a call gives, or raise what it raises; blocks.

        Args:
            call: to be run.
            is_left: says that nobody waits any more; asked all the time.

        Raises:
            LeftError: nobody does; the call is cancelled.

        """
        if is_left():
            call.close()
            raise LeftError
        running = asyncio.run_coroutine_threadsafe(call, self._running())
        while not wait((running,), timeout=LOOK_S).done:
            if is_left():
                running.cancel()
                raise LeftError
        return running.result()

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a last call and end the loop, if it has begun; blocks, for some seconds at most."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            closing = asyncio.run_coroutine_threadsafe(last(), loop)
            with suppress(TimeoutError):
                closing.result(CLOSE_TIMEOUT_S)
            loop.call_soon_threadsafe(loop.stop)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # At its end the process doesn't wait for it.
                Thread(target=_run, args=(self._loop,), name=self._name, daemon=True).start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped; calls that run still are cancelled."""
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_others())
    finally:
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
