"""A class under load, with keys, deadlines and clients that leave: as every other model."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from httpx2 import AsyncClient
from serving import make_app, running
from test_disconnect import Client, scope

from app.engines.python.finding import PREFIX
from app.engines.python.health import HealthCheck

LATE = 30.0
ADMIN = "admin-key-of-this-test-0123456789"
# It says what it was called with; it waits at a gate, and fails on 13.
MODEL = """
import threading

gate, begun, calls = threading.Event(), threading.Semaphore(0), []
ill = []

class Model:
    def cost(self, item: int) -> int:
        return item

    def predict(self, items: list[int]) -> list[int]:
        calls.append(list(items))
        begun.release()
        gate.wait(30)
        if 13 in items:
            raise RuntimeError("unlucky")
        return [item * 10 for item in items]

    def check(self):
        return ill[0] if ill else None
"""
# In this process, so that tests see what it was called with.
ENTRY = """
[[models]]
name = "mine"
engine = "python"
source = "file:model.py:Model"
isolation = "thread"
"""


@asynccontextmanager
async def served(
    folder: Path, entry: str = ENTRY, *, code: str = MODEL, **settings: Any
) -> AsyncIterator[tuple[AsyncClient, Any, Any]]:
    """Give a client, the class's module and the app."""
    (folder / "model.py").write_text(code, encoding="utf-8")
    app = make_app(folder, entry, **settings)
    async with running(app) as client:
        module = sys.modules[PREFIX + "mine"]
        try:
            yield client, module, app
        finally:
            if code == MODEL:
                module.gate.set()


async def hold(client: AsyncClient, module: Any) -> "asyncio.Task[Any]":
    """Occupy the one thread that calls the class."""
    task = asyncio.create_task(client.post("/predict/mine", json=1))
    assert await asyncio.to_thread(module.begun.acquire, timeout=LATE)
    return task


async def queued(app: Any, count: int) -> None:
    depth = app.state.runtime.metrics.registry.get_sample_value
    async with asyncio.timeout(LATE):
        while depth("mlapi_queue_depth", {"model": "mine"}) != count:
            await asyncio.sleep(0)


async def test_requests_that_wait_together_are_one_call(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, module, app):
        first = await hold(client, module)
        tasks = [asyncio.create_task(client.post("/predict/mine", json=n)) for n in (2, 3, 4)]
        await queued(app, 3)
        module.gate.set()
        assert [(await task).json() for task in (first, *tasks)] == [10, 20, 30, 40]
    assert [sorted(call) for call in module.calls] == [[1], [2, 3, 4]]


async def test_its_cost_decides_what_runs_together(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, module, app):
        first = await hold(client, module)
        items = {"items": [2, 9_000, 3, 9_000]}
        many = asyncio.create_task(client.post("/predict-batch/mine", json=items))
        await queued(app, 4)
        module.gate.set()
        await asyncio.gather(first, many)
    assert sorted(map(sorted, module.calls)) == [[1], [2, 3], [9_000], [9_000]]


async def test_one_item_that_fails_harms_none_of_its_mates(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, module, app):
        first = await hold(client, module)
        tasks = [asyncio.create_task(client.post("/predict/mine", json=n)) for n in (2, 13, 4)]
        await queued(app, 3)
        module.gate.set()
        good, bad, last = await asyncio.gather(*tasks)
        await first
    assert (good.json(), last.json()) == (20, 40)
    assert (bad.status_code, bad.json()["code"]) == (500, "inference_failed")
    assert "unlucky" not in bad.text


async def test_an_item_that_the_class_changed_is_given_anew_after_a_batch_that_failed(
    tmp_path: Path,
) -> None:
    code = """
class Model:
    def predict(self, items: list[list[int]]) -> list[int]:
        for item in items:
            item.append(1)
        if any(13 in item for item in items):
            raise RuntimeError
        return [len(item) for item in items]
"""
    async with served(tmp_path, code=code) as (client, _, _):
        answered = await client.post("/predict-batch/mine", json={"items": [[1], [13], [2, 3]]})
    results = [result.get("answer") for result in answered.json()["results"]]
    assert results == [2, None, 3]


async def test_an_item_whose_client_left_never_reaches_the_class(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, module, app):
        first = await hold(client, module)
        leaver = Client(b"7")
        asked = asyncio.create_task(app(scope("/predict/mine"), leaver.receive, leaver.send))
        await queued(app, 1)
        leaver.left.set()
        await asked
        module.gate.set()
        await first
        sample = app.state.runtime.metrics.registry.get_sample_value
        assert sample("mlapi_cancelled_total", {"model": "mine", "stage": "queued"}) == 1
    assert module.calls == [[1]]


async def test_a_deadline_that_passes_in_the_queue_is_504(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, module, _):
        first = await hold(client, module)
        late = await client.post("/predict/mine", json=2, headers={"X-Request-Timeout-Ms": "50"})
        module.gate.set()
        await first
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    assert module.calls == [[1]]


async def test_several_workers_call_it_at_once(tmp_path: Path) -> None:
    async with served(tmp_path, ENTRY + "workers = 2\n") as (client, module, _):
        both = [await hold(client, module), await hold(client, module)]
        assert module.calls == [[1], [1]]
        module.gate.set()
        assert [(await task).json() for task in both] == [10, 10]


async def test_it_needs_a_key_with_the_scope_and_counts_against_its_limit(tmp_path: Path) -> None:
    settings = {"auth": "required", "admin_key": ADMIN, "limits": "on"}
    async with served(tmp_path, **settings) as (client, module, _):
        module.gate.set()
        admin = {"X-API-Key": ADMIN}

        async def key(scopes: Sequence[str]) -> dict[str, str]:
            body = {"name": "test", "scopes": scopes, "limit": "2/day"}
            return {
                "X-API-Key": (await client.post("/keys", json=body, headers=admin)).json()["key"]
            }

        limited, other = await key(["predict"]), await key(["chat"])
        statuses = [
            (await client.post(path, json=body, headers=headers)).status_code
            for path, body, headers in (
                ("/predict/mine", 1, {}),
                ("/predict-batch/mine", {"items": [1]}, {}),
                ("/predict/mine", 1, other),
                ("/predict/mine", 1, limited),
                ("/predict-batch/mine", {"items": [1]}, limited),
                ("/predict/mine", 1, limited),
            )
        ]
    assert statuses == [401, 401, 403, 200, 200, 429]


async def test_health_says_what_the_class_says_of_itself(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, module, app):
        assert (await client.get("/health")).status_code == 200
        module.ill.append("the tape is torn")
        engine = app.state.runtime.registry.entries[0].served.model.engine
        engine._health._problem = engine._runner.check()  # as its thread does every 5 s
        health = await client.get("/health")
    assert health.status_code == 503
    assert health.json()["checks"] == ["mine: check: the tape is torn"]


def test_the_check_is_called_again_and_again_and_one_that_hangs_is_named() -> None:
    answers = iter(["first", None])
    asked, release = threading.Semaphore(0), threading.Event()

    def check() -> str | None:
        asked.release()
        answer = next(answers, "hang")
        if answer == "hang":
            release.wait(LATE)
        return answer

    health = HealthCheck(check, name="test", every_s=0)
    for _ in range(3):
        assert asked.acquire(timeout=LATE)
    assert health.problems() == []
    health._began_s = -1_000_000.0
    (problem,) = health.problems()
    assert problem.startswith("check has been running for ")
    health.close()
    release.set()
