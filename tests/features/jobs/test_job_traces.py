"""A job goes on in the trace of its request: its worker, its retry, its webhook."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from collector import Collector, turn_on
from loopback import WAIT_S
from process import service
from receivers import receiving
from test_job_runner import LineEmbedder, bench
from workers import EMBEDDER, finish

from app.core.metrics import Metrics
from app.core.otel import open_telemetry
from app.features.jobs.policy import RetryPolicy
from app.features.jobs.repository import JobRepository
from app.features.jobs.runner import JobRunner, RunnerPolicy
from app.features.jobs.values import NewJob
from app.settings import otel_variables

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
WORDS = "words of a document"


async def test_from_the_request_through_the_worker_to_the_webhook_it_is_one_trace(
    tmp_path: Path,
) -> None:
    with Collector() as collector:
        variables = {
            "otel_exporter_otlp_endpoint": collector.url,
            "otel_bsp_schedule_delay": "50",
            "otel_service_name": "mine",
        }
        allowed = {"jobs": "on", "webhook_allow_hosts": "127.0.0.1"}
        async with receiving() as receiver:
            with service(tmp_path, EMBEDDER, **allowed, **variables) as served:
                await asyncio.to_thread(served.wait_ready)
                url = f"{receiver.url}?token=private"
                body = {"documents": [{"id": "a", "text": WORDS}], "webhook_url": url}
                path = f"{served.url}/embed-batch"
                answer = await asyncio.to_thread(httpx2.post, path, json=body, headers=SENT)
                assert answer.status_code == 202, answer.text
                hook = await asyncio.wait_for(receiver.got.get(), WAIT_S)
                done = await asyncio.to_thread(finish, served, answer.json()["job_id"])
                assert done["status"] == "succeeded"
                assert await asyncio.to_thread(served.stop) == 0
    server, job = collector.one("POST /embed-batch"), collector.one("job embed")
    assert (server.trace_id, server.parent_id) == (TRACE, PARENT)
    assert (job.trace_id, job.parent_id, job.kind) == (TRACE, server.span_id, "consumer")
    assert job.attributes["mlapi.job.id"] == done["id"]
    assert {server.resource["mlapi.process"], job.resource["mlapi.process"]} == {"api", "worker"}
    assert job.resource["service.name"] == "mine"
    below = collector.below(job)
    assert {"batch", "queue", "tokenise", "sql read", "sql write"} == set(below)
    post = collector.one("POST")
    assert (post.trace_id, post.parent_id, post.kind) == (TRACE, server.span_id, "client")
    assert post.attributes["http.response.status_code"] == 204
    assert hook.headers["traceparent"] == f"00-{TRACE}-{post.span_id}-01"
    assert not any(b"words of" in sent or b"private" in sent for sent in collector.bodies)


async def test_a_retry_goes_on_in_the_same_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [RuntimeError(WORDS)]

    async def fail_once(_: object) -> None:
        if failures:
            raise failures.pop()

    with Collector() as collector:
        turn_on(monkeypatch, collector)
        telemetry = open_telemetry(otel_variables(), Metrics(), process="worker")
        assert telemetry is not None
        embedder = LineEmbedder(before=fail_once)
        async with bench(f"sqlite:///{tmp_path / 'test.db'}") as made:

            async def find(_: str) -> LineEmbedder:
                return embedder

            keys = await made.store(WORDS)
            new = NewJob(
                id="job_1",
                kind="embed",
                collection=0,
                request_id="r",
                model="m",
                request_hash="h",
                trace=json.dumps(SENT),
            )
            await made.database.run(lambda session: JobRepository(session).add(new, keys))
            runner = JobRunner(
                made.database,
                find=find,
                policy=RunnerPolicy(retry=RetryPolicy(attempts=3)),
                metrics=made.metrics,
                telemetry=telemetry,
            )
            assert await runner.run_next()
            await made.change(due_at=datetime(2020, 1, 1, tzinfo=UTC))
            assert await runner.run_next()
            assert (await made.job()).status == "succeeded"
        await asyncio.to_thread(telemetry.close)
    first, second = sorted(collector.named("job embed"), key=lambda span: span.start_ns)
    assert [span.trace_id for span in (first, second)] == [TRACE, TRACE]
    assert [span.parent_id for span in (first, second)] == [PARENT, PARENT]
    assert [span.attributes["mlapi.attempt"] for span in (first, second)] == [1, 2]
    assert (first.is_error, first.attributes["error.type"]) == (True, "internal_error")
    assert not second.is_error
    assert not any(b"words of" in sent for sent in collector.bodies)
