"""Settings of the prediction log."""

from typing import Literal

from pydantic import Field

from app.settings import Days, Positive, Settings


class PredictionLogSettings(Settings):
    """What can be set of the prediction log."""

    prediction_log: Literal["on", "off"] = Field("on", description="Whether answers are logged.")
    prediction_input: Literal["none", "hash", "text"] = Field(
        "hash", description="What the log keeps of inputs: nothing, their SHA-256, or the text too."
    )
    prediction_log_bound: Positive = Field(
        20_000, description="Rows that may wait for the database; newer ones are dropped, counted."
    )
    prediction_retention_days: Days = Field(
        90, description="Days after which logged answers are deleted; 0: never."
    )
    prediction_retention_rows: int = Field(
        1_000_000, ge=0, description="Logged answers that are kept at most; the oldest go. 0: all."
    )
