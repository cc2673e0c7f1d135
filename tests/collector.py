"""An OTLP collector on loopback: takes spans and metrics as protobuf, and keeps them readable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any

import pytest
from loopback import WAIT_S, LoopbackServer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACES, METRICS = "/v1/traces", "/v1/metrics"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A span as it came."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    links: tuple[str, ...]  # ids of spans
    events: tuple[Mapping[str, Any], ...]
    is_error: bool
    description: str
    resource: Mapping[str, Any]


@dataclass
class Collector(LoopbackServer):
    """`with` starts and ends it; `answers` is the status of each export."""

    status: int = 200
    spans: list[Seen] = field(default_factory=list)
    points: dict[str, list[Any]] = field(default_factory=dict)  # of metrics, by name
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    go: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.go.set()
        super().__init__(partial(_Handler, self))

    def stop(self) -> None:
        self.go.set()
        super().stop()

    def take(self, path: str, body: bytes) -> None:
        self.bodies.append(body)
        if path == TRACES:
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = read(group.resource.attributes)
                for scope in group.scope_spans:
                    self.spans += [seen(span, resource) for span in scope.spans]
        elif path == METRICS:
            for some in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scoped in some.scope_metrics:
                    for metric in scoped.metrics:
                        points = self.points.setdefault(metric.name, [])
                        points += [(read(p.attributes), p) for p in metric.histogram.data_points]

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str, matches: Callable[[Seen], bool] = lambda _: True) -> Seen:
        found = [span for span in self.named(name) if matches(span)]
        assert len(found) == 1, (name, [(s.name, s.trace_id, s.parent_id) for s in self.spans])
        return found[0]

    def below(self, span: Seen) -> list[str]:
        """Return the names of the spans right below one, sorted."""
        return sorted(s.name for s in self.spans if s.parent_id == span.span_id)


def turn_on(monkeypatch: pytest.MonkeyPatch, collector: Collector, **variables: str) -> None:
    """Set OpenTelemetry's variables as an operator does."""
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    for name, value in (given | variables).items():
        monkeypatch.setenv(name, value)


def seen(span: Span, resource: Mapping[str, Any]) -> Seen:
    return Seen(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        state=span.trace_state,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=read(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        events=tuple({"name": e.name, **read(e.attributes)} for e in span.events),
        is_error=span.status.code == Status.StatusCode.STATUS_CODE_ERROR,
        description=span.status.message,
        resource=resource,
    )


def read(attributes: Any) -> dict[str, Any]:
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return None if kind is None else getattr(value, kind)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, collector: Collector, *args: Any) -> None:
        self._collector = collector
        super().__init__(*args)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._collector.go.wait(WAIT_S)
        self._collector.headers.append({k.lower(): v for k, v in self.headers.items()})
        if self._collector.status == 200:
            self._collector.take(self.path, body)
        self.send_response(self._collector.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Stay silent; `spans` has it."""
