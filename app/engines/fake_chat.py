"""The fake chat model: it echoes, or calls a tool where it has to."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

from app.engines.chat_base import Generation, GenerationOptions, Message, OnToken, Usage
from app.engines.fake import FakeFailureError, FakeOptions
from app.engines.first_token import FirstToken
from app.engines.thoughts import Thought
from app.engines.token_scores import ScoredText
from app.engines.tool_calls import Piece, ToolCallJoiner, ToolCallPiece, new_call_id, tool_use
from app.errors import ContextLengthExceededError


class FakeGenerator:
    """Echoes the last user message word by word, joined by single spaces.

    Where a tool has to be called it calls the first one, with that message as arguments if it is a
    JSON object, else without any.
    """

    kind = "fake"
    device = "none"
    one_token_labels = tuple("ABCDEFGH")

    def __init__(self, options: FakeOptions, *, context_tokens: int) -> None:
        self._options = options
        self.context_tokens = context_tokens

    def check(self, options: GenerationOptions) -> None:
        """Accept all: it echoes whatever the format."""

    def generate(
        self, messages: Sequence[Message], options: GenerationOptions, *, on_token: OnToken
    ) -> Generation:
        """Generate until the end or `max_tokens`; stop when `on_token` returns True."""
        questions = [m.content for m in messages if m.role == "user"]
        question = questions[-1] if questions else ""
        prompt_tokens = sum(len(text.split()) for m in messages for text in m.texts)
        if prompt_tokens > self.context_tokens:
            raise ContextLengthExceededError(
                prompt_tokens=prompt_tokens, context_tokens=self.context_tokens
            )
        use = tool_use(options)
        is_call = use is not None and use.is_required
        said = _call(use.names[0], question) if use and is_call else _words(question)
        thoughts = () if options.is_raw else map(Thought, _words(self._options.thinks))
        pieces: list[Piece] = [*thoughts, *said]
        max_tokens = options.max_tokens or len(pieces)
        ending = "tool_calls" if is_call else "stop"
        finish_reason = ending if len(pieces) <= max_tokens else "length"
        given: list[Piece] = []
        for piece in pieces[:max_tokens]:
            self._take_time(len(given))
            given.append(piece)
            if on_token(_scored(piece) if options.logprobs else piece):
                finish_reason = "cancelled"
                break
        calls = ToolCallJoiner()
        for piece in given:
            if isinstance(piece, ToolCallPiece):
                calls.add(piece)
        return Generation(
            text="".join(piece for piece in given if isinstance(piece, str)),
            finish_reason=finish_reason,
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=len(given)),
            tool_calls=calls.calls,
            thoughts="".join(piece.text for piece in given if isinstance(piece, Thought)),
        )

    def first_token(
        self, messages: Sequence[Message], *, is_left: Callable[[], bool]
    ) -> FirstToken:
        """Give made-up probabilities to the labels, 0.9 together; a long prompt is refused."""
        words = [text for m in messages for text in m.texts]
        tokens = sum(len(text.split()) for text in words)
        if tokens > self.context_tokens:
            raise ContextLengthExceededError(
                prompt_tokens=tokens, context_tokens=self.context_tokens
            )
        self._take_time(0)
        if is_left():
            return FirstToken(usage=Usage(prompt_tokens=tokens, completion_tokens=0))
        seed = "".join(words).encode()
        labels = (*self.one_token_labels, "Yes", "No")
        weights = {label: 1 + crc32(label.encode(), crc32(seed)) % 97 for label in labels}
        total = sum(weights.values())
        return FirstToken(
            probabilities={label: 0.9 * weight / total for label, weight in weights.items()},
            usage=Usage(prompt_tokens=tokens, completion_tokens=1),
        )

    def close(self) -> None:
        """Nothing is held."""

    def _take_time(self, given: int) -> None:
        """Spend the delay of a token, and fail if told to."""
        if self._options.delay_ms:
            time.sleep(self._options.delay_ms / 1000)
        if given >= (math.inf if self._options.fail_after is None else self._options.fail_after):
            raise FakeFailureError


def _scored(piece: Piece) -> Piece:
    """Return a piece that had no alternative."""
    if not isinstance(piece, str):
        return piece
    token = {"token": piece, "logprob": 0.0, "bytes": [*piece.encode()]}
    return ScoredText.of(piece, [{**token, "top_logprobs": []}])


def _words(text: str) -> Iterator[str]:
    for index, word in enumerate(text.split()):
        yield word if index == 0 else f" {word}"


def _call(name: str, question: str) -> Iterator[ToolCallPiece]:
    """Yield a call: its name, then its arguments word by word."""
    yield ToolCallPiece(index=0, id=new_call_id(), name=name)
    for word in _words(question if _is_object(question) else "{}"):
        yield ToolCallPiece(index=0, arguments=word)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
