"""Reads how likely each token is to come first from a remote chat model, where it says so."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from string import ascii_uppercase
from typing import Any, Final

from app.engines.chat_base import ChatOptions, Message, Usage
from app.engines.first_token import FirstToken
from app.engines.remote_server import RemoteServer
from app.engines.remote_settings import read_source
from app.engines.remote_texts import RemoteText
from app.errors import (
    ContextLengthExceededError,
    OptionsRefusedError,
    TextTooLongError,
    UnsupportedFieldError,
)

# OpenAI and most servers give so many, the likeliest; what isn't among them counts as impossible.
TOP_TOKENS: Final = 20
MAX_BYTES: Final = 2**20
NO_PROBABILITIES: Final = (
    "This model's probabilities can't be read: its server gives no `top_logprobs`."
)
REFUSED: Final = "The remote engine refused to say how likely tokens are, or the text."


class RemoteFirstToken:
    """A chat model of a server of OpenAI's dialect, as what says how likely a first token is.

    Args:
        chat: as its engine got them.

    """

    # Its tokeniser isn't known; each of these is one token to all that are in use.
    one_token_labels = tuple(ascii_uppercase[:TOP_TOKENS])

    def __init__(self, chat: ChatOptions) -> None:
        self._chat = chat
        _, self._name = read_source(chat.source)

    @cached_property
    def _server(self) -> RemoteServer:
        return RemoteServer(self._chat)

    def first_token(
        self,
        messages: Sequence[Message],
        *,
        is_left: Callable[[], bool],  # noqa: ARG002  # the scope of the call says it too
    ) -> FirstToken:
        """Ask for one token and those that are likely beside it; blocks.

        Raises:
            UnsupportedFieldError: the server doesn't say how likely they are.
            ContextLengthExceededError: the prompt is longer than the context.
            ServiceError: as `RemoteServer.post`.

        """
        body = {
            "model": self._name,
            "messages": [{"role": one.role, "content": one.content} for one in messages],
            "max_completion_tokens": 1,
            "logprobs": True,
            "top_logprobs": TOP_TOKENS,
        }
        try:
            answer = self._server.post("chat/completions", body, max_bytes=MAX_BYTES, read=_read)
        except TextTooLongError:
            raise ContextLengthExceededError from None
        except OptionsRefusedError:
            raise OptionsRefusedError(REFUSED, extensions={"field": "model"}) from None
        probabilities, usage = answer
        if not probabilities:
            raise UnsupportedFieldError("model", detail=NO_PROBABILITIES)
        estimated = sum(RemoteText.of(message.content).cost for message in messages)
        return FirstToken(
            probabilities=probabilities,
            usage=usage or Usage(prompt_tokens=estimated, completion_tokens=1),
        )

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "_server" in vars(self):
            self._server.close()


def _read(answer: Any) -> tuple[Mapping[str, float], Usage | None]:  # noqa: ANN401  # JSON of another server
    """Return the probabilities, of which there may be none, and what the call cost.

    Raises:
        ValueError, LookupError, TypeError: it is no chat completion.

    """
    (choice,) = answer["choices"]
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    found: dict[str, float] = {}
    for token in tokens[0]["top_logprobs"] if tokens else ():
        # Tokens of bytes may have the same text.
        likely = math.exp(min(0.0, float(token["logprob"])))
        found[str(token["token"])] = found.get(str(token["token"]), 0.0) + likely
    return found, _usage(answer.get("usage"))


def _usage(counts: Mapping[str, Any] | None) -> Usage | None:
    if not counts:
        return None
    details = counts.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=int(counts["prompt_tokens"]),
        completion_tokens=int(counts["completion_tokens"]),
        cached_tokens=int(details.get("cached_tokens") or 0),
        cache_write_tokens=int(details.get("cache_write_tokens") or 0),
    )
