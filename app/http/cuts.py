"""Whether a text longer than the model's window may be cut, by the names of all dialects."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from app.errors import TextTooLongError
from app.http.openai_schemas import unsupported

# Cohere's and NVIDIA's words.
END, NONE = "END", "NONE"
RIGHT = "right"
WINDOW = -1
TO_THE_WINDOW = "a text is cut to the model's window (-1), to no other length."
AT_THE_END = "a text is cut at its end."


def _may_cut(value: object) -> object:
    """Read the words of some dialects as true and false."""
    if not isinstance(value, str):
        return value
    if value not in {END, NONE}:
        raise unsupported(AT_THE_END)
    return value == END


def _side(value: object) -> object:
    """Read the side at which texts are cut: TEI writes it in capitals."""
    if isinstance(value, str) and value.lower() == RIGHT:
        return RIGHT
    if value is None:
        return None
    raise unsupported(AT_THE_END)


def _to_the_window(value: object) -> object:
    """Refuse another length."""
    if value is None:
        return None
    if value == WINDOW:  # -1.0 too: JSON has one kind of numbers
        return WINDOW
    raise unsupported(TO_THE_WINDOW)


# Not an enum that has both spellings: generators of clients make one name of the two, and crash.
Side = Annotated[
    Literal["right"] | None, BeforeValidator(_side), Field(description="Texts lose their end.")
]


class Cuts(BaseModel):
    """A text that is longer than the window is cut at its end, unless one of these is false."""

    truncate: Annotated[
        bool | None,
        BeforeValidator(_may_cut, json_schema_input_type=bool | Literal["END", "NONE"] | None),
        Field(description="False, or NONE: a text longer than the window is refused."),
    ] = None
    truncation: Annotated[bool | None, Field(description="Another name for `truncate`.")] = None
    truncate_prompt_tokens: Annotated[
        Annotated[int, Field(ge=WINDOW, le=WINDOW)] | None,
        BeforeValidator(_to_the_window),
        Field(description="-1: the model's window."),
    ] = None
    truncation_side: Side = None
    truncation_direction: Side = None

    def check(self, cut: Sequence[int]) -> None:
        """Refuse texts that were cut where the request says that none may be.

        Args:
            cut: places of the texts that were.

        Raises:
            TextTooLongError: there are some.

        """
        for name in ("truncate", "truncation"):
            if getattr(self, name) is False and cut:
                raise TextTooLongError(
                    f"Text {cut[0]} is longer than the model's window, and {name} is false."
                )
