"""Answers that need every row: they fail with the first missing one, and say where it belongs."""

from collections.abc import Callable, Sequence
from typing import Any

from app.errors import InferenceFailedError, ServiceError

# Names an item by its index, as the caller's body has it: `texts[3]`.
Place = Callable[[int], str]


def place_in(field: str) -> Place:
    """Return what names the items of a list."""
    return lambda index: f"{field}[{index}]"


def whole(rows: Sequence[Any | ServiceError], place: Place) -> list[Any]:
    """Return rows of which none is missing: that would shift the others.

    Raises:
        InferenceFailedError: the engine failed on one of the items; the detail says which.
        ServiceError: of an item that has another error.

    """
    for index, row in enumerate(rows):
        if isinstance(row, InferenceFailedError):
            raise InferenceFailedError(f"The engine failed on {place(index)}.")
        if isinstance(row, ServiceError):
            raise row
    return list(rows)
