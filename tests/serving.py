"""Runs an app inside the test's process, with its lifespan, on models that the test names."""

import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from databases import place_tables
from fastapi import APIRouter, FastAPI, routing
from httpx2 import ASGITransport, AsyncClient
from starlette.types import ASGIApp

from app.batching.request_queue import BatchPolicy
from app.batching.scheduler import BatchScheduler
from app.core.metrics import Metrics
from app.errors import StartupError
from app.main import create_app, installed, settings_type
from app.middleware.body_budget import BodyBudget
from app.middleware.body_limit import BodyLimits
from app.middleware.exceptions import ErrorAnswers
from app.middleware.front import Front, FrontParts
from app.middleware.http_metrics import HttpMetrics
from app.models.entries import Served
from app.runtime.composition import Composition, Installed
from app.runtime.plugins import Feature
from app.runtime.runtime import Runtime

FAKE = """
[[models]]
name = "dummy"
engine = "fake"
required = true
fake = { fail_on = "poison", oom_over = 4 }
"""
FAKE_EMBEDDER = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
"""


NO_OVERRIDES = SimpleNamespace(dependency_overrides={})


def _built_once(build: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what FastAPI makes of each route of an included router: it would do so for each app.

    That was most of the processor time of an app that answers one request. An app that overrides
    dependencies, which it has to do before its first request, has routes of its own.
    """
    known: dict[tuple[object, ...], tuple[Any, Any]] = {}

    def said(include_context: Any) -> str:
        """Return what the app says of a router: the same of all of its routes."""
        kept = vars(include_context)
        if "said" not in kept:
            given = {f.name: kept[f.name] for f in fields(include_context)}
            del given["dependency_overrides_provider"], given["included_router"]
            kept["said"] = repr([getattr(v, "value", v) for v in given.values()])
        return str(kept["said"])

    def built(*, original_route: Any, include_context: Any) -> Any:
        provider = include_context.dependency_overrides_provider
        if provider is None or provider.dependency_overrides:
            return build(original_route=original_route, include_context=include_context)
        key = (id(original_route), said(include_context))
        if key not in known:
            neutral = replace(include_context, dependency_overrides_provider=NO_OVERRIDES)
            found = build(original_route=original_route, include_context=neutral)
            known[key] = found, neutral  # held: no other route or dependency has their ids
        return known[key][0]

    return built


ROUTE, BUILD = "_EffectiveRouteContext", "from_api_route"
setattr(getattr(routing, ROUTE), BUILD, _built_once(getattr(getattr(routing, ROUTE), BUILD)))


def _routed_once(routers: Callable[[Composition], list[APIRouter]]) -> Any:
    """Keep the routers of the same tasks and features: some features make theirs for each app."""
    known: dict[tuple[object, ...], list[APIRouter]] = {}

    def routed(chosen: Composition) -> list[APIRouter]:
        key = (*chosen.tasks, None, *chosen.features)
        if key not in known:
            known[key] = routers(chosen)
        return known[key]

    return routed


ROUTERS = "routers"
setattr(Composition, ROUTERS, _routed_once(Composition.routers))


class FatalError(Exception):
    """A required model could not be loaded."""


def fail(app: FastAPI, failure: StartupError) -> None:
    """Tell `running`, which waits for the models."""
    app.state.failure = failure
    app.state.runtime.loaded.set()
    app.state.runtime.stored.set()


# Of all features.
AllSettings: Any = settings_type()


class Given(AllSettings):  # type: ignore[misc]  # it is made at run time
    """Settings of a test, which has no file of them: looking into none took as long as into one."""

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        if VARIABLES.isdisjoint(map(str.lower, os.environ)):
            return (sources["init_settings"],)  # the same settings, in a tenth of the time
        return sources["init_settings"], sources["env_settings"]


VARIABLES = frozenset(AllSettings.model_fields)


def front_parts() -> FrontParts:
    """Return what the layer around all routes needs, with metrics of its own."""
    metrics = Metrics()
    budget = BodyBudget(max_bytes=2**26, largest_bytes=2**20, on_refused=print)
    return FrontParts(
        limits=BodyLimits(max_bytes=2**20, timeout_s=30, budget=budget),
        metrics=HttpMetrics(metrics.registry),
        errors=ErrorAnswers(metrics),
    )


def behind_front(app: ASGIApp) -> Front:
    """Put an app behind the layer that is around all routes."""
    return Front(app, front_parts())


class WithoutWorkers:
    """A feature that opens jobs which nobody runs: a Valkey and a worker take a second to start.

    It is found by its name, as by the service: one without jobs has these tests too.
    """

    def __init__(self, jobs: Feature[Any]) -> None:
        self._jobs = jobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jobs, name)

    def open(self, runtime: Runtime, settings: Any) -> AbstractAsyncContextManager[None]:
        opening: Any = import_module("app.features.jobs.opening")
        opened: AbstractAsyncContextManager[None] = opening.open_jobs(
            runtime, settings, find=lambda: None
        )
        return opened


@cache
def without_workers() -> Installed:
    """Return what is installed, with jobs that nobody runs."""
    features: list[Any] = [
        WithoutWorkers(feature) if feature.name == "jobs" else feature
        for feature in installed().features
    ]
    return replace(installed(), features=tuple(features))


def make_settings(tmp_path: Path, models: str = FAKE, **settings: Any) -> Any:
    models_file = tmp_path / "models.toml"
    models_file.write_text(models, encoding="utf-8")
    values: dict[str, Any] = {"data_dir": tmp_path / "data"}
    return Given(models_file=models_file, **(values | settings))


def make_app(
    tmp_path: Path, models: str = FAKE, *, engine_at: str | None = None, **settings: Any
) -> FastAPI:
    """Make an app; it starts workers only where the test gives `jobs`."""
    settings_read = make_settings(tmp_path, models, **settings)
    if settings_read.database_url is None and not settings_read.data_dir.exists():
        place_tables(Path(settings_read.sql_url.removeprefix("sqlite:///")))
    parts = installed() if "jobs" in settings else without_workers()
    app = create_app(
        settings_read,
        on_fatal=lambda failure: fail(app, failure),
        parts=parts,
        engine_at=engine_at,
    )
    return app


def batched(engine: Any, *, metrics: Metrics | None = None, **policy: Any) -> BatchScheduler[Any]:
    """Put batches in front of an engine of the test; by default one worker, batches of eight."""
    bounds = {"workers": 1, "max_batch": 8, "max_batch_tokens": 4096, "max_queued_tokens": 100_000}
    return BatchScheduler(
        "test",
        engine=engine,
        policy=BatchPolicy(**(bounds | policy)),
        tokenisers=ThreadPoolExecutor(1, thread_name_prefix="tokenise"),
        metrics=metrics or Metrics(),
    )


def serve_instead(app: FastAPI, engine: Any, **policy: Any) -> BatchScheduler[Any]:
    """Put an engine of the test behind the name that /predict uses."""
    runtime: Runtime = app.state.runtime
    entry = runtime.registry.entries[0]
    model = batched(engine, metrics=runtime.metrics, **policy)
    entry.served = Served(model=model, version="test")
    return model


@asynccontextmanager
async def running(app: FastAPI, *, wait: bool = True) -> AsyncIterator[AsyncClient]:
    """Open the app's lifespan and give a client for it; by default once the models are there."""
    async with app.router.lifespan_context(app):
        runtime: Runtime = app.state.runtime
        if wait:
            await runtime.loaded.wait()
            await runtime.stored.wait()
            if failure := getattr(app.state, "failure", None):
                raise FatalError(str(failure))
        transport = ASGITransport(app)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


@asynccontextmanager
async def serving(
    tmp_path: Path, models: str = FAKE, **settings: Any
) -> AsyncIterator[AsyncClient]:
    """Make an app on these models and run it."""
    async with running(make_app(tmp_path, models, **settings)) as client:
        yield client
