"""Jobs for tests: values, stored jobs, and the steps of a worker."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from operator import methodcaller
from typing import Any

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from app.db.session import Database
from app.features.documents.tables import DocumentRow
from app.features.jobs.leases import JobLeases
from app.features.jobs.policy import LeaseLostError
from app.features.jobs.repository import JobRepository
from app.features.jobs.tables import JobRow
from app.features.jobs.values import ItemOutcome, ItemState, Job, JobStatus, NewJob

AT = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
NEW = NewJob(
    id="job_a",
    kind="embed",
    collection=7,
    request_id="the-request",
    model="minilm",
    request_hash="ab" * 32,
)
JOB = Job(
    **{name: getattr(NEW, name) for name in NewJob.__dataclass_fields__},
    key=1,
    status=JobStatus.QUEUED,
    total=3,
    done=0,
    failed=0,
    attempts=0,
    stalled_attempts=0,
    lease=None,
    lease_until=None,
    lease_done=0,
    due_at=AT,
    claimed_at=None,
    error_code=None,
    error=None,
    result=None,
    created_at=AT,
    started_at=None,
    updated_at=AT,
    finished_at=None,
    run_seconds=0.0,
    is_announced=False,
    webhook_status=None,
    webhook_attempts=0,
    webhook_due_at=None,
    webhook_answer=None,
    webhook_delivered_at=None,
)


async def ask(database: Database, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of JobRepository or JobLeases in a transaction of its own."""
    call = methodcaller(name, *args, **kwargs)
    kind = JobRepository if hasattr(JobRepository, name) else JobLeases
    return await database.run(lambda session: call(kind(session)))


async def add(database: Database, documents: Sequence[int] = (11, 12, 13), **changed: Any) -> Job:
    job: Job = await ask(database, "add", replace(NEW, **changed), documents)
    return job


async def claim(database: Database, lease: str = "mine", lease_s: float = 60) -> Job | None:
    job: Job | None = await ask(database, "claim", lease=lease, lease_s=lease_s)
    return job


async def stored(database: Database, job_id: str = "job_a") -> Job:
    job: Job = await ask(database, "by_id", job_id, collection=None)
    return job


async def set_columns(database: Database, key: int, **values: Any) -> None:
    """Change columns that no method changes, such as times."""
    change = update(JobRow).where(JobRow.key == key).values(values)
    await database.run(lambda session: session.execute(change) and None)


async def add_document(database: Database, key: int, document_id: str) -> None:
    values = {
        "key": key,
        "collection": 7,
        "id": document_id,
        "text": "some text",
        "meta": {},
        "revision": 1,
        "request_id": "r",
        "created_at": AT,
        "updated_at": AT,
    }
    await database.run(lambda session: session.execute(insert(DocumentRow), [values]) and None)


def outcomes(*states: ItemState, start: int = 0) -> list[ItemOutcome]:
    return [
        ItemOutcome(start + n, state, "broken" if state is ItemState.FAILED else None)
        for n, state in enumerate(states)
    ]


async def record(
    database: Database, job: Job, *states: ItemState, start: int = 0, lease: str = "mine"
) -> bool:
    done: bool = await ask(
        database, "record", job.key, lease=lease, outcomes=outcomes(*states, start=start)
    )
    return done


async def run_job(database: Database, *states: ItemState) -> Job:
    """Do what a worker does with the job that is due, in one batch."""
    job = await claim(database)
    assert job is not None
    await database.run(partial(_run, job=job, states=states))
    return await stored(database, job.id)


def _run(session: Session, *, job: Job, states: Sequence[ItemState]) -> None:
    jobs = JobLeases(session)
    if not jobs.record(job.key, lease="mine", outcomes=outcomes(*states)):
        raise LeaseLostError
    jobs.finish(job.key, lease="mine")
