"""What the values of a schema's keywords have to be for llama.cpp's grammars to enforce them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import OptionsRefusedError

# Where a schema is in the whole one, as in a JSON pointer.
SchemaPath = tuple[str, ...]
Part = Mapping[str, Any]

MAX_DEPTH = 100  # of names in a path; a request's JSON has 200 levels at most
MAX_PATH_CHARS = 200  # names in it are the client's
# llama.cpp repeats a rule that often, and has a bound of its own: a list of 2,000 texts of 2,000
# characters each is too much for it.
MAX_LENGTH = 2_000
MAX_ITEMS = 1_000
# The largest whole number that readers of JSON can tell from the next.
MAX_BOUND = 2**53
# Above it the rule of a lower bound alone lets smaller numbers pass: 10 for `minimum` 100.
MAX_LOWER_BOUND_ALONE = 99
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1  # what the library can be given
# Its rules know these by themselves: `date` and `date-time` would let 2026-02-30 pass, and `uuid4`
# any version.
RULED_FORMATS = frozenset({"time", "uuid"})
EMPTY_FORMATS = frozenset({"binary", "password", "path"})  # any text is one


class NotHeldError(OptionsRefusedError):
    """A keyword of a schema isn't known to hold."""

    def __init__(self, keyword: str, path: SchemaPath, reason: str) -> None:
        pointer = "/".join(("#", *path))[:MAX_PATH_CHARS]
        super().__init__(
            f"This model can't be held to `{keyword[:MAX_PATH_CHARS]}` in the JSON schema"
            f" at `{pointer}`: {reason}.",
            extensions={"field": "response_format"},
        )
        self.keyword = keyword


def refuse(keyword: str, path: SchemaPath, reason: str) -> NotHeldError:
    """Return the error that names a keyword, where it is and why it can't be enforced."""
    return NotHeldError(keyword, path, reason)


def check_list(part: Part, keyword: str, path: SchemaPath) -> None:
    """Refuse what isn't a list, or is empty."""
    if not isinstance(part[keyword], list) or not part[keyword]:
        raise refuse(keyword, path, "it has to be a list that isn't empty")


def check_values(values: Sequence[Any], keyword: str, path: SchemaPath) -> None:
    """Refuse numbers that the library can't be given, however deep in a `const` or `enum`."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
            raise refuse(keyword, path, "it has an integer beyond 64 bits")
        elif isinstance(value, float) and not math.isfinite(value):
            raise refuse(keyword, path, "it has a number that is too large")


def check_object(part: Part, path: SchemaPath) -> None:
    """Refuse names that nothing describes, and names besides those that are described."""
    properties, required = part.get("properties", {}), part.get("required", [])
    if not isinstance(properties, dict):
        raise refuse("properties", path, "it has to be an object")
    if "*" in properties:
        raise refuse("properties", path, "llama.cpp repeats a property that is named `*`")
    if not isinstance(required, list):
        raise refuse("required", path, "it has to be a list")
    # The client's may be lists, which can't be looked up.
    if not all(isinstance(name, str) and name in properties for name in required):
        raise refuse("required", path, "it names what isn't in `properties`")
    # The rule for "any other name" lets backslashes pass that break the string.
    if properties and part.get("additionalProperties", False) is not False:
        raise refuse("additionalProperties", path, "beside `properties` it has to be false")


def check_array(part: Part, path: SchemaPath) -> None:
    """Refuse numbers of items that are out of bounds, or not those of `prefixItems`."""
    least, most = _check_counts(part, ("minItems", "maxItems"), MAX_ITEMS, path)
    if "prefixItems" not in part:
        return
    check_list(part, "prefixItems", path)
    if "items" in part:
        raise refuse("items", path, "not beside `prefixItems`")
    count = len(part["prefixItems"])  # llama.cpp writes all of them, and no more
    if least > count:
        raise refuse("minItems", path, "it is above the number of `prefixItems`")
    if most is not None and most < count:
        raise refuse("maxItems", path, "it is below the number of `prefixItems`")


def check_string(part: Part, path: SchemaPath) -> None:
    """Refuse lengths that are out of bounds, and formats that aren't known to hold.

    Lengths are held as llama.cpp counts: a character beyond U+FFFF that the model writes as two
    escapes is two. It writes escapes where it wants, and no rule keeps it from that. So `minLength`
    may be missed by as many characters as are written so; `maxLength` never is.
    """
    _check_counts(part, ("minLength", "maxLength"), MAX_LENGTH, path)
    if "format" not in part:
        return
    formats = sorted(RULED_FORMATS | EMPTY_FORMATS)
    if part["format"] not in formats:
        raise refuse("format", path, f"only {', '.join(formats)} are known")
    for keyword in ("minLength", "maxLength"):
        if keyword in part and part["format"] in RULED_FORMATS:
            raise refuse(keyword, path, "not beside `format`")


def check_integers(part: Part, types: Sequence[str], path: SchemaPath) -> None:
    """Refuse bounds that are no plain numbers, or whose rule is known to be wrong."""
    if "integer" not in types:
        return
    least = _bound(part, "minimum", "exclusiveMinimum", path)
    most = _bound(part, "maximum", "exclusiveMaximum", path)
    lower = next((keyword for keyword in part if keyword in {"minimum", "exclusiveMinimum"}), "")
    upper = next((keyword for keyword in part if keyword in {"maximum", "exclusiveMaximum"}), "")
    if least is not None and most is not None and least > most:
        raise refuse(lower, path, f"nothing is left below its `{upper}`")
    if most is None and least is not None and least > MAX_LOWER_BOUND_ALONE:
        raise refuse(lower, path, "above 99 it needs a `maximum` too")
    # The rule writes zeros in front: -05.
    if least is None and most is not None and most < 0:
        raise refuse(upper, path, "below 0 it needs a `minimum` too")


def _bound(part: Part, inclusive: str, exclusive: str, path: SchemaPath) -> int | None:
    """Return the last integer that a bound lets pass."""
    if inclusive in part and exclusive in part:
        raise refuse(exclusive, path, f"not beside `{inclusive}`")
    keyword = inclusive if inclusive in part else exclusive
    if keyword not in part:
        return None
    value = part[keyword]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(keyword, path, "it has to be a number")
    if not -MAX_BOUND <= value <= MAX_BOUND:
        raise refuse(keyword, path, "it is beyond 2^53")
    is_lower = inclusive == "minimum"
    if keyword == inclusive:
        return math.ceil(value) if is_lower else math.floor(value)
    return math.floor(value) + 1 if is_lower else math.ceil(value) - 1


def _check_counts(
    part: Part, keywords: tuple[str, str], largest: int, path: SchemaPath
) -> tuple[int, int | None]:
    """Return the bounds of a length."""
    for keyword in keywords:
        count = part.get(keyword, 0)
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= largest:
            raise refuse(keyword, path, f"it has to be an integer from 0 to {largest}")
    least, most = part.get(keywords[0], 0), part.get(keywords[1])
    if most is not None and least > most:
        raise refuse(keywords[0], path, f"it is above its `{keywords[1]}`")
    return least, most
