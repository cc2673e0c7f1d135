"""Settings of versions."""

from pydantic import Field

from app.settings import Settings


class VersionsSettings(Settings):
    """What can be set of versions."""

    model_state_poll_s: float = Field(
        5,
        gt=0,
        le=3_600,
        description="Seconds after which a replica sees which version another one has promoted.",
    )
