"""Transactions: run off the event loop, committed here and nowhere else, each with a timeout."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.core.tracing import sampled
from app.db.availability import Availability
from app.db.call import Call
from app.db.engine import READ, WRITE, make_engine, parse_url
from app.db.failures import describe, refused, unavailable_reason
from app.db.support import REVISION, SupportCheck
from app.db.tables import SCHEMA_REVISION
from app.db.threads import CallThreads
from app.errors import DatabaseUnavailableError, SchemaTooNewError

if TYPE_CHECKING:
    from app.core.spans import Trace

T = TypeVar("T")
OK = "ok"
Work = Callable[[Session], T]
Observe = Callable[[str, float], None]

# A migration may rewrite a table, and wait for one that another process applies.
MIGRATION_TIMEOUT_S = 600.0
MIGRATION_LOCK = 6_013_705_492_417  # any number that no other user of the server locks
# One row, written over: the file doesn't grow.
WRITE_CHECK = text(
    "INSERT INTO write_check (id, checked_at) VALUES (1, CURRENT_TIMESTAMP)"
    " ON CONFLICT (id) DO UPDATE SET checked_at = CURRENT_TIMESTAMP"
)


def ignore(_outcome: str, _seconds: float) -> None:
    """Observe nothing."""


class Database:
    """The SQL database of the process: threads, connections, and the bounds of both.

    Work is a function that is given a session. It returns plain values, and may be called a second
    time in a fresh transaction, when a pooled connection turns out to be dead.

    Args:
        url: as in DATABASE_URL.
        pool_size: transactions at once, each on a thread and a connection of its own.
        timeout_s: bound of one call, its wait for a thread included.
        max_waiting: calls that may wait for a thread; more fail at once.
        observe: told of each call how it ended ("ok", "failed", "cancelled", or the reason of the
            error) and its seconds.

    Raises:
        SettingsError: the URL is not understood.

    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        timeout_s: float = 2.0,
        max_waiting: int = 500,
        observe: Observe = ignore,
    ) -> None:
        self._url = parse_url(url)
        self.dialect = "sqlite" if self._url.drivername == "sqlite" else "postgresql"
        self.timeout_s = timeout_s
        self._engine = make_engine(self._url, timeout_s=timeout_s, pool_size=pool_size)
        self._threads = CallThreads(pool_size, max_waiting=max_waiting)
        self._threads.watch(self._engine)
        self._observe = observe
        self._availability = Availability()
        self._support = SupportCheck(self._engine, self._availability)

    def __repr__(self) -> str:
        return f"Database({self.dialect})"  # a URL can hold a password in many places

    @property
    def is_answering(self) -> bool:
        """Whether the last call that ended was answered."""
        return self._availability.is_answering

    async def run(self, work: Work[T], *, timeout_s: float | None = None) -> T:
        """Run work in one transaction, and commit it.

        After a timeout the outcome is unknown: the commit may have succeeded.

        Args:
            work: the statements; returns plain values.
            timeout_s: bound of this call; default: the one of all.

        Raises:
            DatabaseUnavailableError: it is down, slow or full.
            ConflictError: a constraint would be broken.
            StatementError: it refused a statement for another reason.

        """
        return await self._submit(work, WRITE, timeout_s or self.timeout_s)

    async def read(self, work: Work[T], *, timeout_s: float | None = None) -> T:
        """Run work that writes nothing; with SQLite it waits for no writer. Else as `run`."""
        return await self._submit(work, READ, timeout_s or self.timeout_s)

    async def check(self, *, timeout_s: float | None = None) -> str | None:
        """Return what is wrong with the database, for /ready; None when nothing is. It writes.

        "unreachable", "timeout", "full", "refused" (read-only, wrong password and the like),
        "disk_full", "damaged", "schema" (migrations are to be applied), "newer" (they are a newer
        program's), "closed".
        """
        self._support.forget()
        try:
            is_current = await self.run(_write_row, timeout_s=timeout_s)
        except DatabaseUnavailableError as failure:
            return failure.reason
        return self._availability.problem() if is_current else "schema"

    async def require_support(self) -> None:
        """Check that this program may use the tables, before it does.

        Raises:
            SchemaTooNewError: it may not, and why.
            DatabaseUnavailableError: it doesn't answer.

        """
        self._support.forget()
        try:
            await self.read(lambda _: None)
        except DatabaseUnavailableError as failure:
            if failure.reason == "newer":
                raise SchemaTooNewError(self._support.refusal) from None
            raise

    async def close(self) -> None:
        """Let calls end, within the timeout, and close the connections."""
        await self._threads.close(timeout_s=self.timeout_s)
        self._engine.dispose()

    @contextmanager
    def transaction(self, options: dict[str, Any] | None = None) -> Iterator[Session]:
        """Open a session in this thread; it is committed after the block, rolled back on errors.

        For the caller's own threads; SQLAlchemy's errors are raised as they are.

        Raises:
            DatabaseUnavailableError: its tables are of a newer program, which doesn't serve this.

        """
        self._support.require()
        connection = self._engine.connect()
        with connection, Session(connection.execution_options(**(options or WRITE))) as session:
            yield session
            session.flush()
            if call := self._threads.current():
                call.is_committing = True
            session.commit()

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """Open a transaction that no other process's `alone` overlaps, for migrations.

        Its statements may take MIGRATION_TIMEOUT_S, and so may the wait for the other process.
        """
        engine = make_engine(self._url, timeout_s=MIGRATION_TIMEOUT_S, pool_size=0)
        try:
            with engine.begin() as connection:  # SQLite's BEGIN IMMEDIATE is the lock
                if self.dialect == "postgresql":
                    lock = text("SELECT pg_advisory_xact_lock(:key)")
                    connection.execute(lock, {"key": MIGRATION_LOCK})
                yield connection
        finally:
            engine.dispose()

    async def _submit(self, work: Work[T], options: dict[str, Any], timeout_s: float) -> T:
        started = time.monotonic()
        outcome = "failed"
        try:
            execute = partial(self._execute, work=work, options=options, timeout_s=timeout_s)
            result = await self._threads.run(execute, timeout_s=timeout_s)
            outcome = OK
        except DatabaseUnavailableError as failure:
            outcome = failure.reason
            if outcome == "timeout":
                self._availability.failed(outcome, "no answer", is_read=options is READ)
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            ended = time.monotonic()
            self._observe(outcome, ended - started)
            if (trace := sampled()) is not None:
                self._trace(trace, started, ended, outcome=outcome, is_read=options is READ)
        return result

    def _trace(
        self, trace: "Trace", start_s: float, end_s: float, *, outcome: str, is_read: bool
    ) -> None:
        """Add the span of a transaction: no statement, since those hold users' words."""
        operation = "read" if is_read else "write"
        attributes = {"db.system.name": self.dialect, "db.operation.name": operation}
        span = trace.child(f"sql {operation}", attributes, kind="client", start_s=start_s)
        if outcome != OK:
            span.fail(outcome)
        span.end(end_s)

    def _execute(self, call: Call, work: Work[T], options: dict[str, Any], timeout_s: float) -> T:
        """Run a call in this thread.

        Raises:
            DatabaseUnavailableError: without the driver's message, which names hosts and users.
            StatementError: without the values that the driver repeats.

        """
        try:
            result = self._attempt(call, work, options, timeout_s)
        except SQLAlchemyError as failure:
            reason = unavailable_reason(failure)
            if reason is None:
                raise refused(failure) from None
            self._availability.failed(reason, describe(failure), is_read=options is READ)
            raise DatabaseUnavailableError(reason) from None
        self._availability.answered(is_read=options is READ)
        return result

    def _attempt(self, call: Call, work: Work[T], options: dict[str, Any], timeout_s: float) -> T:
        """Run the transaction, and once more if its pooled connection was dead from the start."""
        try:
            return self._transact(work, options, timeout_s)
        except DBAPIError as failure:
            is_stale = failure.connection_invalidated and not call.is_connection_new
            if not is_stale or call.is_committing or call.is_aborted:
                raise
        return self._transact(work, options, timeout_s)

    def _transact(self, work: Work[T], options: dict[str, Any], timeout_s: float) -> T:
        with self.transaction(options) as session:
            if timeout_s > self.timeout_s and self.dialect == "postgresql":
                limit = {"ms": f"{timeout_s * 1000:.0f}"}
                session.execute(text("SELECT set_config('statement_timeout', :ms, true)"), limit)
            return work(session)


def _write_row(session: Session) -> bool:
    """Write, where the tables for it are there; return whether they are."""
    revision: str | None = session.scalar(REVISION)
    if revision is None or revision < SCHEMA_REVISION:
        return False
    session.execute(WRITE_CHECK)
    return True
