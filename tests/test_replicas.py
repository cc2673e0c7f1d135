"""Models in replicas of Ray Serve: the same answers, and what becomes of a replica's death."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from httpx2 import AsyncClient
from ray_stub import APPLICATION, StubDeployment, death, install
from serving import FatalError, make_app, make_settings, running
from sharing import counted, until
from test_sharing import CLASSIFIER, OTHERS, REQUESTS, plain

from app.engines.chat_base import GenerationOptions, Message
from app.errors import (
    DeadlineExceededError,
    EngineError,
    ModelCrashedError,
    ModelUnavailableError,
    SettingsError,
)
from app.replicas.asking import RayErrors, Replicas
from app.replicas.chat import ReplicaChatModel
from app.replicas.cluster import join
from app.runtime.on_ray import _wait
from app.runtime.runtime import Runtime
from app.server.replica import Replica, open_replica

pytestmark = pytest.mark.core

MODELS = (
    CLASSIFIER
    + OTHERS.replace('name = "echo"\n', 'name = "echo"\nslots = 1\n')
    + """
[[models]]
name = "lazy"
engine = "fake"
load = "lazy"
"""
)
NAMES = ("dummy", "vectors", "names", "ranker", "nli", "echo")
NO_ERRORS = RayErrors(died=(), full=(), undeployed=())


@dataclass
class OnRay:
    """A service on replicas, and one that has its models itself."""

    client: AsyncClient
    alone: AsyncClient
    runtime: Runtime
    deployments: dict[str, StubDeployment]


def runtime_of(replica: Replica) -> Runtime:
    return replica._runtime


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def on_ray(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnRay]:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with AsyncExitStack() as stack:
            settings = make_settings(one, MODELS, features="none")
            deployments = {
                name: StubDeployment(
                    await stack.enter_async_context(open_replica(settings, name, cores=1))
                )
                for name in NAMES
            }
            install(monkeypatch, deployments)
            app = make_app(one, MODELS, features="none", ray_app=APPLICATION, ray_replicas=2)
            client = await stack.enter_async_context(running(app))
            alone = await stack.enter_async_context(running(make_app(two, MODELS, features="none")))
            yield OnRay(client, alone, app.state.runtime, deployments)


async def predict(on_ray: OnRay, **headers: str) -> Any:
    answer = await on_ray.client.post("/predict", json={"text": "x"}, headers=headers)
    return answer.status_code, answer.json(), answer.headers.get("Retry-After")


async def chat(on_ray: OnRay, query: str) -> list[Any]:
    answer = await on_ray.client.post("/chat/stream", json={"query": query})
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_answers_are_those_of_a_service_of_its_own(on_ray: OnRay) -> None:
    for path, body in REQUESTS:
        expected = await on_ray.alone.post(path, json=body)
        found = await on_ray.client.post(path, json=body)
        assert found.status_code == expected.status_code, path
        assert plain(found.json()) == plain(expected.json())
    expected, found = await on_ray.alone.get("/models"), await on_ray.client.get("/models")
    assert found.json() == expected.json()
    for name in NAMES:
        assert {"run", "generate"} & {*on_ray.deployments[name].calls}, name
    assert (await on_ray.client.post("/predict/lazy", json={"text": "a"})).status_code == 200


class Loading(Replicas):
    """Replicas that answer otherwise each time."""

    def __init__(self, *answers: Any) -> None:
        self._answers = iter(answers)

    def ask(self, *_: Any, **__: Any) -> Any:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_replica_is_asked_until_it_has_loaded_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.runtime.on_ray.PAUSE_S", 0.0)
    facts: Any = object()
    replicas = Loading(DeadlineExceededError(), ModelCrashedError(), facts)
    assert _wait(replicas, Event()) is facts
    with pytest.raises(EngineError, match="its replicas can't be asked: model_unavailable"):
        _wait(Loading(ModelUnavailableError()), Event())
    is_over = Event()
    is_over.set()  # the service ends
    with pytest.raises(EngineError, match="none of its replicas has loaded it"):
        _wait(Loading(), is_over)


async def test_a_call_whose_replica_died_is_repeated_once(
    on_ray: OnRay, caplog: pytest.LogCaptureFixture
) -> None:
    deployment = on_ray.deployments["dummy"]
    deployment.failures[:] = [death()]
    assert (await predict(on_ray))[0] == 200
    deployment.failures[:] = [death(), death()]
    status, problem, retry_after = await predict(on_ray)
    assert (status, problem["code"]) == (503, "model_crashed")
    assert int(retry_after) >= 1  # as long as it took to load
    assert [r.__dict__["attempt"] for r in caplog.records if r.msg == "replica_lost"] == [1, 1, 2]
    assert (await predict(on_ray))[0] == 200


async def test_a_failure_of_all_texts_isnt_tried_with_half_of_them(on_ray: OnRay) -> None:
    deployment = on_ray.deployments["dummy"]
    deployment.failures[:] = [death(), death()]
    deployment.calls.clear()
    texts = ["a", "bb", "ccc", "dddd"]
    answer = await on_ray.client.post("/predict-batch", json={"texts": texts})
    codes = [row["error"]["code"] for row in answer.json()["results"]]
    assert codes == ["model_crashed"] * 4
    assert deployment.calls == ["run", "run"]


async def test_a_call_ends_when_its_requests_wait_no_longer(on_ray: OnRay) -> None:
    deployment = on_ray.deployments["dummy"]
    replica, came = deployment.replica, asyncio.Event()

    class Stuck:
        async def run(self, *_: Any) -> bytes:
            came.set()
            await asyncio.Event().wait()
            return b""

    deployment.replica = Stuck()
    try:
        status, problem, _ = await predict(on_ray, **{"X-Request-Timeout-Ms": "300"})
        await until(lambda: deployment.cancelled == ["run"])
    finally:
        deployment.replica = replica
    assert came.is_set()
    assert (status, problem["code"]) == (504, "deadline_exceeded")


async def test_a_stream_is_started_again_only_before_its_first_token(on_ray: OnRay) -> None:
    deployment = on_ray.deployments["echo"]
    deployment.failures[:] = [death()]
    lines = await chat(on_ray, "one two three")
    assert "".join(line["token"] for line in lines) == "one two three"
    assert lines[-1]["finish_reason"] == "stop"
    deployment.failures[:] = [death()]
    deployment.whole_pieces = 2
    lines = await chat(on_ray, "one two three")
    deployment.whole_pieces = 0
    assert [line["token"] for line in lines] == ["one", " two", ""]
    assert lines[-1]["error"]["code"] == "model_crashed"


async def test_who_leaves_a_stream_ends_it_in_its_replica(on_ray: OnRay) -> None:
    deployment: Any = on_ray.deployments["echo"]
    deployment.cancelled.clear()
    replica: Replica = deployment.replica
    facts = (await replica.facts()).chat
    assert facts is not None
    replicas = Replicas("echo", deployment, NO_ERRORS)
    chat_model = ReplicaChatModel(replicas=replicas, edition=facts.version, kind=facts.kind)
    words = Message(role="user", content="word " * 1_000)
    run = chat_model.start([words], GenerationOptions())
    pieces = run.tokens()
    assert await anext(pieces) == "word"
    assert counted(runtime_of(replica), "generations_active", model="echo") == 1
    await pieces.aclose()
    assert deployment.cancelled == ["generate"]
    await until(lambda: counted(runtime_of(replica), "generations_active", model="echo") == 0)
    await chat(on_ray, "its only slot is free again")


async def test_what_a_replica_refuses_is_refused_before_any_token(on_ray: OnRay) -> None:
    body = {"query": "word " * 5_000}
    expected, found = (
        await on_ray.alone.post("/chat", json=body),
        await on_ray.client.post("/chat", json=body),
    )
    assert found.status_code == expected.status_code == 422
    assert plain(found.json()) == plain(expected.json())


async def test_another_model_under_the_name_is_refused(on_ray: OnRay, tmp_path: Path) -> None:
    deployments = on_ray.deployments
    replicas = {name: deployments[name].replica for name in ("dummy", "echo")}
    other = MODELS.replace('name = "dummy"\n', 'name = "dummy"\nlabels = ["a", "b"]\n')
    settings = make_settings(tmp_path, other, features="none")
    async with open_replica(settings, "dummy", cores=1) as replica:
        deployments["dummy"].replica = replica
        status, problem, _ = await predict(on_ray)
    deployments["dummy"].replica = replicas["dummy"]
    assert (status, problem["code"]) == (503, "model_unavailable")


async def test_a_replica_loads_its_model_or_fails(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, MODELS + '[[models]]\nname = "lost"\nsource = "file:gone"\n')
    for name in ("nobody", "lazy", "lost"):
        with pytest.raises(EngineError, match=name):
            async with open_replica(settings, name, cores=1):
                pass


async def test_a_service_says_which_model_isnt_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, {})
    with pytest.raises(FatalError, match="'ml-api' on Ray Serve has no deployment 'dummy'"):
        async with running(make_app(tmp_path, CLASSIFIER, ray_app=APPLICATION)):
            pass


def test_without_ray_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'ml-api\[ray\]'"):
        join(APPLICATION)
