"""Webhooks that are due, and secrets, on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from databases import migrated
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.db.session import Database
from app.features.jobs.repository import JobRepository
from app.features.jobs.tables import JobRow
from app.features.jobs.values import Job, NewJob
from app.features.jobs.webhooks.repository import Attempt, WebhookRepository, WebhookStatus
from app.features.jobs.webhooks.secrets import SecretRepository

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
UNTIL = NOW + timedelta(seconds=30)
DELIVERED = Attempt(status=WebhookStatus.DELIVERED, answer="204", delivered_at=NOW)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database


async def finished(database: Database, job_id: str, *, due_at: datetime = NOW) -> Job:
    """Store a job whose webhook is due."""
    new = NewJob(
        id=job_id,
        kind="embed",
        collection=0,
        request_id="r-1",
        model="minilm",
        request_hash="",
        webhook_url="https://hooks.example/",
    )
    due = {"webhook_status": "pending", "webhook_due_at": due_at}

    def work(session: Session) -> Job:
        jobs = JobRepository(session)
        job = jobs.add(new)
        assert job is not None
        session.execute(update(JobRow).where(JobRow.key == job.key).values(due))
        job = jobs.by_id(job_id, collection=None)
        assert job is not None
        return job

    return await database.run(work)


async def claim(database: Database, now: datetime = NOW, *, limit: int = 10) -> list[Job]:
    until = now + timedelta(seconds=30)
    return await database.run(lambda s: WebhookRepository(s).claim(now, until=until, limit=limit))


async def is_due(database: Database, now: datetime = NOW) -> bool:
    return await database.read(lambda s: WebhookRepository(s).is_due(now))


async def record(database: Database, claimed: Job, attempt: Attempt) -> bool:
    return await database.run(lambda s: WebhookRepository(s).record(claimed, attempt))


async def stored(database: Database, job_id: str) -> Job:
    job = await database.read(lambda s: JobRepository(s).by_id(job_id, collection=None))
    assert job is not None
    return job


async def test_a_due_webhook_is_claimed_with_its_job_and_the_attempt_is_counted(
    database: Database,
) -> None:
    job = await finished(database, "a")
    assert await is_due(database)
    (claimed,) = await claim(database)
    assert (claimed.id, claimed.key, claimed.status) == ("a", job.key, job.status)
    assert (claimed.webhook_attempts, claimed.webhook_due_at) == (1, UNTIL)
    assert claimed == await stored(database, "a")


async def test_what_is_claimed_is_not_due_until_the_claim_ends(database: Database) -> None:
    await finished(database, "a")
    await claim(database)
    assert not await is_due(database)
    assert await claim(database) == []
    assert await is_due(database, UNTIL)
    (again,) = await claim(database, UNTIL)
    assert again.webhook_attempts == 2


async def test_what_is_due_later_is_left(database: Database) -> None:
    await finished(database, "a", due_at=NOW + timedelta(microseconds=1))
    assert not await is_due(database)
    assert await claim(database) == []


async def test_those_due_longest_are_claimed_first(database: Database) -> None:
    for age_s in (1, 3, 2):
        await finished(database, f"due for {age_s}", due_at=NOW - timedelta(seconds=age_s))
    assert {job.id for job in await claim(database, limit=2)} == {"due for 3", "due for 2"}
    assert [job.id for job in await claim(database, limit=2)] == ["due for 1"]


async def test_several_processes_at_once_share_them_without_overlap(database: Database) -> None:
    for n in range(20):
        await finished(database, f"job {n}")
    shares = await asyncio.gather(*(claim(database, limit=5) for _ in range(6)))
    ids = [job.id for share in shares for job in share]
    assert len(ids) == len(set(ids))
    # One that another process holds at this moment is skipped, not waited for.
    ids += [job.id for job in await claim(database, limit=20)]
    assert sorted(ids) == sorted(f"job {n}" for n in range(20))


async def test_a_delivery_is_recorded_and_never_due_again(database: Database) -> None:
    await finished(database, "a")
    (claimed,) = await claim(database)
    assert await record(database, claimed, DELIVERED)
    job = await stored(database, "a")
    assert (job.webhook_status, job.webhook_answer) == ("delivered", "204")
    assert (job.webhook_due_at, job.webhook_delivered_at) == (None, NOW)
    assert not await is_due(database, NOW + timedelta(days=365))


async def test_a_failed_webhook_is_due_again_when_its_record_says(database: Database) -> None:
    await finished(database, "a")
    (claimed,) = await claim(database)
    later = NOW + timedelta(seconds=5)
    again = Attempt(status=WebhookStatus.PENDING, answer="503", due_at=later)
    assert await record(database, claimed, again)
    assert not await is_due(database, later - timedelta(microseconds=1))
    assert await is_due(database, later)
    assert (await stored(database, "a")).webhook_answer == "503"


async def test_an_attempt_after_the_end_of_its_claim_is_not_recorded(database: Database) -> None:
    await finished(database, "a")
    (slow,) = await claim(database)
    (second,) = await claim(database, UNTIL)
    assert not await record(database, slow, DELIVERED)
    assert (await stored(database, "a")).webhook_status == "pending"
    assert await record(database, second, DELIVERED)
    assert not await record(database, second, DELIVERED)


async def test_of_concurrent_calls_one_makes_the_secret(database: Database) -> None:
    async def keep(value: str) -> str:
        return await database.run(lambda s: SecretRepository(s).keep("webhooks", value))

    assert await database.read(lambda s: SecretRepository(s).get("webhooks")) is None
    (secret,) = set(await asyncio.gather(*(keep(f"made by {n}") for n in range(20))))
    assert await keep("too late") == secret
    assert await database.read(lambda s: SecretRepository(s).get("webhooks")) == secret
    assert await database.read(lambda s: SecretRepository(s).get("other")) is None
