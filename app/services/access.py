"""What the rest of the service needs to know of callers: who they are, what they may do.

The feature `access` answers with keys, limits and quotas. Without it all callers are the same.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from app.core.callers import Caller
from app.engines.chat_base import Message
from app.services.token_stream import FinishedGeneration, OnEnd

Connection = Mapping[str, Any]  # an ASGI scope
Tools = Sequence[Mapping[str, Any]]  # OpenAI's


class Charge(Protocol):
    """Tokens that were taken from a caller's quota before the work began."""

    async def settle(self, tokens: int) -> None:
        """Correct it to what the work has cost; call it once."""


class Access(Protocol):
    """Identifies callers, limits them, and charges their quotas."""

    @property
    def metrics_need_key(self) -> bool:
        """Whether `/metrics` is for keys with the scope `metrics` only."""

    def is_known_admin(self, key: str) -> bool:
        """Say whether a key is an administrator's, as far as that is known without a look-up."""

    def is_proxy(self, connection: Connection) -> bool:
        """Say whether a request comes from a proxy whose headers are believed."""

    async def identify(self, key: str | None, connection: Connection) -> Caller:
        """Return the caller.

        Raises:
            UnauthorizedError: no key where one is needed, or one that isn't valid.
            RateLimitExceededError: too many of those from this address.
            DatabaseUnavailableError: the key isn't known yet, and SQL doesn't answer.

        """

    async def owner(self, key_id: int | None) -> Caller:
        """Return the caller whose key this is, for work that goes on after their request.

        Args:
            key_id: of a stored key; None: of a caller without one.

        Raises:
            UnauthorizedError: there is no such key any more, or it was revoked or has expired.
            DatabaseUnavailableError: it can't be looked up.

        """

    async def admit(
        self, caller: Caller, connection: Connection, *, group: str, spends_tokens: bool
    ) -> Mapping[str, str]:
        """Count a request against the caller's limit; return headers for its answer.

        Args:
            caller: from `identify`.
            connection: where the request came in.
            group: of routes that are counted together.
            spends_tokens: whether the answer costs tokens of the caller's quota.

        Raises:
            RateLimitExceededError: the limit is reached, or nothing is left of the quota.

        """

    def spending(self, caller: Caller, tokens: int) -> AbstractAsyncContextManager[Charge]:
        """Charge tokens for the block before it runs; for embedding a text is a token.

        A block that fails costs nothing; one whose caller leaves does.

        Raises:
            RateLimitExceededError: nothing was left of the quota before.

        """

    async def begin(self, caller: Caller, messages: Sequence[Message], tools: Tools = ()) -> OnEnd:
        """Charge an estimate of a prompt; return the callback for its end.

        Args:
            caller: from `identify`.
            messages: of the conversation.
            tools: whose definitions the model reads beside them, as `GenerationOptions` has them.

        Raises:
            RateLimitExceededError: nothing was left of the quota before.

        """


class FreeCharge:
    """A charge of no tokens."""

    async def settle(self, tokens: int) -> None:
        """Do nothing."""


class OpenAccess:
    """Allows everything and counts nothing: what a service has without the feature `access`."""

    metrics_need_key = False

    def is_known_admin(self, key: str) -> bool:  # noqa: ARG002
        """Say no: all callers are the same."""
        return False

    def is_proxy(self, connection: Connection) -> bool:  # noqa: ARG002
        """Say no: none is named."""
        return False

    async def identify(self, key: str | None, connection: Connection) -> Caller:  # noqa: ARG002
        """Return the same caller for everyone; some clients send a key where none is needed."""
        return Caller()

    async def owner(self, key_id: int | None) -> Caller:
        """Return the same caller, with the key that they had."""
        return Caller(key_id=key_id)

    async def admit(
        self,
        caller: Caller,  # noqa: ARG002
        connection: Connection,  # noqa: ARG002
        *,
        group: str,  # noqa: ARG002
        spends_tokens: bool,  # noqa: ARG002
    ) -> Mapping[str, str]:
        """Let the request pass."""
        return {}

    @asynccontextmanager
    async def spending(self, caller: Caller, tokens: int) -> AsyncIterator[Charge]:  # noqa: ARG002
        """Charge nothing."""
        yield FreeCharge()

    async def begin(
        self,
        caller: Caller,  # noqa: ARG002
        messages: Sequence[Message],  # noqa: ARG002
        tools: Tools = (),  # noqa: ARG002
    ) -> OnEnd:
        """Charge nothing."""
        return _ignore


def _ignore(generation: FinishedGeneration) -> None:
    """Do nothing."""
