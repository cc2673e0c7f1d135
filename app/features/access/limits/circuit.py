"""A circuit breaker: when a server that failed is called again. Pure; `now_s` is passed in."""

import math


class Circuit:
    """Allows all calls until one fails; then one every `retry_after_s` until one succeeds."""

    def __init__(self, *, retry_after_s: float) -> None:
        self._retry_after_s = retry_after_s
        self._has_failed = False
        self._blocked_until_s = -math.inf

    def may_call(self, now_s: float) -> bool:
        """Say whether this call may be made; report afterwards whether it succeeded."""
        if not self._has_failed:
            return True
        if now_s < self._blocked_until_s:
            return False
        # This call tests the server; meanwhile the others don't wait for it.
        self._blocked_until_s = now_s + self._retry_after_s
        return True

    def succeeded(self) -> None:
        """Note that the server answered."""
        self._has_failed = False

    def failed(self, now_s: float) -> None:
        """Note that the server failed, or was too slow."""
        self._has_failed = True
        self._blocked_until_s = now_s + self._retry_after_s
