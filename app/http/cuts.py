"""Whether a text longer than the model's window may be cut, by the names of all dialects."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from app.errors import TextTooLongError
from app.http.openai_schemas import Only, unsupported

# Cohere's and NVIDIA's words.
END, NONE = "END", "NONE"
TO_THE_WINDOW = "a text is cut to the model's window (-1), to no other length."
AT_THE_END = "a text is cut at its end."
Side = Annotated[
    Any, Only(None, "right", "Right", hint=AT_THE_END), Field(description="Texts lose their end.")
]


def _may_cut(value: object) -> object:
    """Read the words of some dialects as true and false."""
    if not isinstance(value, str):
        return value
    if value not in {END, NONE}:
        raise unsupported(AT_THE_END)
    return value == END


class Cuts(BaseModel):
    """A text that is longer than the window is cut at its end, unless one of these is false."""

    truncate: Annotated[
        bool | None,
        BeforeValidator(_may_cut, json_schema_input_type=bool | Literal["END", "NONE"] | None),
        Field(description="False, or NONE: a text longer than the window is refused."),
    ] = None
    truncation: Annotated[bool | None, Field(description="Another name for `truncate`.")] = None
    truncate_prompt_tokens: Annotated[
        Any, Only(None, -1, hint=TO_THE_WINDOW), Field(description="-1: the model's window.")
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
