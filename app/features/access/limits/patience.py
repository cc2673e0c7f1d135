"""A time limit that is about the other side's silence, not about our own event loop's lateness."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# A loop that was stuck for longer than the whole budget has used up one step of it, and has nine
# more turns to read the answer that lies in its socket.
STEPS = 10


@asynccontextmanager
async def patience(budget_s: float) -> AsyncIterator[None]:
    """Cancel the block when `budget_s` is over, counted in steps that a stuck loop can't skip.

    With a plain timeout a burst of requests, or one long pause of the collector, would pass for a
    server that is down, and limits would be off just when they are needed.

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
