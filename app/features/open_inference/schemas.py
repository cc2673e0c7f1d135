"""The wire contract of `infer`: what a request may have, and the texts in it.

Parameters that would bring files, memory or configuration are unknown here, and so refused.
"""

import struct
from collections.abc import Iterator, Sequence
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field

from app.http.tensors import TensorTask, Texts, wrong_tensor
from app.models.schemas import MAX_NAME_CHARS, Request

Size = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]
LENGTH = struct.Struct("<I")  # before each text in bytes
MAX_DEPTH = 8
NOT_TEXTS = "Not a list of texts"


class TensorParameters(Request):
    """What is said of a tensor."""

    binary_data_size: Size | None = None
    content_type: Literal["str"] | None = None


class InputTensor(Request):
    """Texts."""

    name: Name
    shape: Annotated[list[Size], Field(min_length=1, max_length=MAX_DEPTH)]
    datatype: Literal["BYTES"]
    parameters: TensorParameters | None = None
    data: bytes | list[Any]


class OutputParameters(Request):
    """How a tensor is answered."""

    binary_data: bool | None = None


class OutputTensor(Request):
    """A tensor that is wanted."""

    name: Name
    parameters: OutputParameters | None = None


class InferParameters(Request):
    """How all tensors are answered."""

    binary_data_output: bool | None = None


class InferRequest(Request):
    """Tensors of texts, and which tensors are wanted; without a word all."""

    id: Annotated[str, Field(max_length=256)] | None = None
    # KServe's client says again what the path says.
    model_name: Name | None = None
    model_version: Annotated[str, Field(max_length=256)] | None = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=8)]
    outputs: Annotated[list[OutputTensor], Field(max_length=8)] | None = None


def texts_of(body: InferRequest, tensors: TensorTask) -> Texts:
    """Return the texts of each tensor.

    Raises:
        InvalidRequestError: one is missing, unknown or wrong, or has too many texts.

    """
    found: dict[str, list[str]] = {}
    for tensor in body.inputs:
        if tensor.name not in tensors.inputs or tensor.name in found:
            known = ", ".join(tensors.inputs)
            raise wrong_tensor(tensor.name, f"The model takes each of {known} once")
        data = tensor.data
        found[tensor.name] = list(
            _from_bytes(tensor.name, data)
            if isinstance(data, bytes)
            else _from_lists(tensor.name, data)
        )
        count = len(found[tensor.name])
        if count != prod(tensor.shape):
            raise wrong_tensor(tensor.name, f"The shape isn't that of {count} texts")
        if not 1 <= count <= tensors.max_texts:
            raise wrong_tensor(tensor.name, f"1 to {tensors.max_texts} texts are taken")
    for name in tensors.inputs:
        if name not in found:
            raise wrong_tensor(name, "Tensor required")
    return found


def _from_lists(name: str, data: Sequence[Any], depth: int = 1) -> Iterator[str]:
    """Yield the texts of lists in lists."""
    for value in data:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list) and depth < MAX_DEPTH:
            yield from _from_lists(name, value, depth + 1)
        else:
            raise wrong_tensor(name, NOT_TEXTS)


def _from_bytes(name: str, data: bytes) -> Iterator[str]:
    """Yield texts, each in UTF-8 after its length in four bytes, the lowest first."""
    place = 0
    while place < len(data):
        start = place + LENGTH.size
        if start > len(data):
            raise wrong_tensor(name, NOT_TEXTS)
        (length,) = LENGTH.unpack_from(data, place)
        place = start + length
        if place > len(data):
            raise wrong_tensor(name, NOT_TEXTS)
        try:
            yield data[start:place].decode()
        except UnicodeDecodeError:
            raise wrong_tensor(name, "A text isn't UTF-8") from None
