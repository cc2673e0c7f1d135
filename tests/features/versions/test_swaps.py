"""Changing which version of a model serves, while it serves."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from httpx2 import AsyncClient, Response
from serving import make_app, running, serving

from app.core.memory import free_bytes
from app.core.metrics import Metrics
from app.engines.base import Task
from app.errors import EngineError, ModelLoadFailedError, SwapInProgressError
from app.models.catalog import Catalog, ModelSpec
from app.models.entries import Served
from app.models.loads import CheckRoom, has_room
from app.models.registry import ModelRegistry, TaskKey
from app.models.room import RoomCheck, weight_bytes
from app.models.swaps import Swap, Swaps

pytestmark = pytest.mark.core

MODELS = """
[[models]]
name = "mood"
engine = "fake"
required = true
[[models.versions]]
version = "1"
[[models.versions]]
version = "2"
fake = { delay_ms = 1 }
[[models.versions]]
version = "broken"
fake = { fail_load = true }

[[models]]
name = "spare"
engine = "fake"
required = false
"""
PINNED = "X-Model-Version"
PATIENCE_S = 30.0


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path, MODELS, auth="off") as client:
        yield client


async def swap(client: AsyncClient, action: str, model: str = "mood", **body: Any) -> Response:
    return await client.post(f"/models/{model}/{action}", json=body)


async def state_of(client: AsyncClient, model: str = "mood") -> dict[str, Any]:
    listed = {m["name"]: m for m in (await client.get("/models")).json()["models"]}
    versions = listed[model].get("versions", [])
    return {one["version"]: (one["state"], one["weight"], one["serving"]) for one in versions}


async def answered(client: AsyncClient, **headers: str) -> str:
    answer = await client.post("/predict/mood", json={"text": "good"}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers[PINNED]


async def test_a_version_is_tried_promoted_and_taken_back(client: AsyncClient) -> None:
    assert await answered(client) == "1"
    loaded = await swap(client, "load", version="2")
    assert loaded.status_code == 200
    assert await state_of(client) == {
        "1": ("ready", 1, True),
        "2": ("ready", 0, False),
        "broken": ("unloaded", 0, False),
    }
    assert await answered(client, **{PINNED: "2"}) == "2"
    canary = await swap(client, "promote", version="2", percent=50)
    assert [one["weight"] for one in canary.json()["versions"]] == [50, 50, 0]
    got = {await answered(client, **{"X-Session-ID": str(n)}) for n in range(20)}
    assert got == {"1", "2"}
    assert (await swap(client, "rollback")).status_code == 200
    assert (await state_of(client))["2"] == ("unloaded", 0, False)
    promoted = await swap(client, "promote", version="2")
    assert promoted.json()["version"] == "2"
    assert await state_of(client) == {
        "1": ("unloaded", 0, False),
        "2": ("ready", 1, True),
        "broken": ("unloaded", 0, False),
    }
    assert await answered(client) == "2"
    assert (await client.get("/ready")).status_code == 200
    assert (await swap(client, "rollback")).json()["version"] == "1"
    assert await answered(client) == "1"
    lines = (await client.get("/metrics")).text.splitlines()
    counted = 'mlapi_model_swaps_total{action="promote",model="mood",outcome="done"} 2.0'
    assert counted in lines
    assert 'mlapi_model_ready{model="mood"} 1.0' in lines


async def test_what_can_t_be_loaded_changes_nothing_and_says_why(client: AsyncClient) -> None:
    shares: list[dict[str, Any]] = [{}, {"percent": 5}]
    for percent in shares:
        failed = await swap(client, "promote", version="broken", **percent)
        assert (failed.status_code, failed.json()["code"]) == (503, "model_load_failed")
        assert "told not to load" in failed.json()["detail"]
    state = await state_of(client)
    assert (state["1"], state["broken"]) == (("ready", 1, True), ("failed", 0, False))
    assert await answered(client) == "1"
    assert (await client.get("/ready")).json()["degraded"] == ["model:mood@broken"]
    lines = (await client.get("/metrics")).text.splitlines()
    assert 'mlapi_model_swaps_total{action="promote",model="mood",outcome="failed"} 2.0' in lines


REFUSED: tuple[tuple[str, str, dict[str, Any], int, str], ...] = (
    ("load", "none", {}, 404, "model_not_found"),
    ("load", "mood", {"version": "9"}, 404, "model_version_not_found"),
    ("load", "mood", {"source": "file:/etc"}, 422, "invalid_request"),
    ("promote", "mood", {"version": "2", "percent": 100}, 422, "invalid_request"),
    ("promote", "mood", {}, 409, "swap_refused"),  # two others: which one?
    ("promote", "mood", {"version": "1"}, 409, "swap_refused"),
    ("promote", "spare", {}, 409, "swap_refused"),
    ("rollback", "mood", {}, 409, "swap_refused"),
    ("unload", "mood", {}, 409, "swap_refused"),
    ("unload", "mood", {"version": "1"}, 409, "swap_refused"),
)


async def test_what_can_t_be_done_is_refused(client: AsyncClient) -> None:
    for action, model, body, status, code in REFUSED:
        refused = await swap(client, action, model, **body)
        assert (refused.status_code, refused.json()["code"]) == (status, code), (action, body)


async def test_only_admins_change_models(tmp_path: Path) -> None:
    admin = {"X-API-Key": "an-admin-key-of-the-fleet"}
    values = {"auth": "required", "admin_key": admin["X-API-Key"]}
    async with serving(tmp_path, MODELS, **values) as client:
        made = await client.post("/keys", json={"name": "k", "scopes": ["predict"]}, headers=admin)
        key = {"X-API-Key": made.json()["key"]}
        for path in ("/models/mood/promote", "/v2/repository/models/spare/unload"):
            assert (await client.post(path, json={}, headers=key)).status_code == 403
            assert (await client.post(path, json={})).status_code == 401


async def test_the_open_inference_protocol_loads_and_unloads(client: AsyncClient) -> None:
    base = "/v2/repository"
    assert (await client.post(f"{base}/models/spare/unload")).status_code == 200
    assert (await client.post("/predict/spare", json={"text": "a"})).status_code == 503
    index = (await client.post(f"{base}/index", json={"ready": True})).json()
    assert [(one["name"], one["version"], one["state"]) for one in index] == [
        ("mood", "1", "READY")
    ]
    everything = (await client.post(f"{base}/index")).json()
    assert [one["state"] for one in everything] == ["READY", *["UNAVAILABLE"] * 3]
    brought = {"parameters": {"file:1/model.onnx": "AAAA"}}
    assert (await client.post(f"{base}/models/spare/load", json=brought)).status_code == 422
    assert (await client.post(f"{base}/models/spare/load", json={})).status_code == 200
    assert (await client.post("/predict/spare", json={"text": "a"})).status_code == 200
    assert (await client.post(f"{base}/models/none/load")).status_code == 404


@dataclass(kw_only=True)
class Model:
    """Serves nothing, and notes that it is closed."""

    closed: Event = field(default_factory=Event)
    can_close_early: bool = False

    def problems(self, *, max_call_s: float) -> list[str]:
        return []

    def longest_call_s(self) -> float:
        return 0.0

    def close(self, *, timeout_s: float) -> None:
        self.closed.set()


class Loading:
    """Loads models, the second one when it is told to."""

    def __init__(self) -> None:
        self.models: list[Model] = []
        self.began, self.go_on = Event(), Event()

    def __call__(self, _: ModelSpec) -> Served:
        if self.models:
            self.began.set()
            assert self.go_on.wait(PATIENCE_S)
        self.models.append(Model())
        return Served(model=self.models[-1], version="of the files")


TASK = TaskKey[Any](Task.CLASSIFICATION)


@asynccontextmanager
async def swapping(
    load: Loading, *, check_room: CheckRoom = has_room
) -> AsyncIterator[tuple[ModelRegistry, Swaps]]:
    spec = ModelSpec.model_validate(
        {"name": "a", "required": True, "versions": [{"version": "1"}, {"version": "2"}]}
    )
    metrics = Metrics()
    with ThreadPoolExecutor(2) as threads:
        registry = ModelRegistry(
            Catalog([spec]), load=load, executor=threads, metrics=metrics, check_room=check_room
        )
        await registry.load_all()
        swaps = Swaps(registry, metrics=metrics)
        try:
            yield registry, swaps
        finally:
            load.go_on.set()
            await swaps.close()
            await registry.close(timeout_s=0)


async def test_two_operators_at_once_and_a_request_that_still_runs() -> None:
    load = Loading()
    async with swapping(load) as (registry, swaps):
        task = swaps.begin(Swap(action="promote", model="a", version="2"))
        assert await asyncio.to_thread(load.began.wait, PATIENCE_S)
        for action in ("load", "promote", "rollback", "unload"):
            with pytest.raises(SwapInProgressError, match="promote of 2 is in progress"):
                swaps.begin(Swap(action=action, model="a", version="2"))
        with registry.lease("a", TASK) as lease:
            assert lease.version == "1"
            load.go_on.set()
            await task
            with registry.lease("a", TASK) as new:
                assert (new.version, new.model) == ("2", load.models[1])
            assert not load.models[0].closed.is_set()  # it is still lent
            back = swaps.begin(Swap(action="rollback", model="a"))  # at once, whoever still has it
            await back
            with registry.lease("a", TASK) as again:
                assert (again.version, again.model) == ("1", load.models[2])
        assert await asyncio.to_thread(load.models[0].closed.wait, PATIENCE_S)
        assert registry.is_ready


async def test_the_end_of_the_process_in_the_middle_leaves_what_served_and_closes_all() -> None:
    load = Loading()
    async with swapping(load) as (registry, swaps):
        task = swaps.begin(Swap(action="promote", model="a", version="2"))
        assert await asyncio.to_thread(load.began.wait, PATIENCE_S)
        await swaps.close()
        assert task.cancelled()
        assert registry.model("a").serving == "1"
        assert swaps.running("a") is None
        with registry.lease("a", TASK) as lease:
            assert lease.version == "1"
    assert len(load.models) == 2  # a load can't be stopped
    assert all([await asyncio.to_thread(one.closed.wait, PATIENCE_S) for one in load.models])


async def test_a_version_that_memory_would_not_hold_isn_t_loaded() -> None:
    load = Loading()
    load.go_on.set()

    def check_room(spec: ModelSpec) -> None:
        raise EngineError(f"no room for {spec.name}")

    async with swapping(load, check_room=check_room) as (registry, swaps):
        with pytest.raises(ModelLoadFailedError, match="no room for a@2"):
            await swaps.begin(Swap(action="promote", model="a", version="2"))
        assert registry.model("a").serving == "1"
    assert len(load.models) == 1


def test_room_is_the_machine_s_within_the_container_s(tmp_path: Path) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 9 kB\nMemAvailable:    4096 kB\n")
    assert free_bytes(memory, tmp_path) == 4096 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    assert free_bytes(memory, tmp_path) == 500_000
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 100000\n")
    assert free_bytes(memory, tmp_path) == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(memory, tmp_path) == 4096 * 1024
    assert free_bytes(tmp_path / "none", tmp_path / "none") is None
    for name, size in (("a.safetensors", 10), ("b.gguf", 5), ("config.json", 99)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert weight_bytes(tmp_path) == 25
    assert (weight_bytes(tmp_path / "b.gguf"), weight_bytes(None)) == (5, 0)

    loader: Any = SimpleNamespace(request=lambda _: (SimpleNamespace(folder=tmp_path), "1"))
    RoomCheck(loader, free=lambda: 25)(ModelSpec(name="a"))
    RoomCheck(loader, free=lambda: None)(ModelSpec(name="a"))
    with pytest.raises(EngineError, match="it needs about"):
        RoomCheck(loader, free=lambda: 24)(ModelSpec(name="a"))


async def test_a_catalogue_that_has_changed_is_taken_over_while_it_serves(tmp_path: Path) -> None:
    app = make_app(tmp_path, MODELS, auth="off")
    file = tmp_path / "models.toml"
    async with running(app) as client:

        async def apply(text: str) -> Any:
            file.write_text(text)
            return (await client.post("/models/apply")).json()

        assert await apply(MODELS) == {"models": []}
        kept = app.state.runtime.registry.model("mood").entries["1"].served
        changed = MODELS.replace('version = "2"\n', 'version = "2"\nweight = 1\n').replace(
            'version = "1"\n', 'version = "1"\nweight = 9\n'
        )
        added = '\n[[models]]\nname = "new"\nengine = "fake"\n'
        assert await apply(changed + added) == {
            "models": [
                {"model": "mood", "outcome": "changed"},
                {"model": "new", "outcome": "added"},
            ]
        }
        assert app.state.runtime.registry.model("mood").entries["1"].served is kept
        assert (await state_of(client))["2"] == ("ready", 1, False)
        assert (await client.post("/predict/new", json={"text": "a"})).status_code == 200
        worse = changed.replace('version = "broken"\n', 'version = "broken"\nweight = 1\n')
        refused = await apply(worse + added)
        assert refused["models"][0]["outcome"] == "failed"
        assert "told not to load" in refused["models"][0]["reason"]
        assert (await state_of(client))["broken"] == ("unloaded", 0, False)
        gone = await apply(changed.partition('\n[[models]]\nname = "spare"')[0])
        assert [(one["model"], one["outcome"]) for one in gone["models"]] == [
            ("spare", "removed"),
            ("new", "removed"),
        ]
        assert (await client.post("/predict/new", json={"text": "a"})).status_code == 404
        assert 'mlapi_model_ready{model="new"}' not in (await client.get("/metrics")).text
        plain = '[[models]]\nname = "mood"\nengine = "fake"\nrequired = true\n'
        assert (await apply(plain))["models"] == [{"model": "mood", "outcome": "changed"}]
        for text, part in (
            (plain.replace("mood", "x"), "model 'mood': it is required, and is gone"),
            (plain.replace("true", "false"), "model 'mood': required"),
            (plain + 'task = "chat"', "model 'mood': task"),
            (plain + added + "required = true", "model 'new': it is new, and required"),
            ("[[models", "not valid TOML"),
        ):
            answer = await apply(text)
            assert (answer["status"], answer["code"]) == (409, "catalogue_refused"), text
            assert part in answer["detail"]
        assert (await client.post("/predict", json={"text": "a"})).status_code == 200
