"""Deletes what is too old: files whose time is over, uploads that were given up, batches."""

from collections.abc import AsyncIterator
from functools import partial

from app.db.retention import Retention
from app.db.session import Database
from app.features.openai_batches.files import FileRepository
from app.features.openai_batches.repository import BatchRepository

FILE_INTERVAL_S = 600.0
BATCH_INTERVAL_S = 3_600.0
FILES_AT_ONCE = 1  # one may have some hundred chunks
BATCHES_AT_ONCE = 500
TIMEOUT_S = 30.0


def file_retention(database: Database, *, abandoned_s: float) -> Retention:
    """Return what deletes files.

    Args:
        database: where they are.
        abandoned_s: after which an upload that isn't complete was given up.

    """
    delete = partial(_expired_files, database, abandoned_s)
    return Retention(
        delete,
        every_s=FILE_INTERVAL_S,
        failed_event="files_kept",
        deleted_event="files_expired",
    )


def batch_retention(database: Database, *, age_s: float) -> Retention:
    """Return what deletes batches that finished so long ago."""
    return Retention(
        partial(_old_batches, database, age_s),
        every_s=BATCH_INTERVAL_S,
        failed_event="batches_kept",
        deleted_event="batches_deleted",
    )


async def _expired_files(database: Database, abandoned_s: float) -> AsyncIterator[int]:
    while count := await database.run(
        lambda session: FileRepository(session).delete_expired(
            abandoned_s=abandoned_s, limit=FILES_AT_ONCE
        ),
        timeout_s=TIMEOUT_S,
    ):
        yield count


async def _old_batches(database: Database, age_s: float) -> AsyncIterator[int]:
    while count := await database.run(
        lambda session: BatchRepository(session).delete_finished(
            age_s=age_s, limit=BATCHES_AT_ONCE
        ),
        timeout_s=TIMEOUT_S,
    ):
        yield count
