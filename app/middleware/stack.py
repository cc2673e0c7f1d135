"""Which layers are around the routes, and in which order."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.client_requests import ClientRequests
from app.core.metrics import Metrics
from app.core.prefix import without_prefix
from app.errors import SettingsError
from app.middleware.body_budget import BodyBudget
from app.middleware.body_limit import BodyLimits
from app.middleware.exceptions import ErrorAnswers
from app.middleware.front import Front, FrontParts
from app.middleware.http_metrics import HttpMetrics
from app.settings import Settings

if TYPE_CHECKING:
    from app.core.telemetry import Telemetry

# Headers that a page may send; keys aren't cookies, so credentials aren't allowed.
CORS_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-API-Key",
    "X-Model-Version",
    "X-Request-ID",
    "X-Request-Timeout-Ms",
    "traceparent",  # W3C's Trace Context: pages that are traced send them
    "tracestate",
    "X-Session-ID",
)
# Of all bodies: a small part of what a process with models takes, and so much at least that two
# callers can each upload one of the largest while others are served.
BODY_BYTES = 67_108_864
LARGEST_BODIES = 4
CORS_EXPOSED = (
    "Location",
    "Retry-After",
    "X-Model-Version",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-ID",
)


class App(FastAPI):
    """FastAPI without the layers of its own that the front makes superfluous.

    Those answer errors, bound bodies and trace requests: what is below them is done once, there.

    Args:
        parts: of the layer around all routes.
        prefix: of a proxy, which may stand before the paths.
        fields: of FastAPI.

    """

    def __init__(self, *, parts: FrontParts, prefix: str = "", **fields: Any) -> None:  # noqa: ANN401  # FastAPI's
        super().__init__(**fields)
        self._parts = parts
        self._prefix = self.state.prefix = prefix
        self._handlers = dict(self.exception_handlers)  # FastAPI's own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; FastAPI would look for its telemetry first."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        if self._prefix:
            # Taken off here, once: Starlette's own way, `root_path` in the scope, would leave the
            # prefix in the path for all that looks at it, docs/decisions/0025-root-path.md.
            scope["path"] = without_prefix(scope["path"], self._prefix)
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Return the routes with the layers around them; called once, at the first request."""
        app: ASGIApp = Front(self.inner, self._parts)
        for layer in reversed(self.user_middleware):
            app = layer.cls(app, *layer.args, **layer.kwargs)
        return app

    @cached_property
    def inner(self) -> ASGIApp:
        """The routes without the layer around them, which requests of the service's own call."""
        app: ASGIApp = AsyncExitStackMiddleware(self.router)
        own = {k: v for k, v in self.exception_handlers.items() if self._handlers.get(k) is not v}
        if own:  # of a feature or of a user's
            app = ExceptionMiddleware(app, handlers=own)
        return app


def front_parts(
    settings: Settings,
    metrics: Metrics,
    *,
    body_limits: Mapping[str, int],
    telemetry: "Telemetry | None" = None,
    streamed: Mapping[str, int],
    clients: ClientRequests,
) -> FrontParts:
    """Return what the layer around all routes needs.

    Args:
        settings: as the entry point read them.
        metrics: where it counts.
        body_limits: bytes that a request's body may have, by path, where it isn't the default.
        telemetry: makes traces of requests; None: they aren't traced.
        streamed: those of bodies that are read as they come, by path.
        clients: where requests that run models are counted.

    Raises:
        SettingsError: all bodies together may have less than one of them.

    """
    limits = BodyLimits(
        max_bytes=settings.max_body_bytes,
        max_bytes_of=body_limits,
        streamed=streamed,
        timeout_s=settings.request_timeout_ms / 1000,
        budget=_body_budget(settings, metrics, body_limits),
    )
    return FrontParts(
        limits=limits,
        metrics=HttpMetrics(metrics.registry),
        errors=ErrorAnswers(metrics),
        telemetry=telemetry,
        clients=clients,
    )


def cors(settings: Settings) -> list[Middleware]:
    """Return what lets pages of other origins call, where a setting names any."""
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    layer = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=CORS_HEADERS,
        expose_headers=CORS_EXPOSED,
    )
    return [layer] if origins else []


def _body_budget(
    settings: Settings, metrics: Metrics, body_limits: Mapping[str, int]
) -> BodyBudget:
    largest = max([settings.max_body_bytes, *body_limits.values()])
    most = settings.max_body_bytes_in_flight or max(BODY_BYTES, LARGEST_BODIES * largest)
    if most < largest:
        raise SettingsError(
            f"MAX_BODY_BYTES_IN_FLIGHT: less than the largest body may have, {largest}"
        )
    budget = BodyBudget(
        max_bytes=most,
        largest_bytes=largest,
        on_refused=lambda reason: metrics.bodies_refused.labels(reason).inc(),
    )
    metrics.body_bytes.set_function(lambda: budget.held)
    return budget
