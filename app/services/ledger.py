"""What an answer costs its caller: the tokens of a day."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from app.engines.base import Generation, Message
from app.errors import DeadlineExceededError, ServiceError
from app.limits.limit import MAX_AMOUNT, Limit, parse
from app.limits.limiter import Limiter
from app.services.keys import Caller
from app.services.streaming import Ended

QUOTA = "tokens"
# Of a generation that was left nobody says how long its prompt was: about four bytes are a token.
BYTES_PER_TOKEN = 4


class Ledger:
    """Charges callers; one for the process.

    Args:
        limiter: counts, for all replicas that share it.
        is_on: whether callers have limits.

    """

    def __init__(self, limiter: Limiter, *, is_on: bool = True) -> None:
        self._limiter = limiter
        self._is_on = is_on
        self._charging: set[asyncio.Task[None]] = set()

    async def check(self, caller: Caller) -> None:
        """See that something of the caller's day is left.

        Raises:
            RateLimitExceededError: nothing is.

        """
        limit = self._limit(caller)
        if limit is None:
            return
        verdict = await self._limiter.peek(limit, *_who(caller))
        if not verdict.is_allowed:
            raise verdict.refusal()

    async def charge(self, caller: Caller, tokens: int) -> None:
        """Take tokens from the caller's day; for embedding a text is one."""
        limit = self._limit(caller)
        if limit is not None:
            await self._limiter.charge(limit, *_who(caller), cost=tokens)

    @asynccontextmanager
    async def spending(self, caller: Caller, tokens: int) -> AsyncIterator[None]:
        """Charge for the block before it runs: of calls at once none can pass unseen.

        A block that fails costs nothing; one whose caller leaves does.

        Raises:
            RateLimitExceededError: nothing was left before.

        """
        limit = self._limit(caller)
        if limit is None:
            yield
            return
        spent = await self._limiter.spend(limit, *_who(caller), cost=tokens)
        give_back = partial(self._limiter.give_back, limit, *_who(caller), cost=tokens, spent=spent)
        if not spent.is_allowed:
            await give_back()
            raise spent.refusal()
        try:
            yield
        except Exception:
            self._start(give_back())
            raise

    def generated(self, caller: Caller, messages: Sequence[Message], ended: Ended) -> None:
        """Charge a generation, in a task: its stream may end with its client."""
        self._start(self.charge(caller, _cost(messages, ended)))

    async def settle(self) -> None:
        """Wait until what is being charged is charged."""
        await asyncio.gather(*self._charging)

    def _limit(self, caller: Caller) -> Limit | None:
        """Return the caller's bound, if it has one."""
        if not self._is_on or caller.tokens_per_day is None:
            return None
        # Keys of old have quotas that no counter can hold.
        return parse(f"{min(caller.tokens_per_day, MAX_AMOUNT)}/day")

    def _start(self, charge: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(charge)
        self._charging.add(task)
        task.add_done_callback(self._charging.discard)


def _cost(messages: Sequence[Message], ended: Ended) -> int:
    """Return the tokens of a generation, those of its prompt estimated where nobody says them."""
    if isinstance(ended.end, Generation) and ended.end.usage:
        return ended.end.usage.total_tokens
    is_refusal = isinstance(ended.end, ServiceError) and not isinstance(
        ended.end, DeadlineExceededError
    )
    if ended.version is None or (is_refusal and not ended.tokens):
        return 0  # no engine did anything for it
    prompt_bytes = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in messages)
    return prompt_bytes // BYTES_PER_TOKEN + ended.tokens


def _who(caller: Caller) -> tuple[str, str]:
    return QUOTA, f"key:{caller.key_id}"
