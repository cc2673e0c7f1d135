"""Which texts are refused before they reach an engine: empty ones, and those that are too long."""

from app.errors import InvalidRequestError, ServiceError, TextEmptyError, TextTooLongError
from app.models.catalog import ModelSpec

TOO_LONG = "string_too_long"  # as Pydantic calls it


def check_length(text: str, max_chars: int) -> None:
    """Refuse a text over its model's bound, in the words of the other bounds of a body.

    Raises:
        InvalidRequestError: it is too long.

    """
    if len(text) > max_chars:
        message = f"String should have at most {max_chars} characters"
        raise InvalidRequestError([{"loc": ["body", "text"], "msg": message, "type": TOO_LONG}])


def refuse(spec: ModelSpec, text: str) -> ServiceError | None:
    """Return the error of a text of several that is refused; the others are answered."""
    if not text:
        return TextEmptyError()
    if len(text) > spec.limits.max_chars:
        return TextTooLongError(
            f"The text has {len(text)} characters; {spec.limits.max_chars} are allowed."
        )
    return None
