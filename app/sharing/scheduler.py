"""What a front end has instead of batches: it tokenises, and the engine's process does the rest."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from time import monotonic
from typing import Any

from app.batching.admission import Work
from app.batching.deadline import Deadline
from app.batching.requests import Outcome, QueuedRequest, resolve
from app.batching.tokenising import Tokenising, estimator
from app.core.metrics import Metrics
from app.core.model_metrics import ModelMetrics
from app.core.tracing import current
from app.engines.items import Prepared
from app.errors import DeadlineExceededError, NotReadyError
from app.sharing.engines import SharedText
from app.sharing.items import pack_items
from app.sharing.link import EngineLink
from app.sharing.requests import SharedRequest
from app.sharing.shared_model import SharedModel


class SharedScheduler:
    """Has the texts of requests run by the engine's process. Called on the event loop.

    Admission, queue and batches are the other process's, and so are their metrics; here only what
    never gets there is counted.

    Args:
        model: that is asked.
        engine: that tokenises.
        link: to the process.
        tokenisers: threads in which texts are tokenised.
        metrics: where everything counts.

    """

    def __init__(
        self,
        model: SharedModel,
        *,
        engine: SharedText,
        link: EngineLink,
        tokenisers: Executor,
        metrics: Metrics,
    ) -> None:
        self.engine = engine
        self._model = model
        self._link = link
        self._metrics = ModelMetrics(metrics, model.name)
        self._estimate = estimator(engine)
        self._tokenising = Tokenising(engine, tokenisers, done=self._send, name=model.name)
        self._waiting = 0
        metrics.refused.labels(model.name, "unsent")

    async def submit(
        self, items: Sequence[Any], *, deadline: Deadline, prompt: str = ""
    ) -> Outcome:
        """Run texts; returns when all of them are done. As `Scheduler.submit`."""
        request = self._make(items, prompt, deadline)
        self._waiting += 1
        try:
            self._tokenise(request)
            async with asyncio.timeout(deadline.remaining_s):
                return await request.answer
        except TimeoutError:
            self._link.leave(request, is_client_gone=False)
            self._metrics.refused("deadline")
            raise DeadlineExceededError from None
        except asyncio.CancelledError:
            self._link.leave(request, is_client_gone=True)
            if not request.is_sent:
                self._metrics.cancelled("queued", len(items))
            raise
        finally:
            self._waiting -= 1

    def _make(self, items: Sequence[Any], prompt: str, deadline: Deadline) -> SharedRequest:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        return SharedRequest(
            items=items,
            prompt=prompt,
            future=answer,
            estimate=Work(tokens=self._estimate(items, prompt), texts=len(items)),
            predicted_s=0.0,
            admitted_s=monotonic(),
            is_alone=not self._waiting,
            number=self._link.next_number(),
            model=self._model,
            engine=self.engine,
            deadline=deadline,
            answer=answer,
            trace=current(),
        )

    def _tokenise(self, request: SharedRequest) -> None:
        """Have texts tokenised, in another thread unless that takes longer.

        Raises:
            NotReadyError: there is no thread for it.

        """
        if self._tokenising.is_quick(request):
            self._tokenising.run_now(request)
            return
        try:
            self._tokenising.put(request)
        except RuntimeError as failure:  # shut down, or the system has no thread left
            raise NotReadyError(
                "There is no thread to prepare items in.", retry_after_s=1
            ) from failure

    def _send(self, request: QueuedRequest, prepared: Sequence[Prepared | Exception]) -> None:
        """Send the tokens of a request; called where they were made."""
        assert isinstance(request, SharedRequest)  # noqa: S101  # there are no others
        if request.is_left:
            return
        request.take(prepared)
        if request.prepared:
            self._link.send(request, pack_items(request.prepared))
        else:
            self._link.call(resolve, [request])

    def problems(self, *, max_call_s: float) -> list[str]:  # noqa: ARG002  # as of all schedulers
        """Say nothing: the engine's process tells its own to all front ends."""
        return []

    def longest_call_s(self) -> float:
        """Return 0: the engine's process measures it."""
        return 0.0

    @property
    def can_close_early(self) -> bool:
        """Yes: nothing is held."""
        return True

    def close(self, *, timeout_s: float) -> None:
        """Nothing is held: the model belongs to the other process."""
