"""Deletes jobs that finished long ago, every so often, one at a time."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from sqlalchemy.orm import Session

from app.core.background import beside, regularly
from app.db.session import Database
from app.features.jobs.repository import JobRepository

log = logging.getLogger(__name__)

EVERY_S = 3_600.0
# A job of a hundred thousand documents takes a quarter of a second, and a slow disk longer. With
# several in one transaction other writers of SQLite would wait for too long.
TIMEOUT_S = 30.0


class JobRetention:
    """Deletes old jobs; any number may work at once.

    Args:
        database: where the jobs are.
        age_s: how long finished jobs are kept.
        every_s: how often it looks.

    """

    def __init__(self, database: Database, *, age_s: float, every_s: float = EVERY_S) -> None:
        self._database = database
        self._age_s = age_s
        self._every_s = every_s
        self._is_failing = False

    @asynccontextmanager
    async def running(self, *, after: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """Delete during the block, from a moment on; leaving it doesn't wait for a delete."""
        async with beside(self._run(after)):
            yield

    async def apply(self) -> None:
        """Delete what finished long ago; a failure is logged once, until it works again."""
        deleted, delete_one = 0, partial(_delete_one, age_s=self._age_s)
        try:
            while await self._database.run(delete_one, timeout_s=TIMEOUT_S):
                deleted += 1
            self._is_failing = False
        except Exception as failure:  # noqa: BLE001  # the next time may do better, and must come
            if not self._is_failing:
                log.warning("job_retention_failed", extra={"error": type(failure).__name__})
            self._is_failing = True
        if deleted:
            log.info("jobs_deleted", extra={"count": deleted})

    async def _run(self, after: Callable[[], Awaitable[object]]) -> None:
        await after()
        await regularly(self.apply, every_s=self._every_s)


def _delete_one(session: Session, *, age_s: float) -> int:
    return JobRepository(session).delete_finished(age_s=age_s, limit=1)
