"""The ModelRegistry: states over time, leases, failures, and unloading."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from threading import Barrier, Event
from typing import Any

import pytest

from app.core.metrics import Metrics
from app.engines.base import Task
from app.errors import (
    EngineError,
    ModelNotFoundError,
    ModelNotReadyError,
    ModelUnavailableError,
    SourceError,
    StartupError,
    UnsafeModelError,
)
from app.models.catalog import Catalog, ModelSpec
from app.models.entries import ModelEntry, ModelState, Served
from app.models.registry import LoadModel, ModelRegistry, TaskKey

pytestmark = pytest.mark.core

PATIENCE_S = 30  # for what happens at once unless something is broken


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


@dataclass(kw_only=True)
class Model:
    """Serves nothing, and notes that it is closed."""

    name: str
    order: list[str] = field(default_factory=list)
    closed: Event = field(default_factory=Event)
    time_to_close_s: float | None = None
    can_close_early: bool = False

    def problems(self, *, max_call_s: float) -> list[str]:
        return [f"{self.name}: a call takes longer than {max_call_s} s"]

    def longest_call_s(self) -> float:
        return 0.0

    def close(self, *, timeout_s: float) -> None:
        self.time_to_close_s = timeout_s
        self.order.append(f"{self.name} closed")
        self.closed.set()


def load(spec: ModelSpec) -> Served:
    return Served(model=Model(name=spec.name), version="1")


def giving(models: Mapping[str, Model]) -> LoadModel:
    """Return a load that gives out these models, by their names."""
    return lambda spec: Served(model=models[spec.name], version="1")


def failing(failures: Mapping[str, Exception]) -> LoadModel:
    """Return a load that fails for the models that are named."""

    def load_or_fail(spec: ModelSpec) -> Served:
        if spec.name in failures:
            raise failures[spec.name]
        return load(spec)

    return load_or_fail


def registry_of(
    threads: ThreadPoolExecutor,
    *specs: ModelSpec,
    load: LoadModel = load,
    metrics: Metrics | None = None,
) -> ModelRegistry:
    return ModelRegistry(Catalog(specs), load=load, executor=threads, metrics=metrics or Metrics())


def entry_of(registry: ModelRegistry, name: str) -> ModelEntry:
    return next(entry for entry in registry.entries if entry.spec.name == name)


def states_of(registry: ModelRegistry) -> dict[str, str]:
    return {entry.spec.name: entry.state for entry in registry.entries}


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == event]


async def test_a_model_waits_then_loads_then_is_ready(threads: ThreadPoolExecutor) -> None:
    started, go_on = Event(), Event()

    def load_on_order(spec: ModelSpec) -> Served:
        started.set()
        assert go_on.wait(PATIENCE_S)
        return load(spec)

    registry = registry_of(threads, ModelSpec(name="a", required=True), load=load_on_order)
    assert (states_of(registry), registry.is_ready) == ({"a": "waiting"}, False)
    loading = asyncio.create_task(registry.load_all())
    assert await asyncio.to_thread(started.wait, PATIENCE_S)
    assert (states_of(registry), registry.is_ready) == ({"a": "loading"}, False)
    go_on.set()
    await loading
    assert (states_of(registry), registry.is_ready) == ({"a": "ready"}, True)
    assert entry_of(registry, "a").reason is None


async def test_all_models_load_at_once(threads: ThreadPoolExecutor) -> None:
    together = Barrier(3, timeout=PATIENCE_S)

    def load_together(spec: ModelSpec) -> Served:
        together.wait()
        return load(spec)

    specs = [ModelSpec(name=name) for name in "abc"]
    registry = registry_of(threads, *specs, load=load_together)
    await registry.load_all()
    assert states_of(registry) == dict.fromkeys("abc", "ready")


async def test_a_registry_without_models_is_never_ready(threads: ThreadPoolExecutor) -> None:
    registry = registry_of(threads)
    await registry.load_all()
    assert (registry.is_ready, registry.entries) == (False, ())
    await registry.close(timeout_s=PATIENCE_S)


async def test_only_required_models_hold_readiness_back(threads: ThreadPoolExecutor) -> None:
    specs = (ModelSpec(name="default"), ModelSpec(name="a"), ModelSpec(name="b", required=True))
    registry = registry_of(threads, *specs)
    assert [entry.is_blocking for entry in registry.entries] == [True, False, True]
    await registry.load_all()
    assert registry.is_ready
    await registry.close(timeout_s=PATIENCE_S)
    assert not registry.is_ready


async def test_a_class_that_uses_a_model_of_a_task_that_isnt_installed_isnt_loaded(
    threads: ThreadPoolExecutor,
) -> None:
    caller = ModelSpec(name="a", engine="python", source="file:model.py:Model", uses=("gone",))
    registry = registry_of(threads, caller)
    line = "it uses 'gone', which is not served: its task is not installed"
    with pytest.raises(EngineError, match=line):
        await registry.load_all()
    assert entry_of(registry, "a").detail == line


async def test_entries_keep_the_order_of_the_catalogue_and_tell_the_default(
    threads: ThreadPoolExecutor,
) -> None:
    registry = registry_of(
        threads,
        ModelSpec(name="z"),
        ModelSpec(name="a", default=True),
        ModelSpec(name="m", task=Task.EMBEDDING),
    )
    defaults = [(entry.spec.name, entry.is_default) for entry in registry.entries]
    assert defaults == [("z", False), ("a", True), ("m", True)]


async def test_an_optional_model_that_fails_is_kept_with_its_reason_and_the_rest_serve(
    threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    load = failing({"b": UnsafeModelError("model.bin is a pickle")})
    registry = registry_of(
        threads, ModelSpec(name="a", required=True), ModelSpec(name="b"), load=load
    )
    await registry.load_all()
    assert states_of(registry) == {"a": "ready", "b": "failed"}
    assert entry_of(registry, "b").reason == "unsafe_model"
    assert entry_of(registry, "b").detail == "model.bin is a pickle"
    assert registry.is_ready
    with registry.lease("a", TaskKey[Any](Task.CLASSIFICATION)) as lease:
        assert lease.spec.name == "a"
    (record,) = said(caplog, "model_failed")
    assert (vars(record)["model"], vars(record)["reason"]) == ("b", "model.bin is a pickle")


@pytest.mark.parametrize("kind", [EngineError, SourceError, UnsafeModelError])
async def test_a_required_model_that_fails_ends_the_start_by_name(
    threads: ThreadPoolExecutor, kind: type[StartupError]
) -> None:
    load = failing({"b": kind("what is wrong")})
    specs = (ModelSpec(name="a", required=True), ModelSpec(name="b", required=True))
    registry = registry_of(threads, *specs, load=load)
    with pytest.raises(kind, match=r"^model 'b' \(required\): what is wrong$"):
        await registry.load_all()
    assert not registry.is_ready
    assert entry_of(registry, "b").state is ModelState.FAILED
    assert entry_of(registry, "b").reason == kind.reason


async def test_when_several_required_models_fail_one_is_told(threads: ThreadPoolExecutor) -> None:
    load = failing({name: SourceError("gone") for name in "ab"})
    specs = (ModelSpec(name="a", required=True), ModelSpec(name="b", required=True))
    with pytest.raises(SourceError, match=r"^model '[ab]' \(required\): gone$"):
        await registry_of(threads, *specs, load=load).load_all()


async def test_what_a_library_raises_unforeseen_is_a_failed_model_too(
    threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    optional = ModelSpec(name="a", required=False)
    load = failing({"a": ZeroDivisionError("by zero")})
    registry = registry_of(threads, optional, load=load)
    await registry.load_all()
    assert entry_of(registry, "a").state is ModelState.FAILED
    assert entry_of(registry, "a").reason == "engine_failed"
    (crash,) = said(caplog, "model_load_crashed")
    assert crash.exc_info is not None
    (record,) = said(caplog, "model_failed")
    assert vars(record)["reason"] == "ZeroDivisionError: by zero"


async def test_an_unforeseen_failure_of_a_required_model_ends_the_start(
    threads: ThreadPoolExecutor,
) -> None:
    load = failing({"a": ZeroDivisionError("by zero")})
    registry = registry_of(threads, ModelSpec(name="a", required=True), load=load)
    with pytest.raises(EngineError, match=r"model 'a' \(required\): ZeroDivisionError: by zero"):
        await registry.load_all()


async def test_where_no_model_is_required_readiness_waits_for_the_first_that_serves(
    threads: ThreadPoolExecutor,
) -> None:
    load = failing({"a": SourceError("gone")})
    specs = [ModelSpec(name=name, required=False) for name in "ab"]
    registry = registry_of(threads, *specs, load=load)
    assert (registry.is_ready, len(registry.awaited)) == (False, 2)
    await registry.load_all()
    assert (registry.is_ready, registry.awaited) == (True, ())


async def test_a_registry_of_which_nothing_serves_is_never_ready(
    threads: ThreadPoolExecutor,
) -> None:
    specs = [ModelSpec(name=name, required=False) for name in "ab"]
    load = failing({name: SourceError("gone") for name in "ab"})
    registry = registry_of(threads, *specs, load=load)
    await registry.load_all()
    assert (registry.is_ready, registry.awaited) == (False, ())


async def test_a_reason_of_several_lines_is_told_in_one(threads: ThreadPoolExecutor) -> None:
    load = failing({"a": EngineError("size mismatch:\n\tone\n\ttwo")})
    optional = registry_of(threads, ModelSpec(name="a", required=False), load=load)
    await optional.load_all()
    assert entry_of(optional, "a").detail == "size mismatch: one two"
    with pytest.raises(EngineError, match=r"^model 'a' \(required\): size mismatch: one two$"):
        await registry_of(threads, ModelSpec(name="a"), load=load).load_all()


async def test_loading_can_be_cancelled(threads: ThreadPoolExecutor) -> None:
    started, go_on = Event(), Event()

    def load_on_order(spec: ModelSpec) -> Served:
        started.set()
        assert go_on.wait(PATIENCE_S)
        return load(spec)

    registry = registry_of(threads, ModelSpec(name="a"), load=load_on_order)
    loading = asyncio.create_task(registry.load_all())
    assert await asyncio.to_thread(started.wait, PATIENCE_S)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    go_on.set()
    await registry.close(timeout_s=PATIENCE_S)
    assert states_of(registry) == {"a": "unloaded"}


async def test_a_lease_gives_the_named_model_or_the_default_one(
    threads: ThreadPoolExecutor,
) -> None:
    registry = registry_of(
        threads,
        ModelSpec(name="a"),
        ModelSpec(name="b", default=True),
        ModelSpec(name="v", task=Task.EMBEDDING),
    )
    await registry.load_all()
    for name, task, expected in [
        ("a", Task.CLASSIFICATION, "a"),
        (None, Task.CLASSIFICATION, "b"),
        ("v", Task.EMBEDDING, "v"),
        (None, Task.EMBEDDING, "v"),
    ]:
        with registry.lease(name, TaskKey[Any](task)) as lease:
            served = entry_of(registry, expected).served
            assert served is not None
            assert (lease.spec.name, lease.model) == (expected, served.model)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("absent", Task.CLASSIFICATION),
        ("A", Task.CLASSIFICATION),
        ("a", Task.EMBEDDING),
        (None, Task.EMBEDDING),
        (None, Task.CHAT),
    ],
)
async def test_a_model_that_does_not_do_the_task_is_not_found(
    threads: ThreadPoolExecutor, name: str | None, task: Task
) -> None:
    registry = registry_of(threads, ModelSpec(name="a"))
    await registry.load_all()
    with pytest.raises(ModelNotFoundError), registry.lease(name, TaskKey[Any](task)):
        pass


async def test_a_model_that_still_loads_asks_to_come_again(threads: ThreadPoolExecutor) -> None:
    started, go_on = Event(), Event()

    def load_on_order(spec: ModelSpec) -> Served:
        started.set()
        assert go_on.wait(PATIENCE_S)
        return load(spec)

    def lease_is_refused(registry: ModelRegistry) -> None:
        with (
            pytest.raises(ModelNotReadyError) as refused,
            registry.lease("a", TaskKey[Any](Task.CLASSIFICATION)),
        ):
            pass
        assert refused.value.headers == {"Retry-After": "2"}

    registry = registry_of(threads, ModelSpec(name="a"), load=load_on_order)
    lease_is_refused(registry)
    loading = asyncio.create_task(registry.load_all())
    assert await asyncio.to_thread(started.wait, PATIENCE_S)
    lease_is_refused(registry)
    go_on.set()
    await loading
    with registry.lease("a", TaskKey[Any](Task.CLASSIFICATION)):
        pass


async def test_a_model_that_failed_or_is_unloaded_is_unavailable(
    threads: ThreadPoolExecutor,
) -> None:
    load = failing({"b": SourceError("gone")})
    registry = registry_of(threads, ModelSpec(name="a"), ModelSpec(name="b"), load=load)
    await registry.load_all()
    with (
        pytest.raises(ModelUnavailableError),
        registry.lease("b", TaskKey[Any](Task.CLASSIFICATION)),
    ):
        pass
    await registry.close(timeout_s=PATIENCE_S)
    with (
        pytest.raises(ModelUnavailableError),
        registry.lease("a", TaskKey[Any](Task.CLASSIFICATION)),
    ):
        pass


async def test_leases_are_counted_and_end_with_their_block(threads: ThreadPoolExecutor) -> None:
    registry = registry_of(threads, ModelSpec(name="a"))
    await registry.load_all()
    entry = entry_of(registry, "a")
    counts = []

    def fail_on_loan() -> None:
        with registry.lease("a", TaskKey[Any](Task.CLASSIFICATION)):
            counts.append(entry.leases)
            raise ZeroDivisionError

    with registry.lease("a", TaskKey[Any](Task.CLASSIFICATION)):
        counts.append(entry.leases)
        with pytest.raises(ZeroDivisionError):
            fail_on_loan()
        counts.append(entry.leases)
    counts.append(entry.leases)
    assert counts == [1, 2, 1, 0]


async def test_close_waits_until_the_last_lease_has_ended(threads: ThreadPoolExecutor) -> None:
    order: list[str] = []
    models = {name: Model(name=name, order=order) for name in "ab"}
    specs = [ModelSpec(name=name) for name in models]
    registry = registry_of(threads, *specs, load=giving(models))
    await registry.load_all()
    first, second = ExitStack(), ExitStack()
    first.enter_context(registry.lease("a", TaskKey[Any](Task.CLASSIFICATION)))
    second.enter_context(registry.lease("a", TaskKey[Any](Task.CLASSIFICATION)))
    closing = asyncio.create_task(registry.close(timeout_s=PATIENCE_S))
    assert await asyncio.to_thread(models["b"].closed.wait, PATIENCE_S)
    assert states_of(registry) == {"a": "unloaded", "b": "unloaded"}
    first.close()
    order.append("first lease of a ended")
    second.close()
    order.append("second lease of a ended")
    await closing
    assert order == ["b closed", "first lease of a ended", "second lease of a ended", "a closed"]


async def test_close_gives_up_after_its_time_and_leaves_what_is_on_loan(
    threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    models = {name: Model(name=name) for name in "ab"}
    specs = [ModelSpec(name=name) for name in models]
    registry = registry_of(threads, *specs, load=giving(models))
    await registry.load_all()
    with registry.lease("a", TaskKey[Any](Task.CLASSIFICATION)):
        await registry.close(timeout_s=0)
    (record,) = said(caplog, "model_still_leased")
    assert (vars(record)["model"], vars(record)["leases"]) == ("a", 1)
    assert models["b"].closed.is_set()
    assert not models["a"].closed.is_set(), "a call may have used it until the lease ended"


async def test_a_model_is_told_how_long_its_own_end_may_take(threads: ThreadPoolExecutor) -> None:
    model = Model(name="a")
    registry = registry_of(threads, ModelSpec(name="a"), load=giving({"a": model}))
    await registry.load_all()
    await registry.close(timeout_s=PATIENCE_S)
    assert model.time_to_close_s is not None
    assert PATIENCE_S - 1 < model.time_to_close_s <= PATIENCE_S


async def test_a_model_that_fails_to_close_keeps_no_other_from_it(
    threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclass(kw_only=True)
    class Stubborn(Model):
        def close(self, *, timeout_s: float) -> None:
            raise RuntimeError(f"not within {timeout_s} s")

    models = {"a": Stubborn(name="a"), "b": Model(name="b")}
    specs = [ModelSpec(name=name) for name in models]
    registry = registry_of(threads, *specs, load=giving(models))
    await registry.load_all()
    await registry.close(timeout_s=PATIENCE_S)
    (record,) = said(caplog, "unload_failed")
    assert vars(record)["model"] == "a"
    assert models["b"].closed.is_set()


async def test_models_can_be_closed_before_they_were_loaded_and_twice(
    threads: ThreadPoolExecutor,
) -> None:
    model = Model(name="a")
    registry = registry_of(threads, ModelSpec(name="a"), load=giving({"a": model}))
    await registry.close(timeout_s=PATIENCE_S)
    await registry.load_all()
    await registry.close(timeout_s=PATIENCE_S)
    await registry.close(timeout_s=PATIENCE_S)
    assert model.order == ["a closed"]


async def test_metrics_tell_what_serves_and_how_long_it_took_to_load(
    threads: ThreadPoolExecutor,
) -> None:
    metrics = Metrics()

    def value(name: str, model: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"model": model})

    load = failing({"b": SourceError("gone")})
    specs = (ModelSpec(name="a"), ModelSpec(name="b"))
    registry = registry_of(threads, *specs, load=load, metrics=metrics)
    assert [value("mlapi_model_ready", name) for name in "ab"] == [0, 0]
    await registry.load_all()
    assert [value("mlapi_model_ready", name) for name in "ab"] == [1, 0]
    assert value("mlapi_model_load_seconds", "a") is not None
    assert value("mlapi_model_load_seconds", "b") is None
    await registry.close(timeout_s=PATIENCE_S)
    assert [value("mlapi_model_ready", name) for name in "ab"] == [0, 0]


async def test_the_version_of_a_model_is_kept(threads: ThreadPoolExecutor) -> None:
    def load_edition(spec: ModelSpec) -> Served:
        return replace(load(spec), version="2026-11")

    registry = registry_of(threads, ModelSpec(name="a"), load=load_edition)
    await registry.load_all()
    served = entry_of(registry, "a").served
    assert served is not None
    assert served.version == "2026-11"


async def test_two_registries_of_one_process_know_nothing_of_each_other(
    threads: ThreadPoolExecutor,
) -> None:
    one = registry_of(threads, ModelSpec(name="a"))
    other = registry_of(threads, ModelSpec(name="a"))
    await one.load_all()
    assert (states_of(one), states_of(other)) == ({"a": "ready"}, {"a": "waiting"})
    await one.close(timeout_s=PATIENCE_S)
    await other.load_all()
    assert (states_of(one), states_of(other)) == ({"a": "unloaded"}, {"a": "ready"})


async def test_a_model_that_isn_t_there_any_more_can_be_loaded_anew(
    threads: ThreadPoolExecutor,
) -> None:
    registry = registry_of(threads, ModelSpec(name="a", required=True))
    await registry.reload("a")
    assert states_of(registry) == {"a": "ready"}
    await registry.reload("a")
    assert states_of(registry) == {"a": "ready"}
