"""What an answer costs its caller: the tokens of a day."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app.core.callers import Caller
from app.engines.chat_base import Generation, Message
from app.errors import DeadlineExceededError, ServiceError
from app.features.access.limits.limit import MAX_AMOUNT, Limit, Verdict, parse
from app.features.access.limits.limiter import Limiter
from app.services.token_stream import FinishedGeneration

QUOTA = "tokens"
# Before a generation, and of one that was left, nobody says how long its prompt is: about four
# bytes are a token.
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What was taken from a caller's day before the work began; nothing where it has no bound."""

    limiter: Limiter
    limit: Limit | None
    who: tuple[str, str]
    tokens: int
    spent: Verdict | None

    async def settle(self, tokens: int) -> None:
        """Make it what the work has cost; call it once."""
        if self.limit is None or self.spent is None:
            return
        if not self.spent.is_counted:  # the counters were away then
            await self.limiter.charge(self.limit, *self.who, cost=tokens)
        elif tokens > self.tokens:
            await self.limiter.charge(self.limit, *self.who, cost=tokens - self.tokens)
        elif tokens < self.tokens:
            await self.limiter.give_back(
                self.limit, *self.who, cost=self.tokens - tokens, spent=self.spent
            )


class Ledger:
    """Charges callers; one for the process.

    Whether anything is left, and the charge, are one step: of calls at once none passes unseen.

    Args:
        limiter: counts, for all replicas that share it.
        is_on: whether callers have limits.

    """

    def __init__(self, limiter: Limiter, *, is_on: bool = True) -> None:
        self._limiter = limiter
        self._is_on = is_on
        self._charging: set[asyncio.Task[None]] = set()

    async def check(self, caller: Caller) -> None:
        """Refuse early, before a body is read, a caller that has nothing left; it takes nothing.

        Raises:
            RateLimitExceededError: nothing is.

        """
        limit = self._limit(caller)
        if limit is None:
            return
        verdict = await self._limiter.peek(limit, *_who(caller))
        if not verdict.is_allowed:
            raise verdict.refusal()

    @asynccontextmanager
    async def spending(self, caller: Caller, tokens: int) -> AsyncIterator[Charge]:
        """Charge for the block before it runs; for embedding a text is a token.

        A block that fails costs nothing; one whose caller leaves does.

        Raises:
            RateLimitExceededError: nothing was left before.

        """
        charge = await self._take(caller, tokens)
        try:
            yield charge
        except Exception:
            self._start(charge.settle(0))
            raise

    async def begin(self, caller: Caller, messages: Sequence[Message]) -> Charge:
        """Charge what is known of a generation before it begins: its prompt, by estimate.

        `generated` is to be told how it ended.

        Raises:
            RateLimitExceededError: nothing was left before.

        """
        return await self._take(caller, max(1, _prompt_tokens(messages)))

    def generated(
        self, charge: Charge, messages: Sequence[Message], ended: FinishedGeneration
    ) -> None:
        """Settle a generation, in a task: its stream may end with its client."""
        self._start(charge.settle(_cost(messages, ended)))

    async def settle(self) -> None:
        """Wait until what is being charged is charged."""
        await asyncio.gather(*self._charging)

    async def _take(self, caller: Caller, tokens: int) -> Charge:
        limit, who = self._limit(caller), _who(caller)
        spent = await self._limiter.spend(limit, *who, cost=tokens) if limit else None
        charge = Charge(limiter=self._limiter, limit=limit, who=who, tokens=tokens, spent=spent)
        if spent is not None and not spent.is_allowed:
            await charge.settle(0)
            raise spent.refusal()
        return charge

    def _limit(self, caller: Caller) -> Limit | None:
        """Return the caller's bound, if it has one."""
        if not self._is_on or caller.tokens_per_day is None:
            return None
        # Keys of old have quotas that no counter can hold.
        return parse(f"{min(caller.tokens_per_day, MAX_AMOUNT)}/day")

    def _start(self, settling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(settling)
        self._charging.add(task)
        task.add_done_callback(self._charging.discard)


def _cost(messages: Sequence[Message], ended: FinishedGeneration) -> int:
    """Return the tokens of a generation, those of its prompt estimated where nobody says them."""
    if isinstance(ended.end, Generation) and ended.end.usage:
        return ended.end.usage.total_tokens
    is_refusal = isinstance(ended.end, ServiceError) and not isinstance(
        ended.end, DeadlineExceededError
    )
    if ended.version is None or (is_refusal and not ended.tokens):
        return 0  # no engine did anything for it
    return _prompt_tokens(messages) + ended.tokens


def _prompt_tokens(messages: Sequence[Message]) -> int:
    prompt_bytes = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in messages)
    return prompt_bytes // BYTES_PER_TOKEN


def _who(caller: Caller) -> tuple[str, str]:
    return QUOTA, f"key:{caller.key_id}"
