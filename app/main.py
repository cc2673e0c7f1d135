"""Puts the service together: the list of tasks, the list of features, and the app made of them.

Commands use the lists too, so heavy modules are imported only when an app is made.
"""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from app.errors import StartupError
from app.runtime.composition import Composition, Installed, check, choose, find_installed

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.models.catalog import Catalog
    from app.settings import Settings

# Folders of `app/tasks/`; a task without a line here is left out.
TASKS = (
    "python",  # before classification, whose /predict/{model_name} takes all other names
    "token_classification",  # likewise
    "classification",
    "embedding",
    "chat",
    "rerank",
    "zero_shot",
    "image_classification",
    "image_embedding",
)
# Folders of `app/features/`, in the order in which they open: each after those that it needs.
FEATURES = (
    "access",
    "prediction_log",
    "drift",  # beside the log: it hands entries on
    "documents",
    "jobs",
    "openai",
    "openai_batches",
    "decisions",
    "huggingface",
    "open_inference",
    "versions",
    "page",
)
DESCRIPTION = "Serves machine-learning models: classify and embed text, and chat, over HTTP."


@cache
def installed() -> Installed:
    """Return the tasks and features of this program, and those that other packages bring."""
    return find_installed(TASKS, FEATURES)


@cache
def settings_type() -> "type[Settings]":
    """Return what holds the settings of the service and of all its features."""
    return installed().settings_type()


def load_settings(**overrides: object) -> "Settings":
    """Read the settings of the service and all its features.

    Raises:
        SettingsError: naming each variable with a bad value, without the value.

    """
    from app.settings import load_settings as load

    return load(settings_type(), **overrides)


def stop_server(_failure: StartupError) -> None:
    """End the server that runs this app, if there is one: it listens for SIGTERM."""
    if signal.getsignal(signal.SIGTERM) not in {signal.SIG_DFL, signal.SIG_IGN, None}:
        signal.raise_signal(signal.SIGTERM)


def compose(settings: "Settings", parts: Installed | None = None) -> "tuple[Composition, Catalog]":
    """Return what a service is made of, once all of it is known to be usable.

    Args:
        settings: as the entry point read them.
        parts: tasks and features to choose from; those of this program when None.

    Raises:
        SettingsError: a setting has a bad value.
        CatalogError: the catalogue can't be read.

    """
    from app.models.catalog import read_catalog

    chosen = choose(parts or installed(), settings)
    check(chosen, settings)
    catalog = read_catalog(settings.models_file)
    catalog.check_tasks(chosen.kinds)
    return chosen, catalog


def create_app(
    settings: "Settings | None" = None,
    *,
    on_fatal: Callable[[StartupError], None] = stop_server,
    parts: Installed | None = None,
    engine_at: str | None = None,
) -> "FastAPI":
    """Make the app; models are loaded by its lifespan.

    Args:
        settings: read from the environment when None.
        on_fatal: called on the event loop when a required model can't be loaded.
        parts: tasks and features to choose from; those of this program when None.
        engine_at: the Unix socket of the process that has the models for texts; None: this one.

    Raises:
        SettingsError: a setting has a bad value.
        CatalogError: the catalogue can't be read.

    """
    from app.core.client_requests import ClientRequests
    from app.core.metrics import Metrics
    from app.core.otel import open_telemetry
    from app.http import docs, health, models
    from app.http.api_document import ApiDocument, ApiFacts
    from app.http.model_document import ModelDocument
    from app.http.prefix import check_prefix
    from app.middleware.own_requests import InnerRequests
    from app.middleware.stack import App, cors, front_parts
    from app.runtime.kinds import request_kinds
    from app.runtime.opening import open_runtime
    from app.settings import otel_variables

    settings = settings or load_settings()
    chosen, catalog = compose(settings, parts)
    metrics = Metrics()
    telemetry = open_telemetry(otel_variables(), metrics, process="api")
    clients = ClientRequests(request_kinds(chosen.tasks, chosen.features))
    parts_in_front = front_parts(
        settings,
        metrics,
        body_limits=chosen.body_limits(settings),
        streamed=chosen.streamed_bodies(settings),
        clients=clients,
        telemetry=telemetry,
    )

    @asynccontextmanager
    async def lifespan(app: "FastAPI") -> AsyncIterator[None]:
        async with open_runtime(
            settings,
            catalog,
            chosen,
            metrics=metrics,
            on_fatal=on_fatal,
            engine_at=engine_at,
            telemetry=telemetry,
            own_requests=InnerRequests(own, parts_in_front),
        ) as runtime:
            app.state.runtime = runtime
            yield

    app = own = App(
        parts=parts_in_front,
        title="ml-api",
        version=version("ml-api"),
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=cors(settings),
        prefix=settings.root_path,
        openapi_url=None,  # `http/docs.py` has the route
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    routers = (*chosen.routers(), models.router, health.router, docs.router)
    check_prefix(settings.root_path, routers)
    for router in routers:
        app.include_router(router)
    docs.mount_static(app)
    for feature in chosen.features:
        feature.mount(app)
    needs_key = chosen.needs_key(settings)
    extend = ModelDocument(app, chosen.tasks, needs_key=needs_key)
    facts = ApiFacts(
        needs_key=needs_key,
        max_chars=catalog.max_chars,
        tags=chosen.tags,
        models=chosen.example_models(catalog),
    )
    ApiDocument(app, facts, extend=extend)
    return app
