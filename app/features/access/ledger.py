"""Token quotas: what a request costs of its caller's tokens of the day."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app.core.callers import Caller
from app.engines.chat_base import Generation, Message
from app.errors import DeadlineExceededError, ServiceError
from app.features.access.limits.limit import MAX_AMOUNT, Limit, Verdict, parse
from app.features.access.limits.limiter import Limiter
from app.services.access import Tools
from app.services.token_stream import FinishedGeneration

QUOTA = "tokens"
# Before a generation, and after one that its client left, the prompt's tokens are unknown: they
# are estimated at four bytes a token.
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What was charged to a caller's quota before the work began; nothing if it has none."""

    limiter: Limiter
    limit: Limit | None
    identifiers: tuple[str, str]
    tokens: int
    spent: Verdict | None

    async def settle(self, tokens: int) -> None:
        """Correct the charge to what the work has cost; call it once."""
        if self.limit is None or self.spent is None:
            return
        if not self.spent.is_counted:  # the storage was unavailable then
            await self.limiter.charge(self.limit, *self.identifiers, cost=tokens)
        elif tokens > self.tokens:
            await self.limiter.charge(self.limit, *self.identifiers, cost=tokens - self.tokens)
        elif tokens < self.tokens:
            await self.limiter.give_back(
                self.limit, *self.identifiers, cost=self.tokens - tokens, spent=self.spent
            )


class Ledger:
    """Charges callers; one for the process.

    The check and the charge are one step: concurrent calls can't pass on the same remaining tokens.

    Args:
        limiter: counts, for all replicas that share it.
        is_on: whether callers have limits.

    """

    def __init__(self, limiter: Limiter, *, is_on: bool = True) -> None:
        self._limiter = limiter
        self._is_on = is_on
        self._settlements: set[asyncio.Task[None]] = set()

    async def check(self, caller: Caller) -> None:
        """Refuse a caller that has nothing left, before its body is read; charge nothing.

        Raises:
            RateLimitExceededError: nothing is left.

        """
        limit = self._limit(caller)
        if limit is None:
            return
        verdict = await self._limiter.peek(limit, *_identifiers(caller))
        if not verdict.is_allowed:
            raise verdict.refusal()

    @asynccontextmanager
    async def spending(self, caller: Caller, tokens: int) -> AsyncIterator[Charge]:
        """Charge tokens before the block runs; for embedding a text counts as one.

        A block that fails is refunded; one whose caller leaves isn't.

        Raises:
            RateLimitExceededError: nothing was left before.

        """
        charge = await self._take(caller, tokens)
        try:
            yield charge
        except Exception:
            self._start(charge.settle(0))
            raise

    async def begin(self, caller: Caller, messages: Sequence[Message], tools: Tools = ()) -> Charge:
        """Charge the estimated prompt of a generation before it begins.

        Call `generated` when it has ended.

        Raises:
            RateLimitExceededError: nothing was left before.

        """
        return await self._take(caller, max(1, _prompt_tokens(messages, tools)))

    def generated(self, charge: Charge, ended: FinishedGeneration) -> None:
        """Settle a generation, in a task of its own: the client's leaving cancels the stream."""
        self._start(charge.settle(_cost(charge.tokens, ended)))

    async def settle(self) -> None:
        """Wait for settlements that still run."""
        await asyncio.gather(*self._settlements)

    async def _take(self, caller: Caller, tokens: int) -> Charge:
        limit, identifiers = self._limit(caller), _identifiers(caller)
        spent = await self._limiter.spend(limit, *identifiers, cost=tokens) if limit else None
        charge = Charge(
            limiter=self._limiter, limit=limit, identifiers=identifiers, tokens=tokens, spent=spent
        )
        if spent is not None and not spent.is_allowed:
            await charge.settle(0)
            raise spent.refusal()
        return charge

    def _limit(self, caller: Caller) -> Limit | None:
        """Return the caller's quota, if it has one."""
        if not self._is_on or caller.tokens_per_day is None:
            return None
        # Older versions allowed quotas that no counter can hold.
        return parse(f"{min(caller.tokens_per_day, MAX_AMOUNT)}/day")

    def _start(self, settling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(settling)
        self._settlements.add(task)
        task.add_done_callback(self._settlements.discard)


def _cost(estimated: int, ended: FinishedGeneration) -> int:
    """Return the tokens of a generation; of its prompt as estimated if no engine counted them."""
    if isinstance(ended.end, Generation) and ended.end.usage:
        return ended.end.usage.total_tokens
    is_refusal = isinstance(ended.end, ServiceError) and not isinstance(
        ended.end, DeadlineExceededError
    )
    if ended.version is None or (is_refusal and not ended.tokens):
        return 0  # no engine worked on it
    return estimated + ended.tokens


def _prompt_tokens(messages: Sequence[Message], tools: Tools) -> int:
    texts = [text for message in messages for text in message.texts]
    # A model reads them in the prompt: its template, or ours, writes them there.
    texts += [json.dumps(tool, ensure_ascii=False) for tool in tools]
    prompt_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return prompt_bytes // BYTES_PER_TOKEN


def _identifiers(caller: Caller) -> tuple[str, str]:
    return QUOTA, f"key:{caller.key_id}"
