"""Which middleware the app has, and in which order."""

from collections.abc import Mapping

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from app.core.metrics import Metrics
from app.middleware.body_limit import BodyLimitMiddleware
from app.middleware.disconnect import DisconnectMiddleware
from app.middleware.exceptions import ErrorBoundaryMiddleware
from app.middleware.head import HeadMiddleware
from app.middleware.http_metrics import HttpMetricsMiddleware
from app.middleware.logging import RequestLogMiddleware
from app.settings import Settings

# Headers that a page may send; keys aren't cookies, so credentials aren't allowed.
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


def middleware(
    settings: Settings, metrics: Metrics, *, body_limits: Mapping[str, int]
) -> list[Middleware]:
    """Return the middleware, the outermost first.

    Args:
        settings: as the entry point read them.
        metrics: where it counts.
        body_limits: bytes that a request's body may have, by path, where it isn't the default.

    """
    body_limit = Middleware(
        BodyLimitMiddleware,
        max_bytes=settings.max_body_bytes,
        max_bytes_of=body_limits,
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
        Middleware(ErrorBoundaryMiddleware, metrics=metrics),
        body_limit,
        Middleware(DisconnectMiddleware),
        Middleware(HeadMiddleware),
    ]
