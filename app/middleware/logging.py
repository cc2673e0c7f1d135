"""What the one line of a request says in the log."""

import logging
import random
import re

from starlette.types import Scope

log = logging.getLogger(__name__)

# Of a client's; another one is replaced.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Called every few seconds by machines, so they are logged at DEBUG unless they fail.
PROBES = frozenset({"/health", "/ready", "/metrics"})


def new_id() -> str:
    """Return 32 hexadecimal digits; not a secret, so the slower system randomness isn't needed."""
    return f"{random.getrandbits(128):032x}"  # an id is no secret


def log_done(scope: Scope, *, method: str, status: int, seconds: float) -> None:
    """Log a request with the template of its route, never its path: that may hold users' words.

    What a route has put into `state["log"]` is logged with it, such as the model.
    """
    route = getattr(scope.get("route"), "path", "none")
    level = logging.DEBUG if route in PROBES and status < 500 else logging.INFO  # noqa: PLR2004
    if log.isEnabledFor(level):
        fields = {
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
        }
        log.log(level, "request_done", extra=fields | scope["state"].get("log", {}))
