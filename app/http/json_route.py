"""Routes with a JSON body: the caller is checked first, then the body is read as strict JSON."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect
from starlette.types import Message, Scope

from app.errors import InvalidRequestError, MalformedJsonError, UnsupportedMediaTypeError
from app.http.direct import Handler, Plan
from app.http.guard import Guard

MAX_FIELDS = 64
# Paths with parameters are as many as clients make of them: those of these are remembered.
MAX_REMEMBERED = 1024


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


class StrictJsonRequest(Request):
    """A request whose body is JSON as RFC 8259 has it, or an error.

    Attributes:
        max_fields: that an object may have which is the whole body; its route says so.
        accepted: types of a body, for the message about another one.

    """

    max_fields = MAX_FIELDS
    accepted = "application/json"

    def has_accepted_type(self) -> bool:
        """Say whether `json` can parse a body of the announced type."""
        return _is_json(self.headers.get("content-type", ""))

    async def body(self) -> bytes:
        """Return the body, which comes in one piece from the front; Starlette's takes longer.

        Raises:
            ClientDisconnect: the client left before its end.

        """
        if not hasattr(self, "_body"):
            pieces: list[bytes] = []
            has_more = True
            while has_more:
                message = await self.receive()
                if message["type"] != "http.request":
                    raise ClientDisconnect
                pieces.append(message.get("body", b""))
                has_more = message.get("more_body", False)
            self._body: bytes = b"".join(pieces)
        return self._body

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
        if isinstance(parsed, dict) and len(parsed) > self.max_fields:
            # Each unknown field would become an error of its own.
            message = f"More than {self.max_fields} fields"
            many = {"loc": ["body"], "msg": message, "type": "too_many"}
            raise InvalidRequestError([many])
        return parsed

    async def replay(self) -> Message:
        """Receive, beginning with the body if it was read."""
        if not hasattr(self, "_body"):
            return await self.receive()
        body = self._body
        del self._body
        return {"type": "http.request", "body": body, "more_body": False}


class JsonHandler:
    """Answers the requests of one route.

    Args:
        handler: FastAPI's.
        guards: which check the caller.
        max_fields: of a body that is an object.
        request_type: reads the body.

    """

    def __init__(
        self,
        handler: Handler,
        guards: list[Guard],
        *,
        max_fields: int,
        request_type: type[StrictJsonRequest] = StrictJsonRequest,
    ) -> None:
        self.request_type = request_type
        self._handler = handler
        self._max_fields = max_fields
        self._guards = guards
        self.plan = Plan.of(handler, done=guards)

    async def __call__(self, request: Request) -> Response:
        """Answer by way of FastAPI.

        Raises:
            UnsupportedMediaTypeError: the body isn't JSON.
            ServiceError: as the guards and the route.

        """
        own = self.request_type(request.scope, request.receive)
        await self._check(own)
        own.scope["state"]["handler"] = self
        return await self._handler(own)

    async def answer(self, request: StrictJsonRequest) -> Response | None:
        """Answer by the plan; None if FastAPI is to answer. Raises as above."""
        has_body = await self._check(request)
        if self.plan is None or not has_body:
            return None
        return await self.plan.answer(request, await request.json())

    async def _check(self, request: StrictJsonRequest) -> bool:
        """Check the caller, and what kind of body there is; return whether there is one."""
        request.max_fields = self._max_fields
        for guard in self._guards:
            await guard.check(request)
        if not await request.body():
            return False
        if not request.has_accepted_type():
            raise UnsupportedMediaTypeError(
                f"The body must be sent as Content-Type: {request.accepted}."
            )
        return True


class JsonRoute(APIRoute):
    """A route with a JSON body: another content type is 415, malformed JSON is 400.

    FastAPI parses the body before it calls dependencies, so that a client without a key could have
    megabytes parsed for the answer 401. So the guards among them are called here first.

    Attributes:
        max_fields: of a body that is an object.
        request_type: reads the body.

    """

    max_fields = MAX_FIELDS
    request_type = StrictJsonRequest

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()
        dependencies = (depends.dependency for depends in self.dependencies)
        guards = [guard for guard in dependencies if isinstance(guard, Guard)]
        return JsonHandler(
            handler, guards, max_fields=self.max_fields, request_type=self.request_type
        ).__call__


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What was found for a path.

    Args:
        handler: answers its requests.
        name: of the route, as metrics have it.
        routed: what FastAPI's router has put into the scope.

    """

    handler: JsonHandler
    name: str
    routed: Scope


class RememberedRoutes:
    """Remembers which route FastAPI's router found for a path, where the route has a plan."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Remembered] = {}

    def find(self, scope: Scope) -> Remembered | None:
        """Return what is known of a request's path, and put its route into the scope.

        None if the path wasn't seen before, or where an app's dependencies are overridden.
        """
        found = self._found.get((scope["method"], scope["path"]))
        if found is None or scope["app"].dependency_overrides:
            return None
        scope.update(found.routed)
        return found

    def remember(self, scope: Scope, name: str) -> None:
        """Remember a request that was routed, under the name of its route."""
        handler = scope["state"].get("handler")
        if handler is None or handler.plan is None or len(self._found) >= MAX_REMEMBERED:
            return
        routed = {key: scope[key] for key in ("route", "endpoint", "path_params")}
        found = Remembered(handler=handler, name=name, routed=routed)
        self._found[scope["method"], scope["path"]] = found
