"""Feedback: stored, overwritten, listed, filtered, summed up, deleted; on SQLite and PostgreSQL."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from databases import migrated
from httpx2 import AsyncClient
from test_predictions_api import ONE, client_of, ids, insert, listed, numbered

from app.db.session import Database
from app.features.prediction_log.filters import Position
from app.features.prediction_log.retention import trim
from app.features.prediction_log.service import PredictionsScope
from app.services.prediction_log import ID_BITS, PredictionLogEntry, prediction_id

OWN = PredictionsScope(key_id=7, sees_all=False)
OTHER = PredictionsScope(key_id=8, sees_all=False)
NAMELESS = PredictionsScope(key_id=None, sees_all=False)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database


def path_of(entry: PredictionLogEntry) -> str:
    return f"/predictions/{prediction_id(entry.time, entry.id)}/feedback"


async def give(client: AsyncClient, entry: PredictionLogEntry, **said: Any) -> dict[str, Any]:
    answer = await client.post(path_of(entry), json=said)
    assert answer.status_code == 200, answer.text
    given: dict[str, Any] = answer.json()
    return given


async def feedback(client: AsyncClient) -> list[dict[str, Any] | None]:
    return [row["feedback"] for row in (await listed(client))["predictions"]]


@pytest.mark.parametrize("number", [0, 1, 2**ID_BITS - 1])
@pytest.mark.parametrize("year", [1970, 2026, 9999])
def test_a_prediction_is_named_by_a_uuid_that_leads_back_to_it(year: int, number: int) -> None:
    moment = datetime(year, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    name = UUID(prediction_id(moment, number))
    assert (name.version, name.variant) == (7, "specified in RFC 4122")
    assert Position.named(name) == Position(moment, number)


@pytest.mark.parametrize(
    "name",
    [
        "00000000-0000-0000-0000-000000000000",
        "9f86d081-884c-4d65-9a2f-eaa0c55ad015",  # of version 4
        "019bfa4d-0680-7fff-8010-000000000000",  # 4095 microseconds
        "019bfa4d-0680-707b-8020-000000000000",  # an id that is too large
        "ffffffff-ffff-707b-8010-000000000000",  # beyond the calendar
    ],
)
async def test_another_uuid_is_no_prediction(name: str, database: Database) -> None:
    async with client_of(database) as client:
        answer = await client.post(f"/predictions/{name}/feedback", json={"correct": True})
    assert (answer.status_code, answer.json()["code"]) == (404, "prediction_not_found")


async def test_feedback_is_listed_and_exported_beside_its_prediction(database: Database) -> None:
    first, second = numbered(2)
    await insert(database, first, second)
    async with client_of(database, OWN) as client:
        given = await give(client, second, label="NEGATIVE", score=0.25, comment="=irony\n")
        assert given.pop("prediction_id") == prediction_id(second.time, second.id)
        assert {**given, "given_at": ""} == {
            "given_at": "",
            "label": "NEGATIVE",
            "correct": False,  # the prediction's label is another one
            "score": 0.25,
            "comment": "=irony\n",
        }
        page = (await listed(client))["predictions"]
        assert [row["feedback"] for row in page] == [given, None]
        assert page[0]["prediction_id"] == prediction_id(second.time, second.id)
        exported = (await client.get("/predictions/export")).text.splitlines()
        assert [json.loads(line) for line in exported] == page
        table = (await client.get("/predictions/export?format=csv")).text
    judged, bare = csv.DictReader(io.StringIO(table, newline=""))
    assert judged["feedback_comment"] == "'=irony\n"
    assert judged["feedback_correct"] == "false"
    assert judged["feedback_given_at"] == given["given_at"]
    assert judged["prediction_id"] == page[0]["prediction_id"]
    assert {v for name, v in bare.items() if name.startswith("feedback_")} == {""}


async def test_feedback_takes_the_place_of_what_was_said_before(database: Database) -> None:
    await insert(database, ONE)
    async with client_of(database) as client:
        await give(client, ONE, label="NEGATIVE", comment="no")
        assert (await give(client, ONE, label="POSITIVE"))["correct"] is True
        last = await give(client, ONE, score=1)
        assert (last["label"], last["correct"], last["comment"]) == (None, None, None)
        assert [{**said, "given_at": ""} for said in await feedback(client) if said] == [
            {"given_at": "", "label": None, "correct": None, "score": 1.0, "comment": None}
        ]
        # What is said of correctness counts more than the labels.
        assert (await give(client, ONE, label="NEGATIVE", correct=True))["correct"] is True


async def test_only_the_key_of_a_prediction_and_an_admin_may_judge_it(database: Database) -> None:
    await insert(database, ONE)
    for scope in (OTHER, NAMELESS):
        async with client_of(database, scope) as client:
            answer = await client.post(path_of(ONE), json={"correct": False})
            assert (answer.status_code, answer.json()["code"]) == (404, "prediction_not_found")
            summary = (await client.get("/predictions/feedback/summary")).json()
            assert summary == {"versions": []}
    async with client_of(database, OWN) as client:
        assert await feedback(client) == [None]
        await give(client, ONE, correct=False)
    async with client_of(database) as client:
        assert (await give(client, ONE, correct=True))["correct"] is True


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"label": None},
        {"score": 1.5},
        {"label": "x" * 257},
        {"label": "a\0b"},
        {"comment": "x" * 2_001},
        {"correct": "yes"},
        {"rating": 1},
    ],
)
async def test_what_is_no_feedback_is_answered_422(said: dict[str, Any], tmp_path: Any) -> None:
    async with migrated(f"sqlite:///{tmp_path}/x.db") as sqlite, client_of(sqlite) as client:
        await insert(sqlite, ONE)
        answer = await client.post(path_of(ONE), json=said)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert await feedback(client) == [None]


async def test_feedback_on_a_prediction_that_is_not_written_yet_waits_for_it(
    database: Database,
) -> None:
    new = replace(ONE, time=datetime.now(UTC))
    async with client_of(database) as client, asyncio.timeout(20):
        waiting = asyncio.create_task(client.post(path_of(new), json={"correct": True}))
        await asyncio.sleep(0.05)  # it has looked once
        assert not waiting.done()
        await insert(database, new)
        assert (await waiting).status_code == 200
        assert [said and said["correct"] for said in await feedback(client)] == [True]


async def test_predictions_are_filtered_by_feedback_status_error_and_version(
    database: Database,
) -> None:
    rows = numbered(8)
    await insert(
        database,
        *rows[:3],
        replace(rows[3], version="v2", label="NEGATIVE"),
        replace(rows[4], status=503, error="overloaded", label=None),
        replace(rows[5], status=503, error="not_ready", label=None, version=None),
        replace(rows[6], status=404, error="model_not_found", label=None, key_id=8),
        replace(rows[7], version="v2"),
    )
    async with client_of(database) as client:
        await give(client, rows[0], label="POSITIVE")
        await give(client, rows[3], label="POSITIVE")
        await give(client, rows[7], comment="?")
        asked: list[tuple[dict[str, Any], list[int]]] = [
            ({"status": 503}, [6, 5]),
            ({"status": 200, "version": "v1"}, [3, 2, 1]),
            ({"status": 200}, [8, 4, 3, 2, 1]),
            ({"error": "overloaded"}, [5]),
            ({"error": "overloaded", "status": 404}, []),
            ({"status": 404, "model": "sentiment", "until": "2026-05-04T03:02:07Z"}, []),
            ({"version": "v2"}, [8, 4]),
            ({"version": "v2", "label": "NEGATIVE"}, [4]),
            ({"feedback": "given"}, [8, 4, 1]),
            ({"feedback": "given", "version": "v2", "since": "2026-05-04T03:02:05Z"}, [8]),
            ({"feedback": "correct"}, [1]),
            ({"feedback": "wrong"}, [4]),
            ({"feedback": "wrong", "label": "POSITIVE"}, []),
            ({"feedback": "none", "status": 200}, [3, 2]),
            ({"feedback": "none", "version": "v2"}, []),
        ]
        for filters, expected in asked:
            assert await ids(client, **filters) == expected, filters
            first = await listed(client, limit=1, **filters)
            if cursor := first["next"]:
                assert await ids(client, cursor=cursor, **filters) == expected[1:], filters
        lines = (await client.get("/predictions/export?feedback=given&version=v2")).text
        assert [json.loads(line)["id"] for line in lines.splitlines()] == [8, 4]
        for wrong in ({"status": 99}, {"feedback": "maybe"}, {"version": "\0"}):
            assert (await client.get("/predictions", params=wrong)).status_code == 422
    async with client_of(database, PredictionsScope(key_id=8, sees_all=False)) as client:
        assert await ids(client, feedback="given") == []
        assert await ids(client, status=404) == [7]


async def test_feedback_says_how_often_each_version_was_right(database: Database) -> None:
    rows = numbered(6)
    await insert(
        database, *rows[:4], replace(rows[4], version="v2"), replace(rows[5], model="a", key_id=8)
    )
    async with client_of(database) as client:
        said: list[dict[str, Any]] = [
            {"correct": True},
            {"label": "POSITIVE"},
            {"correct": False},
            {"score": 0.5},
            {"correct": True},
            {"label": "POSITIVE"},
        ]
        for row, one in zip(rows, said, strict=True):
            await give(client, row, **one)
        summary = (await client.get("/predictions/feedback/summary")).json()["versions"]
        asked = {"model": "sentiment", "since": "2026-05-04T03:02:05Z"}
        later = (await client.get("/predictions/feedback/summary", params=asked)).json()["versions"]
    own = {"model": "sentiment", "version": "v1", "count": 4, "judged": 3, "correct": 2}
    assert [row["model"] for row in summary] == ["a", "sentiment", "sentiment"]
    assert summary[1] == {**own, "accuracy": pytest.approx(2 / 3), "score": 0.5}
    assert summary[2]["accuracy"] == 1.0
    assert [(row["version"], row["count"]) for row in later] == [("v2", 1)]
    async with client_of(database, OWN) as client:
        mine = (await client.get("/predictions/feedback/summary")).json()["versions"]
    assert mine == summary[1:]


async def test_feedback_is_deleted_with_its_prediction(database: Database) -> None:
    rows = numbered(4)
    await insert(database, *rows)
    async with client_of(database) as client:
        for row in rows:
            await give(client, row, correct=True)
        async for _ in trim(database, before=rows[2].time, limit=1):
            pass
        assert len(await feedback(client)) == 2
        summary = (await client.get("/predictions/feedback/summary")).json()["versions"]
        assert [row["count"] for row in summary] == [2]
