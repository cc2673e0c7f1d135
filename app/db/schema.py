"""Bringing the tables up to date: Alembic, without its command line or its file of settings."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from app.db.failures import describe, unavailable_reason
from app.db.session import Database
from app.db.support import read_support
from app.db.tables import SCHEMA_REVISION, SchemaSupportRow
from app.errors import DatabaseUnavailableError, SchemaError, SchemaTooNewError

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
NEWEST = "head"
EMPTY = "base"
# The migration that made `schema_support`.
SUPPORT_SINCE = "0005"


def upgrade(database: Database, revision: str = NEWEST, *, migrations: Path = MIGRATIONS) -> None:
    """Apply the migrations that are missing; blocks. Processes that do it at once take turns.

    A database of a newer program that serves this one is left as it is.

    Args:
        database: whose tables they are.
        revision: up to which.
        migrations: the folder that they are in.

    Raises:
        DatabaseUnavailableError: it is down, or can't be written.
        SchemaTooNewError: it is of a newer program, which doesn't serve this one.
        SchemaError: a migration failed; nothing has been changed.

    """
    _migrate(database, revision, migrations, is_upgrade=True)


def downgrade(database: Database, revision: str, *, migrations: Path = MIGRATIONS) -> None:
    """Take migrations back, down to a revision; as `upgrade`. What they stored is lost."""
    _migrate(database, revision, migrations, is_upgrade=False)


def config(connection: Connection | None = None, *, migrations: Path = MIGRATIONS) -> Config:
    """Return Alembic's settings for our migrations."""
    settings = Config()
    settings.set_main_option("script_location", str(migrations).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    settings.attributes["connection"] = connection
    return settings


def _migrate(database: Database, revision: str, migrations: Path, *, is_upgrade: bool) -> None:
    move = command.upgrade if is_upgrade else command.downgrade
    try:
        with database.alone() as connection:
            before = MigrationContext.configure(connection).get_current_revision()
            is_usual = is_upgrade and revision == NEWEST and migrations == MIGRATIONS
            if is_usual and _is_current(connection, before):
                return  # as at most starts: reading all migrations would take longer than the rest
            settings = config(connection, migrations=migrations)
            scripts = ScriptDirectory.from_config(settings)
            if is_upgrade and _is_newer(connection, before, program=scripts.get_current_head()):
                return
            move(settings, revision)
            after = MigrationContext.configure(connection).get_current_revision()
            _declare(connection, scripts, after)
    except CommandError as failure:
        raise SchemaError(f"the database can't be migrated: {failure}") from None
    except SQLAlchemyError as failure:
        reason = unavailable_reason(failure)
        if reason is not None and reason != "schema":
            raise DatabaseUnavailableError(reason) from None
        raise SchemaError(f"a migration failed: {describe(failure)}") from failure
    if before != after:
        log.info("database_migrated", extra={"from": before, "to": after})


def _is_current(connection: Connection, revision: str | None) -> bool:
    """Return whether there is nothing to apply, and nothing to note either."""
    if revision != SCHEMA_REVISION:
        return False
    newest = connection.execute(select(func.max(SchemaSupportRow.revision))).scalar()
    return bool(newest == revision)


def _is_newer(connection: Connection, revision: str | None, *, program: str | None) -> bool:
    """Return whether the tables are of a newer program.

    Raises:
        SchemaTooNewError: they are, and don't serve this one.

    """
    if revision is None or program is None or revision <= program:
        return False
    if refusal := read_support(connection).refusal(program):
        raise SchemaTooNewError(refusal)
    log.info("database_newer", extra={"found": revision, "program": program})
    return True


def _declare(connection: Connection, scripts: ScriptDirectory, current: str | None) -> None:
    """Note of each migration that is applied which programs its tables can serve."""
    if current is None or current < SUPPORT_SINCE:
        return
    declared = [
        {"revision": script.revision, "oldest_program": script.module.oldest_program}
        for script in scripts.iterate_revisions(current, EMPTY)
    ]
    connection.execute(delete(SchemaSupportRow))
    connection.execute(insert(SchemaSupportRow), declared)
