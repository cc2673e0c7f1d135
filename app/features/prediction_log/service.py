"""The use cases of the prediction log: put a row, read a page, export."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from app.db.session import Database
from app.features.prediction_log.metrics import PredictionLogMetrics
from app.features.prediction_log.reading import export, read_page
from app.features.prediction_log.redaction import InputKeeping, InputRedactor
from app.features.prediction_log.repository import (
    Filters,
    Position,
)
from app.features.prediction_log.retention import RetentionPolicy, prediction_retention
from app.features.prediction_log.writer import PredictionWriter, WriterPolicy
from app.services.prediction_log import PredictionLogEntry

# About 200 KB; reading them takes a few milliseconds.
EXPORT_ROWS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionsScope:
    """Which predictions a caller may see: all, its own key's, or without a key none."""

    key_id: int | None
    sees_all: bool

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

    def __init__(
        self, database: Database, *, policy: LogPolicy, metrics: PredictionLogMetrics
    ) -> None:
        self._redact = InputRedactor(policy.input)
        self._database = database
        self._writer = PredictionWriter(database, policy=policy.writer, metrics=metrics)
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
