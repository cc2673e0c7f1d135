"""Where callers find the service: for links, the only thing that a proxy's prefix changes."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.core.prefix import forwarded_prefix
from app.errors import SettingsError
from app.http.guard import get_access

HEADER = "x-forwarded-prefix"


async def public_prefix(request: Request) -> str:
    """Return what stands before the service's paths for this caller: ROOT_PATH, or "".

    `X-Forwarded-Prefix` of a trusted proxy takes its place.
    """
    configured: str = request.app.state.prefix
    header = request.headers.get(HEADER)
    if header is None or not (await get_access(request)).is_proxy(request.scope):
        return configured
    forwarded = forwarded_prefix(header)
    return configured if forwarded is None else forwarded


PrefixDep = Annotated[str, Depends(public_prefix)]


def check_prefix(prefix: str, routers: Iterable[APIRouter]) -> None:
    """Refuse a prefix that begins like a path of the service: it would be taken off that too.

    Raises:
        SettingsError: it does.

    """
    paths = [getattr(route, "path", "") for router in routers for route in router.routes]
    first = {path.split("/")[1] for path in ("/static", *paths) if path}
    if prefix and prefix.split("/")[1] in first:
        raise SettingsError(f"ROOT_PATH: {prefix} begins like a path of the service itself")
