"""The inputs and outputs of a graph as JSON: how values are read, written and described."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.engines.rows import RowsRefusedError

Array = npt.NDArray[Any]
# A number: so many values at this place; a name, or None: as many as there are.
Dims = tuple[int | str | None, ...]

FLOATS: Final = frozenset({"float", "double", "float16"})
TEXTS: Final = "string"
# Element types of ONNX, by their names in the types of ONNX Runtime: `tensor(float)`.
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64")},
    **{name: np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
    "bool": np.dtype(np.bool_),
    TEXTS: np.dtype(object),
}
# Exact, as in every request here: no text is a number, and neither is true.
ACCEPTED: Final[Mapping[str, set[type]]] = {
    "f": {int, float},
    "i": {int},
    "u": {int},
    "b": {bool},
    "O": {str},
}
SCALARS: Final = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "O": "string"}
WORDS: Final = {"f": "numbers", "i": "integers", "u": "integers", "b": "booleans", "O": "texts"}
NO_NUMBER: Final = "holds NaN or infinity, which JSON doesn't have"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorForm:
    """The JSON form of a tensor: nested lists, or one value where it has no dimension.

    Args:
        name: of the input or output.
        element: its element type, such as `float`.
        dims: of an item: without the one along which items are stacked.
        is_open: the graph doesn't say its dimensions: any are taken.

    """

    name: str
    element: str
    dims: Dims
    is_open: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """What NumPy calls the element type."""
        return DTYPES[self.element]

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a value."""
        if self.is_open:
            return {"description": f"{self._words}, in lists nested to any depth."}
        schema = self._scalar()
        for dim in reversed(self.dims):
            bounds = {"minItems": dim, "maxItems": dim} if isinstance(dim, int) else {"minItems": 1}
            schema = {"type": "array", "items": schema, **bounds}
        if self._is_single:
            schema = {"anyOf": [self._scalar(), schema]}
        return {**schema, "description": self._description()}

    def _scalar(self) -> dict[str, Any]:
        bounds: dict[str, Any] = {}
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            bounds = {"minimum": int(limits.min), "maximum": int(limits.max)}
        return {"type": SCALARS[self.dtype.kind], **bounds}

    @property
    def _words(self) -> str:
        """What the values are."""
        return "Texts" if self.element == TEXTS else f"{self.element} values"

    def _description(self) -> str:
        return f"{self._words}, of the shape {shape_text(self.dims)}." if self.dims else self._words

    @property
    def _is_single(self) -> bool:
        """Whether it is a list of one: a column of a table, as converters write it."""
        return self.dims == (1,)

    def read(self, value: Any) -> Array:  # noqa: ANN401  # parsed JSON
        """Return a value as an array of the item's shape.

        Raises:
            ValueError: it has another shape, or values of another type; without the values.

        """
        given = [value] if self._is_single and not isinstance(value, list) else value
        array = np.asarray(given, dtype=object)
        values = array.ravel().tolist()
        if not self._fits(array.shape) or list in (types := set(map(type, values))):
            raise ValueError(self._shape_refusal(array.shape))
        if not types <= ACCEPTED[self.dtype.kind]:
            raise ValueError(f"the values must be {WORDS[self.dtype.kind]}")
        return self._converted(array, values)

    def _fits(self, shape: Sequence[int]) -> bool:
        if 0 in shape:
            return False
        return self.is_open or (
            len(shape) == len(self.dims)
            and all(d == n for d, n in zip(self.dims, shape, strict=True) if isinstance(d, int))
        )

    def _shape_refusal(self, shape: Sequence[int]) -> str:
        if self.is_open:
            return "a value is needed, or lists that are of one length at each level and not empty"
        if not self.dims:
            return f"one value is needed, not {'a list' if shape else 'an object'}"
        return (
            f"lists of the shape {shape_text(self.dims)} are needed, of one length at each level"
            f" and not empty; these have the shape {shape_text(tuple(shape))}"
        )

    def _converted(self, array: Array, values: Sequence[Any]) -> Array:
        """Return an array of the element type; values that it can't hold are refused."""
        kind = self.dtype.kind
        if kind in "iu":
            limits = np.iinfo(self.dtype)
            if min(values) < limits.min or max(values) > limits.max:
                raise ValueError(f"a value is too large or too small for {self.element}")
        if kind != "f":
            return array.astype(self.dtype)
        try:
            with np.errstate(over="ignore"):
                converted: Array = array.astype(self.dtype)
        except OverflowError:
            converted = np.asarray(np.inf)
        if not np.isfinite(converted).all():
            raise ValueError(f"a value is too large for {self.element}")
        return converted

    def write(self, array: Array | str) -> Any:  # noqa: ANN401  # nested lists
        """Return an item's part of an output as JSON has it.

        Raises:
            RowsRefusedError: it holds NaN or infinity.

        """
        if isinstance(array, str):
            return array
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RowsRefusedError(f"the output {self.name} {NO_NUMBER}")
        return array.tolist()

    def lengths(self, array: Array) -> dict[str, int]:
        """Return the length of each dimension of an item that has a name."""
        pairs = zip(self.dims, array.shape, strict=False)  # an open one has no dimensions
        return {dim: length for dim, length in pairs if isinstance(dim, str)}

    def cost(self, array: Array) -> int:
        """Return the product of an item's lengths that the graph leaves open, at least 1."""
        dims = self.dims or (None,) * array.ndim
        pairs = zip(dims, array.shape, strict=True)
        product: int = math.prod(length for dim, length in pairs if not isinstance(dim, int))
        return max(1, product)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapForm:
    """The JSON form of maps, as ZipMap of scikit-learn's converter gives them: label → number.

    Args:
        name: of the output.
        is_listed: a value is all maps of the output, not that of one item.

    """

    name: str
    is_listed: bool = False

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a value."""
        one = {
            "type": "object",
            "additionalProperties": {"type": "number"},
            "description": "A number for each label.",
        }
        return {"type": "array", "items": one} if self.is_listed else one

    def write(self, value: Any) -> Any:  # noqa: ANN401  # a map, or a list of them
        """Return a map as an object of JSON: labels that are numbers are texts there.

        Raises:
            RowsRefusedError: it holds NaN or infinity.

        """
        return [self._one(one) for one in value] if self.is_listed else self._one(value)

    def _one(self, numbers: Mapping[Any, float]) -> dict[str, float]:
        if not all(map(math.isfinite, numbers.values())):
            raise RowsRefusedError(f"the output {self.name} {NO_NUMBER}")
        return {str(label): float(number) for label, number in numbers.items()}


Form = TensorForm | MapForm


def shape_text(dims: Sequence[int | str | None]) -> str:
    """Return a shape as Python writes tuples; a dimension without a name is a question mark."""
    inner = ", ".join("?" if dim is None else str(dim) for dim in dims)
    return f"({inner},)" if len(dims) == 1 else f"({inner})"
