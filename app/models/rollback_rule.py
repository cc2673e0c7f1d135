"""`[models.rollback]`: when a version that is on trial is taken back without being asked."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

BOUNDS = ("errors", "latency_ratio", "disagreement")


class RollbackRule(BaseModel):
    """Bounds, of which one at least is set; `docs/versions.md` explains each field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    errors: float | None = Field(None, gt=0, le=1)  # share of answers of 5xx
    latency_ratio: float | None = Field(None, gt=1)  # of the 95th percentiles
    disagreement: float | None = Field(None, gt=0, le=1)  # how far the labels' shares are apart
    window_s: float = Field(60, ge=1, le=3_600)
    min_requests: int = Field(20, ge=1, le=1_000)  # of either version; fewer say nothing
    rounds: int = Field(3, ge=1, le=100)  # looks in a row, one each second
    trial_s: float = Field(600, ge=1)  # after a promotion

    @model_validator(mode="after")
    def has_a_bound(self) -> Self:
        """Refuse a rule that could never take anything back."""
        if all(getattr(self, name) is None for name in BOUNDS):
            raise ValueError(f"give one of {', '.join(BOUNDS)}")
        return self
