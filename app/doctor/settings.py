"""Looks at the settings: which were read, which do nothing, which are spelt wrongly."""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from dotenv import dotenv_values
from pydantic import SecretStr

from app.core.finding import Finding, doubtful, good
from app.core.otel import INSTALL, TracingError, is_wanted, target
from app.runtime.composition import Composition, Installed
from app.settings import ENV_FILE, Settings

HIDDEN = "(set)"
CLOSE = 0.85  # of difflib's ratio: one wrong letter in eight
TRACING = "tracing"
SDK = ("opentelemetry.sdk", "opentelemetry.exporter")
# What OpenVINO alone reads.
OF_OPENVINO = ("engine_streams", "engine_threads")


def look(
    settings: Settings,
    parts: Installed,
    chosen: Composition,
    *,
    environment: Mapping[str, str] = os.environ,
    folder: Path = Path(),
) -> Iterator[Finding]:
    """Look at all of it.

    Args:
        settings: as they were read.
        parts: all tasks and features.
        chosen: those that are on.
        environment: the variables that they were read from.
        folder: where `.env` is.

    """
    file = dotenv_values(folder / ENV_FILE)
    yield from _read(settings, environment, file)
    yield from _idle(settings, parts, chosen)
    yield from _misspelt(settings, environment, file)
    yield from _traces({**file, **environment})


def _read(
    settings: Settings, environment: Mapping[str, str], file: Mapping[str, str | None]
) -> Iterator[Finding]:
    variables = {name.upper() for name in environment}
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        display = HIDDEN if isinstance(value, SecretStr) else value
        origin = "environment" if name.upper() in variables else ENV_FILE
        yield good(name.upper(), f"{display}, from {origin}")
    names = {name.upper() for name in type(settings).model_fields}
    for name in sorted(file):
        if name.upper() in names and name.upper() in variables and file[name]:
            summary = f"{ENV_FILE} has it, but the environment wins"
            yield doubtful(name.upper(), summary, f"Remove it from {ENV_FILE} or the environment.")


def _idle(settings: Settings, parts: Installed, chosen: Composition) -> Iterator[Finding]:
    """Name what was set and has no effect."""
    if settings.device == "cuda":
        for name in sorted(settings.model_fields_set.intersection(OF_OPENVINO)):
            yield doubtful(
                name.upper(), "does nothing with DEVICE=cuda", "Remove it, or change DEVICE."
            )
    used = {name for feature in chosen.features for name in feature.settings().model_fields}
    for feature in parts.usable:
        if feature.name not in chosen.left_out:
            continue
        why = chosen.left_out[feature.name]
        switch = why.partition("=")[0] if "=" in why else "FEATURES"
        own = set(feature.settings().model_fields) - set(Settings.model_fields) - used
        for name in sorted(settings.model_fields_set.intersection(own) - {switch.lower()}):
            reason = f"does nothing: {feature.name} is off, {why}"
            yield doubtful(name.upper(), reason, f"Remove it, or change {switch}.")


def _misspelt(
    settings: Settings, environment: Mapping[str, str], file: Mapping[str, str | None]
) -> Iterator[Finding]:
    """Name what isn't read: all of the file, and of the environment what looks like ours."""
    names = {name.upper() for name in type(settings).model_fields}
    for name in sorted({*file, *environment}):
        if name.upper() in names:
            continue
        near = get_close_matches(name.upper(), names, n=1, cutoff=CLOSE)
        if near:
            yield doubtful(name, "is no setting", f"Is {near[0]} meant?")
        elif name in file:
            summary = f"in {ENV_FILE}, is no setting"
            yield good(name, f"{summary}; models.toml may name it as api_key_env")


def _traces(variables: Mapping[str, str | None]) -> Iterator[Finding]:
    """Say whether requests are traced, where OpenTelemetry's variables are set."""
    given = {n: value for n, value in variables.items() if n.startswith("OTEL_") and value}
    try:
        is_on = is_wanted(given)
    except TracingError as failure:
        yield doubtful(TRACING, f"off: {failure}", "Change the variable, or remove it.")
        return
    if is_on and any(find_spec(name) is None for name in SDK):
        yield doubtful(TRACING, "off: OpenTelemetry's SDK is not installed", INSTALL)
    elif is_on:
        yield good(TRACING, f"spans go to {target(given)}")
