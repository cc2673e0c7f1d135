"""The chunks of `/v1/completions`, and the form that its tokens' scores have."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.engines.chat_base import Generation
from app.engines.token_scores import scores_of
from app.engines.tool_calls import Piece
from app.tasks.chat.completion_schemas import CompletionLogprobs
from app.tasks.chat.dialects import OpenAiDialect, event


class CompletionDialect(OpenAiDialect):
    """One answer of a completion.

    Args:
        chat_id: of the completion.
        created_s: in seconds since 1970.
        has_usage: whether a last chunk has the number of tokens.
        index: of the answer.
        echo: the prompt, where the answer begins with it.

    """

    kind = "text_completion"
    path = "/v1/completions"

    def __init__(
        self, *, chat_id: str, created_s: int, has_usage: bool, index: int, echo: str = ""
    ) -> None:
        super().__init__(chat_id=chat_id, created_s=created_s, has_usage=has_usage, index=index)
        self._echo = echo
        self._offset = len(echo)

    def begin(self, model: str, pieces: Sequence[Piece]) -> bytes:  # noqa: ARG002  # as the protocol has it
        """Return the chunk with the prompt, where it was asked for."""
        self._head["model"] = model
        return self._text(self._echo) if self._echo else b""

    def pieces(self, pieces: Iterable[Piece]) -> bytes:
        """Return a chunk for each token."""
        lines = b""
        for piece in pieces:
            if isinstance(piece, str):
                lines += self._text(piece, logprobs=completion_logprobs(piece, self._offset))
                self._offset += len(piece)
        return lines

    def end(self, generation: Generation) -> bytes:
        """Return the chunk with the reason."""
        return self._text("", finish_reason=generation.finish_reason)

    def _text(
        self,
        text: str,
        *,
        finish_reason: str | None = None,
        logprobs: CompletionLogprobs | None = None,
    ) -> bytes:
        choice = {
            "index": self._index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        usage = {"usage": None} if self._has_usage else {}
        return event({**self._head, "choices": [choice], **usage})


def completion_logprobs(
    text: str, offset: int, scores: Sequence[Mapping[str, Any]] | None = None
) -> CompletionLogprobs | None:
    """Return scores in the form that completions have; None where there are none.

    Args:
        text: whose tokens they are; it may bring them.
        offset: of the text in the answer, in characters.
        scores: of a text that brings none.

    """
    tokens = scores_of(text) if scores is None else scores
    if not tokens:
        return None
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token["token"])
    return CompletionLogprobs(
        tokens=[token["token"] for token in tokens],
        token_logprobs=[token["logprob"] for token in tokens],
        top_logprobs=[
            {other["token"]: other["logprob"] for other in (*token["top_logprobs"], token)}
            for token in tokens
        ],
        text_offset=offsets,
    )
