"""Charges the caller of a generation, and logs how it ended."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import Depends

from app.engines.base import Task
from app.engines.chat_base import Message
from app.errors import ServiceError
from app.http.answer_log import AnswerLog, AnswerLogDep
from app.http.guard import AccessDep, CallerDep
from app.services.access import Tools
from app.services.prediction_log import PredictionLogEntry, to_ms
from app.services.token_stream import FinishedGeneration, OnEnd

# nginx's number for "the client closed the connection", as in the request log.
CLIENT_LEFT = 499

# Takes the messages of a conversation and the tools that it may call; charges their caller, and
# returns the callback for its end.
Account = Callable[[Sequence[Message], Tools], Awaitable[OnEnd]]


def entry_of(
    generation: FinishedGeneration, messages: Sequence[Message], *, log: AnswerLog
) -> PredictionLogEntry:
    """Return the log's entry of a generation; its input is the last message."""
    columns: dict[str, Any] = {
        "model": generation.model,
        "version": generation.version,
        "latency_ms": to_ms(generation.seconds),
        "ttft_ms": None if generation.first_token_s is None else to_ms(generation.first_token_s),
    }
    text, end = messages[-1].content, generation.end
    if end is None:
        return log.entry(Task.CHAT, text, status=CLIENT_LEFT, error="client_left", **columns)
    if isinstance(end, ServiceError):
        return log.failure(end, Task.CHAT, text, **columns)
    return log.entry(
        Task.CHAT,
        text,
        finish_reason=end.finish_reason,
        prompt_tokens=end.usage.prompt_tokens if end.usage else None,
        completion_tokens=end.usage.completion_tokens if end.usage else None,
        **columns,
    )


async def get_account(access: AccessDep, caller: CallerDep, log: AnswerLogDep) -> Account:
    """Return what charges the caller of a generation, and logs it."""

    async def account(messages: Sequence[Message], tools: Tools) -> OnEnd:
        settle = await access.begin(caller, messages, tools)
        log.announce()

        def on_end(generation: FinishedGeneration) -> None:
            log.put(entry_of(generation, messages, log=log))
            settle(generation)

        return on_end

    return account


AccountDep = Annotated[Account, Depends(get_account)]
