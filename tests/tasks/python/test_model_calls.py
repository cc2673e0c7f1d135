"""`self.models`: a class that calls other served models, from a thread and from a process."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from serving import FAKE, FAKE_EMBEDDER, FatalError, make_app, running, serve_instead, serving
from test_disconnect import Client, scope
from test_scheduler import Engine, hold, queued

from app.engines.python.model_messages import error_head, read_error
from app.errors import CatalogError, all_service_errors

LATE = 30.0
MODEL = """
import threading
from collections.abc import Iterator
from typing import Any

class Caller:
    def load(self, device):
        self.loaded = self.models["vectors"](["at load"]).shape

    def predict(self, items: list[dict[str, Any]]) -> list[Any]:
        return [self.answer(**item) for item in items]

    def answer(self, model="", items=(), how=""):
        if how == "load":
            return list(self.loaded)
        if how == "catch":
            try:
                return self.models[model](items)
            except self.models.Error as error:
                return [error.status, error.code]
        if how == "thread":
            said = []
            def call():
                try:
                    self.models[model](items)
                except Exception as error:
                    said.append(str(error))
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
            return said[0]
        if how == "one":
            return self.models[model].one(items[0])
        answers = self.models[model](items)
        if model == "vectors":
            assert answers.dtype == "float32" and answers.flags.writeable
            return list(answers.shape)
        return answers

    def stream(self, item: str) -> Iterator[dict[str, Any]]:
        for word in item.split():
            yield self.models["dummy"].one(word)

class Upper:
    def predict(self, items: list[str]) -> list[str]:
        if "poison" in items:
            raise ValueError
        return [item.upper() for item in items]
"""
OTHERS = (
    FAKE
    + FAKE_EMBEDDER
    + """
[[models]]
name = "people"
task = "token-classification"
engine = "fake"

[[models]]
name = "ranks"
task = "text-ranking"
engine = "fake"

[[models]]
name = "nli"
task = "zero-shot-classification"
engine = "fake"

[[models]]
name = "talk"
task = "chat"
engine = "fake"
slots = 1
waiting = 0

[[models]]
name = "upper"
engine = "python"
source = "file:model.py:Upper"
isolation = "thread"
"""
)
CALLER = """
[[models]]
name = "caller"
engine = "python"
source = "file:model.py:Caller"
uses = ["vectors", "dummy", "people", "ranks", "nli", "talk", "upper"]
isolation = """
ISOLATIONS = ["thread", "process"]


def write(folder: Path, isolation: str, *, code: str = MODEL) -> str:
    (folder / "model.py").write_text(code, encoding="utf-8")
    return f'{OTHERS}{CALLER}"{isolation}"\n'


@pytest.fixture(scope="module", params=ISOLATIONS)
async def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    folder = tmp_path_factory.mktemp(request.param)
    async with serving(folder, write(folder, request.param)) as client:
        yield client


async def ask(client: AsyncClient, **item: Any) -> Any:
    answer = await client.post("/predict/caller", json=item)
    return answer.json() if answer.status_code == 200 else (answer.status_code, answer.json())


async def test_each_task_answers_as_over_http(client: AsyncClient) -> None:
    texts = ["Ada was here", "in London"]
    assert await ask(client, model="vectors", items=texts) == [2, 384]
    assert await ask(client, model="vectors", items=[]) == [0, 384]
    assert await ask(client, how="load") == [1, 384], "it was called while the class was loaded"
    over_http = (await client.post("/predict", json={"text": texts[0], "top_k": 2})).json()
    (called,) = await ask(client, model="dummy", items=texts[:1])
    assert called["label"] == over_http["label"]
    assert called["scores"] == {one["label"]: one["score"] for one in over_http["scores"]}
    over_http = (await client.post("/ner", json={"text": texts[0]})).json()
    assert await ask(client, model="people", items=texts[:1]) == [over_http["entities"]]
    body = {"query": texts[0], "documents": texts}
    ranked = (await client.post("/rerank", json=body)).json()["results"]
    scores = await ask(client, model="ranks", items=[[texts[0], text] for text in texts])
    assert {one["index"]: one["relevance_score"] for one in ranked} == dict(enumerate(scores))
    body = {"text": texts[0], "labels": ["a", "b"]}
    over_http = (await client.post("/zero-shot", json=body)).json()
    (called,) = await ask(client, model="nli", items=[body])
    assert (called["label"], called["score"]) == (over_http["label"], over_http["score"])
    assert await ask(client, model="upper", items=texts) == ["ADA WAS HERE", "IN LONDON"]
    assert await ask(client, model="upper", items=texts, how="one") == "ADA WAS HERE"


async def test_a_chat_model_answers_more_items_than_it_has_slots(client: AsyncClient) -> None:
    items = ["a question", {"query": "another", "max_tokens": 2}, "a third"]
    texts = await ask(client, model="talk", items=items)
    over_http = (await client.post("/chat", json={"query": "a question"})).json()
    assert texts[0] == over_http["answer"]
    assert len(texts) == 3


async def test_calls_are_counted_as_the_other_models(client: AsyncClient) -> None:
    def items(text: str) -> float:
        lines = [line for line in text.splitlines() if line.startswith("mlapi_batch_size_sum")]
        return sum(float(line.split()[-1]) for line in lines if 'model="dummy"' in line)

    before = items((await client.get("/metrics")).text)
    await ask(client, model="dummy", items=["a", "b", "c"])
    assert items((await client.get("/metrics")).text) == before + 3


@pytest.mark.parametrize(
    ("item", "status", "code"),
    [
        ({"model": "dummy", "items": ["good", ""]}, 422, "text_empty"),
        ({"model": "dummy", "items": ["x" * 2_001]}, 422, "text_too_long"),
        ({"model": "dummy", "items": [3]}, 422, "invalid_request"),
        ({"model": "dummy", "items": ["poison"]}, 500, "inference_failed"),
        ({"model": "upper", "items": ["poison"]}, 500, "inference_failed"),
        ({"model": "upper", "items": [3]}, 422, "invalid_request"),
        ({"model": "ranks", "items": ["no pair"]}, 422, "invalid_request"),
        ({"model": "unknown", "items": ["x"]}, 500, "inference_failed"),
        ({"model": "dummy", "items": "no list"}, 500, "inference_failed"),
    ],
)
async def test_an_error_of_the_other_model_is_the_answer_unless_the_class_catches_it(
    client: AsyncClient, item: dict[str, Any], status: int, code: str
) -> None:
    answered, problem = await ask(client, **item)
    assert (answered, problem["code"]) == (status, code)
    if status == 422 or item["items"] == ["poison"]:
        assert await ask(client, **item, how="catch") == [status, code]


async def test_an_item_that_the_other_model_refuses_harms_no_batch_mate(
    client: AsyncClient,
) -> None:
    items = [{"model": "dummy", "items": [text]} for text in ("good", "", "fine")]
    answer = await client.post("/predict-batch/caller", json={"items": items})
    good, bad, fine = answer.json()["results"]
    assert bad["error"]["code"] == "text_empty"
    assert good["answer"][0]["label"]
    assert fine["answer"][0]["label"]


async def test_a_stream_calls_models_too(client: AsyncClient) -> None:
    answer = await client.post("/predict/caller/stream", json="one two")
    first, second, end = map(json.loads, answer.text.splitlines())
    assert first["answer"]["label"]
    assert second["answer"]["label"]
    assert end == {"done": True}


async def test_other_threads_of_the_class_get_a_clear_error(client: AsyncClient) -> None:
    said = await ask(client, model="dummy", items=["x"], how="thread")
    assert "in the thread that runs them" in said


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_call_ends_with_its_caller_and_at_its_deadline(
    tmp_path: Path, isolation: str
) -> None:
    app, engine = make_app(tmp_path, write(tmp_path, isolation)), Engine()
    async with running(app) as http:
        scheduler = serve_instead(app, engine)
        engine.labels = ("NEGATIVE", "POSITIVE")  # type: ignore[assignment]  # as many as it likes
        first = await hold(engine, scheduler)
        body = json.dumps({"model": "dummy", "items": ["leaver"]}).encode()
        client = Client(body)
        asked = asyncio.create_task(app(scope("/predict/caller"), client.receive, client.send))
        await queued(scheduler, 1)
        client.left.set()
        await asked
        async with asyncio.timeout(LATE):
            while len(scheduler._requests._queue):
                await asyncio.sleep(0)
        late = http.post(
            "/predict/caller",
            content=body,
            headers={"Content-Type": "application/json", "X-Request-Timeout-Ms": "300"},
        )
        assert (await late).status_code == 504
        async with asyncio.timeout(LATE):
            while len(scheduler._requests._queue):
                await asyncio.sleep(0)
        engine.gate.set()
        await first
        fresh = await http.post("/predict/caller", json={"how": "load"})
        assert fresh.json() == [1, 384], "the class goes on"
    assert engine.batches == [[7]], "what nobody waits for reaches no engine"


def refusal(folder: Path, uses: str, more: str = "") -> str:
    with pytest.raises(CatalogError) as refused:
        make_app(folder, f"{FAKE}{CALLER.split('uses', maxsplit=1)[0]}uses = {uses}\n{more}")
    return str(refused.value)


def test_unknown_names_and_circles_are_refused_before_anything_loads(tmp_path: Path) -> None:
    line = refusal(tmp_path, '["minilm"]')
    assert "model 'caller': uses: there is no model 'minilm'; there are dummy" in line
    assert "caller → caller" in refusal(tmp_path, '["caller"]')
    upper = '[[models]]\nname = "upper"\nengine = "python"\nsource = "file:model.py:Upper"\n'
    line = refusal(tmp_path, '["dummy", "upper"]', f'{upper}uses = "caller"\n')
    assert "caller → upper → caller" in line
    assert "uses is for models of the engine" in refusal(
        tmp_path, '["dummy"]', '[[models]]\nname = "b"\nengine = "fake"\nuses = ["dummy"]\n'
    )


async def test_a_model_is_loaded_after_those_that_it_uses_and_not_without_them(
    tmp_path: Path,
) -> None:
    models = write(tmp_path, "thread").replace(
        'name = "vectors"', 'name = "vectors"\nrequired = false\nfake = { fail_load = true }'
    )
    with pytest.raises(FatalError, match=r"it uses 'vectors', which is not served: it could not"):
        async with running(make_app(tmp_path, models)):
            pass


def test_each_error_crosses_from_a_process_as_it_is() -> None:
    for kind in all_service_errors():
        head = {"code": kind.code, "detail": "why", "retry_after_s": 3, "extensions": {"a": 1}}
        read = read_error(head)
        assert (read.code, read.status, str(read)) == (kind.code, kind.status, "why")
        assert error_head(read) == head
        assert read.headers["Retry-After"] == "3"
