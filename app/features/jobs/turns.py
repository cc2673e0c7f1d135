"""Whose turn it is, of collections whose work waits: one's many jobs don't hold up another's."""

from sqlalchemy import ColumnElement, Table, func, select
from sqlalchemy.orm import Session


def lock_next(session: Session, table: Table, is_due: ColumnElement[bool]) -> int | None:
    """Lock the row whose turn it is, and return its key; None when there is none.

    It is the one that has waited longest in the collection that was served longest ago.

    Args:
        session: of the transaction.
        table: with `key`, `collection`, `due_at` and `claimed_at`.
        is_due: of its rows; one index should serve it, with the collection.

    """
    waiting = select(table.c.collection).where(is_due).distinct().subquery()
    others = table.alias()
    served = select(func.max(others.c.claimed_at)).where(
        others.c.collection == waiting.c.collection
    )
    turns = select(waiting.c.collection).order_by(served.scalar_subquery().nulls_first())
    for collection in session.scalars(turns).all():
        mine = select(table.c.key).where(is_due, table.c.collection == collection)
        first = mine.order_by(table.c.due_at, table.c.key).limit(1)
        key: int | None = session.scalar(first.with_for_update(skip_locked=True))
        if key is not None:
            return key
    return None
