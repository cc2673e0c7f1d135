"""Counts answers beside the log, compares full windows, and keeps references in SQL."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session

from app.core.background import run_in_background
from app.core.throttle import Throttle
from app.db.failures import StatementError
from app.db.session import Database
from app.errors import DatabaseUnavailableError
from app.features.drift.metrics import DriftMetrics
from app.features.drift.references import ReferenceRepository
from app.features.drift.shown import ShownWindows
from app.features.drift.windows import Reference, Series, Sizes, Version, Windows
from app.services.prediction_log import OK, AnsweredEntry, EntryLog, PredictionLogEntry

log = logging.getLogger(__name__)

# Rows are counted together: one at a time would cost more than the answer's entry.
COUNT_EVERY_S = 1.0
MAX_WAITING = 20_000  # as many as come in a second on a large machine
# For how long another process may go on with a reference that was given up here.
SYNC_EVERY_S = 30.0
# A window that old says nothing of now: the version isn't asked any more.
SHOWN_FOR = timedelta(hours=1)
Refused = (DatabaseUnavailableError, StatementError)
utc_now = partial(datetime.now, UTC)


class DriftWatch:
    """Takes the entries of answers, hands them on to the log, and counts them a little later.

    Args:
        entries: the log; without one entries end here.
        database: where references are kept; None: in memory alone.
        sizes: of windows and references.
        metrics: where distances are shown.
        now: the time, in UTC.

    """

    def __init__(
        self,
        entries: EntryLog,
        database: Database | None,
        *,
        sizes: Sizes,
        metrics: DriftMetrics,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._entries = entries
        self._database = database
        self._sizes = sizes
        self._metrics = metrics
        self._now = now
        self._rows: list[AnsweredEntry] = []
        self._windows = Windows(sizes)
        self._shown = ShownWindows(metrics)
        # Of which SQL has the reference that is used here.
        self._stored: set[Version] = set()
        # Rows are counted in a thread: nothing else looks at the windows meanwhile.
        self._counting = asyncio.Lock()
        self._throttle = Throttle()

    @property
    def keeps_entries(self) -> bool:
        """Whether the log does."""
        return self._entries.keeps_entries

    @property
    def sizes(self) -> Sizes:
        """How many rows are counted together."""
        return self._sizes

    def put(self, entry: PredictionLogEntry) -> None:
        """Hand an entry on, and have it counted; never waits, never raises."""
        self._entries.put(entry)
        if entry.status == OK and isinstance(entry, AnsweredEntry):
            if len(self._rows) < MAX_WAITING:
                self._rows.append(entry)
            else:
                self._metrics.drift_dropped.inc()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Count during the block."""
        async with run_in_background(self._run, name="drift"):
            yield

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        synced_s, has_synced = loop.time(), True
        while True:
            await asyncio.sleep(COUNT_EVERY_S)
            has_news = await self.count()
            if (has_news and has_synced) or loop.time() - synced_s >= SYNC_EVERY_S:
                has_synced = await self.sync()
                synced_s = loop.time()

    async def count(self) -> bool:
        """Count the rows that wait; return whether SQL is to be asked about a reference."""
        if not self._rows:
            return False
        async with self._counting:
            rows, self._rows = self._rows, []
            known = set(self._windows.series)
            closed = await asyncio.to_thread(self._windows.add, rows)
            for version, count in closed.items():
                if count:
                    self._show(version, count)
            for version in known - set(self._windows.series):
                self._forget(version)
            return any(
                version not in known
                or (series.reference is not None and version not in self._stored)
                for version, series in self._windows.series.items()
            )

    def _show(self, version: Version, count: int) -> None:
        last = self._windows.series[version].last
        assert last is not None  # noqa: S101  # one was closed
        self._shown.show(version, last, count)
        for distance in last.distances:
            if distance.is_drift and self._throttle.passes(f"{version}{distance.kind}"):
                values = {"kind": distance.kind, "psi": round(distance.psi, 3), "rows": last.rows}
                log.warning("drift_found", extra={**version._asdict(), **values})

    def _forget(self, version: Version) -> None:
        self._shown.hide(version)
        self._stored.discard(version)

    async def sync(self) -> bool:
        """Adopt references that SQL has, store those that it lacks, hide windows that are old.

        Returns: whether SQL answered; until it does, references are in memory alone.

        """
        async with self._counting:
            for version, series in self._windows.series.items():
                if self._now() - series.seen_at > SHOWN_FOR:
                    self._shown.hide(version)
            if self._database is None or not self._windows.series:
                return True
            try:
                await self._sync(self._database)
            except Refused as failure:
                self._metrics.drift_store_failures.inc()
                if self._throttle.passes():
                    log.warning("drift_store_failed", extra={"error": type(failure).__name__})
                return False
            return True

    async def _sync(self, database: Database) -> None:
        series = self._windows.series
        unstored = {
            version: one.reference
            for version, one in series.items()
            if one.reference is not None and version not in self._stored
        }
        if unstored:
            await database.run(partial(_keep, references=unstored))
        times = await database.read(_times)
        changed = [
            version
            for version in series
            if version in times and times[version] != _taken_at(series[version])
        ]
        found = await database.read(partial(_read, versions=changed)) if changed else {}
        for version, reference in found.items():
            series[version].adopt(reference)
            self._shown.hide(version)
        for version in self._stored & series.keys() - times.keys():
            self._restart(version)
        stored = {v for v, one in series.items() if v in times and times[v] == _taken_at(one)}
        self._stored = stored | set(found)

    def _restart(self, version: Version) -> None:
        self._windows.series[version].restart()
        self._forget(version)

    async def restart(self, model: str) -> None:
        """Take the references of all versions of a model anew, of the rows that come now.

        Other processes do so too, once they have noticed.

        Raises:
            DatabaseUnavailableError: it doesn't answer; nothing has changed.

        """
        async with self._counting:
            if self._database is not None:
                await self._database.run(partial(_forget, model=model))
            for version in self._windows.series:
                if version.model == model:
                    self._restart(version)

    async def report(self) -> dict[Version, Series]:
        """Return the series of all versions; they may be read until the next `await`."""
        async with self._counting:
            return dict(self._windows.series)


def _taken_at(series: Series) -> datetime | None:
    return None if series.reference is None else series.reference.taken_at


def _keep(session: Session, *, references: dict[Version, Reference]) -> None:
    repository = ReferenceRepository(session)
    for version, reference in references.items():
        repository.keep(version, reference)


def _times(session: Session) -> dict[Version, datetime]:
    return ReferenceRepository(session).times()


def _read(session: Session, *, versions: Sequence[Version]) -> dict[Version, Reference]:
    return ReferenceRepository(session).read(versions)


def _forget(session: Session, *, model: str) -> None:
    ReferenceRepository(session).forget(model)
