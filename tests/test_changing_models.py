"""Changing models while they serve, without HTTP: what is refused, fails, or is cut short."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from loaded import Loaded

from app.core.metrics import Metrics
from app.core.version_choice import VersionChoice
from app.engines.base import Task
from app.errors import (
    CatalogError,
    EngineError,
    ModelLoadFailedError,
    ModelVersionNotFoundError,
    NotReadyError,
    SwapInProgressError,
)
from app.models.applying import apply, check_change
from app.models.catalog import Catalog, ModelSpec
from app.models.closing import Replaced, Retired
from app.models.entries import Loans, ModelState, Served
from app.models.registry import ModelRegistry, TaskKey
from app.models.swaps import Swap, Swaps
from app.models.traffic import choose
from app.models.version_specs import VersionSpec
from app.runtime.applying import CatalogFile, check_changeable

pytestmark = pytest.mark.core

PATIENCE_S = 30.0  # for what happens at once unless something is broken
KEY: TaskKey[Loaded] = TaskKey(Task.CLASSIFICATION)
VERSIONS = tuple(VersionSpec(version=one, weight=1 if one == "1" else None) for one in "12")


class Loader:
    """Loads once it may, but not what is named in `failing`."""

    def __init__(self) -> None:
        self.may = Event()
        self.may.set()
        self.failing: set[str] = set()
        self.loads: list[str] = []

    def __call__(self, spec: ModelSpec) -> Served:
        self.loads.append(spec.name)
        assert self.may.wait(PATIENCE_S)
        if spec.name in self.failing:
            raise EngineError("its files are gone")
        return Served(model=Loaded(), version="f")


def spec(name: str, **fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": name, "engine": "fake", **fields})


def catalog(*specs: ModelSpec) -> Catalog:
    return Catalog(specs, folder=Path())


@asynccontextmanager
async def serving(*specs: ModelSpec) -> AsyncIterator[tuple[ModelRegistry, Swaps, Loader]]:
    loader, metrics = Loader(), Metrics()
    with ThreadPoolExecutor(4) as threads:
        registry = ModelRegistry(catalog(*specs), load=loader, executor=threads, metrics=metrics)
        await registry.load_all()
        swaps = Swaps(registry, metrics=metrics)
        yield registry, swaps, loader
        loader.may.set()
        await swaps.close()
        await registry.close(timeout_s=PATIENCE_S)


def test_a_catalogue_that_needs_a_restart_names_why() -> None:
    remote = {"task": "chat", "engine": "remote", "source": "openai:a", "api_key_env": "A"}
    old = catalog(spec("a"), spec("b", default=True, **remote))
    with pytest.raises(CatalogError, match="'b': it is the default of chat, and is gone"):
        check_change(old, catalog(spec("a")))
    other = {**remote, "api_key_env": "B"}
    with pytest.raises(CatalogError, match="'b': api_key_env"):
        check_change(old, catalog(spec("a"), spec("b", default=True, **other)))


async def test_of_a_catalogue_each_model_is_taken_over_or_stays_as_it_was() -> None:
    a, b = spec("a", default=True), spec("b", required=False)
    async with serving(a, b, spec("gone", required=False)) as (registry, _, loader):
        loader.failing = {"b", "new"}
        slower = {"fake": {"delay_ms": 1}}
        changed = catalog(
            spec("a", default=True, **slower),
            spec("b", required=False, **slower),
            spec("new", required=False),
        )
        applied = {one.model: one.outcome for one in await apply(registry, changed)}
        assert applied == {"a": "changed", "b": "failed", "new": "failed", "gone": "removed"}
        assert [one.spec.name for one in registry.models] == ["a", "b"]
        assert registry.model("b").spec == b
        with registry.lease("b", KEY):
            pass


async def test_versions_that_are_gone_are_forgotten_with_their_gauges() -> None:
    async with serving(spec("a", default=True), spec("b", versions=VERSIONS)) as (registry, *_):
        await apply(registry, catalog(spec("a", default=True)))
        assert registry.find("b") is None
        told = registry._metrics.registry.get_sample_value
        assert told("mlapi_model_version_ready", {"model": "b", "version": "1"}) is None


async def test_one_thing_at_a_time_is_done_with_a_model_and_with_all() -> None:
    async with serving(spec("a", versions=VERSIONS)) as (registry, swaps, loader):
        loader.may.clear()
        promoting = swaps.begin(Swap(action="promote", model="a"))  # the only other one
        with pytest.raises(SwapInProgressError, match="promote"):
            swaps.begin(Swap(action="load", model="a", version="2"))
        with pytest.raises(SwapInProgressError):
            swaps.apply(registry.catalog)
        loader.may.set()
        await promoting
        assert registry.model("a").serving == "2"
        loader.may.clear()
        third = VersionSpec(version="3", weight=1)
        applying = swaps.apply(catalog(spec("a", versions=(*VERSIONS, third))))
        for attempt in (
            lambda: swaps.apply(registry.catalog),
            lambda: swaps.begin(Swap(action="load", model="a", version="1")),
        ):
            with pytest.raises(SwapInProgressError, match="read anew"):
                attempt()
        applying.cancel()
        await asyncio.wait({applying})
        loader.may.set()
        await swaps.begin(Swap(action="load", model="a", version="1"))


async def test_a_model_without_versions_is_meant_by_that_of_its_files() -> None:
    async with serving(spec("a", required=False, default=False)) as (registry, swaps, _):
        await swaps.begin(Swap(action="unload", model="a", version="f"))
        assert registry.model("a").entry.state is ModelState.UNLOADED
        with pytest.raises(ModelVersionNotFoundError):
            swaps.begin(Swap(action="load", model="a", version="g"))


async def test_an_unloaded_version_has_no_share_any_more() -> None:
    both = tuple(VersionSpec(version=one, weight=1) for one in "12")
    async with serving(spec("a", versions=both)) as (registry, swaps, _):
        model = registry.model("a")
        other = next(name for name in model.entries if name != model.serving)
        await swaps.begin(Swap(action="unload", model="a", version=other))
        assert model.weights[other] == 0


async def test_what_crashes_is_counted_and_raised() -> None:
    async with serving(spec("a", versions=VERSIONS)) as (registry, swaps, loader):

        async def crash(*_: object) -> None:
            raise RuntimeError("a fault of ours")

        swaps.on_swap.append(crash)
        with pytest.raises(RuntimeError, match="a fault of ours"):
            await swaps.begin(Swap(action="promote", model="a", version="2"))
        loader.failing = {"a@1"}
        swaps.on_swap.clear()
        with pytest.raises(ModelLoadFailedError, match="its files are gone"):
            await swaps.begin(Swap(action="promote", model="a", version="1"))
        told = registry._metrics.registry.get_sample_value
        labels = {"model": "a", "action": "promote", "outcome": "failed"}
        assert told("mlapi_model_swaps_total", labels) == 2


async def test_two_that_bring_a_version_load_it_once() -> None:
    async with serving(spec("a", versions=VERSIONS)) as (registry, _, loader):
        loader.may.clear()
        entry = registry.model("a").entries["2"]
        both = [asyncio.create_task(registry.bring(entry)) for _ in range(2)]
        while "a@2" not in loader.loads:
            await asyncio.sleep(0.01)
        loader.may.set()
        await asyncio.gather(*both)
        assert loader.loads.count("a@2") == 1


async def test_a_request_keeps_the_version_that_it_had() -> None:
    both = tuple(VersionSpec(version=one, weight=1) for one in "12")
    async with serving(spec("a", versions=both)) as (registry, *_):
        for version in "12":
            choice = VersionChoice()
            choice.got["a"] = version
            assert registry.model("a").choose(choice) is registry.model("a").entries[version]


def test_no_weight_gets_nothing() -> None:
    assert {choose([("none", 0.0), ("all", 1.0)], str(key)) for key in range(50)} == {"all"}


async def test_a_class_may_use_what_is_loaded_on_demand() -> None:
    lazy = spec("lazy", load="lazy")
    user = spec("user", engine="python", source="python:a:B", uses=("lazy",))
    async with serving(lazy, user) as (registry, _, loader):
        assert loader.loads == ["user"]
        assert registry.model("user").entry.state is ModelState.READY


async def test_what_is_closed_late_or_badly_ends_with_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    retired = Retired()
    bad = Loaded(failure=OSError("no"))
    retired.close_soon(
        Replaced(name="bad", served=Served(model=bad, version="1"), loans=Loans()),
        timeout_s=PATIENCE_S,
    )
    lent = Loaded(can_close_early=True)
    loans = Loans(count=1)
    retired.close_soon(
        Replaced(name="lent", served=Served(model=lent, version="1"), loans=loans),
        timeout_s=PATIENCE_S,
    )
    await asyncio.to_thread(bad.closed.wait, PATIENCE_S)
    await retired.close_all(time.monotonic() + 0.1)
    assert lent.closed.is_set()
    assert "unload_failed" in [record.message for record in caplog.records]


async def test_a_signal_reads_the_file_anew_and_logs_what_came_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "models.toml"
    entry = '[[models]]\nname = "{}"\nengine = "fake"\nrequired = false\n'
    path.write_text(entry.format("a") + entry.format("b"), encoding="utf-8")
    async with serving(spec("a", required=False)) as (registry, swaps, _):
        loaded = asyncio.Event()
        runtime: Any = SimpleNamespace(
            is_draining=False, loaded=loaded, all_metrics=None, swaps=swaps
        )
        file = CatalogFile(path, tasks=[Task.CLASSIFICATION], runtime=runtime)
        await file.apply_and_log()  # not yet: nothing is loaded
        loaded.set()
        await file.apply_and_log()
        assert registry.find("b") is not None
        path.write_text("[[models", encoding="utf-8")
        await file.apply_and_log()
        told = [r.message for r in caplog.records if r.message.startswith("catalogue")]
        assert told == ["catalogue_refused", "catalogue_applied", "catalogue_refused"]
        runtime.is_draining = True
        with pytest.raises(NotReadyError):
            check_changeable(runtime)
