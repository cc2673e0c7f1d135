"""Files and their chunks, within one transaction."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Table,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session

from app.db.clock import now
from app.features.openai_batches.tables import BatchRow, FileChunkRow, FileRow
from app.features.openai_batches.values import Purpose, StoredFile

FILES: Table = FileRow.__table__  # type: ignore[assignment]  # declared as the wider FromClause
CHUNKS: Table = FileChunkRow.__table__  # type: ignore[assignment]  # as above
BATCHES: Table = BatchRow.__table__  # type: ignore[assignment]  # as above
# Of a file; an upload has only such, but for the last. Far from what a row may have, and so much
# that a hundred megabytes are some hundred rows.
CHUNK_BYTES = 262_144
ID_BYTES = 18  # 24 characters, too many to guess


class FileRepository:
    """The files, within one transaction. Times are those of the database's clock."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, *, file_id: str, collection: int, purpose: Purpose, filename: str) -> StoredFile:
        """Store a file without content, which can't be read yet."""
        values = {
            "id": file_id,
            "collection": collection,
            "purpose": purpose,
            "filename": filename,
            "size": 0,
            "chunks": 0,
            "is_complete": False,
            "created_at": now(self._session),
        }
        added = insert(FILES).values(values).returning(FILES)
        return as_file(self._session.execute(added).mappings().one())

    def append(self, key: int, content: bytes) -> bool:
        """Store more of a file, in chunks; False when it was deleted meanwhile."""
        file = self._locked(key)
        if file is None:
            return False
        pieces = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]
        rows = [
            {"file_key": key, "ordinal": file.chunks + n, "content": piece}
            for n, piece in enumerate(pieces)
        ]
        if rows:
            self._session.execute(insert(CHUNKS), rows)
        size, chunks = file.size + len(content), file.chunks + len(rows)
        self._session.execute(_change(key).values(size=size, chunks=chunks))
        return True

    def complete(
        self,
        key: int,
        *,
        filename: str | None = None,
        expires_s: int | None,
        created_at: datetime | None = None,
    ) -> StoredFile | None:
        """Let a file be read from now on; None when it was deleted meanwhile.

        Args:
            key: of the file.
            filename: as its client calls it; None: as it was added.
            expires_s: after how many seconds from its creation it is deleted; None: never.
            created_at: when it counts as created; None: when it was added.

        """
        file = self._locked(key)
        if file is None:
            return None
        created_at = created_at or file.created_at
        values: dict[str, Any] = {"is_complete": True, "created_at": created_at}
        if filename is not None:
            values["filename"] = filename
        if expires_s is not None:
            values["expires_at"] = created_at + timedelta(seconds=expires_s)
        changed = _change(key).values(values).returning(FILES)
        return as_file(self._session.execute(changed).mappings().one())

    def by_id(self, file_id: str, *, collection: int | None) -> StoredFile | None:
        """Return a file that can be read, of a collection, or of any when that is None."""
        found = select(FILES).where(FILES.c.id == file_id, self._readable(), _of(collection))
        row = self._session.execute(found).mappings().one_or_none()
        return as_file(row) if row else None

    def page(
        self,
        *,
        collection: int | None,
        purpose: str | None,
        after: StoredFile | None,
        is_ascending: bool,
        limit: int,
    ) -> list[StoredFile]:
        """Return files in the order in which they were made, or the other way round."""
        order = FILES.c.key if is_ascending else FILES.c.key.desc()
        page = select(FILES).where(self._readable(), _of(collection)).order_by(order).limit(limit)
        if purpose is not None:
            page = page.where(FILES.c.purpose == purpose)
        if after is not None:
            is_behind = FILES.c.key > after.key if is_ascending else FILES.c.key < after.key
            page = page.where(is_behind)
        return [as_file(row) for row in self._session.execute(page).mappings()]

    def usage(self, collection: int) -> tuple[int, int]:
        """Return how many files a collection has, uploads under way too, and their bytes."""
        counted = select(func.count(), func.coalesce(func.sum(FILES.c.size), 0))
        count, size = self._session.execute(counted.where(FILES.c.collection == collection)).one()
        return count, int(size)

    def chunks(self, key: int, *, first: int, limit: int) -> list[bytes]:
        """Return chunks in order, from a number on; none when the file was deleted."""
        some = (
            select(CHUNKS.c.content)
            .where(CHUNKS.c.file_key == key, CHUNKS.c.ordinal >= first)
            .order_by(CHUNKS.c.ordinal)
            .limit(limit)
        )
        return [bytes(content) for content in self._session.scalars(some)]

    def is_in_use(self, key: int) -> bool:
        """Say whether a batch that isn't finished reads a file."""
        reads = select(BATCHES.c.key).where(BATCHES.c.input_file_key == key, BATCHES.c.is_open)
        return bool(self._session.scalar(select(exists(reads))))

    def lock(self, key: int) -> bool:
        """Lock a file until the commit; False when there is none."""
        return self._locked(key) is not None

    def delete(self, keys: Sequence[int]) -> int:
        """Delete files with their chunks; return how many."""
        deletion = delete(FILES).where(FILES.c.key.in_(keys))
        return cast("CursorResult[Any]", self._session.execute(deletion)).rowcount

    def delete_expired(self, *, abandoned_s: float, limit: int) -> int:
        """Delete files whose time is over, and uploads that were given up; return how many."""
        moment = now(self._session)
        reads = select(BATCHES.c.key).where(
            BATCHES.c.is_open,
            or_(
                BATCHES.c.input_file_key == FILES.c.key,
                BATCHES.c.output_file_key == FILES.c.key,
                BATCHES.c.error_file_key == FILES.c.key,
            ),
        )
        is_given_up = FILES.c.is_complete.is_(False) & (
            FILES.c.created_at < moment - timedelta(seconds=abandoned_s)
        )
        old = or_(FILES.c.expires_at < moment, is_given_up) & ~exists(reads)
        keys = self._session.scalars(select(FILES.c.key).where(old).limit(limit)).all()
        return self.delete(keys) if keys else 0

    def _locked(self, key: int) -> StoredFile | None:
        locked = select(FILES).where(FILES.c.key == key).with_for_update()
        row = self._session.execute(locked).mappings().one_or_none()
        return as_file(row) if row else None

    def _readable(self) -> ColumnElement[bool]:
        is_current = or_(FILES.c.expires_at.is_(None), FILES.c.expires_at > now(self._session))
        return FILES.c.is_complete.is_(True) & is_current


def new_file_id() -> str:
    """Return an id as OpenAI's files have it."""
    return f"file-{secrets.token_urlsafe(ID_BYTES)}"


def as_file(row: Any) -> StoredFile:  # noqa: ANN401  # a mapping of columns
    """Return a row as a value; its keys are the columns' names in SQL."""
    values = {column.key: row[column.name] for column in FILES.columns}
    return StoredFile(**{**values, "purpose": Purpose(values["purpose"])})


def _change(key: int) -> Any:  # noqa: ANN401  # an Update, and with `returning` another type
    return update(FILES).where(FILES.c.key == key)


def _of(collection: int | None) -> ColumnElement[bool]:
    return true() if collection is None else FILES.c.collection == collection
