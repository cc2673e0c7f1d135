"""Settings of access: keys, limits, trusted proxies."""

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from app.settings import MIN_SECRET_CHARS, Positive, Settings

DEFAULT_LIMIT = "100/minute"


class AccessSettings(Settings):
    """What can be set of access."""

    auth: Literal["auto", "off", "required"] = Field(
        "auto",
        description="Whether callers need a key; `auto`: unless HOST is a loopback address.",
    )
    auth_off_anywhere: bool = Field(
        default=False, description="Allow `AUTH=off` on an address that others can reach."
    )
    admin_key: SecretStr | None = Field(
        None,
        min_length=MIN_SECRET_CHARS,
        description="A secret that always is an admin's key: the first key of a fleet.",
    )
    auth_cache_s: Positive = Field(
        5, description="Seconds after which a revoked key is refused everywhere."
    )
    auth_stale_s: Positive = Field(
        300, description="Seconds for which a known key is believed while SQL doesn't answer."
    )
    limits: Literal["on", "off"] = Field("on", description="Whether callers are limited at all.")
    default_limit: str | None = Field(
        None,
        description="Limit of callers without one of their own, such as `100/minute` or "
        "`10/second; 600/hour`; default: `100/minute` where a key is needed, else none.",
    )
    limiter_budget_ms: Positive = Field(
        50, description="Milliseconds that Redis may be silent before a request passes uncounted."
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses and networks of proxies whose `X-Forwarded-For` and "
        "`X-Forwarded-Prefix` are believed, with commas between them.",
    )
    metrics_need_key: bool = Field(
        default=False, description="Whether `/metrics` needs a key with the scope `metrics`."
    )

    @model_validator(mode="after")
    def is_safe(self) -> Self:
        """Refuse settings that would serve everybody by accident."""
        if self.auth == "off" and not self.is_loopback and not self.auth_off_anywhere:
            raise ValueError(
                "AUTH=off would let everyone in who reaches HOST; set AUTH_OFF_ANYWHERE=true if"
                " that is meant"
            )
        return self

    @property
    def needs_key(self) -> bool:
        """Whether callers need a key."""
        return self.auth == "required" or (self.auth == "auto" and not self.is_loopback)

    @property
    def limit(self) -> str | None:
        """The limit of callers without one of their own; None: they have none."""
        if self.limits == "off":
            return None
        return self.default_limit or (DEFAULT_LIMIT if self.needs_key else None)
