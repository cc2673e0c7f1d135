"""Jobs, on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from databases import migrated
from jobs import JOB, NEW, add, add_document, ask, claim, record, run_job, set_columns, stored

from app.core.backoff import Backoff
from app.db.clock import now
from app.db.session import Database
from app.features.jobs.leases import JobLeases
from app.features.jobs.policy import LeaseLostError, RetryPolicy
from app.features.jobs.repository import JobRepository
from app.features.jobs.values import Item, ItemState, Job, JobStatus

WAITING, DONE, SKIPPED, FAILED = ItemState
POLICY = RetryPolicy(attempts=2, backoff=Backoff(first_s=5, max_s=60))
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database


async def items(database: Database, job: Job, **page: Any) -> list[Item]:
    items: list[Item] = await ask(database, "items", job.key, **({"limit": 100} | page))
    return items


def seconds_since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()


# The clock


async def test_the_clock_is_in_utc_and_goes_on_within_a_transaction(database: Database) -> None:
    first, second = await database.read(lambda session: (now(session), now(session)))
    assert first.utcoffset() == timedelta(0)
    assert abs(seconds_since(first)) < 5
    assert first < second


# Adding and finding


async def test_a_job_comes_back_as_it_was_stored(database: Database) -> None:
    job = await add(database, idempotency_key="once", webhook_url="https://example.com/x")
    assert {name: getattr(job, name) for name in asdict(NEW)} == asdict(
        replace(NEW, idempotency_key="once", webhook_url="https://example.com/x")
    )
    assert (job.status, job.total, job.done, job.attempts) == (JobStatus.QUEUED, 3, 0, 0)
    assert job.created_at == job.due_at == job.updated_at
    assert abs(seconds_since(job.created_at)) < 5
    assert await stored(database) == job
    unset = {name for name, value in asdict(job).items() if value is None}
    assert unset == {name for name, value in asdict(JOB).items() if value is None} - {
        "idempotency_key",
        "webhook_url",
    }


async def test_documents_keep_their_order_and_one_that_comes_twice_is_done_once(
    database: Database,
) -> None:
    job = await add(database, [13, 11, 13, 12, 11])
    assert job.total == 3
    assert await items(database, job) == [Item(0, 13), Item(1, 11), Item(2, 12)]


async def test_a_hundred_thousand_documents_are_added_in_a_moment(database: Database) -> None:
    keys = range(10**10, 10**10 + 100_000)
    job = await database.run(lambda s: JobRepository(s).add(NEW, keys), timeout_s=20)
    assert job is not None
    assert job.total == 100_000
    assert await items(database, job, after=99_998) == [Item(99_999, 10**10 + 99_999)]


async def test_a_job_is_found_by_its_own_collection_only(database: Database) -> None:
    job = await add(database)
    assert await ask(database, "by_id", "job_a", collection=7) == job
    assert await ask(database, "by_id", "job_a", collection=8) is None
    assert await ask(database, "by_id", "job_b", collection=None) is None


async def test_an_idempotency_key_is_taken_once_in_its_collection(database: Database) -> None:
    job = await add(database, idempotency_key="k")
    assert await add(database, id="job_b", idempotency_key="k") is None
    assert await add(database, id="job_c", idempotency_key="k", collection=8) is not None
    assert await add(database, id="job_d", idempotency_key="K") is not None
    assert await ask(database, "by_idempotency_key", 7, "k") == job
    assert await ask(database, "by_idempotency_key", 9, "k") is None


async def test_jobs_without_an_idempotency_key_are_never_the_same(database: Database) -> None:
    assert await add(database, id="job_b")
    assert await add(database, id="job_c")


async def test_of_many_that_add_one_idempotency_key_at_once_one_does(database: Database) -> None:
    added = await asyncio.gather(
        *(add(database, id=f"job_{n}", idempotency_key="k") for n in range(20))
    )
    (job,) = [job for job in added if job is not None]
    assert await ask(database, "by_idempotency_key", 7, "k") == job
    assert len(await ask(database, "page", collection=None, limit=100)) == 1


async def test_pages_lead_from_the_newest_to_the_oldest(database: Database) -> None:
    for n in range(5):
        await add(database, id=f"job_{n}", collection=7 + n % 2)

    async def page(**query: Any) -> list[str]:
        arguments = {"collection": None, "limit": 100} | query
        return [job.id for job in await ask(database, "page", **arguments)]

    assert await page() == ["job_4", "job_3", "job_2", "job_1", "job_0"]
    assert await page(collection=8) == ["job_3", "job_1"]
    third = (await stored(database, "job_2")).key
    assert await page(before_key=third, limit=1) == ["job_1"]
    await ask(database, "cancel", third)
    assert await page(status=JobStatus.CANCELLED) == ["job_2"]
    assert await page(status=JobStatus.CANCELLED, collection=8) == []


# Claims and leases


async def test_the_job_that_waited_longest_is_claimed_first(database: Database) -> None:
    for name in ("job_a", "job_b"):
        await add(database, id=name)
    await set_columns(database, (await stored(database, "job_b")).key, due_at=LONG_AGO)
    first, second, third = await claim(database), await claim(database), await claim(database)
    assert first is not None
    assert second is not None
    assert (first.id, second.id, third) == ("job_b", "job_a", None)
    assert (first.status, first.lease, first.attempts) == (JobStatus.RUNNING, "mine", 1)
    assert first.lease_until is not None
    assert 50 < -seconds_since(first.lease_until) < 65
    assert first.started_at == first.updated_at


async def test_callers_take_turns_however_many_jobs_one_of_them_has(database: Database) -> None:
    for n in range(3):
        await add(database, id=f"many_{n}", collection=1)
    for n in range(2):
        await add(database, id=f"few_{n}", collection=2)
    taken = []
    for _ in range(6):
        job = await claim(database)
        assert job is not None
        taken.append(job.id)
        if job.id == "many_0" and len(taken) == 1:
            # Its slice is over: it goes behind the others of its caller.
            await ask(database, "release", job.key, lease="mine")
    assert taken == ["many_0", "few_0", "many_1", "few_1", "many_2", "many_0"]


async def test_a_job_that_is_due_later_is_not_claimed_now(database: Database) -> None:
    job = await add(database)
    await set_columns(database, job.key, due_at=datetime.now(UTC) + timedelta(hours=1))
    assert await claim(database) is None


async def test_no_two_workers_get_one_job(database: Database) -> None:
    for n in range(20):
        await add(database, [], id=f"job_{n}")
    claimed = await asyncio.gather(*(claim(database, lease=f"lease-{n}") for n in range(30)))
    got = [job.id for job in claimed if job is not None]
    assert len(got) == len(set(got))
    # On PostgreSQL some may have met others' locks only.
    while (job := await claim(database)) is not None:
        got.append(job.id)
    assert sorted(got) == sorted(f"job_{n}" for n in range(20))


async def test_a_heartbeat_keeps_the_lease_and_a_lost_one_is_reported(database: Database) -> None:
    await add(database)
    job = await claim(database, lease_s=0.001)
    assert job is not None
    assert await ask(database, "extend", job.key, lease="mine", lease_s=60)
    assert await ask(database, "reap", policy=POLICY, limit=10) == []
    assert not await ask(database, "extend", job.key, lease="another", lease_s=60)
    assert (await stored(database)).updated_at == job.updated_at


# Work


async def test_items_are_given_in_order_until_they_are_recorded(database: Database) -> None:
    await add(database)
    job = await claim(database)
    assert job is not None
    assert await items(database, job, limit=2) == [Item(0, 11), Item(1, 12)]
    assert await items(database, job, after=1) == [Item(2, 13)]
    assert await record(database, job, DONE)
    assert await items(database, job) == [Item(1, 12), Item(2, 13)]


async def test_what_is_recorded_counts_once(database: Database) -> None:
    await add(database)
    job = await claim(database)
    assert job is not None
    assert await record(database, job, DONE, SKIPPED)
    assert await record(database, job, FAILED, FAILED, FAILED)
    assert await record(database, job, DONE, DONE, DONE)
    now_ = await stored(database)
    assert (now_.done, now_.failed) == (2, 1)
    assert now_.updated_at > job.updated_at
    assert now_.run_seconds == pytest.approx(
        (now_.updated_at - job.updated_at).total_seconds(), abs=1e-4
    )


async def test_a_thousand_outcomes_and_more_fit_into_one_record(database: Database) -> None:
    await add(database, range(2_500))
    job = await claim(database)
    assert job is not None
    assert await record(database, job, *[DONE] * 1_200, *[FAILED] * 1_300)
    now_ = await stored(database)
    assert (now_.done, now_.failed) == (1_200, 1_300)


async def test_a_worker_that_lost_the_lease_stores_nothing(database: Database) -> None:
    await add(database)
    job = await claim(database)
    assert job is not None
    assert not await record(database, job, DONE, lease="another")
    for name in ("release", "finish"):
        assert not await ask(database, name, job.key, lease="another")
    await ask(
        database, "fail_attempt", job.key, lease="another", code="x", detail="y", policy=POLICY
    )
    assert await stored(database) == job
    assert len(await items(database, job)) == 3


async def test_a_released_job_is_due_at_once_and_that_was_no_attempt(database: Database) -> None:
    await add(database)
    job = await claim(database)
    assert job is not None
    await set_columns(database, job.key, stalled_attempts=1)
    await record(database, job, DONE)
    assert await ask(database, "release", job.key, lease="mine")
    freed = await stored(database)
    assert (freed.status, freed.lease, freed.attempts) == (JobStatus.QUEUED, None, 0)
    assert (freed.stalled_attempts, freed.done) == (0, 1)
    again = await claim(database)
    assert again is not None
    assert (again.attempts, again.lease_done, again.started_at) == (1, 1, job.started_at)


async def test_a_release_without_progress_forgives_nothing(database: Database) -> None:
    job = await add(database)
    await set_columns(database, job.key, stalled_attempts=1)
    await claim(database)
    assert await ask(database, "release", job.key, lease="mine")
    assert (await stored(database)).stalled_attempts == 1


async def test_a_finished_job_has_its_result(database: Database) -> None:
    await add(database)
    job = await run_job(database, DONE, SKIPPED, DONE)
    assert (job.status, job.done, job.failed, job.lease) == (JobStatus.SUCCEEDED, 3, 0, None)
    assert job.result == {"embedded": 2, "skipped": 1, "failed": 0, "errors": []}
    assert job.finished_at == job.updated_at
    assert job.error_code is None


async def test_a_job_with_failed_documents_has_failed_and_names_the_first(
    database: Database,
) -> None:
    await add_document(database, 11, "one")
    await add_document(database, 13, "three")
    await add(database)
    job = await run_job(database, FAILED, DONE, FAILED)
    assert (job.status, job.done, job.failed) == (JobStatus.FAILED, 1, 2)
    assert job.error_code == "documents_failed"
    assert job.error == "2 of 3 documents failed; `result` names them."
    assert job.result == {
        "embedded": 1,
        "skipped": 0,
        "failed": 2,
        "errors": [{"id": "one", "error": "broken"}, {"id": "three", "error": "broken"}],
    }


async def test_of_a_thousand_failures_a_hundred_are_listed(database: Database) -> None:
    for key in range(1, 102):
        await add_document(database, key, f"d{key}")
    await add(database, range(1, 1_001))
    job = await run_job(database, *[FAILED] * 1_000)
    assert job.result is not None
    assert job.result["failed"] == 1_000
    assert [error["id"] for error in job.result["errors"]] == [f"d{n}" for n in range(1, 101)]


# Attempts that fail


async def fail(database: Database, detail: str = "It broke.") -> Job:
    job = await claim(database)
    assert job is not None
    failure = {"lease": "mine", "code": "engine_failed", "detail": detail}
    await ask(database, "fail_attempt", job.key, **failure, policy=POLICY)
    return await stored(database)


async def test_a_failed_attempt_is_followed_by_another_after_a_pause(database: Database) -> None:
    await add(database)
    job = await fail(database)
    assert (job.status, job.attempts, job.stalled_attempts, job.lease) == (
        JobStatus.QUEUED,
        1,
        1,
        None,
    )
    assert (job.error_code, job.error) == ("engine_failed", "It broke.")
    assert job.due_at - job.updated_at == timedelta(seconds=5)
    assert await claim(database) is None


async def test_attempts_without_progress_end_with_a_reason_that_people_can_read(
    database: Database,
) -> None:
    await add(database)
    job = await fail(database)
    await set_columns(database, job.key, due_at=LONG_AGO)
    job = await fail(database)
    assert (job.status, job.attempts, job.lease) == (JobStatus.FAILED, 2, None)
    assert job.error == "It broke. 2 attempts in a row got nothing done."
    assert job.finished_at == job.updated_at
    assert job.result == {"embedded": 0, "skipped": 0, "failed": 0, "errors": []}


async def test_progress_makes_up_for_earlier_attempts(database: Database) -> None:
    added = await add(database)
    for _ in range(3):
        await set_columns(database, added.key, due_at=LONG_AGO, stalled_attempts=1)
        job = await claim(database)
        assert job is not None
        assert await record(database, job, DONE, start=job.done)
        failure = {"lease": "mine", "code": "x", "detail": "y"}
        await ask(database, "fail_attempt", job.key, **failure, policy=POLICY)
        now_ = await stored(database)
        assert (now_.status, now_.stalled_attempts) == (JobStatus.QUEUED, 0)


async def test_a_success_leaves_no_error_behind(database: Database) -> None:
    job = await add(database)
    await fail(database)
    await set_columns(database, job.key, due_at=LONG_AGO)
    job = await run_job(database, DONE, DONE, DONE)
    assert (job.status, job.error_code, job.error) == (JobStatus.SUCCEEDED, None, None)


async def test_an_error_that_no_database_could_store_is_stored(database: Database) -> None:
    await add(database)
    job = await fail(database, "bad \0 and \ud800" + "x" * 10_000)
    assert job.error is not None
    assert job.error.startswith("bad \ufffd and ?xxx")
    assert len(job.error) == 500


# The reaper


async def test_the_job_of_a_silent_worker_is_given_away(database: Database) -> None:
    await add(database)
    job = await claim(database, lease_s=-1)
    assert job is not None
    (reaped,) = await ask(database, "reap", policy=POLICY, limit=10)
    assert reaped == await stored(database)
    assert (reaped.status, reaped.error_code) == (JobStatus.QUEUED, "worker_lost")
    assert not await record(database, job, DONE)
    await set_columns(database, job.key, due_at=LONG_AGO)
    taken = await claim(database, lease="another")
    assert taken is not None
    assert not await record(database, job, DONE)
    assert await record(database, taken, DONE, lease="another")


async def test_a_job_whose_workers_all_die_fails(database: Database) -> None:
    added = await add(database)
    for _ in range(2):
        await set_columns(database, added.key, due_at=LONG_AGO)
        await claim(database, lease_s=-1)
        (job,) = await ask(database, "reap", policy=POLICY, limit=10)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "worker_lost")
    assert job.error == "The worker fell silent. 2 attempts in a row got nothing done."


async def test_each_lost_job_is_reaped_by_one_supervisor(database: Database) -> None:
    for n in range(20):
        await add(database, [], id=f"job_{n}")
        await claim(database, lease_s=-1)
    batches = await asyncio.gather(
        *(ask(database, "reap", policy=POLICY, limit=3) for _ in range(10))
    )
    reaped = [job.id for jobs in batches for job in jobs]
    assert len(reaped) == len(set(reaped))
    assert max(map(len, batches)) == 3


async def test_a_job_is_finished_or_reaped_but_not_both(database: Database) -> None:
    for n in range(10):
        await add(database, [], id=f"job_{n}")
        job = await claim(database, lease_s=-1)
        assert job is not None
        finish = ask(database, "finish", job.key, lease="mine")
        reap = ask(database, "reap", policy=POLICY, limit=10)
        if n % 2:
            finished, reaped = await asyncio.gather(finish, reap)
        else:
            reaped, finished = await asyncio.gather(reap, finish)
        assert bool(finished) != bool(reaped)
        now_ = await stored(database, job.id)
        assert now_.status == (JobStatus.SUCCEEDED if finished else JobStatus.QUEUED)


# Cancel and retry


async def test_a_cancelled_job_is_over_and_its_worker_commits_nothing_more(
    database: Database,
) -> None:
    await add(database)
    job = await claim(database)
    assert job is not None
    await record(database, job, DONE)
    cancelled = await ask(database, "cancel", job.key)
    assert (cancelled.status, cancelled.lease, cancelled.done) == (JobStatus.CANCELLED, None, 1)
    assert cancelled.finished_at == cancelled.updated_at
    assert not await record(database, job, DONE, start=1)
    assert not await ask(database, "extend", job.key, lease="mine", lease_s=60)
    assert not await ask(database, "finish", job.key, lease="mine")
    assert await stored(database) == cancelled
    assert await ask(database, "cancel", job.key) is None
    assert await claim(database) is None


async def test_a_record_that_was_begun_before_the_cancel_is_whole(database: Database) -> None:
    for n in range(10):
        await add(database, id=f"job_{n}")
        job = await claim(database)
        assert job is not None
        recorded, cancelled = await asyncio.gather(
            record(database, job, DONE), ask(database, "cancel", job.key)
        )
        assert cancelled is not None
        now_ = await stored(database, job.id)
        assert now_.status is JobStatus.CANCELLED
        assert now_.done == (1 if recorded else 0)
        assert len(await items(database, job)) == (2 if recorded else 3)


async def test_nothing_of_a_transaction_is_stored_whose_lease_is_lost(database: Database) -> None:
    await add(database)
    job = await claim(database)
    assert job is not None
    await ask(database, "cancel", job.key)

    def work(session: Any) -> None:
        JobRepository(session).add(replace(NEW, id="job_b"))
        if not JobLeases(session).record(job.key, lease="mine", outcomes=[]):
            raise LeaseLostError

    with pytest.raises(LeaseLostError):
        await database.run(work)
    assert await stored(database, "job_b") is None


async def test_a_retry_does_the_failed_documents_again_and_only_those(database: Database) -> None:
    await add(database, webhook_url="https://example.com/x")
    await run_job(database, DONE, FAILED, SKIPPED)
    (announced,) = await ask(database, "take_finished", 10)
    await set_columns(database, announced.key, webhook_status="failed", webhook_attempts=9)
    job = await ask(database, "retry", announced.key)
    assert (job.status, job.done, job.failed, job.stalled_attempts) == (JobStatus.QUEUED, 2, 0, 0)
    assert (job.error_code, job.error, job.result, job.finished_at) == (None,) * 4
    assert (job.is_announced, job.webhook_status, job.webhook_attempts) == (False, None, 0)
    assert await items(database, job) == [Item(1, 12)]
    claimed = await claim(database)
    assert claimed is not None
    assert await record(database, claimed, DONE, start=1)
    assert await ask(database, "finish", job.key, lease="mine")
    done = await stored(database)
    assert (done.status, done.done) == (JobStatus.SUCCEEDED, 3)
    assert done.result == {"embedded": 2, "skipped": 1, "failed": 0, "errors": []}
    assert [job.id for job in await ask(database, "take_finished", 10)] == ["job_a"]


async def test_only_a_failed_job_can_be_retried(database: Database) -> None:
    job = await add(database, [])
    assert await ask(database, "retry", job.key) is None
    await claim(database)
    assert await ask(database, "retry", job.key) is None
    await ask(database, "finish", job.key, lease="mine")
    assert await ask(database, "retry", job.key) is None
    assert await ask(database, "cancel", job.key) is None


# For the supervisor


async def test_what_waits_is_counted_with_its_age(database: Database) -> None:
    empty = await ask(database, "waiting")
    assert (empty.queued, empty.due, empty.oldest_s, empty.next_due_s) == (0, 0, 0.0, None)
    for name in ("job_a", "job_b", "job_c", "job_d"):
        await add(database, id=name)
    for name, later_s in (("job_a", -90), ("job_c", 30), ("job_d", 60)):
        due_at = datetime.now(UTC) + timedelta(seconds=later_s)
        await set_columns(database, (await stored(database, name)).key, due_at=due_at)
    waiting = await ask(database, "waiting")
    assert (waiting.queued, waiting.due) == (4, 2)
    assert 85 < waiting.oldest_s < 95
    assert 25 < waiting.next_due_s < 31


async def test_finished_jobs_are_announced_once(database: Database) -> None:
    for n in range(20):
        await add(database, [], id=f"job_{n}", webhook_url="https://e.com" if n % 2 else None)
        await claim(database)
        await ask(database, "finish", (await stored(database, f"job_{n}")).key, lease="mine")
    await add(database, id="job_open")
    batches = await asyncio.gather(*(ask(database, "take_finished", 4) for _ in range(10)))
    taken = [job for jobs in batches for job in jobs]
    while rest := await ask(database, "take_finished", 4):
        taken += rest
    assert sorted(job.id for job in taken) == sorted(f"job_{n}" for n in range(20))
    for job in taken:
        assert job.is_announced
        assert (job.webhook_status == "pending") == (job.webhook_url is not None)
        assert (job.webhook_due_at is None) == (job.webhook_url is None)


async def test_old_finished_jobs_are_deleted_with_their_documents(database: Database) -> None:
    for n in range(4):
        await add(database, id=f"job_{n}")
        await ask(database, "cancel", (await stored(database, f"job_{n}")).key)
    for n in range(3):
        await set_columns(database, (await stored(database, f"job_{n}")).key, finished_at=LONG_AGO)
    await add(database, id="job_open")
    old = await stored(database, "job_0")
    assert await ask(database, "delete_finished", age_s=60, limit=2) == 2
    assert await ask(database, "delete_finished", age_s=60, limit=2) == 1
    assert await ask(database, "delete_finished", age_s=60, limit=2) == 0
    left = await ask(database, "page", collection=None, limit=10)
    assert [job.id for job in left] == ["job_open", "job_3"]
    assert await items(database, old) == []
