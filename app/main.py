"""Puts the app together: settings, lifespan, middleware, routers."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import Gauge
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from app.core.metrics import Metrics
from app.errors import StartupError
from app.features.access import routes as keys
from app.features.access.addresses import parse_networks
from app.features.documents import routes as documents
from app.features.documents import search_routes as search
from app.features.jobs import events as job_events
from app.features.jobs import routes as jobs
from app.features.openai import routes as openai
from app.features.page import routes as pages
from app.features.prediction_log import routes as predictions
from app.http import docs, health, models
from app.http.problems import document_problems
from app.middleware import exceptions
from app.middleware.body_limit import BodyLimitMiddleware
from app.middleware.disconnect import DisconnectMiddleware
from app.middleware.head import HeadMiddleware
from app.middleware.logging import RequestLogMiddleware
from app.models.catalog import read_catalog
from app.runtime.checks import check_settings
from app.runtime.opening import open_runtime
from app.runtime.watching import OnFatal
from app.settings import Settings, load_settings
from app.tasks.chat import routes as chat
from app.tasks.classification import routes as predict
from app.tasks.embedding import routes as embeddings

DESCRIPTION = "Serves machine-learning models: classify and embed text, and chat, over HTTP."
# What a page may send along; keys are no cookies, so no credentials.
CORS_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-API-Key",
    "X-Request-ID",
    "X-Request-Timeout-Ms",
)
CORS_EXPOSED = (
    "Location",
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-ID",
)
# Where documents come in, up to a thousand in one body.
DOCUMENT_PATHS = ("/documents", "/embed-batch")
FEATURES = (
    predict,
    embeddings,
    documents,
    search,
    jobs,
    job_events,
    chat,
    openai,
    models,
    keys,
    predictions,
    health,
    pages,
    docs,
)


class HttpMetricsMiddleware(PrometheusInstrumentatorMiddleware):
    """The instrumentator, with its in-progress gauge in our registry too.

    As it comes it puts that one gauge in the process-wide registry, where the second app of a
    process can't declare it again.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        super().__init__(
            app,
            should_group_status_codes=False,
            should_exclude_streaming_duration=True,
            registry=metrics.registry,
        )
        self.should_instrument_requests_inprogress = True
        self.inprogress = Gauge(
            "http_requests_inprogress",
            "HTTP requests in progress.",
            ["method", "handler"],
            registry=metrics.registry,
        )
        self.inprogress_labels = True


def stop_server(_failure: StartupError) -> None:
    """End the server that runs this app, if there is one: it listens for SIGTERM."""
    if signal.getsignal(signal.SIGTERM) not in {signal.SIG_DFL, signal.SIG_IGN, None}:
        signal.raise_signal(signal.SIGTERM)


def create_app(settings: Settings | None = None, *, on_fatal: OnFatal = stop_server) -> FastAPI:
    """Make the app; models are loaded by its lifespan.

    Args:
        settings: read from the environment when None.
        on_fatal: called on the event loop when a required model can't be loaded.

    Raises:
        SettingsError: a setting has a bad value.
        CatalogError: the catalogue can't be read.

    """
    settings = settings or load_settings()
    check_settings(settings)
    catalog = read_catalog(settings.models_file)
    trusted_proxies = parse_networks(settings.trusted_proxies)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_runtime(
            settings, catalog, metrics=metrics, on_fatal=on_fatal, trusted_proxies=trusted_proxies
        ) as runtime:
            app.state.runtime = runtime
            yield

    app = FastAPI(
        title="ml-api",
        version=version("ml-api"),
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=_middleware(settings, metrics),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for feature in FEATURES:
        app.include_router(feature.router)
    docs.mount_static(app)
    pages.mount_static(app)
    exceptions.install(app, metrics=metrics)
    document_problems(app, needs_key=settings.needs_key, max_chars=catalog.max_chars)
    return app


def _middleware(settings: Settings, metrics: Metrics) -> list[Middleware]:
    """Return the middleware, the outermost first."""
    body_limit = Middleware(
        BodyLimitMiddleware,
        max_bytes=settings.max_body_bytes,
        max_bytes_of=dict.fromkeys(DOCUMENT_PATHS, settings.max_documents_bytes),
        timeout_s=settings.request_timeout_ms / 1000,
    )
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=CORS_HEADERS,
        expose_headers=CORS_EXPOSED,
    )
    return [
        *([cors] if origins else []),
        Middleware(RequestLogMiddleware),
        Middleware(HttpMetricsMiddleware, metrics=metrics),
        Middleware(exceptions.ErrorBoundaryMiddleware, metrics=metrics),
        body_limit,
        Middleware(DisconnectMiddleware),
        Middleware(HeadMiddleware),
    ]
