"""What makes and exports spans where tracing is on: OpenTelemetry's SDK, OTLP over HTTP.

Imports the SDK, which is in the extra `tracing`; `app.core.otel` decides whether to.
"""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points, version
from json import loads
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter, TextMapPropagator
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
)

from app.core.gen_ai import GenAiMeters
from app.core.metrics import Metrics
from app.core.otlp_session import Session
from app.core.spans import (
    KINDS,
    NANOSECONDS,
    Attributes,
    Kind,
    Trace,
    offset_ns,
)
from app.core.tracing import PACKED_BYTES, TRACE_BYTES

log = logging.getLogger(__name__)

QUEUE: Final = 2_048  # the default of the specification
PACKAGE: Final = "ml-api"
FLUSH_S: Final = 2.0  # at the end of the process, for what waits to be exported
# They say for each batch what `Session` says once a minute, and the metrics count.
SILENCED: Final = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")
PROPAGATORS: Final = "opentelemetry_propagator"  # of packages' entry points
EXPORTED, FAILED, DROPPED = "exported", "failed", "dropped"


class FixedResource(Resource):
    """What is said of the process; the exporter asks for its hash with each span."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._hash = super().__hash__()  # of its JSON: a fifth of a span's encoding

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)

    def __hash__(self) -> int:
        return self._hash


class CountedExporter(SpanExporter):
    """Exports spans and counts them.

    Args:
        metrics: where they are counted.

    """

    def __init__(self, metrics: Metrics) -> None:
        self._inner = OTLPSpanExporter(session=Session("spans"))
        self._count = metrics.spans
        self.done = 0  # spans, exported or not
        for outcome in (EXPORTED, FAILED, DROPPED):  # alerts wouldn't see what creates a series
            self._count.labels(outcome)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans; called by one thread."""
        try:
            result = self._inner.export(spans)
        finally:
            self.done += len(spans)
        is_done = result is SpanExportResult.SUCCESS
        self._count.labels(EXPORTED if is_done else FAILED).inc(len(spans))
        return result

    def shutdown(self) -> None:
        """Close the connections, and end a wait between two attempts."""
        self._inner.shutdown()  # type: ignore[no-untyped-call]  # the library's omission


class BoundedProcessor(BatchSpanProcessor):
    """Has spans exported by a thread; with too many that wait, newer ones are dropped, counted.

    The library would drop the oldest, and only log it.
    """

    def __init__(self, exporter: CountedExporter, metrics: Metrics) -> None:
        super().__init__(exporter)
        self._counted = exporter
        self._dropped = metrics.spans.labels(DROPPED)
        self._bound = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) or QUEUE)
        self._put = 0
        self._lock = threading.Lock()

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that has ended; may be called in any thread."""
        with self._lock:
            is_full = self._put - self._counted.done >= self._bound
            self._put += not is_full
        if is_full:
            self._dropped.inc()
        else:
            super().on_end(span)


class Telemetry:
    """Begins the traces of a process, and exports their spans.

    Args:
        resource: what is said of the process.
        metrics: where spans are counted.
        propagator: reads and writes the headers by which traces go on.
        gen_ai: OTLP's metrics of chat; None: they are off.

    """

    def __init__(
        self,
        resource: Resource,
        metrics: Metrics,
        *,
        propagator: TextMapPropagator,
        gen_ai: GenAiMeters | None = None,
    ) -> None:
        for name in SILENCED:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._exporter = CountedExporter(metrics)
        # Not at the interpreter's exit, where it would take 30 s.
        self._provider = TracerProvider(resource=FixedResource(resource), shutdown_on_exit=False)
        self._provider.add_span_processor(BoundedProcessor(self._exporter, metrics))
        self.tracer = self._provider.get_tracer(PACKAGE, version(PACKAGE))
        self.propagator = propagator
        self.gen_ai = gen_ai
        self._headers = tuple(name.lower().encode() for name in propagator.fields)

    def begin_request(
        self, name: str, headers: Mapping[bytes, bytes], attributes: Attributes, *, start_s: float
    ) -> Trace:
        """Begin the span of a request to this service, in the trace that its headers name.

        Args:
            name: of the span.
            headers: of the request, names in lower case; what isn't readable begins a new trace.
            attributes: of the span.
            start_s: when it came, as `time.monotonic` counts.

        """
        context = Context()
        if not headers.keys().isdisjoint(self._headers):
            context = self.propagator.extract(headers, context, HEADERS)
        return self._begin(name, context, attributes, kind="server", start_s=start_s)

    def resume(self, carried: str | None, name: str, attributes: Attributes, kind: Kind) -> Trace:
        """Begin a span in a trace that was stored as `carry` wrote it; None: in a new one."""
        context = Context()
        if carried:
            context = self.propagator.extract(loads(carried), context)
        return self._begin(name, context, attributes, kind=kind)

    def unpack(self, packed: bytes | bytearray) -> Trace:
        """Return a trace of another of our processes, as `Trace.pack` wrote it."""
        own = SpanContext(
            trace_id=int.from_bytes(packed[:TRACE_BYTES], "big"),
            span_id=int.from_bytes(packed[TRACE_BYTES : PACKED_BYTES - 1], "big"),
            is_remote=True,
            trace_flags=TraceFlags(packed[PACKED_BYTES - 1]),
        )
        return Trace(self, NonRecordingSpan(own), context=Context(), offset_ns=offset_ns())

    def close(self) -> None:
        """Export what waits, within `FLUSH_S`; blocks."""

        def shut_down() -> None:
            self._provider.shutdown()
            if self.gen_ai is not None:
                self.gen_ai.close()

        ending = threading.Thread(target=shut_down, name="telemetry-end", daemon=True)
        ending.start()
        ending.join(FLUSH_S)
        if ending.is_alive():
            log.warning("spans_left_behind", extra={"after_s": FLUSH_S})
            self._exporter.shutdown()  # which ends its attempts

    def _begin(
        self,
        name: str,
        context: Context,
        attributes: Attributes,
        *,
        kind: Kind,
        start_s: float | None = None,
    ) -> Trace:
        offset = offset_ns()
        start_ns = None if start_s is None else int(start_s * NANOSECONDS) + offset
        made = self.tracer.start_span(
            name, context=context, kind=KINDS[kind], attributes=attributes, start_time=start_ns
        )
        return Trace(self, made, context=context, offset_ns=offset)


class _Headers(Getter[Mapping[bytes, bytes]]):
    """Reads the headers of a request as the server has them."""

    def get(self, carrier: Mapping[bytes, bytes], key: str) -> list[str] | None:
        """Return the values of a header."""
        value = carrier.get(key.lower().encode())
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: Mapping[bytes, bytes]) -> list[str]:
        """Return the names of all."""
        return [name.decode("latin-1") for name in carrier]


HEADERS: Final = _Headers()


def read_propagators(names: str) -> TextMapPropagator:
    """Return what reads and writes the headers that OTEL_PROPAGATORS names.

    Raises:
        ValueError: one isn't installed.

    """
    made: list[TextMapPropagator] = []
    for name in (part.strip().lower() for part in names.split(",")):
        if name == "none":
            return CompositePropagator([])
        points = entry_points(group=PROPAGATORS, name=name)
        if not points:
            raise ValueError(f"OTEL_PROPAGATORS: there is no {name!r}")
        made.append(next(iter(points)).load()())
    return CompositePropagator(made)
