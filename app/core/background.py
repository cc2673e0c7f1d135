"""Background tasks that run during a block of code, and are restarted when they crash."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from app.core.backoff import Backoff

log = logging.getLogger(__name__)

RESTART = Backoff(first_s=1.0, max_s=60.0, jitter=0.5)
# After running for so long, the next crash counts as the first one.
RECOVERED_S = 120.0
Work = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def run_in_background(
    work: Work,
    *,
    name: str,
    after: Callable[[], Awaitable[object]] | None = None,
    restart: Backoff | None = RESTART,
) -> AsyncIterator[asyncio.Task[None]]:
    """Run work in a task during the block; after it the task is cancelled, and has ended.

    Work that crashes is logged as `background_crashed` and started again. The task ends when the
    work returns.

    Args:
        work: called at each start.
        name: of the work, for the log.
        after: awaited before the first start.
        restart: pauses before it is started again; None: it isn't.

    """
    task = asyncio.create_task(_supervise(work, name=name, after=after, restart=restart))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _supervise(
    work: Work,
    *,
    name: str,
    after: Callable[[], Awaitable[object]] | None,
    restart: Backoff | None,
) -> None:
    if after is not None:
        await after()
    crashes = 0
    while True:
        started_s = time.monotonic()
        try:
            await work()
        except Exception:
            log.exception("background_crashed", extra={"work": name})
        else:
            return
        if restart is None:
            return
        crashes = 1 if time.monotonic() - started_s > RECOVERED_S else crashes + 1
        await asyncio.sleep(restart.pause_s(crashes))
