"""`/predict`, `/predict/{model_name}`, `/predict-batch`: what a caller sees."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx2 import AsyncClient
from serving import batched, make_app, running, serve_instead, serving

from app.core.metrics import Metrics
from app.engines.base import Encoded, EngineRequest, FloatArray, Task
from app.engines.loader import load_engine
from app.http.deps import get_registry
from app.models.catalog import Catalog, ModelSpec
from app.models.entries import Served
from app.models.registry import ModelRegistry

pytestmark = pytest.mark.core

TWO = """
[[models]]
name = "first"
engine = "fake"
labels = ["a", "b", "c"]

[[models]]
name = "second"
engine = "fake"
default = true

[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
"""


@pytest.fixture(scope="module")
async def two_models(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), TWO) as client:
        yield client


async def post(client: AsyncClient, path: str, body: Any, **headers: str) -> Any:
    return await client.post(path, json=body, headers=headers)


async def test_a_text_gets_its_best_label_and_score(client: AsyncClient) -> None:
    answer = await post(client, "/predict", {"text": "fine"})
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"text", "label", "score", "model", "truncated"}
    assert body["truncated"] is False
    assert body["text"] == "fine"
    assert body["model"] == "dummy"
    assert body["label"] in {"NEGATIVE", "POSITIVE"}
    assert 0.5 <= body["score"] <= 1


async def test_the_same_text_gets_the_same_answer_alone_and_in_a_batch(client: AsyncClient) -> None:
    texts = [f"text number {n}" * (n % 5 + 1) for n in range(40)]
    batch = (await post(client, "/predict-batch", {"texts": texts})).json()
    for text, in_batch in zip(texts, batch["results"], strict=True):
        alone = (await post(client, "/predict", {"text": text})).json()
        assert (alone["label"], alone["score"]) == (in_batch["label"], in_batch["score"])


async def test_top_k_adds_the_best_scores_in_order(two_models: AsyncClient) -> None:
    two = (await post(two_models, "/predict/first", {"text": "x", "top_k": 2})).json()
    all_of_them = (await post(two_models, "/predict/first", {"text": "x", "top_k": 99})).json()
    scores = [item["score"] for item in all_of_them["scores"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-6)
    assert two["scores"] == all_of_them["scores"][:2]
    assert two["scores"][0] == {"label": two["label"], "score": two["score"]}


async def test_the_default_model_is_the_one_that_says_so(two_models: AsyncClient) -> None:
    assert (await post(two_models, "/predict", {"text": "x"})).json()["model"] == "second"
    by_body = await post(two_models, "/predict", {"text": "x", "model_name": "first"})
    by_path = await post(two_models, "/predict/first", {"text": "x"})
    assert by_body.json() == by_path.json()
    assert by_path.json()["model"] == "first"


@pytest.mark.parametrize("name", ["nobody", "vectors", "FIRST", "first ", "%2e%2e", "ß" * 64])
async def test_an_unknown_model_or_one_of_another_task_is_404(
    two_models: AsyncClient, name: str
) -> None:
    by_path = await post(two_models, f"/predict/{name}", {"text": "x"})
    batch = await post(two_models, "/predict-batch", {"texts": ["x"], "model_name": name})
    for answer in (by_path, batch):
        assert answer.status_code == 404
        assert answer.json()["code"] == "model_not_found"
        assert name not in answer.json()["detail"]


async def test_a_body_that_names_another_model_than_the_path_is_409(
    two_models: AsyncClient,
) -> None:
    same = await post(two_models, "/predict/first", {"text": "x", "model_name": "first"})
    other = await post(two_models, "/predict/first", {"text": "x", "model_name": "second"})
    assert same.status_code == 200
    assert other.status_code == 409
    assert other.json()["code"] == "model_name_conflict"


async def test_a_text_that_the_engine_fails_on_is_500_inference_failed(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        answer = await post(client, "/predict", {"text": "some poison here"})
        metrics = (await client.get("/metrics")).text
    assert answer.status_code == 500
    assert answer.json()["code"] == "inference_failed"
    assert 'mlapi_engine_failures_total{model="dummy"} 1.0' in metrics


async def test_a_bad_text_fails_alone_in_its_batch(client: AsyncClient) -> None:
    texts = ["good", "", "poison", "x" * 2001, "also good", *["more"] * 30]
    answer = await post(client, "/predict-batch", {"texts": texts})
    assert answer.status_code == 200
    results = answer.json()["results"]
    codes = {i: r["error"]["code"] for i, r in enumerate(results) if "error" in r}
    assert codes == {1: "text_empty", 2: "inference_failed", 3: "text_too_long"}
    assert len(results) == len(texts)
    assert all(
        set(r) == {"label", "score", "truncated", "prediction_id"}
        for i, r in enumerate(results)
        if i not in codes
    )


async def test_a_batch_of_nothing_but_bad_texts_is_answered(client: AsyncClient) -> None:
    answer = await post(client, "/predict-batch", {"texts": ["", ""]})
    assert [r["error"]["code"] for r in answer.json()["results"]] == ["text_empty"] * 2


@pytest.mark.parametrize(
    "body",
    [{"texts": []}, {"texts": ["x"] * 257}, {"texts": ["x", 1]}, {"texts": "x"}, {}, [], "x"],
)
async def test_a_batch_of_the_wrong_type_or_size_is_422(client: AsyncClient, body: Any) -> None:
    answer = await post(client, "/predict-batch", body)
    assert answer.status_code == 422


async def test_dependency_overrides_put_a_registry_of_the_test_in_place(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    spec = ModelSpec(name="mine", engine="fake", labels=("ham", "spam"))

    def load(spec: ModelSpec) -> Served:
        request = EngineRequest(name=spec.name, task=spec.task, engine="fake", labels=spec.labels)
        return Served(model=batched(load_engine(request)), version="test")

    async with running(app) as client:
        with ThreadPoolExecutor(1) as threads:
            mine = ModelRegistry(Catalog([spec]), load=load, executor=threads, metrics=Metrics())
            await mine.load_all()
            app.dependency_overrides[get_registry] = lambda: mine
            answer = (await post(client, "/predict", {"text": "x"})).json()
            models = (await client.get("/models")).json()["models"]
            await mine.close(timeout_s=10)
    assert answer["model"] == "mine"
    assert answer["label"] in {"ham", "spam"}
    assert [m["name"] for m in models] == ["mine"]


class GatedClassifier:
    """Answers when the gate is opened, and remembers the thread that it ran in."""

    kind = "test"
    device = "none"
    max_tokens = 500
    labels = ("no", "yes")

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.threads: set[str] = set()
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        return [Encoded(token_ids=[1], is_truncated=False) for _ in texts]

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        self.threads.add(threading.current_thread().name)
        self.calls += 1
        self.entered.set()
        self.gate.wait(10)
        return np.full((len(batch), 2), 0.5, dtype=np.float32)

    def close(self) -> None:
        self.gate.set()


async def test_inference_runs_in_named_threads_and_never_on_the_loop(tmp_path: Path) -> None:
    app, engine = make_app(tmp_path), GatedClassifier()
    async with running(app) as client:
        serve_instead(app, engine)
        request = asyncio.create_task(post(client, "/predict", {"text": "x"}))
        await asyncio.to_thread(engine.entered.wait, 10)
        # The engine is busy, and the loop answers all the same.
        assert (await client.get("/health")).status_code == 200
        engine.gate.set()
        assert (await request).status_code == 200
    assert engine.threads == {"test-0"}


async def test_a_full_queue_answers_503_with_retry_after(tmp_path: Path) -> None:
    app, engine = make_app(tmp_path), GatedClassifier()
    async with running(app) as client:
        # A text of one character is estimated at two tokens: one running, two waiting.
        serve_instead(app, engine, max_queued_tokens=6, max_batch=1)
        requests = [asyncio.create_task(post(client, "/predict", {"text": "x"})) for _ in range(3)]
        await asyncio.to_thread(engine.entered.wait, 10)
        while "mlapi_queue_depth" not in (text := (await client.get("/metrics")).text) or (
            'mlapi_queue_depth{model="test"} 2.0' not in text
        ):
            await asyncio.sleep(0)
        refused = await post(client, "/predict-batch", {"texts": ["x"] * 9})
        engine.gate.set()
        served = [await task for task in requests]
        metrics = (await client.get("/metrics")).text
    assert refused.status_code == 503
    assert refused.json()["code"] == "overloaded"
    assert int(refused.headers["Retry-After"]) >= 1
    assert [answer.status_code for answer in served] == [200] * 3
    assert 'mlapi_refused_total{model="test",reason="overloaded"} 1.0' in metrics
    assert 'mlapi_queue_depth{model="test"} 0.0' in metrics


async def test_a_deadline_that_passes_is_504_and_a_waiting_text_never_runs(tmp_path: Path) -> None:
    app, engine = make_app(tmp_path), GatedClassifier()
    async with running(app) as client:
        serve_instead(app, engine)
        late = await post(client, "/predict", {"text": "x"}, **{"X-Request-Timeout-Ms": "50"})
        queued = await post(client, "/predict", {"text": "x"}, **{"X-Request-Timeout-Ms": "50"})
        engine.gate.set()
        after = await post(client, "/predict", {"text": "x"})
        metrics = (await client.get("/metrics")).text
    assert engine.calls == 2, "the one that was running, and the one after"
    for answer in (late, queued):
        assert answer.status_code == 504
        assert answer.json()["code"] == "deadline_exceeded"
    assert after.status_code == 200
    assert 'mlapi_refused_total{model="test",reason="deadline"} 2.0' in metrics


async def test_the_setting_bounds_the_deadline_that_a_client_may_ask_for(tmp_path: Path) -> None:
    app, engine = make_app(tmp_path, request_timeout_ms=50), GatedClassifier()
    async with running(app) as client:
        serve_instead(app, engine)
        answer = await post(client, "/predict", {"text": "x"}, **{"X-Request-Timeout-Ms": "60000"})
        engine.gate.set()
    assert answer.status_code == 504


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1e3", "3600001", ""])
async def test_a_deadline_that_makes_no_sense_is_422(client: AsyncClient, value: str) -> None:
    answer = await post(client, "/predict", {"text": "x"}, **{"X-Request-Timeout-Ms": value})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["header", "x-request-timeout-ms"]


async def test_a_score_that_is_not_a_number_is_an_error_not_an_answer(tmp_path: Path) -> None:
    class Broken(GatedClassifier):
        def classify(self, batch: Sequence[Encoded]) -> FloatArray:
            return np.full((len(batch), 2), np.nan, dtype=np.float32)

    app = make_app(tmp_path)
    async with running(app) as client:
        serve_instead(app, Broken())
        answer = await post(client, "/predict", {"text": "x"})
    assert answer.json()["code"] == "inference_failed"


async def test_an_engine_that_answers_too_few_rows_fails_instead_of_mixing_them(
    tmp_path: Path,
) -> None:
    class Short(GatedClassifier):
        def classify(self, batch: Sequence[Encoded]) -> FloatArray:
            return np.full((1, 2), 0.5, dtype=np.float32)

    app = make_app(tmp_path)
    async with running(app) as client:
        serve_instead(app, Short())
        answer = await post(client, "/predict-batch", {"texts": ["a", "b", "c"]})
    # Alone each text gets its one row; together they were never believed.
    assert [r["score"] for r in answer.json()["results"]] == [0.5] * 3


async def test_a_text_that_fails_leaves_its_row_in_the_log(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        await post(client, "/predict", {"text": "poison"})
        async with asyncio.timeout(10):
            while not (rows := (await client.get("/predictions")).json()["predictions"]):
                await asyncio.sleep(0.02)
    assert [(row["status"], row["error"]) for row in rows] == [(500, "inference_failed")]


async def test_a_model_that_still_loads_is_503_and_one_that_failed_too(tmp_path: Path) -> None:
    models = """
[[models]]
name = "slow"
engine = "fake"
fake = { load_delay_ms = 800 }

[[models]]
name = "broken"
engine = "fake"
fake = { fail_load = true }
"""
    async with running(make_app(tmp_path, models), wait=False) as client:
        loading = await post(client, "/predict/slow", {"text": "x"})
        while (await client.get("/models")).json()["models"][0]["state"] != "ready":
            await asyncio.sleep(0)
        broken = await post(client, "/predict/broken", {"text": "x"})
        served = await post(client, "/predict/slow", {"text": "x"})
    assert (loading.status_code, loading.json()["code"]) == (503, "model_not_ready")
    assert int(loading.headers["Retry-After"]) >= 1
    assert (broken.status_code, broken.json()["code"]) == (503, "model_unavailable")
    assert served.status_code == 200


async def test_models_tells_name_task_engine_source_state_and_version(
    two_models: AsyncClient,
) -> None:
    models = (await two_models.get("/models")).json()["models"]
    assert models[0] == {
        "name": "first",
        "task": Task.CLASSIFICATION,
        "engine": "fake",
        "default": False,
        "required": False,
        "state": "ready",
        "version": "none",
        "device": "none",
        "labels": ["a", "b", "c"],
        "max_chars": 2000,
    }
    assert [m["default"] for m in models if m["task"] == Task.CLASSIFICATION] == [False, True]
