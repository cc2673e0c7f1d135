"""Reads from llama.cpp how likely each token is to come first, and which labels are one token."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from app.engines.chat_base import Message
from app.engines.first_token import FirstToken
from app.engines.llama_cpp.native_tools import CONTEXT_EXCEEDED, as_openai
from app.engines.llama_cpp.tokens import LlamaTokenizer
from app.engines.llama_cpp.usage import usage_of
from app.errors import ContextLengthExceededError, InferenceFailedError

# So many tokens are looked at: what is beyond is less likely than one in some ten thousand. It
# takes llama.cpp 10 ms; its whole vocabulary several times as long.
TOP_TOKENS = 2_000
LABELS = (*ascii_uppercase, *(a + b for a in ascii_uppercase for b in ascii_uppercase))
BETWEEN = "\n"  # as before the first token of most templates


def one_token_labels(tokenizer: LlamaTokenizer) -> tuple[str, ...]:
    """Return those of A to Z and AA to ZZ that are one token at the beginning of a line.

    Raises:
        RuntimeError: llama.cpp didn't answer.

    """
    tokens = tokenizer.tokens(BETWEEN + BETWEEN.join(LABELS) + BETWEEN, special=False)
    pieces = {token.piece.strip() for token in tokens}
    return tuple(label for label in LABELS if label.encode() in pieces)


def read_first_token(
    server: Any,  # noqa: ANN401  # untyped
    messages: Sequence[Message],
    *,
    is_left: Callable[[], bool],
) -> FirstToken:
    """Read a prompt with thinking off; blocks.

    Args:
        server: xllamacpp's `Server`.
        messages: the prompt.
        is_left: asked while it is read; then nothing is found.

    Raises:
        ContextLengthExceededError: the prompt is longer than the context.
        InferenceFailedError: llama.cpp gave no probabilities.

    """
    chunks: list[Mapping[str, Any]] = []

    def take(chunk: Mapping[str, Any]) -> bool:
        chunks.append(chunk)
        return is_left()

    body = {
        "messages": [as_openai(message) for message in messages],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": TOP_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # to notice a client that leaves meanwhile
        "chat_template_kwargs": {"enable_thinking": False},
    }
    try:
        server.handle_chat_completions(body, take)
    except (TypeError, ValueError) as refused:
        raise InferenceFailedError from refused
    error = next((chunk["error"] for chunk in chunks if "error" in chunk), None)
    if error is not None:
        raise _service_error(error)
    probabilities = _probabilities(chunks)
    if not probabilities and not is_left():
        raise InferenceFailedError
    usage: Mapping[str, Any] = next((c["usage"] for c in reversed(chunks) if c.get("usage")), {})
    return FirstToken(
        probabilities=probabilities,
        usage=usage_of(usage, completion_tokens=1),
    )


def _probabilities(chunks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the probabilities of the first token; several tokens can have the same text."""
    found: dict[str, float] = defaultdict(float)
    for chunk in chunks:
        for choice in chunk.get("choices", ()):
            for token in (choice.get("logprobs") or {}).get("content") or ():
                for likely in token["top_logprobs"]:
                    if likely["logprob"] is not None:
                        found[likely["token"]] += math.exp(likely["logprob"])
                return dict(found)
    return {}


def _service_error(error: Mapping[str, Any]) -> Exception:
    """Return our error for llama.cpp's, without its message, which may quote the prompt."""
    if error.get("type") == CONTEXT_EXCEEDED:
        return ContextLengthExceededError(
            prompt_tokens=error["n_prompt_tokens"], context_tokens=error["n_ctx"]
        )
    return InferenceFailedError()
