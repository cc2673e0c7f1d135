"""The supervisor: silent workers, lost messages, reports, gauges, old rows; on both databases."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from databases import migrated, opened
from jobs import NEW, add, ask, claim, run_job, set_columns, stored

from app.core.backoff import Backoff
from app.db.schema import upgrade
from app.db.session import Database
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.policy import RetryPolicy
from app.features.jobs.repository import JobRepository
from app.features.jobs.retention import job_retention
from app.features.jobs.supervisor import JobSupervisor, SupervisorPolicy
from app.features.jobs.values import ItemState, JobStatus

DONE, FAILED = ItemState.DONE, ItemState.FAILED
RETRY = RetryPolicy(attempts=2, backoff=Backoff(first_s=1.5, max_s=60))
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class CountingNotifier:
    calls: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def notify(self) -> None:
        self.calls += 1
        self.heard.set()


@dataclass
class Clock:
    """Seconds that pass when the test says so."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Supervised:
    """A supervisor with a notifier, metrics and a clock of the test's."""

    def __init__(self, database: Database, **policy: Any) -> None:
        self.notifier = CountingNotifier()
        self.metrics = JobMetrics()
        self.clock = Clock()
        self.supervisor = JobSupervisor(
            database,
            notifier=self.notifier,
            metrics=self.metrics,
            policy=SupervisorPolicy(retry=RETRY, **policy),
            clock=self.clock,
        )

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"mlapi_{name}", labels)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database


async def wait_since(database: Database, *, seconds: float, job_id: str = "job_a") -> None:
    """Let a job have been due for so long."""
    due_at = datetime.now(UTC) - timedelta(seconds=seconds)
    await set_columns(database, (await stored(database, job_id)).key, due_at=due_at)


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == name]


async def nothing() -> None:
    return


# Workers that fell silent


async def test_the_job_of_a_silent_worker_is_queued_again_and_notified_of_when_it_is_due(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    supervised = Supervised(database)
    await add(database)
    await claim(database, lease_s=-1)
    pause_s = await supervised.supervisor.check()
    job = await stored(database)
    assert (job.status, job.error_code) == (JobStatus.QUEUED, "worker_lost")
    assert 1.0 < pause_s < 1.5, "it checks again when the job's pause is over, not later"
    assert supervised.notifier.calls == 0
    await wait_since(database, seconds=0.1)
    supervised.clock.now_s += pause_s
    assert await supervised.supervisor.check() == 2.0
    assert supervised.notifier.calls == 1
    assert supervised.metric("jobs_reaped_total") == 1
    assert supervised.metric("job_attempts_total", outcome="worker_lost") == 1
    (line,) = events(caplog, "job_reaped")
    assert (line["request_id"], line["job"], line["status"]) == ("the-request", "job_a", "queued")


async def test_a_job_that_can_go_on_at_once_is_notified_of_at_once(database: Database) -> None:
    supervised = Supervised(database)
    await add(database, id="job_b")
    await claim(database, lease_s=-1)
    await add(database)
    await supervised.supervisor.check()
    assert supervised.notifier.calls == 1


async def test_a_job_whose_workers_all_died_is_reported_as_failed(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    supervised = Supervised(database)
    job = await add(database)
    await set_columns(database, job.key, stalled_attempts=1)
    await claim(database, lease_s=-1)
    await supervised.supervisor.check()
    (line,) = events(caplog, "job_finished")
    assert (line["status"], line["code"], line["levelname"]) == ("failed", "worker_lost", "WARNING")
    assert supervised.metric("jobs_total", status="failed") == 1
    assert supervised.notifier.calls == 0


async def test_a_worker_that_works_is_left_alone(database: Database) -> None:
    supervised = Supervised(database)
    await add(database)
    job = await claim(database)
    await supervised.supervisor.check()
    assert await stored(database) == job


# Messages that were lost


async def test_workers_are_notified_again_of_a_job_that_none_has_taken(database: Database) -> None:
    supervised = Supervised(database)
    await add(database)
    await supervised.supervisor.check()
    assert supervised.notifier.calls == 0, "its submission has just notified"
    await wait_since(database, seconds=3.5)
    await supervised.supervisor.check()
    assert supervised.notifier.calls == 1
    supervised.clock.now_s += 9
    await supervised.supervisor.check()
    assert supervised.notifier.calls == 1, "workers may be busy"
    supervised.clock.now_s += 1
    await supervised.supervisor.check()
    assert supervised.notifier.calls == 2


async def test_nothing_is_sent_where_nothing_waits_or_without_a_notifier(
    database: Database,
) -> None:
    supervised = Supervised(database)
    await supervised.supervisor.check()
    assert supervised.notifier.calls == 0
    await add(database)
    await wait_since(database, seconds=60)
    supervisor = JobSupervisor(
        database, notifier=None, metrics=supervised.metrics, policy=SupervisorPolicy()
    )
    await supervisor.check()
    assert supervised.metric("jobs_queued") == 1


# Reports


async def test_a_finished_job_is_reported_once_with_the_id_of_its_request(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, second = Supervised(database), Supervised(database)
    await add(database, webhook_url="https://example.com/x")
    await run_job(database, DONE, DONE, DONE)
    await asyncio.gather(first.supervisor.check(), second.supervisor.check())
    await first.supervisor.check()
    counted = [
        supervised.metric("jobs_total", status="succeeded") or 0 for supervised in (first, second)
    ]
    assert sum(counted) == 1
    seconds = [supervised.metric("job_seconds_count") or 0 for supervised in (first, second)]
    assert sum(seconds) == 1
    (line,) = events(caplog, "job_finished")
    fields = {name: line[name] for name in ("job", "request_id", "status", "done", "total")}
    assert fields == {
        "job": "job_a",
        "request_id": "the-request",
        "status": "succeeded",
        "done": 3,
        "total": 3,
    }
    job = await stored(database)
    assert (job.is_announced, job.webhook_status) == (True, "pending")


async def test_any_number_of_finished_jobs_is_reported_in_one_check(database: Database) -> None:
    def add_many(session: Any) -> None:
        jobs = JobRepository(session)
        for n in range(130):
            values = {name: getattr(NEW, name) for name in type(NEW).__dataclass_fields__}
            job = jobs.add(type(NEW)(**(values | {"id": f"job_{n}"})))
            assert job is not None
            jobs.cancel(job.key)

    await database.run(add_many, timeout_s=20)
    supervised = Supervised(database)
    await supervised.supervisor.check()
    assert supervised.metric("jobs_total", status="cancelled") == 130


async def test_gauges_say_how_much_waits_and_for_how_long(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    supervised = Supervised(database)
    await add(database)
    await add(database, id="job_b")
    await wait_since(database, seconds=40)
    await supervised.supervisor.check()
    assert supervised.metric("jobs_queued") == 2
    assert 39 < (supervised.metric("jobs_oldest_waiting_seconds") or 0) < 45
    assert events(caplog, "jobs_waiting") == []
    for _ in range(2):
        supervised.clock.now_s += 60
        await supervised.supervisor.check()
        await supervised.supervisor.check()
    lines = events(caplog, "jobs_waiting")
    assert [line["queued"] for line in lines] == [2, 2]
    assert 39 < lines[0]["oldest_waiting_s"] < 45


# Old jobs


async def test_jobs_that_finished_long_ago_are_deleted(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for n in range(4):
        await add(database, id=f"job_{n}")
        key = (await stored(database, f"job_{n}")).key
        await ask(database, "cancel", key)
        if n:
            await set_columns(database, key, finished_at=LONG_AGO)
    await job_retention(database, age_s=86_400).apply()
    left = await ask(database, "page", collection=None, limit=10)
    assert [job.id for job in left] == ["job_0"]
    (line,) = events(caplog, "jobs_deleted")
    assert line["count"] == 3


async def test_deleting_goes_on_by_itself(database: Database) -> None:
    job = await add(database)
    await ask(database, "cancel", job.key)
    await set_columns(database, job.key, finished_at=LONG_AGO)
    async with job_retention(database, age_s=86_400, every_s=0.01).running(after=nothing):
        async with asyncio.timeout(10):
            while await stored(database) is not None:
                await asyncio.sleep(0.01)


async def test_a_delete_that_fails_is_logged_once_until_it_works(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(empty_database_url) as database:
        retention = job_retention(database, age_s=1)
        for _ in range(2):
            await retention.apply()
        assert len(events(caplog, "job_retention_failed")) == 1
        await asyncio.to_thread(upgrade, database)
        await retention.apply()
    await retention.apply()
    assert len(events(caplog, "job_retention_failed")) == 2


# A database that is away


async def test_a_database_without_tables_is_waited_for_in_silence(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(empty_database_url) as database:
        supervised = Supervised(database)
        for _ in range(3):
            assert await supervised.supervisor.check() == 2.0
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1
    assert events(caplog, "job_keeper_failed") == []


async def test_an_unexpected_failure_is_logged_once_and_the_supervisor_goes_on(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenNotifier(CountingNotifier):
        async def notify(self) -> None:
            raise RuntimeError("never raises")

    supervised = Supervised(database)
    supervisor = JobSupervisor(
        database,
        notifier=BrokenNotifier(),
        metrics=supervised.metrics,
        policy=SupervisorPolicy(notify_interval_s=0),
        clock=supervised.clock,
    )
    await add(database)
    await wait_since(database, seconds=60)
    for _ in range(3):
        await supervisor.check()
    assert len(events(caplog, "job_keeper_failed")) == 1
    job = await claim(database)
    assert job is not None
    await ask(database, "cancel", job.key)
    await supervisor.check()
    assert supervised.metric("jobs_total", status="cancelled") == 1


# The task


async def test_it_checks_by_itself_once_it_may_begin(database: Database) -> None:
    supervised = Supervised(database, interval_s=0.01)
    await add(database)
    await wait_since(database, seconds=60)
    may_begin = asyncio.Event()
    async with supervised.supervisor.running(after=may_begin.wait), asyncio.timeout(10):
        with suppress(TimeoutError):
            await asyncio.wait_for(supervised.notifier.heard.wait(), 0.05)
        assert supervised.notifier.calls == 0
        may_begin.set()
        await supervised.notifier.heard.wait()


async def test_it_ends_in_the_middle_of_anything(database: Database) -> None:
    supervised = Supervised(database)
    async with asyncio.timeout(5):
        async with supervised.supervisor.running(after=nothing):
            pass
        async with supervised.supervisor.running(after=asyncio.Event().wait):
            pass
