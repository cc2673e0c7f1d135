"""Whether this program may work with the tables that it finds.

Every migration declares `oldest_program`: the oldest program, by the newest revision that it knows,
that can still work with the tables once the migration is applied. `app.db.schema` keeps that in the
table `schema_support`, where a program can read it that knows nothing of the migration itself.
"""

import math
import time
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import DBAPIError

from app.db.availability import Availability
from app.db.engine import READ
from app.db.failures import unavailable_reason
from app.db.tables import SCHEMA_REVISION
from app.errors import DatabaseUnavailableError

REVISION = text("SELECT max(version_num) FROM alembic_version")
# How long a check of the tables counts; another program may migrate them meanwhile.
SUPPORT_S = 5.0
SUPPORT = text("SELECT max(revision), max(oldest_program) FROM schema_support")


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """The migration that a database is at, and the programs that it serves.

    Args:
        revision: the migration that it is at; None when it is empty.
        oldest: the oldest program that its tables can serve; None: it doesn't say.
        is_shared: whether programs of several versions may use it at once, as in a rolling deploy.

    """

    revision: str | None
    oldest: str | None = None
    is_shared: bool

    def refusal(self, program: str = SCHEMA_REVISION) -> str | None:
        """Return why a program that knows revisions up to `program` must not use it, or None."""
        if self.revision is None or self.revision <= program:
            return None
        state = f"the database is at revision {self.revision}, newer than this program's {program}"
        if not self.is_shared:
            return f"{state}: start the newer program, or put back the file from before its start"
        if self.oldest is None:
            return f"{state}, and doesn't say which older programs it serves: start the newer one"
        if program < self.oldest:
            return f"{state}, and serves programs from {self.oldest} on: start one of those"
        return None


def read_support(connection: Connection) -> Support:
    """Read it from the database; the connection's transaction can't be used afterwards.

    Raises:
        DBAPIError: it doesn't answer.

    """
    is_shared = connection.dialect.name == "postgresql"
    revision = _first_row(connection, REVISION)[0]
    if revision is None or revision <= SCHEMA_REVISION:
        return Support(revision=revision, is_shared=is_shared)
    declared, oldest = _first_row(connection, SUPPORT)
    # What was declared for older tables says nothing of these.
    valid_oldest = oldest if declared is not None and declared >= revision else None
    return Support(revision=revision, oldest=valid_oldest, is_shared=is_shared)


def _first_row(connection: Connection, statement: TextClause) -> tuple[str | None, ...]:
    try:
        return tuple(connection.execute(statement).one())
    except DBAPIError as failure:
        if unavailable_reason(failure) == "schema":
            return (None, None)  # there is no such table
        raise


class SupportCheck:
    """Refuses tables of a newer program, also of one that migrates them while this one runs.

    Args:
        engine: of the database.
        availability: is told of a refusal.

    """

    def __init__(self, engine: Engine, availability: Availability) -> None:
        self._engine = engine
        self._availability = availability
        self._until_s = -math.inf
        self.refusal = ""  # why this program must not use the tables

    def forget(self) -> None:
        """Read the tables' revision again at the next `require`."""
        self._until_s = -math.inf

    def require(self) -> None:
        """Check that the tables may be used.

        Raises:
            DatabaseUnavailableError: they are of a newer program, which doesn't serve this one.
            DBAPIError: the database doesn't answer.

        """
        if time.monotonic() < self._until_s:
            return
        with self._engine.connect() as connection:
            support = read_support(connection.execution_options(**READ))
        self.refusal = support.refusal() or ""
        if self.refusal:
            self._availability.failed("newer", self.refusal, is_read=False)
            raise DatabaseUnavailableError("newer")
        self._until_s = time.monotonic() + SUPPORT_S
