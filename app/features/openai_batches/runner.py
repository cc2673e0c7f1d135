"""How a process runs batches: one at a time, a turn of one after a turn of another."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sqlalchemy.orm import Session

from app.core.backoff import Backoff
from app.core.logs import request_id
from app.errors import DatabaseUnavailableError
from app.features.jobs.heartbeat import keep_lease
from app.features.jobs.policy import LeaseLostError
from app.features.openai_batches.leases import BatchLeases
from app.features.openai_batches.line_runner import PutOffError
from app.features.openai_batches.turn import BatchTurn, TurnPolicy, TurnTools
from app.features.openai_batches.values import Batch

log = logging.getLogger(__name__)

POLL_S = 2.0  # between two looks for batches, which other processes may have taken
PAUSES = Backoff(first_s=1.0, max_s=60.0, jitter=0.2)
# Of one line in a row, a quarter of an hour; then its refusal is its answer, and others go on.
PUT_OFFS = 20


class BatchRunner:
    """Runs the batches that are due; one for each process.

    Args:
        tools: what turns work with.
        policy: their limits.
        is_closing: whether the process ends.

    """

    def __init__(
        self, tools: TurnTools, *, policy: TurnPolicy, is_closing: Callable[[], bool]
    ) -> None:
        self._tools = tools
        self._policy = policy
        self._is_closing = is_closing
        self._wake = asyncio.Event()
        self._put_off: tuple[int, int] | None = None  # the batch and line that was last
        self._put_offs = 0

    def notify(self) -> None:
        """Look for batches now."""
        self._wake.set()

    async def run(self) -> None:
        """Run batches until cancelled."""
        while True:
            has_run = False
            if not self._is_closing():
                with suppress(DatabaseUnavailableError):  # it logs itself when it is away
                    has_run = await self.run_next()
            if not has_run:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()
                self._wake.clear()

    async def run_next(self) -> bool:
        """Run the batch that is due for one turn; False when none was due.

        Raises:
            DatabaseUnavailableError: the batches can't be read.

        """
        lease = secrets.token_hex(8)
        claim = partial(_claim, lease=lease, lease_s=self._policy.lease_s)
        if not await self._tools.database.read(_is_due):
            return False  # without a transaction that writes
        batch = await self._tools.database.run(claim)
        if batch is None:
            return False
        token = request_id.set(batch.request_id)
        try:
            await self._attempt(batch, lease)
        finally:
            request_id.reset(token)
        return True

    async def _attempt(self, batch: Batch, lease: str) -> None:
        """Work on a batch; a failure is stored in its row, if the database can be reached."""
        turn = BatchTurn(
            batch, lease, tools=self._tools, policy=self._policy, is_closing=self._is_closing
        )
        due_in_s = 0.0
        try:
            async with keep_lease(turn.extend, lease_s=self._policy.lease_s):
                try:
                    has_ended = await turn.run()
                except PutOffError as refusal:
                    has_ended = False
                    due_in_s = await self._put_line_off(turn, refusal)
            if has_ended:
                self._report(turn.batch)
            else:
                await self._release(batch, lease, due_in_s)
        except asyncio.CancelledError:
            with suppress(DatabaseUnavailableError):  # its lease expires
                await self._release(batch, lease)
            raise
        except LeaseLostError:
            log.info("batch_let_go", extra={"batch": batch.id})
            self._count("let_go")
        except DatabaseUnavailableError:
            log.warning("batch_interrupted", extra={"batch": batch.id, "reason": "database"})
        except Exception as failure:
            # The boundary of a turn: the log says why.
            log.exception("batch_crashed", extra={"batch": batch.id})
            await self._fail(batch, lease, type(failure).__name__)

    async def _put_line_off(self, turn: BatchTurn, refusal: PutOffError) -> float:
        """Return in how many seconds a line is tried again; one that never runs is answered."""
        line = (turn.batch.key, refusal.line.end)
        self._put_offs = self._put_offs + 1 if line == self._put_off else 1
        self._put_off = line
        if self._put_offs >= PUT_OFFS and not refusal.is_quota:
            await turn.answer(refusal.line)
            return 0.0
        wanted_s = min(float(refusal.retry_after_s), PAUSES.max_s)
        return max(wanted_s, PAUSES.pause_s(self._put_offs))

    async def _release(self, batch: Batch, lease: str, due_in_s: float = 0.0) -> None:
        release = partial(_release, key=batch.key, lease=lease, due_in_s=due_in_s)
        await self._tools.database.run(release)
        self._count("released")

    async def _fail(self, batch: Batch, lease: str, reason: str) -> None:
        log.warning("batch_turn_failed", extra={"batch": batch.id, "reason": reason})
        policy = self._policy

        def fail(session: Session) -> Batch | None:
            return BatchLeases(session).fail_attempt(
                batch.key, lease=lease, policy=policy.retry, file_s=policy.file_s, code=reason
            )

        with suppress(DatabaseUnavailableError):  # its lease expires
            failed = await self._tools.database.run(fail)
            self._count("failed")
            if failed is not None and not failed.is_open:
                self._report(failed)

    def _report(self, batch: Batch) -> None:
        """Count and log a batch that has ended."""
        self._count("done")
        self._tools.metrics.batches.labels(batch.status.value).inc()
        fields = {
            "batch": batch.id,
            "status": batch.status.value,
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
            "attempts": batch.attempts,
        }
        log.info("batch_finished", extra=fields)

    def _count(self, outcome: str) -> None:
        self._tools.metrics.attempts.labels(outcome).inc()


def _is_due(session: Session) -> bool:
    return BatchLeases(session).is_due()


def _claim(session: Session, *, lease: str, lease_s: float) -> Batch | None:
    return BatchLeases(session).claim(lease=lease, lease_s=lease_s)


def _release(session: Session, *, key: int, lease: str, due_in_s: float) -> bool:
    return BatchLeases(session).release(key, lease=lease, due_in_s=due_in_s)
