"""Dependencies of the `/keys` routes."""

from typing import Annotated

from fastapi import Depends

from app.features.access.opening import AccessPart
from app.http.deps import part

PartDep = Annotated[AccessPart, Depends(part(AccessPart))]
