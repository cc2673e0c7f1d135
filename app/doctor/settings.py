"""Looks at the settings: which were read, which do nothing, which are spelt wrongly."""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from dotenv import dotenv_values
from pydantic import SecretStr

from app.core.finding import Finding, bad, doubtful, good
from app.settings import ENV_FILE, Settings

HIDDEN = "(set)"
CLOSE = 0.85  # of difflib's ratio: one wrong letter in eight
# What a setting needs of another one to have any effect.
IDLE: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("default_limit", "limiter_budget_ms"), "limits", "off"),
    (
        (
            "prediction_input",
            "prediction_log_bound",
            "prediction_retention_days",
            "prediction_retention_rows",
        ),
        "prediction_log",
        "off",
    ),
    (
        (
            "job_lease_s",
            "job_attempts",
            "job_retention_days",
            "webhook_secret",
            "webhook_allow_hosts",
            "worker_metrics_port",
        ),
        "jobs",
        "off",
    ),
    (("engine_streams", "engine_threads"), "device", "cuda"),
)
NEEDS_KEYS = ("admin_key", "auth_cache_s", "auth_stale_s", "metrics_need_key")


def look(
    settings: Settings, *, environment: Mapping[str, str] = os.environ, folder: Path = Path()
) -> Iterator[Finding]:
    """Look at all of it.

    Args:
        settings: as they were read.
        environment: the variables that they were read from.
        folder: where `.env` is.

    """
    file = dotenv_values(folder / ENV_FILE)
    yield from _read(settings, environment, file)
    yield from _idle(settings)
    yield from _misspelt(environment, file)
    yield _access(settings)


def _read(
    settings: Settings, environment: Mapping[str, str], file: Mapping[str, str | None]
) -> Iterator[Finding]:
    variables = {name.upper() for name in environment}
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        shown = HIDDEN if isinstance(value, SecretStr) else value
        origin = "environment" if name.upper() in variables else ENV_FILE
        yield good(name.upper(), f"{shown}, from {origin}")
    known = {name.upper() for name in type(settings).model_fields}
    for name in sorted(file):
        if name.upper() in known and name.upper() in variables and file[name]:
            said = f"{ENV_FILE} has it, but the environment wins"
            yield doubtful(name.upper(), said, f"Remove it from {ENV_FILE} or the environment.")


def _idle(settings: Settings) -> Iterator[Finding]:
    given = settings.model_fields_set
    for names, other, value in IDLE:
        if getattr(settings, other) == value:
            for name in sorted(given.intersection(names)):
                said = f"does nothing with {other.upper()}={value}"
                yield doubtful(name.upper(), said, f"Remove it, or change {other.upper()}.")
    if not settings.needs_key:
        for name in sorted(given.intersection(NEEDS_KEYS)):
            yield doubtful(name.upper(), "does nothing: no key is needed", "Set AUTH=required.")
    if settings.redis_url is None and "limiter_budget_ms" in given and settings.limits == "on":
        yield doubtful("LIMITER_BUDGET_MS", "does nothing without REDIS_URL", "Remove it.")


def _misspelt(environment: Mapping[str, str], file: Mapping[str, str | None]) -> Iterator[Finding]:
    """Name what nobody reads: all of the file, and of the environment what looks like ours."""
    known = {name.upper() for name in Settings.model_fields}
    for name in sorted({*file, *environment}):
        if name.upper() in known:
            continue
        near = get_close_matches(name.upper(), known, n=1, cutoff=CLOSE)
        if near:
            yield doubtful(name, "is no setting", f"Is {near[0]} meant?")
        elif name in file:
            said = f"in {ENV_FILE}, is no setting"
            yield good(name, f"{said}; models.toml may name it as api_key_env")


def _access(settings: Settings) -> Finding:
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
