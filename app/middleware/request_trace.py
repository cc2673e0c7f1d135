"""The span of a request, as OpenTelemetry's HTTP conventions have it."""

from collections.abc import Mapping
from contextvars import Token
from typing import TYPE_CHECKING, Final

from starlette.types import Scope

from app.core.log_context import trace as trace_of_logs
from app.middleware.http_metrics import NO_ROUTE
from app.middleware.logging import PROBES

if TYPE_CHECKING:
    from app.core.spans import Trace
    from app.core.telemetry import Telemetry

SERVER_ERROR: Final = 500


class RequestTrace:
    """The trace of one request, which runs in it until `end`.

    Args:
        trace: its span.

    """

    __slots__ = ("_token", "_trace", "failure")

    def __init__(self, trace: "Trace") -> None:
        self._trace = trace
        self._token: Token[Trace | None] = trace_of_logs.set(trace)
        self.failure: Exception | None = None  # that it was answered with

    @property
    def exemplar(self) -> dict[str, str] | None:
        """What a sample of a histogram says of it; None where it isn't kept."""
        return self._trace.exemplar

    def end(self, status: int) -> None:
        """End the span with what was answered; errors of the client are none of the server's."""
        trace_of_logs.reset(self._token)
        trace = self._trace
        if trace.is_sampled:
            trace.note({"http.response.status_code": status})
            if status >= SERVER_ERROR:
                trace.fail(self.failure or str(status))
        trace.end()


def begin_trace(
    telemetry: "Telemetry",
    scope: Scope,
    headers: Mapping[bytes, bytes],
    *,
    method: str,
    route: str,
    id_: str,
) -> RequestTrace | None:
    """Begin the span of a request that came when the server noted it; None for probes.

    Args:
        telemetry: makes it.
        scope: of the request.
        headers: of the request.
        method: of HTTP.
        route: the template of its route; it stands for the path too, which may hold users' words.
        id_: of the request.

    """
    if route in PROBES:
        return None
    attributes = {
        "http.request.method": method,
        "url.scheme": scope["scheme"],
        "mlapi.request_id": id_,
    }
    name = method
    if route != NO_ROUTE:
        attributes["http.route"] = attributes["url.path"] = route
        name = f"{method} {route}"
    came_s: float = scope["state"]["received_s"]
    return RequestTrace(telemetry.begin_request(name, headers, attributes, start_s=came_s))
