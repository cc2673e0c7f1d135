"""Answers a request by a plan of its route's dependencies, which is made once for the route.

FastAPI walks through the tree of dependencies for each request, at 15 to 20 µs for each of them. A
request that isn't plainly right is left to it, and so is a route with anything that
`_Planner.check` doesn't know: docs/decisions/0017-direct-routes.md.
"""

import inspect
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from fastapi import BackgroundTasks, Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.routing import serialize_response

Handler = Callable[[Request], Awaitable[Response]]
# Values are kept by number while a request is served; the first are those that FastAPI makes.
REQUEST: Final = 0
BACKGROUND: Final = 1
BODY: Final = 2
# Of `Dependant`: parameters that a plan doesn't provide.
UNKNOWN = (
    *("query_params", "cookie_params", "websocket_param_name", "response_param_name"),
    *("security_scopes_param_name", "own_oauth_scopes", "concurrency"),
)
PLAIN = frozenset({str, int, float, bool})


class UnplannedError(Exception):
    """FastAPI can serve this route, and a plan can't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A dependency or the endpoint: what is called with which values, where its result goes."""

    call: Callable[..., Awaitable[Any]]
    arguments: tuple[tuple[str, int], ...]
    result: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameter:
    """A parameter in the headers or the path."""

    field: Any  # FastAPI's ModelField
    name: str
    result: int


class _Planner:
    """Puts a route's dependencies in order, each after those that it needs.

    Args:
        done: dependencies without a result that were called before.

    """

    def __init__(self, done: Container[object]) -> None:
        self._done = done
        self.calls: list[_Call] = []
        self.headers: list[_Parameter] = []
        self.path: list[_Parameter] = []
        self.values = BODY + 1
        self._results: dict[Any, int] = {}

    def add(self, dependant: Dependant) -> int:
        """Add a dependency, and before it those that it needs; return the number of its result.

        Raises:
            UnplannedError: one of them is of another kind.

        """
        call = self.check(dependant)
        arguments = []
        for needed in dependant.dependencies:
            if needed.name is None and needed.call in self._done:
                continue
            known = self._results.get(needed.call) if needed.use_cache else None
            number = self.add(needed) if known is None else known
            arguments.append((needed.name, number))
        arguments += [
            (dependant.request_param_name, REQUEST),
            (dependant.http_connection_param_name, REQUEST),
            (dependant.background_tasks_param_name, BACKGROUND),
        ]
        arguments += [(field.name, BODY) for field in dependant.body_params]
        for fields, parameters in (
            (dependant.header_params, self.headers),
            (dependant.path_params, self.path),
        ):
            for field in fields:
                parameters.append(
                    _Parameter(field=field, name=field.alias, result=self._next_number())
                )
                arguments.append((field.name, parameters[-1].result))
        result = self._results[call] = self._next_number()
        named = tuple((name, number) for name, number in arguments if name is not None)
        self.calls.append(_Call(call=call, arguments=named, result=result))
        return result

    def check(self, dependant: Dependant) -> Callable[..., Awaitable[Any]]:
        """Return what is to be called, if a plan can provide all that it takes.

        Raises:
            UnplannedError: it takes something else, or isn't a coroutine function.

        """
        call = dependant.call
        is_coroutine = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
            getattr(call, "__call__", None)  # noqa: B004  # of an object such as HTTPBearer
        )
        if call is None or not is_coroutine or any(getattr(dependant, n) for n in UNKNOWN):
            raise UnplannedError
        for field in dependant.header_params:
            if field.field_info.is_required() or field.field_info.annotation not in PLAIN:
                raise UnplannedError
        return call

    def _next_number(self) -> int:
        self.values += 1
        return self.values - 1


class Plan:
    """Answers requests of one route.

    Args:
        options: with which FastAPI made the route's handler.
        done: dependencies without a result that are called before.

    Raises:
        UnplannedError: the route needs FastAPI.

    """

    def __init__(self, options: Mapping[str, Any], done: Container[object]) -> None:
        planner = _Planner(done)
        bodies = options["dependant"].body_params
        is_json = isinstance(options["response_class"], DefaultPlaceholder)
        if len(bodies) != 1 or not is_json or options["response_field"] is None:
            raise UnplannedError
        if options["embed_body_fields"] or options["is_body_form"] or options["is_json_stream"]:
            raise UnplannedError
        self._result = planner.add(options["dependant"])
        self._body = bodies[0]
        self._calls, self._values = tuple(planner.calls), planner.values
        self._headers, self._path = tuple(planner.headers), tuple(planner.path)
        self._status = options["status_code"] or 200
        self._serialize = {
            "field": options["response_field"],
            "include": options["response_model_include"],
            "exclude": options["response_model_exclude"],
            "by_alias": options["response_model_by_alias"],
            "exclude_unset": options["response_model_exclude_unset"],
            "exclude_defaults": options["response_model_exclude_defaults"],
            "exclude_none": options["response_model_exclude_none"],
            "dump_json": True,
        }

    @classmethod
    def of(cls, handler: Handler, *, done: Container[object] = ()) -> Self | None:
        """Return the plan of a handler that FastAPI made; None where there can't be one."""
        try:
            return cls(inspect.getclosurevars(handler).nonlocals, done)
        except (UnplannedError, KeyError):  # or FastAPI makes handlers in another way now
            return None

    async def answer(self, request: Request, body: Any) -> Response | None:  # noqa: ANN401  # JSON
        """Call the dependencies and the endpoint; None if FastAPI is to say what is wrong.

        Args:
            request: whose body was read.
            body: as parsed.

        Raises:
            Exception: as the dependencies and the endpoint.

        """
        values: list[Any] = [None] * self._values
        values[REQUEST] = request
        values[BACKGROUND] = background = BackgroundTasks()
        values[BODY], errors = self._body.validate(body, {}, loc=("body",))
        if errors or not self._read(request, values):
            return None
        for step in self._calls:
            arguments = {name: values[number] for name, number in step.arguments}
            values[step.result] = await step.call(**arguments)
        result = values[self._result]
        if isinstance(result, Response):
            result.background = result.background or background
            return result
        content = await serialize_response(response_content=result, **self._serialize)
        return Response(content, self._status, media_type="application/json", background=background)

    def _read(self, request: Request, values: list[Any]) -> bool:
        """Read parameters; False if one is wrong."""
        for parameter in self._headers:
            field = parameter.field
            if parameter.name not in request.headers:
                values[parameter.result] = field.default
                continue
            read, errors = request_params_to_args([field], request.headers)
            if errors:
                return False
            values[parameter.result] = read[field.name]
        for parameter in self._path:
            read, errors = request_params_to_args([parameter.field], request.path_params)
            if errors:
                return False
            values[parameter.result] = read[parameter.field.name]
        return True
