"""Models on demand: loaded when first asked, unloaded when idle or for another, waits bounded."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest
from httpx2 import AsyncClient
from loaded import Loaded
from serving import serving

from app.core.metrics import Metrics
from app.engines.base import Task
from app.errors import (
    CatalogError,
    EngineError,
    ModelLoadFailedError,
    ModelNotReadyError,
    ModelUnavailableError,
)
from app.models import memory_budget, on_demand
from app.models.applying import apply
from app.models.catalog import Catalog, ModelSpec, read_catalog
from app.models.entries import ModelState, Served
from app.models.memory_budget import Budget
from app.models.registry import ModelRegistry, TaskKey
from app.models.swaps import Action, Swap, Swaps

pytestmark = pytest.mark.core

PATIENCE_S = 30.0  # for what happens at once unless something is broken
KEY: TaskKey[Loaded] = TaskKey(Task.CLASSIFICATION)


@dataclass(kw_only=True)
class Loader:
    """Loads once it may, and counts."""

    may: Event = field(default_factory=Event)
    loads: list[str] = field(default_factory=list)
    made: list[Loaded] = field(default_factory=list)
    failure: EngineError | None = None
    calls: Callable[[str], None] = lambda _: None  # what a model's code does while it is loaded

    def __call__(self, spec: ModelSpec) -> Served:
        self.loads.append(spec.name)
        assert self.may.wait(PATIENCE_S)
        self.calls(spec.name)
        if self.failure is not None:
            raise self.failure
        self.made.append(Loaded())
        return Served(model=self.made[-1], version="1")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.fixture
def loader() -> Loader:
    loader = Loader()
    loader.may.set()
    return loader


def catalog_of(*names: str, idle_s: float | None = None, source: str = "file:a") -> Catalog:
    return Catalog(
        [
            ModelSpec(name=name, engine="fake", load="lazy", idle_unload_s=idle_s, source=source)
            for name in names
        ],
        folder=Path(),
    )


@asynccontextmanager
async def registry_of(
    threads: ThreadPoolExecutor,
    loader: Loader,
    *names: str,
    budget: int | None = None,
    idle_s: float | None = None,
) -> AsyncIterator[tuple[ModelRegistry, Metrics]]:
    """Open a registry of lazy models, each of which takes ten bytes, and "large" twenty."""
    catalog = catalog_of(*names, idle_s=idle_s)
    metrics = Metrics()
    registry = ModelRegistry(
        catalog,
        load=loader,
        executor=threads,
        metrics=metrics,
        budget=Budget(
            size=lambda spec: 20 if spec.name == "large" else 10,
            limit_bytes=budget,
        ),
    )
    await registry.load_all()
    yield registry, metrics
    await registry.close(timeout_s=PATIENCE_S)


async def use(registry: ModelRegistry, name: str) -> Loaded:
    """Ask a model once."""
    await registry.wake(name, KEY, until_s=time.monotonic() + PATIENCE_S)
    with registry.lease(name, KEY) as lease:
        return lease.model


def state(registry: ModelRegistry, name: str) -> ModelState:
    return registry.model(name).entry.state


def count(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"mlapi_on_demand_{name}_total", labels)


async def test_many_that_ask_at_once_load_it_once(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    async with registry_of(threads, loader, "a", "b") as (registry, metrics):
        assert registry.is_ready
        assert not loader.loads
        assert metrics.registry.get_sample_value("mlapi_model_ready", {"model": "a"}) is None
        found = await asyncio.gather(*(use(registry, "a") for _ in range(20)))
        assert all(one is found[0] for one in found)
        assert loader.loads == ["a"]
        assert metrics.registry.get_sample_value("mlapi_model_ready", {"model": "a"}) == 1
        assert state(registry, "b") is ModelState.UNLOADED


async def test_who_cannot_wait_is_told_when_to_come_back_and_the_load_goes_on(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    loader.may.clear()
    async with registry_of(threads, loader, "a") as (registry, _):
        with pytest.raises(ModelNotReadyError) as refused:
            await registry.wake("a", KEY, until_s=time.monotonic() + 0.01)
        assert refused.value.retry_after_s
        with pytest.raises(ModelNotReadyError), registry.lease("a", KEY):
            pytest.fail("it isn't loaded")
        leaving = asyncio.create_task(use(registry, "a"))
        await asyncio.sleep(0)
        leaving.cancel()
        loader.may.set()
        await use(registry, "a")
        assert loader.loads == ["a"]


async def test_a_lease_that_nobody_could_wait_for_begins_the_load(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    async with registry_of(threads, loader, "a") as (registry, _):
        with pytest.raises(ModelNotReadyError), registry.lease("a", KEY):
            pytest.fail("it isn't loaded")
        await use(registry, "a")
        assert loader.loads == ["a"]


async def test_what_was_used_least_recently_goes_and_never_what_is_lent(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    async with registry_of(threads, loader, "a", "b", "c", budget=20) as (registry, metrics):
        first, _ = await use(registry, "a"), await use(registry, "b")
        await use(registry, "a")  # so b is the older one now
        await use(registry, "c")
        assert state(registry, "b") is ModelState.UNLOADED
        assert state(registry, "a") is ModelState.READY
        assert count(metrics, "unloads", model="b", reason="budget") == 1
        with registry.lease("c", KEY), registry.lease("a", KEY):  # so a is the older one then
            with pytest.raises(ModelNotReadyError, match="memory"):
                await use(registry, "b")
            assert count(metrics, "loads", model="b", outcome="no_room") == 1
            assert not first.closed.is_set()
        await use(registry, "b")
        assert await asyncio.to_thread(first.closed.wait, PATIENCE_S)


async def test_one_larger_than_the_budget_fails_and_unloads_nobody(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    async with registry_of(threads, loader, "a", budget=5) as (registry, _):
        with pytest.raises(ModelUnavailableError):
            await use(registry, "a")
        assert "MODELS_MEMORY_MB" in (registry.model("a").entry.detail or "")
        assert not loader.loads


async def test_an_idle_model_is_unloaded_and_one_on_loan_stays(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    async with registry_of(threads, loader, "a", idle_s=0.05) as (registry, metrics):
        model = await use(registry, "a")
        with registry.lease("a", KEY):
            await asyncio.sleep(0.15)
            assert not model.closed.is_set()
        assert await asyncio.to_thread(model.closed.wait, PATIENCE_S)
        assert state(registry, "a") is ModelState.UNLOADED
        assert count(metrics, "unloads", model="a", reason="idle") == 1
        await use(registry, "a")
        assert loader.loads == ["a", "a"]


async def test_the_clock_of_an_idle_model_begins_anew_with_each_request(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    async with registry_of(threads, loader, "a", idle_s=0.3) as (registry, metrics):
        model, began_s = await use(registry, "a"), time.monotonic()
        await asyncio.sleep(0.2)
        await use(registry, "a")
        assert await asyncio.to_thread(model.closed.wait, PATIENCE_S)
        assert time.monotonic() - began_s > 0.45
        await use(registry, "a")
        registry.drop(registry.model("a").entry)  # an operator was quicker than the clock
        await asyncio.sleep(0.35)
        assert count(metrics, "unloads", model="a", reason="idle") == 1


async def test_the_end_of_the_service_ends_a_load(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    loader.may.clear()
    async with registry_of(threads, loader, "a") as (registry, metrics):
        waiting = asyncio.create_task(use(registry, "a"))
        while not loader.loads:
            await asyncio.sleep(0.01)
        await registry.close(timeout_s=PATIENCE_S)
        with pytest.raises(ModelNotReadyError):
            await waiting
        loader.may.set()
        assert count(metrics, "loads", model="a", outcome="loaded") is None


async def change(registry: ModelRegistry, metrics: Metrics, action: Action, name: str) -> None:
    """Do what an operator wants, by whichever route."""
    await Swaps(registry, metrics=metrics).begin(Swap(action=action, model=name))


async def test_what_an_operator_loads_is_counted_and_goes_again(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    async with registry_of(threads, loader, "a", "b", "large", budget=20) as (registry, metrics):
        await change(registry, metrics, "load", "a")
        await change(registry, metrics, "load", "b")
        await change(registry, metrics, "load", "a")  # it is there, and counts as used
        with registry.lease("b", KEY):
            with pytest.raises(ModelNotReadyError, match="memory"):
                await change(registry, metrics, "load", "large")
            assert state(registry, "a") is ModelState.READY  # to unload it would not have helped
        await change(registry, metrics, "load", "large")
        assert {state(registry, one) for one in "ab"} == {ModelState.UNLOADED}
        await change(registry, metrics, "unload", "large")
        await use(registry, "a")
        await use(registry, "b")
        assert count(metrics, "unloads", model="large", reason="budget") is None
        assert count(metrics, "unloads", model="a", reason="budget") == 1
        assert count(metrics, "loads", model="large", outcome="no_room") == 1
    async with registry_of(threads, loader, "large", budget=10) as (registry, metrics):
        with pytest.raises(ModelLoadFailedError, match="MODELS_MEMORY_MB"):
            await change(registry, metrics, "load", "large")
    async with registry_of(threads, loader, "a", idle_s=0.02) as (registry, metrics):
        await change(registry, metrics, "load", "a")
        assert await asyncio.to_thread(loader.made[-1].closed.wait, PATIENCE_S)
        assert count(metrics, "unloads", model="a", reason="idle") == 1


async def test_what_is_unloaded_while_it_is_loaded_is_closed_and_who_waits_is_told(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    loader.may.clear()
    async with registry_of(threads, loader, "a", budget=10) as (registry, metrics):
        waiting = asyncio.create_task(use(registry, "a"))
        by_hand = asyncio.create_task(change(registry, metrics, "load", "a"))
        while not loader.loads:
            await asyncio.sleep(0.01)
        registry.drop(registry.model("a").entry)
        for one in (waiting, by_hand):
            with pytest.raises(ModelNotReadyError):
                await one
        loader.may.set()
        second = await use(registry, "a")
        assert [one is second for one in loader.made] == [False, True]
        assert await asyncio.to_thread(loader.made[0].closed.wait, PATIENCE_S)
        assert count(metrics, "loads", model="a", outcome="dropped") == 1


async def test_the_room_of_a_model_is_free_once_it_is_closed(
    threads: ThreadPoolExecutor, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with registry_of(threads, loader, "a", "b", budget=10) as (registry, metrics):
        first = await use(registry, "a")
        with registry.lease("a", KEY):
            await change(registry, metrics, "unload", "a")
            monkeypatch.setattr(memory_budget, "FREED_S", 0.02)
            with pytest.raises(ModelNotReadyError, match="memory"):
                await use(registry, "b")
            monkeypatch.setattr(memory_budget, "FREED_S", PATIENCE_S)
            waiting = asyncio.create_task(use(registry, "b"))
            await asyncio.sleep(0.02)
            assert not first.closed.is_set()
        await waiting
        assert first.closed.is_set()


async def test_a_model_may_ask_another_while_it_is_loaded(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    async with registry_of(threads, loader, "a", "b", budget=20) as (registry, _):
        loop = asyncio.get_running_loop()

        def ask(name: str) -> None:
            if name == "a":
                asyncio.run_coroutine_threadsafe(use(registry, "b"), loop).result(PATIENCE_S)

        loader.calls = ask
        await use(registry, "a")
        assert loader.loads == ["a", "b"]


async def test_another_catalogue_closes_what_is_loaded_and_what_is_being_loaded(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    async with registry_of(threads, loader, "a", budget=10) as (registry, metrics):
        first = await use(registry, "a")
        await apply(registry, catalog_of("a", idle_s=PATIENCE_S))
        assert await asyncio.to_thread(first.closed.wait, PATIENCE_S)
        loader.may.clear()
        waiting = asyncio.create_task(use(registry, "a"))
        while len(loader.loads) < 2:
            await asyncio.sleep(0.01)
        await apply(registry, catalog_of("a", source="file:b"))
        with pytest.raises(ModelNotReadyError):
            await waiting
        loader.may.set()
        await use(registry, "a")
        assert await asyncio.to_thread(loader.made[1].closed.wait, PATIENCE_S)
        assert count(metrics, "unloads", model="a", reason="budget") is None


async def test_a_file_that_has_changed_is_read_by_the_next_request(
    threads: ThreadPoolExecutor, loader: Loader
) -> None:
    loader.failure = EngineError("a typo")
    async with registry_of(threads, loader, "a") as (registry, _):
        with pytest.raises(ModelUnavailableError):
            await use(registry, "a")
        loader.failure = None
        await registry.reload("a")
        assert loader.loads == ["a"]
        first = await use(registry, "a")
        await registry.reload("a")
        assert first.closed.is_set()
        loader.may.clear()
        reloading = asyncio.create_task(registry.reload("a"))
        while len(loader.loads) < 4:
            await asyncio.sleep(0.01)
        registry.drop(registry.model("a").entry)
        loader.may.set()
        await reloading
        assert state(registry, "a") is ModelState.UNLOADED
        assert [one.closed.is_set() for one in loader.made] == [True, True, True]


async def test_one_that_failed_is_tried_again_later_and_not_by_each_request(
    threads: ThreadPoolExecutor, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader.failure = EngineError("its files are gone")
    async with registry_of(threads, loader, "a") as (registry, _):
        for _ in range(3):
            with pytest.raises(ModelUnavailableError):
                await use(registry, "a")
        assert loader.loads == ["a"]
        assert registry.model("a").entry.detail == "its files are gone"
        monkeypatch.setattr(on_demand, "FAILED_RETRY_S", 0.0)
        loader.failure = None
        await use(registry, "a")
        assert state(registry, "a") is ModelState.READY


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ('load = "lazy"\nrequired = true', "required"),
        ("idle_unload_s = 5", "idle_unload_s"),
        ('load = "lazy"\nidle_unload_s = 0', "idle_unload_s"),
        ('load = "later"', "load"),
        ('load = "lazy"\n[[models.versions]]\nversion = "1"', "versions"),
    ],
)
def test_entries_that_contradict_themselves_are_refused(
    tmp_path: Path, fields: str, named: str
) -> None:
    path = tmp_path / "models.toml"
    path.write_text(f'[[models]]\nname = "a"\nengine = "fake"\n{fields}\n', encoding="utf-8")
    with pytest.raises(CatalogError, match=named):
        read_catalog(path)


MODELS = """
[[models]]
name = "mood"
engine = "fake"
load = "lazy"

[[models]]
name = "echo"
task = "chat"
engine = "fake"
load = "lazy"
"""


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("lazy"), MODELS, auth="off") as client:
        yield client


async def test_each_dialect_waits_for_the_model_that_it_asks(client: AsyncClient) -> None:
    ready = await client.get("/ready")
    assert ready.status_code == 200, ready.text
    listed = {one["name"]: one for one in (await client.get("/models")).json()["models"]}
    assert {one["state"] for one in listed.values()} <= {"unloaded", "ready"}
    assert listed["mood"]["load"] == "lazy"
    assert not listed["mood"]["required"]
    names = [one["id"] for one in (await client.get("/v1/models")).json()["data"]]
    assert sorted(names) == ["echo", "mood"]
    message = {"messages": [{"role": "user", "content": "one two"}]}
    asked = {
        "/predict": {"text": "good"},
        "/chat": {"query": "one two"},
        "/v1/chat/completions": {"model": "echo", **message},
        "/v2/models/mood/infer": {
            "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}]
        },
    }
    for path, body in asked.items():
        for name in ("mood", "echo"):
            await client.post(f"/models/{name}/unload", json={})
        answer = await client.post(path, json=body)
        assert answer.status_code == 200, f"{path}: {answer.text}"
    await client.post("/models/mood/unload", json={})
    state = await client.get("/v2/models/mood/ready")
    assert state.json()["ready"], state.text
    listed = {one["name"]: one for one in (await client.get("/models")).json()["models"]}
    assert listed["mood"]["state"] == "unloaded"  # to ask for it hasn't loaded it
