"""How many bytes of request bodies are in memory at once: of all requests, and of one caller."""

from collections import Counter
from collections.abc import Callable, Hashable
from enum import StrEnum

# As much as uvicorn reads ahead of the app. A text is smaller by far, and so are most batches.
SMALL_BYTES = 65_536
# Of the whole, that bodies larger than that may have together: uploads leave room for texts.
LARGE_SHARE = 3 / 4
# Of the whole, that one caller's large bodies may have, and its small ones: a quarter is left for
# others whatever it does.
CALLER_LARGE_SHARE = 1 / 2
CALLER_SMALL_SHARE = 1 / 4


class Reason(StrEnum):
    """Whose bytes are too many."""

    ALL = "all"
    CALLER = "caller"


class BodyBudget:
    """Counts what bodies hold, as it arrives: a length that is only announced takes no memory.

    Args:
        max_bytes: of all bodies; at least `largest_bytes`.
        largest_bytes: of one body. A single one of that size always fits.
        on_refused: called with the reason for each body that isn't let in.

    """

    def __init__(
        self, *, max_bytes: int, largest_bytes: int, on_refused: Callable[[Reason], None]
    ) -> None:
        self.held = 0
        self._on_refused = on_refused
        self._max_bytes = max_bytes
        self._max_large = max(largest_bytes, int(max_bytes * LARGE_SHARE))
        self._caller_large = max(largest_bytes, int(max_bytes * CALLER_LARGE_SHARE))
        self._caller_small = max(SMALL_BYTES, int(max_bytes * CALLER_SMALL_SHARE))
        self._large = 0
        self._large_of: Counter[Hashable] = Counter()
        self._small_of: Counter[Hashable] = Counter()

    def hold(self, caller: Hashable) -> "Hold":
        """Return what counts one body of a caller."""
        return Hold(self, caller)

    def refusal(self, caller: Hashable, size: int, more: int) -> Reason | None:
        """Say why a body of `size` bytes may not grow by `more`; None if it may."""
        if self.held + more > self._max_bytes:
            return Reason.ALL
        if size + more <= SMALL_BYTES:
            is_over = self._small_of[caller] + more > self._caller_small
            return Reason.CALLER if is_over else None
        added = more if size > SMALL_BYTES else size + more
        if self._large + added > self._max_large:
            return Reason.ALL
        is_over = self._large_of[caller] + added > self._caller_large
        return Reason.CALLER if is_over else None

    def count(self, caller: Hashable, size: int, *, before: int) -> None:
        """Count a body at its size, where it was counted at another one before."""
        self.held += size - before
        large, large_before = _large(size), _large(before)
        self._large += large - large_before
        _add(self._large_of, caller, large - large_before)
        _add(self._small_of, caller, (size - large) - (before - large_before))

    def note(self, reason: Reason) -> None:
        """Count a refusal."""
        self._on_refused(reason)


class Hold:
    """What one body holds."""

    __slots__ = ("_budget", "_caller", "_size")

    def __init__(self, budget: BodyBudget, caller: Hashable) -> None:
        self._budget = budget
        self._caller = caller
        self._size = 0

    def may_grow(self, more: int) -> bool:
        """Say whether so many bytes more would fit now; a refusal is counted."""
        reason = self._budget.refusal(self._caller, self._size, more)
        if reason is not None:
            self._budget.note(reason)
        return reason is None

    def grow(self, more: int) -> bool:
        """Count bytes that have come; False where they don't fit: then nothing is held any more."""
        if not self.may_grow(more):
            self.release()
            return False
        self._set(self._size + more)
        return True

    def release(self) -> None:
        """Count the body as gone."""
        self._set(0)

    def _set(self, size: int) -> None:
        self._budget.count(self._caller, size, before=self._size)
        self._size = size


def _large(size: int) -> int:
    return size if size > SMALL_BYTES else 0


def _add(counts: Counter[Hashable], caller: Hashable, more: int) -> None:
    """Add; callers without bytes have no entry, so that the table doesn't grow with them."""
    if more:
        counts[caller] += more
        if not counts[caller]:
            del counts[caller]
