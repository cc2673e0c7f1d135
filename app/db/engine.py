"""How a DATABASE_URL becomes an engine: drivers, timeouts and SQLite's settings."""

import math
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from app.errors import SettingsError

POSTGRES_DRIVER = "postgresql+psycopg2"
POSTGRES_NAMES = ("postgres", "postgresql", POSTGRES_DRIVER)
# Load balancers and NAT gateways forget idle connections after some minutes; a host that vanished
# is noticed after half a minute.
KEEPALIVES = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
WAL_RETRY_S = 0.005  # a switch takes one write to the disk
# Of a transaction, as `execution_options`. None: as the server says. Without it SQLAlchemy leaves
# "read-write" behind after a read, which a server that its operator, or a full disk, has made
# read-only by default would obey.
WRITE: dict[str, Any] = {"postgresql_readonly": None}
READ = {"read_only": True, "postgresql_readonly": True}
NOT_UNDERSTOOD = (
    "DATABASE_URL: not understood; give postgresql://user:password@host/name or sqlite:///path"
)


def parse_url(url: str) -> URL:
    """Return the URL with the driver that is used; SQLite's path is made absolute.

    Raises:
        SettingsError: without the URL in it, which may hold a password.

    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError(NOT_UNDERSTOOD) from None
    if parsed.drivername in POSTGRES_NAMES:
        # SQLAlchemy 2.1 takes a bare postgresql:// for another driver than the one installed here.
        return parsed.set(drivername=POSTGRES_DRIVER)
    if parsed.drivername != "sqlite" or not parsed.database or ":memory:" in parsed.database:
        raise SettingsError(NOT_UNDERSTOOD)
    return parsed.set(database=str(Path(parsed.database).expanduser().absolute()))


def make_engine(url: URL, *, timeout_s: float, pool_size: int) -> Engine:
    """Make an engine whose waits are bounded: for a connection, a lock, a statement.

    Args:
        url: from `parse_url`.
        timeout_s: bound of each wait.
        pool_size: connections that are kept; 0 keeps none.

    """
    pool: dict[str, Any] = {"poolclass": NullPool}
    if pool_size:
        # Calls beyond that number wait for a thread first.
        pool = {
            "poolclass": QueuePool,
            "pool_size": pool_size,
            "max_overflow": 0,
            "pool_timeout": timeout_s,
            "pool_use_lifo": True,
        }
    # hide_parameters: an exception with its parameters would carry inputs and hashes into logs.
    options: dict[str, Any] = {**pool, "hide_parameters": True}
    if url.drivername == POSTGRES_DRIVER:
        return _postgres(url, timeout_s, options)
    return _sqlite(url, timeout_s, options)


def _postgres(url: URL, timeout_s: float, options: dict[str, Any]) -> Engine:
    waits = {"connect_timeout": max(1, math.ceil(timeout_s)), "application_name": "ml-api"}
    # Settings in the URL itself take precedence.
    connect_args = {k: v for k, v in (waits | KEEPALIVES).items() if k not in url.query}
    engine = create_engine(url, connect_args=connect_args, **options)
    timeout_ms = int(timeout_s * 1000)
    set_timeouts = (
        f"SET statement_timeout = {timeout_ms}; SET lock_timeout = {timeout_ms}; "
        # A transaction whose process hangs would hold its locks for ever.
        f"SET idle_in_transaction_session_timeout = {max(timeout_ms * 10, 60_000)}"
    )

    # As statements, not as start-up options: RDS Proxy and PgBouncer refuse those.
    @event.listens_for(engine, "connect")
    def bound_waits(connection: Any, _: Any) -> None:  # noqa: ANN401 -- of the driver
        cursor = connection.cursor()
        cursor.execute(set_timeouts)
        cursor.close()
        connection.commit()

    return engine


def _sqlite(url: URL, timeout_s: float, options: dict[str, Any]) -> Engine:
    engine = create_engine(
        url,
        # A watcher interrupts a slow statement from another thread.
        connect_args={"timeout": timeout_s, "check_same_thread": False},
        **options,
    )

    @event.listens_for(engine, "do_connect")
    def make_file(*_: Any) -> None:  # noqa: ANN401 -- as SQLAlchemy hands them over
        path = Path(url.database or "")
        # If that fails, opening the file fails too, and reports why.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # It holds hashes of keys, and a secret; the files beside it are made as it is.
            path.touch(0o600)

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, _: Any) -> None:  # noqa: ANN401
        # The driver's own BEGIN comes too late to hold off other writers; see begin().
        connection.isolation_level = None
        _use_wal(connection, timeout_s=timeout_s)
        connection.execute("PRAGMA foreign_keys=ON")
        # With WAL, a crash of the process loses nothing; one of the machine the last commits.
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        # A transaction that reads first and writes then could only fail when another one wrote
        # between; one that says at once that it will write waits for its turn.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _use_wal(connection: sqlite3.Connection, *, timeout_s: float) -> None:
    """Switch to WAL, where readers and a writer don't block each other; the file remembers it.

    Switching needs the file alone, and SQLite doesn't wait for that: when several processes open a
    new file at once, one of them switches and the others see so a moment later.
    """
    until = time.monotonic() + timeout_s
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as failure:
            is_busy = failure.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > until:
                raise
            time.sleep(WAL_RETRY_S)
        else:
            return
