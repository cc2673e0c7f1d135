"""Shadows: copies that never stand in the way, and what the log says of them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from serving import make_app, running

from app.engines.base import Task
from app.errors import CatalogError
from app.features.prediction_log.comparing import compare
from app.models.catalog import read_catalog
from app.models.registry import TaskKey
from app.services.prediction_log import PredictionLogEntry

MODELS = """
[[models]]
name = "mood"
engine = "fake"
[[models.versions]]
version = "1"
[[models.versions]]
version = "2"
shadow = true
fake = { fail_on = "poison" }

[[models]]
name = "order"
task = "text-ranking"
engine = "fake"
[[models.versions]]
version = "1"
[[models.versions]]
version = "2"
shadow = true
fake = { fail_on = "poison" }
"""
PATIENCE_S = 30.0


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[FastAPI, AsyncClient]]:
    app = make_app(tmp_path, MODELS, auth="off", shadow_bound=4)
    async with running(app) as client:
        yield app, client


async def copies(client: AsyncClient) -> dict[str, float]:
    lines = (await client.get("/metrics")).text.splitlines()
    counted = (line for line in lines if line.startswith("mlapi_shadow_copies_total{"))
    return {one.split('outcome="')[1].split('"')[0]: float(one.split()[-1]) for one in counted}


async def listed(client: AsyncClient, **asked: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await client.get("/predictions", params=asked)).json()[
        "predictions"
    ]
    return rows


async def until_copied(client: AsyncClient, count: float) -> dict[str, float]:
    async with asyncio.timeout(PATIENCE_S):
        while sum((found := await copies(client)).values()) < count:
            await asyncio.sleep(0.01)  # another task runs them
        return found


async def test_a_shadow_gets_a_copy_after_the_answer_and_the_comparison_shows_it(
    served: tuple[FastAPI, AsyncClient],
) -> None:
    _, client = served
    texts = ["good", "poison", "bad"]
    answer = await client.post("/predict-batch", json={"texts": texts})
    assert answer.headers["X-Model-Version"] == "1"
    assert await until_copied(client, 3) == {"done": 2, "failed": 1}
    found: dict[str, Any] = {}
    async with asyncio.timeout(PATIENCE_S):
        while found.get("version", {}).get("rows") != 3:
            shown = await client.get("/models/mood/comparison", params={"version": "2"})
            found = shown.json()
    assert (found["pairs"], found["agreement"], found["score_shift"]) == (2, 1.0, 0.0)
    assert (found["serving"]["rows"], found["serving"]["error_share"]) == (3, 0)
    assert found["version"]["error_share"] == pytest.approx(1 / 3)
    assert set(found["version"]["latency_ms"]) == {"p50", "p95", "p99"}
    request = {"request_id": answer.headers["X-Request-ID"]}
    for asked, version in ({}, "1"), ({"shadow": "true"}, "2"), ({"model": "mood"}, "1"):
        rows = await listed(client, **asked)
        assert [(row["version"], row["shadow"]) for row in rows] == [
            (version, version == "2")
        ] * 3, asked
        assert len(await listed(client, **asked, **request)) == 3
    exported = (await client.get("/predictions/export", params={"shadow": "true"})).text
    assert exported.count('"version":"2"') == exported.count("\n") == 3
    # What nobody got nobody judges, and no sum has it.
    judged = f"/predictions/{(await listed(client, shadow='true'))[0]['prediction_id']}/feedback"
    assert (await client.post(judged, json={"correct": True})).status_code == 404
    summary = (await client.get("/predictions/feedback/summary")).json()
    assert summary == {"versions": []}
    unknown = await client.get("/models/mood/comparison", params={"version": "9"})
    assert unknown.json()["code"] == "model_version_not_found"


async def test_what_is_answered_of_several_texts_together_is_copied_as_one(
    served: tuple[FastAPI, AsyncClient],
) -> None:
    _, client = served
    for count, documents in enumerate((["a", "b c", "d e f"], ["poison", "a"]), start=1):
        body = {"query": "which", "documents": documents}
        assert (await client.post("/rerank", json=body)).status_code == 200
        copied = await until_copied(client, count)
    assert copied == {"done": 1, "failed": 1}
    rows: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(rows) < 2:
            rows = await listed(client, model="order", shadow="true")
    answers = await listed(client, model="order")
    assert [row["status"] for row in rows] == [500, 200]
    assert rows[1]["score"] == answers[1]["score"] is not None
    shown = await client.get("/models/order/comparison", params={"version": "2"})
    found = shown.json()
    assert (found["pairs"], found["agreement"], found["score_shift"]) == (1, None, 0.0)


async def test_a_shadow_that_answers_itself_gets_no_copy_of_that(
    served: tuple[FastAPI, AsyncClient],
) -> None:
    _, client = served
    promoted = await client.post("/models/mood/promote", json={"version": "2"})
    assert promoted.status_code == 200, promoted.text
    assert (await client.post("/predict", json={"text": "good"})).is_success
    pinned = {"X-Model-Version": "1"}
    assert (await client.post("/models/mood/load", json={"version": "1"})).is_success
    assert (await client.post("/predict", json={"text": "bad"}, headers=pinned)).is_success
    assert await until_copied(client, 1) == {"done": 1, "failed": 0}


async def test_copies_wait_until_nothing_runs_and_are_dropped_where_too_many_do(
    served: tuple[FastAPI, AsyncClient],
) -> None:
    app, client = served
    with app.state.runtime.registry.lease("mood", TaskKey[Any](Task.CLASSIFICATION)):
        for _ in range(3):
            assert (await client.post("/predict-batch", json={"texts": ["a", "b"]})).is_success
        assert await copies(client) == {"full": 2}
        await asyncio.sleep(0.1)  # longer than the look for idle moments
        assert await copies(client) == {"full": 2}
    assert await until_copied(client, 6) == {"full": 2, "done": 4, "failed": 0}


def test_texts_go_to_another_server_only_where_the_entry_says_so(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    entry = """
    [[models]]
    name = "far"
    task = "text-ranking"
    engine = "remote"
    source = "openai:x"
    base_url = "http://127.0.0.1:9/v1"
    [[models.versions]]
    version = "1"
    [[models.versions]]
    version = "2"
    shadow = true
    """
    path.write_text(entry)
    with pytest.raises(CatalogError, match="allow_remote_shadow"):
        read_catalog(path)
    path.write_text(f"{entry}\nallow_remote_shadow = true\n")
    assert len(read_catalog(path).specs[0].loads) == 2


@pytest.mark.parametrize("task", ["chat", "image-classification"])
def test_what_is_never_copied_has_no_shadows(tmp_path: Path, task: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(
        f'[[models]]\nname = "one"\ntask = "{task}"\nengine = "fake"\n'
        '[[models.versions]]\nversion = "1"\n[[models.versions]]\nversion = "2"\nshadow = true\n'
    )
    with pytest.raises(CatalogError, match=f"'2': a model of the task {task} can't have shadows"):
        read_catalog(path)


def row(version: str, number: int, **fields: Any) -> PredictionLogEntry:
    columns: dict[str, Any] = {"input_hash": f"h{number}", "label": "GOOD", "score": 0.5}
    return PredictionLogEntry(
        task="t",
        model="m",
        version=version,
        request_id=f"r{number}",
        latency_ms=float(number),
        **(columns | fields),
    )


def test_versions_are_compared_by_pairs_and_by_shares() -> None:
    old = [row("1", n) for n in range(100)]
    new = [row("2", n, score=0.7, label="BAD" if n < 10 else "GOOD") for n in range(100)]
    new += [row("2", n, status=500, error="inference_failed", label=None) for n in range(100, 125)]
    new += [row("2", n, status=422, error="text_empty", label=None) for n in range(125, 200)]
    found = compare(new, old)
    assert (found.pairs, found.agreement) == (100, 0.9)
    assert found.score_shift == pytest.approx(0.2)
    assert found.label_shift == pytest.approx(0.1)
    assert (found.version.rows, found.version.error_share) == (200, 0.125)
    assert found.serving.latency_ms == {"p50": 50, "p95": 95, "p99": 99}
    # Without hashes only an input that is alone in its request has its pair.
    bare = [row(v, n, input_hash=None) for v in "12" for n in (1, 2, 2, 3)]
    assert compare(bare[4:], bare[:4]).pairs == 2
    nothing = compare([], [])
    assert (nothing.agreement, nothing.label_shift, nothing.version.latency_ms) == (None, None, {})
