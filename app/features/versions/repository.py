"""Which version of each model serves, as it is stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import CursorResult, Table, insert, select, update
from sqlalchemy.orm import Session

from app.features.versions.tables import ModelStateRow

TABLE: Table = ModelStateRow.__table__  # type: ignore[assignment]  # declared as the wider FromClause


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """What was decided of a model.

    Args:
        model: its name.
        entry_hash: of the catalogue's entry for which it was decided.
        serving: the version that serves.
        previous: the one that served before it.
        weights: of the versions.
        revision: how many decisions there were.

    """

    model: str
    entry_hash: str
    serving: str
    previous: str | None
    weights: Mapping[str, float]
    revision: int


class StateRepository:
    """The states, within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def all(self) -> dict[str, StoredState]:
        """Return all states, by the models' names."""
        rows = self._session.execute(select(TABLE)).mappings()
        states = [
            StoredState(**{name: value for name, value in row.items() if name != "changed_at"})
            for row in rows
        ]
        return {state.model: state for state in states}

    def put(self, state: StoredState) -> bool:
        """Store a decision that follows on `revision - 1`; False if another one came before it.

        Raises:
            ConflictError: by `Database.run`; another one came before the very first.

        """
        values = {
            "model": state.model,
            "entry_hash": state.entry_hash,
            "serving": state.serving,
            "previous": state.previous,
            "weights": dict(state.weights),
            "revision": state.revision,
            "changed_at": datetime.now(UTC),
        }
        if state.revision == 1:
            self._session.execute(insert(TABLE).values(values))
            return True
        statement = (
            update(TABLE)
            .where(TABLE.c.model == state.model, TABLE.c.revision == state.revision - 1)
            .values(values)
        )
        return cast("CursorResult[None]", self._session.execute(statement)).rowcount == 1
