"""What a graph takes and gives, and along what its items can be stacked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

from app.core.field_errors import field_errors
from app.engines.onnx.tensors import DTYPES, Array, Dims, Form, MapForm, TensorForm
from app.errors import EngineError, InvalidRequestError

TENSOR: Final = re.compile(r"tensor\((\w+)\)")
MAPS: Final = re.compile(r"seq\(map\((?:int64|string),tensor\((?:float|double)\)\)\)")
BODY: Final = "body"
# As Pydantic has them: clients see one kind of errors, whatever serves a model.
MISSING: Final = {"msg": "Field required", "type": "missing"}
UNKNOWN: Final = {"msg": "Extra inputs are not permitted", "type": "extra_forbidden"}
NO_OBJECT: Final = {"msg": "Input should be an object", "type": "model_type"}


class Stacking(StrEnum):
    """How items become a call."""

    STACKED = "stacked"  # many, along the first dimension of each input
    ONE = "one"  # one, with a first dimension of 1 that requests don't have
    WHOLE = "whole"  # one, in the shapes of the graph


class Node(Protocol):
    """An input or output, as ONNX Runtime describes it."""

    name: str
    type: str
    shape: Sequence[int | str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The inputs and outputs of a graph, as forms of an item's.

    Args:
        inputs: what a request's item has.
        outputs: what its answer has.
        stacking: how items become a call.

    """

    inputs: tuple[TensorForm, ...]
    outputs: tuple[Form, ...]
    stacking: Stacking

    def item_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of an item: an object with each input."""
        return _object(self.inputs)

    def answer_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of an answer: an object with each output."""
        return _object(self.outputs)

    def read(self, value: Any) -> dict[str, Array]:  # noqa: ANN401  # parsed JSON
        """Return an item's arrays, by the names of the inputs.

        Raises:
            InvalidRequestError: an input is missing, unknown or wrong; names each.

        """
        if not isinstance(value, Mapping):
            raise InvalidRequestError([{"loc": [BODY], **NO_OBJECT}])
        arrays: dict[str, Array] = {}
        errors: list[dict[str, Any]] = []
        for form in self.inputs:
            if form.name not in value:
                errors.append({"loc": (BODY, form.name), **MISSING})
                continue
            try:
                arrays[form.name] = form.read(value[form.name])
            except ValueError as refused:
                errors.append(_refused(form.name, str(refused)))
        names = {form.name for form in self.inputs}
        errors += [{"loc": (BODY, str(n)), **UNKNOWN} for n in value if n not in names]
        errors += [] if errors else self._unequal(arrays)
        if errors:
            raise InvalidRequestError(field_errors(errors))
        return arrays

    def _unequal(self, arrays: Mapping[str, Array]) -> list[dict[str, Any]]:
        """Return errors of inputs whose lengths differ where the graph has one name for both.

        ONNX Runtime doesn't compare them, and what an operator does with them is its own affair.
        """
        known: dict[str, tuple[str, int]] = {}
        errors = []
        for form in self.inputs:
            for dim, length in form.lengths(arrays[form.name]).items():
                first, expected = known.setdefault(dim, (form.name, length))
                if length != expected:
                    message = f"{dim} is {length} here, and {expected} in {first}"
                    errors.append(_refused(form.name, message))
        return errors

    def cost(self, arrays: Mapping[str, Array]) -> int:
        """Return the work of an item: of its largest input, what the graph leaves open."""
        return max((form.cost(arrays[form.name]) for form in self.inputs), default=1)


def _object(forms: Sequence[Form]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {form.name: form.schema() for form in forms},
        "required": [form.name for form in forms],
        "additionalProperties": False,
    }


def _refused(name: str, message: str) -> dict[str, Any]:
    return {"loc": (BODY, name), "msg": message, "type": "value_error"}


def read_graph(inputs: Sequence[Node], outputs: Sequence[Node]) -> Graph:
    """Return what a graph takes and gives in a call.

    Raises:
        EngineError: one of its types has no form in JSON here; names it.

    """
    if not inputs:
        raise EngineError("the graph has no input: its answer never changes")
    return Graph(
        inputs=tuple(_tensor(node, "input") for node in inputs),
        outputs=tuple(_output(node) for node in outputs),
        stacking=Stacking.WHOLE,
    )


def stacked(whole: Graph, stacking: Stacking) -> Graph:
    """Return a graph whose items go without the first dimension, where a call has it for them."""
    if stacking is Stacking.WHOLE:
        return whole
    return Graph(
        inputs=tuple(replace(form, dims=form.dims[1:]) for form in whole.inputs),
        outputs=tuple(map(_of_item, whole.outputs)),
        stacking=stacking,
    )


def _of_item(form: Form) -> Form:
    if isinstance(form, MapForm):
        return replace(form, is_listed=False)
    return replace(form, dims=form.dims[1:])


def _tensor(node: Node, role: str) -> TensorForm:
    match = TENSOR.fullmatch(node.type)
    if match is None or match[1] not in DTYPES:
        raise EngineError(
            f"the {role} {node.name} is {node.type}, which can't be served: JSON has a form for"
            f" tensors of {', '.join(DTYPES)}; for all else, a Python class can call the graph"
        )
    # ONNX Runtime says the same of a tensor without dimensions and of one whose aren't known.
    dims: Dims = tuple(node.shape)
    return TensorForm(name=node.name, element=match[1], dims=dims, is_open=not dims)


def _output(node: Node) -> Form:
    if MAPS.fullmatch(node.type):
        return MapForm(name=node.name, is_listed=True)
    return _tensor(node, "output")


def stacking_of(whole: Graph) -> Stacking:
    """Return how items become a call, as far as the shapes tell.

    The first dimension is for items where each input leaves it open, under one name, and no
    output has a number of rows of its own. One row may be what an exporter wrote there.
    """
    if any(form.is_open for form in whole.inputs):
        return Stacking.WHOLE
    firsts = {form.dims[0] for form in whole.inputs}
    outputs = {f.dims[0] for f in whole.outputs if isinstance(f, TensorForm) and not f.is_open}
    if not all(first == 1 or not isinstance(first, int) for first in outputs):
        return Stacking.WHOLE
    if firsts == {1}:
        return Stacking.ONE
    is_left_open = not any(isinstance(first, int) for first in firsts)
    has_one_name = len({first for first in firsts if first is not None}) <= 1
    return Stacking.STACKED if is_left_open and has_one_name else Stacking.WHOLE
