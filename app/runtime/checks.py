"""Whether settings can be used that only the part understands which uses them."""

from collections.abc import Callable

from app.core.redis_url import make_pool
from app.db.engine import parse_url
from app.errors import SettingsError
from app.features.access.limits.limit import parse
from app.settings import Settings


def check_settings(settings: Settings) -> None:
    """See before the start that addresses and limits can be read.

    Raises:
        SettingsError: naming each setting that can't be used, without its value.

    """
    checks: list[Callable[[], object]] = [lambda: parse_url(settings.sql_url)]
    if (url := settings.redis_url) is not None:
        checks.append(lambda: make_pool(url.get_secret_value()))
    if (limit := settings.default_limit) is not None:
        checks.append(lambda: _check_limit(limit))
    refused = [said for check in checks if (said := _refusal(check))]
    if refused:
        raise SettingsError("; ".join(refused))


def _refusal(check: Callable[[], object]) -> str | None:
    try:
        check()
    except SettingsError as failure:
        return str(failure)
    return None


def _check_limit(limit: str) -> None:
    try:
        parse(limit)
    except ValueError as bad:
        raise SettingsError(f"DEFAULT_LIMIT: {bad}") from None
