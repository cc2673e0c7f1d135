"""Limit strings, as slowapi and `limits` write them: `100/minute`, `10/second; 600/hour`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from limits import RateLimitItem, parse_many

from app.errors import RateLimitExceededError

# The library's pattern backtracks: a long run of blanks would take it seconds.
MAX_CHARS = 200
# Far beyond any use, and far below where Redis's 64-bit counters and times to live end.
MAX_AMOUNT = 10**12
MAX_WINDOW_S = 366 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit or several that hold at once, the shortest window first."""

    items: tuple[RateLimitItem, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.items))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a limit says of one caller; of several windows, the one with the least left.

    Args:
        is_allowed: whether the caller may go on.
        is_counted: False when the storage was unavailable, so that the numbers are unknown.
        limit: how much the window allows.
        remaining: how much of it is left, 0 or more.
        reset_s: seconds until the window ends, and the whole limit is available again.
        reset_at_s: when that is, in seconds since 1970.

    """

    is_allowed: bool
    is_counted: bool
    limit: int
    remaining: int
    reset_s: float
    reset_at_s: float

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until something is available again."""
        return max(1, math.ceil(self.reset_s))

    @property
    def headers(self) -> Mapping[str, str]:
        """As slowapi names them; empty when not counted. `Retry-After` is added by the error."""
        if not self.is_counted:
            return {}
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(math.ceil(self.reset_at_s)),
        }

    def refusal(self) -> RateLimitExceededError:
        """Return the error for a refused caller, with all headers."""
        return RateLimitExceededError(
            f"The limit of {self.limit} is used up; try again in {self.retry_after_s} s.",
            retry_after_s=self.retry_after_s,
            headers=self.headers,
        )


@lru_cache(maxsize=1024)  # a key's limit is read again with each of its requests
def parse(text: str) -> Limit:
    """Read a limit string.

    Raises:
        ValueError: it isn't one; the message doesn't repeat it.

    """
    try:
        # slowapi reads an empty text as no limit; here it is more likely a mistake.
        items = parse_many(text) if len(text) <= MAX_CHARS else []
    except ValueError:
        items = []
    if not items:
        raise ValueError("not a limit; write it like '100/minute' or '10/second; 600/hour'")
    for item in items:
        if not 1 <= item.amount <= MAX_AMOUNT:
            raise ValueError(f"a limit must allow from 1 to {MAX_AMOUNT}")
        if item.get_expiry() > MAX_WINDOW_S:
            raise ValueError("a limit's window must not be longer than a year")
    # The same limit twice would be one counter that each request increments twice.
    by_window = sorted(dict.fromkeys(items), key=lambda item: item.get_expiry())
    return Limit(items=tuple(by_window))
