"""What a client is told of fields that are wrong: where and how, without their values."""

from collections.abc import Sequence
from typing import Any

# A field's name comes from the client and is returned in `loc`.
MAX_LOC_CHARS = 64
# A body of a megabyte can be wrong in a hundred thousand places.
MAX_FIELD_ERRORS = 50


def field_errors(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Return which fields are wrong and how, without their values."""
    return [
        {"loc": [_clean(part) for part in e["loc"]], "msg": e["msg"], "type": e["type"]}
        for e in errors[:MAX_FIELD_ERRORS]
    ]


def _clean(part: str | int) -> str | int:
    """Shorten a field name of the client's, and replace what isn't valid Unicode."""
    if isinstance(part, int):
        return part
    return part[:MAX_LOC_CHARS].encode("utf-8", "replace").decode()
