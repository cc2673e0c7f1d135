"""Chat: the one stream of tokens from a leased model's chain, for each dialect."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from app.batching.deadline import Deadline
from app.batching.generations import Generations
from app.core.backoff import Backoff
from app.core.ending import is_shutdown
from app.core.tracing import enter
from app.engines.base import Task
from app.engines.chat_base import ChatEngine, Generation, GenerationOptions, Message
from app.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    InternalError,
    ServiceError,
    UpstreamFailedError,
)
from app.models.registry import ModelRegistry, TaskKey
from app.services.model_trace import begin_chat
from app.services.token_stream import End, FinishedGeneration, OnEnd, Stream

log = logging.getLogger(__name__)

# How often a generation is started in all, when it failed for a passing reason before any token.
ATTEMPTS = 3
BACKOFF = Backoff(first_s=0.2, max_s=1.0)
# A cancelled generation mostly releases its thread or connection at once; if it takes longer, the
# request ends without waiting for it.
CANCEL_TIMEOUT_S = 1.0
SERVER_ERROR = 500
CHAT_MODELS = TaskKey[Generations](Task.CHAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A request to a chat model; `on_end` is called with its end, and must not block."""

    messages: Sequence[Message]
    model_name: str | None = None
    options: GenerationOptions = field(default_factory=GenerationOptions)
    on_end: OnEnd | None = None

    def refuse(self, error: ServiceError | None, *, seconds: float = 0.0) -> None:
        """Note that it never started, so that it costs nothing; None: its client left."""
        if self.on_end is None:
            return
        self.on_end(
            FinishedGeneration(
                model=self.model_name or "",
                version=None,
                end=error,
                tokens=0,
                seconds=seconds,
                first_token_s=None,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer, and the model that gave it."""

    model: str
    generation: Generation


class ChatService:
    """Answers `/chat`, `/chat/stream`, `/v1/chat/completions` and `/v1/completions`.

    Args:
        registry: lends the models.
        buffer_tokens: tokens that may wait for a client that reads slowly.

    """

    def __init__(self, registry: ModelRegistry, *, buffer_tokens: int) -> None:
        self._registry = registry
        self._buffer_tokens = buffer_tokens

    async def answer(self, conversation: Conversation, *, deadline: Deadline) -> Answer:
        """Return the whole answer.

        Raises:
            ServiceError: as `open` and the end of its stream say.

        """
        async with self.open(conversation, deadline=deadline) as stream:
            while not stream.is_over:
                await stream.drain()
        if isinstance(stream.end, Generation):
            return Answer(model=stream.model, generation=stream.end)
        assert stream.end is not None  # noqa: S101  # it is over
        raise stream.end

    @asynccontextmanager
    async def open(
        self, conversation: Conversation, *, deadline: Deadline
    ) -> AsyncIterator[Stream]:
        """Start a generation; leaving the block stops it.

        Raises:
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError: as the registry says.
            OptionsRefusedError: the engine doesn't support one of the options.
            OverloadedError, DeadlineExceededError, NotReadyError: there is no slot for it.

        """
        started_s = time.monotonic()
        on_end = conversation.on_end
        try:
            stream, task = await self._start(conversation, deadline, started_s)
        except ServiceError as error:
            conversation.refuse(error, seconds=time.monotonic() - started_s)
            raise
        loop = asyncio.get_running_loop()
        timer = loop.call_later(deadline.remaining_s, _expire, stream, task)
        try:
            yield stream
        except asyncio.CancelledError as cancelled:
            stream.was_shut_down = is_shutdown(cancelled)
            raise
        finally:
            timer.cancel()
            stream.is_left = True
            try:
                await _cancel(task)
            finally:
                stream.account()
                if on_end is not None:
                    on_end(stream.finished())

    async def _start(
        self, conversation: Conversation, deadline: Deadline, started_s: float
    ) -> tuple[Stream, asyncio.Task[None]]:
        """Lease the model, take a slot, start the generation; it holds both until it ends."""
        await self._registry.wake(conversation.model_name, CHAT_MODELS, until_s=deadline.at_s)
        with ExitStack() as held:
            lease = held.enter_context(self._registry.lease(conversation.model_name, CHAT_MODELS))
            generations = lease.model
            await _check(generations.engine, conversation.options)
            slot = await generations.acquire(deadline)
            held.callback(generations.release, slot)
            stream = Stream(lease, slot, started_s=started_s, bound=self._buffer_tokens)
            stream.trace = begin_chat(
                lease.spec, conversation.options, slot=slot, started_s=started_s
            )
            generation = _generate(generations, conversation, stream)
            task = generations.start(generation, held.pop_all())
        return stream, task


async def _check(engine: ChatEngine, options: GenerationOptions) -> None:
    """Refuse options that the engine doesn't support; raises as `ChatEngine.check`.

    Schemas are read in a thread: those of many tools take a quarter of a second.
    """
    if options.tools or options.response_format is not None:
        await asyncio.to_thread(engine.check, options)
    else:
        engine.check(options)


async def _generate(generations: Generations, conversation: Conversation, stream: Stream) -> None:
    """Run the chain to its end, and put that into the stream.

    Meanwhile the model and the slot are taken: a thread that doesn't end when its client has left
    keeps both, and `/health` reports how long no token has come.
    """
    end: End = InternalError()
    if stream.trace is not None:
        enter(stream.trace.trace)
    try:
        end = await _attempt(generations, conversation, stream)
    except Exception as failure:  # noqa: BLE001  # the boundary to LangChain and its providers
        end = _explain(generations, failure, stream.model)
    finally:
        if not stream.is_left:
            stream.finish(end)


async def _attempt(
    generations: Generations, conversation: Conversation, stream: Stream
) -> Generation:
    """Run the chain; again after a passing failure, as long as no token has come."""
    messages, options = conversation.messages, conversation.options
    for attempt in range(1, ATTEMPTS):
        try:
            return await generations.chain.run(messages, options, tokens=stream.tokens)
        except Exception as failure:
            is_transient = generations.engine.explain(failure).is_transient
            if stream.first_token_s is not None or not is_transient:
                raise
            log.info("generation_retried", extra={"model": stream.model, "attempt": attempt})
            await asyncio.sleep(BACKOFF.pause_s(attempt))
    return await generations.chain.run(messages, options, tokens=stream.tokens)


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a generation, once: a second time would interrupt its wait for its thread."""
    if not task.done() and not task.cancelling():
        task.cancel()
    await asyncio.wait({task}, timeout=CANCEL_TIMEOUT_S)


def _expire(stream: Stream, task: asyncio.Task[None]) -> None:
    """Tell the reader that the time is up; the generation need not have ended yet."""
    stream.finish(DeadlineExceededError())
    task.cancel()


def _explain(generations: Generations, failure: Exception, model: str) -> ServiceError:
    """Return the error that the caller gets; log it when it isn't the caller's own fault."""
    error = generations.engine.explain(failure).error
    if error.status >= SERVER_ERROR:
        # An error with a code of its own needs no traceback, and there may be thousands of them.
        is_known = not isinstance(error, InferenceFailedError | UpstreamFailedError)
        extra = {"model": model, "code": error.code, "cause": type(failure).__name__}
        log.warning("generation_failed", exc_info=None if is_known else failure, extra=extra)
    return error
