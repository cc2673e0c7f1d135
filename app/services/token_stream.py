"""The tokens of one generation as they come, how it ended, and what is counted and logged of it."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.batching.generations import Generations, Slot
from app.engines.chat_base import Generation
from app.engines.tool_calls import Piece
from app.errors import DeadlineExceededError, NotReadyError, ReaderTooSlowError, ServiceError
from app.models.registry import Lease

if TYPE_CHECKING:
    from app.engines.chain import TokenQueue
    from app.services.model_trace import ChatTrace

log = logging.getLogger(__name__)

CLIENT_LEFT = "client_left"
REASONS = frozenset({"stop", "length", "tool_calls"})
# How a generation ended: complete, or with an error that the caller gets.
End = Generation | ServiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedGeneration:
    """A generation that is over, for quotas and the prediction log."""

    model: str
    version: str | None  # of the model's files; None: it never started
    end: End | None  # None: its client left
    tokens: int  # of the answer, that came
    seconds: float
    first_token_s: float | None  # from the request to the first token


OnEnd = Callable[[FinishedGeneration], None]


class Stream:
    """The tokens of one generation as they come, and its end."""

    def __init__(
        self,
        lease: Lease[Generations],
        slot: Slot,
        *,
        started_s: float,
        bound: int,
    ) -> None:
        generations = lease.model
        self.model = lease.spec.name
        self._version = lease.version
        self.end: End | None = None  # once the generation has ended
        self.first_token_s: float | None = None
        self.token_count = 0
        self.is_left = False  # its reader is gone
        self.trace: ChatTrace | None = None  # None: tracing is off
        self.was_shut_down = False  # by the server; else it is the client who leaves
        self._metrics = generations.metrics
        self._slot = slot
        self._started_s = started_s
        self.tokens: TokenQueue = generations.chain.queue(bound=bound, on_token=self._note_token)

    @property
    def is_over(self) -> bool:
        """Whether everything has been read; `end` says how it ended."""
        return self.tokens.is_over

    async def drain(self, *, timeout_s: float | None = None) -> list[Piece]:
        """Return all tokens that have come, waiting for the first of them.

        The list is empty when the stream is over, or `timeout_s` has passed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self.tokens.drain()
        except TimeoutError:
            return []

    def finish(self, end: End) -> None:
        """Put the end behind the tokens, unless there is one."""
        if self.end is None:
            self.end = end
            self.tokens.end()

    def finished(self) -> FinishedGeneration:
        """Return what quotas and the prediction log need to know."""
        first_token_s = self.first_token_s and self.first_token_s - self._started_s
        cut = NotReadyError("The service is shutting down.") if self.was_shut_down else None
        return FinishedGeneration(
            model=self.model,
            version=self._version,
            end=self.end or cut,
            tokens=self.token_count,
            seconds=time.monotonic() - self._started_s,
            first_token_s=first_token_s,
        )

    def account(self) -> None:
        """Count and log a generation that is over, or that its client has left."""
        end, metrics, slot = self.end, self._metrics, self._slot
        outcome = _outcome(end, was_shut_down=self.was_shut_down)
        metrics.ended(outcome)
        if outcome == CLIENT_LEFT:
            metrics.cancelled("engine")
        usage = end.usage if isinstance(end, Generation) else None
        metrics.spent(
            # The prompt's length is known only of a generation that is complete.
            prompt=usage.prompt_tokens if usage else 0,
            completion=usage.completion_tokens if usage else self.token_count,
            cached=usage.cached_tokens if usage else 0,
            seconds=slot.progress_s - (self.first_token_s or slot.progress_s),
        )
        if self.trace is not None:
            self.trace.end(self.finished(), outcome)
        extra = {
            "model": self.model,
            "end": outcome,
            "duration_ms": round((time.monotonic() - slot.started_s) * 1000, 2),
            "prompt_tokens": usage.prompt_tokens if usage else None,
            "completion_tokens": usage.completion_tokens if usage else None,
        }
        log.info("generation_done", extra={k: v for k, v in extra.items() if v is not None})

    def _note_token(self) -> None:
        """Measure; called for each token when it comes."""
        now_s = time.monotonic()
        self.token_count += 1
        if self.first_token_s is None:
            self.first_token_s = now_s
            exemplar = None if self.trace is None else self.trace.exemplar
            self._metrics.first_token(now_s - self._started_s, exemplar)
        else:
            self._metrics.next_token(now_s - self._slot.progress_s)
        self._slot.progress_s = now_s


def _outcome(end: End | None, *, was_shut_down: bool) -> str:
    """Return in one word how a generation ended; the words are a metric's label."""
    if end is None:
        return "shutdown" if was_shut_down else CLIENT_LEFT
    if isinstance(end, Generation):
        return end.finish_reason if end.finish_reason in REASONS else "other"
    names = {DeadlineExceededError: "deadline", ReaderTooSlowError: "reader_too_slow"}
    return names.get(type(end), "failed")
