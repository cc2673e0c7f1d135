"""Bodies of `infer`: JSON, or JSON with the tensors' bytes behind it."""

from typing import Any

from pydantic_core import from_json

from app.errors import InvalidRequestError, MalformedJsonError
from app.http.json_route import JsonRoute, StrictJsonRequest

HEADER = "inference-header-content-length"
BINARY = "application/octet-stream"
MAX_DIGITS = 9


class TensorRequest(StrictJsonRequest):
    """A request of the protocol: clients announce JSON, bytes, or nothing."""

    accepted = f"application/json or {BINARY}"

    def has_accepted_type(self) -> bool:
        """Say whether `json` can parse a body of the announced type."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in {"", BINARY}:
            return super().has_accepted_type()
        # FastAPI has a body parsed by `json` only where it is announced as JSON.
        self._headers = self.headers.mutablecopy()
        self._headers["content-type"] = "application/json"
        return True

    async def json(self) -> Any:  # noqa: ANN401  # JSON can be anything
        """Parse; tensors whose data is behind the JSON have it as bytes.

        Raises:
            MalformedJsonError: the JSON isn't JSON.
            InvalidRequestError: the lengths don't fit the body.

        """
        length = self.headers.get(HEADER)
        if length is None:
            return await super().json()
        body = await self.body()
        is_number = length.isascii() and length.isdigit() and len(length) <= MAX_DIGITS
        if not is_number or int(length) > len(body):
            raise _wrong("header", "Inference-Header-Content-Length doesn't fit the body")
        try:
            parsed = from_json(body[: int(length)], allow_inf_nan=False)
        except ValueError as failure:
            raise MalformedJsonError(f"The body is not valid JSON: {failure}.") from None
        _add_bytes(parsed, memoryview(body)[int(length) :])
        return parsed


def _add_bytes(parsed: Any, data: memoryview) -> None:  # noqa: ANN401  # JSON
    """Give each tensor that announces bytes its own, in their order.

    Raises:
        InvalidRequestError: there are more or fewer than they announce.

    """
    inputs = parsed.get("inputs") if isinstance(parsed, dict) else None
    place = 0
    for tensor in inputs if isinstance(inputs, list) else ():
        parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if type(size) is not int:
            continue  # the schema says what is wrong, if anything is
        if size < 0 or place + size > len(data) or "data" in tensor:
            raise _wrong("inputs", "binary_data_size doesn't fit the body")
        tensor["data"] = bytes(data[place : place + size])
        place += size
    if place != len(data):
        raise _wrong("inputs", "Bytes that no tensor announces")


def _wrong(field: str, message: str) -> InvalidRequestError:
    return InvalidRequestError([{"loc": ["body", field], "msg": message, "type": "value"}])


class TensorRoute(JsonRoute):
    """A route whose body is one of the protocol."""

    request_type = TensorRequest
