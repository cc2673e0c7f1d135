"""Deletes old rows every so often, a few at a time, for as long as the process lives."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from app.core.background import run_in_background

log = logging.getLogger(__name__)


class Retention:
    """Deletes expired rows at intervals; several processes may do so at once.

    Args:
        delete: deletes all of it, and gives the number of rows of each transaction.
        every_s: the pause between.
        failed_event: logged when it begins to fail.
        deleted_event: logged with the number of rows, if there were any.

    """

    def __init__(
        self,
        delete: Callable[[], AsyncIterator[int]],
        *,
        every_s: float,
        failed_event: str,
        deleted_event: str,
    ) -> None:
        self._delete = delete
        self._every_s = every_s
        self._failed_event = failed_event
        self._deleted_event = deleted_event
        self._is_failing = False

    def running(
        self, *, after: Callable[[], Awaitable[object]] | None = None
    ) -> AbstractAsyncContextManager[object]:
        """Delete during a block, from a moment on; leaving it doesn't wait for a delete to end."""
        return run_in_background(self._run, name="retention", after=after)

    async def apply(self) -> None:
        """Delete expired rows; a failure is logged once, until it works again."""
        deleted = 0
        try:
            async for count in self._delete():
                deleted += count
            self._is_failing = False
        except Exception as failure:  # noqa: BLE001  # the next time may do better, and must come
            if not self._is_failing:
                log.warning(self._failed_event, extra={"error": type(failure).__name__})
            self._is_failing = True
        if deleted:
            log.info(self._deleted_event, extra={"count": deleted})

    async def _run(self) -> None:
        # Replicas that started together don't delete together.
        await asyncio.sleep(self._every_s * random.random())  # noqa: S311  # no secret
        while True:
            await self.apply()
            await asyncio.sleep(self._every_s)
