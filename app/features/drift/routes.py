"""`GET /drift`, and `POST /drift/{model_name}/reference`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from app.core.callers import Scope
from app.errors import DatabaseUnavailableError, InvalidRequestError, ModelNotFoundError
from app.features.drift.comparing import PSI_LIMIT
from app.features.drift.schemas import (
    Drift,
    DriftReference,
    FullWindow,
    KindDistance,
    VersionDrift,
)
from app.features.drift.watch import DriftWatch
from app.features.drift.windows import Closed, Series, Version
from app.http.deps import RegistryDep, part
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_KEY, problems
from app.models.schemas import MAX_NAME_CHARS

router = APIRouter(
    tags=["drift"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.ADMIN))]
)
WatchDep = Annotated[DriftWatch, Depends(part(DriftWatch))]


@router.get("/drift", summary="Compare answers with their reference", responses=problems(*WITH_KEY))
async def show_drift(watch: WatchDep) -> Drift:
    """Say of each version of a model how far its last window is from its reference.

    It is what the process counted that answers: of several replicas or front ends each has its own.
    """
    series = await watch.report()
    versions = [_version(*one) for one in sorted(series.items())]
    return Drift(psi_limit=PSI_LIMIT, versions=versions)


@router.post(
    "/drift/{model_name}/reference",
    summary="Take a model's reference anew",
    status_code=204,
    responses=problems(
        *WITH_KEY, InvalidRequestError, ModelNotFoundError, DatabaseUnavailableError
    ),
)
async def take_reference(
    model_name: Annotated[str, Path(max_length=MAX_NAME_CHARS, examples=["sentiment"])],
    watch: WatchDep,
    registry: RegistryDep,
) -> Response:
    """Forget the references of a model, of all its versions; the next answers are the new ones.

    For a change of inputs that is meant to stay. Other processes follow within half a minute.
    """
    if all(entry.spec.name != model_name for entry in registry.entries):
        raise ModelNotFoundError
    await watch.restart(model_name)
    return Response(status_code=204)


def _version(version: Version, series: Series) -> VersionDrift:
    reference = series.reference and DriftReference(
        taken_at=series.reference.taken_at, rows=series.reference.counts.rows
    )
    return VersionDrift(
        model=version.model,
        version=version.version,
        reference=reference,
        rows=series.counts.rows,
        wanted=series.wanted,
        seen_at=series.seen_at,
        last=series.last and _window(series.last),
    )


def _window(window: Closed) -> FullWindow:
    return FullWindow(
        closed_at=window.closed_at,
        rows=window.rows,
        distances=[
            KindDistance(kind=one.kind, psi=one.psi, ks=one.ks, is_drift=one.is_drift)
            for one in window.distances
        ],
    )
