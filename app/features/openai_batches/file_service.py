"""Files as their owners see them: uploaded piece by piece, read, deleted."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from app.db.session import Database
from app.errors import FileInUseError, FileQuotaError, UploadedFileNotFoundError
from app.features.documents.collections import CollectionScope
from app.features.openai_batches.files import FileRepository, new_file_id
from app.features.openai_batches.values import Purpose, StoredFile

log = logging.getLogger(__name__)

MB = 1_000_000
READ_AT_ONCE = 4  # chunks of one transaction: a megabyte
# Of a megabyte, on a slow disk.
STORE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBounds:
    """What one caller's files may be.

    Args:
        count: of all files.
        total_bytes: of all files.
        lifetime_s: of a file that doesn't say it; None: for ever.

    """

    count: int
    total_bytes: int
    lifetime_s: int | None


class FileService:
    """Stores, reads and deletes files.

    Args:
        database: where they are.
        bounds: of what one caller has.

    """

    def __init__(self, database: Database, *, bounds: FileBounds) -> None:
        self._database = database
        self._bounds = bounds

    async def begin(self, *, scope: CollectionScope) -> StoredFile:
        """Begin an upload.

        Raises:
            FileQuotaError: the caller has too many files, or too many bytes in them.

        """
        return await self._database.run(partial(_begin, scope=scope, bounds=self._bounds))

    async def append(self, file: StoredFile, content: bytes) -> None:
        """Store a part of an upload.

        Raises:
            FileQuotaError: the caller has too many bytes in files now.
            UploadedFileNotFoundError: it took so long that it was deleted.

        """
        work = partial(_append, file=file, content=content, bounds=self._bounds)
        await self._database.run(work, timeout_s=STORE_TIMEOUT_S)

    async def complete(
        self, file: StoredFile, *, filename: str, expires_s: int | None
    ) -> StoredFile:
        """End an upload; the file can be read from now on.

        Raises:
            UploadedFileNotFoundError: it took so long that it was deleted.

        """
        complete = partial(
            _complete,
            file=file,
            filename=filename,
            expires_s=expires_s or self._bounds.lifetime_s,
        )
        stored = await self._database.run(complete)
        log.info("file_stored", extra={"file": stored.id, "bytes": stored.size})
        return stored

    async def discard(self, file: StoredFile) -> None:
        """Delete an upload that failed."""
        await self._database.run(
            lambda session: FileRepository(session).delete([file.key]), timeout_s=STORE_TIMEOUT_S
        )

    async def get(self, file_id: str, *, scope: CollectionScope) -> StoredFile:
        """Return a file.

        Raises:
            UploadedFileNotFoundError: there is none with this id that the caller may see.

        """
        return await self._database.read(partial(_find, file_id=file_id, scope=scope))

    async def page(
        self,
        *,
        scope: CollectionScope,
        purpose: str | None,
        after: str | None,
        is_ascending: bool,
        limit: int,
    ) -> tuple[list[StoredFile], bool]:
        """Return files in order, and whether more follow.

        Raises:
            UploadedFileNotFoundError: there is no such file to begin after.

        """

        def read(session: Session) -> list[StoredFile]:
            last = None if after is None else _find(session, file_id=after, scope=scope)
            return FileRepository(session).page(
                collection=scope.seen,
                purpose=purpose,
                after=last,
                is_ascending=is_ascending,
                limit=limit + 1,
            )

        files = await self._database.read(read)
        return files[:limit], len(files) > limit

    async def delete(self, file_id: str, *, scope: CollectionScope) -> None:
        """Delete a file.

        Raises:
            UploadedFileNotFoundError: as `get`.
            FileInUseError: a batch that isn't finished reads it.

        """
        delete = partial(_delete, file_id=file_id, scope=scope)
        await self._database.run(delete, timeout_s=STORE_TIMEOUT_S)
        log.info("file_deleted", extra={"file": file_id})

    async def chunks(self, key: int, *, first: int = 0) -> AsyncIterator[bytes]:
        """Yield a file's content in parts, a megabyte in memory at once.

        It ends early where the file is deleted meanwhile.
        """
        while True:
            some = await self._database.read(
                partial(_chunks, key=key, first=first), timeout_s=STORE_TIMEOUT_S
            )
            for chunk in some:
                yield chunk
            first += len(some)
            if len(some) < READ_AT_ONCE:
                return


def check_quota(usage: tuple[int, int], bounds: FileBounds) -> None:
    """Check a caller's files.

    Args:
        usage: how many there are, and their bytes.
        bounds: how many there may be.

    Raises:
        FileQuotaError: there are as many as may be, or more.

    """
    count, size = usage
    if count >= bounds.count:
        raise FileQuotaError(f"You have {count} files, as many as one may have; delete some.")
    if size >= bounds.total_bytes:
        raise FileQuotaError(
            f"Your files have {size} bytes of the {bounds.total_bytes} that one may have;"
            " delete some."
        )


def _begin(session: Session, *, scope: CollectionScope, bounds: FileBounds) -> StoredFile:
    files = FileRepository(session)
    check_quota(files.usage(scope.collection), bounds)
    return files.add(
        file_id=new_file_id(), collection=scope.collection, purpose=Purpose.BATCH, filename=""
    )


def _append(session: Session, *, file: StoredFile, content: bytes, bounds: FileBounds) -> None:
    files = FileRepository(session)
    if not files.append(file.key, content):
        raise UploadedFileNotFoundError
    _, size = files.usage(file.collection)
    check_quota((0, size - 1), bounds)  # as many as may be are all right now


def _complete(
    session: Session, *, file: StoredFile, filename: str, expires_s: int | None
) -> StoredFile:
    stored = FileRepository(session).complete(file.key, filename=filename, expires_s=expires_s)
    if stored is None:
        raise UploadedFileNotFoundError
    return stored


def _find(session: Session, *, file_id: str, scope: CollectionScope) -> StoredFile:
    file = FileRepository(session).by_id(file_id, collection=scope.seen)
    if file is None:
        raise UploadedFileNotFoundError
    return file


def _delete(session: Session, *, file_id: str, scope: CollectionScope) -> None:
    files = FileRepository(session)
    file = _find(session, file_id=file_id, scope=scope)
    files.lock(file.key)  # no batch begins to read it now
    if files.is_in_use(file.key):
        raise FileInUseError
    files.delete([file.key])


def _chunks(session: Session, *, key: int, first: int) -> list[bytes]:
    return FileRepository(session).chunks(key, first=first, limit=READ_AT_ONCE)
