"""What the routes of jobs ask for."""

from typing import Annotated

from fastapi import Depends

from app.features.jobs.opening import JobsPart
from app.http.deps import part

PartDep = Annotated[JobsPart, Depends(part(JobsPart))]
