"""Which jobs are deleted: those that finished long ago, one at a time."""

from collections.abc import AsyncIterator
from functools import partial

from sqlalchemy.orm import Session

from app.db.retention import Retention
from app.db.session import Database
from app.features.jobs.repository import JobRepository

EVERY_S = 3_600.0
# Deleting a job of 100,000 documents takes 0.25 s, longer on a slow disk. With several in one
# transaction other writers of SQLite would wait for too long.
TIMEOUT_S = 30.0


def job_retention(database: Database, *, age_s: float, every_s: float = EVERY_S) -> Retention:
    """Return the retention of jobs: they are deleted `age_s` after they finished."""
    delete_one = partial(_delete_one, age_s=age_s)

    async def delete() -> AsyncIterator[int]:
        while count := await database.run(delete_one, timeout_s=TIMEOUT_S):
            yield count

    return Retention(
        delete,
        every_s=every_s,
        failed_event="job_retention_failed",
        deleted_event="jobs_deleted",
    )


def _delete_one(session: Session, *, age_s: float) -> int:
    return JobRepository(session).delete_finished(age_s=age_s, limit=1)
