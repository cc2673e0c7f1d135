"""Who asks, whether they may, and how often: the dependency that every router has."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.errors import ForbiddenError, UnauthorizedError
from app.http.addresses import caller_address, limited_address
from app.http.deps import get_runtime
from app.runtime.runtime import Runtime
from app.services.keys import Caller, Scope

# What a key's tokens of a day are spent on.
QUOTA_SCOPES = frozenset({Scope.CHAT, Scope.EMBED})

bearer = HTTPBearer(auto_error=False, description="An API key, as `app keys create` prints it.")
header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same.")

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
KeyHeader = Annotated[str | None, Depends(header)]


async def get_caller(request: Request, authorization: Bearer, key_header: KeyHeader) -> Caller:
    """Return who asks; looked up once a request.

    Raises:
        UnauthorizedError: no key where one is needed, or one that isn't valid.
        RateLimitExceededError: too many of those from this address.
        DatabaseUnavailableError: a key that was never seen while SQL doesn't answer.

    """
    if not hasattr(request.state, "caller"):
        text = authorization.credentials if authorization else key_header
        request.state.caller = await _identify(request, await get_runtime(request), text)
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]


class Guard:
    """The dependency of a group of routes: a scope, and the caller's limit for the group.

    Args:
        scope: what a key must have; None: any valid key will do.
        group: what is counted together where no scope says it.

    """

    def __init__(self, scope: Scope | None = None, *, group: str = "") -> None:
        self._scope = scope
        self._group = scope.value if scope else group

    async def __call__(self, request: Request, _: CallerDep) -> None:
        """Check, unless the route did so before it read the body; declares the key in OpenAPI."""
        await self.check(request)

    async def check(self, request: Request) -> None:
        """Let a request pass, once.

        Raises:
            ForbiddenError: the key lacks the scope.
            RateLimitExceededError: the limit is reached, or nothing is left of the day.
            ServiceError: as `get_caller` says.

        """
        if hasattr(request.state, "is_allowed"):
            return
        caller = await get_caller(request, await bearer(request), await header(request))
        if self._scope is not None and not caller.may(self._scope):
            raise ForbiddenError(f"The key has no scope {self._scope.value!r}.")
        runtime = await get_runtime(request)
        if runtime.settings.limits != "off":
            await self._limit(request, runtime, caller)
        request.state.is_allowed = True

    async def _limit(self, request: Request, runtime: Runtime, caller: Caller) -> None:
        if self._scope in QUOTA_SCOPES:
            await runtime.ledger.check(caller)
        limit = caller.limit or runtime.default_limit
        if limit is None:
            return
        verdict = await runtime.limiter.hit(limit, self._group, _who(request, runtime, caller))
        # The answer may be a response of the route's own, which no dependency can add headers to.
        request.state.headers = verdict.headers
        if not verdict.is_allowed:
            raise verdict.refusal()


async def _identify(request: Request, runtime: Runtime, text: str | None) -> Caller:
    if not runtime.settings.needs_key:
        return Caller()  # OpenAI's clients send some key, whether one is needed or not
    if text is None:
        raise UnauthorizedError
    if runtime.settings.limits == "off":
        return await runtime.keys.verify(text)
    return await runtime.lockout.verify(text, address=_address(request, runtime))


def _who(request: Request, runtime: Runtime, caller: Caller) -> str:
    """Return what a limit counts by: the key, else the address."""
    return _address(request, runtime) if caller.key_id is None else f"key:{caller.key_id}"


def _address(request: Request, runtime: Runtime) -> str:
    return limited_address(caller_address(request.scope, runtime.trusted_proxies))
