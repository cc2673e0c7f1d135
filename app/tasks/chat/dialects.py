"""The formats of a stream of tokens: NDJSON, server-sent events, OpenAI's chunks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from pydantic_core import to_json

from app.engines.chat_base import Generation
from app.engines.thoughts import Thought
from app.engines.token_scores import scores_of
from app.engines.tool_calls import Piece, ToolCallPiece
from app.errors import ServiceError
from app.http.error_bodies import openai_error, problem
from app.tasks.chat.openai_answers import CompletionUsage, PromptTokensDetails
from app.tasks.chat.schemas import ChatUsage


class Dialect(Protocol):
    """Writes the events of a stream as whole lines."""

    media_type: str

    def begin(self, model: str, pieces: Sequence[Piece]) -> bytes:
        """Return what comes before the first pieces of the answer, which are these."""
        ...

    def pieces(self, pieces: Iterable[Piece]) -> bytes:
        """Return the lines of some pieces of the answer."""
        ...

    def heartbeat(self) -> bytes:
        """Return a sign that the stream still runs."""
        ...

    async def keep(self, generation: Generation) -> None:
        """Keep what a client can go on from; awaited before the last lines are written."""
        del generation  # most keep nothing

    def finish(self, generation: Generation) -> bytes:
        """Return the last lines of a stream that ended well."""
        ...

    def fail(self, error: ServiceError) -> bytes:
        """Return the last lines of a stream that ended with an error."""
        ...


def usage_of(generation: Generation) -> dict[str, Any] | None:
    """Return a generation's usage by OpenAI's names, which are ours too."""
    usage = generation.usage
    if usage is None:
        return None
    return ChatUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    ).model_dump()


def openai_usage(*generations: Generation) -> CompletionUsage | None:
    """Return the usage of generations, with the tokens that came from the prefix cache."""
    usages = [generation.usage for generation in generations if generation.usage is not None]
    if len(usages) < len(generations):
        return None
    cached = sum(usage.cached_tokens for usage in usages)
    return CompletionUsage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        total_tokens=sum(usage.total_tokens for usage in usages),
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
    )


def logprobs_of(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return scores of tokens as OpenAI has them; None where there are none."""
    return {"content": [*scores], "refusal": None} if scores else None


class NdjsonDialect(Dialect):
    """One object a line, each with a `token`; the last has `done`."""

    media_type = "application/x-ndjson"
    before, after = b"", b"\n"

    def __init__(self, *, path: str, request_id: str) -> None:
        self._path = path
        self._request_id = request_id

    def begin(self, model: str, pieces: Sequence[Piece]) -> bytes:  # noqa: ARG002  # as the protocol has it
        """Return nothing."""
        return b""

    def pieces(self, pieces: Iterable[Piece]) -> bytes:
        """Return a line for each token; who can't ask for tools gets no calls."""
        return b"".join(self._line({"token": text}) for text in pieces if isinstance(text, str))

    def heartbeat(self) -> bytes:
        """Return a line with an empty token: some clients can't parse an empty line as JSON."""
        return self._line({"token": ""})

    def finish(self, generation: Generation) -> bytes:
        """Return the line with reason and usage."""
        return self._last(finish_reason=generation.finish_reason, usage=usage_of(generation))

    def fail(self, error: ServiceError) -> bytes:
        """Return the line with the problem."""
        return self._last(error=problem(error, path=self._path, request_id=self._request_id))

    def _last(self, **fields: object) -> bytes:
        return self._line({"token": "", "done": True, **fields})

    def _line(self, content: dict[str, Any]) -> bytes:
        return self.before + _json(content) + self.after


class SseDialect(NdjsonDialect):
    """The same objects as server-sent events."""

    media_type = "text/event-stream"
    before, after = b"data: ", b"\n\n"

    def heartbeat(self) -> bytes:
        """Return a comment, which clients ignore."""
        return b": alive\n\n"


class OpenAiDialect(Dialect):
    """OpenAI's chunks; `[DONE]` at the end, also after an error.

    Args:
        chat_id: of the completion.
        created_s: in seconds since 1970.
        has_usage: whether a last chunk has the number of tokens (`stream_options.include_usage`).
        index: of the answer among those to the same request.

    """

    media_type = "text/event-stream"
    kind = "chat.completion.chunk"
    path = "/v1/chat/completions"

    def __init__(self, *, chat_id: str, created_s: int, has_usage: bool, index: int = 0) -> None:
        self._index = index
        self._head: dict[str, Any] = {
            "id": chat_id,
            "object": self.kind,
            "created": created_s,
            "system_fingerprint": None,
        }
        self._has_usage = has_usage

    def begin(self, model: str, pieces: Sequence[Piece]) -> bytes:
        """Return the chunk that names the role; its content is null before calls of tools."""
        self._head["model"] = model
        is_call = bool(pieces) and isinstance(pieces[0], ToolCallPiece)
        return self._chunk({"role": "assistant", "content": None if is_call else ""})

    def pieces(self, pieces: Iterable[Piece]) -> bytes:
        """Return a chunk for each token, and for each piece of a call."""
        return b"".join(
            self._chunk(_delta(piece), logprobs=logprobs_of(scores_of(piece))) for piece in pieces
        )

    def heartbeat(self) -> bytes:
        """Return a comment, which clients ignore."""
        return b": alive\n\n"

    def finish(self, generation: Generation) -> bytes:
        """Return the chunk with the reason, and one with the usage if it was requested."""
        return self.end(generation) + self.total([generation])

    def end(self, generation: Generation) -> bytes:
        """Return the chunk with the reason."""
        return self._chunk({}, finish_reason=generation.finish_reason)

    def total(self, generations: Sequence[Generation]) -> bytes:
        """Return the usage of all answers if it was requested, and the end's mark."""
        lines = b""
        if self._has_usage:
            lines = event({**self._head, "choices": [], "usage": openai_usage(*generations)})
        return lines + b"data: [DONE]\n\n"

    def fail(self, error: ServiceError) -> bytes:
        """Return the error in OpenAI's shape; its clients raise it."""
        return event(openai_error(error, path=self.path)) + b"data: [DONE]\n\n"

    def _chunk(
        self,
        delta: dict[str, Any],
        *,
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {
            "index": self._index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        usage = {"usage": None} if self._has_usage else {}
        return event({**self._head, "choices": [choice], **usage})


def _delta(piece: Piece) -> dict[str, Any]:
    if isinstance(piece, Thought):
        return {"reasoning_content": piece.text}
    return {"content": piece} if isinstance(piece, str) else {"tool_calls": [piece.as_openai()]}


def event(content: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + _json(content) + b"\n\n"


def _json(content: dict[str, Any]) -> bytes:
    """Return JSON in ASCII.

    Some clients, httpx's `iter_lines` among them, end a line at U+0085 and U+2028; some decode each
    chunk alone, and a chunk may end within a character.
    """
    return to_json(content, ensure_ascii=True)
