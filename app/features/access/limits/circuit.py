"""Whether a server that failed is asked again: pure, `now_s` is passed in."""

import math


class Circuit:
    """Lets everyone through until a call fails; then one call every `rest_s` until one succeeds."""

    def __init__(self, *, rest_s: float) -> None:
        self._rest_s = rest_s
        self._is_broken = False
        self._closed_until_s = -math.inf

    def may_try(self, now_s: float) -> bool:
        """Say whether this call may be made; its caller reports how it went."""
        if not self._is_broken:
            return True
        if now_s < self._closed_until_s:
            return False
        # This caller finds out; the others needn't wait for what it finds.
        self._closed_until_s = now_s + self._rest_s
        return True

    def succeeded(self) -> None:
        """Note that the server answered."""
        self._is_broken = False

    def failed(self, now_s: float) -> None:
        """Note that the server failed, or was too slow."""
        self._is_broken = True
        self._closed_until_s = now_s + self._rest_s
