"""Identifies the caller of a request, and checks scope and limit: every router depends on it."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.core.callers import Caller, Scope
from app.core.version_choice import version_choice
from app.errors import ForbiddenError
from app.http.deps import get_runtime
from app.services.access import Access

# Routes with these scopes cost tokens of a key's daily quota.
QUOTA_SCOPES = frozenset({Scope.CHAT, Scope.EMBED})

bearer = HTTPBearer(auto_error=False, description="An API key, as `app keys create` prints it.")
header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same.")

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
KeyHeader = Annotated[str | None, Depends(header)]


async def get_access(request: Request) -> Access:
    """Return what identifies and limits callers."""
    return (await get_runtime(request)).access


AccessDep = Annotated[Access, Depends(get_access)]


async def get_caller(request: Request, authorization: Bearer, key_header: KeyHeader) -> Caller:
    """Return the caller; it is looked up once for each request.

    Raises:
        UnauthorizedError: no key where one is needed, or one that isn't valid.
        RateLimitExceededError: too many invalid keys from this address.
        DatabaseUnavailableError: a key that was never seen while SQL doesn't answer.

    """
    if not hasattr(request.state, "caller"):
        key = authorization.credentials if authorization else key_header
        access = await get_access(request)
        request.state.caller = await access.identify(key, request.scope)
        if (choice := version_choice.get()) is not None:
            choice.caller = request.state.caller.identity
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]


class Guard:
    """The dependency of a group of routes: a scope, and the caller's limit for the group.

    Args:
        scope: what a key must have; None: any valid key will do.
        group: the name that the routes are counted under, where there is no scope.

    """

    def __init__(self, scope: Scope | None = None, *, group: str = "") -> None:
        self._scope = scope
        self._group = scope.value if scope else group

    async def __call__(self, request: Request, _: CallerDep) -> None:
        """Check, unless the route has done so; as a dependency it puts the key into OpenAPI."""
        await self.check(request)

    async def check(self, request: Request) -> None:
        """Check a request, only once.

        Raises:
            ForbiddenError: the key lacks the scope.
            RateLimitExceededError: the limit or the day's quota is reached.
            ServiceError: as `get_caller` says.

        """
        if hasattr(request.state, "is_allowed"):
            return
        caller = await get_caller(request, await bearer(request), await header(request))
        if self._scope is not None and not caller.may(self._scope):
            raise ForbiddenError(f"The key has no scope {self._scope.value!r}.")
        access = await get_access(request)
        # Not set on FastAPI's response: a route may return a response of its own instead.
        request.state.headers = await access.admit(
            caller,
            request.scope,
            group=self._group,
            spends_tokens=self._scope in QUOTA_SCOPES,
        )
        request.state.is_allowed = True


class Known(Guard):
    """Identifies the caller alone: which scope is needed the model says, or the body."""

    async def check(self, request: Request) -> None:
        """Check that the key is valid where one is needed; raises as `get_caller`."""
        await get_caller(request, await bearer(request), await header(request))
