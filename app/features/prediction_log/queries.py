"""What every question to the log may say: of when, and of which model."""

from dataclasses import fields

from pydantic import BaseModel, ConfigDict, Field

from app.features.prediction_log.bounds import NO_NUL, Moment
from app.features.prediction_log.filters import Filters
from app.models.schemas import MAX_NAME_CHARS

FILTERS = {field.name for field in fields(Filters)}


class LogQuery(BaseModel):
    """Which predictions; what isn't given isn't asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Moment | None = Field(
        None,
        description="The earliest time of a prediction, ISO 8601 with its zone; included.",
        examples=["2026-11-22T00:00:00Z"],
    )
    until: Moment | None = Field(
        None,
        description="The time to stop at, ISO 8601 with its zone; not included.",
        examples=["2026-11-23T00:00:00Z"],
    )
    model: str | None = Field(
        None, max_length=MAX_NAME_CHARS, pattern=NO_NUL, description="Only of this model."
    )

    def filters(self) -> Filters:
        """Return what is asked for, as the log takes it."""
        return Filters(**self.model_dump(include=FILTERS))
