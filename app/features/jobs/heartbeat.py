"""Keeps a lease while work goes on, and interrupts the work when it is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from app.errors import DatabaseUnavailableError
from app.features.jobs.policy import LeaseLostError

HEARTBEATS = 3  # in the time of a lease


@asynccontextmanager
async def keep_lease(
    extend: Callable[[], Awaitable[bool]], *, lease_s: float
) -> AsyncIterator[None]:
    """Keep a lease during the block; LeaseLostError interrupts the block when it is lost.

    Args:
        extend: extends it; False when it is lost.
        lease_s: for how long it holds.

    """
    is_lost = False
    owner = asyncio.current_task()
    assert owner is not None  # noqa: S101  # a coroutine runs in a task

    async def beat() -> None:
        nonlocal is_lost
        while True:
            await asyncio.sleep(lease_s / HEARTBEATS)
            with suppress(DatabaseUnavailableError):  # the next commit checks the lease
                if not await extend():
                    break
        is_lost = True
        owner.cancel()

    task = asyncio.create_task(beat())
    try:
        yield
    except BaseException:
        # Whatever the interrupted block raised; but others may have cancelled it too.
        if is_lost and owner.cancelling() == 1:
            raise LeaseLostError from None
        raise
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if is_lost:
            owner.uncancel()  # it was this module's
