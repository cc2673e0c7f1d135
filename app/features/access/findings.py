"""What `app doctor` reports of access: who may call, which settings have no effect."""

from collections.abc import Iterator

from app.core.finding import Finding, bad, doubtful, good
from app.features.access.settings import AccessSettings

# Settings without effect where no key is needed, and where callers aren't limited.
OF_KEYS = ("admin_key", "auth_cache_s", "auth_stale_s", "metrics_need_key")
OF_LIMITS = ("default_limit", "limiter_budget_ms")


def findings(settings: AccessSettings) -> Iterator[Finding]:
    """Give all findings."""
    fields_set = settings.model_fields_set
    if settings.limits == "off":
        for name in sorted(fields_set.intersection(OF_LIMITS)):
            yield doubtful(
                name.upper(), "does nothing with LIMITS=off", "Remove it, or change LIMITS."
            )
    elif settings.redis_url is None and "limiter_budget_ms" in fields_set:
        yield doubtful("LIMITER_BUDGET_MS", "does nothing without REDIS_URL", "Remove it.")
    if not settings.needs_key:
        for name in sorted(fields_set.intersection(OF_KEYS)):
            yield doubtful(name.upper(), "does nothing: no key is needed", "Set AUTH=required.")
    yield _access(settings)


def _access(settings: AccessSettings) -> Finding:
    """Report who may call."""
    if settings.needs_key:
        if settings.admin_key is None and not settings.is_loopback:
            message = f"a key is needed on {settings.host}, and ADMIN_KEY is not set"
            advice = "Set ADMIN_KEY, or make a key with `app keys create`, before the first start."
            return doubtful("access", message, advice)
        return good("access", "callers need a key")
    if not settings.is_loopback:
        message = f"anybody who reaches {settings.host} may do everything"
        return bad("access", message, "Set AUTH=required.")
    return good("access", "anybody on this machine, nobody else")
