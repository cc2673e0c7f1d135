"""Following a job: every change of its row, until it is finished."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Protocol

from app.errors import DatabaseUnavailableError, OverloadedError
from app.features.documents.collections import NOBODYS, CollectionScope
from app.features.jobs.values import Job

MAX_WATCHERS = 100  # each asks SQL twice a second
KEYS_SHARE = 0.5  # of them, that one key may have
POLL_S = 0.5
PATIENCE_S = 20.0
RETRY_AFTER_S = 5


class FindJob(Protocol):
    """Gives a job as it is now."""

    async def __call__(self, job_id: str, *, scope: CollectionScope) -> Job:
        """Raise as `JobService.get` does."""
        ...


class JobWatch:
    """Watches jobs for many at once; one for the process.

    Args:
        find: gives a job as it is now; `JobService.get`.
        max_watchers: jobs that are watched at once; more are refused, and with one key more than
            half of that.
        poll_s: between two looks at a job.
        patience_s: how long the database may be away.

    """

    def __init__(
        self,
        find: FindJob,
        *,
        max_watchers: int = MAX_WATCHERS,
        poll_s: float = POLL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._find = find
        self._max_watchers = max_watchers
        self._poll_s = poll_s
        self._patience_s = patience_s
        self._by_caller: Counter[int] = Counter()

    @property
    def watchers(self) -> int:
        """How many watch now."""
        return self._by_caller.total()

    async def watch(self, job_id: str, *, scope: CollectionScope) -> AsyncGenerator[Job | None]:
        """Give the job, and then at each look the job if it has changed, else None.

        Ends after its final status; a job that is retried then is watched anew.

        Raises:
            OverloadedError: too many watch already.
            JobNotFoundError: there is none that the caller may see, or no longer.
            DatabaseUnavailableError: it is away, in the middle only when that has lasted.

        """
        caller = scope.collection
        share = 1.0 if caller == NOBODYS else KEYS_SHARE
        is_greedy = self._by_caller[caller] >= self._max_watchers * share
        if is_greedy or self.watchers >= self._max_watchers:
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
                    if time.monotonic() - answered_s > self._patience_s:
                        raise
                yield None if job.updated_at == before.updated_at else job
        finally:
            self._by_caller[caller] -= 1
            if not self._by_caller[caller]:
                del self._by_caller[caller]
