"""Dependencies of the routes of files and batches."""

from typing import Annotated

from fastapi import Depends

from app.features.openai_batches.opening import BatchesPart
from app.http.deps import part

PartDep = Annotated[BatchesPart, Depends(part(BatchesPart))]
