"""A type that a user's class names, as JSON: how its values are read, written and described."""

import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import numpy as np
from pydantic import ConfigDict, PydanticUserError, TypeAdapter
from pydantic import ValidationError as Invalid
from pydantic_core import PydanticSerializationError, from_json, to_json
from typing_extensions import TypeAliasType

from app.core.field_errors import field_errors
from app.engines.python.arrays import UNIONS, with_array_forms, without_numpy
from app.engines.python.exact import exact_validator
from app.engines.python.failures import UserCallError, UserCodeError
from app.errors import InvalidRequestError

# Fields of dataclasses have it too, but a Pydantic model has a configuration of its own instead.
CONFIG = ConfigDict(
    ser_json_inf_nan="constants",  # not null: they are to be found, and refused
)
BYTES = ConfigDict(ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64")
# What the schema says of bytes that Pydantic decodes itself, and of those that nothing decodes.
DECODED: Final = "base64"
UNDECODED: Final = "binary"
# The least number of digits of a whole number that is infinite as a float.
LONG_NUMBER: Final = re.compile(rb"[0-9]{309}")
BODY: Final = "body"
NOT_JSON: Final = (b"NaN", b"Infinity")


def json_of(value: Any) -> bytes:  # noqa: ANN401  # parsed JSON
    """Return JSON again: dates, bytes, enums and tuples are read from what JSON has for them."""
    return to_json(value, inf_nan_mode="null")


class JsonForm:
    """The JSON form of a type.

    Args:
        annotation: the type, as `typing.get_type_hints` resolves it.
        what: whose it is, for messages.

    Raises:
        UserCodeError: the type has no form in JSON.

    """

    def __init__(self, annotation: Any, *, what: str) -> None:  # noqa: ANN401  # any annotation
        self._what = what
        self._name = _name_of(annotation)
        try:
            self._adapter, config = self._adapt(with_array_forms(annotation))
            self._reader = exact_validator(self._adapter.core_schema, config)
            # Some types fail only here, such as a Callable.
            schemas = [self.schema(of_answers=of_answers) for of_answers in (False, True)]
        except Exception as failure:  # types have code of the user's, too
            raise UserCodeError(
                f"{what} is annotated with {self._name}, which has no form in JSON;"
                f" {_advice(failure)}"
            ) from failure
        if UNDECODED in _formats(schemas):
            # The class would be given the base64 as it was sent.
            raise UserCodeError(
                f"{what} is annotated with {self._name}, which has a field of bytes that has no"
                " form in JSON; annotate the field with pydantic.Base64Bytes, or with str for texts"
            )

    def schema(self, *, of_answers: bool) -> dict[str, Any]:
        """Return the type's JSON Schema; what it refers to is under `$defs`."""
        schema = self._adapter.json_schema(mode="serialization" if of_answers else "validation")
        # A default or a bound may be NaN or infinity; the schema is a part of a document of JSON.
        return _finite(from_json(to_json(schema, inf_nan_mode="constants")))  # type: ignore[no-any-return]  # a dict in, a dict out

    def _adapt(self, annotation: Any) -> tuple[TypeAdapter[Any], ConfigDict]:  # noqa: ANN401  # as above
        """Return a type's adapter and configuration, with bytes as base64 wherever they are."""
        # By a name, because Pydantic takes no configuration for what may have one of its own.
        named = TypeAliasType("named", annotation)
        adapter = TypeAdapter[Any](named, config=BYTES)
        if DECODED in _formats(adapter.json_schema()):
            # It would be decoded twice.
            return TypeAdapter(named, config=CONFIG), CONFIG
        return adapter, BYTES

    def read(self, value: Any) -> Any:  # noqa: ANN401  # JSON in, the user's type out
        """Return a value of the type from parsed JSON.

        Types are exact, as in every request here: "1" is no number.

        Raises:
            InvalidRequestError: it doesn't match; names each field.

        """
        return self.read_json(json_of(value))

    def read_json(self, content: bytes) -> Any:  # noqa: ANN401  # the user's type
        """Return a value of the type from JSON; raises as `read`."""
        if LONG_NUMBER.search(content) and _has_endless(from_json(content)):
            message = "A number is too large"
            raise InvalidRequestError([{"loc": [BODY], "msg": message, "type": "too_large"}])
        try:
            return self._reader.validate_json(content, strict=True)
        except Invalid as invalid:
            errors = invalid.errors(include_url=False, include_context=False, include_input=False)
            located = [{**error, "loc": (BODY, *error["loc"])} for error in errors]
            raise InvalidRequestError(field_errors(located)) from None

    def write(self, value: Any) -> tuple[Any, bytes]:  # noqa: ANN401  # what the class answered
        """Return an answer as JSON, as values and as bytes.

        Raises:
            UserCallError: it isn't of the type, or holds NaN or infinity; without its content.

        """
        try:
            try:
                plain = self._plain(value)
            except (Invalid, PydanticSerializationError):
                plain = self._plain(without_numpy(value))
            content = to_json(plain, inf_nan_mode="constants")
        except (Invalid, PydanticSerializationError, TypeError):
            raise UserCallError(self._refusal(type(value).__name__)) from None
        if any(word in content for word in NOT_JSON) and not _is_finite(plain):
            raise UserCallError(f"{self._what} holds NaN or infinity, which JSON doesn't have")
        return plain, content

    def _refusal(self, given: str) -> str:
        if given != self._name.partition("[")[0]:
            return f"{self._what} is {given}, not {self._name}"
        return (
            f"{self._what} is {self._name} that holds a value of another type, NaN or infinity, or"
            " text that is no valid Unicode"
        )

    def _plain(self, value: Any) -> Any:  # noqa: ANN401  # as above
        """Return an answer as JSON's values, if it is of the type."""
        checked = self._adapter.validate_python(value, strict=True)
        return self._adapter.dump_python(
            checked, mode="json", by_alias=True, warnings="error", fallback=_fallback
        )


def _name_of(annotation: Any) -> str:  # noqa: ANN401  # any annotation
    """Return a type as a person writes it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None or origin is np.ndarray:
        return str(getattr(origin or annotation, "__name__", None) or annotation)
    if origin is Annotated:
        return _name_of(arguments[0])
    if origin in UNIONS:
        return " | ".join(map(_name_of, arguments))
    inner = ", ".join(repr(a) if origin is Literal else _name_of(a) for a in arguments)
    return f"{getattr(origin, '__name__', origin)}[{inner}]"


def _formats(schema: Any) -> Iterator[str]:  # noqa: ANN401  # any part of a schema
    """Yield the formats that a schema names, at any depth."""
    if isinstance(schema, list):
        for one in schema:
            yield from _formats(one)
    elif isinstance(schema, dict):
        if schema.get("type") == "string" and isinstance(named := schema.get("format"), str):
            yield named
        yield from _formats(list(schema.values()))


def _finite(schema: Any) -> Any:  # noqa: ANN401  # any part of a schema
    """Return a schema without what isn't finite, as a default or a bound."""
    if isinstance(schema, list):
        return [_finite(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _finite(one) for key, one in schema.items() if not _is_endless(one)}


def _is_endless(value: Any) -> bool:  # noqa: ANN401  # as above
    """Say whether a value is no finite number, or a list with one."""
    if isinstance(value, list):
        return any(map(_is_endless, value))
    return isinstance(value, float) and not math.isfinite(value)


def _has_endless(value: Any) -> bool:  # noqa: ANN401  # parsed JSON
    """Say whether a whole number is infinite as a float: the class would be given that."""
    if isinstance(value, dict | list):
        return any(map(_has_endless, value.values() if isinstance(value, dict) else value))
    if isinstance(value, int):
        try:
            float(value)
        except OverflowError:
            return True
    return False


def _is_finite(plain: Any) -> bool:  # noqa: ANN401  # of a text that has the word NaN, too
    try:
        json.dumps(plain, allow_nan=False)
    except ValueError:
        return False
    return True


def _advice(failure: Exception) -> str:
    """Return what to write instead of a type that can't be used."""
    if isinstance(failure, PydanticUserError) and failure.code == "typed-dict-version":
        return "before Python 3.12, import TypedDict from typing_extensions"
    if np.ndarray.__name__ in str(failure):
        return "a NumPy array can't be a field: write list[float] there"
    return (
        "use a Pydantic model, a dataclass, a TypedDict, str, int, float, bool, bytes, a list of"
        " them, or a NumPy array"
    )


def _fallback(value: Any) -> Any:  # noqa: ANN401  # inside of what is annotated as Any
    """Return what JSON has for a value of NumPy's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
