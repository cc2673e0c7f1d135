"""The documents of a job, within one transaction."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, Table, func, select, text, update
from sqlalchemy.orm import Session

from app.features.documents.tables import DocumentRow
from app.features.jobs.tables import JobItemRow
from app.features.jobs.values import Item, ItemOutcome, ItemState

TABLE: Table = JobItemRow.__table__  # type: ignore[assignment]  # declared as the wider FromClause
DOCUMENTS: Table = DocumentRow.__table__  # type: ignore[assignment]  # as above
# One parameter for any number of rows: a list of VALUES takes many times as long.
INSERT = {
    "sqlite": text(
        "INSERT INTO job_items (job_key, ordinal, document_key, state)"
        " SELECT :job_key, key, value, 0 FROM json_each(:keys)"
    ),
    "postgresql": text(
        "INSERT INTO job_items (job_key, ordinal, document_key, state)"
        " SELECT :job_key, number - 1, value::bigint, 0"
        " FROM json_array_elements_text(:keys) WITH ORDINALITY AS listed (value, number)"
    ),
}
# SQLite takes 32,766 variables in a statement, PostgreSQL's planner is slow long before that.
MARKED_AT_ONCE = 1_000
MAX_ERRORS = 100
MAX_ERROR_CHARS = 500


class JobItems:
    """The documents of jobs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._insert = INSERT[session.get_bind().dialect.name]

    def add(self, job_key: int, document_keys: Sequence[int]) -> None:
        """Store the documents of a new job, in their order."""
        keys = {"job_key": job_key, "keys": json.dumps(list(document_keys))}
        self._session.execute(self._insert, keys)

    def waiting(self, job_key: int, *, after: int, limit: int) -> list[Item]:
        """Return documents that wait and come after an ordinal, in order."""
        waiting = (
            select(TABLE.c.ordinal, TABLE.c.document_key)
            .where(
                TABLE.c.job_key == job_key,
                TABLE.c.state == ItemState.WAITING,
                TABLE.c.ordinal > after,
            )
            .order_by(TABLE.c.ordinal)
            .limit(limit)
        )
        return [Item(row.ordinal, row.document_key) for row in self._session.execute(waiting)]

    def mark(self, job_key: int, outcomes: Sequence[ItemOutcome]) -> Counter[ItemState]:
        """Store the outcomes of waiting documents; return how many were stored, by state."""
        alike: dict[tuple[ItemState, str | None], list[int]] = defaultdict(list)
        for outcome in outcomes:
            error = outcome.error and storable(outcome.error)
            alike[outcome.state, error].append(outcome.ordinal)
        changed: Counter[ItemState] = Counter()
        for (state, error), ordinals in alike.items():
            for start in range(0, len(ordinals), MARKED_AT_ONCE):
                some = ordinals[start : start + MARKED_AT_ONCE]
                changed[state] += self._set(job_key, some, state=int(state), error=error)
        return changed

    def wait_again(self, job_key: int) -> None:
        """Queue failed documents again."""
        failed = (TABLE.c.job_key == job_key) & (TABLE.c.state == ItemState.FAILED)
        self._session.execute(
            update(TABLE).where(failed).values(state=int(ItemState.WAITING), error=None)
        )

    def result(self, job_key: int) -> dict[str, Any]:
        """Return a job's result: how many documents of each state, and the first that failed."""
        counted = (
            select(TABLE.c.state, func.count().label("documents"))
            .where(TABLE.c.job_key == job_key)
            .group_by(TABLE.c.state)
        )
        counts = {row.state: row.documents for row in self._session.execute(counted)}
        failed = (
            select(DOCUMENTS.c.id, TABLE.c.error)
            .join(DOCUMENTS, DOCUMENTS.c.key == TABLE.c.document_key)
            .where(TABLE.c.job_key == job_key, TABLE.c.state == ItemState.FAILED)
            .order_by(TABLE.c.ordinal)
            .limit(MAX_ERRORS)
        )
        return {
            "embedded": counts.get(ItemState.DONE, 0),
            "skipped": counts.get(ItemState.SKIPPED, 0),
            "failed": counts.get(ItemState.FAILED, 0),
            "errors": [{"id": i, "error": error} for i, error in self._session.execute(failed)],
        }

    def _set(self, job_key: int, ordinals: Sequence[int], **values: object) -> int:
        waiting = (TABLE.c.job_key == job_key) & (TABLE.c.state == ItemState.WAITING)
        chosen = update(TABLE).where(waiting, TABLE.c.ordinal.in_(ordinals)).values(values)
        return cast("CursorResult[Any]", self._session.execute(chosen)).rowcount


def storable(error: str) -> str:
    """Return an exception's text as every database can store it."""
    return error[:MAX_ERROR_CHARS].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
