"""Opens what identifies, limits and charges callers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from limits.aio.storage import Storage

from app.db.session import Database
from app.errors import SettingsError
from app.features.access.addresses import parse_networks
from app.features.access.control import AccessControl, AccessPolicy
from app.features.access.keys import KeyService
from app.features.access.ledger import Ledger
from app.features.access.limits.limit import parse
from app.features.access.limits.limiter import Limiter
from app.features.access.limits.memory import MemoryStorage
from app.features.access.limits.redis import open_redis
from app.features.access.lockout import Lockout
from app.features.access.metrics import AccessMetrics
from app.features.access.settings import AccessSettings
from app.runtime.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPart:
    """What the routes of `/keys` use."""

    keys: KeyService
    ledger: Ledger


@asynccontextmanager
async def open_access(runtime: Runtime, settings: AccessSettings) -> AsyncIterator[None]:
    """Identify, limit and charge callers during the block."""
    async with AsyncExitStack() as stack:
        metrics = AccessMetrics(runtime.metrics.registry)
        keys = open_keys(runtime.require_database(), settings)
        limiter = await _open_limiter(stack, settings, metrics)
        ledger = Ledger(limiter, is_on=settings.limits != "off")
        stack.push_async_callback(ledger.settle)
        runtime.access = AccessControl(
            keys=keys,
            lockout=Lockout(keys, Limiter(MemoryStorage(), metrics=metrics)),
            limiter=limiter,
            ledger=ledger,
            policy=AccessPolicy(
                needs_key=settings.needs_key,
                metrics_need_key=settings.metrics_need_key,
                is_limited=settings.limits != "off",
                default_limit=parse(settings.limit) if settings.limit else None,
                trusted_proxies=parse_networks(settings.trusted_proxies),
            ),
        )
        runtime.provide(AccessPart(keys=keys, ledger=ledger))
        if settings.needs_key and not settings.is_loopback and settings.admin_key is None:
            runtime.database_checks.append(lambda: refuse_without_keys(keys))
        yield


def open_keys(database: Database, settings: AccessSettings) -> KeyService:
    """Return the service that makes and verifies keys."""
    return KeyService(
        database,
        admin_key=settings.admin_key.get_secret_value() if settings.admin_key else None,
        cache_s=settings.auth_cache_s,
        stale_s=settings.auth_stale_s,
    )


async def refuse_without_keys(keys: KeyService) -> None:
    """Refuse to start where callers need a key and none is valid.

    Raises:
        SettingsError: no stored key is valid.

    """
    if not await keys.has_valid():
        raise SettingsError(
            "HOST can be reached by others, and there is no key that is valid: set ADMIN_KEY,"
            " or make one with `app keys create`"
        )


async def _open_limiter(
    stack: AsyncExitStack, settings: AccessSettings, metrics: AccessMetrics
) -> Limiter:
    """Return a limiter that counts in Redis, shared by replicas, or else in this process."""
    storage: Storage = MemoryStorage()
    if settings.redis_url is not None:
        storage = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
    return Limiter(storage, metrics=metrics, budget_s=settings.limiter_budget_ms / 1000)
