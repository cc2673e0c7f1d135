"""Settings of drift."""

from typing import Literal

from pydantic import Field

from app.settings import Settings


class DriftSettings(Settings):
    """What can be set of drift."""

    drift: Literal["on", "off"] = Field(
        "on",
        description="Whether answers are counted, and compared with those of a reference; see"
        " docs/drift.md.",
    )
    drift_window_rows: int = Field(
        1_000,
        ge=500,
        le=1_000_000,
        description="Answers of one version of a model that are compared with its reference"
        " together; of each front end on its own.",
    )
    drift_reference_rows: int = Field(
        2_000,
        ge=1_000,
        le=1_000_000,
        description="Answers of which the reference is taken, the first ones of a version.",
    )
