"""Generators of this process as LangChain chat models: a thread for each generation.

Imports LangChain, so it is imported when a chat model is loaded, and not before.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import Any, Protocol

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from app.engines.chat_base import ChatFailure, Generation, GenerationOptions, Generator, Message
from app.engines.chat_messages import from_langchain
from app.engines.thoughts import Thought
from app.engines.tool_calls import Piece
from app.errors import InferenceFailedError, ServiceError


class LocalChat:
    """A generator of this process as a `ChatEngine`; closed with it.

    Args:
        generator: called in a thread for each generation.
        name: of the model, for its threads.

    """

    def __init__(self, generator: Generator, *, name: str) -> None:
        self.kind = generator.kind
        self.device = generator.device
        self.generator = generator
        self.chat_model: BaseChatModel = GeneratorChatModel(
            generator=generator, thread_name=f"generate-{name}"
        )

    def check(self, options: GenerationOptions) -> None:
        """Check that the generator supports these options."""
        options.refuse_foreign()
        self.generator.check(options)

    def arguments(
        self,
        options: GenerationOptions,
        messages: Sequence[Message],  # noqa: ARG002  # LangChain's say all that is needed
    ) -> dict[str, Any]:
        """Return options by the names that `GeneratorChatModel` knows them by."""
        return options.as_openai()

    def explain(self, failure: Exception) -> ChatFailure:
        """Keep our own errors; anything else is the engine's failure."""
        if isinstance(failure, ServiceError):
            return ChatFailure(error=failure)
        return ChatFailure(error=InferenceFailedError())

    def close(self) -> None:
        """Free the model; none of its threads may be running."""
        self.generator.close()


class Run(Protocol):
    """One generation, which has been started."""

    @property
    def generation(self) -> Generation:
        """What came out, once there are no more tokens; raises what it failed with."""
        ...

    def tokens(self) -> AsyncGenerator[Piece]:
        """Yield tokens until the end; closing the generator stops it."""
        ...


class StreamedChatModel(BaseChatModel):
    """LangChain's interface of what answers in pieces; it calls callbacks for each token."""

    cache: bool = False  # answers are never taken from LangChain's process-wide cache

    def start(self, messages: Sequence[Message], options: GenerationOptions) -> Run:
        """Start a generation; called on the event loop."""
        raise NotImplementedError

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ANN401  # LangChain's signature
    ) -> ChatResult:
        raise NotImplementedError("the service generates on its event loop")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ANN401  # LangChain's signature
    ) -> ChatResult:
        """Generate; when cancelled, the generation is stopped.

        One method instead of LangChain's `_astream`, which makes and merges a message object for
        every token.
        """
        run = self.start(_plain(messages), _options(stop, kwargs))
        async with aclosing(run.tokens()) as pieces:
            async for piece in pieces:
                if run_manager is not None:
                    token, more = _token(piece)
                    await run_manager.on_llm_new_token(token, **more)
        return _result(run.generation)


class GeneratorChatModel(StreamedChatModel):
    """A generator of this process, in a thread for each generation."""

    generator: Any
    thread_name: str

    @property
    def _llm_type(self) -> str:
        return str(self.generator.kind)

    def start(self, messages: Sequence[Message], options: GenerationOptions) -> Run:
        """Start a thread; when it is stopped, it ends with its next token."""
        generate = partial(self.generator.generate, messages, options)
        return _ThreadRun(generate, thread_name=self.thread_name)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ANN401  # LangChain's signature
    ) -> ChatResult:
        """Generate in the caller's thread."""

        def on_token(piece: Piece) -> bool:
            if piece and run_manager is not None:
                token, more = _token(piece)
                run_manager.on_llm_new_token(token, **more)
            return False

        options = _options(stop, kwargs)
        return _result(self.generator.generate(_plain(messages), options, on_token=on_token))


class _ThreadRun:
    """One generation in its thread, and its tokens on their way to the event loop."""

    def __init__(self, generate: Callable[..., Generation], *, thread_name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[Piece] = deque()
        self._changed = asyncio.Event()
        self._is_abandoned = False
        result: Future[Generation] = Future()
        self._ended = asyncio.wrap_future(result)
        self._ended.add_done_callback(self._note_end)
        # With the request's id, for what is logged in the thread.
        generate = partial(copy_context().run, generate, on_token=self._push)
        # Not from a pool: at its end the process would wait for a thread that is stuck.
        Thread(target=_fulfil, args=(result, generate), name=thread_name, daemon=True).start()

    @property
    def generation(self) -> Generation:
        """What came out, once there are no more tokens; raises what the generator raised."""
        return self._ended.result()

    async def tokens(self) -> AsyncGenerator[Piece]:
        """Yield tokens until the thread ends; closing the generator stops it."""
        try:
            while True:
                is_done = (
                    self._ended.done()
                )  # checked first: tokens from before the end are still read
                while self._arrived:
                    yield self._arrived.popleft()
                if is_done:
                    return
                await self._changed.wait()
                self._changed.clear()
        finally:
            self._is_abandoned = True
            await asyncio.wait({self._ended})  # with the next token, or piece of the prompt

    def _push(self, token: Piece) -> bool:
        """Hand a token to the loop; called in the engine's thread."""
        if token:
            self._arrived.append(token)
            try:
                self._loop.call_soon_threadsafe(self._changed.set)
            except RuntimeError:  # the loop is closed, and the reader gone with it
                return True
        return self._is_abandoned

    def _note_end(self, ended: asyncio.Future[Generation]) -> None:
        self._changed.set()
        ended.exception()  # else asyncio would log that nothing has read it


def _fulfil(result: Future[Generation], generate: Callable[[], Generation]) -> None:
    """Generate in this thread."""
    try:
        result.set_result(generate())
    except BaseException as failure:  # noqa: BLE001  # the waiter raises it
        result.set_exception(failure)


def _options(stop: Sequence[str] | None, arguments: dict[str, Any]) -> GenerationOptions:
    """Keep our options; LangChain passes others along."""
    options = {name: arguments[name] for name in GenerationOptions.__slots__ if name in arguments}
    return GenerationOptions(**{**options, "stop": tuple(stop or ())})


def _plain(messages: Sequence[BaseMessage]) -> list[Message]:
    """Convert LangChain's messages to ours."""
    return [from_langchain(message) for message in messages]


def _token(piece: Piece) -> tuple[str, dict[str, Any]]:
    """Return a piece as arguments of LangChain's callbacks, whose token is a text."""
    if isinstance(piece, Thought):
        return "", {"thought": piece.text}
    return (piece, {}) if isinstance(piece, str) else ("", {"tool_call": piece})


def _result(generation: Generation) -> ChatResult:
    """Convert a generation to LangChain's result."""
    usage = generation.usage and UsageMetadata(
        input_tokens=generation.usage.prompt_tokens,
        output_tokens=generation.usage.completion_tokens,
        total_tokens=generation.usage.total_tokens,
        input_token_details=InputTokenDetails(
            cache_read=generation.usage.cached_tokens,
            cache_creation=generation.usage.cache_write_tokens,
        ),
    )
    message = AIMessage(
        content=generation.text,
        usage_metadata=usage,
        response_metadata={"finish_reason": generation.finish_reason},
    )
    return ChatResult(generations=[ChatGeneration(message=message)])
