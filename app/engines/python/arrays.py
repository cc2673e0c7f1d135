"""The JSON form of a NumPy array: numbers (or booleans, or texts) in nested lists."""

import copy
import dataclasses
import types
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Final, Union, get_args, get_origin

import numpy as np
import numpy.typing as npt
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

# Which kinds of values of a list an array of a kind takes: no text becomes a number.
ACCEPTED = {"f": "iuf", "i": "iu", "u": "iu", "b": "b", "U": "U"}
SCALARS = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "U": "string"}

# In which arrays are found.
CONTAINERS: Final = (list, tuple, dict, set, frozenset, Sequence)
UNIONS: Final = (Union, types.UnionType)


class ArrayForm:
    """Reads and writes arrays of one type, as the metadata of an annotation.

    Args:
        scalar: the type of their values, such as `numpy.float32`.

    Raises:
        TypeError: JSON has no form for it.

    """

    def __init__(self, scalar: Any) -> None:  # noqa: ANN401  # whatever an annotation holds
        self._dtype = np.dtype(scalar)
        if self._dtype.kind not in ACCEPTED:
            raise TypeError(f"arrays of {self._dtype} have no form in JSON")

    def __get_pydantic_core_schema__(
        self,
        _source: Any,  # noqa: ANN401  # Pydantic's interface
        _handler: GetCoreSchemaHandler,
    ) -> CoreSchema:
        """Return how Pydantic validates an array, and writes it."""
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                self._write, when_used="json"
            ),
        )

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return nested lists: their depth isn't known."""
        values = f"{self._dtype} values" if self._dtype.kind != "U" else "texts"
        scalar = {"type": SCALARS[self._dtype.kind]}
        return {
            "type": "array",
            "items": {"anyOf": [scalar, {"type": "array", "items": {}}]},
            "description": f"An array of {values}: nested lists, all of a level of one length.",
        }

    def read(self, value: Any) -> npt.NDArray[Any]:  # noqa: ANN401  # parsed JSON, or an answer
        """Return nested lists as an array.

        Raises:
            ValueError: they aren't of one length at each level, or hold other values.

        """
        if not isinstance(value, list | np.ndarray):
            raise ValueError("an array is needed: nested lists")  # noqa: TRY004  # as Pydantic wants it
        try:
            given = np.asarray(value)
        except ValueError:
            raise ValueError("the lists of an array must be of one length at each level") from None
        if given.ndim == 0:
            raise ValueError("an array is needed, not a single value")
        if given.size == 0:
            return given.astype(self._dtype)
        if given.dtype.kind not in ACCEPTED[self._dtype.kind]:
            raise ValueError(f"the values of the array must be {self._dtype}")
        with np.errstate(over="ignore"):
            array = given.astype(self._dtype)
        if self._dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(
                f"a value of the array is NaN, infinite or too large for {self._dtype}"
            )
        if self._dtype.kind in "iu" and not np.array_equal(array, given):
            raise ValueError(f"a value of the array is too large for {self._dtype}")
        return array

    def _write(self, array: npt.NDArray[Any]) -> Any:  # noqa: ANN401  # nested lists
        return array.tolist()


def with_array_forms(annotation: Any) -> Any:  # noqa: ANN401  # any annotation
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
    if origin is Annotated:
        inner = with_array_forms(arguments[0])
        return annotation if inner is arguments[0] else Annotated[inner, *arguments[1:]]
    if origin in UNIONS:
        return reduce(or_, map(with_array_forms, arguments))
    if origin in CONTAINERS:
        return origin[tuple(a if a is ... else with_array_forms(a) for a in arguments)]
    return annotation


def without_numpy(value: Any) -> Any:  # noqa: ANN401  # what a class answered
    """Return lists and numbers of Python's in the place of NumPy's, at any depth."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {without_numpy(key): without_numpy(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        plain: Sequence[Any] = [without_numpy(one) for one in value]
        return plain if isinstance(value, list) else tuple(plain)
    if isinstance(value, set | frozenset):
        return type(value)(map(without_numpy, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not made anew: it may compute fields when it is.
        changed = copy.copy(value)
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                one = without_numpy(getattr(value, field.name))
                object.__setattr__(changed, field.name, one)  # of a frozen one, too
        return changed
    return value
