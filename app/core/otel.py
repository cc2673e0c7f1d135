"""Whether tracing is on: by OpenTelemetry's own variables, and by whether its SDK is installed.

Whatever keeps it from starting is one line of the log: it never stops the service.
"""

import logging
import os
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from app.core.metrics import Metrics

if TYPE_CHECKING:
    from app.core.telemetry import Telemetry

log = logging.getLogger(__name__)

INSTALL: Final = "pip install 'ml-api[tracing]'"
OTLP, NONE = "otlp", "none"
PROTOCOL: Final = "http/protobuf"
SERVICE: Final = "ml-api"
# W3C's alone: baggage is whatever a client says, and would go on to remote models and webhooks.
PROPAGATORS: Final = "tracecontext"
ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
METRICS_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"


class TracingError(ValueError):
    """The variables ask for what there isn't."""


def is_wanted(variables: Mapping[str, str]) -> bool:
    """Say whether OpenTelemetry's variables turn tracing on.

    Raises:
        TracingError: they ask for another exporter or protocol than there is.

    """
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter == NONE:
        return False
    if exporter not in {"", OTLP}:
        raise TracingError(f"OTEL_TRACES_EXPORTER is {OTLP} or {NONE}")
    if not exporter and not variables.get(ENDPOINT) and not variables.get(TRACES_ENDPOINT):
        return False
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := variables.get(name, "").strip():
            if protocol != PROTOCOL:
                raise TracingError(f"{name} is {PROTOCOL}: no other is spoken")
            break
    return True


def has_metrics(variables: Mapping[str, str]) -> bool:
    """Say whether chat's metrics go to the collector too: where that is said, not by default."""
    exporter = variables.get("OTEL_METRICS_EXPORTER", "").strip().lower()
    return exporter == OTLP or (not exporter and bool(variables.get(METRICS_ENDPOINT)))


def target(variables: Mapping[str, str]) -> str:
    """Return where spans go, without what may be secret of the address."""
    address = variables.get(TRACES_ENDPOINT) or variables.get(ENDPOINT) or "localhost"
    return urlsplit(address if "//" in address else f"//{address}").hostname or "?"


def open_telemetry(
    variables: Mapping[str, str], metrics: Metrics, *, process: str
) -> "Telemetry | None":
    """Start tracing, where it is wanted; None where it isn't, or where it can't be.

    Args:
        variables: OpenTelemetry's, of the environment and of `.env`.
        metrics: where spans are counted.
        process: what this one of the service's processes is: `api`, `engine` or `worker`.

    """
    try:
        if not is_wanted(variables):
            return None
        telemetry = _open(variables, metrics, process)
    except ModuleNotFoundError as failure:
        log.warning("tracing_off", extra={"reason": f"no {failure.name}", "install": INSTALL})
        return None
    except Exception as failure:  # noqa: BLE001  # it is never in the way
        log.warning("tracing_off", extra={"reason": str(failure) or type(failure).__name__})
        return None
    log.info("tracing_on", extra={"to": target(variables), "by": process})
    return telemetry


def _open(variables: Mapping[str, str], metrics: Metrics, process: str) -> "Telemetry":
    for name, value in variables.items():
        os.environ.setdefault(name, value)  # the SDK reads nothing else
    sdk = import_module("app.core.telemetry")
    resources = import_module("opentelemetry.sdk.resources")
    own = {"service.version": version(SERVICE), "mlapi.process": process}
    given = variables.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not variables.get("OTEL_SERVICE_NAME") and "service.name=" not in given:
        own["service.name"] = SERVICE
    resource = resources.Resource.create(own)
    meters = None
    if has_metrics(variables):
        meters = import_module("app.core.gen_ai").GenAiMeters(resource, version(SERVICE))
    opened: Telemetry = sdk.Telemetry(
        resource,
        metrics,
        propagator=sdk.read_propagators(variables.get("OTEL_PROPAGATORS") or PROPAGATORS),
        gen_ai=meters,
    )
    return opened
