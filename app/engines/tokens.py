"""The tokens of a text, for those who want to see them."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token.

    Args:
        id: in the model's vocabulary.
        text: what it stands for in the text; of a special one its name.
        place: from where to where it stands, in code points; None where it is special.

    """

    id: int
    text: str
    place: tuple[int, int] | None


@runtime_checkable
class ShowsTokens(Protocol):
    """A tokeniser that can show the tokens of a text; engines have it as their `encoder`."""

    def tokens(self, text: str, *, with_special: bool) -> list[Token]:
        """Return the tokens of a text of any length; blocks.

        Args:
            text: to tokenise.
            with_special: also those that the model's tokenizer puts around it.

        """
        ...
