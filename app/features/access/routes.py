"""`/keys`: making, listing and revoking API keys."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from app.core.callers import Scope
from app.errors import DatabaseUnavailableError, InvalidRequestError, KeyNotFoundError
from app.features.access.deps import PartDep
from app.features.access.keys import KeySpec, KeySpecError
from app.features.access.schemas import MAX_PAGE, KeyInfo, KeyList, KeyRequest, NewKey
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, problems

router = APIRouter(
    prefix="/keys", tags=["keys"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.ADMIN))]
)
STORED = (*WITH_KEY, DatabaseUnavailableError)
MAX_ID = 2**53 - 1


def _scopes(body: KeyRequest) -> list[Scope]:
    """Return the scopes; the error for an unknown one has its index, not its text."""
    known = set(Scope)
    for index, scope in enumerate(body.scopes):
        if scope not in known:
            allowed = ", ".join(sorted(known))
            error = {"loc": ["body", "scopes", index], "msg": f"one of {allowed}", "type": "enum"}
            raise InvalidRequestError([error])
    return [Scope(scope) for scope in body.scopes]


@router.post("", status_code=201, summary="Make a key", responses=problems(*WITH_BODY, *STORED))
async def create_key(body: KeyRequest, part: PartDep, response: Response) -> NewKey:
    """Make a key; its text is in this answer, and nowhere else, ever."""
    spec = KeySpec(
        name=body.name,
        scopes=_scopes(body),
        limit=body.limit,
        tokens_per_day=body.tokens_per_day,
        lifetime=timedelta(days=body.expires_days) if body.expires_days else None,
    )
    try:
        key, text = await part.keys.create(spec)
    except KeySpecError as bad:
        error = {"loc": ["body", bad.field], "msg": str(bad), "type": "value_error"}
        raise InvalidRequestError([error]) from None
    response.headers["Cache-Control"] = "no-store"
    return NewKey(**KeyInfo.of(key).model_dump(), key=text)


@router.get("", summary="List keys", responses=problems(*STORED, InvalidRequestError))
async def list_keys(
    part: PartDep,
    before_id: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> KeyList:
    """List keys without their secrets, newest first."""
    keys = await part.keys.list(before_id=before_id, limit=limit)
    more = keys[-1].id if len(keys) == limit else None
    return KeyList(keys=[KeyInfo.of(key) for key in keys], next=more)


@router.delete(
    "/{key_id}",
    status_code=204,
    summary="Revoke a key",
    responses=problems(*STORED, KeyNotFoundError, InvalidRequestError),
)
async def revoke_key(key_id: Annotated[int, Path(ge=1, le=MAX_ID)], part: PartDep) -> Response:
    """Revoke a key: it stays in the list, and is valid nowhere within seconds."""
    await part.keys.revoke(key_id)
    return Response(status_code=204)
