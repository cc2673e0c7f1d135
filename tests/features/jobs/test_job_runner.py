"""A worker's way through a job, on both databases, with an embedder that the test controls."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.core.backoff import Backoff
from app.db.schema import upgrade
from app.db.session import Database
from app.errors import EngineError, InferenceFailedError, ModelNotFoundError
from app.features.documents.chunks import Span
from app.features.documents.repository import DocumentRepository, NewDocument
from app.features.documents.tables import PassageRow
from app.features.jobs.batches import BatchBounds, JobEmbedder, Row
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.policy import RetryPolicy
from app.features.jobs.repository import JobRepository
from app.features.jobs.runner import JobRunner, RunnerPolicy
from app.features.jobs.tables import JobRow
from app.features.jobs.values import Job, JobStatus, NewJob

TIMEOUT_S = 10.0
OTHER_LEASE = "another worker's"


@dataclass
class LineEmbedder:
    """Cuts at lines; a vector says how long the line is. `poison` fails, `broken` raises."""

    space: str = "lines@1"
    before: Callable[[Sequence[str]], Any] | None = None
    calls: list[list[str]] = field(default_factory=list)
    is_broken: bool = False

    def spans(self, text: str) -> list[Span]:
        ends = [i + 1 for i, letter in enumerate(text) if letter == "\n"] + [len(text)]
        return [Span(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    async def embed(self, texts: Sequence[str]) -> list[Row]:
        self.calls.append(list(texts))
        if self.before is not None:
            await self.before(texts)
        if any("broken" in text for text in texts):
            raise RuntimeError("the engine is broken")
        return [
            InferenceFailedError() if "poison" in t else np.full(3, len(t), dtype=np.float32)
            for t in texts
        ]


@dataclass
class Bench:
    """A database with a job on it."""

    database: Database
    metrics: JobMetrics = field(default_factory=JobMetrics)

    async def store(self, *texts: str, collection: int = 0) -> list[int]:
        documents = [NewDocument(id=f"d{i}", text=text) for i, text in enumerate(texts)]

        def work(session: Session) -> list[int]:
            repository = DocumentRepository(session)
            now = datetime.now(UTC)
            return repository.upsert_many(collection, documents, request_id="r", now=now)

        return await self.database.run(work)

    async def submit(self, keys: Sequence[int], name: str = "job_1") -> Job:
        new = NewJob(
            id=name, kind="embed", collection=0, request_id="r", model="m", request_hash="h"
        )
        job = await self.database.run(lambda session: JobRepository(session).add(new, keys))
        assert job is not None
        return job

    async def job(self, name: str = "job_1") -> Job:
        job = await self.database.read(lambda s: JobRepository(s).by_id(name, collection=None))
        assert job is not None
        return job

    async def change(self, **values: Any) -> None:
        await self.database.run(lambda s: s.execute(update(JobRow).values(**values)) and None)

    async def passages(self) -> list[tuple[int, int, str]]:
        query = select(PassageRow.document_key, PassageRow.ordinal, PassageRow.space)

        def work(session: Session) -> list[tuple[int, int, str]]:
            rows = session.execute(query.order_by(PassageRow.document_key, PassageRow.ordinal))
            return [(row.document_key, row.ordinal, row.space) for row in rows]

        return await self.database.read(work)

    def runner(self, embedder: JobEmbedder, **policy: Any) -> JobRunner:
        async def find(_name: str) -> JobEmbedder:
            return embedder

        stopping = policy.pop("is_stopping", lambda: False)
        find = policy.pop("find", find)
        bounds: dict[str, Any] = {"lease_s": 30.0, "retry": RetryPolicy(attempts=3)} | policy
        return JobRunner(
            self.database,
            find=find,
            policy=RunnerPolicy(**bounds),
            metrics=self.metrics,
            is_stopping=stopping,
        )


@asynccontextmanager
async def bench(url: str) -> AsyncIterator[Bench]:
    database = Database(url, timeout_s=TIMEOUT_S)
    try:
        await asyncio.to_thread(upgrade, database)
        yield Bench(database)
    finally:
        await database.close()


def counted(metrics: JobMetrics, state: str) -> float:
    return metrics.registry.get_sample_value("mlapi_job_items_total", {"state": state}) or 0


def attempts(metrics: JobMetrics, outcome: str) -> float:
    labels = {"outcome": outcome}
    return metrics.registry.get_sample_value("mlapi_job_attempts_total", labels) or 0


async def test_every_document_gets_its_passages_and_the_job_succeeds(database_url: str) -> None:
    async with bench(database_url) as it:
        keys = await it.store("one", "two\nlines", "three\nwhole\nlines")
        await it.submit(keys)
        assert await it.runner(LineEmbedder()).run_next()
        job = await it.job()
        assert (job.status, job.done, job.total, job.failed) == (JobStatus.SUCCEEDED, 3, 3, 0)
        assert job.result == {"embedded": 3, "skipped": 0, "failed": 0, "errors": []}
        ordinals = [
            (keys[0], 0),
            *((keys[1], i) for i in range(2)),
            *((keys[2], i) for i in range(3)),
        ]
        assert await it.passages() == [(key, ordinal, "lines@1") for key, ordinal in ordinals]
        assert counted(it.metrics, "done") == 3


async def test_without_a_due_job_there_is_nothing_to_do(database_url: str) -> None:
    async with bench(database_url) as it:
        assert not await it.runner(LineEmbedder()).run_next()


async def test_batches_are_bounded_in_documents_and_in_characters(database_url: str) -> None:
    async with bench(database_url) as it:
        await it.submit(await it.store(*["ten chars."] * 7, "a" * 100, "b"))
        embedder = LineEmbedder()
        bounds = BatchBounds(documents=4, chars=30)
        await it.runner(embedder, batch=bounds).run_next()
        assert [len(texts) for texts in embedder.calls] == [3, 3, 1, 1, 1]
        assert (await it.job()).done == 9


async def test_a_document_that_is_gone_is_skipped(database_url: str) -> None:
    async with bench(database_url) as it:
        await it.submit(await it.store("stays", "goes"))
        gone = lambda s: DocumentRepository(s).delete("d1", collection=0, sees_all=False)  # noqa: E731
        await it.database.run(gone)
        await it.runner(LineEmbedder()).run_next()
        job = await it.job()
        assert (job.status, job.done) == (JobStatus.SUCCEEDED, 2)
        assert job.result is not None
        assert (job.result["embedded"], job.result["skipped"]) == (1, 1)


async def test_a_document_that_changes_under_way_is_embedded_with_its_new_text(
    database_url: str,
) -> None:
    async with bench(database_url) as it:
        keys = await it.store("old")
        await it.submit(keys)
        embedder = LineEmbedder()

        async def change(_: Sequence[str]) -> None:
            embedder.before = None
            assert await it.store("new\ntext") == keys

        embedder.before = change
        await it.runner(embedder).run_next()
        assert embedder.calls == [["old"], ["new\n", "text"]]
        assert [ordinal for _, ordinal, _ in await it.passages()] == [0, 1]
        assert (await it.job()).done == 1


async def test_a_document_that_the_engine_fails_on_fails_alone(database_url: str) -> None:
    async with bench(database_url) as it:
        keys = await it.store("good", "some poison", "good too")
        await it.submit(keys)
        await it.runner(LineEmbedder()).run_next()
        job = await it.job()
        assert (job.status, job.done, job.failed) == (JobStatus.FAILED, 2, 1)
        assert job.error_code == "documents_failed"
        assert job.result is not None
        assert job.result["errors"] == [{"id": "d1", "error": "inference_failed"}]
        assert {key for key, _, _ in await it.passages()} == {keys[0], keys[2]}


async def test_a_retry_does_only_what_had_failed(database_url: str) -> None:
    async with bench(database_url) as it:
        await it.submit(await it.store("good", "some poison"))
        await it.runner(LineEmbedder()).run_next()
        await it.store("good", "some medicine")
        job = await it.job()
        assert await it.database.run(lambda s: JobRepository(s).retry(job.key))
        embedder = LineEmbedder()
        await it.runner(embedder).run_next()
        assert embedder.calls == [["some medicine"]]
        again = await it.job()
        assert (again.status, again.done, again.failed) == (JobStatus.SUCCEEDED, 2, 0)


async def test_an_engine_that_raises_is_an_attempt_that_failed(database_url: str) -> None:
    async with bench(database_url) as it:
        await it.submit(await it.store("broken"))
        runner = it.runner(
            LineEmbedder(), retry=RetryPolicy(attempts=2, backoff=Backoff(first_s=0, max_s=0))
        )
        assert await runner.run_next()
        job = await it.job()
        assert (job.status, job.stalled_attempts) == (JobStatus.QUEUED, 1)
        assert await runner.run_next()
        job = await it.job()
        assert (job.status, job.error_code) == (JobStatus.FAILED, "internal_error")
        assert "broken" not in (job.error or ""), "messages may quote the text"
        assert attempts(it.metrics, "failed") == 2


class HangingTokeniser(LineEmbedder):
    """Cuts nothing until the test says so."""

    go: threading.Event

    def spans(self, text: str) -> list[Span]:
        self.go.wait(TIMEOUT_S)
        return super().spans(text)


async def test_a_tokeniser_that_hangs_is_an_attempt_that_failed_and_the_end_of_the_worker(
    database_url: str,
) -> None:
    async with bench(database_url) as it:
        await it.submit(await it.store("a", "b"))
        hanging = HangingTokeniser()
        hanging.go = threading.Event()
        assert await it.runner(hanging, batch=BatchBounds(cut_s=0.1)).run_next()
        hanging.go.set()
        assert hanging.is_broken
        job = await it.job()
        assert (job.status, job.failed, job.error_code) == (JobStatus.QUEUED, 0, "engine_failed")
        assert attempts(it.metrics, "failed") == 1


@pytest.mark.parametrize("failure", [ModelNotFoundError("none"), EngineError("no file")])
async def test_a_model_that_cant_be_had_is_named_in_the_job(
    database_url: str, failure: Exception
) -> None:
    async def find(_name: str) -> JobEmbedder:
        raise failure

    async with bench(database_url) as it:
        await it.submit(await it.store("text"))
        await it.runner(LineEmbedder(), find=find, retry=RetryPolicy(attempts=1)).run_next()
        job = await it.job()
        assert job.status is JobStatus.FAILED
        assert job.error_code == getattr(failure, "code", getattr(failure, "reason", None))


async def test_a_slice_ends_and_the_rest_waits_its_turn(database_url: str) -> None:
    async with bench(database_url) as it:
        await it.submit(await it.store(*["text"] * 6))
        answers = iter([False, True, True, True])
        runner = it.runner(
            LineEmbedder(), batch=BatchBounds(documents=2), is_stopping=lambda: next(answers)
        )
        assert await runner.run_next()
        job = await it.job()
        assert (job.status, job.done, job.attempts) == (JobStatus.QUEUED, 4, 0)
        assert job.lease is None
        await it.runner(LineEmbedder()).run_next()
        assert (await it.job()).status is JobStatus.SUCCEEDED
        assert [attempts(it.metrics, end) for end in ("released", "finished")] == [1, 1]


async def test_a_worker_that_lost_the_lease_stores_nothing(database_url: str) -> None:
    async with bench(database_url) as it:
        await it.submit(await it.store("text"))

        async def give_away(_: Sequence[str]) -> None:
            await it.change(lease=OTHER_LEASE)

        assert await it.runner(LineEmbedder(before=give_away)).run_next()
        job = await it.job()
        assert (job.status, job.done, job.lease) == (JobStatus.RUNNING, 0, OTHER_LEASE)
        assert await it.passages() == []
        assert attempts(it.metrics, "let_go") == 1


async def test_a_cancelled_job_is_let_go_before_its_batch_is_done(database_url: str) -> None:
    async with bench(database_url) as it:
        await it.submit(await it.store("text"))
        never = asyncio.Event()

        async def cancel(_: Sequence[str]) -> None:
            job = await it.job()
            await it.database.run(lambda s: JobRepository(s).cancel(job.key))
            await never.wait()

        runner = it.runner(LineEmbedder(before=cancel), lease_s=0.3)
        async with asyncio.timeout(TIMEOUT_S):
            assert await runner.run_next()
        assert (await it.job()).status is JobStatus.CANCELLED
        assert await it.passages() == []


async def test_an_attempt_that_is_cancelled_puts_its_job_back_at_once(database_url: str) -> None:
    began = asyncio.Event()

    async def before(_: Sequence[str]) -> None:
        began.set()
        await asyncio.Event().wait()

    async with bench(database_url) as jobs:
        await jobs.submit(await jobs.store("one"))
        running = asyncio.create_task(jobs.runner(LineEmbedder(before=before)).run_next())
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        job = await jobs.job()
        assert (job.status, job.lease, job.error) == (JobStatus.QUEUED, None, None)


async def test_the_lease_is_kept_while_a_batch_takes_long(database_url: str) -> None:
    async with bench(database_url) as it:
        await it.submit(await it.store("text"))
        leases: list[datetime | None] = []

        async def be_slow(_: Sequence[str]) -> None:
            leases.append((await it.job()).lease_until)
            while len(set(leases)) < 3:
                await asyncio.sleep(0.02)
                leases.append((await it.job()).lease_until)

        await it.runner(LineEmbedder(before=be_slow), lease_s=0.3).run_next()
        assert (await it.job()).status is JobStatus.SUCCEEDED


async def test_running_a_job_twice_leaves_one_set_of_vectors(database_url: str) -> None:
    async with bench(database_url) as it:
        keys = await it.store("one", "two\nlines")
        for name in ("job_1", "job_2"):
            await it.submit(keys, name)
            await it.runner(LineEmbedder()).run_next()
        assert len(await it.passages()) == 3
        count = select(func.count()).select_from(PassageRow)
        assert await it.database.read(lambda s: s.scalar(count)) == 3
