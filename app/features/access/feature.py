"""API keys, rate limits and quotas, as a feature."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.errors import SettingsError
from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    import typer
    from fastapi import APIRouter

    from app.core.finding import Finding
    from app.features.access.metrics import AccessMetrics
    from app.features.access.settings import AccessSettings
    from app.runtime.runtime import Runtime


class Access(Feature["AccessSettings"]):
    """Who may call, how often, at which cost. Without it the service starts on loopback only."""

    name = "access"
    tags = MappingProxyType(
        {
            "keys": "API keys: make, list and revoke them.",
        }
    )
    is_stored = True

    def settings(self) -> "type[AccessSettings]":
        """Return the settings with those of access."""
        from app.features.access.settings import AccessSettings

        return AccessSettings

    def metrics(self) -> "type[AccessMetrics]":
        """Return the metrics of access."""
        from app.features.access.metrics import AccessMetrics

        return AccessMetrics

    def check(self, settings: "AccessSettings") -> None:
        """Refuse limits and networks that can't be read."""
        from app.features.access.addresses import parse_networks
        from app.features.access.limits.limit import parse

        parse_networks(settings.trusted_proxies)
        if settings.default_limit is not None:
            try:
                parse(settings.default_limit)
            except ValueError as bad:
                raise SettingsError(f"DEFAULT_LIMIT: {bad}") from None

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return `/keys`."""
        from app.features.access.routes import router

        return (router,)

    def needs_key(self, settings: "AccessSettings") -> bool:
        """Say whether callers need a key."""
        return settings.needs_key

    def open(
        self, runtime: "Runtime", settings: "AccessSettings"
    ) -> AbstractAsyncContextManager[None]:
        """Identify, limit and charge callers."""
        from app.features.access.opening import open_access

        return open_access(runtime, settings)

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add `app keys`."""
        from app.features.access.commands import cli as keys

        cli.add_typer(keys, name="keys")

    def findings(self, settings: "AccessSettings") -> "Iterator[Finding]":
        """Report who may call, and which settings have no effect."""
        from app.features.access.findings import findings

        return findings(settings)


FEATURE = Access()
