"""What a chat model would say first: the probabilities of the next token, without an answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Thread
from typing import Protocol, runtime_checkable

from app.core.call_scope import CallScope, in_scope
from app.engines.chat_base import Message, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToken:
    """How likely each token is to be the first of an answer.

    Args:
        probabilities: by the tokens' texts, the likeliest tokens alone; among all tokens of the
            vocabulary they sum up to 1.
        usage: of reading the prompt.

    """

    probabilities: Mapping[str, float] = field(default_factory=dict)
    usage: Usage


@runtime_checkable
class FirstTokenReader(Protocol):
    """A chat model whose probabilities can be read."""

    one_token_labels: tuple[str, ...]  # of A, B, … AA, AB, …: those that are one token

    def first_token(
        self, messages: Sequence[Message], *, is_left: Callable[[], bool]
    ) -> FirstToken:
        """Read a prompt, and say what would come first; blocks its thread.

        Args:
            messages: the prompt.
            is_left: says that nobody waits any more; asked while the prompt is read.

        Raises:
            ContextLengthExceededError: the prompt is longer than the context.

        """
        ...


def reader_of(engine: object) -> FirstTokenReader | None:
    """Return what reads a chat engine's probabilities; None where nothing does."""
    own = getattr(engine, "generator", None) or getattr(engine, "first_tokens", None)
    return own if isinstance(own, FirstTokenReader) else None


async def read_in_turn(
    reader: FirstTokenReader,
    prompts: Sequence[Sequence[Message]],
    *,
    thread_name: str,
    until_s: float,
    on_read: Callable[[], None],
) -> list[FirstToken]:
    """Read prompts one after another, so that each finds the beginning that they share cached.

    When cancelled, it ends with the piece of the prompt that is being read; a call of another
    server is stopped.

    Args:
        reader: called in a thread of its own.
        prompts: with the same beginning.
        thread_name: for that thread.
        until_s: when the answer is of no use any more, as `time.monotonic` counts.
        on_read: called there after each.

    """
    result: Future[list[FirstToken]] = Future()
    waiting = asyncio.get_running_loop().create_future()
    scope = CallScope(until_s=until_s, waiting=(waiting,))

    def read() -> None:
        found = []
        try:
            with in_scope(scope):
                for messages in prompts:
                    if scope.is_left:
                        break
                    found.append(reader.first_token(messages, is_left=lambda: scope.is_left))
                    on_read()
            result.set_result(found)
        except BaseException as failure:  # noqa: BLE001  # the waiter raises it
            result.set_exception(failure)

    ended = asyncio.wrap_future(result)
    # Not from a pool: at its end the process would wait for a thread that is stuck.
    Thread(target=copy_context().run, args=(read,), name=thread_name, daemon=True).start()
    try:
        return await asyncio.shield(ended)
    finally:
        waiting.cancel()
        await asyncio.wait({ended})
        ended.exception()  # else asyncio would log that nothing has read it
