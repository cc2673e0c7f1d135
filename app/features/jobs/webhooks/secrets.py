"""Secrets that the service generates, within one transaction."""

from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.features.jobs.tables import SecretRow

TABLE: Table = SecretRow.__table__  # type: ignore[assignment]  # declared as the wider FromClause


class SecretRepository:
    """The secrets that all processes share."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, name: str) -> str | None:
        """Return a secret; None when none was stored."""
        return self._session.scalar(select(TABLE.c.value).where(TABLE.c.name == name))

    def keep(self, name: str, value: str) -> str:
        """Store a secret unless there is one; return the stored one.

        Processes that do this at once all get the same: the others wait for the commit of the
        first, and then read its value.
        """
        dialect = self._session.get_bind().dialect.name
        add = (sqlite if dialect == "sqlite" else postgresql).insert(TABLE)
        self._session.execute(add.values(name=name, value=value).on_conflict_do_nothing())
        stored: str = self._session.scalars(select(TABLE.c.value).where(TABLE.c.name == name)).one()
        return stored
