"""How a job is followed: its row is polled for changes until it is finished."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Protocol

from app.errors import DatabaseUnavailableError, OverloadedError
from app.features.documents.collections import SHARED_COLLECTION, CollectionScope
from app.features.jobs.values import Job

MAX_WATCHERS = 100  # each asks SQL twice a second
KEYS_SHARE = 0.5  # of them, at most for one key
POLL_S = 0.5
MAX_OUTAGE_S = 20.0
RETRY_AFTER_S = 5


class FindJob(Protocol):
    """Reads a job."""

    async def __call__(self, job_id: str, *, scope: CollectionScope) -> Job:
        """Raise as `JobService.get` does."""
        ...


class JobWatch:
    """Follows jobs for many clients at once; one for each process.

    Args:
        find: reads a job; `JobService.get`.
        max_watchers: at once; more are refused, and more than half of that with one key.
        poll_s: between two reads of a job.
        max_outage_s: how long the database may be away.

    """

    def __init__(
        self,
        find: FindJob,
        *,
        max_watchers: int = MAX_WATCHERS,
        poll_s: float = POLL_S,
        max_outage_s: float = MAX_OUTAGE_S,
    ) -> None:
        self._find = find
        self._max_watchers = max_watchers
        self._poll_s = poll_s
        self._max_outage_s = max_outage_s
        self._by_caller: Counter[int] = Counter()

    @property
    def watchers(self) -> int:
        """How many clients follow a job now."""
        return self._by_caller.total()

    async def watch(self, job_id: str, *, scope: CollectionScope) -> AsyncGenerator[Job | None]:
        """Yield the job, then at each read the job if it has changed, else None.

        Ends after the final status; if the job is retried, call this again.

        Raises:
            OverloadedError: too many follow jobs already.
            JobNotFoundError: there is none that the caller may see, or it was deleted.
            DatabaseUnavailableError: it is away; after the first read, for `max_outage_s`.

        """
        caller = scope.collection
        share = 1.0 if caller == SHARED_COLLECTION else KEYS_SHARE
        is_over_share = self._by_caller[caller] >= self._max_watchers * share
        if is_over_share or self.watchers >= self._max_watchers:
            raise OverloadedError("Too many jobs are watched.", retry_after_s=RETRY_AFTER_S)
        self._by_caller[caller] += 1
        try:
            job = await self._find(job_id, scope=scope)
            yield job
            answered_s = time.monotonic()
            while not job.status.is_final:
                await asyncio.sleep(self._poll_s)
                before = job
                try:
                    job = await self._find(job_id, scope=scope)
                    answered_s = time.monotonic()
                except DatabaseUnavailableError:
                    if time.monotonic() - answered_s > self._max_outage_s:
                        raise
                yield None if job.updated_at == before.updated_at else job
        finally:
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]
