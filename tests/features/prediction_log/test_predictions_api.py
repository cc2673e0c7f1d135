"""`/predictions` and `/predictions/export`, on SQLite and on PostgreSQL."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest
from databases import migrated, opened
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from servers import free_port
from serving import front_parts
from sqlalchemy.orm import Session

from app.core.callers import Caller
from app.db.schema import upgrade
from app.db.session import Database
from app.engines.base import Task
from app.engines.chat_base import Generation, Message, Usage
from app.errors import DatabaseUnavailableError, OverloadedError
from app.features.prediction_log.exports import (
    CSV_COLUMNS,
    CsvFormat,
    ExportResponse,
    NdjsonFormat,
    as_dict,
)
from app.features.prediction_log.feedback_routes import router as feedback_router
from app.features.prediction_log.metrics import PredictionLogMetrics
from app.features.prediction_log.repository import PredictionRepository
from app.features.prediction_log.routes import router
from app.features.prediction_log.schemas import LoggedPrediction, PredictionPage
from app.features.prediction_log.scope import get_predictions_scope
from app.features.prediction_log.service import (
    EXPORT_ROWS,
    LogPolicy,
    PredictionLog,
    PredictionsScope,
)
from app.features.prediction_log.tables import COLUMNS
from app.http.answer_log import AnswerLog, AnswerLogDep
from app.http.api_document import ApiDocument
from app.http.guard import get_caller
from app.middleware.stack import App
from app.services.access import OpenAccess
from app.services.prediction_log import PredictionLogEntry
from app.services.token_stream import FinishedGeneration
from app.tasks.chat.accounting import entry_of

START = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
ONE = PredictionLogEntry(
    time=START,
    id=1,
    request_id="r",
    key_id=7,
    task="text-classification",
    model="sentiment",
    version="v1",
    status=200,
    latency_ms=12.5,
    label="POSITIVE",
    score=0.9871,
    input_hash="ab" * 32,
)
TIMEOUT_S = 20
KEY_ID = 7


def make_app(database: Database, scope: PredictionsScope | None = None) -> FastAPI:
    app = App(parts=front_parts())
    app.include_router(router)
    app.include_router(feedback_router)
    ApiDocument(app)
    log = PredictionLog(database, policy=LogPolicy(), metrics=PredictionLogMetrics())
    access = OpenAccess()
    app.state.runtime = SimpleNamespace(
        part={PredictionLog: log}.__getitem__, entries=log, access=access
    )
    seen = scope or PredictionsScope(key_id=None, sees_all=True)
    app.dependency_overrides[get_predictions_scope] = lambda: seen
    app.dependency_overrides[get_caller] = lambda: Caller(key_id=KEY_ID)
    return app


@asynccontextmanager
async def client_of(
    database: Database, scope: PredictionsScope | None = None
) -> AsyncIterator[AsyncClient]:
    transport = ASGITransport(make_app(database, scope))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database


def numbered(count: int) -> list[PredictionLogEntry]:
    return [replace(ONE, time=START + timedelta(seconds=n), id=n + 1) for n in range(count)]


async def insert(database: Database, *predictions: PredictionLogEntry) -> None:
    await database.run(lambda session: PredictionRepository(session).insert_many(predictions))


async def listed(client: AsyncClient, **asked: Any) -> dict[str, Any]:
    answer = await client.get("/predictions", params=asked)
    assert answer.status_code == 200, answer.text
    PredictionPage.model_validate_json(answer.content)
    page: dict[str, Any] = answer.json()
    return page


async def ids(client: AsyncClient, **asked: Any) -> list[int]:
    return [row["id"] for row in (await listed(client, **asked))["predictions"]]


# Pages


async def test_a_prediction_is_listed_with_all_that_is_known_of_it(database: Database) -> None:
    await insert(database, ONE)
    async with client_of(database) as client:
        page = await listed(client)
    assert page["next"] is None
    (row,) = page["predictions"]
    assert list(row) == list(LoggedPrediction.model_fields)
    assert list(row) == [*COLUMNS, "prediction_id", "feedback"]
    assert row["time"] == "2026-05-04T03:02:01.123456Z"
    assert LoggedPrediction(**row).model_dump() == as_dict(ONE)


async def test_pages_lead_from_the_newest_to_the_oldest(database: Database) -> None:
    await insert(database, *numbered(7))
    async with client_of(database) as client:
        seen, cursor = [], None
        for expected in ([7, 6, 5], [4, 3, 2], [1]):
            asked = {"limit": 3} | ({"cursor": cursor} if cursor else {})
            page = await listed(client, **asked)
            seen.append([row["id"] for row in page["predictions"]])
            assert seen[-1] == expected
            cursor = page["next"]
        assert cursor is None


async def test_a_last_page_that_is_full_has_no_next(database: Database) -> None:
    await insert(database, *numbered(3))
    async with client_of(database) as client:
        assert (await listed(client, limit=3))["next"] is None


async def test_filters_are_combined(database: Database) -> None:
    first, second, third, fourth = numbered(4)
    await insert(
        database,
        replace(first, model="other"),
        replace(second, label="NEGATIVE"),
        replace(third, request_id="mine"),
        fourth,
    )
    async with client_of(database) as client:
        assert await ids(client, model="other") == [1]
        assert await ids(client, label="POSITIVE", model="sentiment") == [4, 3]
        assert await ids(client, request_id="mine") == [3]
        assert await ids(client, since="2026-05-04T03:02:03Z") == [4, 3]
        assert await ids(client, until="2026-05-04T05:02:03+02:00") == [2, 1]
        assert await ids(client, until="2026-05-04T05:02:03 02:00") == [2, 1]
        assert await ids(client, model="nobody's") == []


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "many"},
        {"cursor": "next"},
        {"cursor": "1-" + "9" * 40},
        {"cursor": "9" * 30 + "-1"},
        {"since": "yesterday"},
        {"since": "2026-05-04"},
        {"since": "2026-05-04T03:02:03"},
        {"until": "2026-05-04 03:02"},
        {"until": "1777863723"},
        {"until": "0001-01-01T00:00:00+14:00"},
        {"model": "a\0b"},
        {"label": "x" * 257},
        {"modle": "sentiment"},
    ],
)
async def test_what_is_no_question_is_answered_422(asked: dict[str, Any], tmp_path: Any) -> None:
    async with (
        opened(f"sqlite:///{tmp_path}/x.db") as database,
        client_of(database) as client,
    ):
        answer = await client.get("/predictions", params=asked)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_request"
    assert answer.json()["errors"][0]["loc"] == ["query", *asked]


async def test_a_caller_sees_only_what_its_key_asked_for(database: Database) -> None:
    first, second, third = numbered(3)
    await insert(database, replace(first, key_id=1), second, replace(third, key_id=None))
    async with client_of(database, PredictionsScope(key_id=7, sees_all=False)) as client:
        assert await ids(client) == [2]
        assert [row["id"] for row in await ndjson(client)] == [2]
    async with client_of(database, PredictionsScope(key_id=7, sees_all=True)) as client:
        assert await ids(client) == [3, 2, 1]


async def test_a_caller_without_a_key_of_its_own_sees_nothing(database: Database) -> None:
    await insert(database, replace(ONE, key_id=None))
    async with client_of(database, PredictionsScope(key_id=None, sees_all=False)) as client:
        assert await ids(client) == []
        assert await ndjson(client) == []


@pytest.mark.parametrize("path", ["/predictions", "/predictions/export?format=csv"])
async def test_a_database_that_is_away_is_a_typed_error(path: str) -> None:
    async with (
        opened(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing") as database,
        client_of(database) as client,
    ):
        answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


# Exports


async def ndjson(client: AsyncClient, **asked: Any) -> list[dict[str, Any]]:
    answer = await client.get("/predictions/export", params=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.content.splitlines()]


async def table(client: AsyncClient) -> list[dict[str, str]]:
    answer = await client.get("/predictions/export", params={"format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))


async def test_an_export_gives_what_the_pages_give(database: Database) -> None:
    await insert(database, *numbered(EXPORT_ROWS * 2 + 1))
    async with client_of(database) as client:
        first = (await listed(client, limit=1000))["predictions"]
        assert (await ndjson(client))[:1000] == first
        assert len(await ndjson(client)) == EXPORT_ROWS * 2 + 1
        assert [row["id"] for row in await ndjson(client, until="2026-05-04T03:02:03Z")] == [2, 1]
        assert [int(row["id"]) for row in await table(client)][:1000] == [r["id"] for r in first]


async def test_an_export_is_offered_as_a_file(database: Database) -> None:
    async with client_of(database) as client:
        for kind in ("ndjson", "csv"):
            answer = await client.get("/predictions/export", params={"format": kind})
            said = f'attachment; filename="predictions.{kind}"'
            assert answer.headers["content-disposition"] == said
            assert answer.headers["cache-control"] == "no-store"


async def test_a_csv_of_nothing_has_its_columns(database: Database) -> None:
    async with client_of(database) as client:
        answer = await client.get("/predictions/export", params={"format": "csv"})
    assert answer.text == ",".join(CSV_COLUMNS) + "\r\n"


async def test_a_csv_has_every_text_back(database: Database) -> None:
    odd = 'a "b", c\r\nd;é\u2028🙂'
    await insert(database, replace(ONE, input=odd))
    async with client_of(database) as client:
        (row,) = await table(client)
    assert (row["input"], row["score"], row["error"]) == (odd, "0.9871", "")
    assert row["time"] == "2026-05-04T03:02:01.123456Z"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
async def test_no_spreadsheet_runs_a_cell(database: Database, start: str) -> None:
    formula = start + "HYPERLINK(1)"
    await insert(database, replace(ONE, input=formula, label=formula, request_id=formula))
    async with client_of(database) as client:
        (row,) = await table(client)
    assert row["input"] == row["label"] == row["request_id"] == "'" + formula
    assert row["latency_ms"] == "12.5"


class GoesAway(Database):
    """Answers so many reads, and then no more."""

    reads = 2

    async def read(self, work: Callable[[Session], Any], *, timeout_s: float | None = None) -> Any:
        self.reads -= 1
        if self.reads < 0:
            raise DatabaseUnavailableError
        return await super().read(work, timeout_s=timeout_s)


Sent = list[dict[str, Any]]


async def send_to(
    app: Any, query: str = "", *, leaves_after: int | None = None
) -> list[dict[str, Any]]:
    """Let an app answer a reader of our own; it leaves after some pieces."""
    sent: Sent = []
    has_left = asyncio.Event()
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        if message := next(messages, None):
            return message
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if leaves_after is not None and len(sent) > leaves_after:
            has_left.set()
            await asyncio.Event().wait()

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/predictions/export",
        "headers": [],
        "query_string": query.encode(),
        "asgi": {"spec_version": "2.3"},
        "http_version": "1.1",
        "root_path": "",
        "scheme": "http",
        "server": ("test", 80),
        "state": {},
    }
    async with asyncio.timeout(TIMEOUT_S):
        await app(scope, receive, send)
    return sent


async def many(url: str) -> GoesAway:
    database = GoesAway(url)
    await asyncio.to_thread(upgrade, database)
    await insert(database, *numbered(EXPORT_ROWS * 3))
    return database


async def test_an_ndjson_export_that_breaks_off_says_why_in_its_last_line(
    database_url: str,
) -> None:
    database = await many(database_url)
    sent = await send_to(make_app(database))
    lines = b"".join(message.get("body", b"") for message in sent).splitlines()
    assert len(lines) == EXPORT_ROWS * 2 + 1
    last = json.loads(lines[-1])["error"]
    assert (last["code"], last["instance"]) == ("database_unavailable", "/predictions/export")
    assert sent[-1]["more_body"] is False
    await database.close()


async def test_a_csv_export_that_breaks_off_never_ends_well(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = await many(database_url)
    sent = await send_to(make_app(database), "format=csv")
    assert sent[0]["status"] == 200
    assert all(message["more_body"] for message in sent[1:])
    assert "export_cut" in caplog.text
    await database.close()


async def test_nothing_is_read_for_a_reader_that_left(database_url: str) -> None:
    database = await many(database_url)
    sent = await send_to(make_app(database), leaves_after=1)
    assert len(sent) == 2
    assert database.reads == 1
    await database.close()


async def test_a_reader_that_stops_is_cut_off() -> None:
    async def nothing() -> AsyncIterator[list[PredictionLogEntry]]:
        for chunk in ([ONE], [ONE], [ONE]):
            yield chunk

    response = ExportResponse(
        nothing(),
        export_format=CsvFormat(),
        path="/predictions/export",
        request_id="r",
        send_timeout_s=0.01,
    )

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await never()

    async with asyncio.timeout(TIMEOUT_S):
        await response({"type": "http"}, never, send)


def test_a_line_holds_no_other_ends_of_lines() -> None:
    line = NdjsonFormat().rows([replace(ONE, input="a\u2028b\u0085c\nd")])
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line)["input"] == "a\u2028b\u0085c\nd"


async def test_the_document_knows_every_filter(database: Database) -> None:
    async with client_of(database) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    names = {p["name"] for p in paths["/predictions"]["get"]["parameters"]}
    filters = {"since", "until", "model", "label", "request_id", "version", "status", "error"}
    assert names == filters | {"feedback", "shadow", "limit", "cursor"}
    assert set(paths["/predictions/export"]["get"]["responses"]) >= {"200", "422", "503"}


# What a route tells the log


async def test_a_route_leaves_a_row_for_its_answer_and_for_its_error(database: Database) -> None:
    app = make_app(database, PredictionsScope(key_id=7, sees_all=False))
    log: PredictionLog = app.state.runtime.entries

    @app.get("/works")
    async def works(answer_log: AnswerLogDep) -> int:
        with answer_log.failures(Task.CLASSIFICATION, "good", model=None):
            columns = {"version": "v1", "label": "POSITIVE"}
        answer_log.put(answer_log.entry(Task.CLASSIFICATION, "good", model="sentiment", **columns))
        return log.waiting

    @app.get("/fails")
    async def fails(answer_log: AnswerLogDep) -> None:
        with answer_log.failures(Task.CLASSIFICATION, "bad", model="sentiment"):
            raise OverloadedError

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        async with log.running():
            answer = await client.get("/works", headers={"X-Request-ID": "first"})
            assert answer.json() == 1
            assert (await client.get("/fails")).status_code == 503
        failed, made = (await listed(client))["predictions"]
    assert (failed["status"], failed["error"], failed["model"]) == (503, "overloaded", "sentiment")
    assert (made["label"], made["version"], made["request_id"]) == ("POSITIVE", "v1", "first")
    assert made["key_id"] == failed["key_id"] == KEY_ID
    assert 0 < made["latency_ms"] < 60_000


async def test_a_chat_leaves_a_row_at_its_end(database: Database) -> None:
    log = PredictionLog(database, policy=LogPolicy(), metrics=PredictionLogMetrics())
    answer_log = AnswerLog(log, key_id=7, started_s=0)
    messages = [Message(role="system", content="Be kind."), Message(role="user", content="Hello")]
    usage = Usage(prompt_tokens=9, completion_tokens=2)
    end = Generation(text="Hi", finish_reason="stop", usage=usage)
    ended = FinishedGeneration(
        model="smollm2", version="1", end=end, tokens=1, seconds=0.25, first_token_s=0.1
    )
    failed = replace(ended, end=OverloadedError(), version=None, first_token_s=None)
    left = replace(ended, end=None)
    for one in (ended, failed, left):
        log.put(entry_of(one, messages, log=answer_log))
    called = replace(ended, end=replace(end, finish_reason="tool_calls"))
    result = Message(role="tool", content="Sunny", tool_call_id="call_1")
    log.put(entry_of(called, [*messages, result], log=answer_log))
    async with log.running():
        pass
    async with client_of(database) as client:
        rows = (await listed(client))["predictions"]
    by_status = {row["status"]: row for row in rows if row["finish_reason"] != "tool_calls"}
    (of_tools,) = [row for row in rows if row not in by_status.values()]
    assert of_tools["input_hash"] == sha256(b"Sunny").hexdigest()
    row = by_status[200]
    assert (row["task"], row["model"], row["finish_reason"]) == ("chat", "smollm2", "stop")
    assert (row["latency_ms"], row["ttft_ms"], row["key_id"]) == (250, 100, 7)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (9, 2)
    assert row["input_hash"] == sha256(b"Hello").hexdigest()
    assert (by_status[503]["error"], by_status[503]["ttft_ms"]) == ("overloaded", None)
    assert (by_status[499]["error"], by_status[499]["ttft_ms"]) == ("client_left", 100)
