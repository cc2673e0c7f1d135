"""The chain of a chat model, `prompt | chat model`, and the callback that queues its tokens.

Imports LangChain, so it is imported when a chat model is loaded, and not before.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable

from app.engines.chat_base import ChatEngine, Generation, GenerationOptions, Message, Usage
from app.engines.chat_messages import calls_of, pieces_of, to_langchain
from app.engines.thoughts import Thought, thought_in
from app.engines.token_scores import ScoredText, scores_of
from app.engines.tool_calls import Piece, ToolCall, ToolCallJoiner, ToolCallPiece
from app.errors import ReaderTooSlowError, UpstreamFailedError, UpstreamUnreachableError

# Where providers say why an answer has ended: OpenAI and most, Anthropic, Ollama, Bedrock.
REASON_FIELDS = ("finish_reason", "stop_reason", "done_reason", "stopReason")
# How their reasons begin, and OpenAI's for them. Only the beginning counts: LangChain joins what a
# server sends twice ("stopstop").
REASONS = {
    "stop": "stop",
    "end_turn": "stop",
    "complete": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool": "tool_calls",  # OpenAI's "tool_calls", Anthropic's and Bedrock's "tool_use"
}
# First halves of characters beyond 16 bits, in UTF-16.
HIGH_SURROGATES = frozenset(map(chr, range(0xD800, 0xDC00)))
THINKING = -1  # in the place of a call's number
PROMPT = ChatPromptTemplate([MessagesPlaceholder("system"), MessagesPlaceholder("messages")])


class TokenQueue(AsyncCallbackHandler):
    """Puts the tokens of one run on a bounded queue, and after them its end.

    Args:
        bound: tokens that may wait for their reader.
        on_token: called on the loop for each token, when it comes.

    """

    run_inline = True  # in the order in which they come
    raise_error = True  # a reader that is too slow ends the run

    def __init__(self, *, bound: int, on_token: Callable[[], None]) -> None:
        self._bound = bound
        self._on_token = on_token
        # With room for the end: putting it never waits and never fails.
        self._queue: asyncio.Queue[Piece | None] = asyncio.Queue(bound + 1)
        self.is_over = False  # and all was read
        # Of characters whose other half is still to come: of the text, of each call, of thoughts.
        self._halves: dict[int | None, str] = {}
        self._scores: list[Mapping[str, Any]] = []
        self._thoughts: list[str] = []
        self._calls = ToolCallJoiner()
        self._last_call: ToolCallPiece | None = None

    @property
    def scores(self) -> tuple[Mapping[str, Any], ...]:
        """The scores of the tokens that came, where they were asked for."""
        return tuple(self._scores)

    @property
    def thoughts(self) -> str:
        """What the model thought before its answer, where its engine tells it."""
        return "".join(self._thoughts)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of tools that came, joined."""
        return self._calls.calls

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        **kwargs: Any,  # noqa: ANN401  # LangChain's signature
    ) -> None:
        """Do nothing: without this method LangChain turns the messages into strings."""

    async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Queue a token, and pieces of calls and thoughts: ours by name, LangChain's in `chunk`.

        Raises:
            ReaderTooSlowError: the queue is full.

        """
        thought = self._whole(THINKING, kwargs.get("thought") or _thought_of(kwargs.get("chunk")))
        if thought:
            self._thoughts.append(thought)
            await self._put(Thought(thought))
        scores = scores_of(token) or _scores_of(kwargs.get("chunk"))
        self._scores += scores
        text = self._whole(None, token if isinstance(token, str) else _text_of(token))
        if text:
            await self._put(ScoredText.of(text, scores))
        own = kwargs.get("tool_call")
        for piece in pieces_of(kwargs.get("chunk"), self._last_call) if own is None else (own,):
            self._last_call = piece
            whole = replace(piece, arguments=self._whole(piece.index, piece.arguments))
            if whole.arguments or whole.id or whole.name:
                self._calls.add(whole)
                await self._put(whole)

    async def _put(self, piece: Piece) -> None:
        if self._queue.qsize() >= self._bound:
            await asyncio.sleep(0)  # the reader gets a turn after tokens that came at once
        if self._queue.qsize() >= self._bound:
            raise ReaderTooSlowError
        self._on_token()
        self._queue.put_nowait(piece)

    def _whole(self, index: int | None, text: str) -> str:
        """Return whole characters of a text that comes in pieces; keep a half for the next."""
        text = self._halves.pop(index, "") + text
        half = text[-1:] if text[-1:] in HIGH_SURROGATES else ""
        if half:
            self._halves[index] = half
        return _clean(text.removesuffix(half))

    def end(self) -> None:
        """Queue the end after the tokens; call it in a `finally`."""
        self._queue.put_nowait(None)

    async def drain(self) -> list[Piece]:
        """Return what has come, waiting for the first of it; empty at the end."""
        tokens = [] if self.is_over else [await self._queue.get()]
        while not self._queue.empty():
            tokens.append(self._queue.get_nowait())
        self.is_over = self.is_over or None in tokens
        return [token for token in tokens if token is not None]


class ChatChain:
    """Runs conversations through `prompt | chat model`.

    Args:
        engine: whose chat model it is.
        system_prompt: for conversations that bring none.
        temperature: for requests that bring none; None leaves it to the engine.

    """

    def __init__(
        self, engine: ChatEngine, *, system_prompt: str | None, temperature: float | None = None
    ) -> None:
        self._engine = engine
        self._temperature = temperature
        self._system = [Message(role="system", content=system_prompt)] if system_prompt else []

    def queue(self, *, bound: int, on_token: Callable[[], None]) -> TokenQueue:
        """Return a queue for the tokens of one run."""
        return TokenQueue(bound=bound, on_token=on_token)

    def runnable(
        self,
        callbacks: Sequence[BaseCallbackHandler],
        options: GenerationOptions,
        messages: Sequence[Message] = (),
    ) -> Runnable[dict[str, Any], AIMessage]:
        """Return `prompt | chat model` with callbacks; takes `system` and `messages`."""
        if options.temperature is None:
            options = replace(options, temperature=self._temperature)
        arguments = self._engine.arguments(options, messages)
        own = getattr(self._engine, "text_model", None) if options.is_raw else None
        chain = PROMPT | (own or self._engine.chat_model).bind(**arguments)
        return chain.with_config(callbacks=list(callbacks))

    async def run(
        self, messages: Sequence[Message], options: GenerationOptions, *, tokens: TokenQueue
    ) -> Generation:
        """Run one conversation; its tokens go on the queue, its end doesn't.

        Raises:
            Exception: whatever the chat model raises; `ChatEngine.explain` knows what it means.

        """
        has_system = options.is_raw or any(message.role == "system" for message in messages)
        system = [] if has_system else self._system
        variables = {
            "system": [to_langchain(message) for message in system],
            "messages": [to_langchain(message) for message in messages],
        }
        runnable = self.runnable([tokens], options, [*system, *messages])
        generation = _generation(await runnable.ainvoke(variables), tokens.calls)
        return replace(generation, scores=tokens.scores, thoughts=tokens.thoughts)


def _generation(message: AIMessage, streamed: Sequence[ToolCall]) -> Generation:
    """Convert LangChain's answer to ours; arguments of calls are as they were streamed."""
    counts = message.usage_metadata
    usage = counts and Usage(
        prompt_tokens=counts["input_tokens"],
        completion_tokens=counts["output_tokens"],
        cached_tokens=counts.get("input_token_details", {}).get("cache_read") or 0,
        cache_write_tokens=counts.get("input_token_details", {}).get("cache_creation") or 0,
        reasoning_tokens=counts.get("output_token_details", {}).get("reasoning") or 0,
    )
    reason = _finish_reason(message.response_metadata)
    if reason is None:
        raise UpstreamUnreachableError  # the stream was cut where a line had ended
    calls = tuple(streamed) or calls_of(message)
    if reason == "tool_calls" and not calls:
        raise UpstreamFailedError  # in a form that LangChain doesn't know
    return Generation(
        text=_clean(message.text), finish_reason=reason, usage=usage, tool_calls=calls
    )


def _finish_reason(metadata: Mapping[str, Any]) -> str | None:
    """Return why an answer has ended, as OpenAI's reason where there is one for it."""
    reason = next((str(metadata[name]) for name in REASON_FIELDS if metadata.get(name)), None)
    if reason is None:
        return None
    translations = (ours for start, ours in REASONS.items() if reason.lower().startswith(start))
    return next(translations, reason)


def _clean(text: str) -> str:
    """Join surrogate halves, which some servers send and JSON can't hold; replace single ones."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _scores_of(chunk: Any) -> Sequence[Mapping[str, Any]]:  # noqa: ANN401  # LangChain's
    """Return the scores of tokens in a chunk that a chat model streams."""
    logprobs = (getattr(chunk, "generation_info", None) or {}).get("logprobs") or {}
    return logprobs.get("content") or ()


def _thought_of(chunk: Any) -> str:  # noqa: ANN401  # LangChain's
    """Return what a chunk that a chat model streams has of thoughts."""
    return thought_in(getattr(getattr(chunk, "message", None), "additional_kwargs", {}))


def _text_of(content: Sequence[Any]) -> str:
    """Return the text of a message's content that is made of blocks."""
    blocks = (part if isinstance(part, str) else part.get("text") for part in content)
    return "".join(block for block in blocks if block)
