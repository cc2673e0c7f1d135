"""The JSON form of a NumPy array: numbers (or booleans, or texts) in nested lists."""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

# Which kinds of values of a list an array of a kind takes: no text becomes a number.
ACCEPTED = {"f": "iuf", "i": "iu", "u": "iu", "b": "b", "U": "U"}
SCALARS = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "U": "string"}


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
