"""Counts the clients' requests that run models, so that work of the service's own can give way."""

import time
from collections.abc import Callable, Mapping

from app.core.request_kinds import RequestKind

WITH_MODELS = (RequestKind.INFERENCE, RequestKind.STREAM)


class ClientRequests:
    """The requests of clients that run models in this process now.

    Args:
        kinds: of requests, by the paths of routes; a method may stand before a path.
        clock: monotonic seconds.

    """

    def __init__(
        self,
        kinds: Mapping[str, RequestKind] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.in_flight = 0
        self._counted = {path for path, kind in (kinds or {}).items() if kind in WITH_MODELS}
        self._clock = clock
        self._changed_s = clock()  # when the first one came, or the last one ended

    def begin(self, method: str, route: str) -> bool:
        """Count a request; return whether it runs a model, so that its end counts too."""
        if route not in self._counted and f"{method} {route}" not in self._counted:
            return False
        if not self.in_flight:
            self._changed_s = self._clock()
        self.in_flight += 1
        return True

    def end(self) -> None:
        """Count the end of a request that runs a model."""
        self.in_flight -= 1
        if not self.in_flight:
            self._changed_s = self._clock()

    @property
    def busy_s(self) -> float:
        """For how long there has always been one; 0.0 when there is none."""
        return self._clock() - self._changed_s if self.in_flight else 0.0

    @property
    def idle_s(self) -> float:
        """For how long there has been none; 0.0 when there is one."""
        return 0.0 if self.in_flight else self._clock() - self._changed_s
