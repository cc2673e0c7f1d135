"""Pydantic's errors of settings, in the words of the person who sets them."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

# By Pydantic's kind of error. Its own messages are about inputs, items and validation, and some
# repeat the value, which may be a secret.
WORDS: Mapping[str, str] = {
    "bool_parsing": "must be true or false",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "path_type": "must be a path",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_unicode": "must be UTF-8",
    # Pydantic's kinds for the length of secrets.
    "too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} characters",
    "value_error": "{error}",
}
OTHERWISE = "can't be used"


def setting_error(error: ErrorDetails) -> str:
    """Return one error as `NAME: what it must be`, without the value."""
    words = WORDS.get(error["type"], OTHERWISE).format(**_facts(error))
    name = ".".join(map(str, error["loc"])).upper()
    return f"{name}: {words}" if name else words


def _facts(error: ErrorDetails) -> dict[str, Any]:
    facts = dict(error.get("ctx", {}))
    if "expected" in facts:
        facts["expected"] = facts["expected"].replace("'", "")
    return facts
