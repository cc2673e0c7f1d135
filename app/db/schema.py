"""Bringing the tables up to date: Alembic, without its command line or its file of settings."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util.exc import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.db.failures import describe, unavailable_reason
from app.db.session import Database
from app.errors import DatabaseUnavailableError, SchemaError

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
NEWEST = "head"
EMPTY = "base"


def upgrade(database: Database, revision: str = NEWEST) -> None:
    """Apply the migrations that are missing; blocks. Processes that do it at once take turns.

    Raises:
        DatabaseUnavailableError: it is down, or can't be written.
        SchemaError: a migration failed, or the database is newer than this program; nothing has
            been changed.

    """
    _migrate(database, revision, is_upgrade=True)


def downgrade(database: Database, revision: str) -> None:
    """Take migrations back, down to a revision; as `upgrade`. What they stored is lost."""
    _migrate(database, revision, is_upgrade=False)


def config(connection: Connection | None = None) -> Config:
    """Return Alembic's settings for our migrations."""
    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    settings.attributes["connection"] = connection
    return settings


def _migrate(database: Database, revision: str, *, is_upgrade: bool) -> None:
    move = command.upgrade if is_upgrade else command.downgrade
    try:
        with database.alone() as connection:
            before = MigrationContext.configure(connection).get_current_revision()
            move(config(connection), revision)
            after = MigrationContext.configure(connection).get_current_revision()
    except CommandError as failure:
        raise SchemaError(f"the database can't be migrated: {failure}") from None
    except SQLAlchemyError as failure:
        reason = unavailable_reason(failure)
        if reason is not None and reason != "schema":
            raise DatabaseUnavailableError(reason) from None
        raise SchemaError(f"a migration failed: {describe(failure)}") from failure
    if before != after:
        log.info("database_migrated", extra={"from": before, "to": after})
