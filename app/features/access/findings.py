"""What `app doctor` finds of access: who may ask, which settings have no effect."""

from collections.abc import Iterator

from app.core.finding import Finding, bad, doubtful, good
from app.features.access.settings import AccessSettings

# What has no effect where no key is needed.
OF_KEYS = ("admin_key", "auth_cache_s", "auth_stale_s", "metrics_need_key")
OF_LIMITS = ("default_limit", "limiter_budget_ms")


def findings(settings: AccessSettings) -> Iterator[Finding]:
    """Look at all of it."""
    set_ones = settings.model_fields_set
    if settings.limits == "off":
        for name in sorted(set_ones.intersection(OF_LIMITS)):
            yield doubtful(
                name.upper(), "does nothing with LIMITS=off", "Remove it, or change LIMITS."
            )
    elif settings.redis_url is None and "limiter_budget_ms" in set_ones:
        yield doubtful("LIMITER_BUDGET_MS", "does nothing without REDIS_URL", "Remove it.")
    if not settings.needs_key:
        for name in sorted(set_ones.intersection(OF_KEYS)):
            yield doubtful(name.upper(), "does nothing: no key is needed", "Set AUTH=required.")
    yield _access(settings)


def _access(settings: AccessSettings) -> Finding:
    """Say who may ask."""
    if settings.needs_key:
        if settings.admin_key is None and not settings.is_loopback:
            said = f"a key is needed on {settings.host}, and ADMIN_KEY is not set"
            advice = "Set ADMIN_KEY, or make a key with `app keys create`, before the first start."
            return doubtful("access", said, advice)
        return good("access", "callers need a key")
    if not settings.is_loopback:
        said = f"anybody who reaches {settings.host} may do everything"
        return bad("access", said, "Set AUTH=required.")
    return good("access", "anybody on this machine, nobody else")
