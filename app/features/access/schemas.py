"""The wire contract of `/keys`."""

from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from app.features.access.repository import ApiKey
from app.models.schemas import Request, Response, example, whole_number

MAX_PAGE = 1_000
MAX_NAME_CHARS = 100
CONTROL_CHARACTERS = r"\x00-\x1f\x7f-\x9f"
Days = Annotated[int, Field(ge=1, le=36_500), BeforeValidator(whole_number)]
Tokens = Annotated[int, Field(ge=1, le=10**12), BeforeValidator(whole_number)]
Name = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=MAX_NAME_CHARS, pattern=rf"^[^{CONTROL_CHARACTERS}]+$"
    ),
]
# As `limits.limit.parse` reads it; only in the document, which can't say how long a window may be.
ONE_LIMIT = r"\s*[0-9]+\s*(/|per)\s*[0-9]*\s*(second|minute|hour|day|month|year)s?\s*"
LIMIT_FORM = WithJsonSchema({"type": "string", "pattern": rf"^{ONE_LIMIT}([,;|]{ONE_LIMIT})*$"})
KEY = {
    "id": 7,
    "name": "web",
    "prefix": "mlk_0b9a0d5e6a5f",
    "scopes": ["predict", "chat"],
    "limit": "600/minute",
    "tokens_per_day": 200000,
    "created_at": "2026-11-22T12:00:00Z",
    "expires_at": "2027-02-20T12:00:00Z",
    "revoked_at": None,
}


class KeyRequest(Request):
    """A key to be made."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {"name": "web", "scopes": ["predict", "chat"], "limit": "600/minute"}
        )
    )

    name: Name
    scopes: Annotated[list[str], Field(min_length=1, max_length=16)]
    limit: Annotated[str, LIMIT_FORM] | None = Field(
        None, max_length=200, description="Such as `600/minute`, or `10/second; 600/hour`."
    )
    tokens_per_day: Tokens | None = Field(
        None, description="Tokens of chat, and texts of embedding, a day."
    )
    expires_days: Days | None = None


class KeyInfo(Response):
    """A stored key, without its secret."""

    model_config = ConfigDict(json_schema_extra=example(KEY))

    id: int
    name: str
    prefix: str
    scopes: list[str]
    limit: str | None
    tokens_per_day: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> "KeyInfo":
        """Return what is shown of a key."""
        values = {name: getattr(key, name) for name in cls.model_fields}
        return cls(**values | {"scopes": list(key.scopes)})


class NewKey(KeyInfo):
    """A new key, with its text: it is shown this once."""

    model_config = ConfigDict(
        json_schema_extra=example({**KEY, "key": "mlk_0b9a0d5e6a5f_…43 more characters…"})
    )

    key: str


class KeyList(Response):
    """Keys, newest first."""

    model_config = ConfigDict(json_schema_extra=example({"keys": [KEY], "next": None}))

    keys: list[KeyInfo]
    next: int | None = Field(description="`before_id` of the next page; null at the end.")
