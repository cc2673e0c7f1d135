"""A timeout that counts a server's silence, not the lateness of our own event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# However long the loop was stuck, that uses up one step; in the other nine it can read the answer
# that already lies in its socket.
STEPS = 10


@asynccontextmanager
async def server_timeout(budget_s: float) -> AsyncIterator[None]:
    """Cancel the block after `budget_s`, counted in steps: a stuck loop uses up one of them.

    With a plain timeout a burst of requests, or one long garbage collection, would look like a
    server that is down, and limits would be off when they are needed.

    Raises:
        TimeoutError: the budget is over.

    """
    loop = asyncio.get_running_loop()
    step_s = budget_s / STEPS
    timer = loop.call_later(step_s, lambda: step(STEPS - 1))

    def step(left: int) -> None:
        nonlocal timer
        if left:
            timer = loop.call_later(step_s, step, left - 1)
        else:
            limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        try:
            yield
        finally:
            timer.cancel()
