"""What an answer costs its caller: the tokens of a day, charged after they were used."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from app.engines.base import Generation
from app.limits.limit import parse
from app.limits.limiter import Limiter
from app.services.keys import Caller
from app.services.streaming import Ended

QUOTA = "tokens"


class Ledger:
    """Charges callers; one for the process.

    Args:
        limiter: counts, for all replicas that share it.

    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._charging: set[asyncio.Task[None]] = set()

    async def check(self, caller: Caller) -> None:
        """See that something of the caller's day is left.

        Raises:
            RateLimitExceededError: nothing is.

        """
        if caller.tokens_per_day is None:
            return
        verdict = await self._limiter.peek(parse(f"{caller.tokens_per_day}/day"), *_who(caller))
        if not verdict.is_allowed:
            raise verdict.refusal()

    async def charge(self, caller: Caller, tokens: int) -> None:
        """Take tokens from the caller's day; for embedding a text is one."""
        if caller.tokens_per_day is not None:
            limit = parse(f"{caller.tokens_per_day}/day")
            await self._limiter.charge(limit, *_who(caller), cost=tokens)

    def generated(self, caller: Caller, ended: Ended) -> None:
        """Charge a generation, in a task: its stream may end with its client."""
        usage = ended.end.usage if isinstance(ended.end, Generation) else None
        self._start(self.charge(caller, usage.total_tokens if usage else ended.tokens))

    async def settle(self) -> None:
        """Wait until what is being charged is charged."""
        await asyncio.gather(*self._charging)

    def _start(self, charge: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(charge)
        self._charging.add(task)
        task.add_done_callback(self._charging.discard)


def _who(caller: Caller) -> tuple[str, str]:
    return QUOTA, f"key:{caller.key_id}"
