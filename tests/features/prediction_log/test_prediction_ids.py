"""Every answer says which rows of the log are its own, in a header or in its results."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient, Response
from serving import FAKE, FAKE_EMBEDDER, serving

MODELS = (
    FAKE
    + FAKE_EMBEDDER
    + """
[[models]]
name = "names"
task = "token-classification"
engine = "fake"

[[models]]
name = "talker"
task = "chat"
engine = "fake"
slots = 2
"""
)
TIMEOUT_S = 20
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), MODELS) as client:
        yield client


def name_of(answer: Response) -> str | None:
    return answer.headers.get("X-Prediction-ID")


async def rows_of(client: AsyncClient, answer: Response, count: int) -> list[dict[str, Any]]:
    """Return the rows of an answer once they are written, in the order of its texts."""
    asked = {"request_id": answer.headers["X-Request-ID"]}
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            found = (await client.get("/predictions", params=asked)).json()["predictions"]
            if len(found) == count:
                return sorted(found, key=lambda row: row["time"])
            await asyncio.sleep(0.05)  # written a moment later, which tells nobody


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/predict", {"text": "good"}, 200),
        ("/predict/dummy", {"text": "good"}, 200),
        ("/predict", {"text": "poison"}, 500),
        ("/predict", {"text": "good", "model_name": "nobody"}, 404),
        ("/predict-batch", {"texts": ["good"]}, 200),
        ("/ner", {"text": "Ada Lovelace"}, 200),
        ("/embed", {"texts": ["a", "b"]}, 200),
        ("/v1/embeddings", {"model": "vectors", "input": "a"}, 200),
        ("/chat", {"query": "Hello"}, 200),
        ("/chat/stream", {"query": "Hello"}, 200),
        ("/v1/chat/completions", {"messages": HELLO, "stream": True}, 200),
        ("/v1/responses", {"input": "Hello"}, 200),
    ],
)
async def test_an_answer_of_one_row_names_it_in_its_header(
    client: AsyncClient, path: str, body: dict[str, Any], status: int
) -> None:
    for _ in range(2):  # FastAPI's way, and then the route's plan
        answer = await client.post(path, json=body)
        assert answer.status_code == status, answer.text
    (row,) = await rows_of(client, answer, 1)
    assert name_of(answer) == row["prediction_id"]
    assert row["status"] == status


async def test_an_answer_of_several_rows_names_each_in_its_result(client: AsyncClient) -> None:
    answer = await client.post("/predict-batch", json={"texts": ["good", "poison", "bad"]})
    results = answer.json()["results"]
    rows = await rows_of(client, answer, 3)
    assert name_of(answer) is None
    assert [row["status"] for row in rows] == [200, 500, 200]
    assert "prediction_id" not in results[1]
    for place in (0, 2):
        assert results[place]["prediction_id"] == rows[place]["prediction_id"]
    answer = await client.post("/ner", json={"texts": ["Ada", "Lovelace"]})
    assert [result["prediction_id"] for result in answer.json()["results"]] == [
        row["prediction_id"] for row in await rows_of(client, answer, 2)
    ]
    body = {"messages": HELLO, "n": 2}
    for stream in (False, True):
        answer = await client.post("/v1/chat/completions", json=body | {"stream": stream})
        assert name_of(answer) is None
        await rows_of(client, answer, 2)


async def test_feedback_right_after_the_answer_finds_its_row(client: AsyncClient) -> None:
    answered = await client.post("/predict", json={"text": "good"})
    label, path = answered.json()["label"], f"/predictions/{name_of(answered)}/feedback"
    given = await client.post(path, json={"label": label})
    assert (given.status_code, given.json()["correct"]) == (200, True)
    (row,) = await rows_of(client, answered, 1)
    assert row["feedback"]["label"] == label
    page = (await client.get("/metrics")).text
    assert 'mlapi_prediction_feedback_total{verdict="correct"} 1.0' in page
    assert 'mlapi_prediction_feedback_total{verdict="wrong"} 0.0' in page


async def test_other_requests_have_no_id(client: AsyncClient) -> None:
    for answer in (
        await client.get("/models"),
        await client.get("/predictions"),
        await client.post("/predict", json={"txet": "good"}),
    ):
        assert name_of(answer) is None


async def test_without_a_log_there_are_no_ids(tmp_path: Path) -> None:
    async with serving(tmp_path, prediction_log="off") as client:
        answer = await client.post("/predict", json={"text": "good"})
        assert (answer.status_code, name_of(answer)) == (200, None)
        answer = await client.post("/predict-batch", json={"texts": ["good", "bad"]})
        assert {*answer.json()["results"][0]} == {"label", "score", "truncated"}
        assert (await client.post("/predictions/x/feedback", json={})).status_code == 404
