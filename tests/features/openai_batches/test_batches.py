"""`/v1/files` and `/v1/batches` by OpenAI's own client; the service's routes run the lines."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
import pytest
from databases import says
from fastapi import FastAPI
from openai import AsyncOpenAI
from openai.types import Batch
from serving import make_app, running
from starlette.types import Message

from app.errors import BodyTimeoutError, OverloadedError
from app.features.documents.collections import CollectionScope
from app.features.openai_batches.metrics import BatchesMetrics
from app.features.openai_batches.opening import BatchesPart
from app.features.openai_batches.upload import UploadBounds, Uploads
from app.runtime.runtime import Runtime

MODELS = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
default = true
fake = { fail_on = "poison" }

[[models]]
name = "chatty"
task = "chat"
engine = "fake"
default = true

[[models]]
name = "slow"
task = "chat"
engine = "fake"
slots = 2
fake = { delay_ms = 50 }
"""
CHAT: Final = "/v1/chat/completions"
EMBED: Final = "/v1/embeddings"
ADMIN = "an-admin-key-of-the-fleet"
ENDED = {"completed", "failed", "expired", "cancelled"}
PLENTY_S = 30.0
PAST = "2020-01-01 00:00:00.000000"


@dataclass
class Serving:
    """A service with a client of OpenAI's."""

    app: FastAPI
    ai: AsyncOpenAI

    @property
    def runtime(self) -> Runtime:
        runtime: Runtime = self.app.state.runtime
        return runtime

    def client(self, key: str) -> AsyncOpenAI:
        return self.ai.with_options(api_key=key)

    async def upload(self, lines: Sequence[Any], ai: AsyncOpenAI | None = None) -> str:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        content = "\n".join(texts).encode()
        file = await (ai or self.ai).files.create(file=("in.jsonl", content), purpose="batch")
        assert (file.bytes, file.filename, file.purpose) == (len(content), "in.jsonl", "batch")
        return file.id

    async def begin(
        self, endpoint: str, lines: Sequence[Any], ai: AsyncOpenAI | None = None
    ) -> Batch:
        return await (ai or self.ai).batches.create(
            input_file_id=await self.upload(lines, ai),
            endpoint=endpoint,  # type: ignore[arg-type]  # one that it knows
            completion_window="24h",
        )

    async def until(self, batch: Batch, statuses: set[str] = ENDED) -> Batch:
        async with asyncio.timeout(PLENTY_S):
            while batch.status not in statuses:
                await asyncio.sleep(0.02)  # it runs in the background
                batch = await self.ai.batches.retrieve(batch.id)
        return batch

    async def lines(self, file_id: str | None) -> dict[str, dict[str, Any]]:
        """Return the lines of a file by their custom ids, each of which it has once."""
        if file_id is None:
            return {}
        content = (await self.ai.files.content(file_id)).text
        assert content.endswith("\n")
        found = [json.loads(line) for line in content.splitlines()]
        assert len({line["custom_id"] for line in found}) == len(found)
        return {line["custom_id"]: line for line in found}

    async def sql(self, statement: str, **values: Any) -> Any:
        return await self.runtime.require_database().run(says(statement, **values))

    async def lose(self, batch: Batch, *, is_late: bool = False) -> None:
        """Let a batch look as if its process had died; `is_late`: a day ago."""
        change = "UPDATE batches SET lease = 'lost', due_at = :past WHERE id = :id"
        await self.sql(change, past=PAST, id=batch.id)
        if is_late:
            change = "UPDATE batches SET expires_at = :past WHERE id = :id"
            await self.sql(change, past=PAST, id=batch.id)

    def counted(self, outcome: str) -> float:
        """Return how many lines had an outcome."""
        name = "mlapi_openai_batch_lines_total"
        registry = self.runtime.metrics.registry
        return registry.get_sample_value(name, {"outcome": outcome}) or 0.0


@asynccontextmanager
async def made(folder: Path, **settings: Any) -> AsyncIterator[Serving]:
    app = make_app(folder, MODELS, **settings)
    async with running(app):
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            yield Serving(
                app,
                AsyncOpenAI(
                    api_key=ADMIN, base_url="http://test/v1", http_client=client, max_retries=0
                ),
            )


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with made(
        tmp_path_factory.mktemp("app"),
        batch_file_bytes=200_000,
        batch_yield_ms=0,
        batch_files_mb=1,
    ) as service:
        yield service


def asks(endpoint: str, *bodies: Any) -> list[dict[str, Any]]:
    return [
        {"custom_id": f"line-{number}", "method": "POST", "url": endpoint, "body": body}
        for number, body in enumerate(bodies)
    ]


def chat(content: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **fields}


BODIES = {
    EMBED: (
        {"input": "one text", "model": "vectors"},
        {"input": ["two", "texts"], "model": "vectors", "encoding_format": "base64"},
        {"input": 5, "model": "vectors"},
        {"input": "x", "model": "unknown"},
        {"input": "poison", "model": "vectors"},
    ),
    CHAT: (
        chat("Hello?", model="chatty"),
        chat("Hello again?", model="chatty", max_tokens=3),
        chat("", model="chatty", temperature=9),
        {"messages": [], "model": "chatty"},
        {},
    ),
    "/v1/completions": ({"model": "chatty", "prompt": "Once upon a", "max_tokens": 4}, {}),
    "/v1/responses": ({"model": "chatty", "input": "Hello?", "store": False}, {"input": 1}),
}
CHANGES = {"id", "created", "created_at", "completed_at", "request_id"}


def without_ids(value: Any) -> Any:
    """Leave out what two answers to one request differ in."""
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k not in CHANGES}
    return [without_ids(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("endpoint", BODIES)
async def test_each_line_is_answered_as_its_route_answers(service: Serving, endpoint: str) -> None:
    bodies = BODIES[endpoint]
    batch = await service.begin(endpoint, asks(endpoint, *bodies))
    assert batch.status == "validating"
    ended = await service.until(batch)
    assert ended.status == "completed"
    good = await service.lines(ended.output_file_id)
    bad = await service.lines(ended.error_file_id)
    assert len(good) + len(bad) == len(bodies)
    assert ended.request_counts is not None
    counts = ended.request_counts
    assert (counts.total, counts.completed, counts.failed) == (len(bodies), len(good), len(bad))
    transport = httpx2.ASGITransport(service.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        for number, body in enumerate(bodies):
            online = await client.post(endpoint, json=body)
            line = (good if online.status_code == 200 else bad)[f"line-{number}"]
            assert line.keys() == {"id", "custom_id", "response", "error"}
            assert line["error"] is None
            assert line["response"]["status_code"] == online.status_code
            assert line["response"]["request_id"]
            assert without_ids(line["response"]["body"]) == without_ids(online.json())


async def test_a_batch_and_its_files_are_what_the_client_knows(service: Serving) -> None:
    file_id = await service.upload(asks(EMBED, *[{"input": f"text {n}"} for n in range(100)]))
    created = await service.ai.batches.create(
        input_file_id=file_id,
        endpoint=EMBED,
        completion_window="24h",
        metadata={"night": "ly"},
        output_expires_after={"anchor": "created_at", "seconds": 3_600},
    )
    with pytest.raises(openai.ConflictError) as refused:
        await service.ai.files.delete(file_id)
    assert refused.value.code == "file_in_use"
    ended = await service.until(created)
    assert (ended.metadata, ended.expires_at) == ({"night": "ly"}, created.created_at + 86_400)
    assert ended.in_progress_at is not None
    assert ended.finalizing_at is not None
    assert ended.completed_at is not None
    assert ended.error_file_id is None
    assert ended.output_file_id is not None
    output = await service.ai.files.retrieve(ended.output_file_id)
    assert (output.purpose, output.expires_at) == ("batch_output", output.created_at + 3_600)
    texts = (await service.ai.files.content(ended.output_file_id)).text.splitlines()
    written = [json.loads(line)["custom_id"] for line in texts]
    assert written == [f"line-{number}" for number in range(100)]
    assert (await service.ai.files.content(file_id)).text.count("\n") == 99
    with pytest.raises(openai.ConflictError):
        await service.ai.batches.cancel(created.id)
    deleted = await service.ai.files.delete(file_id)
    assert deleted.deleted
    with pytest.raises(openai.NotFoundError):
        await service.ai.files.content(file_id)
    listed = [one.id async for one in service.ai.batches.list(limit=1)]
    assert listed[0] == created.id
    assert len(set(listed)) == len(listed) > 1
    files = [one.id async for one in service.ai.files.list(purpose="batch_output", order="asc")]
    assert files[-1] == ended.output_file_id
    assert file_id not in files


async def test_a_file_that_is_wrong_fails_its_batch_and_names_the_lines(service: Serving) -> None:
    lines = [*asks(EMBED, {"input": "x"}), "{", asks(CHAT, {})[0] | {"custom_id": "b"}]
    ended = await service.until(await service.begin(EMBED, lines))
    assert (ended.status, ended.output_file_id, ended.error_file_id) == ("failed", None, None)
    assert ended.failed_at is not None
    assert ended.errors is not None
    assert ended.errors.data is not None
    found = [(error.line, error.code, error.param) for error in ended.errors.data]
    assert found == [(2, "invalid_json_line", None), (3, "mismatched_url", "url")]
    assert all(error.message for error in ended.errors.data)


async def test_uploads_that_are_no_files_for_batches_are_refused(service: Serving) -> None:
    async def refused(**form: Any) -> tuple[int, str, str | None]:
        with pytest.raises(openai.APIStatusError) as failure:
            await service.ai.files.create(**form)
        assert isinstance(failure.value.body, dict)
        return failure.value.status_code, failure.value.body["code"], failure.value.body["param"]

    file = ("in.jsonl", b"{}")
    assert await refused(file=file, purpose="vision") == (400, "invalid_request", "purpose")
    assert await refused(file=("in.jsonl", b""), purpose="batch") == (
        400,
        "invalid_request",
        "file",
    )
    soon: Any = {"anchor": "created_at", "seconds": 5}
    assert await refused(file=file, purpose="batch", expires_after=soon) == (
        400,
        "invalid_request",
        "expires_after[seconds]",
    )
    large = ("in.jsonl", b"x" * 200_001)
    assert await refused(file=large, purpose="batch") == (413, "body_too_large", None)
    larger = ("in.jsonl", b"x" * 300_000)
    assert await refused(file=larger, purpose="batch") == (413, "body_too_large", None)
    before = await service.sql("SELECT count(*) FROM batch_files")
    kept = await service.sql("SELECT count(*) FROM batch_files WHERE NOT is_complete")
    assert kept == 0
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(service.app), base_url="http://test"
    ) as client:
        json_body = await client.post("/v1/files", json={"purpose": "batch"})
        assert (json_body.status_code, json_body.json()["error"]["code"]) == (
            415,
            "unsupported_media_type",
        )
        no_file = await client.post("/v1/files", data={"purpose": "batch"}, files={"x": b"y"})
        assert no_file.status_code == 400
        cut = await client.post(
            "/v1/files",
            content=b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nba',
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
        assert cut.json()["error"]["code"] == "malformed_form"
    assert await service.sql("SELECT count(*) FROM batch_files") == before


UNFINISHED = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}'


async def test_uploads_are_bounded_in_number_and_time(service: Serving) -> None:
    uploads = Uploads(
        service.runtime.part(BatchesPart).files,
        bounds=UploadBounds(at_once=1, seconds=0.3, file_bytes=1_000),
        metrics=BatchesMetrics(),
    )
    scope = CollectionScope(collection=0, sees_all=False)
    began = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield UNFINISHED
        began.set()
        await asyncio.Event().wait()

    first = asyncio.create_task(uploads.store(endless(), b"x", scope=scope))
    await began.wait()
    with pytest.raises(OverloadedError):
        await uploads.store(endless(), b"x", scope=scope)
    with pytest.raises(BodyTimeoutError):
        await first
    assert await service.sql("SELECT count(*) FROM batch_files WHERE NOT is_complete") == 0


async def test_an_upload_whose_client_leaves_is_deleted(service: Serving) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": UNFINISHED, "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    kind = (b"content-type", b"multipart/form-data; boundary=x")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/files",
        "raw_path": b"/v1/files",
        "root_path": "",
        "query_string": b"",
        "headers": [kind, (b"transfer-encoding", b"chunked")],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
        "scheme": "http",
    }
    await service.app(scope, receive, send)
    assert [message.get("status") for message in sent] == [499, None]
    assert await service.sql("SELECT count(*) FROM batch_files WHERE NOT is_complete") == 0


async def test_a_caller_has_so_many_bytes_in_files(service: Serving) -> None:
    stored: list[str] = []
    try:
        while len(stored) < 10:
            stored.append(await service.upload(["x" * 190_000]))
    except openai.APIStatusError as refused:
        assert (refused.status_code, refused.code) == (413, "file_quota_exceeded")  # noqa: PT017
    assert 1 <= len(stored) <= 5
    for file_id in stored:
        await service.ai.files.delete(file_id)
    assert await service.upload(["x"])


async def test_a_cancelled_batch_keeps_what_is_answered_and_names_the_rest(
    service: Serving,
) -> None:
    body = chat("Say a lot.", model="slow", max_tokens=4)
    batch = await service.begin(CHAT, asks(CHAT, *[body] * 200))
    running = await service.until(batch, {"in_progress"})
    async with asyncio.timeout(PLENTY_S):
        while running.request_counts is None or not running.request_counts.completed:
            running = await service.ai.batches.retrieve(batch.id)
            await asyncio.sleep(0.02)  # it runs in the background
    cancelling = await service.ai.batches.cancel(batch.id)
    assert cancelling.status == "cancelling"
    assert (await service.ai.batches.cancel(batch.id)).status in {"cancelling", "cancelled"}
    ended = await service.until(cancelling)
    assert ended.status == "cancelled"
    assert ended.cancelled_at is not None
    good = await service.lines(ended.output_file_id)
    rest = await service.lines(ended.error_file_id)
    assert len(good) >= running.request_counts.completed
    assert len(good) + len(rest) == 200
    assert {line["error"]["code"] for line in rest.values()} == {"batch_cancelled"}
    assert {line["response"] for line in rest.values()} == {None}


async def test_what_isn_t_done_in_the_window_expires(service: Serving) -> None:
    body = chat("Say a lot.", model="slow", max_tokens=4)
    batch = await service.begin(CHAT, asks(CHAT, *[body] * 100))
    await service.until(batch, {"in_progress"})
    await service.lose(batch, is_late=True)
    ended = await service.until(batch)
    assert ended.status == "expired"
    assert ended.expired_at is not None
    good = await service.lines(ended.output_file_id)
    rest = await service.lines(ended.error_file_id)
    assert len(good) + len(rest) == 100
    assert {line["error"]["code"] for line in rest.values()} == {"batch_expired"}


async def test_lines_give_way_to_clients(service: Serving) -> None:
    body = chat("Say something.", model="slow", max_tokens=10)
    batch = await service.begin(CHAT, asks(CHAT, *[body] * 4))
    await service.until(batch, {"in_progress"})
    slots = [model for model in service.runtime.registry.entries if model.spec.name == "slow"]
    assert slots[0].served is not None
    await asyncio.sleep(0.2)  # both slots are taken by lines
    answers = await asyncio.gather(
        *(
            service.ai.chat.completions.create(
                model="slow", max_tokens=2, messages=body["messages"]
            )
            for _ in range(4)
        )
    )
    assert all(answer.choices for answer in answers)
    assert service.counted("yielded") > 0
    ended = await service.until(batch)
    assert ended.request_counts is not None
    assert ended.request_counts.completed == 4
    assert len(await service.lines(ended.output_file_id)) == 4


async def test_a_stream_can_t_be_a_line_s_answer(service: Serving) -> None:
    lines = asks(CHAT, chat("Hello?", stream=True))
    ended = await service.until(await service.begin(CHAT, lines))
    (line,) = (await service.lines(ended.error_file_id)).values()
    assert line["response"]["status_code"] == 400
    error = line["response"]["body"]["error"]
    assert (error["code"], error["param"]) == ("unsupported_field", "stream")


async def test_what_batches_can_t_read_is_refused(service: Serving) -> None:
    batch = await service.until(await service.begin(EMBED, asks(EMBED, {"input": "x"})))
    for file_id, status in (("file-unknown", 404), (batch.output_file_id, 404), ("x", 400)):
        with pytest.raises(openai.APIStatusError) as refused:
            await service.ai.batches.create(
                input_file_id=file_id or "", endpoint=EMBED, completion_window="24h"
            )
        assert refused.value.status_code == status
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["param"] == "input_file_id"
    for wrong in ({"endpoint": "/v1/images"}, {"completion_window": "1h"}, {"metadata": {"a": 1}}):
        sent: Any = {
            "input_file_id": batch.input_file_id,
            "endpoint": EMBED,
            "completion_window": "24h",
        }
        with pytest.raises(openai.BadRequestError):
            await service.ai.batches.create(**sent | wrong)
    for call in (service.ai.batches.retrieve, service.ai.batches.cancel):
        with pytest.raises(openai.NotFoundError) as missing:
            await call("batch_unknown")
        assert missing.value.code == "batch_not_found"
    with pytest.raises(openai.NotFoundError):
        await service.ai.batches.list(after="batch_unknown")
    with pytest.raises(openai.NotFoundError):
        await service.ai.files.list(after="file-unknown")


async def make_key(service: Serving, *scopes: str, **fields: Any) -> tuple[int, AsyncOpenAI]:
    made: Any = await service.ai.post(
        "http://test/keys", body={"name": "k", "scopes": scopes, **fields}, cast_to=object
    )
    return made["id"], service.client(made["key"])


async def test_keys_see_their_own_and_lines_obey_what_their_key_may(tmp_path: Path) -> None:
    async with made(tmp_path, auth="required", admin_key=ADMIN, batches_per_key=1) as service:
        mine_id, mine = await make_key(service, "jobs", "embed", "chat")
        _, other = await make_key(service, "jobs", "embed")
        _, powerless = await make_key(service, "embed")
        lines = asks(EMBED, {"input": "x"}, {"input": "y"})
        batch = await service.begin(EMBED, lines, mine)
        ended = await service.until(batch)
        assert len(await service.lines(ended.output_file_id)) == 2
        for call in (
            other.batches.retrieve(batch.id),
            other.batches.cancel(batch.id),
            other.files.retrieve(ended.input_file_id),
            other.files.content(ended.output_file_id or ""),
            other.files.delete(ended.input_file_id),
            other.batches.create(
                input_file_id=ended.input_file_id, endpoint=EMBED, completion_window="24h"
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                await call
        assert (await other.files.list()).data == []
        assert (await other.batches.list()).data == []
        with pytest.raises(openai.PermissionDeniedError):
            await powerless.files.list()
        with pytest.raises(openai.PermissionDeniedError):
            await service.begin(CHAT, asks(CHAT, chat("x")), other)
        # A line that the quota refuses is put off; the batch waits, and counts as unfinished.
        _, poor = await make_key(service, "jobs", "embed", tokens_per_day=1)
        waits = await service.begin(EMBED, asks(EMBED, *[{"input": "x"}] * 9), poor)
        async with asyncio.timeout(PLENTY_S):
            while not service.counted("put_off"):
                await asyncio.sleep(0.02)  # it runs in the background
        with pytest.raises(openai.RateLimitError) as refused:
            await service.begin(EMBED, lines, poor)
        assert refused.value.code == "too_many_batches"
        assert (await poor.batches.retrieve(waits.id)).status == "in_progress"
        # What a key that was revoked has begun isn't run any more.
        late = await service.begin(
            CHAT, asks(CHAT, *[chat("Say a lot.", model="slow", max_tokens=4)] * 400), mine
        )
        await service.until(late, {"in_progress"})
        await service.ai.delete(f"http://test/keys/{mine_id}", cast_to=httpx2.Response)
        await service.lose(late)
        stopped = await service.until(late)
        rest = await service.lines(stopped.error_file_id)
        assert stopped.status == "completed"
        assert {line["response"]["status_code"] for line in rest.values()} == {401}
        assert len(rest) + len(await service.lines(stopped.output_file_id)) == 400


async def test_lines_are_in_the_prediction_log_under_their_own_ids(service: Serving) -> None:
    ended = await service.until(await service.begin(EMBED, asks(EMBED, {"input": "logged"})))
    (line,) = (await service.lines(ended.output_file_id)).values()
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(service.app), base_url="http://test"
    ) as client:
        async with asyncio.timeout(PLENTY_S):
            while True:
                page = (await client.get("/predictions", params={"limit": 100})).json()
                ids = {row["request_id"] for row in page["predictions"]}
                if line["id"] in ids:
                    break
                await asyncio.sleep(0.05)  # a thread writes it
    assert line["response"]["request_id"] == line["id"]


async def test_without_jobs_there_are_no_files_and_no_batches(tmp_path: Path) -> None:
    async with made(tmp_path, jobs="off") as service:
        for call in (service.ai.files.list(), service.ai.batches.list()):
            with pytest.raises(openai.NotFoundError) as missing:
                await call
            assert missing.value.code == "not_found"
