"""Generates with llama.cpp: sends messages and options, and joins the chunks of the answer.

xllamacpp runs llama.cpp's own server loop: continuous batching over slots, a prefix cache for each
slot, grammars for JSON schemas.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.engines.chat_base import Generation, GenerationOptions, Message, OnToken
from app.engines.first_token import FirstToken
from app.engines.llama_cpp.held_schemas import check_held, check_stop
from app.engines.llama_cpp.json_schema import check_cost
from app.engines.llama_cpp.native_tools import CONTEXT_EXCEEDED, as_openai, fields_of
from app.engines.llama_cpp.plain_schemas import plain
from app.engines.llama_cpp.sampling import as_completion, check_sampling
from app.engines.llama_cpp.token_probabilities import read_first_token
from app.engines.llama_cpp.tool_answers import ToolAnswers
from app.engines.llama_cpp.usage import usage_of
from app.engines.thoughts import Thought, thought_in
from app.engines.token_scores import ScoredText
from app.engines.token_scores import as_openai as as_openai_score
from app.engines.tool_calls import Piece, ToolCallJoiner, ToolCallPiece
from app.errors import ContextLengthExceededError, InferenceFailedError, OptionsRefusedError

BAD_REQUEST = "invalid_request_error"


class LlamaCppGenerator:
    """A GGUF model behind llama.cpp's server loop.

    Args:
        server: xllamacpp's `Server`.
        context_tokens: of one generation, prompt and answer.
        device: where it computes.
        knows_tools: whether the model's template has tools; else they are put into words.
        one_token_labels: as `FirstTokenReader` has them.

    """

    kind = "llama_cpp"

    def __init__(
        self,
        server: Any,
        *,
        context_tokens: int,
        device: str = "cpu",
        knows_tools: bool = False,
        one_token_labels: tuple[str, ...] = (),
    ) -> None:
        self._server = server
        self.device = device
        self.context_tokens = context_tokens
        self.one_token_labels = one_token_labels
        self._tools = ToolAnswers(
            self._generate, context_tokens=context_tokens, knows_tools=knows_tools
        )

    def check(self, options: GenerationOptions) -> None:
        """Check that llama.cpp can enforce the schema and the tools, and fast enough.

        Raises:
            OptionsRefusedError: it can't, or `stop` would cut the JSON.

        """
        check_stop(options.stop, options.response_format)
        check_cost(options.response_format)
        check_held(options.response_format)
        check_sampling(options)
        self._tools.check(options)

    def generate(
        self, messages: Sequence[Message], options: GenerationOptions, *, on_token: OnToken
    ) -> Generation:
        """Generate until the end, a bound of `options`, or until `on_token` returns True."""
        self.check(options)
        return self._tools.answer(messages, options, on_token)

    def _generate(
        self, messages: Sequence[Message], options: GenerationOptions, on_token: OnToken
    ) -> Generation:
        """Generate once, with tools only where the template knows them."""
        answer = _Answer(on_token, top=options.top_logprobs)
        body = {
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,  # to notice a client that leaves meanwhile
            **fields_of(options),
        }
        if options.response_format is not None:
            body["response_format"] = plain(options.response_format)
        if options.is_raw:
            body = as_completion(body, messages[-1].content)
            handle = self._server.handle_completions
        else:
            body["messages"] = [as_openai(message) for message in messages]
            handle = self._server.handle_chat_completions
        try:
            handle(body, answer.take)
        except (TypeError, ValueError) as refused:  # the first for numbers beyond 64 bits
            raise OptionsRefusedError from refused
        return answer.finish()

    def first_token(
        self, messages: Sequence[Message], *, is_left: Callable[[], bool]
    ) -> FirstToken:
        """Read a prompt, and say what would come first; raises as `read_first_token`."""
        return read_first_token(self._server, messages, is_left=is_left)

    def close(self) -> None:
        """Stop the server loop and free the model."""
        self._server = None


class _Answer:
    """The chunks of one generation, joined."""

    def __init__(self, on_token: OnToken, *, top: int | None = None) -> None:
        self._on_token = on_token
        self._top = top  # other tokens with each
        self._scores: list[Mapping[str, Any]] = []
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._calls = ToolCallJoiner()
        self._finish_reason: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._error: Mapping[str, Any] | None = None
        self._is_stopped = False

    def take(self, chunk: Mapping[str, Any]) -> bool:
        """Take one of OpenAI's chunks, or an error; return whether to stop."""
        if "error" in chunk:
            self._error = chunk["error"]
            return True
        self._usage = chunk.get("usage") or self._usage
        piece, thought, calls = "", "", []
        for choice in chunk.get("choices", ()):
            piece = self._scored(choice)
            delta = choice.get("delta", {})
            thought, parts = thought_in(delta), delta.get("tool_calls") or ()
            calls = [_call_piece(part) for part in parts]
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        if piece:
            self._pieces.append(piece)
        if thought:
            self._thoughts.append(thought)
        for call in calls:
            self._calls.add(call)
        # Called without a piece too: a client may leave while a model is thinking.
        pieces: list[Piece] = [*([Thought(thought)] if thought else []), piece, *calls]
        for each in pieces:
            self._is_stopped = self._is_stopped or self._on_token(each)
        return self._is_stopped

    def _scored(self, choice: Mapping[str, Any]) -> str:
        """Return the text of a chunk, with the scores of its tokens where it has some."""
        tokens = (choice.get("logprobs") or {}).get("content") or ()
        scores = [as_openai_score(token, top=self._top) for token in tokens]
        self._scores += scores
        text = choice["text"] if "text" in choice else choice["delta"].get("content")
        return ScoredText.of(text or "", scores)

    def finish(self) -> Generation:
        """Return the answer, or raise what went wrong."""
        if self._error is not None:
            raise _service_error(self._error)
        if self._finish_reason is None and not self._is_stopped:
            raise InferenceFailedError  # the loop ended without a reason
        return Generation(
            text="".join(self._pieces),
            finish_reason=self._finish_reason or "cancelled",
            tool_calls=self._calls.calls,
            scores=tuple(self._scores),
            thoughts="".join(self._thoughts),
            # A stopped generation has no usage; a piece is a token, nearly always.
            usage=usage_of(self._usage, completion_tokens=len(self._pieces) + len(self._thoughts)),
        )


def _call_piece(part: Mapping[str, Any]) -> ToolCallPiece:
    function = part.get("function") or {}
    return ToolCallPiece(
        index=part["index"],
        id=part.get("id"),
        name=function.get("name"),
        arguments=function.get("arguments") or "",
    )


def _service_error(error: Mapping[str, Any]) -> Exception:
    """Return our error for llama.cpp's, without its message, which may quote the prompt."""
    if error.get("type") == CONTEXT_EXCEEDED:
        return ContextLengthExceededError(
            prompt_tokens=error["n_prompt_tokens"], context_tokens=error["n_ctx"]
        )
    return OptionsRefusedError() if error.get("type") == BAD_REQUEST else InferenceFailedError()
