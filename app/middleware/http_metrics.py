"""HTTP metrics: the instrumentator's, in the registry of this process."""

from prometheus_client import Gauge
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from starlette.types import ASGIApp

from app.core.metrics import Metrics


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
