"""`/embed-batch` and `/jobs`: submitted once, seen by their owner, cancelled, retried."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from databases import migrated
from fastapi import FastAPI
from httpx2 import AsyncClient
from jobs import ask, claim, run_job, stored
from serving import FAKE, make_app, running

from app.features.documents.repository import DocumentRepository
from app.features.jobs.notifier import JobNotifier
from app.features.jobs.opening import JobsPart
from app.features.jobs.schemas import MAX_DOC_IDS, JobInfo
from app.features.jobs.values import Item, ItemState, Job
from app.runtime.runtime import Runtime

ADMIN = "an-admin-key-of-the-fleet"
DONE, FAILED = ItemState.DONE, ItemState.FAILED
MODELS = (
    FAKE
    + """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
default = true

[[models]]
name = "other-vectors"
task = "embedding"
engine = "fake"
"""
)


@dataclass
class CountingNotifier:
    calls: int = 0

    async def notify(self) -> None:
        self.calls += 1


@dataclass
class Serving:
    """A service whose notifier only counts."""

    app: FastAPI
    client: AsyncClient
    notifier: CountingNotifier

    @property
    def runtime(self) -> Runtime:
        runtime: Runtime = self.app.state.runtime
        return runtime

    async def submit(
        self, *ids: str, status: int = 202, headers: dict[str, str] | None = None, **body: Any
    ) -> dict[str, Any]:
        payload = body | ({"doc_ids": list(ids)} if ids else {})
        answer = await self.client.post("/embed-batch", json=payload, headers=headers)
        assert answer.status_code == status, answer.text
        content: dict[str, Any] = answer.json()
        return content

    async def store(self, *ids: str, headers: dict[str, str] | None = None) -> None:
        documents = [{"id": name, "text": f"Text of {name}."} for name in ids]
        answer = await self.client.post(
            "/documents", json={"documents": documents}, headers=headers
        )
        assert answer.status_code == 201, answer.text

    async def job(self, job_id: str, **query: Any) -> dict[str, Any]:
        answer = await self.client.get(f"/jobs/{job_id}", **query)
        assert answer.status_code == 200, answer.text
        JobInfo.model_validate_json(answer.content)
        content: dict[str, Any] = answer.json()
        return content

    async def texts_of(self, job_id: str) -> list[str]:
        """The texts that a worker would embed."""
        database = self.runtime.require_database()
        job: Job = await stored(database, job_id)
        items: list[Item] = await ask(database, "items", job.key, limit=1_000)
        keys = [item.document_key for item in items]
        sources = await database.read(lambda session: DocumentRepository(session).texts(keys))
        return [sources[key].text for key in keys]


def set_notifier(runtime: Runtime, notifier: JobNotifier | None) -> None:
    """Give the service another notifier."""
    runtime.part(JobsPart).jobs._notifier = notifier


@asynccontextmanager
async def serving_jobs(
    tmp_path: Path, *, models: str = MODELS, **settings: Any
) -> AsyncIterator[Serving]:
    app = make_app(tmp_path, models, **settings)
    async with running(app) as client:
        notifier = CountingNotifier()
        runtime: Runtime = app.state.runtime
        set_notifier(runtime, notifier)
        yield Serving(app, client, notifier)


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[Serving]:
    async with (
        migrated(database_url),
        serving_jobs(tmp_path, database_url=database_url) as service,
    ):
        yield service


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def make_key(service: Serving, *scopes: str, **wanted: Any) -> dict[str, str]:
    body = {"name": "k", "scopes": list(scopes)} | wanted
    answer = await service.client.post("/keys", json=body, headers=bearer(ADMIN))
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["key"])


def with_keys(tmp_path: Path, **settings: Any) -> Any:
    defaults = {"auth": "required", "admin_key": ADMIN, "default_limit": "10000/minute"}
    return serving_jobs(tmp_path, **(defaults | settings))


# Submitting


async def test_a_job_s_address_has_the_prefix_of_a_proxy(tmp_path: Path) -> None:
    async with serving_jobs(tmp_path, root_path="/ml") as service:
        body = {"documents": [{"id": "a", "text": "Some text."}]}
        answer = await service.client.post("/ml/embed-batch", json=body)
        assert answer.headers["Location"] == f"/ml/jobs/{answer.json()['job_id']}"
        assert (await service.client.get(answer.headers["Location"])).status_code == 200


async def test_a_job_is_accepted_and_can_be_followed(service: Serving) -> None:
    await service.store("a", "b")
    answer = await service.client.post(
        "/embed-batch",
        json={"doc_ids": ["b", "a", "b"], "webhook_url": "https://example.com/hook"},
        headers={"X-Request-ID": "my-request"},
    )
    assert answer.status_code == 202
    job_id = answer.json()["job_id"]
    assert answer.json() == {"job_id": job_id, "status": "queued"}
    assert answer.headers["Location"] == f"/jobs/{job_id}"
    job = await service.job(job_id)
    age = datetime.now(UTC) - datetime.fromisoformat(job["created_at"])
    assert abs(age.total_seconds()) < 60
    assert job == {
        "id": job_id,
        "kind": "embed",
        "status": "queued",
        "progress": {"done": 0, "total": 2, "failed": 0},
        "attempts": 0,
        "error": None,
        "result": None,
        "model": "vectors",
        "request_id": "my-request",
        "created_at": job["created_at"],
        "started_at": None,
        "updated_at": job["created_at"],
        "finished_at": None,
        "webhook": {
            "url": "https://example.com/hook",
            "status": None,
            "attempts": 0,
            "answer": None,
            "delivered_at": None,
        },
    }
    assert await service.texts_of(job_id) == ["Text of b.", "Text of a."]
    assert service.notifier.calls == 1


async def test_documents_can_come_with_the_job(service: Serving) -> None:
    await service.store("a")
    documents = [
        {"id": "b", "text": "New."},
        {"text": "Nameless."},
        {"id": "a", "text": "Changed.", "metadata": {"n": 1}},
    ]
    job_id = (await service.submit(documents=documents))["job_id"]
    assert await service.texts_of(job_id) == ["New.", "Nameless.", "Changed."]
    stored_document = (await service.client.get("/documents/a")).json()
    assert (stored_document["text"], stored_document["metadata"]) == ("Changed.", {"n": 1})


async def test_progress_and_result_are_shown(service: Serving) -> None:
    await service.store("a", "b", "c")
    job_id = (await service.submit("a", "b", "c"))["job_id"]
    database = service.runtime.require_database()
    job = await claim(database)
    assert job is not None
    running_job = await service.job(job_id)
    assert (running_job["status"], running_job["attempts"]) == ("running", 1)
    assert running_job["started_at"] is not None
    await ask(database, "release", job.key, lease="mine")
    await run_job(database, DONE, FAILED, DONE)
    ended = await service.job(job_id)
    assert (ended["status"], ended["progress"]) == (
        "failed",
        {"done": 2, "total": 3, "failed": 1},
    )
    assert ended["error"] == {
        "code": "documents_failed",
        "detail": "1 of 3 documents failed; `result` names them.",
    }
    assert ended["result"] == {
        "embedded": 2,
        "skipped": 0,
        "failed": 1,
        "errors": [{"id": "b", "error": "broken"}],
    }
    assert ended["finished_at"] == ended["updated_at"]


async def test_another_embedder_can_be_named(service: Serving) -> None:
    await service.store("a")
    job_id = (await service.submit("a", model_name="other-vectors"))["job_id"]
    assert (await service.job(job_id))["model"] == "other-vectors"


@pytest.mark.parametrize("name", ["dummy", "unheard-of", ""])
async def test_a_model_that_embeds_nothing_is_404(tmp_path: Path, name: str) -> None:
    async with serving_jobs(tmp_path) as service:
        await service.store("a")
        problem = await service.submit("a", model_name=name, status=404)
        assert problem["code"] == "model_not_found"
        assert service.notifier.calls == 0


async def test_documents_that_are_not_there_are_named(service: Serving) -> None:
    await service.store("a")
    problem = await service.submit("a", *(f"gone-{n}" for n in range(7)), status=404)
    assert problem["code"] == "document_not_found"
    assert problem["detail"] == (
        "7 documents are not there, such as 'gone-0', 'gone-1', 'gone-2', 'gone-3', 'gone-4'."
    )
    assert (await service.client.get("/jobs")).json() == {"jobs": [], "next": None}
    assert service.notifier.calls == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"doc_ids": ["a"], "documents": [{"text": "x"}]},
        {"doc_ids": []},
        {"documents": []},
        {"doc_ids": "a"},
        {"doc_ids": ["a\0"]},
        {"doc_ids": ["a"] * (MAX_DOC_IDS + 1)},
        {"documents": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]},
        {"doc_ids": ["a"], "unknown": 1},
        *(
            {"doc_ids": ["a"], "webhook_url": url}
            for url in (
                "",
                "example.com",
                "ftp://example.com/",
                "http://",
                "http://user:secret@example.com/",
                "http://example.com/a b",
                "http://example.com/\n",
                "http://exämple.com/",
                "http://example.com/" + "x" * 2_000,
                1,
            )
        ),
    ],
)
async def test_what_is_no_job_is_422(tmp_path: Path, body: dict[str, Any]) -> None:
    async with serving_jobs(tmp_path) as service:
        problem = await service.submit(status=422, **body)
        assert problem["code"] == "invalid_request"
        assert problem["errors"][0]["loc"][0] == "body"


@pytest.mark.parametrize(
    "url", ["http://e.com", "https://e.com:8443/a?b=c#d", "http://[2001:db8::1]:80/x", "http://1.2"]
)
async def test_any_address_of_http_can_be_a_webhook(tmp_path: Path, url: str) -> None:
    async with serving_jobs(tmp_path) as service:
        await service.store("a")
        job_id = (await service.submit("a", webhook_url=url))["job_id"]
        assert (await service.job(job_id))["webhook"]["url"] == url


async def test_without_a_notifier_no_job_is_taken_and_none_is_lost(tmp_path: Path) -> None:
    async with serving_jobs(tmp_path) as service:
        await service.store("a")
        job_id = (await service.submit("a"))["job_id"]
        await run_job(service.runtime.require_database(), FAILED)
        set_notifier(service.runtime, None)
        problem = await service.submit("a", status=503)
        assert problem["code"] == "jobs_unavailable"
        again = await service.client.post(f"/jobs/{job_id}/retry")
        assert (again.status_code, again.json()["code"]) == (503, "jobs_unavailable")
        assert (await service.job(job_id))["status"] == "failed"
        assert len((await service.client.get("/jobs")).json()["jobs"]) == 1


# The same call again


KEY = {"Idempotency-Key": "order-7"}


async def test_the_same_call_with_the_same_key_is_the_same_job(service: Serving) -> None:
    body: dict[str, Any] = {"documents": [{"id": "a", "text": "x", "metadata": {"n": 1, "m": [2]}}]}
    first = await service.submit(**body, headers=KEY)
    await claim(service.runtime.require_database())
    body = {"documents": [{"metadata": {"m": [2], "n": 1}, "text": "x", "id": "a"}]}
    second = await service.submit(**body, headers=KEY)
    assert second == {"job_id": first["job_id"], "status": "running"}
    assert service.notifier.calls == 1


async def test_another_call_with_the_same_key_is_a_conflict_and_stores_nothing(
    service: Serving,
) -> None:
    await service.store("a")
    await service.submit("a", headers=KEY)
    for body in (
        {"documents": [{"id": "b", "text": "x"}]},
        {"doc_ids": ["a"], "webhook_url": "https://example.com/"},
        {"doc_ids": ["a"], "model_name": "vectors"},
        {"doc_ids": ["a", "a"]},
    ):
        problem = await service.submit(**body, headers=KEY, status=409)
        assert problem["code"] == "idempotency_conflict"
    assert (await service.client.get("/documents/b")).status_code == 404
    assert len((await service.client.get("/jobs")).json()["jobs"]) == 1


async def test_200_calls_at_once_with_one_key_make_one_job(service: Serving) -> None:
    body: dict[str, Any] = {"documents": [{"id": f"d{n}", "text": f"text {n}"} for n in range(20)]}
    answers = await asyncio.gather(*(service.submit(**body, headers=KEY) for _ in range(200)))
    assert len({answer["job_id"] for answer in answers}) == 1
    assert len((await service.client.get("/jobs")).json()["jobs"]) == 1
    assert service.notifier.calls == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "schlüssel"])
async def test_a_key_that_no_log_could_show_is_422(tmp_path: Path, key: str) -> None:
    async with serving_jobs(tmp_path) as service:
        await service.store("a")
        headers = {"Idempotency-Key": key.encode("latin-1")}
        problem = await service.submit("a", headers=headers, status=422)  # type: ignore[arg-type]
        assert problem["errors"][0]["loc"] == ["header", "Idempotency-Key"]


# Whose jobs


async def test_jobs_and_idempotency_keys_belong_to_the_caller(tmp_path: Path) -> None:
    async with with_keys(tmp_path) as service:
        mine = await make_key(service, "jobs", "documents")
        yours = await make_key(service, "jobs", "documents")
        await service.store("a", headers=mine)
        problem = await service.submit("a", headers=yours, status=404)
        assert problem["code"] == "document_not_found"
        await service.store("a", headers=yours)
        job_id = (await service.submit("a", headers=mine | KEY))["job_id"]
        other_id = (await service.submit("a", headers=yours | KEY))["job_id"]
        assert job_id != other_id

        async def listed(headers: dict[str, str]) -> list[str]:
            page = (await service.client.get("/jobs", headers=headers)).json()
            return [job["id"] for job in page["jobs"]]

        assert await listed(mine) == [job_id]
        assert await listed(yours) == [other_id]
        assert await listed(bearer(ADMIN)) == [other_id, job_id]
        for method, path in (
            ("GET", f"/jobs/{other_id}"),
            ("DELETE", f"/jobs/{other_id}"),
            ("POST", f"/jobs/{other_id}/retry"),
            ("GET", f"/jobs/{other_id}/events"),
        ):
            refused = await service.client.request(method, path, headers=mine)
            assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found"), path
        assert (await service.job(other_id, headers=bearer(ADMIN)))["status"] == "queued"


async def test_jobs_need_their_scope_and_documents_theirs(tmp_path: Path) -> None:
    async with with_keys(tmp_path) as service:
        both = await make_key(service, "jobs", "documents")
        jobs = await make_key(service, "jobs")
        documents = await make_key(service, "documents")
        job_id = (await service.submit(documents=[{"id": "a", "text": "x"}], headers=both))[
            "job_id"
        ]
        for method, path in (
            ("GET", "/jobs"),
            ("GET", f"/jobs/{job_id}"),
            ("DELETE", f"/jobs/{job_id}"),
            ("POST", f"/jobs/{job_id}/retry"),
            ("GET", f"/jobs/{job_id}/events"),
        ):
            for headers, status in ((documents, 403), ({}, 401)):
                refused = await service.client.request(method, path, headers=headers)
                assert refused.status_code == status, path
        problem = await service.submit("a", headers=documents, status=403)
        assert problem["code"] == "forbidden"
        problem = await service.submit(documents=[{"text": "x"}], headers=jobs, status=403)
        assert problem["detail"] == "The key has no scope 'documents'."


async def test_a_new_job_costs_as_many_texts_as_it_has_documents(tmp_path: Path) -> None:
    async with with_keys(tmp_path) as service:
        mine = await make_key(service, "jobs", "documents", tokens_per_day=5)
        await service.store("a", "b", "c", headers=mine)
        for _ in range(3):
            await service.submit("a", "b", "c", headers=mine | KEY)
        await service.submit("a", "b", headers=mine)
        problem = await service.submit("a", headers=mine, status=429)
        assert problem["code"] == "rate_limited"
        await service.submit("a", "b", "c", headers=mine | KEY)  # it is paid for


async def test_a_caller_has_so_many_unfinished_jobs_and_no_more(tmp_path: Path) -> None:
    async with with_keys(tmp_path, jobs_per_key=2) as service:
        mine = await make_key(service, "jobs", "documents")
        yours = await make_key(service, "jobs", "documents")
        for headers in (mine, yours):
            await service.store("a", headers=headers)
        first = await service.submit("a", headers=mine | KEY)
        await run_job(service.runtime.require_database(), FAILED)
        for _ in range(2):
            last = await service.submit("a", headers=mine)
        answer = await service.client.post(
            "/embed-batch", json={"documents": [{"id": "new", "text": "x"}]}, headers=mine
        )
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_jobs")
        assert int(answer.headers["Retry-After"]) > 0
        assert (await service.client.get("/documents/new", headers=mine)).status_code == 404
        again = f"/jobs/{first['job_id']}/retry"
        answer = await service.client.post(again, headers=mine)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_jobs")
        assert (await service.job(first["job_id"], headers=mine))["status"] == "failed"
        refused = service.runtime.metrics.registry.get_sample_value("mlapi_jobs_refused_total")
        assert refused == 2

        await service.submit("a", headers=yours)
        assert await service.submit("a", headers=mine | KEY) == first | {"status": "failed"}
        await service.client.delete(f"/jobs/{last['job_id']}", headers=mine)
        assert (await service.client.post(again, headers=mine)).status_code == 202


# Lists


async def test_pages_lead_from_the_newest_to_the_oldest(service: Serving) -> None:
    await service.store("a")
    ids = [(await service.submit("a"))["job_id"] for _ in range(5)][::-1]
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await service.client.get("/jobs", params=query)).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor, pages = page["next"], pages + 1
    assert (seen, pages) == (ids, 3)
    await service.client.delete(f"/jobs/{ids[1]}")
    page = (await service.client.get("/jobs", params={"status": "cancelled"})).json()
    assert [job["id"] for job in page["jobs"]] == [ids[1]]


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 101}, {"status": "done"}, {"cursor": "x"}, {"cursor": "0"}, {"x": 1}],
)
async def test_a_list_that_cannot_be_asked_for_is_422(
    tmp_path: Path, query: dict[str, Any]
) -> None:
    async with serving_jobs(tmp_path) as service:
        answer = await service.client.get("/jobs", params=query)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"][0] == "query"


# Cancel and retry


async def test_an_open_job_is_cancelled_and_a_finished_one_is_not(service: Serving) -> None:
    await service.store("a", "b")
    job_id = (await service.submit("a", "b"))["job_id"]
    job = await claim(service.runtime.require_database())
    assert job is not None
    answer = await service.client.delete(f"/jobs/{job_id}")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert answer.json()["finished_at"] is not None
    assert not await ask(service.runtime.require_database(), "finish", job.key, lease="mine")
    again = await service.client.delete(f"/jobs/{job_id}")
    assert (again.status_code, again.json()["code"]) == (409, "job_state")
    assert again.json()["detail"] == "The job is cancelled already."


async def test_a_failed_job_can_be_retried_and_no_other(service: Serving) -> None:
    await service.store("a", "b")
    job_id = (await service.submit("a", "b"))["job_id"]
    early = await service.client.post(f"/jobs/{job_id}/retry")
    assert (early.status_code, early.json()["code"]) == (409, "job_state")
    assert early.json()["detail"] == "The job is queued; only a failed one can be retried."
    await run_job(service.runtime.require_database(), DONE, FAILED)
    answer = await service.client.post(f"/jobs/{job_id}/retry")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["error"]) == ("queued", None)
    assert answer.json()["progress"] == {"done": 1, "total": 2, "failed": 0}
    assert service.notifier.calls == 2
    assert await service.texts_of(job_id) == ["Text of b."]


@pytest.mark.parametrize("path", ["", "/retry", "/events"])
async def test_a_job_that_is_not_there_is_404(tmp_path: Path, path: str) -> None:
    async with serving_jobs(tmp_path) as service:
        method = "POST" if path == "/retry" else "GET"
        answer = await service.client.request(method, f"/jobs/job_unknown{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
        wrong = await service.client.request(method, f"/jobs/unknown{path}")
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")


async def test_a_job_that_is_not_there_cannot_be_cancelled(tmp_path: Path) -> None:
    async with serving_jobs(tmp_path) as service:
        answer = await service.client.delete("/jobs/job_unknown")
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_a_database_that_is_away_is_a_503(tmp_path: Path) -> None:
    async with serving_jobs(tmp_path) as service:
        await service.store("a")
        await service.runtime.require_database().close()
        problem = await service.submit("a", status=503)
        assert problem["code"] == "database_unavailable"
        for path in ("/jobs", "/jobs/job_x", "/jobs/job_x/events"):
            answer = await service.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
