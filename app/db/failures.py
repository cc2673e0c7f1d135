"""Which failures mean that the database is unavailable, and what may be said about the others."""

from typing import Literal

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

Reason = Literal[
    "unreachable",
    "timeout",
    "full",
    "refused",
    "disk_full",
    "damaged",
    "schema",
    "newer",
    "closed",
]

# PostgreSQL's SQLSTATE, by its beginning; https://www.postgresql.org/docs/18/errcodes-appendix.html
SQLSTATES: tuple[tuple[str, Reason], ...] = (
    ("57014", "timeout"),  # statement_timeout
    ("55P03", "timeout"),  # lock_timeout
    ("40", "timeout"),  # deadlocks and the like: another transaction was in the way
    ("57P", "unreachable"),  # shutting down, starting up
    ("08", "unreachable"),
    ("53100", "disk_full"),
    ("53", "refused"),  # too many connections, out of memory
    ("58", "refused"),  # its disk fails
    ("XX001", "damaged"),  # a table
    ("XX002", "damaged"),  # an index
    ("25006", "refused"),  # read-only: a standby
    ("28", "refused"),  # wrong user or password
    ("3D000", "refused"),  # no such database
    ("42501", "refused"),  # no right to do this
    ("42P01", "schema"),  # no such table
    ("42703", "schema"),  # no such column
)
# SQLite's result codes, without their extensions; https://www.sqlite.org/rescode.html
SQLITE_CODES: dict[int, Reason] = {
    5: "timeout",  # busy
    6: "timeout",  # locked
    9: "timeout",  # interrupted
    3: "refused",  # no right to open it
    8: "refused",  # read-only
    10: "refused",  # the disk fails
    13: "disk_full",
    14: "refused",  # can't open the file
    11: "damaged",
    26: "refused",  # the file is no database
}


class StatementError(Exception):
    """The database refused a statement: a mistake of ours. It has the code, and no values."""


class ConflictError(StatementError):
    """The statement would break a constraint, such as a value that must be unique."""


def unavailable_reason(failure: SQLAlchemyError) -> Reason | None:
    """Return why the database can't do its work now; None for a mistake in the statement."""
    if not isinstance(failure, DBAPIError):
        # The pool's own timeout, among others.
        return "timeout" if "QueuePool limit" in str(failure) else None
    state = getattr(failure.orig, "pgcode", None)
    if state:
        return next((reason for start, reason in SQLSTATES if state.startswith(start)), None)
    code = getattr(failure.orig, "sqlite_errorcode", None)
    if code is not None:
        if "no such table" in str(failure.orig) or "no such column" in str(failure.orig):
            return "schema"
        return SQLITE_CODES.get(code & 0xFF)
    is_gone = failure.connection_invalidated or isinstance(failure, OperationalError)
    return "unreachable" if is_gone else None


def refused(failure: SQLAlchemyError) -> StatementError:
    """Return what is raised instead of SQLAlchemy's error, whose text repeats values.

    PostgreSQL's own messages quote the statement, with the values in it.
    """
    kind = ConflictError if isinstance(failure, IntegrityError) else StatementError
    return kind(describe(failure)).with_traceback(failure.__traceback__)


def describe(failure: SQLAlchemyError) -> str:
    """Return what the log may hold: the kind of error and its code, no address, no values."""
    orig = getattr(failure, "orig", None)
    code = getattr(orig, "pgcode", None) or getattr(orig, "sqlite_errorname", None)
    constraint = getattr(getattr(orig, "diag", None), "constraint_name", None)
    return " ".join(part for part in (type(orig or failure).__name__, code, constraint) if part)
