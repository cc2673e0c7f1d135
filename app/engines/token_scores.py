"""How likely the tokens of an answer were: they travel with its text."""

from collections.abc import Iterable, Mapping
from typing import Any

TOKEN = ("token", "logprob", "bytes")
# llama.cpp says null for what has no chance; OpenAI has this number for it.
IMPOSSIBLE = -9999.0


class ScoredText(str):
    """A piece of an answer with the scores of its tokens, each as OpenAI's `logprobs.content`."""

    __slots__ = ("scores",)

    scores: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, text: str, scores: Iterable[Mapping[str, Any]]) -> str:
        """Return the text with scores, where there are any."""
        scored = cls(text)
        scored.scores = tuple(scores)
        return scored if scored.scores else text


def scores_of(text: object) -> tuple[Mapping[str, Any], ...]:
    """Return the scores of a piece's tokens."""
    return text.scores if isinstance(text, ScoredText) else ()


def as_openai(token: Mapping[str, Any], *, top: int | None) -> dict[str, Any]:
    """Return a token's score with OpenAI's fields alone, and at most `top` others."""
    likely = token.get("top_logprobs") or ()
    others = [_plain(other) for other in likely[: top or 0]]
    return {**_plain(token), "top_logprobs": others}


def _plain(token: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: token.get(name) for name in TOKEN}
    return {**plain, "logprob": IMPOSSIBLE if plain["logprob"] is None else plain["logprob"]}
