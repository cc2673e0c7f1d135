"""Which texts are refused before they reach an engine: empty ones, and those that are too long."""

from collections.abc import Sequence
from typing import Any

from app.errors import InvalidRequestError, ServiceError, TextEmptyError, TextTooLongError
from app.models.catalog import ModelSpec

TOO_LONG = "string_too_long"  # as Pydantic calls it


def refuse(spec: ModelSpec, item: str | Sequence[str]) -> ServiceError | None:
    """Return the error of a text, or of a pair, that is refused before it reaches an engine."""
    for text in (item,) if isinstance(item, str) else item:
        if not text:
            return TextEmptyError()
        if len(text) > spec.limits.max_chars:
            return TextTooLongError(
                f"The text has {len(text)} characters; {spec.limits.max_chars} are allowed."
            )
    return None


def check_length(spec: ModelSpec | None, **texts: str | None) -> None:
    """Refuse texts over their model's bound, in the words of the other bounds of a body.

    Args:
        spec: of the model; None where there is no such model, which is another error.
        texts: fields of the body, by name.

    Raises:
        InvalidRequestError: some are too long.

    """
    if spec is None:
        return
    message = f"String should have at most {spec.limits.max_chars} characters"
    errors: list[dict[str, Any]] = [
        {"loc": ["body", field], "msg": message, "type": TOO_LONG}
        for field, text in texts.items()
        if text is not None and len(text) > spec.limits.max_chars
    ]
    if errors:
        raise InvalidRequestError(errors)
