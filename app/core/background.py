"""Work that goes on beside a block of code, and ends with it."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run work in a task during the block; after it the task is cancelled, and has ended."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def regularly(work: Callable[[], Awaitable[object]], *, every_s: float) -> None:
    """Do work again and again; replicas that started together don't do it together."""
    await asyncio.sleep(every_s * random.random())  # noqa: S311  # no secret
    while True:
        await work()
        await asyncio.sleep(every_s)
