"""`/jobs/{job_id}/events`: every change once, heartbeats, a typed end, no polling in vain."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import migrated
from httpx2 import AsyncClient, Response
from jobs import AT, JOB, ask, claim, record
from listening import listening
from sqlalchemy.orm import Session
from test_jobs import Serving, serving_jobs

from app.errors import DatabaseUnavailableError, OverloadedError
from app.features.documents.collections import CollectionScope
from app.features.jobs.events import JobEventsResponse
from app.features.jobs.opening import JobsPart
from app.features.jobs.repository import JobRepository
from app.features.jobs.values import ItemState, Job, JobStatus
from app.features.jobs.watch import JobWatch

DONE = ItemState.DONE
EVERYBODY = CollectionScope(collection=0, sees_all=True)
TIMEOUT_S = 10


class Events:
    """What a client reads of a stream, event by event."""

    def __init__(self, response: Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, str] | None:
        """Return the next event's fields, a comment as ""; None at the end."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(TIMEOUT_S):
            async for line in self._lines:
                if not line:
                    return fields
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
        return None

    async def job(self) -> dict[str, Any]:
        event = await self.next()
        assert event is not None
        assert event["event"] == "job"
        assert event["id"]
        data: dict[str, Any] = json.loads(event["data"])
        return data


@asynccontextmanager
async def open_service(tmp_path: Path, **watch: Any) -> AsyncIterator[tuple[Serving, AsyncClient]]:
    """Serve on a socket, with one job of two documents."""
    async with serving_jobs(tmp_path) as service, listening(service.app) as (_, port):
        part = service.runtime.part(JobsPart)
        part.watch = JobWatch(part.jobs.get, **({"poll_s": 0.01} | watch))
        await service.store("a", "b")
        await service.submit("a", "b")
        async with AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield service, client


async def only_job(service: Serving) -> Any:
    (job,) = await ask(service.runtime.require_database(), "page", collection=None, limit=10)
    return job


async def test_every_change_is_an_event_and_the_final_status_the_last(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        migrated(database_url),
        serving_jobs(tmp_path, database_url=database_url) as service,
        listening(service.app) as (_, port),
        AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        part = service.runtime.part(JobsPart)
        part.watch = JobWatch(part.jobs.get, poll_s=0.01)
        await service.store("a", "b")
        job_id = (await service.submit("a", "b"))["job_id"]
        database = service.runtime.require_database()
        async with client.stream("GET", f"/jobs/{job_id}/events") as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert response.headers["cache-control"] == "no-cache, no-transform"
            events = Events(response)
            assert (await events.job())["status"] == "queued"
            job = await claim(database)
            assert job is not None
            assert (await events.job())["status"] == "running"
            await record(database, job, DONE)
            assert (await events.job())["progress"] == {"done": 1, "total": 2, "failed": 0}
            assert await ask(database, "extend", job.key, lease="mine", lease_s=60)
            await record(database, job, DONE, start=1)
            assert (await events.job())["progress"]["done"] == 2
            await ask(database, "finish", job.key, lease="mine")
            last = await events.job()
            assert last == await service.job(job_id)
            assert last["status"] == "succeeded"
            assert await events.next() is None
        assert service.runtime.part(JobsPart).watch.watchers == 0


async def test_a_finished_job_is_one_event_and_nothing_for_a_client_that_has_seen_it(
    tmp_path: Path,
) -> None:
    async with open_service(tmp_path) as (service, client):
        job = await only_job(service)
        path = f"/jobs/{job.id}/events"
        queued_id = f"{job.updated_at.timestamp():.6f}"
        await service.client.delete(f"/jobs/{job.id}")
        async with client.stream("GET", path, headers={"Last-Event-ID": queued_id}) as response:
            events = Events(response)
            event = await events.next()
            assert event is not None
            assert json.loads(event["data"])["status"] == "cancelled"
            assert await events.next() is None
        again = await client.get(path, headers={"Last-Event-ID": event["id"]})
        assert (again.status_code, again.content) == (204, b"")


async def test_head_of_a_job_that_goes_on_ends_after_its_headers(tmp_path: Path) -> None:
    async with open_service(tmp_path) as (service, client):
        path = f"/jobs/{(await only_job(service)).id}/events"
        async with client.stream("GET", path) as response:
            headers = dict(response.headers)
        head = await client.head(path, timeout=TIMEOUT_S)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
        for varying in ("date", "x-request-id", "transfer-encoding"):
            headers.pop(varying, None)
        assert headers.items() <= dict(head.headers).items()
        async with asyncio.timeout(TIMEOUT_S):
            while service.runtime.part(JobsPart).watch.watchers:
                await asyncio.sleep(0)


async def test_a_client_that_leaves_ends_the_watching(tmp_path: Path) -> None:
    async with open_service(tmp_path) as (service, client):
        job = await only_job(service)
        async with client.stream("GET", f"/jobs/{job.id}/events") as response:
            events = Events(response)
            await events.job()
            assert service.runtime.part(JobsPart).watch.watchers == 1
        async with asyncio.timeout(TIMEOUT_S):
            while service.runtime.part(JobsPart).watch.watchers:
                await asyncio.sleep(0.01)


async def test_a_client_that_is_cut_off_ends_the_watching(tmp_path: Path) -> None:
    async with open_service(tmp_path) as (service, client):
        job = await only_job(service)
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(f"GET /jobs/{job.id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(TIMEOUT_S):
            await reader.readuntil(b"event: job")
            assert service.runtime.part(JobsPart).watch.watchers == 1
            writer.transport.abort()
            while service.runtime.part(JobsPart).watch.watchers:
                await asyncio.sleep(0.01)


async def test_one_watcher_too_many_is_503_until_another_leaves(tmp_path: Path) -> None:
    async with open_service(tmp_path, max_watchers=1) as (service, client):
        job = await only_job(service)
        path = f"/jobs/{job.id}/events"
        async with client.stream("GET", path) as response:
            events = Events(response)
            await events.job()
            refused = await client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert int(refused.headers["Retry-After"]) > 0
            assert service.runtime.part(JobsPart).watch.watchers == 1
            await service.client.delete(f"/jobs/{job.id}")
            assert (await events.job())["status"] == "cancelled"
            assert await events.next() is None
        assert (await client.get(path)).status_code == 200


async def test_one_key_gets_half_of_the_places_at_most() -> None:
    watch = JobWatch(Finds(*[JOB] * 3), max_watchers=3)
    mine, yours, theirs = (CollectionScope(collection=n, sees_all=False) for n in (1, 2, 3))
    async with AsyncExitStack() as stack:

        async def begin(scope: CollectionScope) -> None:
            events = await stack.enter_async_context(aclosing(watch.watch("job_a", scope=scope)))
            await anext(events)

        await begin(mine)
        await begin(mine)
        with pytest.raises(OverloadedError):
            await begin(mine)
        await begin(yours)
        with pytest.raises(OverloadedError):
            await begin(theirs)
        assert watch.watchers == 3
    assert watch.watchers == 0


async def test_heartbeats_come_when_nothing_changes(tmp_path: Path) -> None:
    async with open_service(tmp_path) as (service, _):
        job = await only_job(service)
        response = JobEventsResponse(
            service.runtime,
            service.runtime.part(JobsPart).watch.watch(job.id, scope=EVERYBODY),
            seen=None,
            path="/",
            heartbeat_s=0.02,
        )
        async with (
            listening(response) as (_, port),
            AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
            client.stream("GET", "/") as answer,
        ):
            events = Events(answer)
            assert (await events.job())["status"] == "queued"
            for _ in range(3):
                assert await events.next() == {"": ""}
            await ask(service.runtime.require_database(), "cancel", job.key)
            while (event := await events.next()) == {"": ""}:
                pass
            assert event is not None
            assert json.loads(event["data"])["status"] == "cancelled"


async def test_a_process_that_ends_says_so(tmp_path: Path) -> None:
    async with open_service(tmp_path) as (service, client):
        job = await only_job(service)
        async with client.stream("GET", f"/jobs/{job.id}/events") as response:
            events = Events(response)
            await events.job()
            service.runtime.is_draining = True
            await ended_by(events, "not_ready")


async def ended_by(events: Events, code: str) -> None:
    event = await events.next()
    assert event is not None
    assert event["event"] == "error"
    problem = json.loads(event["data"])
    assert problem["code"] == code
    assert problem["instance"].startswith("/jobs/")
    assert problem["request_id"]
    assert await events.next() is None


async def test_a_job_that_is_deleted_in_the_middle_ends_the_stream(tmp_path: Path) -> None:
    def delete(session: Session) -> None:
        jobs = JobRepository(session)
        jobs.cancel(job.key)
        assert jobs.delete_finished(age_s=-60, limit=9) == 1

    async with open_service(tmp_path) as (service, client):
        job = await only_job(service)
        async with client.stream("GET", f"/jobs/{job.id}/events") as response:
            events = Events(response)
            await events.job()
            await service.runtime.require_database().run(delete)
            await ended_by(events, "job_not_found")


class Finds:
    """Finds what the test has put down, one after the other."""

    def __init__(self, *results: Job | Exception) -> None:
        self._results = iter(results)

    async def __call__(self, job_id: str, *, scope: CollectionScope) -> Job:
        result = next(self._results)
        if isinstance(result, Exception):
            raise result
        return result


AWAY = DatabaseUnavailableError()
RUNNING = replace(JOB, status=JobStatus.RUNNING, updated_at=AT + timedelta(seconds=1))
ENDED = replace(JOB, status=JobStatus.FAILED, updated_at=AT + timedelta(seconds=2))


async def watched(*results: Job | Exception) -> list[Job | None]:
    watching = JobWatch(Finds(*results), poll_s=0).watch("job_a", scope=EVERYBODY)
    return [job async for job in watching]


async def test_a_job_is_given_when_it_has_changed() -> None:
    beaten = replace(RUNNING, lease_until=AT)  # a heartbeat is no change
    results = (JOB, JOB, RUNNING, beaten, ENDED)
    assert await watched(*results) == [JOB, None, RUNNING, None, ENDED]


async def test_a_database_that_comes_back_soon_is_not_noticed() -> None:
    assert await watched(JOB, AWAY, AWAY, ENDED) == [JOB, None, None, ENDED]


async def test_a_database_that_is_away_from_the_start_is_an_error_at_once() -> None:
    with pytest.raises(DatabaseUnavailableError):
        await watched(AWAY, JOB)


async def test_changes_during_an_outage_of_the_database_come_afterwards() -> None:
    assert await watched(JOB, AWAY, RUNNING, ENDED) == [JOB, None, RUNNING, ENDED]


async def test_a_database_that_stays_away_ends_the_stream_with_a_problem(tmp_path: Path) -> None:
    async with open_service(tmp_path, max_outage_s=0.1) as (service, client):
        job = await only_job(service)
        async with client.stream("GET", f"/jobs/{job.id}/events") as response:
            events = Events(response)
            await events.job()
            await service.runtime.require_database().close()
            await ended_by(events, "database_unavailable")
