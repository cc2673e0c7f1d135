"""What a process writes of a batch that it has claimed, as long as it holds the lease.

Answers are written in the order of their lines, together with the offset of what is done. So a
line that was run by a process which died before it wrote is run again, and none is written twice.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from app.db.session import Database
from app.features.jobs.policy import LeaseLostError
from app.features.openai_batches.file_service import STORE_TIMEOUT_S
from app.features.openai_batches.leases import BatchLeases
from app.features.openai_batches.metrics import BatchesMetrics
from app.features.openai_batches.values import Batch, BatchStatus, LineAnswer, LineError

# What is written at once, at most.
WRITE_LINES = 32
WRITE_BYTES = 262_144
WRITE_EVERY_S = 1.0
UNRUN_AT_ONCE = 500


class HeldBatch:
    """A batch that this process has claimed.

    Args:
        batch: as it was claimed.
        lease: on it.
        database: where it is.
        metrics: where its lines count.
        file_s: seconds after which its files are deleted; None: never.

    Attributes:
        batch: as it is now.
        is_cancelled: whether its owner wants no more lines to be run.

    """

    def __init__(
        self,
        batch: Batch,
        lease: str,
        *,
        database: Database,
        metrics: BatchesMetrics,
        file_s: int | None,
    ) -> None:
        self.batch = batch
        self.is_cancelled = batch.is_cancelled
        self._lease = lease
        self._database = database
        self._count = metrics.lines
        self._file_s = file_s
        self._ready: list[LineAnswer] = []
        self._written_s = time.monotonic()

    async def extend(self, lease_s: float) -> bool:
        """Keep the lease, and learn whether the batch was cancelled; False when it is lost."""
        held = self._held
        batch = await self._database.run(
            lambda session: BatchLeases(session).extend(**held, lease_s=lease_s)
        )
        # Not `self.batch`: this may come later than what was written after it.
        self.is_cancelled = self.is_cancelled or (batch is not None and batch.is_cancelled)
        return batch is not None

    async def begin(self, total: int) -> None:
        """Note that the file is good, and has so many lines; raises as `end`."""
        await self._change(lambda leases, held: leases.begin(**held, total=total))

    async def put(self, answer: LineAnswer) -> None:
        """Take the answer of the next line, and write those that are ready where they are many."""
        self._ready.append(answer)
        size = sum(len(answer.text) for answer in self._ready)
        if len(self._ready) >= WRITE_LINES or size >= WRITE_BYTES:
            await self.write()

    async def put_unrun(self, answer: LineAnswer) -> None:
        """Take what is said of the next line, which isn't run; `write(is_unrun=True)` follows."""
        self._ready.append(answer)
        if len(self._ready) >= UNRUN_AT_ONCE:
            await self.write(is_unrun=True)

    async def write_old(self) -> None:
        """Write answers that are ready, unless some were written a moment ago."""
        if time.monotonic() - self._written_s >= WRITE_EVERY_S:
            await self.write()

    async def write(self, *, is_unrun: bool = False) -> None:
        """Write the answers that are ready; raises as `end`."""
        answers, self._ready = self._ready, []
        self._written_s = time.monotonic()
        if not answers:
            return
        after = self.batch.offset
        await self._change(lambda leases, held: leases.write(**held, after=after, answers=answers))
        good = sum(answer.is_good for answer in answers)
        self._count.labels("completed").inc(good)
        self._count.labels("unrun" if is_unrun else "failed").inc(len(answers) - good)

    async def finalize(self) -> None:
        """Note that all lines are answered; raises as `end`."""
        await self._change(lambda leases, held: leases.finalize(**held))

    async def end(self, status: BatchStatus, errors: Sequence[LineError] = ()) -> None:
        """End the batch.

        Raises:
            LeaseLostError: another process has it; nothing was changed.
            DatabaseUnavailableError: whether it was changed isn't known.

        """
        await self._change(
            lambda leases, held: leases.end(
                **held, status=status, file_s=self._file_s, errors=errors
            )
        )

    @property
    def _held(self) -> dict[str, Any]:
        return {"key": self.batch.key, "lease": self._lease}

    async def _change(self, change: Callable[[BatchLeases, dict[str, Any]], Batch | None]) -> None:
        """Change the batch in a transaction; raises as `end`."""
        held = self._held
        batch = await self._database.run(
            lambda session: change(BatchLeases(session), held), timeout_s=STORE_TIMEOUT_S
        )
        if batch is None:
            raise LeaseLostError
        self.batch = batch
        self.is_cancelled = self.is_cancelled or batch.is_cancelled
