"""Chat: one stream of tokens from a leased model's chain, whatever dialect it leaves in."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.batching.deadline import Deadline
from app.batching.generations import Generations, Place
from app.core.backoff import Backoff
from app.engines.base import Task
from app.engines.chat_base import Generation, GenerationOptions, Message
from app.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    InternalError,
    NotReadyError,
    ReaderTooSlowError,
    ServiceError,
    UpstreamFailedError,
)
from app.models.registry import Lease, ModelRegistry, TaskKey

if TYPE_CHECKING:
    from app.engines.chain import TokenQueue

log = logging.getLogger(__name__)

# A generation that has said nothing may be begun so often, if its failure was a passing one.
ATTEMPTS = 3
BACKOFF = Backoff(first_s=0.2, max_s=1.0)
# A cancelled generation mostly lets go of its thread or connection at once; who leaves before it
# does leaves the rest to its task.
LET_GO_TIMEOUT_S = 1.0
SERVER_ERROR = 500
CLIENT_LEFT = "client_left"
CHAT_MODELS = TaskKey[Generations](Task.CHAT)

# The end of a stream: well, or with an error that the caller is told.
End = Generation | ServiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A generation that is over, for those who keep accounts."""

    model: str
    version: str | None  # of the model's files; None: it never began
    end: End | None  # None: its client left
    tokens: int  # of the answer, that came
    seconds: float
    first_token_s: float | None  # from the request to the first token


OnEnd = Callable[[Ended], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What a caller asks of a chat model; `on_end` is told how it ended, and must not block."""

    messages: Sequence[Message]
    model_name: str | None = None
    options: GenerationOptions = field(default_factory=GenerationOptions)
    on_end: OnEnd | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer, and whose it is."""

    model: str
    generation: Generation


class Stream:
    """The tokens of one generation as they come, and its end."""

    def __init__(
        self,
        lease: Lease[Generations],
        place: Place,
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
        self.is_left = False  # nobody reads it any more
        self.was_shut_down = False  # by the server; else it is the client who leaves
        self._metrics = generations.metrics
        self._place = place
        self._started_s = started_s
        self.tokens: TokenQueue = generations.chain.queue(bound=bound, on_token=self._note_token)

    @property
    def is_over(self) -> bool:
        """Whether everything has been read; `end` says how it ended."""
        return self.tokens.is_over

    async def drain(self, *, timeout_s: float | None = None) -> list[str]:
        """Return all tokens that have come, waiting for the first of them.

        Nothing comes when the stream is over, or `timeout_s` has passed.
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

    def ended(self) -> Ended:
        """Return what is to be said of this generation."""
        first_token_s = self.first_token_s and self.first_token_s - self._started_s
        cut = NotReadyError("The service is shutting down.") if self.was_shut_down else None
        return Ended(
            model=self.model,
            version=self._version,
            end=self.end or cut,
            tokens=self.token_count,
            seconds=time.monotonic() - self._started_s,
            first_token_s=first_token_s,
        )

    def _note_token(self) -> None:
        """Measure; called for each token when it comes."""
        now_s = time.monotonic()
        self.token_count += 1
        if self.first_token_s is None:
            self.first_token_s = now_s
            self._metrics.first_token(now_s - self._started_s)
        else:
            self._metrics.next_token(now_s - self._place.progress_s)
        self._place.progress_s = now_s


class ChatService:
    """Answers `/chat`, `/chat/stream` and `/v1/chat/completions`.

    Args:
        registry: lends the models.
        buffer_tokens: tokens that may wait for a client that reads slowly.

    """

    def __init__(self, registry: ModelRegistry, *, buffer_tokens: int) -> None:
        self._registry = registry
        self._buffer_tokens = buffer_tokens

    async def answer(self, asked: Conversation, *, deadline: Deadline) -> Answer:
        """Return the whole answer.

        Raises:
            ServiceError: as `open` and the end of its stream say.

        """
        async with self.open(asked, deadline=deadline) as stream:
            while not stream.is_over:
                await stream.drain()
        if isinstance(stream.end, Generation):
            return Answer(model=stream.model, generation=stream.end)
        assert stream.end is not None  # noqa: S101  # it is over
        raise stream.end

    @asynccontextmanager
    async def open(self, asked: Conversation, *, deadline: Deadline) -> AsyncIterator[Stream]:
        """Begin a generation; leaving the block stops it.

        Raises:
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError: as the registry says.
            OptionsRefusedError: the engine can't do what it asks.
            OverloadedError, DeadlineExceededError, NotReadyError: there is no place for it.

        """
        started_s = time.monotonic()
        try:
            stream, task, generations, place = await self._begin(asked, deadline, started_s)
        except ServiceError as error:
            if asked.on_end is not None:
                asked.on_end(_refused(asked, error, time.monotonic() - started_s))
            raise
        loop = asyncio.get_running_loop()
        clock = loop.call_later(deadline.remaining_s, _expire, stream, task)
        try:
            yield stream
        except asyncio.CancelledError as cancelled:
            stream.was_shut_down = any("shutdown" in str(arg) for arg in cancelled.args)
            raise
        finally:
            clock.cancel()
            stream.is_left = True
            try:
                await _let_go(task)
            finally:
                _account(generations, stream, place)
                if asked.on_end is not None:
                    asked.on_end(stream.ended())

    async def _begin(
        self, asked: Conversation, deadline: Deadline, started_s: float
    ) -> tuple[Stream, asyncio.Task[None], Generations, Place]:
        """Borrow the model, take a place, start the generation; it holds both until it ends."""
        with ExitStack() as held:
            lease = held.enter_context(self._registry.lease(asked.model_name, CHAT_MODELS))
            generations = lease.model
            generations.engine.check(asked.options)
            place = await generations.enter(deadline)
            held.callback(generations.leave, place)
            stream = Stream(lease, place, started_s=started_s, bound=self._buffer_tokens)
            task = generations.start(_generate(generations, asked, stream), held.pop_all())
        return stream, task, generations, place


def _refused(asked: Conversation, error: ServiceError, seconds: float) -> Ended:
    """Return what is to be said of a generation that never began."""
    return Ended(
        model=asked.model_name or "",
        version=None,
        end=error,
        tokens=0,
        seconds=seconds,
        first_token_s=None,
    )


async def _generate(generations: Generations, asked: Conversation, stream: Stream) -> None:
    """Run the chain to its end, whatever that is.

    While this runs the model and the place are taken: a thread that doesn't end when its client
    has left keeps both, and `/health` sees its silence.
    """
    end: End = InternalError()
    try:
        end = await _attempt(generations, asked, stream)
    except Exception as failure:  # noqa: BLE001  # the boundary to LangChain, and who is behind
        end = _explain(generations, failure, stream.model)
    finally:
        if not stream.is_left:
            stream.finish(end)


async def _let_go(task: asyncio.Task[None]) -> None:
    """Cancel a generation, once: a second time would interrupt its wait for its thread."""
    if not task.done() and not task.cancelling():
        task.cancel()
    await asyncio.wait({task}, timeout=LET_GO_TIMEOUT_S)


def _expire(stream: Stream, task: asyncio.Task[None]) -> None:
    """Tell the reader that the time is up; the generation need not have ended yet."""
    stream.finish(DeadlineExceededError())
    task.cancel()


def _explain(generations: Generations, failure: Exception, model: str) -> ServiceError:
    """Return what the caller is told; log what is nobody's wish."""
    error = generations.engine.explain(failure).error
    if error.status >= SERVER_ERROR:
        # What has a name of its own needs no traceback, and comes in floods.
        is_known = not isinstance(error, InferenceFailedError | UpstreamFailedError)
        extra = {"model": model, "code": error.code, "cause": type(failure).__name__}
        log.warning("generation_failed", exc_info=None if is_known else failure, extra=extra)
    return error


async def _attempt(generations: Generations, asked: Conversation, stream: Stream) -> Generation:
    """Run the chain; again after a passing failure, unless the caller has heard of this one."""
    for attempt in range(1, ATTEMPTS):
        try:
            return await generations.chain.run(asked.messages, asked.options, tokens=stream.tokens)
        except Exception as failure:
            is_transient = generations.engine.explain(failure).is_transient
            if stream.first_token_s is not None or not is_transient:
                raise
            log.info("generation_retried", extra={"model": stream.model, "attempt": attempt})
            await asyncio.sleep(BACKOFF.pause_s(attempt))
    return await generations.chain.run(asked.messages, asked.options, tokens=stream.tokens)


def _account(generations: Generations, stream: Stream, place: Place) -> None:
    """Count and log a generation that is over, or that its client has left."""
    end, metrics = stream.end, generations.metrics
    said = _name(end, was_shut_down=stream.was_shut_down)
    metrics.ended(said)
    if said == CLIENT_LEFT:
        metrics.cancelled("engine")
    usage = end.usage if isinstance(end, Generation) else None
    metrics.spent(
        # Of one that ended otherwise nobody says how long its prompt was.
        prompt=usage.prompt_tokens if usage else 0,
        completion=usage.completion_tokens if usage else stream.token_count,
        cached=usage.cached_tokens if usage else 0,
        seconds=place.progress_s - (stream.first_token_s or place.progress_s),
    )
    extra = {
        "model": stream.model,
        "end": said,
        "duration_ms": round((time.monotonic() - place.started_s) * 1000, 2),
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
    }
    log.info("generation_done", extra={k: v for k, v in extra.items() if v is not None})


def _name(end: End | None, *, was_shut_down: bool) -> str:
    """Say in one word how a generation ended; the words are a metric's label."""
    if end is None:
        return "shutdown" if was_shut_down else CLIENT_LEFT
    if isinstance(end, Generation):
        return end.finish_reason if end.finish_reason in {"stop", "length"} else "other"
    named = {DeadlineExceededError: "deadline", ReaderTooSlowError: "reader_too_slow"}
    return named.get(type(end), "failed")
