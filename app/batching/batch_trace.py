"""The spans of one batch: those of its engine calls, and of the wait of its requests."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from app.batching.queue import Batch
from app.batching.requests import QueuedItem, QueuedRequest
from app.core.tracing import ITEMS, MODEL, inside
from app.engines.items import Prepared

if TYPE_CHECKING:
    from app.core.spans import Trace

Run = Callable[[Sequence[Prepared]], list[Any]]


class BatchTrace:
    """The span of a batch: in the trace of its oldest request that is sampled, with links to all.

    A request may be in several batches, and a batch has requests of several traces. Each of these
    has a span of its wait, which links to the batch that ended it.

    Args:
        trace: of the batch; not sampled where none of its requests is.

    """

    def __init__(self, trace: "Trace") -> None:
        self.trace = trace

    def run(self, run: Run, prepared: Sequence[Prepared]) -> list[Any]:
        """Call the engine in a span of its own; a batch that failed is run again, in halves."""
        if not self.trace.is_sampled:
            with inside(self.trace):
                return run(prepared)
        span = self.trace.child("engine", {ITEMS: len(prepared)})
        try:
            with inside(span):
                return run(prepared)
        except BaseException as failure:
            span.fail(failure)
            raise
        finally:
            span.end()

    def end(self, failure: BaseException | None = None) -> None:
        """End the span; `failure`: of the worker, not of an engine."""
        if self.trace.is_sampled:
            if failure is not None:
                self.trace.fail(failure)
            self.trace.end()


def begin_batch(batch: Batch[QueuedItem], model: str, *, calls_others: bool) -> BatchTrace | None:
    """Begin the span of a batch, and end those of the wait for it; None where nothing is traced.

    Args:
        batch: that a worker has taken.
        model: its name.
        calls_others: whether the engine asks other servers or models, who are to be told of a
            trace that isn't kept too.

    """
    if not calls_others and not any(_is_sampled(ticket.item.request) for ticket in batch.tickets):
        return None
    first_items = {ticket.item.request: ticket.item for ticket in reversed(batch.tickets)}
    traces = [request.trace for request in first_items if request.trace is not None]
    sampled = [trace for trace in traces if trace.is_sampled]
    if not traces:
        return None
    if not sampled:
        return BatchTrace(traces[-1])  # for what the engine asks of other servers
    attributes: dict[str, str | int] = {
        MODEL: model,
        ITEMS: len(batch.tickets),
        "mlapi.tokens": batch.tokens,
    }
    now_s = monotonic()
    span = sampled[-1].child("batch", attributes, start_s=now_s, links=sampled)
    for request, item in first_items.items():
        _note_wait(request, item, now_s, span)
    return BatchTrace(span)


def _is_sampled(request: QueuedRequest) -> bool:
    return request.trace is not None and request.trace.is_sampled


def _note_wait(request: QueuedRequest, item: QueuedItem, now_s: float, batch: "Trace") -> None:
    if request.has_run or request.trace is None or not request.trace.is_sampled:
        return
    request.has_run = True
    request.trace.add("queue", item.queued_s, now_s, links=(batch,))
