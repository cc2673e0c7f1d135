"""Batches as their owners see them: made, read, cancelled."""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from app.db.session import Database
from app.errors import (
    BatchNotFoundError,
    BatchStateError,
    TooManyBatchesError,
    UploadedFileNotFoundError,
)
from app.features.documents.collections import CollectionScope
from app.features.openai_batches.file_service import FileBounds, check_quota
from app.features.openai_batches.files import FileRepository
from app.features.openai_batches.repository import BatchRepository
from app.features.openai_batches.values import Batch, BatchStatus, NewBatch, Purpose

log = logging.getLogger(__name__)

ID_BYTES = 18  # 24 characters, too many to guess
WINDOWS_S = {"24h": 86_400}
TOO_MANY_RETRY_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """A request for a batch."""

    input_file_id: str
    endpoint: str
    completion_window: str
    meta: dict[str, str] | None
    output_expires_s: int | None
    request_id: str


class BatchService:
    """Makes, reads and cancels batches.

    Args:
        database: where they are.
        max_open: unfinished ones that a caller may have.
        bounds: of files, which a caller who has too many can't add answers to.
        notify: wakes what runs batches in this process.

    """

    def __init__(
        self,
        database: Database,
        *,
        max_open: int,
        bounds: FileBounds,
        notify: Callable[[], None],
    ) -> None:
        self._database = database
        self._max_open = max_open
        self._bounds = bounds
        self._notify = notify

    async def create(self, request: BatchRequest, *, scope: CollectionScope) -> Batch:
        """Store a batch, which is begun soon.

        Raises:
            UploadedFileNotFoundError: there is no such file that the caller may read.
            TooManyBatchesError: the caller has too many.
            FileQuotaError: the caller's files are too large for answers to be added.

        """
        work = partial(
            _create, request=request, scope=scope, max_open=self._max_open, bounds=self._bounds
        )
        batch = await self._database.run(work)
        log.info("batch_created", extra={"batch": batch.id, "endpoint": batch.endpoint})
        self._notify()
        return batch

    async def get(self, batch_id: str, *, scope: CollectionScope) -> Batch:
        """Return a batch.

        Raises:
            BatchNotFoundError: there is none with this id that the caller may see.

        """
        return await self._database.read(partial(_find, batch_id=batch_id, scope=scope))

    async def page(
        self, *, scope: CollectionScope, after: str | None, limit: int
    ) -> tuple[list[Batch], bool]:
        """Return batches, newest first, and whether more follow.

        Raises:
            BatchNotFoundError: there is no such batch to begin after.

        """
        batches = await self._database.read(partial(_page, scope=scope, after=after, limit=limit))
        return batches[:limit], len(batches) > limit

    async def cancel(self, batch_id: str, *, scope: CollectionScope) -> Batch:
        """Let no more lines of a batch be run; what is answered stays.

        Raises:
            BatchNotFoundError: as `get`.
            BatchStateError: it is finished.

        """
        batch = await self._database.run(partial(_cancel, batch_id=batch_id, scope=scope))
        log.info("batch_cancelled", extra={"batch": batch.id})
        self._notify()
        return batch


def _create(
    session: Session,
    *,
    request: BatchRequest,
    scope: CollectionScope,
    max_open: int,
    bounds: FileBounds,
) -> Batch:
    files, batches = FileRepository(session), BatchRepository(session)
    file = files.by_id(request.input_file_id, collection=scope.seen)
    # Locked: it can't be deleted before the batch that reads it is there.
    if file is None or file.purpose is not Purpose.BATCH or not files.lock(file.key):
        raise UploadedFileNotFoundError(extensions={"field": "input_file_id"})
    check_quota(files.usage(scope.collection), bounds)
    batches.lock_collection(scope.collection)
    if batches.count_open(scope.collection) >= max_open:
        raise TooManyBatchesError(retry_after_s=TOO_MANY_RETRY_S)
    new = NewBatch(
        id=f"batch_{secrets.token_urlsafe(ID_BYTES)}",
        collection=scope.collection,
        request_id=request.request_id,
        endpoint=request.endpoint,
        completion_window=request.completion_window,
        meta=request.meta,
        output_expires_s=request.output_expires_s,
    )
    return batches.add(new, file, window_s=WINDOWS_S[request.completion_window])


def _find(session: Session, *, batch_id: str, scope: CollectionScope) -> Batch:
    batch = BatchRepository(session).by_id(batch_id, collection=scope.seen)
    if batch is None:
        raise BatchNotFoundError
    return batch


def _page(
    session: Session, *, scope: CollectionScope, after: str | None, limit: int
) -> list[Batch]:
    last = None if after is None else _find(session, batch_id=after, scope=scope)
    return BatchRepository(session).page(collection=scope.seen, after=last, limit=limit + 1)


def _cancel(session: Session, *, batch_id: str, scope: CollectionScope) -> Batch:
    batch = _find(session, batch_id=batch_id, scope=scope)
    if batch.status is BatchStatus.CANCELLING:
        return batch
    cancelled = BatchRepository(session).cancel(batch.key)
    if cancelled is None:
        raise BatchStateError(f"The batch is {batch.status.value} already.")
    return cancelled
