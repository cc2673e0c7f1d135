"""Routes with a JSON body: the caller is checked first, then the body is read as strict JSON."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from app.errors import InvalidRequestError, MalformedJsonError, UnsupportedMediaTypeError
from app.http.guard import Guard

MAX_FIELDS = 64


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


class StrictJsonRequest(Request):
    """A request whose body is JSON as RFC 8259 has it, or an error."""

    async def json(self) -> Any:  # noqa: ANN401  # JSON can be anything
        """Parse; NaN, lone surrogates, a byte-order mark and over 200 levels are refused.

        Raises:
            MalformedJsonError: with the position, but not the content.
            InvalidRequestError: it has more fields than any schema here.

        """
        try:
            parsed = from_json(await self.body(), allow_inf_nan=False)
        except ValueError as failure:
            raise MalformedJsonError(f"The body is not valid JSON: {failure}.") from None
        if isinstance(parsed, dict) and len(parsed) > MAX_FIELDS:
            # Each unknown field would become an error of its own.
            many = {"loc": ["body"], "msg": f"More than {MAX_FIELDS} fields", "type": "too_many"}
            raise InvalidRequestError([many])
        return parsed


class JsonRoute(APIRoute):
    """A route with a JSON body: another content type is 415, malformed JSON is 400.

    FastAPI parses the body before it calls dependencies, so that a client without a key could have
    megabytes parsed for the answer 401. So the guards among them are called here first.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()
        dependencies = (depends.dependency for depends in self.dependencies)
        guards = [guard for guard in dependencies if isinstance(guard, Guard)]

        async def strict(request: Request) -> Response:
            own = StrictJsonRequest(request.scope, request.receive)
            for guard in guards:
                await guard.check(own)
            if await own.body() and not _is_json(own.headers.get("content-type", "")):
                raise UnsupportedMediaTypeError
            return await handler(own)

        return strict
