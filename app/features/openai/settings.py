"""Settings of OpenAI's API: what is kept of responses."""

from pydantic import Field

from app.settings import Positive, Settings

DAY_S = 24 * 3600


class OpenAiSettings(Settings):
    """What can be set of OpenAI's API."""

    responses_kept: Positive = Field(
        1_000, description="Responses that are kept for each key; the oldest go."
    )
    responses_kept_s: Positive = Field(
        DAY_S, description="Seconds for which a response of `/v1/responses` is kept."
    )
    responses_memory_mb: Positive = Field(
        64, description="Megabytes of kept responses in a process, where there is no Redis."
    )
