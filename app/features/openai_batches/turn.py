"""One turn of a batch: its file is checked, or lines are run in their order, a few at once.

Answers are written in the order of their lines, together with the offset of what is done. So a
line that was run by a process which died before it wrote is run again, and none is written twice.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from app.db.session import Database
from app.features.jobs.policy import LeaseLostError, RetryPolicy
from app.features.openai_batches.answers import unrun
from app.features.openai_batches.file_service import STORE_TIMEOUT_S, FileService
from app.features.openai_batches.files import CHUNK_BYTES
from app.features.openai_batches.leases import BatchLeases
from app.features.openai_batches.line_runner import (
    LineRunner,
    LineStoppedError,
    Owner,
)
from app.features.openai_batches.lines import LineChecker, LineCutter, cut_lines, read_line
from app.features.openai_batches.metrics import BatchesMetrics
from app.features.openai_batches.values import (
    Batch,
    BatchStatus,
    Line,
    LineAnswer,
    LineError,
)

# What is written at once, at most.
WRITE_LINES = 32
WRITE_BYTES = 262_144
WRITE_EVERY_S = 1.0
UNRUN_AT_ONCE = 500
# Looks for what ends the turn, while a line runs.
LOOK_S = 0.1
# A larger line is parsed in a thread, so that the event loop isn't held.
QUICK_BYTES = 65_536
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

    Attributes:
        batch: as it is now.

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
        self.batch = batch
        self._lease = lease
        self._tools = tools
        self._policy = policy
        self._is_closing = is_closing
        began_s = time.monotonic()
        self._until_s = began_s + policy.slice_s
        left_s = (batch.expires_at - (batch.claimed_at or batch.created_at)).total_seconds()
        self._expires_s = began_s + left_s
        # Turns that were begun again and again got nothing done: what they ran may have ended them.
        self._has_failed = batch.stalled_attempts >= policy.retry.attempts
        self._is_cancelled = False
        self._ready: list[LineAnswer] = []
        self._written_s = began_s

    async def run(self) -> bool:
        """Do as much as a turn may; True when the batch has ended.

        Raises:
            LeaseLostError: another process has the batch.
            PutOffError: the service refuses its next line for now.
            DatabaseUnavailableError: whether the last lines were written isn't known.

        """
        if self.batch.in_progress_at is None and await self._ends_unchecked():
            return True
        owner = await self._tools.lines.owner(self.batch)
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
        held, lease_s = self._held, self._policy.lease_s
        batch = await self._tools.database.run(
            lambda session: BatchLeases(session).extend(**held, lease_s=lease_s)
        )
        # Not `self.batch`: this may come later than what was written after it.
        self._is_cancelled = batch is not None and batch.is_cancelled
        return batch is not None

    async def answer(self, line: LineAnswer) -> None:
        """Write the answer of the next line."""
        self._ready.append(line)
        await self._write()

    async def _ends_unchecked(self) -> bool:
        """Check the file of a batch that hasn't begun; True when the batch has ended with that."""
        if self.batch.is_cancelled:
            await self._end(BatchStatus.CANCELLED)
            return True
        errors = [CRASHED] if self._has_failed else await self._check()
        if errors:
            await self._end(BatchStatus.FAILED, errors)
        return bool(errors)

    @property
    def _held(self) -> dict[str, Any]:
        return {"key": self.batch.key, "lease": self._lease}

    def _is_over(self) -> bool:
        return time.monotonic() > self._until_s or self._is_closing()

    def _why_unrun(self) -> str | None:
        """Return why no more lines are run; None: they are."""
        if self.batch.is_cancelled or self._is_cancelled:
            return "batch_cancelled"
        if time.monotonic() >= self._expires_s:
            return "batch_expired"
        if self._has_failed:
            return "batch_failed"
        is_full = self.batch.output_bytes >= self._policy.output_bytes
        return "batch_output_full" if is_full else None

    async def _check(self) -> list[LineError]:
        """Check the input file; return what is wrong with it. If nothing is, the batch begins."""
        checker = LineChecker(
            self.batch.endpoint,
            max_lines=self._policy.max_lines,
            max_bytes=self._policy.max_line_bytes,
        )
        async for chunk in self._tools.files.chunks(self.batch.input_file_key):
            await asyncio.to_thread(checker.feed, chunk)
            if checker.is_done:
                break
        checker.finish()
        if not checker.errors:
            await self._change(lambda leases, held: leases.begin(**held, total=checker.total))
        return checker.errors

    async def _lines(self) -> AsyncGenerator[Line]:
        """Yield the lines that aren't answered."""
        first, skipped = divmod(self.batch.offset, CHUNK_BYTES)
        cutter = LineCutter(self.batch.offset, self._policy.max_line_bytes)

        async def rest() -> AsyncIterator[bytes]:
            begin = skipped
            async for chunk in self._tools.files.chunks(self.batch.input_file_key, first=first):
                yield chunk[begin:]
                begin = 0

        async for lines in cut_lines(rest(), cutter):
            for end, text in lines:
                if len(text) > QUICK_BYTES:
                    yield await asyncio.to_thread(read_line, end, text)
                else:
                    yield read_line(end, text)

    async def _run_lines(self, owner: Owner) -> bool:
        """Run lines; True when all are answered, False when something else is to be done."""
        slots = asyncio.Semaphore(self._policy.lines_at_once)

        async def run(line: Line) -> LineAnswer:
            async with slots:
                return await self._tools.lines.run(
                    line, self.batch.endpoint, owner, is_stopping=self._is_over
                )

        lines = self._lines()
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
            await self._write()

    async def _take(self, first: "asyncio.Task[LineAnswer]") -> bool:
        """Wait for the next line's answer, and write what is ready; False when the turn is over."""
        while not first.done():
            await asyncio.wait({first}, timeout=LOOK_S)
            if time.monotonic() - self._written_s >= WRITE_EVERY_S:
                await self._write()
            if not first.done() and self._why_unrun() is not None:
                return False
        try:
            self._ready.append(first.result())
        except LineStoppedError:
            return False
        size = sum(len(answer.text) for answer in self._ready)
        if len(self._ready) >= WRITE_LINES or size >= WRITE_BYTES:
            await self._write()
        return self._why_unrun() is None

    async def _write_unrun(self, code: str) -> None:
        """Write of all lines that aren't answered why they won't be."""
        async for line in self._lines():
            self._ready.append(unrun(line, code))
            if len(self._ready) >= UNRUN_AT_ONCE:
                await self._write(is_unrun=True)
        await self._write(is_unrun=True)

    async def _write(self, *, is_unrun: bool = False) -> None:
        """Write the answers that are ready."""
        answers, self._ready = self._ready, []
        self._written_s = time.monotonic()
        if not answers:
            return
        after = self.batch.offset
        await self._change(lambda leases, held: leases.write(**held, after=after, answers=answers))
        good = sum(answer.is_good for answer in answers)
        count = self._tools.metrics.lines
        count.labels("completed").inc(good)
        count.labels("unrun" if is_unrun else "failed").inc(len(answers) - good)

    async def _finish(self, code: str | None) -> None:
        """End a batch whose lines are all answered."""
        await self._change(lambda leases, held: leases.finalize(**held))
        batch = self.batch
        if batch.completed + batch.failed != batch.total:
            lost = LineError(code="input_file_lost", message="The input file isn't whole any more.")
            await self._end(BatchStatus.FAILED, [lost])
        elif batch.is_cancelled:
            await self._end(BatchStatus.CANCELLED)
        elif code == "batch_expired" and batch.failed:
            await self._end(BatchStatus.EXPIRED)
        elif code == "batch_failed":
            await self._end(BatchStatus.FAILED, [CRASHED])
        else:
            await self._end(BatchStatus.COMPLETED)

    async def _end(self, status: BatchStatus, errors: list[LineError] | None = None) -> None:
        await self._change(
            lambda leases, held: leases.end(
                **held, status=status, file_s=self._policy.file_s, errors=errors or ()
            )
        )

    async def _change(
        self, change: "Callable[[BatchLeases, dict[str, Any]], Batch | None]"
    ) -> None:
        """Change the batch in a transaction.

        Raises:
            LeaseLostError: another process has it; nothing was changed.

        """
        held = self._held
        batch = await self._tools.database.run(
            lambda session: change(BatchLeases(session), held), timeout_s=STORE_TIMEOUT_S
        )
        if batch is None:
            raise LeaseLostError
        self.batch = batch
