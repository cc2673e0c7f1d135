"""A type that a user's class names, as JSON: how its values are read, written and described."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, get_args, get_origin

import numpy as np
from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter
from pydantic import ValidationError as Invalid
from pydantic_core import PydanticSerializationError, to_json

from app.core.field_errors import field_errors
from app.engines.python.arrays import ArrayForm
from app.engines.python.failures import UserCallError, UserCodeError
from app.errors import InvalidRequestError

# A Pydantic model, a dataclass or a TypedDict has a configuration of its own instead.
CONFIG = ConfigDict(
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="constants",  # not null: they are to be found, and refused
)
CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset})
BODY: Final = "body"
NOT_JSON: Final = (b"NaN", b"Infinity")


def _json_type(annotation: Any) -> Any:  # noqa: ANN401  # any annotation
    """Return an annotation with arrays as Pydantic can read them, inside lists and the like too.

    Raises:
        TypeError: JSON has no form for an array's values.

    """
    if annotation is np.ndarray:
        return Annotated[np.ndarray, ArrayForm(np.float64)]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is np.ndarray:
        scalars = get_args(arguments[1]) if len(arguments) > 1 else ()
        known = scalars[0] if scalars and isinstance(scalars[0], type) else np.float64
        return Annotated[np.ndarray, ArrayForm(known)]
    if origin in CONTAINERS:
        return origin[tuple(a if a is ... else _json_type(a) for a in arguments)]
    return annotation


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
        self._name = getattr(annotation, "__name__", None) or str(annotation)
        try:
            self._adapter = self._adapt(_json_type(annotation))
            # Some types fail only here, such as a Callable.
            self.schema(of_answers=False)
        except (PydanticUserError, PydanticSchemaGenerationError, TypeError) as failure:
            raise UserCodeError(
                f"{what} is annotated with {self._name}, which has no form in JSON;"
                f" {_advice(failure)}"
            ) from failure

    def schema(self, *, of_answers: bool) -> dict[str, Any]:
        """Return the type's JSON Schema; what it refers to is under `$defs`."""
        return self._adapter.json_schema(mode="serialization" if of_answers else "validation")

    def _adapt(self, annotation: Any) -> TypeAdapter[Any]:  # noqa: ANN401  # as above
        try:
            return TypeAdapter(annotation, config=CONFIG)
        except PydanticUserError as refused:
            if refused.code != "type-adapter-config-unused":
                raise
            return TypeAdapter(annotation)

    def read(self, value: Any) -> Any:  # noqa: ANN401  # JSON in, the user's type out
        """Return a value of the type from parsed JSON.

        Types are exact, as in every request here: "1" is no number.

        Raises:
            InvalidRequestError: it doesn't match; names each field.

        """
        return self.read_json(json_of(value))

    def read_json(self, content: bytes) -> Any:  # noqa: ANN401  # the user's type
        """Return a value of the type from JSON; raises as `read`."""
        try:
            return self._adapter.validate_json(content, strict=True)
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
            plain = self._plain(self._checked(value))
            content = to_json(plain, inf_nan_mode="constants")
        except (Invalid, PydanticSerializationError, TypeError):
            raise UserCallError(self._refusal(type(value).__name__)) from None
        if any(word in content for word in NOT_JSON) and not _is_finite(plain):
            raise UserCallError(f"{self._what} holds NaN or infinity, which JSON doesn't have")
        return plain, content

    def _refusal(self, given: str) -> str:
        if given != self._name:
            return f"{self._what} is {given}, not {self._name}"
        return (
            f"{self._what} is {given} that holds a value of another type, NaN or infinity, or text"
            " that is no valid Unicode"
        )

    def _checked(self, value: Any) -> Any:  # noqa: ANN401  # as above
        """Return an answer of the type; NumPy's scalars and arrays stand for Python's."""
        try:
            return self._adapter.validate_python(value, strict=True)
        except Invalid:
            return self._adapter.validate_python(without_numpy(value), strict=True)

    def _plain(self, value: Any) -> Any:  # noqa: ANN401  # as above
        return self._adapter.dump_python(
            value, mode="json", by_alias=True, warnings="error", fallback=_fallback
        )


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
    return (
        "use a Pydantic model, a dataclass, a TypedDict, str, int, float, bool, bytes, a list of"
        " them, or a NumPy array"
    )


def _fallback(value: Any) -> Any:  # noqa: ANN401  # inside of what is annotated as Any
    """Return what JSON has for a value of NumPy's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def without_numpy(value: Any) -> Any:  # noqa: ANN401  # as above
    """Return lists and numbers of Python's in the place of NumPy's, at any depth."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {without_numpy(key): without_numpy(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        plain: Sequence[Any] = [without_numpy(one) for one in value]
        return plain if isinstance(value, list) else tuple(plain)
    return value
