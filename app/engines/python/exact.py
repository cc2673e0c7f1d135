"""How exactly JSON is read where Pydantic is lenient even when it is strict.

A literal or an enum takes whatever is equal: `true` is 1, and 1.0 too. An `Iterable` is validated
when the class goes through it, which makes an error of the client's one of the class.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, Final

from pydantic import ConfigDict
from pydantic_core import CoreConfig, CoreSchema, PydanticKnownError, SchemaValidator, core_schema

# Of a core schema: what holds values or code of the user's, and no schemas.
OPAQUE: Final = {"config", "default", "expected", "members", "metadata", "serialization"}


def exact_validator(schema: CoreSchema, config: ConfigDict) -> SchemaValidator:
    """Return a validator that reads JSON of a type exactly."""
    core_config = CoreConfig(val_json_bytes=config.get("val_json_bytes", "utf8"))
    # Otherwise it would use those that models have of their own, which are lenient.
    return SchemaValidator(_exact(schema), core_config, _use_prebuilt=False)


def _exact(part: Any) -> Any:  # noqa: ANN401  # any part of a core schema
    if isinstance(part, list | tuple):
        return type(part)(map(_exact, part))
    if not isinstance(part, dict):
        return part
    # What has no type of its own is a table of fields or choices, by names that may be any.
    is_schema = isinstance(part.get("type"), str)
    inner = {k: v if is_schema and k in OPAQUE else _exact(v) for k, v in part.items()}
    match part.get("type"):
        case "literal":
            return _only_exact(inner, part["expected"], "literal_error")
        case "enum":
            return _only_exact(inner, part["members"], "enum")
        case "generator":
            # A list can be gone through twice, too.
            return {**inner, "type": "list"}
    return inner


def _only_exact(schema: Any, members: Sequence[Any], error: Any) -> Any:  # noqa: ANN401  # as above
    """Return a literal or an enum that takes no value which only equals one of another type."""
    values = [one.value if isinstance(one, Enum) else one for one in members]
    if not any(isinstance(value, int | float) for value in values):
        return schema
    ref = schema.pop("ref", None)
    return core_schema.no_info_before_validator_function(_check(values, error), schema, ref=ref)


def _check(values: Iterable[Any], error: Any) -> Callable[[Any], Any]:  # noqa: ANN401  # as above
    numbers = [value for value in values if isinstance(value, int | float)]
    expected = " or ".join(map(repr, values))

    def check(given: Any) -> Any:  # noqa: ANN401  # JSON
        if isinstance(given, int | float):
            equal = [number for number in numbers if number == given]
            if equal and not any(_is_exact(given, number) for number in equal):
                raise PydanticKnownError(error, {"expected": expected})
        return given

    return check


def _is_exact(given: float, number: float) -> bool:
    """Say whether a number in JSON is of another's type; a float may be written as an integer."""
    if isinstance(given, bool) or isinstance(number, bool):
        return isinstance(given, bool) and isinstance(number, bool)
    return isinstance(given, int) or isinstance(number, float)
