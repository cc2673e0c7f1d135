"""The connections on which spans and metrics are exported, and what is logged when they fail."""

import logging
from typing import Any

import requests

from app.core.throttle import Throttle

log = logging.getLogger(__name__)


class Session(requests.Session):
    """The connections of an exporter; says once a minute why they fail.

    Args:
        what: is exported.

    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self._throttle = Throttle()

    def request(self, *arguments: Any, **named: Any) -> requests.Response:  # noqa: ANN401  # passed on as they are
        """Send a request."""
        try:
            answer = super().request(*arguments, **named)
        except requests.RequestException as failure:
            self._note(type(failure).__name__)  # its message has the URL, and so maybe a key
            raise
        if not answer.ok:
            self._note(f"status {answer.status_code}")
        return answer

    def _note(self, reason: str) -> None:
        if self._throttle.passes():
            log.warning("telemetry_not_exported", extra={"what": self._what, "reason": reason})
