"""Where spans are made: below the trace that code runs in, if there is one; no library is imported.

Off, each of these is one look into a context variable.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final

from app.core.log_context import trace as _trace

if TYPE_CHECKING:
    from app.core.spans import Attributes, Kind, Trace
    from app.core.telemetry import Telemetry

# Attributes of our own; docs/tracing.md has all.
MODEL: Final = "mlapi.model"
ITEMS: Final = "mlapi.items"
# How a trace is written between our own processes: trace, span, and whether it is sampled.
TRACE_BYTES, SPAN_BYTES = 16, 8
PACKED_BYTES: Final = TRACE_BYTES + SPAN_BYTES + 1
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
OFF: Final[AbstractContextManager[None]] = nullcontext()


def current() -> "Trace | None":
    """Return the trace that this code runs in, sampled or not; None where tracing is off."""
    return _trace.get()


def sampled() -> "Trace | None":
    """Return the trace that this code runs in, if spans below it are kept; else None."""
    trace = _trace.get()
    return trace if trace is not None and trace.is_sampled else None


def enter(trace: "Trace") -> None:
    """Have the rest of this task, or of this thread's work, run in a trace."""
    _trace.set(trace)


@contextmanager
def inside(trace: "Trace | None") -> Iterator[None]:
    """Run the block in a trace; None: in none."""
    token = _trace.set(trace)
    try:
        yield
    finally:
        _trace.reset(token)


def span(
    name: str, subject: str = "", *, kind: "Kind" = "internal"
) -> "AbstractContextManager[Trace | None]":
    """Run the block in a span below the present one; gives None where none is kept.

    Args:
        name: what is done.
        subject: to what, such as the model's name: behind the name.
        kind: as OpenTelemetry has it.

    """
    above = sampled()
    if above is None:
        return OFF
    return _Open(above.child(f"{name} {subject}" if subject else name, kind=kind))


@contextmanager
def resumed(
    telemetry: "Telemetry | None",
    carried: str | None,
    name: str,
    attributes: "Attributes",
    *,
    kind: "Kind",
) -> "Iterator[Trace | None]":
    """Run the block in a span of a trace that was stored by `carried`; None where tracing is off.

    Args:
        telemetry: makes it; None: tracing is off.
        carried: as it was stored; None: it begins a trace.
        name: of the span.
        attributes: of the span.
        kind: as OpenTelemetry has it.

    """
    if telemetry is None:
        yield None
        return
    with _Open(telemetry.resume(carried, name, attributes, kind)) as trace:
        yield trace


def outgoing() -> Mapping[str, str]:
    """Return the headers by which another server continues this trace."""
    trace = _trace.get()
    return NOTHING if trace is None else trace.headers()


def carried() -> str | None:
    """Return this trace as it is stored, for work that goes on later; None where there is none."""
    trace = _trace.get()
    return None if trace is None else json.dumps(trace.headers())


class _Open:
    """A span for as long as a block runs; an error that leaves the block is noted on it."""

    __slots__ = ("_token", "_trace")

    def __init__(self, trace: "Trace") -> None:
        self._trace = trace

    def __enter__(self) -> "Trace":
        self._token = _trace.set(self._trace)
        return self._trace

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _trace.reset(self._token)
        if failure is not None:
            self._trace.fail(failure)
        self._trace.end()
