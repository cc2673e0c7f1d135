"""HTTP metrics: those of prometheus-fastapi-instrumentator, each looked up once."""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_fastapi_instrumentator.routing import get_route_name
from starlette.requests import Request
from starlette.types import Scope

# The instrumentator's own, in seconds: a coarse histogram a route, and a fine one over all.
BUCKETS = (0.1, 0.5, 1)
FINE_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75),
    *(1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60),
)
NO_ROUTE = "none"


class HttpMetrics:
    """Counts requests, by route, method and status.

    The instrumentator's middleware, whose names these are, matches each path against all routes,
    and looks each label up, which took a tenth of a request.

    Args:
        registry: of the process.

    """

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "http_requests_total",
            "Total number of requests by method, status and handler.",
            ["method", "status", "handler"],
            registry=registry,
        )
        in_bytes = Summary(
            "http_request_size_bytes",
            "Content length of incoming requests by handler. Only value of header is respected."
            " Otherwise ignored. No percentile calculated. ",
            ["handler"],
            registry=registry,
        )
        out_bytes = Summary(
            "http_response_size_bytes",
            "Content length of outgoing responses by handler. Only value of header is respected."
            " Otherwise ignored. No percentile calculated. ",
            ["handler"],
            registry=registry,
        )
        fine_seconds = Histogram(
            "http_request_duration_highr_seconds",
            "Latency with many buckets but no API specific labels. Made for more accurate"
            " percentile calculations. ",
            buckets=FINE_BUCKETS,
            registry=registry,
        )
        seconds = Histogram(
            "http_request_duration_seconds",
            "Latency with only few buckets by handler. Made to be only used if aggregation by"
            " handler is important. ",
            ["method", "handler"],
            buckets=BUCKETS,
            registry=registry,
        )
        in_progress = Gauge(
            "http_requests_inprogress",
            "HTTP requests in progress.",
            ["method", "handler"],
            registry=registry,
        )
        # Routes, methods and statuses are few: other methods than HTTP's are refused before.
        self._in_progress = cache(in_progress.labels)
        self._requests = cache(requests.labels)
        self._in_bytes = cache(in_bytes.labels)
        self._out_bytes = cache(out_bytes.labels)
        self._seconds = cache(seconds.labels)
        self._fine_seconds = fine_seconds
        self._static: set[str] = set()

    def route_of(self, scope: Scope) -> str:
        """Return the template of the route that a request belongs to, before it is routed."""
        path: str = scope["path"]
        if path in self._static:
            return path
        route = get_route_name(Request(scope), should_include_root_path=False)
        if route == path:  # no parameters: there are as many of these as routes
            self._static.add(path)
        return route or NO_ROUTE

    def begin(self, method: str, route: str) -> None:
        """One request has begun."""
        self._in_progress(method, route).inc()

    def end(  # noqa: PLR0913  # what is counted of a request
        self,
        method: str,
        route: str,
        *,
        status: int,
        in_bytes: int,
        out_bytes: int,
        seconds: float,
        exemplar: dict[str, str] | None = None,
    ) -> None:
        """Count a request that began.

        Args:
            method: of HTTP.
            route: its template.
            status: of the answer.
            in_bytes: the length that the request announced.
            out_bytes: the length that the answer announced.
            seconds: until the answer began; 0.0 if it never did.
            exemplar: what a sample of its duration names: its trace.

        """
        self._in_progress(method, route).dec()
        self._requests(method, str(status), route).inc()
        self._in_bytes(route).observe(in_bytes)
        self._out_bytes(route).observe(out_bytes)
        self._fine_seconds.observe(seconds, exemplar)
        self._seconds(method, route).observe(seconds, exemplar)
