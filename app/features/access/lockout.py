"""Limits how many wrong keys an address may send.

Many clients can share an address, so a locked address gets 429 only for invalid keys; valid ones
still work. Stored keys have 256 random bits and can't be guessed: looking them up is only work,
which a locked address gets done one at a time. ADMIN_KEY was chosen by a person and can be guessed.
So each address may try a few different texts in a minute. After that even the right one is refused
there: otherwise a guesser could go through a list of words, and would see which one is accepted.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from app.core.callers import Caller
from app.errors import KeyEndedError, UnauthorizedError
from app.features.access.keys import KeyService
from app.features.access.limits.limit import Verdict, parse
from app.features.access.limits.limiter import Limiter

# More than a person mistypes in a minute.
MAX_WRONG, WINDOW_S = 20, 60.0
FAILURES = parse(f"{MAX_WRONG}/minute")
# About 3.6 KB each with 20 hashes: at most 36 MB.
MAX_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class _Tried:
    """Hashes of the wrong texts that one address sent as ADMIN_KEY, until a window ends."""

    ends_at_s: float
    texts: set[bytes] = field(default_factory=set)


class GuessLimit:
    """Limits the different wrong texts that an address may send as ADMIN_KEY.

    A client that repeats one text, such as yesterday's ADMIN_KEY, isn't guessing. No method awaits:
    otherwise many concurrent guesses could all be compared before the first is counted.

    Args:
        clock: monotonic seconds, since setting the wall clock must not reset the limit.
        wall_clock: seconds since 1970, for the response's headers.

    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._tried: OrderedDict[str, _Tried] = OrderedDict()  # the oldest window first

    def check(self, text: str, *, address: str) -> None:
        """Check that a text may be compared.

        Raises:
            RateLimitExceededError: too many others were wrong.

        """
        tried = self._tried.get(address)
        now_s = self._clock()
        if tried is None or tried.ends_at_s <= now_s or _hash(text) in tried.texts:
            return
        if len(tried.texts) >= MAX_WRONG:
            left_s = tried.ends_at_s - now_s
            raise Verdict(
                is_allowed=False,
                is_counted=True,
                limit=MAX_WRONG,
                remaining=0,
                reset_s=left_s,
                reset_at_s=self._wall_clock() + left_s,
            ).refusal()

    def add(self, text: str, *, address: str) -> None:
        """Count a wrong text."""
        now_s = self._clock()
        while self._tried and next(iter(self._tried.values())).ends_at_s <= now_s:
            self._tried.popitem(last=False)
        tried = self._tried.get(address)
        if tried is None or tried.ends_at_s <= now_s:
            tried = self._tried[address] = _Tried(now_s + WINDOW_S)
            self._tried.move_to_end(address)
        tried.texts.add(_hash(text))
        if len(self._tried) > MAX_ADDRESSES:
            self._tried.popitem(last=False)


class Lockout:
    """Verifies keys, and limits the wrong ones of each address.

    Args:
        keys: verifies them.
        wrong_keys: counts the wrong ones, in this process alone.

    """

    def __init__(self, keys: KeyService, wrong_keys: Limiter) -> None:
        self._keys = keys
        self._wrong_keys = wrong_keys
        self._guess_limit = GuessLimit()

    async def verify(self, text: str, *, address: str) -> Caller:
        """Return whose key this is.

        Raises:
            UnauthorizedError: it is no key, or no longer valid.
            RateLimitExceededError: it is no key, and too many of those came from this address.
            DatabaseUnavailableError: as `KeyService.verify` says; it isn't counted.

        """
        if self._keys.is_admin_like(text):
            self._guess_limit.check(text, address=address)
            if not self._keys.is_admin(text):
                self._guess_limit.add(text, address=address)
        verdict = await self._wrong_keys.peek(FAILURES, "key", address)
        try:
            return await self._keys.verify(text, in_turn=not verdict.is_allowed)
        except KeyEndedError:
            raise  # the whole key is right, so it wasn't guessed
        except UnauthorizedError:
            # Concurrent wrong keys can all pass the check above; this counts each of them.
            verdict = await self._wrong_keys.hit(FAILURES, "key", address)
            if not verdict.is_allowed:
                raise verdict.refusal() from None
            raise


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
