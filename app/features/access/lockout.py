"""Which addresses have sent too many wrong keys, and what is still tried of what they send.

Behind one address may be a guesser, a forgotten client and many others, so an address that is
locked gets 429 for what is no valid key, and nothing else changes. A stored key has 256 random
bits: to look one up is no guess worth a bound, only work, which is done in turn. ADMIN_KEY was
chosen by a person. So of the texts that it could be, a few are compared for each address in a
minute, and once those are used up the right one too is refused there: with an answer for any
number of them, a list of words would find it in time.
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

# A person mistypes a few times in a minute, a guesser doesn't stop there.
MAX_WRONG, WINDOW_S = 20, 60.0
FAILURES = parse(f"{MAX_WRONG}/minute")
# About 3.6 KB each at the worst, 20 texts: 36 MB.
MAX_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class _Tried:
    """Texts that were compared with ADMIN_KEY for one address, as hashes."""

    ends_at_s: float
    texts: set[bytes] = field(default_factory=set)


class Guesses:
    """Counts, for each address, the different texts that were compared with ADMIN_KEY in vain.

    A client that goes on sending one of them, such as yesterday's ADMIN_KEY, doesn't guess. Nothing
    is awaited here, or of many guesses at once each would be compared before one is counted.

    Args:
        clock: monotonic seconds; a wall clock that is set back would end the bound.
        wall_clock: seconds since 1970, for what a client is told.

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
        """Let a text be compared.

        Raises:
            RateLimitExceededError: too many others were.

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
        """Count a text that wasn't it."""
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
    """Verifies keys, and bounds the wrong ones of each address.

    Args:
        keys: knows them.
        counts: in the memory of this process; others count on their own.

    """

    def __init__(self, keys: KeyService, counts: Limiter) -> None:
        self._keys = keys
        self._counts = counts
        self._guesses = Guesses()

    async def verify(self, text: str, *, address: str) -> Caller:
        """Return whose key this is.

        Raises:
            UnauthorizedError: it is no key, or no longer valid.
            RateLimitExceededError: it is no key, and too many of those came from this address.
            DatabaseUnavailableError: as `KeyService.verify` says; it isn't counted.

        """
        if self._keys.is_admin_like(text):
            self._guesses.check(text, address=address)
            if not self._keys.is_admin(text):
                self._guesses.add(text, address=address)
        so_far = await self._counts.peek(FAILURES, "key", address)
        try:
            return await self._keys.verify(text, in_turn=not so_far.is_allowed)
        except KeyEndedError:
            raise  # who has all of a key that was valid hasn't guessed it
        except UnauthorizedError:
            # Of wrong keys at once, all of which passed the look above, so many are told so.
            verdict = await self._counts.hit(FAILURES, "key", address)
            if not verdict.is_allowed:
                raise verdict.refusal() from None
            raise


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
