"""One span: what is noted on it, what is made below it, and how other processes continue it.

Imports OpenTelemetry's interface, so it is imported where tracing is on.
"""

from asyncio import CancelledError
from collections.abc import Iterable, Mapping
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from app.core.tracing import SPAN_BYTES, TRACE_BYTES
from app.errors import ServiceError

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from app.core.telemetry import Telemetry

Kind = Literal["internal", "server", "client", "consumer"]
Attributes = Mapping[str, str | int | float | bool | list[str]]
KINDS: Final[Mapping[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
}
NANOSECONDS: Final = 1_000_000_000
ERROR_TYPE: Final = "error.type"


class Trace:
    """A span that is open, sampled or not; may be used in any thread.

    Times are those of `time.monotonic`: all spans of a trace are placed by one reading of the
    system's clock, which may be set meanwhile.

    Args:
        telemetry: makes spans.
        span: this one.
        context: in which it was made.
        offset_ns: what is to be added to the monotonic clock.

    """

    __slots__ = (
        "_context",
        "_inner",
        "_offset_ns",
        "_span",
        "_telemetry",
        "is_sampled",
    )

    def __init__(
        self, telemetry: "Telemetry", span: Span, *, context: "Context", offset_ns: int
    ) -> None:
        own = span.get_span_context()
        self.is_sampled = own.trace_flags.sampled
        self._telemetry = telemetry
        self._span = span
        self._context = context
        self._inner: Context | None = None
        self._offset_ns = offset_ns

    @property
    def telemetry(self) -> "Telemetry":
        """What makes its spans."""
        return self._telemetry

    @property
    def trace_id(self) -> str:
        """Its trace, as logs have it."""
        return format_trace_id(self._span.get_span_context().trace_id)

    @property
    def span_id(self) -> str:
        """Its span, as logs have it."""
        return format_span_id(self._span.get_span_context().span_id)

    @property
    def exemplar(self) -> dict[str, str] | None:
        """What a sample of a histogram says of it; None where it isn't kept."""
        return {"trace_id": self.trace_id, "span_id": self.span_id} if self.is_sampled else None

    @property
    def inner(self) -> "Context":
        """The context of what is below it."""
        if self._inner is None:
            self._inner = set_span_in_context(self._span, self._context)
        return self._inner

    def child(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        kind: Kind = "internal",
        start_s: float | None = None,
        links: "Iterable[Trace]" = (),
    ) -> "Trace":
        """Begin a span below this one; `start_s`: when it began, None for now."""
        made = self._telemetry.tracer.start_span(
            name,
            context=self.inner,
            kind=KINDS[kind],
            attributes=attributes,
            links=[link.as_link() for link in links],
            start_time=self._ns(start_s),
        )
        return Trace(self._telemetry, made, context=self.inner, offset_ns=self._offset_ns)

    def add(
        self,
        name: str,
        start_s: float,
        end_s: float,
        attributes: Attributes | None = None,
        *,
        links: "Iterable[Trace]" = (),
    ) -> None:
        """Add a span below this one that is over."""
        self.child(name, attributes, start_s=start_s, links=links).end(end_s)

    def as_link(self) -> Link:
        """Return what another span's link to this one is."""
        return Link(self._span.get_span_context())

    def note(self, attributes: Attributes) -> None:
        """Set attributes."""
        self._span.set_attributes(attributes)

    def fail(self, failure: BaseException | str) -> None:
        """Note an error: its code or its class, never its message, which may quote a text."""
        if isinstance(failure, CancelledError | GeneratorExit):
            self._span.set_attribute(ERROR_TYPE, "cancelled")
            return
        code = failure if isinstance(failure, str) else _code(failure)
        self._span.set_attribute(ERROR_TYPE, code)
        self._span.set_status(StatusCode.ERROR, code)
        if not isinstance(failure, str | ServiceError):
            kind = type(failure)
            self._span.add_event(
                "exception", {"exception.type": f"{kind.__module__}.{kind.__qualname__}"}
            )

    def end(self, at_s: float | None = None) -> None:
        """End the span, now or when it was over."""
        self._span.end(self._ns(at_s))

    def headers(self) -> dict[str, str]:
        """Return the headers by which another server continues this trace."""
        headers: dict[str, str] = {}
        self._telemetry.propagator.inject(headers, self.inner)
        return headers

    def pack(self) -> bytes:
        """Return it as `Telemetry.unpack` reads it, in another of our processes."""
        own = self._span.get_span_context()
        return b"".join(
            (
                own.trace_id.to_bytes(TRACE_BYTES, "big"),
                own.span_id.to_bytes(SPAN_BYTES, "big"),
                bytes((self.is_sampled,)),
            )
        )

    def _ns(self, at_s: float | None) -> int:
        return int((monotonic() if at_s is None else at_s) * NANOSECONDS) + self._offset_ns


def offset_ns() -> int:
    """Return what turns the monotonic clock into the system's, in nanoseconds."""
    return time_ns() - int(monotonic() * NANOSECONDS)


def _code(failure: BaseException) -> str:
    return failure.code if isinstance(failure, ServiceError) else type(failure).__name__
