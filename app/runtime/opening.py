"""Opens every long-lived object in order, and closes them in reverse."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from app.core.background import Work, run_in_background
from app.core.metrics import Metrics
from app.models.catalog import Catalog
from app.models.memory_budget import Budget
from app.models.registry import ModelRegistry
from app.models.room import MIB, RoomCheck
from app.models.steps import LoadSteps
from app.models.swaps import Swaps
from app.replicas.cluster import join
from app.runtime import watching
from app.runtime.applying import CatalogFile
from app.runtime.composition import Composition
from app.runtime.kinds import request_kinds
from app.runtime.on_ray import loading_from_ray
from app.runtime.parts import make_load, make_loader, open_database
from app.runtime.reloading import reload_models
from app.runtime.runtime import Runtime, ServingPolicy
from app.runtime.watching import OnFatal, load_models, watch_database, watch_lag, watch_loading
from app.services.inference import InferenceService
from app.services.model_calls import CalledServices, ModelCalls
from app.services.own_requests import OwnRequests
from app.services.results import ResultChecker
from app.services.shadows import Shadows
from app.settings import Settings
from app.sharing.opening import make_shared_load, open_link, shared_part

if TYPE_CHECKING:
    from app.core.telemetry import Telemetry

log = logging.getLogger(__name__)

# Loading mostly waits for disk and network; more at once would only take more memory.
LOAD_THREADS = 4
# No request is left by then, so no caller waits for an engine that still runs.
UNLOAD_S = 3.0


@asynccontextmanager
async def open_runtime(  # noqa: PLR0913  # the root, where everything comes in
    settings: Settings,
    catalog: Catalog,
    chosen: Composition,
    *,
    metrics: Metrics,
    on_fatal: OnFatal,
    engine_at: str | None = None,
    telemetry: "Telemetry | None" = None,
    own_requests: OwnRequests | None = None,
) -> AsyncIterator[Runtime]:
    """Open everything, load the models in the background, and close it all at the end.

    Args:
        settings: as read by the entry point.
        catalog: the models to load; those of tasks that aren't installed are left out.
        chosen: the tasks and features.
        metrics: where everything counts.
        on_fatal: called on the loop when a required model can't be loaded.
        engine_at: the Unix socket of the process that has the models for texts; None: this one.
        telemetry: exports what waits, at the end; None: tracing is off.
        own_requests: answers the service's own; None where there are no routes.

    """
    catalog = _leave_out(catalog, chosen)
    async with AsyncExitStack() as stack:
        if telemetry is not None:
            stack.push_async_callback(asyncio.to_thread, telemetry.close)
        runtime = await _open_core(
            stack, settings, catalog, chosen, metrics=metrics, engine_at=engine_at
        )
        runtime.telemetry = telemetry
        runtime.own_requests = own_requests
        runtime.provide(CatalogFile(settings.models_file, tasks=chosen.kinds, runtime=runtime))
        for feature in chosen.features:
            await stack.enter_async_context(feature.open(runtime, settings))
        load = partial(load_models, runtime, on_fatal)
        await stack.enter_async_context(run_in_background(load, name="load_models", restart=None))
        watches: dict[str, Work] = {
            "watch_loading": partial(watch_loading, runtime),
            "watch_lag": partial(watch_lag, runtime),
            "shadows": runtime.shadows.run,
        }
        if settings.reload_models:
            watches["reload_models"] = partial(reload_models, runtime, catalog)
        if runtime.database is None:
            runtime.stored.set()
        else:
            watches["watch_database"] = partial(
                watch_database,
                runtime,
                runtime.database,
                on_fatal,
                every_s=watching.DATABASE_CHECK_S,
            )
        for name, work in watches.items():
            await stack.enter_async_context(run_in_background(work, name=name))
        yield runtime


def _leave_out(catalog: Catalog, chosen: Composition) -> Catalog:
    """Return the models whose task is installed, and log which features and models are left out."""
    on = [feature.name for feature in chosen.features]
    log.info("features_chosen", extra={"on": on, "left_out": dict(chosen.left_out)})
    for spec in catalog.specs:
        if spec.task not in chosen.kinds:
            reason = f"the task {spec.task} is not installed"
            log.warning("model_left_out", extra={"model": spec.name, "reason": reason})
    return catalog.of_tasks(chosen.kinds)


async def _open_core(
    stack: AsyncExitStack,
    settings: Settings,
    catalog: Catalog,
    chosen: Composition,
    *,
    metrics: Metrics,
    engine_at: str | None,
) -> Runtime:
    """Open what every service has: its models, and SQL where anything is stored."""
    tokenisers = _open_threads(stack, "tokenise", settings.thread_count)
    steps, calls = LoadSteps(), ModelCalls(chosen.call_answers())
    load = make_load(
        settings,
        catalog,
        tokenisers=tokenisers,
        metrics=metrics,
        steps=steps,
        chosen=chosen,
        calls=calls,
    )
    threads = LOAD_THREADS
    if engine_at is not None:
        shared = shared_part(catalog, chosen.engines())
        link = await stack.enter_async_context(
            open_link(engine_at, shared, steps=steps, metrics=metrics)
        )
        load = make_shared_load(link, tokenisers=tokenisers, metrics=metrics, other=load)
        threads += len(shared.specs)  # which only wait
    if settings.ray_app:
        cluster = await asyncio.to_thread(join, settings.ray_app)
        stack.push_async_callback(asyncio.to_thread, cluster.leave)
        load = stack.enter_context(
            loading_from_ray(
                cluster.replicas,
                settings,
                chosen.engines(),
                tokenisers=tokenisers,
                metrics=metrics,
                other=load,
            )
        )
        threads += len(catalog.specs)  # most of which only wait
    room = RoomCheck(make_loader(settings, catalog, chosen))
    registry = ModelRegistry(
        catalog,
        load=load,
        executor=_open_threads(stack, "model-load", threads),
        metrics=metrics,
        check_room=room,
        budget=Budget(
            size=room.size,
            limit_bytes=settings.models_memory_mb and settings.models_memory_mb * MIB,
        ),
    )
    stack.push_async_callback(registry.close, timeout_s=UNLOAD_S)
    swaps = Swaps(registry, metrics=metrics)
    stack.push_async_callback(swaps.close)
    results = ResultChecker(metrics, log_inputs=settings.log_inputs)
    inference = InferenceService(registry, results)
    calls.open(
        CalledServices(
            registry=registry,
            inference=inference,
            buffer_tokens=settings.stream_buffer_tokens,
        )
    )
    database = open_database(settings, metrics) if chosen.is_stored else None
    if database is not None:
        stack.push_async_callback(database.close)
    shadows = Shadows(
        registry,
        inference,
        entries=lambda: runtime.entries,
        metrics=metrics,
        bound=settings.shadow_bound,
    )
    runtime = Runtime(
        policy=ServingPolicy(
            request_timeout_ms=settings.request_timeout_ms,
            chat_timeout_ms=settings.chat_timeout_ms,
            chat_max_answers=settings.chat_max_answers,
            stream_buffer_tokens=settings.stream_buffer_tokens,
            log_inputs=settings.log_inputs,
            health_max_call_s=settings.health_max_call_s,
            health_max_lag_ms=settings.health_max_lag_ms,
            overloaded_is_ready=settings.overloaded_is_ready,
        ),
        metrics=metrics,
        registry=registry,
        swaps=swaps,
        steps=steps,
        results=results,
        database=database,
        request_kinds=request_kinds(chosen.tasks, chosen.features),
        shadows=shadows,
    )
    return runtime


def _open_threads(stack: AsyncExitStack, name: str, count: int) -> ThreadPoolExecutor:
    """Make a named pool that is shut down, but not waited for, at the end."""
    threads = ThreadPoolExecutor(count, thread_name_prefix=name)
    stack.callback(threads.shutdown, wait=False, cancel_futures=True)
    return threads
