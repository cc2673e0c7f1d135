"""Dependencies of the routes of jobs."""

from typing import Annotated

from fastapi import Depends

from app.features.jobs.opening import JobsPart
from app.http.deps import part

PartDep = Annotated[JobsPart, Depends(part(JobsPart))]
