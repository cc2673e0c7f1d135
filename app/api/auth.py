"""Who asks, whether they may, and how often: the dependency that every router has."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.api.callers import caller_address, limited_address
from app.api.deps import RuntimeDep
from app.errors import ForbiddenError, UnauthorizedError
from app.limits.limit import parse
from app.runtime.runtime import Runtime
from app.services.keys import Caller, Scope

# Wrong keys from one address; a person mistypes a few times, a guesser doesn't stop there.
FAILURES = parse("20/minute")

# What a key's tokens of a day are spent on.
QUOTA_SCOPES = frozenset({Scope.CHAT, Scope.EMBED})

bearer = HTTPBearer(auto_error=False, description="An API key, as `app keys create` prints it.")
header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same.")

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
KeyHeader = Annotated[str | None, Depends(header)]


async def get_caller(
    request: Request, runtime: RuntimeDep, authorization: Bearer, key_header: KeyHeader
) -> Caller:
    """Return who asks.

    Raises:
        UnauthorizedError: no key where one is needed, or one that isn't valid.
        RateLimitExceededError: too many of those from this address.
        DatabaseUnavailableError: a key that was never seen while SQL doesn't answer.

    """
    if not runtime.settings.needs_key:
        return Caller()  # OpenAI's clients send some key, whether one is needed or not
    text = authorization.credentials if authorization else key_header
    if text is None:
        raise UnauthorizedError
    if runtime.settings.limits == "off":
        return await runtime.keys.verify(text)
    address = _address(request, runtime)
    failures = await runtime.failures.peek(FAILURES, "key", address)
    if not failures.is_allowed:
        raise failures.refusal()
    try:
        return await runtime.keys.verify(text)
    except UnauthorizedError:
        await runtime.failures.charge(FAILURES, "key", address, cost=1)
        raise


CallerDep = Annotated[Caller, Depends(get_caller)]


def allow(scope: Scope) -> Callable[..., Awaitable[None]]:
    """Return the dependency of a group of routes: a scope, and the caller's limit for the group."""

    async def check(request: Request, runtime: RuntimeDep, caller: CallerDep) -> None:
        if not caller.may(scope):
            raise ForbiddenError(f"The key has no scope {scope.value!r}.")
        if runtime.settings.limits == "off":
            return
        if scope in QUOTA_SCOPES:
            await runtime.ledger.check(caller)
        limit = caller.limit or runtime.default_limit
        if limit is None:
            return
        verdict = await runtime.limiter.hit(limit, scope.value, _who(request, runtime, caller))
        # The answer may be a response of the route's own, which no dependency can add headers to.
        request.state.headers = verdict.headers
        if not verdict.is_allowed:
            raise verdict.refusal()

    return check


def _who(request: Request, runtime: RuntimeDep, caller: Caller) -> str:
    """Return what a limit counts by: the key, else the address."""
    if caller.key_id is not None:
        return f"key:{caller.key_id}"
    return _address(request, runtime)


def _address(request: Request, runtime: Runtime) -> str:
    return limited_address(caller_address(request.scope, runtime.trusted_proxies))
