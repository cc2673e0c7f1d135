"""Writes predictions in batches, in the background, and counts those that are lost."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal, get_args

from sqlalchemy.orm import Session

from app.core.background import run_in_background
from app.core.backoff import Backoff
from app.core.throttle import Throttle
from app.db.failures import StatementError
from app.db.session import Database
from app.errors import DatabaseUnavailableError
from app.features.prediction_log.metrics import PredictionLogMetrics
from app.features.prediction_log.repository import PredictionRepository
from app.services.prediction_log import PredictionLogEntry

log = logging.getLogger(__name__)

Loss = Literal["full", "shutdown", "refused"]
BACKOFF = Backoff(first_s=0.2, max_s=5.0, jitter=0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterPolicy:
    """Limits and times of the writer.

    Args:
        bound: rows that may wait, including those that are being written.
        batch: rows in one transaction.
        flush_s: how long the first row of a batch waits for others.
        backoff: pauses while the database doesn't answer.
        drain_s: time to write the waiting rows when the process ends.

    """

    bound: int = 20_000
    batch: int = 500
    flush_s: float = 0.5
    backoff: Backoff = BACKOFF
    drain_s: float = 5.0


class PredictionWriter:
    """Takes rows without waiting and writes them later; call its methods on the event loop.

    Args:
        database: where the rows go.
        policy: limits and times.
        metrics: where rows and losses are counted.

    """

    def __init__(
        self, database: Database, *, policy: WriterPolicy, metrics: PredictionLogMetrics
    ) -> None:
        self._database = database
        self._policy = policy
        # Rows leave it once they are written or lost.
        self._rows: deque[PredictionLogEntry] = deque()
        self._has_rows = asyncio.Event()
        self._has_batch = asyncio.Event()
        self._is_closing = asyncio.Event()
        self._is_closed = False
        self._written = metrics.prediction_log_rows
        self._seconds = metrics.prediction_log_seconds
        self._lost = {
            reason: metrics.prediction_log_dropped.labels(reason) for reason in get_args(Loss)
        }
        self._unlogged = 0
        self._throttle = Throttle()
        metrics.prediction_log_waiting.set_function(lambda: len(self._rows))

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._rows)

    def put(self, row: PredictionLogEntry) -> None:
        """Queue a row, or drop and count it; never waits, never raises."""
        if self._is_closed:
            self._lose(1, "shutdown")
        elif len(self._rows) >= self._policy.bound:
            self._lose(1, "full")
        else:
            self._rows.append(row)
            self._has_rows.set()
            if len(self._rows) >= self._policy.batch:
                self._has_batch.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write during the block; then write the rows that wait, and count those that are lost."""
        async with run_in_background(self._run, name="prediction_writer") as task:
            try:
                yield
            finally:
                for event in (self._is_closing, self._has_rows, self._has_batch):
                    event.set()
                try:
                    await asyncio.wait({task}, timeout=self._policy.drain_s)
                finally:
                    self._is_closed = True
                    self._lose(len(self._rows), "shutdown")
                    self._rows.clear()
                    self._log_lost("shutdown")

    async def _run(self) -> None:
        """Write batches until the writer closes and no row waits."""
        failures, size = 0, self._policy.batch
        while self._rows or not self._is_closing.is_set():
            await self._gather()
            try:
                await self._store(list(islice(self._rows, size)))
                failures, size = 0, min(self._policy.batch, size * 2)
            except DatabaseUnavailableError as failure:
                # The same rows are written again. If they were stored and only the reply was lost,
                # their ids keep them from being stored twice.
                failures = 1 if self._is_closing.is_set() else failures + 1
                if failure.reason == "timeout":
                    size = max(1, size // 2)  # else a slow database would never finish a batch
                await self._pause(failures)

    async def _gather(self) -> None:
        """Wait for a first row, and then for a full batch, at most `flush_s`."""
        await self._has_rows.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._policy.flush_s):
                await self._has_batch.wait()

    async def _store(self, rows: Sequence[PredictionLogEntry]) -> None:
        """Write the first rows of the queue in one transaction.

        Raises:
            DatabaseUnavailableError: rows that aren't written stay in the queue.

        """
        if not rows:
            return
        started_s = time.monotonic()
        try:
            await self._database.run(partial(_insert, rows=rows))
        except DatabaseUnavailableError:
            raise
        except Exception as failure:  # noqa: BLE001  # a row that can't be stored must not end the log
            await self._split(rows, failure)
            return
        self._seconds.observe(time.monotonic() - started_s)
        self._written.inc(len(rows))
        self._dequeue(len(rows))

    async def _split(self, rows: Sequence[PredictionLogEntry], failure: Exception) -> None:
        """Halve the batch to find the rows that the database refuses, and write the others."""
        if len(rows) == 1:
            self._dequeue(1)
            # Only our own errors' messages are logged: others may quote the row.
            message = str(failure) if isinstance(failure, StatementError) else ""
            self._lose(1, "refused", error=message or type(failure).__name__)
            return
        half = len(rows) // 2
        await self._store(rows[:half])
        await self._store(rows[half:])

    async def _pause(self, failures: int) -> None:
        """Wait before the next try; a shutdown ends a pause that began before it."""
        pause_s = self._policy.backoff.pause_s(failures)
        if self._is_closing.is_set():
            await asyncio.sleep(pause_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._is_closing.wait()

    def _dequeue(self, count: int) -> None:
        for _ in range(count):
            self._rows.popleft()
        if self._is_closing.is_set():
            return  # the events stay set, so that nothing waits
        if not self._rows:
            self._has_rows.clear()
        if len(self._rows) < self._policy.batch:
            self._has_batch.clear()

    def _lose(self, count: int, reason: Loss, **fields: str) -> None:
        """Count rows that will never be written; log them once a minute."""
        self._lost[reason].inc(count)
        self._unlogged += count
        if self._unlogged and self._throttle.passes():
            self._log_lost(reason, **fields)

    def _log_lost(self, reason: Loss, **fields: str) -> None:
        if self._unlogged:
            extra = {"count": self._unlogged, "waiting": len(self._rows)}
            log.warning("predictions_dropped", extra={"reason": reason, **extra, **fields})
            self._unlogged = 0
            self._throttle.restart()


def _insert(session: Session, *, rows: Sequence[PredictionLogEntry]) -> None:
    PredictionRepository(session).insert_many(rows)
