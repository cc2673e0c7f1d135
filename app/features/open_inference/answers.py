"""Answers of `infer`: JSON, or JSON with the tensors' bytes behind it."""

from collections.abc import Iterator
from typing import Any

from fastapi import Response
from pydantic_core import to_json

from app.engines.base import FloatArray
from app.features.open_inference.requests import BINARY
from app.features.open_inference.schemas import LENGTH, InferRequest
from app.http.large_answers import fields_of, joined, large_answer, list_of
from app.http.tensors import Tensors, wrong_tensor

AT_ONCE = 500  # numbers that are encoded together


def _wanted(body: InferRequest, found: Tensors) -> dict[str, bool]:
    """Return the names of the tensors to answer, and whether each is answered as bytes.

    Raises:
        InvalidRequestError: there is no such tensor.

    """
    is_binary = bool(body.parameters and body.parameters.binary_data_output)
    if not body.outputs:
        return dict.fromkeys(found, is_binary)
    wanted = {}
    for output in body.outputs:
        if output.name not in found:
            raise wrong_tensor(output.name, f"The model answers {', '.join(found)}")
        own = output.parameters.binary_data if output.parameters else None
        wanted[output.name] = is_binary if own is None else own
    return wanted


async def infer_answer(body: InferRequest, found: Tensors, *, model: str, version: str) -> Response:
    """Return the tensors that a request wants.

    Raises:
        InvalidRequestError: there is no such tensor.

    """
    wanted = _wanted(body, found)
    head = {"model_name": model, "model_version": version}
    head |= {} if body.id is None else {"id": body.id}
    data = {name: _bytes(found[name]) for name, is_binary in wanted.items() if is_binary}
    outputs = (_output(name, found[name], data.get(name)) for name in wanted)
    pieces = fields_of({**head, "outputs": joined(outputs)})
    values = sum(_size(found[name]) for name in wanted if name not in data)
    answer = await large_answer(lambda: pieces, values=values)
    if not data:
        return answer
    described = bytes(answer.body)
    return Response(
        b"".join((described, *data.values())),
        media_type=BINARY,
        headers={"Inference-Header-Content-Length": str(len(described))},
    )


def _size(values: "FloatArray | list[str]") -> int:
    return len(values) if isinstance(values, list) else values.size


def _output(name: str, values: "FloatArray | list[str]", data: bytes | None) -> Iterator[bytes]:
    """Yield a tensor as JSON, without its data where that comes as bytes."""
    is_text = isinstance(values, list)
    shape = [len(values)] if is_text else list(values.shape)  # type: ignore[union-attr]
    fields: dict[str, Any] = {"name": name, "shape": shape}
    fields["datatype"] = "BYTES" if is_text else "FP32"
    if data is not None:
        fields["parameters"] = {"binary_data_size": len(data)}
    elif isinstance(values, list):
        fields["data"] = iter([to_json(values)])
    else:
        fields["data"] = list_of(values.ravel().tolist(), at_once=AT_ONCE)
    return fields_of(fields)


def _bytes(values: "FloatArray | list[str]") -> bytes:
    """Return a tensor as the protocol's bytes: the lowest byte first, row by row."""
    if not isinstance(values, list):
        return values.astype("<f4").tobytes()
    texts = [text.encode("utf-8", "surrogatepass") for text in values]
    return b"".join(LENGTH.pack(len(text)) + text for text in texts)
