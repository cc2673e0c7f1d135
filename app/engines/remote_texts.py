"""About how many tokens a text has whose tokeniser another server keeps. Pure."""

import re
from dataclasses import dataclass
from typing import Self

from app.engines.base import Encoded

# A Chinese or Japanese character, four letters, three digits, or another sign: rather too many
# pieces than too few, since what is cut by them must fit.
PIECE = re.compile(r"[\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF]|[^\W\d_]{1,4}|\d{1,3}|[^\w\s]|_")


def places(text: str) -> list[tuple[int, int]]:
    """Return where the pieces of a text stand, in characters and in order."""
    return [match.span() for match in PIECE.finditer(text)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteText(Encoded):
    """A text as it is sent; its tokens are only counted, about.

    It is never truncated here: only the server knows its limit, and refuses.
    """

    text: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Return a text with the number of its pieces, and one for what the model adds."""
        count = 1 + sum(1 for _ in PIECE.finditer(text))
        return cls(text=text, token_ids=range(count), is_truncated=False)
