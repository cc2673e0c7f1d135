"""The use cases of the prediction log: put a row, read a page, export."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session

from app.db.session import Database
from app.errors import PredictionNotFoundError
from app.features.prediction_log.feedback import Feedback, FeedbackRepository, Summary
from app.features.prediction_log.filters import Filters, Position
from app.features.prediction_log.metrics import PredictionLogMetrics
from app.features.prediction_log.reading import export, read_page
from app.features.prediction_log.redaction import InputKeeping, InputRedactor
from app.features.prediction_log.retention import RetentionPolicy, prediction_retention
from app.features.prediction_log.writer import PredictionWriter, WriterPolicy
from app.services.prediction_log import PredictionLogEntry

# About 200 KB; reading them takes a few milliseconds.
EXPORT_ROWS = 500
# A row is written about half a second after its answer; later, when the database is slow.
WRITTEN_WITHIN_S = (0.2, 0.4, 0.8, 1.0)
# An older one that isn't there won't come: it was lost, or deleted.
FRESH = timedelta(seconds=60)
CLOCKS = timedelta(seconds=5)  # by which those of two replicas may differ
VERDICTS = {True: "correct", False: "wrong", None: "unjudged"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionsScope:
    """Which predictions a caller may see: all, its own key's, or without a key none."""

    key_id: int | None
    sees_all: bool

    @property
    def sees_none(self) -> bool:
        """Whether there is no prediction that the caller may see."""
        return not self.sees_all and self.key_id is None

    @property
    def owner(self) -> int | None:
        """The key whose predictions the caller may see; None: all, unless it sees none."""
        return None if self.sees_all else self.key_id

    def narrow(self, filters: Filters) -> Filters | None:
        """Return the filters restricted to the caller's key; None if the caller may see none."""
        if self.sees_all:
            return filters
        # In Filters None would mean every key.
        return None if self.key_id is None else replace(filters, key_id=self.key_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Predictions, newest first, and the position of the next page; None after the last one."""

    predictions: list[PredictionLogEntry]
    next: Position | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPolicy:
    """What is logged, and for how long.

    Args:
        input: what is kept of inputs.
        writer: bounds of writing.
        retention: what is deleted.

    """

    input: InputKeeping = "hash"
    writer: WriterPolicy = field(default_factory=WriterPolicy)
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)


class PredictionLog:
    """The log of every answer.

    Args:
        database: where it is stored.
        policy: what is kept.
        metrics: where it counts.

    """

    keeps_entries = True

    def __init__(
        self, database: Database, *, policy: LogPolicy, metrics: PredictionLogMetrics
    ) -> None:
        self._redact = InputRedactor(policy.input)
        self._database = database
        self._writer = PredictionWriter(database, policy=policy.writer, metrics=metrics)
        self._feedback = metrics.prediction_feedback
        self._keeps_all = policy.retention.keeps_all
        self._retention = prediction_retention(database, policy=policy.retention, metrics=metrics)

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return self._writer.waiting

    def put(self, entry: PredictionLogEntry) -> None:
        """Take an entry, to be written soon; when full, drop and count it.

        The entry is changed here, and belongs to the log from now on. Never waits, never raises.
        Belongs on the event loop.
        """
        self._writer.put(self._redact(entry))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write and delete during the block; then write the rows that wait, within a time limit."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._writer.running())
            if not self._keeps_all:
                await stack.enter_async_context(self._retention.running())
            yield

    async def page(
        self, filters: Filters, *, scope: PredictionsScope, after: Position | None, limit: int
    ) -> Page:
        """Return up to `limit` predictions that the caller may see, after a position in the log.

        Raises:
            DatabaseUnavailableError: it doesn't answer.

        """
        narrowed = scope.narrow(filters)
        if narrowed is None:
            return Page(predictions=[], next=None)
        # One more, to know whether there is a next page.
        read = partial(read_page, filters=narrowed, after=after, limit=limit + 1)
        rows = await self._database.read(read)
        predictions = rows[:limit]
        has_next = len(rows) > limit
        return Page(
            predictions=predictions, next=Position.of(predictions[-1]) if has_next else None
        )

    async def export(
        self, filters: Filters, *, scope: PredictionsScope, rows: int = EXPORT_ROWS
    ) -> AsyncIterator[list[PredictionLogEntry]]:
        """Yield all predictions that the caller may see, newest first, `rows` at a time.

        Raises:
            DatabaseUnavailableError: also in the middle.

        """
        narrowed = scope.narrow(filters)
        if narrowed is None:
            return
        async for chunk in export(self._database, narrowed, rows=rows):
            yield chunk

    async def give_feedback(
        self, position: Position, feedback: Feedback, *, scope: PredictionsScope
    ) -> Feedback:
        """Store feedback on a prediction in the place of what was said before, and return it.

        One that was just made may not be written yet, by this process or another: it is waited for.

        Raises:
            PredictionNotFoundError: there is none that the caller may see: it was never kept, was
                deleted, or belongs to another key.
            DatabaseUnavailableError: it doesn't answer.

        """
        if scope.sees_none:
            raise PredictionNotFoundError
        find = partial(_has_prediction, position=position, key_id=scope.owner)
        age = datetime.now(UTC) - position.time
        for pause_s in WRITTEN_WITHIN_S if timedelta() <= age + CLOCKS and age < FRESH else ():
            if await self._database.read(find):
                break
            await asyncio.sleep(pause_s)
        stored = await self._database.run(
            partial(_give, position=position, feedback=feedback, key_id=scope.owner)
        )
        if stored is None:
            raise PredictionNotFoundError
        self._feedback.labels(VERDICTS[stored.correct]).inc()
        return stored

    async def feedback_summary(self, filters: Filters, *, scope: PredictionsScope) -> list[Summary]:
        """Return what was said of the predictions that the caller may see, by model and version.

        Raises:
            DatabaseUnavailableError: it doesn't answer.

        """
        narrowed = scope.narrow(filters)
        if narrowed is None:
            return []
        return await self._database.read(partial(_sum_up, filters=narrowed))


def _has_prediction(session: Session, *, position: Position, key_id: int | None) -> bool:
    return FeedbackRepository(session).has_prediction(position, key_id=key_id)


def _give(
    session: Session, *, position: Position, feedback: Feedback, key_id: int | None
) -> Feedback | None:
    return FeedbackRepository(session).give(position, feedback, key_id=key_id)


def _sum_up(session: Session, *, filters: Filters) -> list[Summary]:
    return FeedbackRepository(session).summaries(filters)
