"""Identifies callers by their keys, limits them, and charges their quotas."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

from app.core.callers import Caller
from app.engines.chat_base import Message
from app.errors import UnauthorizedError
from app.features.access.addresses import Network, caller_address, is_proxy, limited_address
from app.features.access.keys import KeyService
from app.features.access.ledger import Ledger
from app.features.access.limits.limit import Limit, parse
from app.features.access.limits.limiter import Limiter
from app.features.access.lockout import Lockout
from app.services.access import Charge, Connection, Tools
from app.services.token_stream import OnEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """Which callers need a key, and how they are limited.

    Args:
        needs_key: whether callers need a key.
        metrics_need_key: whether `/metrics` needs one too.
        is_limited: whether callers are limited at all.
        default_limit: of callers without a limit of their own; None: they have none.
        trusted_proxies: networks of proxies whose `X-Forwarded-…` headers are read.

    """

    needs_key: bool
    metrics_need_key: bool
    is_limited: bool
    default_limit: Limit | None
    trusted_proxies: Sequence[Network]


class AccessControl:
    """Who may call, how often, at which cost; one for the process.

    Args:
        keys: verifies keys.
        lockout: limits wrong keys for each address.
        limiter: counts requests.
        ledger: counts tokens.
        policy: which callers need a key, and how they are limited.

    """

    def __init__(
        self,
        *,
        keys: KeyService,
        lockout: Lockout,
        limiter: Limiter,
        ledger: Ledger,
        policy: AccessPolicy,
    ) -> None:
        self._keys = keys
        self._lockout = lockout
        self._limiter = limiter
        self._ledger = ledger
        self._policy = policy

    @property
    def metrics_need_key(self) -> bool:
        """Whether `/metrics` is for keys with the scope `metrics` only."""
        return self._policy.metrics_need_key

    def is_known_admin(self, key: str) -> bool:
        """Say whether a key is an administrator's; False also for one that isn't cached."""
        return self._policy.needs_key and self._keys.is_known_admin(key)

    async def identify(self, key: str | None, connection: Connection) -> Caller:
        """Return the caller; raises as `Access.identify` says."""
        if not self._policy.needs_key:
            return Caller()  # a key is ignored: OpenAI's clients always send one
        if key is None:
            raise UnauthorizedError
        if not self._policy.is_limited:
            return await self._keys.verify(key)
        return await self._lockout.verify(key, address=self._address(connection))

    async def owner(self, key_id: int | None) -> Caller:
        """Return the caller with a key; raises as `Access.owner` says."""
        return Caller() if key_id is None else await self._keys.owner(key_id)

    async def admit(
        self, caller: Caller, connection: Connection, *, group: str, spends_tokens: bool
    ) -> Mapping[str, str]:
        """Count a request; raises as `Access.admit` says."""
        if not self._policy.is_limited:
            return {}
        if spends_tokens:
            await self._ledger.check(caller)
        limit = parse(caller.limit) if caller.limit else self._policy.default_limit
        if limit is None:
            return {}
        verdict = await self._limiter.hit(limit, group, self._identifier(caller, connection))
        if not verdict.is_allowed:
            raise verdict.refusal()
        return verdict.headers

    def is_proxy(self, connection: Connection) -> bool:
        """Say whether the peer is a trusted proxy."""
        return is_proxy(connection, self._policy.trusted_proxies)

    def spending(self, caller: Caller, tokens: int) -> AbstractAsyncContextManager[Charge]:
        """Charge tokens for a block; raises as `Access.spending` says."""
        return self._ledger.spending(caller, tokens)

    async def begin(self, caller: Caller, messages: Sequence[Message], tools: Tools = ()) -> OnEnd:
        """Charge a prompt; raises as `Access.begin` says."""
        charge = await self._ledger.begin(caller, messages, tools)
        return partial(self._ledger.generated, charge)

    def _identifier(self, caller: Caller, connection: Connection) -> str:
        """Return what a limit counts by: the key, else the address."""
        return self._address(connection) if caller.key_id is None else f"key:{caller.key_id}"

    def _address(self, connection: Connection) -> str:
        return limited_address(caller_address(connection, self._policy.trusted_proxies))
