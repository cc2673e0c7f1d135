"""One turn of a batch: its file is checked, or lines are run in their order, a few at once."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from app.db.session import Database
from app.features.jobs.policy import RetryPolicy
from app.features.openai_batches.answers import unrun
from app.features.openai_batches.file_service import FileService
from app.features.openai_batches.held_batch import HeldBatch
from app.features.openai_batches.input_file import InputFile
from app.features.openai_batches.line_runner import LineRunner, LineStoppedError, Owner
from app.features.openai_batches.metrics import BatchesMetrics
from app.features.openai_batches.values import Batch, BatchStatus, Line, LineAnswer, LineError

# Looks for what ends the turn, while a line runs.
LOOK_S = 0.1
# Lines that are ahead of the first that isn't answered: one that takes long holds others up late.
AHEAD = 2
CRASHED = LineError(
    code="batch_failed", message="It was begun again and again, and got nothing done each time."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPolicy:
    """The limits of a turn.

    Args:
        lines_at_once: that run.
        max_lines: of a batch.
        max_line_bytes: of a line.
        output_bytes: of a batch's answers, after which none is run.
        file_s: seconds after which its files are deleted; None: never.
        lease_s: after which another process takes the batch from one that is silent.
        slice_s: after which the batch goes behind those of others.
        retry: when turns that failed are repeated.

    """

    lines_at_once: int
    max_lines: int
    max_line_bytes: int
    output_bytes: int
    file_s: int | None
    lease_s: float
    slice_s: float = 15.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnTools:
    """What a turn works with."""

    database: Database
    files: FileService
    lines: LineRunner
    metrics: BatchesMetrics


class BatchTurn:
    """One turn of a batch that this process has claimed.

    Args:
        batch: as it was claimed.
        lease: on it.
        tools: what it works with.
        policy: its limits.
        is_closing: whether the process ends.

    """

    def __init__(
        self,
        batch: Batch,
        lease: str,
        *,
        tools: TurnTools,
        policy: TurnPolicy,
        is_closing: Callable[[], bool],
    ) -> None:
        self._held = HeldBatch(
            batch, lease, database=tools.database, metrics=tools.metrics, file_s=policy.file_s
        )
        self._file = InputFile(tools.files, batch, max_line_bytes=policy.max_line_bytes)
        self._runner = tools.lines
        self._policy = policy
        self._is_closing = is_closing
        began_s = time.monotonic()
        self._until_s = began_s + policy.slice_s
        left_s = (batch.expires_at - (batch.claimed_at or batch.created_at)).total_seconds()
        self._expires_s = began_s + left_s
        # Turns that were begun again and again got nothing done: what they ran may have ended them.
        self._has_failed = batch.stalled_attempts >= policy.retry.attempts

    @property
    def batch(self) -> Batch:
        """The batch as it is now."""
        return self._held.batch

    async def run(self) -> bool:
        """Do as much as a turn may; True when the batch has ended.

        Raises:
            LeaseLostError: another process has the batch.
            PutOffError: the service refuses its next line for now.
            DatabaseUnavailableError: whether the last lines were written isn't known.

        """
        if self.batch.in_progress_at is None and await self._ends_unchecked():
            return True
        owner = await self._runner.owner(self.batch)
        while (code := self._why_unrun()) is None:
            if await self._run_lines(owner):
                break
            if self._is_over():
                return False
        else:
            await self._write_unrun(code)
        await self._finish(code)
        return True

    async def extend(self) -> bool:
        """Keep the lease, and learn whether the batch was cancelled; False when it is lost."""
        return await self._held.extend(self._policy.lease_s)

    async def answer(self, line: LineAnswer) -> None:
        """Write the answer of the next line."""
        await self._held.put(line)
        await self._held.write()

    async def _ends_unchecked(self) -> bool:
        """Check the file of a batch that hasn't begun; True when the batch has ended with that."""
        if self.batch.is_cancelled:
            await self._held.end(BatchStatus.CANCELLED)
            return True
        if self._has_failed:
            await self._held.end(BatchStatus.FAILED, [CRASHED])
            return True
        checker = await self._file.check(max_lines=self._policy.max_lines)
        if checker.errors:
            await self._held.end(BatchStatus.FAILED, checker.errors)
            return True
        await self._held.begin(checker.total)
        return False

    def _is_over(self) -> bool:
        return time.monotonic() > self._until_s or self._is_closing()

    def _why_unrun(self) -> str | None:
        """Return why no more lines are run; None: they are."""
        if self._held.is_cancelled:
            return "batch_cancelled"
        if time.monotonic() >= self._expires_s:
            return "batch_expired"
        if self._has_failed:
            return "batch_failed"
        is_full = self.batch.output_bytes >= self._policy.output_bytes
        return "batch_output_full" if is_full else None

    async def _run_lines(self, owner: Owner) -> bool:
        """Run lines; True when all are answered, False when something else is to be done."""
        slots = asyncio.Semaphore(self._policy.lines_at_once)

        async def run(line: Line) -> LineAnswer:
            async with slots:
                return await self._runner.run(
                    line, self.batch.endpoint, owner, is_stopping=self._is_over
                )

        lines = self._file.lines(self.batch.offset)
        pending: deque[asyncio.Task[LineAnswer]] = deque()
        has_more = True
        try:
            while has_more or pending:
                while has_more and len(pending) < self._policy.lines_at_once * AHEAD:
                    line = await anext(lines, None)
                    has_more = line is not None
                    if line is not None:
                        pending.append(asyncio.create_task(run(line)))
                if pending and not await self._take(pending[0]):
                    return False
                if pending:
                    pending.popleft()
            return True
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            await lines.aclose()
            await self._held.write()

    async def _take(self, first: "asyncio.Task[LineAnswer]") -> bool:
        """Wait for the next line's answer, and write what is ready; False when the turn is over."""
        while not first.done():
            await asyncio.wait({first}, timeout=LOOK_S)
            await self._held.write_old()
            if not first.done() and self._why_unrun() is not None:
                return False
        try:
            await self._held.put(first.result())
        except LineStoppedError:
            return False
        return self._why_unrun() is None

    async def _write_unrun(self, code: str) -> None:
        """Write of all lines that aren't answered why they won't be."""
        async for line in self._file.lines(self.batch.offset):
            await self._held.put_unrun(unrun(line, code))
        await self._held.write(is_unrun=True)

    async def _finish(self, code: str | None) -> None:
        """End a batch whose lines are all answered."""
        await self._held.finalize()
        batch = self.batch
        if batch.completed + batch.failed != batch.total:
            lost = LineError(code="input_file_lost", message="The input file isn't whole any more.")
            await self._held.end(BatchStatus.FAILED, [lost])
        elif batch.is_cancelled:
            await self._held.end(BatchStatus.CANCELLED)
        elif code == "batch_expired" and batch.failed:
            await self._held.end(BatchStatus.EXPIRED)
        elif code == "batch_failed":
            await self._held.end(BatchStatus.FAILED, [CRASHED])
        else:
            await self._held.end(BatchStatus.COMPLETED)
