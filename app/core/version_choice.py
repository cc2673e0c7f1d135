"""Which version of a model a request wants, and which one it gets."""

import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field

from app.core.log_context import request_id


@dataclass(slots=True, kw_only=True)
class VersionChoice:
    """Of one request.

    Args:
        wanted: the version that it names (`X-Model-Version`); None: the traffic decides.
        session: what its caller says it belongs to (`X-Session-ID`).
        caller: the key that it came with.
        got: the version that each model answered with, in the order of their first calls.

    """

    wanted: str | None = None
    session: str | None = None
    caller: str | None = None
    got: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What requests have in common that are to get the same version."""
        return self.session or self.caller or request_id.get() or secrets.token_hex(8)

    @property
    def answered(self) -> str | None:
        """The version of the model that the request is for; None: no model has been called."""
        return next(iter(self.got.values()), None)


# None outside of requests, as where a Python class calls a model for several of them.
version_choice: ContextVar[VersionChoice | None] = ContextVar("version_choice", default=None)
